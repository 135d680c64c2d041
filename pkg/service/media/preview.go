package media

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/heddle-im/heddle/pkg/infra/outhttp"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/media/internal/preview"
	"github.com/heddle-im/heddle/pkg/store/mediadb"
)

const (
	// maxURL bounds the URL that is to be looked at.
	maxURL = 4 << 10
	// previewTime bounds the looking at a URL, with its picture.
	previewTime = 30 * time.Second
	// maxPreviewImage bounds its picture.
	maxPreviewImage = 10 << 20
)

// Preview gives what the page at a URL says of itself, as JSON.
func (s *Service) Preview(ctx context.Context, raw string) ([]byte, error) {
	if s.o.Previews == nil {
		return nil, mxerr.New(mxerr.Unrecognized, "URL previews are not enabled on this server")
	}
	u, err := previewURL(raw)
	if err != nil {
		return nil, err
	}
	key := sha256.Sum256([]byte(u.String()))
	answer, ok, err := s.o.DB.Preview(ctx, key, s.now())
	if err != nil || ok {
		return answer, err
	}
	return s.looks.do(ctx, s.tasks, key, func(ctx context.Context) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, previewTime)
		defer cancel()
		b, err := s.look(ctx, u)
		s.looked.WithLabelValues(outcome(err)).Inc()
		if err != nil {
			return nil, err
		}
		now := s.now()
		if err := s.o.DB.KeepPreview(ctx, key, b, now, now+s.cfg.PreviewLifetime.Milliseconds()); err != nil {
			return nil, err
		}
		return b, nil
	})
}

// previewURL refuses what is no URL of the web. Low ports but the usual ones are those of services that do not speak HTTP.
func previewURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || len(raw) > maxURL || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
		return nil, mxerr.New(mxerr.InvalidParam, "url is no URL that can be looked at")
	}
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n < 1024 && n != 80 && n != 443 {
			return nil, mxerr.New(mxerr.InvalidParam, "url is no URL that can be looked at")
		}
	}
	u.Fragment, u.RawFragment = "", ""
	return u, nil
}

func (s *Service) get(ctx context.Context, u *url.URL, accept string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Accept", accept)
	req.Header.Set("User-Agent", "Mozilla/5.0 (compatible; Heddle; URL preview)")
	resp, err := s.o.Previews.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("it answered %s", resp.Status)
	}
	return resp, nil
}

// look fetches a page, and the picture that it names.
func (s *Service) look(ctx context.Context, u *url.URL) ([]byte, error) {
	resp, err := s.get(ctx, u, "text/html,application/xhtml+xml,image/*;q=0.8")
	if errors.Is(err, outhttp.ErrDenied) {
		return nil, mxerr.New(mxerr.Forbidden, "The URL is in a network that is not looked at").WithCause(err)
	}
	if err != nil {
		return nil, mxerr.New(mxerr.Unknown, "The URL could not be looked at").WithStatus(http.StatusBadGateway).WithCause(err)
	}
	defer func() { _ = resp.Body.Close() }()
	out := map[string]any{}
	contentType := resp.Header.Get("Content-Type")
	kind, _, _ := mime.ParseMediaType(contentType)
	switch {
	case kind == "text/html", kind == "application/xhtml+xml", kind == "":
		page, err := preview.Read(resp.Body, contentType, resp.Request.URL)
		if err != nil {
			return nil, mxerr.New(mxerr.Unknown, "The page could not be read").WithStatus(http.StatusBadGateway).WithCause(err)
		}
		for k, v := range page.Properties {
			out[k] = v
		}
		if page.Image != nil {
			s.fetchImage(ctx, page.Image, out)
		}
	case len(kind) > 6 && kind[:6] == "image/":
		if err := s.keepImage(ctx, resp.Body, out); err == nil {
			out["og:title"] = path.Base(resp.Request.URL.Path)
		}
	}
	return json.Marshal(out, json.Deterministic(true))
}

// fetchImage adds a page's picture to what is said of it. Without it, the rest is good too.
func (s *Service) fetchImage(ctx context.Context, at *url.URL, out map[string]any) {
	u, err := previewURL(at.String())
	if err == nil {
		var resp *http.Response
		if resp, err = s.get(ctx, u, "image/*"); err == nil {
			defer func() { _ = resp.Body.Close() }()
			err = s.keepImage(ctx, resp.Body, out)
		}
	}
	if err != nil {
		s.o.Log.DebugContext(ctx, "a preview has no picture", "error", err)
	}
}

var errLongImage = errors.New("the picture is too large")

// keepImage stores a picture, and says what it is.
func (s *Service) keepImage(ctx context.Context, body io.Reader, out map[string]any) error {
	m := mediadb.Media{
		Key: mediadb.Key{Origin: string(s.o.Server), ID: s.o.Random()}, Kind: mediadb.Preview, Created: s.now(), Open: s.cfg.Open,
	}
	if err := s.store(ctx, &bounded{body, maxPreviewImage, errLongImage}, -1, &m); err != nil {
		return err
	}
	info, err := s.probe(ctx, &m)
	if err != nil {
		s.abandon(ctx, m.Blob)
		return err
	}
	m.ContentType, m.FileName = string(info.Format), "preview"+ending(string(info.Format))
	if err := s.o.DB.Add(ctx, &m); err != nil {
		s.abandon(ctx, m.Blob)
		return err
	}
	out["og:image"] = id.MXC{Server: s.o.Server, Media: m.ID}.String()
	out["og:image:type"], out["og:image:width"], out["og:image:height"] = string(info.Format), info.Width, info.Height
	out["matrix:image:size"] = m.Size
	return nil
}
