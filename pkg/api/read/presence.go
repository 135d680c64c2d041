package read

import (
	"context"
	"net/http"
	"time"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/presence"
)

// maxStatus bounds a status message, in bytes.
const maxStatus = 2048

// Acquaintance tells whether a user shares a room with another.
type Acquaintance func(ctx context.Context, user, other id.UserID) (bool, error)

// Presence answers who is online, and sets it: it is no state of the database but of where users sync.
type Presence struct {
	hub   *presence.Hub
	knows Acquaintance
	now   func() time.Time
}

// NewPresence makes the handlers.
func NewPresence(hub *presence.Hub, knows Acquaintance, now func() time.Time) *Presence {
	return &Presence{hub, knows, now}
}

// Handlers gives the handlers by the names of their rows.
func (h *Presence) Handlers() httpx.Handlers {
	return httpx.Handlers{"getPresence": h.get, "setPresence": h.set}
}

func (h *Presence) get(w http.ResponseWriter, r *http.Request) error {
	user, err := id.ParseUserID(httpx.Var(r, "userId"))
	if err != nil {
		return mxerr.New(mxerr.InvalidParam, "Invalid user id").WithCause(err)
	}
	if c := auth.Must(r.Context()); user != c.UserID {
		switch knows, err := h.knows(r.Context(), c.UserID, user); {
		case err != nil:
			return err
		case !knows: // the same for those who do not exist
			return mxerr.New(mxerr.Forbidden, "You are not allowed to see their presence")
		}
	}
	s := h.hub.Get(r.Context(), string(user))
	httpx.WriteRaw(w, http.StatusOK, s.Append(nil, h.now()))
	return nil
}

func (h *Presence) set(w http.ResponseWriter, r *http.Request) error {
	c := auth.Must(r.Context())
	var q struct {
		Presence *string `json:"presence"`
		Status   *string `json:"status_msg"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	user, err := id.ParseUserID(httpx.Var(r, "userId"))
	switch {
	case err != nil:
		return mxerr.New(mxerr.InvalidParam, "Invalid user id").WithCause(err)
	case user != c.UserID:
		return mxerr.New(mxerr.Forbidden, "You can set nobody's presence but your own")
	case q.Presence == nil:
		return mxerr.New(mxerr.MissingParam, "The request does not say which presence")
	}
	p, ok := presence.Parse(*q.Presence)
	if !ok {
		return mxerr.New(mxerr.InvalidParam, "presence is none of offline, online and unavailable")
	}
	var message string
	if q.Status != nil {
		message = *q.Status
	}
	if len(message) > maxStatus {
		return mxerr.New(mxerr.InvalidParam, "status_msg is too long")
	}
	h.hub.Set(r.Context(), string(user), string(c.DeviceID), p, message)
	return httpx.WriteJSON(w, http.StatusOK, struct{}{})
}
