package resident

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/eventauth"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// Inviters gives servers of users whose power suffices to invite to a room, as far as its power levels and its creation name them: the
// servers that can let somebody in whom this one cannot. If everybody may invite it gives none.
func (r *Rooms) Inviters(ctx context.Context, room id.RoomID) ([]id.ServerName, error) {
	ref, ok, err := r.db.RoomByID(ctx, room)
	if err != nil || !ok {
		return nil, err
	}
	rules, ok := roomver.Get(roomver.Version(ref.Version))
	if !ok {
		return nil, fmt.Errorf("room %s: unknown version %q", room, ref.Version)
	}
	found, err := r.db.CurrentStateAt(ctx, ref.Nid, []roomdb.StateName{{Type: event.TypeCreate}, {Type: event.TypePowerLevels}})
	if err != nil {
		return nil, err
	}
	var st eventauth.AuthState
	var named []id.UserID
	for name, at := range found {
		e, err := event.ParseTrusted(rules, at.JSON, id.EventID(at.EventID))
		if err != nil {
			return nil, fmt.Errorf("read event %s: %w", at.EventID, err)
		}
		switch reduced := eventauth.Reduce(e); name.Type {
		case event.TypeCreate:
			st.Create = reduced.Create()
			named = append(append(named, st.Create.Sender, st.Create.Creator), st.Create.Additional...)
		default:
			st.Power = reduced.PowerLevels()
			for _, u := range st.Power.Users {
				named = append(named, id.UserID(u.Name))
			}
		}
	}
	var out []id.ServerName
	for _, u := range named {
		if s := u.Server(); st.CanInvite(u) && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out, nil
}

// Told gives the servers whose users are named in what a user was told of a room that is not known here: with an invitation or on a knock.
// From room version 12 on a room's id names no server.
func (r *Rooms) Told(ctx context.Context, room id.RoomID, user id.UserID) ([]id.ServerName, error) {
	ref, ok, err := r.db.RoomByID(ctx, room)
	if err != nil || !ok {
		return nil, err
	}
	raw, err := r.db.Stripped(ctx, ref.Nid, string(user))
	if err != nil || len(raw) == 0 {
		return nil, err
	}
	var told []struct {
		Sender id.UserID `json:"sender"`
	}
	if err := json.Unmarshal(raw, &told); err != nil {
		return nil, fmt.Errorf("read what %s was told of %s: %w", user, room, err)
	}
	var out []id.ServerName
	for _, e := range told {
		if s := e.Sender.Server(); s.Valid() && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out, nil
}
