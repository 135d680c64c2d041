package lobby

import (
	"context"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// Resolve gives the room of an alias of this server.
func (l *Lobby) Resolve(ctx context.Context, alias id.RoomAlias) (room id.RoomID, ok bool, err error) {
	a, ok, err := l.db.Alias(ctx, l.shards.Of(string(alias)), string(alias))
	return id.RoomID(a.RoomID), ok, err
}

// Summary gives what a room shows to a user, "" for somebody unknown. A room that is not there and one that the user may not know of are
// both M_NOT_FOUND. Of a room that this server is not in others tell: via, who may be in it.
func (l *Lobby) Summary(ctx context.Context, room id.RoomID, user id.UserID, via []id.ServerName) (Summary, error) {
	none := mxerr.New(mxerr.NotFound, "Room not found")
	refs, err := l.db.RoomsByID(ctx, l.shards, []string{string(room)})
	if err != nil {
		return Summary{}, err
	}
	if len(refs) == 0 {
		return l.summaryBeyond(ctx, room, user, via, roomdb.MembershipNone)
	}
	rooms, err := l.read(ctx, refs, user)
	if err != nil {
		return Summary{}, err
	}
	admitted, err := l.admit(ctx, rooms, user)
	if err != nil {
		return Summary{}, err
	}
	k := rooms[refs[0].Nid]
	if !k.here {
		return l.summaryBeyond(ctx, room, user, via, k.membership)
	}
	if !admitted[k.nid] {
		return Summary{}, none
	}
	return k.summaryFor(user, k.membership), nil
}

func (k *known) summaryFor(user id.UserID, m roomdb.Membership) Summary {
	if user != "" {
		if m == roomdb.MembershipNone {
			m = roomdb.MembershipLeave
		}
		k.Membership = m.String()
	}
	return k.Summary
}

// summaryBeyond asks other servers for a room.
func (l *Lobby) summaryBeyond(ctx context.Context, room id.RoomID, user id.UserID, via []id.ServerName, m roomdb.Membership) (Summary, error) {
	none := mxerr.New(mxerr.NotFound, "Room not found")
	if s := room.Server(); s.Valid() && !slices.Contains(via, s) {
		via = append(slices.Clone(via), s)
	}
	if l.remote == nil || len(via) == 0 || m == roomdb.MembershipBan {
		return Summary{}, none
	}
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	raw, err := l.remote.Space(ctx, via[:min(len(via), maxVia)], room)
	if err != nil {
		return Summary{}, none.WithCause(err)
	}
	k, _, _, _ := parseSpace(raw, string(room))
	if k == nil {
		return Summary{}, none
	}
	admitted, err := l.admitBeyond(ctx, map[string]*known{k.RoomID: k}, user)
	if err != nil {
		return Summary{}, err
	}
	if !admitted[k.RoomID] {
		return Summary{}, none
	}
	return k.summaryFor(user, m), nil
}
