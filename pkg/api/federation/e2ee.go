package federation

import (
	"net/http"

	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/e2ee"
)

// E2EE answers other servers about devices and keys of users of this one.
type E2EE struct {
	server id.ServerName
	front  *e2ee.Front
	reader *e2ee.Reader
}

// NewE2EE makes the handlers.
func NewE2EE(server id.ServerName, front *e2ee.Front, reader *e2ee.Reader) *E2EE {
	return &E2EE{server, front, reader}
}

// Handlers gives the handlers by the names of their rows.
func (e *E2EE) Handlers() httpx.Handlers {
	return httpx.Handlers{
		"federation.getUserDevices":          e.devices,
		"federation.queryUserEncryptionKeys": e.query,
		"federation.claimUserEncryptionKeys": e.claim,
	}
}

func (e *E2EE) devices(w http.ResponseWriter, r *http.Request) error {
	u, err := id.ParseUserID(httpx.Var(r, "userId"))
	if err != nil {
		return mxerr.New(mxerr.InvalidParam, "Invalid user id").WithCause(err)
	}
	if u.Server() != e.server {
		return mxerr.New(mxerr.NotFound, "Not a user of this server")
	}
	d, err := e.reader.DevicesOf(r.Context(), u)
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, d)
}

func (e *E2EE) query(w http.ResponseWriter, r *http.Request) error {
	var q struct {
		Devices map[string][]string `json:"device_keys"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	if q.Devices == nil {
		return mxerr.New(mxerr.MissingParam, "The request has no device_keys")
	}
	k, err := e.reader.QueryFor(r.Context(), q.Devices)
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, k)
}

func (e *E2EE) claim(w http.ResponseWriter, r *http.Request) error {
	var q struct {
		Keys map[string]map[string]string `json:"one_time_keys"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	if q.Keys == nil {
		return mxerr.New(mxerr.MissingParam, "The request has no one_time_keys")
	}
	keys, err := e.front.ClaimFor(r.Context(), q.Keys)
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string]any{"one_time_keys": keys})
}
