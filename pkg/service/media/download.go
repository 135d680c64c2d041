package media

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/blob"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/store/mediadb"
)

// How long a request may wait for a content that is not there yet.
const (
	DefaultWait = 20 * time.Second
	MaxWait     = time.Minute
)

// Want is what somebody asks for.
type Want struct {
	URI id.MXC
	// Wait is how long to wait for a content that is announced.
	Wait time.Duration
	// Anonymous is somebody without an access token.
	Anonymous bool
	// Local asks for nothing that is not here.
	Local bool
}

// Download gives a content.
func (s *Service) Download(ctx context.Context, w Want) (*Content, error) {
	m, err := s.find(ctx, w)
	if err != nil {
		return nil, err
	}
	c, err := s.whole(ctx, m)
	if err != nil {
		return nil, err
	}
	s.served.WithLabelValues("content").Inc()
	return c, nil
}

// whole gives the content of media.
func (s *Service) whole(ctx context.Context, m *mediadb.Media) (*Content, error) {
	b, err := s.open(ctx, m.Blob)
	if err != nil {
		return nil, err
	}
	s.use(m)
	return &Content{Body: b, Size: b.Size(), ContentType: m.ContentType, FileName: m.FileName, ETag: etag(m.SHA256, "")}, nil
}

func (s *Service) open(ctx context.Context, name string) (blob.Blob, error) {
	b, err := s.o.Blobs.Open(ctx, name)
	if errors.Is(err, blob.ErrNotFound) {
		// The row says that it is there: the store was lost, or is not the one that the other workers have.
		s.o.Log.ErrorContext(ctx, "a content is not in the media store; do all workers share it?", "error", err)
		return nil, mxerr.New(mxerr.NotFound, "The media was lost").WithCause(err)
	}
	if err != nil {
		return nil, fmt.Errorf("open content: %w", err)
	}
	return b, nil
}

func notFound() *mxerr.Error { return mxerr.New(mxerr.NotFound, "Media not found") }

// find gives media that has its content.
func (s *Service) find(ctx context.Context, w Want) (*mediadb.Media, error) {
	k := mediadb.Key{Origin: string(w.URI.Server), ID: w.URI.Media}
	m, ok, err := s.o.DB.Get(ctx, k)
	if err != nil {
		return nil, err
	}
	own := w.URI.Server == s.o.Server
	switch {
	case ok && m.QuarantinedBy != "":
		return nil, notFound()
	case w.Anonymous && !s.cfg.Open && (!ok || !m.Open || m.SHA256 == nil):
		return nil, notFound()
	case ok && m.SHA256 != nil:
		return &m, nil
	case ok && own:
		return s.await(ctx, k, w.Wait)
	case own, w.Local, s.o.Remote == nil:
		return nil, notFound()
	}
	return s.fetch(ctx, k, w.Wait)
}

// await waits for a content that is announced.
func (s *Service) await(ctx context.Context, k mediadb.Key, wait time.Duration) (*mediadb.Media, error) {
	told, leave := s.waiting.join((id.MXC{Server: id.ServerName(k.Origin), Media: k.ID}).String())
	defer leave()
	end := time.NewTimer(min(wait, MaxWait))
	defer end.Stop()
	poll := time.NewTicker(s.cfg.Poll)
	defer poll.Stop()
	for {
		// After joining: what came before was not told.
		m, ok, err := s.o.DB.Get(ctx, k)
		switch {
		case err != nil:
			return nil, err
		case !ok, m.SHA256 == nil && m.Expires <= s.now(), m.QuarantinedBy != "":
			return nil, notFound()
		case m.SHA256 != nil:
			return &m, nil
		}
		select {
		case <-told:
		case <-poll.C:
		case <-end.C:
			return nil, notYet()
		case <-s.tasks.Context().Done(): // the worker stops; the client comes again
			return nil, notYet()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func notYet() error { return mxerr.New(mxerr.NotYetUploaded, "Content has not yet been uploaded") }

// tooLargeElsewhere is about a content of another server.
func tooLargeElsewhere() error {
	return mxerr.New(mxerr.TooLarge, "Content is too large to serve").WithStatus(http.StatusBadGateway)
}
