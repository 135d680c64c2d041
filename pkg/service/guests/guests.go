// Package guests has the guests of this server leave rooms that let guests in no more (spec: "Guest Access").
//
// It learns of changes from the log and from nowhere else: a [Keeper] is a consumer for follow.Durable, under a role that one worker holds
// at a time. It is told at least once; what the room says is read after the entry came. A guest who asks to join meanwhile is refused by
// the room's writer.
//
// Its methods are called from the follower's goroutine. The package is imported by the composition root; it knows no HTTP.
package guests

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// Consumer is the name under which the places in the log are kept.
const Consumer = "guests"

// atOnce is how many members are looked at together.
const atOnce = 500

// Leave has a user leave a room.
type Leave func(ctx context.Context, room id.RoomID, user id.UserID) error

// Keeper is the consumer. It implements follow.Consumer.
type Keeper struct {
	rooms    *roomdb.Reader
	accounts *accountdb.Reader
	shards   shard.Map
	leave    Leave
	log      *slog.Logger
}

// New makes a Keeper.
func New(rooms *roomdb.Reader, accounts *accountdb.Reader, m shard.Map, leave Leave, log *slog.Logger) *Keeper {
	return &Keeper{rooms: rooms, accounts: accounts, shards: m, leave: leave, log: log}
}

// Filter says which entries are wanted. It is a follow.Filter.
func Filter(k entry.Kind, _ shard.Nid, _ []byte) bool { return k == entry.KindEvent }

// Apply implements follow.Consumer. It returns when the guests have left, and fails if the database cannot be read, a writer cannot be
// reached, or ctx ends.
func (k *Keeper) Apply(ctx context.Context, b follow.Batch) error {
	seen := map[shard.Nid]bool{}
	for i := range b.Entries {
		e := &b.Entries[i]
		if e.Kind != entry.KindEvent || seen[e.Room] {
			continue
		}
		body, err := entry.DecodeEvent(&e.Entry)
		if err != nil {
			return fmt.Errorf("guests: %w", err)
		}
		redacts := ""
		if !touches(body) {
			if redacts = body.Redacts; redacts == "" {
				continue
			}
		} else {
			seen[e.Room] = true
		}
		if err := k.room(ctx, e.Room, id.RoomID(body.RoomId), redacts); err != nil {
			return fmt.Errorf("guests of %s: %w", body.RoomId, err)
		}
	}
	return nil
}

// touches tells whether an event may have changed whether guests are let in.
func touches(body *entry.EventBody) bool {
	if body.StateKey != nil && body.Type == event.TypeGuestAccess {
		return true
	}
	for _, s := range body.StateChanges {
		if s.Type == event.TypeGuestAccess {
			return true
		}
	}
	return false
}

// room looks after one room; after a redaction only if that was of what the room says of guests.
func (k *Keeper) room(ctx context.Context, nid shard.Nid, room id.RoomID, redacts string) error {
	name := roomdb.StateName{Type: event.TypeGuestAccess}
	state, err := k.rooms.CurrentStateAt(ctx, nid, []roomdb.StateName{name})
	if err != nil {
		return err
	}
	e, ok := state[name]
	if redacts != "" && (!ok || e.EventID != redacts) {
		return nil
	}
	if ok && e.RedactedBy == 0 {
		content, _ := canonjson.Get(e.JSON, "content")
		if access, _ := canonjson.GetString(content, "guest_access"); access == "can_join" {
			return nil
		}
	}
	for after := ""; ; {
		members, err := k.rooms.LocalMembersAfter(ctx, nid, roomdb.MembershipJoin, after, atOnce)
		if err != nil || len(members) == 0 {
			return err
		}
		shards := make([]shard.ID, len(members))
		for i, u := range members {
			shards[i] = k.shards.OfUser(u)
		}
		guests, err := k.accounts.OfKind(ctx, shards, members, accountdb.KindGuest)
		if err != nil {
			return err
		}
		for _, g := range guests {
			var refused *mxerr.Error
			switch err := k.leave(ctx, room, id.UserID(g)); {
			case err == nil:
			case errors.As(err, &refused) && refused.HTTPStatus < 500:
				k.log.Debug("a guest does not leave", "room", room, "user", g, "error", err)
			default:
				return err
			}
		}
		if len(members) < atOnce {
			return nil
		}
		after = members[len(members)-1]
	}
}
