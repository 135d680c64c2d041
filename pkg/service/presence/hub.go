package presence

import (
	"context"
	"iter"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// Presence is what a user can be. Higher is more present.
type Presence int8

// The presences.
const (
	Offline Presence = iota
	Unavailable
	Online
)

// Parse reads a presence as the specification spells it.
func Parse(s string) (Presence, bool) {
	switch s {
	case "online":
		return Online, true
	case "unavailable":
		return Unavailable, true
	case "offline":
		return Offline, true
	}
	return Offline, false
}

// String gives the specification's spelling.
func (p Presence) String() string {
	switch p {
	case Online:
		return "online"
	case Unavailable:
		return "unavailable"
	case Offline:
	}
	return "offline"
}

// After how long what is so no more.
const (
	goneAfter   = 30 * time.Second // a device that does not sync any more
	idleAfter   = 5 * time.Minute  // an online user who does nothing is unavailable
	againEvery  = 5 * time.Minute  // what has not changed is said again
	forgetAfter = 12 * time.Minute // what was not said again is not believed any more
	claimEvery  = 15 * time.Second // of a user whom another worker serves too
	keptFor     = 30 * 24 * time.Hour
)

// Store keeps what may be lost, for all workers. *soft.Store is one.
type Store interface {
	Get(ctx context.Context, key string) (value []byte, ok bool, err error)
	Set(ctx context.Context, key string, value []byte, ttl time.Duration) error
}

// Options are what a Hub needs. Log may be nil.
type Options struct {
	// Disabled makes everybody offline, and nothing is told or heard.
	Disabled bool
	// Origin names this process among all; another at each start.
	Origin string
	Store  Store
	Now    func() time.Time
	Log    *slog.Logger
}

// Hub is what this process knows of who is online.
type Hub struct {
	Options
	kick  chan struct{} // capacity 1: there is something to tell, or somebody to watch
	epoch int64         // of the marks, epochBits
	n     atomic.Int64  // of the last change: its time in ms, or more if there are several in one; written under mu

	mu     sync.Mutex        // guards all below
	known  map[string]*state // by user
	places map[shard.Nid]*place
	here   map[string]*local // those who sync here
	dirty  map[string]bool   // who is to be told of; true: whatever others say
	round  uint64            // of going over places, each of which looks at a user once
	looked int64             // how many changes readers have looked at
}

// state is what is known of a user.
type state struct {
	user       string
	presence   Presence
	status     string
	lastActive int64 // ms
	at         int64 // when it was said, ms
	origin     string
	rooms      []shard.Nid // ascending
	// asked is the n of the last change that the user asked for, of which the user's other devices want to hear.
	asked int64
	heard time.Time
	round uint64 // in which the user was last seen
}

// New makes a Hub.
func New(o Options) *Hub {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	h := &Hub{
		Options: o, kick: make(chan struct{}, 1), epoch: 1 + rand.Int64N(1<<epochBits-1),
		known: make(map[string]*state), places: make(map[shard.Nid]*place), here: make(map[string]*local), dirty: make(map[string]bool),
	}
	h.n.Store(h.Now().UnixMilli())
	return h
}

// A mark is the number of a change and, above that, the epoch of the process that numbered it.
const (
	epochBits = 20
	timeBits  = 42 // until 2109
	// skew is by how much clocks of processes, and what they hear, may differ.
	skew = int64(10 * time.Second / time.Millisecond)
)

// Mark stands for all that is known now, for a token. Changes are numbered by time, so that a mark of another process says much.
func (h *Hub) Mark() int64 { return h.epoch<<timeBits | h.n.Load() }

// since gives the number of the last change that a mark's holder was told, and whether this process has numbered it.
func (h *Hub) since(mark int64) (n int64, ours bool) {
	return mark & (1<<timeBits - 1), mark>>timeBits == h.epoch
}

// maxWhole bounds what one answer tells at once.
const maxWhole = 2000

// News tells each whose presence is new to a reader who was told up to a mark; to one who was told nothing (0), those who are not
// offline. What the clocks of two processes make doubtful is told again, but only what is new is worth an answer for its own
// sake: worth says that there is such. rooms are the reader's; of those that the reader has entered since, everybody is told who is not
// offline. No user is told twice. What it takes goes with the reader's rooms and with what is new in them, however many others there are.
func (h *Hub) News(
	user string, mark int64, rooms iter.Seq[shard.Nid], entered map[shard.Nid]bool, each func(user string, content []byte),
) (worth bool) {
	if h.Disabled {
		return false
	}
	since, ours := h.since(mark)
	from := since
	if !ours {
		from = max(0, since-skew)
	}
	if len(entered) == 0 && from >= h.n.Load() {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.round++
	t := telling{each: each, now: h.Now(), round: h.round}
	if me := h.known[user]; me != nil {
		if mark != 0 && me.asked > from {
			worth = me.asked > since
			t.tell(me)
		}
		me.round = t.round
	}
	for room := range rooms {
		after, whole := from, mark == 0
		if entered[room] {
			after, whole = 0, true
		}
		for _, c := range h.places[room].after(after) {
			h.looked++
			if s := c.who; s.user != user && s.in(room) && (!whole || s.presence != Offline) {
				told := t.tell(s)
				worth = worth || told && whole || c.n > since
			}
		}
	}
	return worth
}

// telling tells of each user once, and of so many in one answer.
type telling struct {
	each  func(user string, content []byte)
	now   time.Time
	round uint64
	told  int
}

func (t *telling) tell(s *state) bool {
	if s.round == t.round || t.told >= maxWhole {
		return false
	}
	s.round = t.round
	t.told++
	t.each(s.user, s.content(t.now))
	return true
}

// changed notes a change of a known user in rooms. Under mu.
func (h *Hub) changed(s *state, rooms []shard.Nid) (n int64) {
	n = max(h.n.Load()+1, h.Now().UnixMilli())
	for _, room := range rooms {
		h.round++
		h.places[room].note(room, change{n, s}, h.round)
	}
	h.n.Store(n)
	return n
}

// wake is whose waiting syncs are to look again: of the members of rooms, and of a user.
type wake struct {
	rooms []shard.Nid
	user  string // empty: only the rooms' members
}

// hear takes in what is said of users, and tells who is concerned.
// missed says that it repeats what was never heard.
func (h *Hub) hear(b *entry.PresenceBatch) (wakes []wake, missed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range b.States {
		if p.Again && h.known[p.UserId] == nil {
			missed = true
			continue
		}
		l := h.here[p.UserId]
		if l != nil && p.Asked {
			l.ask(fromWire(p), p.StatusMsg)
		}
		if w, ok := h.hearOne(b.Origin, p); ok {
			wakes = append(wakes, w)
		}
		if l != nil && l.presence(h.Now()) > h.known[p.UserId].presence { // more is seen of the user here
			h.tell(p.UserId, false)
		}
	}
	return wakes, missed
}

// hearOne takes in one user's state. Under mu.
func (h *Hub) hearOne(origin string, p *entry.PresenceState) (w wake, concerns bool) {
	s := h.known[p.UserId]
	if s != nil && p.At <= s.at {
		return w, false // said before what is known
	}
	fresh := s == nil
	if fresh {
		s = &state{user: p.UserId}
		h.known[p.UserId] = s
	}
	is := fromWire(p)
	same := !fresh && s.presence == is && s.status == p.StatusMsg
	s.presence, s.status, s.lastActive, s.at, s.origin, s.heard = is, p.StatusMsg, p.LastActive, p.At, origin, h.Now()
	var added []shard.Nid
	if p.WithRooms {
		rooms := make([]shard.Nid, len(p.Rooms))
		for i, n := range p.Rooms {
			rooms[i] = shard.Nid(n)
		}
		added = h.move(s, rooms)
	}
	switch {
	case !same:
		n := h.changed(s, s.rooms)
		w = wake{rooms: s.rooms}
		if p.Asked {
			s.asked, w.user = n, p.UserId
		}
		return w, true
	case len(added) > 0 && is != Offline:
		h.changed(s, added)
		return wake{rooms: added}, true
	}
	return w, false
}

// expire lets go of what was not said again: who was online is so no more, who was offline is not known any more.
func (h *Hub) expire() (wakes []wake) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.Now()
	for user, s := range h.known {
		if h.here[user] != nil || now.Sub(s.heard) < forgetAfter {
			continue
		}
		if s.presence == Offline {
			h.move(s, nil)
			delete(h.known, user)
			continue
		}
		s.presence, s.heard = Offline, now
		h.changed(s, s.rooms)
		wakes = append(wakes, wake{rooms: s.rooms})
	}
	return wakes
}

// nudge lets the announcer look. Never blocks.
func (h *Hub) nudge() {
	select {
	case h.kick <- struct{}{}:
	default:
	}
}
