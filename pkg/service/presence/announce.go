package presence

import (
	"context"
	"slices"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// Syncs are the syncs of this process. *msync.Engine is one.
type Syncs interface {
	// RoomsOf gives the rooms that a user is in; ok is false if the user does not sync here.
	RoomsOf(user string) (rooms []shard.Nid, ok bool)
	// WakeIn has the waiting syncs of those who are in any of the rooms, and of a user, look again.
	WakeIn(rooms []shard.Nid, user string)
}

// ReadRooms reads the rooms that a user is in from the database.
type ReadRooms func(ctx context.Context, user string) ([]shard.Nid, error)

// Announcer tells other workers what a Hub knows, and the Hub what they say. It is a lifecycle service.
type Announcer struct {
	hub     *Hub
	syncs   Syncs
	read    ReadRooms
	publish func([]byte) error
	tasks   *lifecycle.Tasks
	asked   time.Time // when the others were last asked for all that they know; used by Hear alone
}

// How much and how often.
const (
	gather      = 100 * time.Millisecond // what changes within this is told at once
	sweepEvery  = 5 * time.Second
	expireEvery = time.Minute
	maxStates   = 200    // of one message
	maxListed   = 20_000 // rooms of one message
	maxRooms    = 5_000  // of one user: those in more are shown in these
	readTimeout = 5 * time.Second
	askEvery    = 10 * time.Second
)

// NewAnnouncer makes an Announcer; its work carries the values of ctx.
func NewAnnouncer(ctx context.Context, hub *Hub, syncs Syncs, read ReadRooms, publish func([]byte) error) *Announcer {
	return &Announcer{hub: hub, syncs: syncs, read: read, publish: publish, tasks: lifecycle.NewTasks(ctx)}
}

// Start implements lifecycle.Service.
func (a *Announcer) Start(context.Context) error {
	if a.hub.Disabled {
		return nil
	}
	a.send(&entry.PresenceBatch{Origin: a.hub.Origin, Hello: true})
	a.tasks.Go(a.run)
	return nil
}

// Stop implements lifecycle.Service. Those who sync here are not told to be offline: another worker serves them next.
func (a *Announcer) Stop(ctx context.Context) error { return a.tasks.StopWithin(ctx) }

// Hear takes in a message of another worker. It is called by one goroutine at a time.
func (a *Announcer) Hear(data []byte) {
	b, err := entry.DecodePresence(data)
	switch {
	case err != nil:
		a.hub.Log.Warn("presence was not understood", "error", err)
	case b.Origin == a.hub.Origin || a.hub.Disabled:
	case b.Hello:
		for _, reply := range a.hub.all() {
			a.send(reply)
		}
	default:
		wakes, missed := a.hub.hear(b)
		a.wake(wakes)
		if now := a.hub.Now(); missed && now.Sub(a.asked) >= askEvery {
			a.asked = now
			a.send(&entry.PresenceBatch{Origin: a.hub.Origin, Hello: true})
		}
		a.hub.nudge() // what is known is watched
	}
}

func (a *Announcer) wake(wakes []wake) {
	for _, w := range wakes {
		a.syncs.WakeIn(w.rooms, w.user)
	}
}

func (a *Announcer) send(b *entry.PresenceBatch) {
	data, err := entry.EncodePresence(b)
	if err == nil {
		err = a.publish(data)
	}
	if err != nil { // it may be lost: that is what soft means
		a.hub.Log.Debug("presence was not told", "error", err)
	}
}

// run tells what is to be told, and watches who is gone, for as long as anybody is known.
func (a *Announcer) run(ctx context.Context) {
	sweep := time.NewTimer(sweepEvery)
	defer sweep.Stop()
	watching := true
	var swept time.Duration
	for {
		select {
		case <-ctx.Done():
			return
		case <-sweep.C:
			a.hub.sweep()
			if swept += sweepEvery; swept >= expireEvery {
				swept = 0
				a.wake(a.hub.expire())
			}
			if watching = a.hub.any(); watching {
				sweep.Reset(sweepEvery)
			}
		case <-a.hub.kick:
			if !watching {
				watching = true
				sweep.Reset(sweepEvery)
			}
			t := time.NewTimer(gather)
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
				return
			}
			a.flush(ctx)
		}
	}
}

