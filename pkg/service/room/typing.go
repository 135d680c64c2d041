package room

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// Bounds of how long somebody types at most, and when the request does not say.
const (
	typingDefault = 30 * time.Second
	typingMost    = 2 * time.Minute
)

func (c *Typing) room() id.RoomID { return c.Room }
func (c *Typing) more() int       { return 0 }

func (c *Typing) decide(v *view) (plan, error) {
	if v.membership(c.User) != event.Join {
		return plan{}, mxerr.New(mxerr.Forbidden, "you are not in the room")
	}
	if v.lacks() {
		return plan{}, errLacks
	}
	var d time.Duration
	if c.Typing {
		if d = min(c.Timeout, typingMost); d <= 0 {
			d = typingDefault
		}
	}
	return plan{
		answer: Answer{Room: c.Room},
		after:  func(r *live) { r.term.typing.set(r.nid, r.id, c.User, d) },
	}, nil
}

// typists is who types in the rooms of a shard. It forgets by itself who has not said for a while that they still do.
type typists struct {
	shard shard.ID
	epoch shard.Epoch
	out   Ephemeral

	mu      sync.Mutex // guards all below; publishing is done under it, so that n grows in the order of publishing
	n       int64
	rooms   map[shard.Nid]*typingRoom
	stopped bool
	timers  sync.WaitGroup // timers that are set or running
}

type typingRoom struct {
	id    id.RoomID
	until map[id.UserID]time.Time
	timer *time.Timer
}

func newTypists(s shard.ID, e shard.Epoch, out Ephemeral) *typists {
	return &typists{shard: s, epoch: e, out: out, rooms: map[shard.Nid]*typingRoom{}}
}

// set says that a user types for as long as d, or not any more.
func (t *typists) set(nid shard.Nid, room id.RoomID, user id.UserID, d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return
	}
	r := t.rooms[nid]
	if r == nil {
		if d <= 0 {
			return
		}
		r = &typingRoom{id: room, until: map[id.UserID]time.Time{}}
		t.rooms[nid] = r
	}
	_, typed := r.until[user]
	if d > 0 {
		r.until[user] = time.Now().Add(d)
	} else {
		delete(r.until, user)
	}
	if typed != (d > 0) {
		t.publish(nid, r)
	}
	t.arm(nid, r)
}

// publish tells who types in a room. mu is held.
func (t *typists) publish(nid shard.Nid, r *typingRoom) {
	t.n++
	t.out.PublishTyping(TypingUsers{
		Shard: t.shard, Epoch: t.epoch, N: t.n, RoomNid: nid, Room: r.id, Users: slices.Sorted(maps.Keys(r.until)),
	})
}

// arm sets a room's timer for the next to fall silent. mu is held.
func (t *typists) arm(nid shard.Nid, r *typingRoom) {
	t.disarm(r)
	if len(r.until) == 0 {
		delete(t.rooms, nid)
		return
	}
	var next time.Time
	for _, at := range r.until {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	t.timers.Add(1)
	r.timer = time.AfterFunc(time.Until(next), func() { t.expire(nid, r) })
}

// disarm stops a room's timer. mu is held.
func (t *typists) disarm(r *typingRoom) {
	if r.timer != nil && r.timer.Stop() {
		t.timers.Done()
	}
	r.timer = nil
}

// expire forgets who has fallen silent.
func (t *typists) expire(nid shard.Nid, r *typingRoom) {
	defer t.timers.Done()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped || t.rooms[nid] != r {
		return
	}
	now := time.Now()
	before := len(r.until)
	maps.DeleteFunc(r.until, func(_ id.UserID, at time.Time) bool { return !at.After(now) })
	if len(r.until) != before {
		t.publish(nid, r)
	}
	t.arm(nid, r)
}

// stop forgets all, and waits for what is running. Nothing is published: the next epoch says it.
func (t *typists) stop() {
	t.mu.Lock()
	t.stopped = true
	for _, r := range t.rooms {
		t.disarm(r)
	}
	t.rooms = map[shard.Nid]*typingRoom{}
	t.mu.Unlock()
	t.timers.Wait()
}
