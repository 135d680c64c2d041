package federation

import (
	"bytes"
	"context"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strconv"

	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/media"
)

// MediaStore gives contents. It is *media.Service.
type MediaStore interface {
	Download(ctx context.Context, w media.Want) (*media.Content, error)
	Thumbnail(ctx context.Context, w media.WantThumbnail) (*media.Content, error)
}

// Media answers other servers that ask for media of this one.
type Media struct {
	server id.ServerName
	store  MediaStore
}

// NewMedia makes the handlers.
func NewMedia(server id.ServerName, store MediaStore) *Media { return &Media{server, store} }

// Handlers gives the handlers by the names of their rows.
func (h *Media) Handlers() httpx.Handlers {
	return httpx.Handlers{
		"federation.getContent":          h.download,
		"federation.getContentThumbnail": h.thumbnail,
	}
}

// want reads what a request asks for; it may only be what is of this server.
func (h *Media) want(r *http.Request, p httpx.Params) (media.Want, error) {
	m := httpx.Var(r, "mediaId")
	if !id.ValidMediaID(m) {
		return media.Want{}, mxerr.New(mxerr.InvalidParam, "The media ID is malformed")
	}
	wait, err := p.Patience("timeout_ms", media.DefaultWait, media.MaxWait)
	return media.Want{URI: id.MXC{Server: h.server, Media: m}, Local: true, Wait: wait}, err
}

func (h *Media) download(w http.ResponseWriter, r *http.Request) error {
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	q, err := h.want(r, p)
	if err != nil {
		return err
	}
	c, err := h.store.Download(r.Context(), q)
	if err != nil {
		return err
	}
	return writeParts(w, c)
}

func (h *Media) thumbnail(w http.ResponseWriter, r *http.Request) error {
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	q := media.WantThumbnail{}
	if q.Want, err = h.want(r, p); err != nil {
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
	return writeParts(w, c)
}

// writeParts answers with two parts: what there is to say of a content, which is nothing so far, and the content.
func writeParts(w http.ResponseWriter, c *media.Content) error {
	defer func() { _ = c.Body.Close() }()
	var frame bytes.Buffer
	parts := multipart.NewWriter(&frame)
	about, err := parts.CreatePart(textproto.MIMEHeader{"Content-Type": {"application/json"}})
	if err != nil {
		return err
	}
	if _, err := about.Write([]byte("{}")); err != nil {
		return err
	}
	_, err = parts.CreatePart(textproto.MIMEHeader{
		"Content-Type": {c.ContentType}, "Content-Disposition": {c.Disposition()},
	})
	if err != nil {
		return err
	}
	before := bytes.Clone(frame.Bytes())
	frame.Reset()
	if err := parts.Close(); err != nil {
		return err
	}
	hd := w.Header()
	httpx.SecureFile(hd)
	hd.Set("Content-Type", "multipart/mixed; boundary="+parts.Boundary())
	hd.Set("Content-Length", strconv.FormatInt(int64(len(before)+frame.Len())+c.Size, 10))
	to, done := httpx.Patient(w)
	defer done()
	// Who has gone does not hear of an error, and a content that is cut short leaves the answer shorter than it said to be.
	if _, err := to.Write(before); err == nil {
		if n, err := io.Copy(to, io.LimitReader(c.Body, c.Size)); err == nil && n == c.Size {
			_, _ = to.Write(frame.Bytes())
		}
	}
	return nil
}