// flush tells of everybody who is to be told of.
func (a *Announcer) flush(ctx context.Context) {
	users := a.hub.due()
	b, listed := &entry.PresenceBatch{Origin: a.hub.Origin}, 0
	for _, user := range users {
		rooms, ok := a.rooms(ctx, user)
		p, w := a.hub.say(user, rooms, ok)
		if p == nil {
			continue
		}
		a.wake(w)
		a.hub.keep(ctx, user, Status{Presence: fromWire(p), Message: p.StatusMsg, LastActive: time.UnixMilli(p.LastActive)})
		b.States = append(b.States, p)
		if listed += len(p.Rooms); len(b.States) >= maxStates || listed >= maxListed {
			a.send(b)
			b, listed = &entry.PresenceBatch{Origin: a.hub.Origin}, 0
		}
	}
	if len(b.States) > 0 {
		a.send(b)
	}
}

// rooms gives where a user is to be shown, ascending; ok is false if that cannot be found out.
func (a *Announcer) rooms(ctx context.Context, user string) ([]shard.Nid, bool) {
	rooms, ok := a.syncs.RoomsOf(user)
	if !ok {
		ctx, cancel := context.WithTimeout(ctx, readTimeout)
		defer cancel()
		var err error
		if rooms, err = a.read(ctx, user); err != nil {
			a.hub.Log.Debug("rooms of a user who is online cannot be read", "error", err)
			return nil, false
		}
	}
	slices.Sort(rooms)
	return rooms[:min(len(rooms), maxRooms)], true
}

// any tells whether anybody is known.
func (h *Hub) any() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.here)+len(h.known) > 0
}

// due gives who is to be told of.
func (h *Hub) due() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	users := make([]string, 0, len(h.dirty))
	for u := range h.dirty {
		users = append(users, u)
	}
	slices.Sort(users)
	return users
}

// say decides what is told of a user: nil if it is nothing.
func (h *Hub) say(user string, rooms []shard.Nid, with bool) (*entry.PresenceState, []wake) {
	h.mu.Lock()
	defer h.mu.Unlock()
	force, due := h.dirty[user]
	delete(h.dirty, user)
	l := h.here[user]
	if !due || l == nil {
		return nil, nil
	}
	now := h.Now()
	p, s := l.presence(now), h.known[user]
	if s != nil && s.origin != h.Origin && !force && p <= s.presence {
		return nil, nil // another worker sees the user, and more of it
	}
	out := &entry.PresenceState{
		UserId: user, Presence: toWire(p), StatusMsg: l.status, LastActive: l.active.UnixMilli(), At: now.UnixMilli(), Asked: l.asked,
	}
	if s != nil {
		out.At = max(out.At, s.at+1)
		if with && slices.Equal(rooms, s.rooms) && s.presence == p && s.status == l.status {
			with, out.Again = false, true
		}
	}
	if with {
		out.WithRooms, out.Rooms = true, make([]int64, len(rooms))
		for i, n := range rooms {
			out.Rooms[i] = int64(n)
		}
	}
	w, concerns := h.hearOne(h.Origin, out)
	l.told, l.asked = now, false
	if !concerns {
		return out, nil
	}
	return out, []wake{w}
}

// all gives what this process says of everybody who syncs here, for one who knows nothing.
func (h *Hub) all() []*entry.PresenceBatch {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []*entry.PresenceBatch
	b, listed := &entry.PresenceBatch{Origin: h.Origin}, 0
	for user, s := range h.known {
		if s.origin != h.Origin || s.presence == Offline {
			continue
		}
		p := &entry.PresenceState{
			UserId: user, Presence: toWire(s.presence), StatusMsg: s.status, LastActive: s.lastActive, At: s.at, WithRooms: true,
			Rooms: make([]int64, len(s.rooms)),
		}
		for i, n := range s.rooms {
			p.Rooms[i] = int64(n)
		}
		b.States = append(b.States, p)
		if listed += len(p.Rooms); len(b.States) >= maxStates || listed >= maxListed {
			out, b, listed = append(out, b), &entry.PresenceBatch{Origin: h.Origin}, 0
		}
	}
	if len(b.States) > 0 {
		out = append(out, b)
	}
	return out
}
