package federation

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/inbound"
	"github.com/heddle-im/heddle/pkg/service/resident"
	"github.com/heddle-im/heddle/pkg/service/room"
)

// make gives the handler of make_join and its like.
func (h *Handlers) make(action room.Action) httpx.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		ctx := r.Context()
		target, err := pathRoom(r)
		if err != nil {
			return err
		}
		user, err := id.ParseUserID(httpx.Var(r, "userId"))
		if err != nil {
			return mxerr.New(mxerr.InvalidParam, "Invalid user id").WithCause(err)
		}
		if user.Server() != auth.Origin(ctx) {
			return mxerr.New(mxerr.Forbidden, "The user is not of your server")
		}
		ref, err := h.o.Rooms.Room(ctx, target, auth.Origin(ctx))
		if err != nil {
			return err
		}
		if action != room.ActionLeave { // the asking server says which versions it knows
			p, err := httpx.Query(r)
			if err != nil {
				return err
			}
			versions := p.All("ver")
			if len(versions) == 0 {
				versions = []string{"1"}
			}
			if !slices.Contains(versions, ref.Version) {
				return mxerr.Newf(mxerr.IncompatibleRoomVersion, "The room has version %s, which your server does not know", ref.Version).
					With("room_version", ref.Version)
			}
		}
		a, err := h.o.Writer.Do(ctx, nil, &room.Template{Room: target, User: user, Action: action})
		if err != nil {
			return err
		}
		httpx.WriteRaw(w, http.StatusOK, a.Data)
		return nil
	}
}

// member reads the member event that a server has made of a template, and checks that it is what was proposed: no more is vouched for.
func (h *Handlers) member(r *http.Request, membership string) (*resident.Ref, *event.Event, error) {
	ctx := r.Context()
	origin := auth.Origin(ctx)
	target, err := pathRoom(r)
	if err != nil {
		return nil, nil, err
	}
	ref, err := h.o.Rooms.Room(ctx, target, origin)
	if err != nil {
		return nil, nil, err
	}
	body, err := httpx.ReadBody(r)
	if err != nil {
		return nil, nil, err
	}
	e, err := resident.Parse(ref.Rules, body, target)
	if err != nil {
		return nil, nil, err
	}
	key, isState := e.StateKey()
	switch {
	case e.EventID() != id.EventID(httpx.Var(r, "eventId")):
		return nil, nil, mxerr.New(mxerr.InvalidParam, "The event has another id than the path")
	case e.Type() != event.TypeMember || !isState || e.Membership() != membership:
		return nil, nil, mxerr.Newf(mxerr.InvalidParam, "The event is no %s", membership)
	case key != string(e.Sender()):
		return nil, nil, mxerr.New(mxerr.InvalidParam, "The event is not the user's own")
	case e.Sender().Server() != origin:
		return nil, nil, mxerr.New(mxerr.Forbidden, "The user is not of your server")
	}
	return ref, e, nil
}

// accept verifies an event that another server gave us for the room, and has it take its place.
func (h *Handlers) accept(ctx context.Context, ref *resident.Ref, e *event.Event) error {
	if err := inbound.Verify(ctx, h.o.KeySource, []*event.Event{e})[0]; err != nil {
		return mxerr.New(mxerr.Forbidden, "The event's signatures do not verify").WithCause(err)
	}
	a, err := h.o.Writer.Do(ctx, nil, &room.Accept{Room: id.RoomID(ref.RoomID), Events: [][]byte{e.JSON()}, Relay: true})
	if err != nil {
		return err
	}
	var verdicts []room.Verdict
	if err := json.Unmarshal(a.Data, &verdicts); err != nil || len(verdicts) != 1 {
		return fmt.Errorf("read verdict: %w", err)
	}
	switch v := verdicts[0]; v.Fate {
	case room.FateAccepted:
		return nil
	case room.FateKnown:
		ok, err := h.o.Rooms.Accepted(ctx, ref, e.EventID())
		if err != nil || ok {
			return err
		}
		return mxerr.New(mxerr.Forbidden, "The event was refused")
	case room.FateMissing:
		return mxerr.New(mxerr.BadState, "The event names events that this server does not know")
	default:
		return mxerr.New(mxerr.Forbidden, "The event is not allowed: "+v.Reason)
	}
}

const authorisedVia = "join_authorised_via_users_server"

