package write

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/room"
)

func (h *Rooms) setAlias(w http.ResponseWriter, r *http.Request) error {
	c, err := active(r)
	if err != nil {
		return err
	}
	alias, err := id.ParseRoomAliasStrict(httpx.Var(r, "roomAlias"))
	if err != nil || alias.Server() != h.o.Server {
		return mxerr.New(mxerr.InvalidParam, "Room alias invalid").WithCause(err)
	}
	if err := h.mayName(c, alias); err != nil {
		return err
	}
	var q struct {
		RoomID *string `json:"room_id"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	if q.RoomID == nil {
		return mxerr.New(mxerr.MissingParam, "The request has no room_id")
	}
	target, err := parseRoom(*q.RoomID)
	if err != nil {
		return err
	}
	if !c.Admin && c.Service == nil { // an application service has full control of its namespace
		joined, err := h.o.Directory.Joined(r.Context(), target, c.UserID)
		if err != nil {
			return err
		}
		if !joined {
			return mxerr.New(mxerr.Forbidden, "You are not in the room")
		}
	}
	_, err = h.do(r.Context(), &room.SetAlias{Alias: alias, Room: target, By: c.UserID})
	if mxerr.Is(err, mxerr.RoomInUse) {
		// This endpoint words it differently than createRoom.
		return mxerr.Newf(mxerr.Unknown, "Room alias %s already exists.", alias).WithStatus(http.StatusConflict).WithCause(err)
	}
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}

func (h *Rooms) deleteAlias(w http.ResponseWriter, r *http.Request) error {
	c, err := active(r)
	if err != nil {
		return err
	}
	alias, err := parseAlias(httpx.Var(r, "roomAlias"))
	if err != nil {
		return err
	}
	if alias.Server() != h.o.Server {
		return noAlias(alias)
	}
	if err := h.mayName(c, alias); err != nil {
		return err
	}
	target, creator, ok, err := h.o.Directory.Resolve(r.Context(), alias)
	switch {
	case err != nil:
		return err
	case !ok:
		return noAlias(alias)
	}
	force := c.Admin || c.Service != nil
	if !force && creator != c.UserID {
		if force, err = h.o.Directory.MayManage(r.Context(), target, c.UserID); err != nil {
			return err
		}
		if !force {
			return mxerr.New(mxerr.Forbidden, "You may not delete this alias")
		}
	}
	if _, err := h.do(r.Context(), &room.DeleteAlias{Alias: alias, By: c.UserID, Force: force}); err != nil {
		return err
	}
	if err := h.withdraw(r.Context(), c, target, alias); err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}

// withdraw takes an alias that is gone out of the room's canonical alias, if the user may change that. That the user may not is no
// error: the alias is deleted all the same.
func (h *Rooms) withdraw(ctx context.Context, c *auth.Caller, in id.RoomID, alias id.RoomAlias) error {
	old, ok, err := h.o.Directory.CanonicalAlias(ctx, in)
	if err != nil || !ok {
		return err
	}
	content, changed, err := withoutAlias(old, alias)
	if err != nil {
		return fmt.Errorf("withdraw alias: %w", err)
	}
	if !changed {
		return nil
	}
	_, err = h.do(ctx, &room.SendState{
		Room: in, By: room.Origin{User: c.UserID, Device: c.DeviceID}, Type: event.TypeCanonicalAlias, Content: content,
	})
	if mxerr.Is(err, mxerr.Forbidden) || mxerr.Is(err, mxerr.NotFound) {
		return nil
	}
	return err
}

// withoutAlias gives the content of m.room.canonical_alias without an alias; all else in it stays.
func withoutAlias(content []byte, alias id.RoomAlias) (_ []byte, changed bool, err error) {
	var all map[string]jsontext.Value
	var named canonicalAlias
	if json.Unmarshal(content, &all) != nil || json.Unmarshal(content, &named) != nil {
		return nil, false, nil //nolint:nilerr // another server's notion of an alias: not for us to mend
	}
	if named.Alias != nil && *named.Alias == string(alias) {
		delete(all, "alias")
		changed = true
	}
	if kept := slices.DeleteFunc(slices.Clone(named.Alt), func(s string) bool { return s == string(alias) }); len(kept) < len(named.Alt) {
		if all["alt_aliases"], err = json.Marshal(kept); err != nil {
			return nil, false, err
		}
		changed = true
	}
	if !changed {
		return nil, false, nil
	}
	out, err := json.Marshal(all)
	return out, true, err
}

func (h *Rooms) setVisibility(w http.ResponseWriter, r *http.Request) error {
	c, err := active(r)
	if err != nil {
		return err
	}
	var q struct {
		Visibility *string `json:"visibility"`
	}
	if err := httpx.DecodeOptional(r, &q); err != nil {
		return err
	}
	target, err := pathRoom(r)
	if err != nil {
		return err
	}
	cmd := &room.SetVisibility{Room: target, By: c.UserID, Public: true, Force: c.Admin}
	if q.Visibility != nil {
		switch *q.Visibility {
		case "public":
		case "private":
			cmd.Public = false
		default:
			return mxerr.New(mxerr.BadJSON, "visibility is neither public nor private")
		}
	}
	if _, err := h.do(r.Context(), cmd); err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}
