package write

import (
	"context"
	"net/http"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/media"
)

// MediaStore takes uploads. It is *media.Service.
type MediaStore interface {
	Upload(ctx context.Context, f media.File) (id.MXC, error)
	Announce(ctx context.Context, user id.UserID) (uri id.MXC, until int64, err error)
	UploadTo(ctx context.Context, uri id.MXC, f media.File) error
}

// Media answers uploads.
type Media struct{ store MediaStore }

// NewMedia makes the handlers.
func NewMedia(store MediaStore) *Media { return &Media{store} }

// Handlers gives the handlers by the names of their rows.
func (h *Media) Handlers() httpx.Handlers {
	return httpx.Handlers{
		"uploadContent":      h.upload,
		"createContent":      h.create,
		"uploadContentToMXC": h.uploadTo,
	}
}

func (h *Media) file(r *http.Request) (media.File, error) {
	p, err := httpx.Query(r)
	if err != nil {
		return media.File{}, err
	}
	c := auth.Must(r.Context())
	if c.Suspended {
		return media.File{}, suspended()
	}
	return media.File{
		User: c.UserID, ContentType: r.Header.Get("Content-Type"), Name: p.Get("filename"), Body: httpx.UploadBody(r), Size: r.ContentLength,
	}, nil
}

func (h *Media) upload(w http.ResponseWriter, r *http.Request) error {
	f, err := h.file(r)
	if err != nil {
		return err
	}
	uri, err := h.store.Upload(r.Context(), f)
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, struct {
		URI string `json:"content_uri"`
	}{uri.String()})
}

func (h *Media) create(w http.ResponseWriter, r *http.Request) error {
	var q struct{} // clients send one
	if err := httpx.DecodeOptional(r, &q); err != nil {
		return err
	}
	c := auth.Must(r.Context())
	if c.Suspended {
		return suspended()
	}
	uri, until, err := h.store.Announce(r.Context(), c.UserID)
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, struct {
		URI     string `json:"content_uri"`
		Expires int64  `json:"unused_expires_at"`
	}{uri.String(), until})
}

func (h *Media) uploadTo(w http.ResponseWriter, r *http.Request) error {
	uri, err := id.ParseMXC("mxc://" + httpx.Var(r, "serverName") + "/" + httpx.Var(r, "mediaId"))
	if err != nil {
		return mxerr.New(mxerr.NotFound, "Unknown media ID").WithCause(err)
	}
	f, err := h.file(r)
	if err != nil {
		return err
	}
	if err := h.store.UploadTo(r.Context(), uri, f); err != nil {
		return err
	}
	return httpx.WriteEmpty(w)
}