// v2 answers with what answer gives.
func v2(answer func(*http.Request) (any, error)) httpx.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		out, err := answer(r)
		if err != nil {
			return err
		}
		return httpx.WriteJSON(w, http.StatusOK, out)
	}
}

// v1 answers with what answer gives as the first versions of these endpoints did: in a list, after the status.
func v1(answer func(*http.Request) (any, error)) httpx.Handler {
	return v2(func(r *http.Request) (any, error) {
		out, err := answer(r)
		return []any{http.StatusOK, out}, err
	})
}

// joined takes a join, and gives the room that the user is in now.
func (h *Handlers) joined(r *http.Request) (any, error) {
	ctx := r.Context()
	ref, e, err := h.member(r, event.Join)
	if err != nil {
		return nil, err
	}
	p, err := httpx.Query(r)
	if err != nil {
		return nil, err
	}
	partial, err := p.Bool("omit_members", false)
	if err != nil {
		return nil, err
	}
	var before []string // the servers in the room, this one included
	if partial {
		if before, err = h.o.Rooms.Servers(ctx, ref); err != nil {
			return nil, err
		}
		before = append(before, string(h.o.Server))
	}
	signed := false
	if via, ok := canonjson.GetString(e.Content(), authorisedVia); ok && ref.Rules.Restricted && id.UserID(via).Server() == h.o.Server {
		// Who vouches for the user must do so by the rules as they are now, not as they were when the template was given.
		if _, err := h.o.Writer.Do(ctx, nil, &room.Template{Room: id.RoomID(ref.RoomID), User: e.Sender(), Action: room.ActionJoin}); err != nil {
			return nil, err
		}
		e, signed = e.Sign(h.o.Server, h.o.Keys[0]), true
	}
	if err := h.accept(ctx, ref, e); err != nil {
		return nil, err
	}
	state, chain, err := h.o.Rooms.Joined(ctx, ref, e.EventID(), partial)
	if err != nil {
		return nil, err
	}
	out := map[string]any{
		"origin": h.o.Server, "state": json.RawMessage(state), "auth_chain": json.RawMessage(chain), "members_omitted": partial,
	}
	if signed || ref.Rules.Restricted {
		out["event"] = json.RawMessage(e.JSON())
	}
	if partial {
		out["servers_in_room"] = before
	}
	return out, nil
}

// left takes a leave.
func (h *Handlers) left(r *http.Request) (any, error) {
	ref, e, err := h.member(r, event.Leave)
	if err != nil {
		return nil, err
	}
	return struct{}{}, h.accept(r.Context(), ref, e)
}

func (h *Handlers) sendKnock(w http.ResponseWriter, r *http.Request) error {
	ref, e, err := h.member(r, event.Knock)
	if err != nil {
		return err
	}
	if err := h.accept(r.Context(), ref, e); err != nil {
		return err
	}
	stripped, err := h.o.Rooms.Stripped(r.Context(), ref)
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string]any{"knock_room_state": json.RawMessage(stripped)})
}

func (h *Handlers) inviteV2(w http.ResponseWriter, r *http.Request) error {
	var q room.InviteRequest
	body, err := httpx.ReadBody(r)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, &q); err != nil || len(q.Event) == 0 {
		return mxerr.New(mxerr.BadJSON, "The invitation is malformed").WithCause(err)
	}
	signed, err := h.invited(r, q.Version, q.Event, q.Stripped)
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string]any{"event": json.RawMessage(signed)})
}

func (h *Handlers) inviteV1(w http.ResponseWriter, r *http.Request) error {
	body, err := httpx.ReadBody(r)
	if err != nil {
		return err
	}
	var q struct {
		Unsigned struct {
			Stripped json.RawMessage `json:"invite_room_state"`
		} `json:"unsigned"`
	}
	if err := json.Unmarshal(body, &q); err != nil {
		return mxerr.New(mxerr.BadJSON, "The invitation is malformed").WithCause(err)
	}
	signed, err := h.invited(r, "1", body, q.Unsigned.Stripped)
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, []any{http.StatusOK, map[string]any{"event": json.RawMessage(signed)}})
}

func (h *Handlers) invited(r *http.Request, version string, pdu, stripped []byte) ([]byte, error) {
	target, err := pathRoom(r)
	if err != nil {
		return nil, err
	}
	return h.o.Abroad.Invited(r.Context(), auth.Origin(r.Context()), target, id.EventID(httpx.Var(r, "eventId")), version, pdu, stripped)
}
