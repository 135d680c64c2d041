package write

import (
	"context"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/abroad"
	"github.com/heddle-im/heddle/pkg/service/room"
)

// reasonRequest is the body of what a user does to the own membership; many clients send none.
type reasonRequest struct {
	Reason string `json:"reason"`
	// ThirdPartySigned is an identity server's token for an invitation by address.
	ThirdPartySigned jsontext.Value `json:"third_party_signed"`
}

// decodeReason reads a reason, and what else the body has for the member event's content (nil for nothing): clients of old say more
// of a joining than the specification knows. What only a server may say, and what the profile says, is left out.
func decodeReason(r *http.Request) (q reasonRequest, extra []byte, err error) {
	body, err := httpx.ReadBody(r)
	if err != nil || len(body) == 0 {
		return q, nil, err
	}
	if err := httpx.Unmarshal(body, &q); err != nil {
		return q, nil, err
	}
	var all map[string]jsontext.Value
	if err := httpx.Unmarshal(body, &all); err != nil {
		return q, nil, err
	}
	for _, name := range []string{
		"reason", "third_party_signed", "membership", "displayname", "avatar_url", "is_direct", "third_party_invite",
		"join_authorised_via_users_server",
	} {
		delete(all, name)
	}
	if len(all) == 0 {
		return q, nil, nil
	}
	extra, err = json.Marshal(all)
	return q, extra, err
}

// own changes the caller's own membership.
func (h *Rooms) own(r *http.Request, c *auth.Caller, target id.RoomID, action room.Action, reason string, via []id.ServerName, extra []byte) error {
	var err error
	by := origin(c)
	cmd := &room.SetMembership{Room: target, By: by, Target: c.UserID, Action: action, Reason: reason, Content: extra}
	if action != room.ActionLeave {
		if cmd.Profile, err = h.profile(r.Context(), c.UserID); err != nil {
			return err
		}
	}
	act := &abroad.Act{
		User: c.UserID, Room: target, Action: action, Via: via, Reason: reason, Profile: cmd.Profile, Content: extra,
	}
	if h.o.Abroad != nil {
		elsewhere, known, err := h.o.Abroad.Elsewhere(r.Context(), target)
		if err != nil {
			return err
		}
		if elsewhere && (known || action != room.ActionLeave) {
			return h.o.Abroad.Do(r.Context(), act)
		}
	}
	_, err = h.do(r.Context(), cmd)
	if h.o.Abroad != nil && mxerr.Is(err, mxerr.UnableToGrantJoin) {
		// The user may come in, but nobody of this server may say so: somebody of another one may.
		return h.o.Abroad.Do(r.Context(), act)
	}
	return err
}

func (h *Rooms) join(w http.ResponseWriter, r *http.Request) error {
	c, err := active(r)
	if err != nil {
		return err
	}
	q, extra, err := decodeReason(r)
	if err != nil {
		return err
	}
	target, via, err := h.target(r)
	if err != nil {
		return err
	}
	if len(q.ThirdPartySigned) > 0 && !canonjson.IsNull(q.ThirdPartySigned) {
		if err := h.redeem(r.Context(), c.UserID, target, q.ThirdPartySigned); err != nil {
			return err
		}
	}
	if err := h.own(r, c, target, room.ActionJoin, q.Reason, via, extra); err != nil {
		return err
	}
	h.follow(r.Context(), c.UserID, target)
	return httpx.WriteJSON(w, http.StatusOK, roomAnswer{target})
}

func (h *Rooms) knock(w http.ResponseWriter, r *http.Request) error {
	c, err := active(r)
	if err != nil {
		return err
	}
	q, extra, err := decodeReason(r)
	if err != nil {
		return err
	}
	target, via, err := h.target(r)
	if err != nil {
		return err
	}
	if err := h.own(r, c, target, room.ActionKnock, q.Reason, via, extra); err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, roomAnswer{target})
}

// target gives the room that the path names by its id or by an alias, and servers that may be in it.
func (h *Rooms) target(r *http.Request) (id.RoomID, []id.ServerName, error) {
	q := r.URL.Query()
	var via []id.ServerName
	for _, name := range append(q["via"], q["server_name"]...) {
		via = append(via, id.ServerName(name))
	}
	s := httpx.Var(r, "roomIdOrAlias")
	switch {
	case s == "":
		target, err := pathRoom(r)
		return target, via, err
	case strings.HasPrefix(s, "#"):
		alias, err := parseAlias(s)
		if err != nil {
			return "", nil, err
		}
		target, servers, err := h.resolveVia(r.Context(), alias)
		return target, append(via, servers...), err
	}
	target, err := parseRoom(s)
	return target, via, err
}

// resolve gives the room of an alias.
func (h *Rooms) resolve(ctx context.Context, alias id.RoomAlias) (id.RoomID, error) {
	target, _, err := h.resolveVia(ctx, alias)
	return target, err
}

