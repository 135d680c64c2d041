package app

import (
	"context"
	"crypto/rand"

	"github.com/heddle-im/heddle/pkg/infra/bus"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/service/inbound"
	"github.com/heddle-im/heddle/pkg/service/presence"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/store/senderdb"
)

// eduTakers are those who take EDUs of other servers: such as must not be lost, and others.
func eduTakers(s *shared) (kept, others map[string]inbound.Taker) {
	front := e2eeFront(s)
	kept = map[string]inbound.Taker{
		inbound.EDUToDevice: front.TakeToDevice, inbound.EDUDevices: front.TakeDeviceList, inbound.EDUSigningKey: front.TakeDeviceList,
	}
	if s.cfg.Presence.Enabled {
		others = map[string]inbound.Taker{inbound.EDUPresence: takePresence(s)}
	}
	return kept, others
}

// takePresence tells the synchrotrons what another server says of its users, of those who are in rooms that this one knows.
func takePresence(s *shared) inbound.Taker {
	rooms, origin := senderdb.NewDB(s.db), rand.Text()
	return func(ctx context.Context, server id.ServerName, content []byte) error {
		list, err := presence.Elsewhere(server, content, s.now())
		if err != nil || len(list) == 0 {
			return err
		}
		users := make([]string, len(list))
		for i, p := range list {
			users[i] = p.UserId
		}
		in, err := rooms.RoomsOfGuests(ctx, string(server), users)
		if err != nil {
			return err
		}
		b := &entry.PresenceBatch{Origin: origin}
		for _, p := range list {
			if len(in[p.UserId]) == 0 {
				continue
			}
			for _, r := range in[p.UserId] {
				p.Rooms = append(p.Rooms, int64(r))
			}
			b.States = append(b.States, p)
		}
		if len(b.States) == 0 {
			return nil
		}
		data, err := entry.EncodePresence(b)
		if err != nil {
			return err
		}
		return s.bus.Publish(bus.Message{Subject: entry.PresenceSubject, Data: data})
	}
}
