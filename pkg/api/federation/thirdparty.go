package federation

import (
	"context"
	"net/http"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/abroad"
)

// ThirdParty turns invitations to addresses into invitations of users. It is *abroad.Abroad.
type ThirdParty interface {
	Exchange(ctx context.Context, origin id.ServerName, room id.RoomID, c *abroad.Claim) error
	Claim(ctx context.Context, b *abroad.Bound) error
}

func (h *Handlers) exchange(w http.ResponseWriter, r *http.Request) error {
	target, err := pathRoom(r)
	if err != nil {
		return err
	}
	var c abroad.Claim
	if err := httpx.Decode(r, &c); err != nil {
		return err
	}
	if err := h.o.ThirdParty.Exchange(r.Context(), auth.Origin(r.Context()), target, &c); err != nil {
		return err
	}
	return httpx.WriteEmpty(w)
}

// bound hears from an identity server, which signs nothing but the invitations themselves.
func (h *Handlers) bound(w http.ResponseWriter, r *http.Request) error {
	var b abroad.Bound
	if err := httpx.Decode(r, &b); err != nil {
		return err
	}
	if b.User == "" {
		return mxerr.New(mxerr.MissingParam, "The request has no mxid")
	}
	if _, err := id.ParseUserID(string(b.User)); err != nil {
		return mxerr.New(mxerr.InvalidParam, "mxid is not a user ID").WithCause(err)
	}
	if err := h.o.ThirdParty.Claim(r.Context(), &b); err != nil {
		return err
	}
	return httpx.WriteEmpty(w)
}

func (h *Handlers) complexity(w http.ResponseWriter, r *http.Request) error {
	target, err := pathRoom(r)
	if err != nil {
		return err
	}
	v1, err := h.o.Rooms.Complexity(r.Context(), target, auth.Origin(r.Context()))
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string]float64{"v1": v1})
}

func (h *Handlers) extremities(w http.ResponseWriter, r *http.Request) error {
	target, err := pathRoom(r)
	if err != nil {
		return err
	}
	list, err := h.o.Rooms.Extremities(r.Context(), target, auth.Origin(r.Context()))
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string]any{"prev_events": list})
}
