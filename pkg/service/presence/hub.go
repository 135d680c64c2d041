package presence

import (
	"cmp"
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
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
	maxChanges  = 4096 // that are remembered one by one
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

	mu      sync.Mutex        // guards all below
	known   map[string]*state // by user
	changes []change          // the latest, ascending by n
	trimmed int64             // the n of the last change that is no more in changes
	here    map[string]*local // those who sync here
	dirty   map[string]bool   // who is to be told of; true: whatever others say
}

// state is what is known of a user.
type state struct {
	presence   Presence
	status     string
	lastActive int64 // ms
	at         int64 // when it was said, ms
	origin     string
	rooms      []shard.Nid // ascending
	n          int64
	heard      time.Time
}

// change says that a user's presence changed, or, with rooms, that the user came into these.
type change struct {
	n     int64
	user  string
	rooms []shard.Nid
	// asked says that the user set it, and so the user's other devices want to hear of it.
	asked bool
}

// New makes a Hub.
func New(o Options) *Hub {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	h := &Hub{
		Options: o, kick: make(chan struct{}, 1), epoch: 1 + rand.Int64N(1<<epochBits-1),
		known: make(map[string]*state), here: make(map[string]*local), dirty: make(map[string]bool),
	}
	h.trimmed = h.Now().UnixMilli()
	h.n.Store(h.trimmed)
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
// sake: worth says that there is such. shares says whether the reader shares one of some rooms; entered, which may be nil, whether the
// reader is new in one of them, and so wants to hear of everybody there. No user is told twice.
func (h *Hub) News(user string, mark int64, shares, entered func([]shard.Nid) bool, each func(user string, content []byte)) (worth bool) {
	if h.Disabled {
		return false
	}
	since, ours := h.since(mark)
	from := since
	if !ours {
		from = max(0, since-skew)
	}
	if entered == nil && from >= h.n.Load() {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	t := telling{each: each, now: h.Now(), told: make(map[string]bool)}
	if from < h.trimmed {
		for who, s := range h.known {
			if s.n <= from || mark == 0 && s.presence == Offline || who == user || !shares(s.rooms) {
				continue
			}
			worth = t.tell(who, s) && s.n > since || worth
		}
	} else {
		i, _ := slices.BinarySearchFunc(h.changes, from+1, func(c change, n int64) int { return cmp.Compare(c.n, n) })
		for _, c := range h.changes[i:] {
			s := h.known[c.user]
			if s == nil || c.user == user && !c.asked {
				continue
			}
			rooms := c.rooms
			if rooms == nil {
				rooms = s.rooms
			}
			if c.user == user || shares(rooms) {
				worth = c.n > since || worth
				t.tell(c.user, s)
			}
		}
	}
	if entered == nil {
		return worth
	}
	for who, s := range h.known {
		if s.presence != Offline && who != user && entered(s.rooms) {
			worth = t.tell(who, s) || worth
		}
	}
	return worth
}

// telling tells of each user once, and of so many in one answer.
type telling struct {
	each func(user string, content []byte)
	now  time.Time
	told map[string]bool
}

func (t *telling) tell(who string, s *state) bool {
	if t.told[who] || len(t.told) >= maxWhole {
		return false
	}
	t.told[who] = true
	t.each(who, s.content(t.now))
	return true
}

// changed notes a change of a known user. Under mu.
func (h *Hub) changed(user string, s *state, rooms []shard.Nid, asked bool) {
	n := max(h.n.Load()+1, h.Now().UnixMilli())
	if rooms == nil {
		s.n = n
	}
	h.changes = append(h.changes, change{n: n, user: user, rooms: rooms, asked: asked})
	if over := len(h.changes) - maxChanges; over > maxChanges/2 {
		h.trimmed = h.changes[over-1].n
		h.changes = slices.Clone(h.changes[over:])
	}
	h.n.Store(n)
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
		s = &state{}
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
		added = minus(rooms, s.rooms)
		s.rooms = rooms
	}
	switch {
	case !same:
		h.changed(p.UserId, s, nil, p.Asked)
		w = wake{rooms: s.rooms}
		if p.Asked {
			w.user = p.UserId
		}
		return w, true
	case len(added) > 0 && is != Offline:
		h.changed(p.UserId, s, added, false)
		return wake{rooms: added}, true
	}
	return w, false
}

// minus gives what is in a and not in b, both ascending.
func minus(a, b []shard.Nid) []shard.Nid {
	var out []shard.Nid
	for _, n := range a {
		if _, in := slices.BinarySearch(b, n); !in {
			out = append(out, n)
		}
	}
	return out
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
			delete(h.known, user)
			continue
		}
		s.presence, s.heard = Offline, now
		h.changed(user, s, nil, false)
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
