package directory

import (
	"context"
	"fmt"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/eventauth"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// Old is what is to be known of a room that is to be replaced.
type Old struct {
	Version  roomver.Version
	Creators []id.UserID
	// Last is the event at the end of the room.
	Last id.EventID
	// State are events of the types that were asked for.
	State   []OldState
	Banned  []id.UserID
	Aliases []roomdb.Alias
	Listed  bool
}

// OldState is a state event.
type OldState struct {
	Type, StateKey string
	Content        []byte
}

// maxBanned bounds the bans that go with a room.
const maxBanned = 500

// Old reads a room that a user wants to replace: M_NOT_FOUND if it is not known, M_FORBIDDEN if the user may not.
func (d *Directory) Old(ctx context.Context, room id.RoomID, user id.UserID, types []string) (*Old, error) {
	ref, rules, ok, err := d.room(ctx, room)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, mxerr.New(mxerr.NotFound, "This server does not know the room")
	}
	may, err := d.maySet(ctx, room, user, event.TypeTombstone)
	switch {
	case err != nil:
		return nil, err
	case !may:
		return nil, mxerr.New(mxerr.Forbidden, "You cannot upgrade this room")
	}
	old := &Old{Version: rules.Version}
	for _, typ := range types {
		rows, err := d.db.TypeOfRooms(ctx, []shard.Nid{ref.Nid}, typ)
		if err != nil {
			return nil, err
		}
		for i := range rows {
			if err := old.take(rules, &rows[i]); err != nil {
				return nil, err
			}
		}
	}
	tip, ok, err := d.db.Tip(ctx, ref.Nid.Shard(), string(room))
	switch {
	case err != nil:
		return nil, err
	case ok:
		old.Last = id.EventID(tip.EventID)
	}
	banned, err := d.db.Members(ctx, ref.Nid, roomdb.MembershipBan)
	if err != nil {
		return nil, err
	}
	for _, m := range banned[:min(len(banned), maxBanned)] {
		old.Banned = append(old.Banned, id.UserID(m.UserID))
	}
	if old.Aliases, err = d.db.Aliases(ctx, string(room)); err != nil {
		return nil, err
	}
	old.Listed, err = d.db.Published(ctx, ref.Nid)
	return old, err
}

func (o *Old) take(rules *roomver.Rules, row *roomdb.RoomState) error {
	e, err := event.ParseTrusted(rules, row.JSON, id.EventID(row.EventID))
	if err != nil {
		return fmt.Errorf("read event %s: %w", row.EventID, err)
	}
	if row.RedactedBy != 0 {
		e = e.Redact()
	}
	key, _ := e.StateKey()
	if e.Type() == event.TypeCreate {
		if c := eventauth.Reduce(e).Create(); c != nil {
			o.Creators = append([]id.UserID{c.Sender}, c.Additional...)
		}
	}
	o.State = append(o.State, OldState{e.Type(), key, slices.Clone(e.Content())})
	return nil
}

// Predecessor gives the room that another one has replaced: one that the room itself names, and which names it in turn.
func (d *Directory) Predecessor(ctx context.Context, room id.RoomID) (id.RoomID, bool, error) {
	created, err := d.named(ctx, room, event.TypeCreate, "predecessor", "room_id")
	if err != nil || created == "" {
		return "", false, err
	}
	next, err := d.named(ctx, id.RoomID(created), event.TypeTombstone, "replacement_room")
	return id.RoomID(created), next == string(room), err
}
