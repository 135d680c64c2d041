package read

import (
	"context"
	"net/http"

	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/media"
)

// MediaStore gives contents. It is *media.Service.
type MediaStore interface {
	Download(ctx context.Context, w media.Want) (*media.Content, error)
	Thumbnail(ctx context.Context, w media.WantThumbnail) (*media.Content, error)
	Preview(ctx context.Context, url string) ([]byte, error)
	MaxUpload() int64
}

// Media answers downloads.
type Media struct{ store MediaStore }

// NewMedia makes the handlers.
func NewMedia(store MediaStore) *Media { return &Media{store} }

// Handlers gives the handlers by the names of their rows.
func (h *Media) Handlers() httpx.Handlers {
	return httpx.Handlers{
		"getContentAuthed":             h.download(false),
		"getContentOverrideNameAuthed": h.download(false),
		"getContentThumbnailAuthed":    h.thumbnail(false),
		"getConfigAuthed":              h.config,
		"getContent":                   h.download(true),
		"getContentOverrideName":       h.download(true),
		"getContentThumbnail":          h.thumbnail(true),
		"getConfig":                    h.config,
		"getUrlPreviewAuthed":          h.preview,
		"getUrlPreview":                h.preview,
	}
}

func (h *Media) config(w http.ResponseWriter, _ *http.Request) error {
	return httpx.WriteJSON(w, http.StatusOK, struct {
		Size int64 `json:"m.upload.size"`
	}{h.store.MaxUpload()})
}

func (h *Media) preview(w http.ResponseWriter, r *http.Request) error {
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	url, err := p.Required("url")
	if err != nil {
		return err
	}
	// The newest one is as good as what was there at the time that the client prefers.
	if _, _, err := p.Int("ts"); err != nil {
		return err
	}
	answer, err := h.store.Preview(r.Context(), url)
	if err != nil {
		return err
	}
	httpx.WriteRaw(w, http.StatusOK, answer)
	return nil
}

// want reads what a request asks for.
func want(r *http.Request, p httpx.Params, anonymous bool) (media.Want, error) {
	uri, err := id.ParseMXC("mxc://" + httpx.Var(r, "serverName") + "/" + httpx.Var(r, "mediaId"))
	if err != nil {
		return media.Want{}, mxerr.New(mxerr.InvalidParam, "The server's name or the media ID is malformed").WithCause(err)
	}
	out := media.Want{URI: uri, Anonymous: anonymous}
	if out.Wait, err = p.Patience("timeout_ms", media.DefaultWait, media.MaxWait); err != nil || !anonymous {
		return out, err
	}
	remote, err := p.Bool("allow_remote", true)
	out.Local = !remote
	return out, err
}

func (h *Media) download(anonymous bool) httpx.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		p, err := httpx.Query(r)
		if err != nil {
			return err
		}
		q, err := want(r, p, anonymous)
		if err != nil {
			return err
		}
		c, err := h.store.Download(r.Context(), q)
		if err != nil {
			return err
		}
		if name := httpx.Var(r, "fileName"); name != "" {
			c.FileName = name
		}
		serve(w, r, c, anonymous)
		return nil
	}
}

func (h *Media) thumbnail(anonymous bool) httpx.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		p, err := httpx.Query(r)
		if err != nil {
			return err
		}
		q := media.WantThumbnail{}
		if q.Want, err = want(r, p, anonymous); err != nil {
			return err
		}
		t, err := p.Thumbnail()
		if err != nil {
			return err
		}
		q.Width, q.Height, q.Crop, q.Animated = t.Width, t.Height, t.Crop, t.Animated
		c, err := h.store.Thumbnail(r.Context(), q)
		if err != nil {
			return err
		}
		serve(w, r, c, anonymous)
		return nil
	}
}

func serve(w http.ResponseWriter, r *http.Request, c *media.Content, public bool) {
	defer func() { _ = c.Body.Close() }()
	httpx.ServeFile(w, r, httpx.File{
		Body: c.Body, ContentType: c.ContentType, Disposition: c.Disposition(), ETag: c.ETag, Public: public,
	})
}