// resolveVia gives the room of an alias, and servers that are in it. Aliases of other servers are answered by these, over federation.
func (h *Rooms) resolveVia(ctx context.Context, alias id.RoomAlias) (id.RoomID, []id.ServerName, error) {
	if alias.Server() == h.o.Server {
		found, _, ok, err := h.o.Directory.Resolve(ctx, alias)
		if err == nil && !ok {
			if made, aerr := h.o.Asker.Alias(ctx, alias); aerr != nil {
				err = aerr
			} else if made {
				found, _, ok, err = h.o.Directory.Resolve(ctx, alias)
			}
		}
		if err == nil && !ok {
			err = noAlias(alias)
		}
		return found, nil, err
	}
	if h.o.Abroad == nil {
		return "", nil, noAlias(alias)
	}
	found, servers, err := h.o.Abroad.Alias(ctx, alias)
	if err != nil {
		return "", nil, noAlias(alias)
	}
	return found, append([]id.ServerName{alias.Server()}, servers...), nil
}

func noAlias(alias id.RoomAlias) error {
	return mxerr.Newf(mxerr.NotFound, "Room alias %s not found", alias)
}

func (h *Rooms) leave(w http.ResponseWriter, r *http.Request) error {
	c := auth.Must(r.Context()) // also while suspended
	var q reasonRequest
	if err := httpx.DecodeOptional(r, &q); err != nil {
		return err
	}
	target, err := pathRoom(r)
	if err != nil {
		return err
	}
	if err := h.own(r, c, target, room.ActionLeave, q.Reason, nil, nil); err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}

func (h *Rooms) forget(w http.ResponseWriter, r *http.Request) error {
	c := auth.Must(r.Context())
	if err := httpx.DecodeOptional(r, &struct{}{}); err != nil {
		return err
	}
	target, err := pathRoom(r)
	if err != nil {
		return err
	}
	if _, err := h.do(r.Context(), &room.Forget{Room: target, User: c.UserID}); err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}

func (h *Rooms) invite(w http.ResponseWriter, r *http.Request) error {
	c, err := active(r)
	if err != nil {
		return err
	}
	var q struct {
		invite3PID
		UserID *string `json:"user_id"`
		Reason string  `json:"reason"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	target, err := pathRoom(r)
	if err != nil {
		return err
	}
	switch {
	case q.UserID == nil && q.invite3PID == invite3PID{}:
		return mxerr.New(mxerr.MissingParam, "The request names no user_id")
	case q.UserID == nil:
		err = h.inviteAddress(r, c, target, &q.invite3PID, q.Reason)
	default:
		err = h.inviteUser(r, c, target, *q.UserID, q.Reason)
	}
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}

// inviteUser invites a user of this server or another.
func (h *Rooms) inviteUser(r *http.Request, c *auth.Caller, target id.RoomID, name, reason string) error {
	user, err := h.invitee(name)
	if err != nil {
		return err
	}
	cmd := &room.SetMembership{Room: target, By: origin(c), Target: user, Action: room.ActionInvite, Reason: reason}
	if user.Server() != h.o.Server {
		return h.o.Abroad.Invite(r.Context(), cmd)
	}
	if err := h.mayInvite(r.Context(), c.UserID, user); err != nil {
		return err
	}
	h.ask(r.Context(), c, user)
	if cmd.Profile, err = h.profile(r.Context(), user); err != nil {
		return err
	}
	_, err = h.do(r.Context(), cmd)
	return err
}

// other gives the handler of what one user does to another's membership.
func (h *Rooms) other(action room.Action) httpx.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		c, err := active(r)
		if err != nil {
			return err
		}
		var q struct {
			UserID *string `json:"user_id"`
			Reason string  `json:"reason"`
			// RedactEvents asks for the user's events to be redacted with the kick or ban (MSC4293). It is for those who show them to do.
			RedactEvents bool `json:"org.matrix.msc4293.redact_events"`
		}
		if err := httpx.Decode(r, &q); err != nil {
			return err
		}
		target, err := pathRoom(r)
		if err != nil {
			return err
		}
		if q.UserID == nil {
			return mxerr.New(mxerr.MissingParam, "The request names no user_id")
		}
		user, err := parseUser(*q.UserID)
		if err != nil {
			return err
		}
		cmd := &room.SetMembership{Room: target, By: origin(c), Target: user, Action: action, Reason: q.Reason}
		if q.RedactEvents && action != room.ActionUnban {
			cmd.Content = []byte(`{"org.matrix.msc4293.redact_events":true}`)
		}
		if _, err := h.do(r.Context(), cmd); err != nil {
			return err
		}
		return httpx.WriteJSON(w, http.StatusOK, empty)
	}
}
