package lobby

import (
	"context"

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
// both M_NOT_FOUND.
func (l *Lobby) Summary(ctx context.Context, room id.RoomID, user id.UserID) (Summary, error) {
	none := mxerr.New(mxerr.NotFound, "Room not found")
	refs, err := l.db.RoomsByID(ctx, l.shards, []string{string(room)})
	if err != nil {
		return Summary{}, err
	}
	if len(refs) == 0 {
		return Summary{}, none
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
	if !admitted[k.nid] {
		return Summary{}, none
	}
	if user != "" {
		m := k.membership
		if m == roomdb.MembershipNone {
			m = roomdb.MembershipLeave
		}
		k.Membership = m.String()
	}
	return k.Summary, nil
}
