package app

import (
	"context"
	"crypto/rand"

	"github.com/heddle-im/heddle/pkg/api/read"
	"github.com/heddle-im/heddle/pkg/infra/bus"
	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/service/msync"
	"github.com/heddle-im/heddle/pkg/service/presence"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// newPresence makes what this worker knows of who is online.
func newPresence(s *shared) *presence.Hub {
	return presence.New(presence.Options{
		Disabled: !s.cfg.Presence.Enabled, Origin: rand.Text(), Store: s.soft, Now: s.now, Log: s.log,
	})
}

// announcePresence has workers tell each other who is online.
func announcePresence(s *shared, group *lifecycle.Group, who *presence.Hub, engine *msync.Engine) error {
	a := presence.NewAnnouncer(context.Background(), who, engine, joinedRooms(s), func(data []byte) error {
		return s.bus.Publish(bus.Message{Subject: entry.PresenceSubject, Data: data})
	})
	group.Add("presence", a)
	return s.subscribe(entry.PresenceSubject, a.Hear)
}

// joinedRooms reads the rooms that a user of this server is in.
func joinedRooms(s *shared) presence.ReadRooms {
	return func(ctx context.Context, user string) ([]shard.Nid, error) {
		rows, err := s.rooms.Memberships(ctx, user)
		if err != nil {
			return nil, err
		}
		var rooms []shard.Nid
		for i := range rows {
			if rows[i].Membership == roomdb.MembershipJoin {
				rooms = append(rooms, rows[i].Nid)
			}
		}
		return rooms, nil
	}
}

// acquainted tells whether two users share a room.
func acquainted(s *shared) read.Acquaintance {
	return func(ctx context.Context, user, other id.UserID) (bool, error) {
		_, n, err := s.rooms.MutualRooms(ctx, string(user), string(other), 0, 1)
		return n > 0, err
	}
}
