package app

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/heddle-im/heddle/pkg/config"
	"github.com/heddle-im/heddle/pkg/infra/blob"
	"github.com/heddle-im/heddle/pkg/infra/bus"
	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/infra/outhttp"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/remote/fedclient"
	"github.com/heddle-im/heddle/pkg/service/media"
	"github.com/heddle-im/heddle/pkg/store/mediadb"
)

// mediaSubject is where workers tell each other that a URI has its content.
const mediaSubject = "media.uploaded"

// imageParts of the memory are for making pictures smaller, at least imageLeast and at most imageMost.
const (
	imageParts = 8
	imageLeast = 64 << 20
	imageMost  = 1 << 30
)

// openMedia makes the media repository, which every part of a process has in common.
func (s *shared) openMedia(group *lifecycle.Group) error {
	c := s.cfg.Media
	blobs, err := openBlobs(s.base)
	if err != nil {
		return err
	}
	var remote media.Remote
	if s.cfg.Federation.Enabled {
		remote = mediaServers{s.remote}
	}
	roots, err := rootsOf(s.cfg.Federation.CAFile)
	if err != nil {
		return &config.Error{Key: "federation.ca_file", Problem: err.Error()}
	}
	elsewhere := media.NewClient(outhttp.NewGuard(s.cfg.Federation.AllowNetworks, s.cfg.Federation.DenyNetworks), roots)
	s.onClose(elsewhere.CloseIdleConnections)
	var previews *http.Client
	if c.URLPreviews.Enabled {
		previews = media.NewClient(outhttp.NewGuard(c.URLPreviews.AllowNetworks, s.cfg.Federation.DenyNetworks), roots)
		s.onClose(previews.CloseIdleConnections)
	}
	sizes := make([]media.Size, len(c.Thumbnails))
	for i, t := range c.Thumbnails {
		sizes[i] = media.Size(t)
	}
	s.media = media.New(context.Background(), media.Config{
		MaxUpload: int64(c.MaxUpload), MaxRemote: int64(c.MaxRemote), UserQuota: int64(c.UserQuota), MaxPixels: c.MaxPixels, Sizes: sizes,
		ImageMemory: min(max(s.memory/imageParts, imageLeast), imageMost), Open: c.AllowUnauthenticated, Retention: c.RemoteRetention,
		PreviewLifetime: c.URLPreviews.Lifetime,
	}, media.Options{
		Server: s.base.server, DB: mediadb.NewDB(s.db.Primary, s.shards), Blobs: blobs, Remote: remote, HTTP: elsewhere, Previews: previews,
		Tell:   func(uri string) { _ = s.bus.Publish(bus.Message{Subject: mediaSubject, Data: []byte(uri)}) }, // who does not hear it looks
		Random: func() string { return strings.ToLower(rand.Text()) }, Now: s.now, Metrics: s.tel.Metrics, Log: s.log,
	})
	if err := s.subscribe(mediaSubject, func(data []byte) { s.media.Hear(string(data)) }); err != nil {
		return err
	}
	group.Add("media", s.media)
	return nil
}

func openBlobs(b *base) (blob.Store, error) {
	c := b.cfg.Media
	if c.S3.Endpoint != "" {
		store, err := blob.OpenS3(blob.S3Config{
			Endpoint: c.S3.Endpoint, Region: c.S3.Region, Bucket: c.S3.Bucket, AccessKey: c.S3.AccessKey, SecretKey: c.S3.SecretKey,
			Prefix: c.S3.Prefix, PathStyle: c.S3.PathStyle,
		})
		if err != nil {
			return nil, &config.Error{Key: "media.s3", Problem: err.Error()}
		}
		return store, nil
	}
	store, err := blob.OpenFolder(c.Path)
	if err != nil {
		return nil, &config.Error{Key: "media.path", Problem: err.Error()}
	}
	b.onClose(func() { _ = store.Close() })
	return store, nil
}

// mediaServers asks other homeservers for media.
type mediaServers struct{ client *fedclient.Client }

// Open implements media.Remote.
func (m mediaServers) Open(ctx context.Context, server id.ServerName, path string, query url.Values, signed bool) (*http.Response, error) {
	resp, err := m.client.Open(ctx, server, fedclient.Request{Method: http.MethodGet, Path: path, Query: query, Unsigned: !signed})
	if refused, ok := errors.AsType[*fedclient.RefusedError](err); ok {
		out := &media.RefusedError{Status: refused.Status}
		if refused.Err != nil {
			out.Code, out.Message = string(refused.Err.Code), refused.Err.Message
		}
		return nil, out
	}
	return resp, err
}

// mediaEvery is how often it is looked for media that have served their time.
const mediaEvery = 5 * time.Minute

// sweepMedia removes what has served its time, as long as ctx lasts.
func (b *background) sweepMedia(ctx context.Context) {
	t := time.NewTicker(mediaEvery)
	defer t.Stop()
	for {
		if err := b.media.Sweep(ctx); err != nil && ctx.Err() == nil {
			b.log.Warn("not all media that have served their time were removed; the next round does", "error", err)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}
