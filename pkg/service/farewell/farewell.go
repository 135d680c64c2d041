// Package farewell has deactivated users leave their rooms, and decline what they were invited to.
//
// It learns of deactivations from the log and from nowhere else: a [Leaver] is a consumer for follow.Durable, under a role that one
// worker holds at a time. So what was begun is gone on with after a restart, and by another worker; a room that was left already
// is none of the user's rooms.
//
// Its methods are called from the follower's goroutine. The package is imported by the composition root; it knows no HTTP.
package farewell

import (
	"context"
	"fmt"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/service/roomwalk"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// Consumer is the name under which the places in the log are kept.
const Consumer = "farewell"

// Walker does something in each room of a user. It is *roomwalk.Walker.
type Walker interface {
	Walk(ctx context.Context, user id.UserID, t roomwalk.Task) error
}

// Leave has a user leave a room, or decline an invitation, or withdraw a knock.
type Leave func(ctx context.Context, room id.RoomID, user id.UserID) error

// Leaver is the consumer. It implements follow.Consumer.
type Leaver struct {
	rooms Walker
	leave Leave
}

// New makes a Leaver.
func New(rooms Walker, leave Leave) *Leaver { return &Leaver{rooms: rooms, leave: leave} }

// Filter says which entries are wanted. It is a follow.Filter.
func Filter(k entry.Kind, _ shard.Nid, _ []byte) bool { return k == entry.KindSession }

// Apply implements follow.Consumer. It returns when the users that were deactivated have left, and fails if the database cannot be read,
// or ctx ends.
func (l *Leaver) Apply(ctx context.Context, b follow.Batch) error {
	for i := range b.Entries {
		e := &b.Entries[i]
		if e.Kind != entry.KindSession {
			continue
		}
		body, err := entry.DecodeSession(&e.Entry)
		if err != nil {
			return fmt.Errorf("farewell: %w", err)
		}
		if body.GetChange() != entry.SessionDeactivated {
			continue
		}
		user := id.UserID(e.Subject)
		if err := l.rooms.Walk(ctx, user, roomwalk.Task{
			Name: Consumer,
			Wants: func(m roomdb.Membership) bool {
				return m == roomdb.MembershipJoin || m == roomdb.MembershipInvite || m == roomdb.MembershipKnock
			},
			Do: func(ctx context.Context, r id.RoomID) error { return l.leave(ctx, r, user) },
		}); err != nil {
			return fmt.Errorf("farewell of %s: %w", user, err)
		}
	}
	return nil
}
