package sender

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// Typing and presence are told beside the log, and are lost if nobody listens.

const (
	// typingAgain is how often it is said of somebody who goes on typing; other servers forget it after a while.
	typingAgain = 40 * time.Second
	// presenceAgain is how often it is said of somebody who goes on being online: before package presence, elsewhere, believes it no more.
	presenceAgain = 10 * time.Minute
	softTick      = 5 * time.Second
	maxRemembered = 100_000
	softPatience  = 10 * time.Second
)

// typingRoom is who of this server types in a room, and when that was last told.
type typingRoom struct {
	id    string
	epoch int64
	n     int64
	users map[string]time.Time
}

// shown is what was last told of a user's presence.
type shown struct {
	presence entry.PresenceValue
	status   string
	active   bool
	said     int64 // by the one who knows, ms
	told     time.Time
}

// listener takes in what is soft. It belongs to one goroutine.
type listener struct {
	s      *Sender
	typing map[shard.Nid]*typingRoom
	shown  map[string]shown
}

// hearSoft takes in typing and presence as they are heard.
func (s *Sender) hearSoft(ctx context.Context) {
	l := &listener{s: s, typing: map[shard.Nid]*typingRoom{}, shown: map[string]shown{}}
	tick := time.NewTicker(softTick)
	defer tick.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			err = l.again(ctx)
		case m := <-s.soft:
			tctx, cancel := context.WithTimeout(ctx, softPatience)
			switch m := m.(type) {
			case *entry.Typing:
				err = l.hearTyping(tctx, m)
			case *entry.PresenceBatch:
				err = l.hearPresence(tctx, m)
			}
			cancel()
		}
		if err != nil && ctx.Err() == nil {
			s.log.Debug("typing or presence was not told to other servers", "error", err)
		}
	}
}

func (l *listener) hearTyping(ctx context.Context, m *entry.Typing) error {
	nid := shard.Nid(m.RoomNid)
	r := l.typing[nid]
	if r != nil && (m.Epoch < r.epoch || m.Epoch == r.epoch && m.N <= r.n) {
		return nil
	}
	var now []string
	for _, u := range m.UserIds {
		if serverOf(u) == l.s.o.Server {
			now = append(now, u)
		}
	}
	if r == nil {
		if len(now) == 0 {
			return nil
		}
		if len(l.typing) >= maxRemembered {
			clear(l.typing)
		}
		r = &typingRoom{id: m.RoomId, users: map[string]time.Time{}}
		l.typing[nid] = r
	}
	r.epoch, r.n = m.Epoch, m.N
	at := l.s.o.Now()
	var edus []*edu
	for _, u := range now {
		if _, typed := r.users[u]; !typed {
			edus = append(edus, typingEDU(r.id, u, true))
			r.users[u] = at
		}
	}
	for u := range r.users {
		if !slices.Contains(now, u) {
			edus = append(edus, typingEDU(r.id, u, false))
			delete(r.users, u)
		}
	}
	if len(r.users) == 0 {
		delete(l.typing, nid)
	}
	return l.tellRooms(ctx, []shard.Nid{nid}, edus)
}

func typingEDU(room, user string, typing bool) *edu {
	content, _ := json.Marshal(map[string]any{"room_id": room, "user_id": user, "typing": typing}) // always can be encoded
	return &edu{kind: kindTyping, key: room + "\x00" + user, typ: "m.typing", content: content}
}

// again says anew what other servers would forget.
func (l *listener) again(ctx context.Context) error {
	now := l.s.o.Now()
	for nid, r := range l.typing {
		var edus []*edu
		for u, told := range r.users {
			if now.Sub(told) >= typingAgain {
				edus = append(edus, typingEDU(r.id, u, true))
				r.users[u] = now
			}
		}
		if err := l.tellRooms(ctx, []shard.Nid{nid}, edus); err != nil {
			return err
		}
	}
	return nil
}

func (l *listener) hearPresence(ctx context.Context, b *entry.PresenceBatch) error {
	for _, p := range b.States {
		if serverOf(p.UserId) != l.s.o.Server {
			continue
		}
		now := l.s.o.Now()
		is := shown{
			presence: p.Presence, status: p.StatusMsg, said: p.At, told: now,
			active: p.Presence == entry.PresenceOnline && now.UnixMilli()-p.LastActive < int64(5*time.Minute/time.Millisecond),
		}
		was, known := l.shown[p.UserId]
		if known && is.said < was.said {
			continue
		}
		same := known && is.presence == was.presence && is.status == was.status && is.active == was.active
		if same && (p.Presence == entry.PresenceOffline || now.Sub(was.told) < presenceAgain) || !known && p.Again {
			continue
		}
		if len(l.shown) >= maxRemembered {
			clear(l.shown)
		}
		l.shown[p.UserId] = is
		if p.Presence == entry.PresenceOffline && p.StatusMsg == "" {
			delete(l.shown, p.UserId)
		}
		rooms := make([]shard.Nid, len(p.Rooms))
		for i, n := range p.Rooms {
			rooms[i] = shard.Nid(n)
		}
		if !p.WithRooms {
			var err error
			if rooms, err = l.s.o.DB.RoomsOfUser(ctx, p.UserId); err != nil {
				return err
			}
		}
		if err := l.tellRooms(ctx, rooms, []*edu{presenceEDU(p, is.active)}); err != nil {
			return err
		}
	}
	return nil
}

func presenceEDU(p *entry.PresenceState, active bool) *edu {
	name := "offline"
	switch p.Presence {
	case entry.PresenceOnline:
		name = "online"
	case entry.PresenceUnavailable:
		name = "unavailable"
	}
	return &edu{kind: kindPresence, key: p.UserId, presence: &presence{
		user: p.UserId, presence: name, status: p.StatusMsg, active: active, lastActive: p.LastActive,
	}}
}

// tellRooms queues EDUs for all who are in some of the rooms.
func (l *listener) tellRooms(ctx context.Context, rooms []shard.Nid, edus []*edu) error {
	if len(edus) == 0 || len(rooms) == 0 {
		return nil
	}
	s := l.s
	hosts, err := s.hostsIn(ctx, rooms, 0)
	if err != nil || len(hosts) == 0 {
		return err
	}
	s.mu.Lock()
	for d := range hosts {
		if d.slot.closing {
			continue
		}
		for _, e := range edus {
			s.pushEDU(d, e)
		}
	}
	s.mu.Unlock()
	s.settle()
	return nil
}

// deviceOf gives the device that an m.device_list_update is of.
func deviceOf(content []byte) string {
	var c struct {
		DeviceID string `json:"device_id"`
	}
	_ = json.Unmarshal(content, &c) // then all such are one
	return c.DeviceID
}
