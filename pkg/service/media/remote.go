package media

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/store/mediadb"
)

// Where other servers have media.
const (
	fedDownload = "/_matrix/federation/v1/media/download/"
	oldDownload = "/_matrix/media/v3/download/"
)

// maxMetadata bounds what stands before a content, and after it.
const maxMetadata = 64 << 10

// fetch brings media of another server here, once for all who want it.
func (s *Service) fetch(ctx context.Context, k mediadb.Key, wait time.Duration) (*mediadb.Media, error) {
	if err := s.failures.of(k); err != nil {
		return nil, err
	}
	found, err := s.fetches.do(ctx, s.tasks, k, func(ctx context.Context) (*mediadb.Media, error) {
		ctx, cancel := context.WithTimeout(ctx, s.cfg.FetchTime)
		defer cancel()
		if err := s.fetching.Acquire(ctx, 1); err != nil {
			return nil, unreachable(err)
		}
		defer s.fetching.Release(1)
		m, err := s.fetchOnce(ctx, k, wait)
		s.fetched.WithLabelValues(outcome(err)).Inc()
		if err != nil {
			if err = s.refusal(ctx, k, err); !mxerr.Is(err, mxerr.NotYetUploaded) && !errors.Is(err, context.Canceled) {
				s.failures.add(k, err)
			}
			return nil, err
		}
		return m, nil
	})
	if err != nil {
		return nil, err
	}
	m := *found
	if m.QuarantinedBy != "" {
		return nil, notFound()
	}
	return &m, nil
}

func unreachable(err error) error {
	return mxerr.New(mxerr.Unknown, "The media could not be fetched from its server").WithStatus(http.StatusBadGateway).WithCause(err)
}

// refusal gives what is answered when media could not be fetched.
func (s *Service) refusal(ctx context.Context, k mediadb.Key, err error) error {
	var refused *RefusedError
	var own *mxerr.Error
	switch {
	case errors.As(err, &own), errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &refused) && refused.Code == string(mxerr.NotYetUploaded):
		return notYet()
	case errors.As(err, &refused) && refused.Code == string(mxerr.TooLarge):
		return tooLargeElsewhere()
	case errors.As(err, &refused) && refused.Status == http.StatusNotFound:
		return notFound().WithCause(err)
	}
	s.o.Log.DebugContext(ctx, "media was not fetched", "server", k.Origin, "error", err)
	return unreachable(err)
}

func (s *Service) fetchOnce(ctx context.Context, k mediadb.Key, wait time.Duration) (*mediadb.Media, error) {
	// Another worker may have been quicker, and somebody before us.
	if m, ok, err := s.o.DB.Get(ctx, k); err != nil || ok && m.SHA256 != nil {
		return &m, err
	}
	body, err := s.openRemote(ctx, k, wait)
	if err != nil {
		return nil, err
	}
	defer body.close()
	m := mediadb.Media{
		Key: k, Kind: mediadb.Remote, Created: s.now(), ContentType: cleanType(body.contentType), FileName: nameOf(body.disposition), Open: s.cfg.Open,
	}
	if body.size > s.cfg.MaxRemote {
		return nil, tooLargeElsewhere()
	}
	if err := s.store(ctx, &bounded{body.r, s.cfg.MaxRemote, tooLargeElsewhere()}, body.size, &m); err != nil {
		return nil, err
	}
	switch err := s.o.DB.Add(ctx, &m); {
	case errors.Is(err, mediadb.ErrExists):
		s.abandon(ctx, m.Blob)
	case err != nil:
		s.abandon(ctx, m.Blob)
		return nil, err
	}
	m, ok, err := s.o.DB.Get(ctx, k) // it may be quarantined for its content
	if err == nil && !ok {
		err = notFound()
	}
	return &m, err
}

// remoteBody is a content as another server gives it.
type remoteBody struct {
	r                        io.Reader
	contentType, disposition string
	size                     int64 // -1: not said
	close                    func()
}

// openRemote asks another server: at the endpoint that wants a signature, and if it does not know that, at the old one.
func (s *Service) openRemote(ctx context.Context, k mediadb.Key, wait time.Duration) (*remoteBody, error) {
	query := url.Values{"timeout_ms": {strconv.FormatInt(wait.Milliseconds(), 10)}}
	server := id.ServerName(k.Origin)
	resp, err := s.o.Remote.Open(ctx, server, fedDownload+k.ID, query, true)
	if err == nil {
		return s.openParts(ctx, resp)
	}
	if !unrecognized(err) {
		return nil, err
	}
	query.Set("allow_remote", "false")
	resp, err = s.o.Remote.Open(ctx, server, oldDownload+url.PathEscape(k.Origin)+"/"+k.ID, query, false) //nolint:bodyclose // whoever reads it closes it
	if err != nil {
		return nil, err
	}
	return bodyOf(resp), nil
}

// unrecognized tells whether a server has no such endpoint. Those that do not say so in Matrix's words refuse in other words, or none.
func unrecognized(err error) bool {
	var e *RefusedError
	return errors.As(err, &e) && (e.Code == string(mxerr.Unrecognized) || e.Code == "" && e.Status/100 == 4)
}

func bodyOf(resp *http.Response) *remoteBody {
	return &remoteBody{
		r: resp.Body, contentType: resp.Header.Get("Content-Type"), disposition: resp.Header.Get("Content-Disposition"), size: resp.ContentLength,
		close: func() { _ = resp.Body.Close() },
	}
}

// openParts reads an answer of two parts up to the content.
func (s *Service) openParts(ctx context.Context, resp *http.Response) (*remoteBody, error) {
	limited := io.LimitReader(resp.Body, s.cfg.MaxRemote+2*maxMetadata)
	part, err := contentPart(resp.Header.Get("Content-Type"), limited)
	if err != nil {
		_ = resp.Body.Close()
		return nil, err
	}
	if to := part.Header.Get("Location"); to != "" {
		_ = resp.Body.Close()
		return s.openElsewhere(ctx, to)
	}
	return &remoteBody{
		r: part, contentType: part.Header.Get("Content-Type"), disposition: part.Header.Get("Content-Disposition"), size: -1,
		close: func() { _ = resp.Body.Close() },
	}, nil
}

var errParts = errors.New("the answer is not the two parts that it has to be")

// contentPart finds the second part of an answer: the first says something of it, and so far nothing.
func contentPart(contentType string, body io.Reader) (*multipart.Part, error) {
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil || kind != "multipart/mixed" || params["boundary"] == "" {
		return nil, fmt.Errorf("%w: %.100q", errParts, contentType)
	}
	parts := multipart.NewReader(body, params["boundary"])
	about, err := parts.NextRawPart()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errParts, err)
	}
	if n, err := io.Copy(io.Discard, io.LimitReader(about, maxMetadata)); err != nil || n == maxMetadata {
		return nil, fmt.Errorf("%w: its first part is too long, or cut short", errParts)
	}
	content, err := parts.NextRawPart()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errParts, err)
	}
	return content, nil
}

// openElsewhere follows another server's hint to where it has its files.
func (s *Service) openElsewhere(ctx context.Context, to string) (*remoteBody, error) {
	u, err := url.Parse(to)
	if err != nil || u.Scheme != "https" || u.Host == "" || len(to) > 8<<10 || s.o.HTTP == nil {
		return nil, fmt.Errorf("%w: its content is at no URL that can be followed", errParts)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errParts, err)
	}
	resp, err := s.o.HTTP.Do(req)
	if err != nil {
		return nil, fmt.Errorf("fetch content from elsewhere: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("fetch content from elsewhere: it answered %s", resp.Status)
	}
	return bodyOf(resp), nil
}
