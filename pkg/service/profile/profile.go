// Package profile carries a changed display name or avatar into the member events of the rooms that the user is in.
//
// It learns of changes from the log and from nowhere else: a [Spreader] is a consumer for follow.Durable, under a role that one
// worker holds at a time. So what was begun is gone on with after a restart, and by another worker. It is told at least
// once; a room whose member event is right already is left alone. A user's rooms and profile are read after the entry came, so that
// many changes of one profile cost one event a room where they come together.
//
// Its methods are called from the follower's goroutine. The package is imported by the composition root; it knows no HTTP.
package profile

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
const Consumer = "profile"

// Profiles tells what is shown of a user of this server. It is *account.Reader.
type Profiles interface {
	Shown(ctx context.Context, user id.UserID) (displayName, avatarURL string, err error)
}

// Walker does something in each room of a user. It is *roomwalk.Walker.
type Walker interface {
	Walk(ctx context.Context, user id.UserID, t roomwalk.Task) error
}

// SetProfile brings a profile into a room's member event, as room.SetProfile says.
type SetProfile func(ctx context.Context, room id.RoomID, user id.UserID, displayName, avatarURL string) error

// Spreader is the consumer. It implements follow.Consumer.
type Spreader struct {
	profiles Profiles
	rooms    Walker
	set      SetProfile
}

// New makes a Spreader.
func New(p Profiles, rooms Walker, set SetProfile) *Spreader {
	return &Spreader{profiles: p, rooms: rooms, set: set}
}

// Filter says which entries are wanted. It is a follow.Filter.
func Filter(k entry.Kind, _ shard.Nid, _ []byte) bool { return k == entry.KindProfile }

// Apply implements follow.Consumer. It returns when the rooms of all users whose profile changed are done, and fails if the
// database cannot be read, or ctx ends.
func (s *Spreader) Apply(ctx context.Context, b follow.Batch) error {
	var users []id.UserID
	seen := map[string]bool{}
	for i := range b.Entries {
		e := &b.Entries[i]
		if e.Kind != entry.KindProfile || seen[e.Subject] {
			continue
		}
		body, err := entry.DecodeProfile(&e.Entry)
		if err != nil {
			return fmt.Errorf("spread profile: %w", err)
		}
		if body.Field == "displayname" || body.Field == "avatar_url" {
			seen[e.Subject] = true
			users = append(users, id.UserID(e.Subject))
		}
	}
	for _, u := range users {
		if err := s.spread(ctx, u); err != nil {
			return fmt.Errorf("spread profile of %s: %w", u, err)
		}
	}
	return nil
}

func (s *Spreader) spread(ctx context.Context, user id.UserID) error {
	displayName, avatarURL, err := s.profiles.Shown(ctx, user)
	if err != nil {
		return err
	}
	return s.rooms.Walk(ctx, user, roomwalk.Task{
		Name:  Consumer,
		Wants: func(m roomdb.Membership) bool { return m == roomdb.MembershipJoin },
		Do:    func(ctx context.Context, r id.RoomID) error { return s.set(ctx, r, user, displayName, avatarURL) },
	})
}
