package write

import (
	"context"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/directory"
	"github.com/heddle-im/heddle/pkg/service/room"
)

// Upgrades knows of rooms what is needed to replace them. It is *directory.Directory.
type Upgrades interface {
	// Old reads a room that a user wants to replace.
	Old(ctx context.Context, room id.RoomID, user id.UserID, types []string) (*directory.Old, error)
	// Predecessor gives the room that another one has replaced.
	Predecessor(ctx context.Context, room id.RoomID) (id.RoomID, bool, error)
}

func (h *Rooms) upgrade(w http.ResponseWriter, r *http.Request) error {
	c, err := active(r)
	if err != nil {
		return err
	}
	var q struct {
		Version    *string  `json:"new_version"`
		Additional []string `json:"additional_creators"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	target, err := pathRoom(r)
	if err != nil {
		return err
	}
	if q.Version == nil {
		return mxerr.New(mxerr.MissingParam, "The request has no new_version")
	}
	rules, ok := roomver.Get(roomver.Version(*q.Version))
	if !ok {
		return mxerr.Newf(mxerr.UnsupportedRoomVersion, "Room version %q is not supported", clip(*q.Version))
	}
	u := &room.Upgrade{Room: target, Version: rules.Version}
	if rules.PrivilegedCreators {
		for _, s := range q.Additional {
			user, err := parseUser(s)
			if err != nil {
				return err
			}
			u.Additional = append(u.Additional, user)
		}
	}
	u.By = origin(c)
	old, err := h.o.Upgrades.Old(r.Context(), target, c.UserID, room.UpgradedTypes())
	if err != nil {
		return err
	}
	takeOld(u, old)
	if u.Profile, err = h.profile(r.Context(), c.UserID); err != nil {
		return err
	}
	made, err := room.Replace(r.Context(), h.o.Writer, h.o.Server, h.o.Now(), h.o.Random, u)
	if err != nil {
		return err
	}
	h.follow(r.Context(), c.UserID, made)
	return httpx.WriteJSON(w, http.StatusOK, map[string]id.RoomID{"replacement_room": made})
}

func takeOld(u *room.Upgrade, old *directory.Old) {
	u.From, u.Last, u.Creators, u.Banned, u.Listed = old.Version, old.Last, old.Creators, old.Banned, old.Listed
	for _, e := range old.State {
		u.State = append(u.State, room.StateEvent(e))
	}
	for _, a := range old.Aliases {
		u.Aliases = append(u.Aliases, room.Alias{Alias: id.RoomAlias(a.Alias), Creator: id.UserID(a.Creator)})
	}
}

// followTombstone does for one who replaces a room by hand, and so was in the new one before that had replaced anything, what joining does
// for the others.
func (h *Rooms) followTombstone(ctx context.Context, t *room.SendState) {
	var content struct {
		Replacement string `json:"replacement_room"`
	}
	err := json.Unmarshal(t.Content, &content)
	to, bad := id.ParseRoomID(content.Replacement)
	if err != nil || bad != nil {
		return // it leads nowhere
	}
	joined, err := h.o.Directory.Joined(ctx, to, t.By.User)
	switch {
	case err != nil:
		h.o.Log.WarnContext(ctx, "it is not known whether a user is in the room that replaces another", "user", string(t.By.User), "room", string(to), "error", err)
	case joined:
		h.follow(ctx, t.By.User, to)
	}
}

// followTime bounds follow, which goes on when its client is gone.
const followTime = 20 * time.Second

// follow has what a user has set for a room hold for the one that has replaced it. The user is in that room by now and has to be told so,
// whatever becomes of this.
func (h *Rooms) follow(ctx context.Context, user id.UserID, to id.RoomID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), followTime)
	defer cancel()
	from, ok, err := h.o.Upgrades.Predecessor(ctx, to)
	if err == nil && ok {
		_, err = h.o.Accounts.Do(ctx, &account.FollowRoom{UserID: string(user), From: string(from), To: string(to)})
	}
	if err != nil {
		h.o.Log.WarnContext(ctx, "what a user had set for a room was not carried over to its replacement", "user", string(user), "room", string(to), "error", err)
	}
}
