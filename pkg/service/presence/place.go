package presence

import (
	"cmp"
	"slices"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// place is what has changed in a room, so that a reader looks at the reader's own rooms and not at all that changed anywhere. Guarded by
// Hub.mu.
type place struct {
	users int // who are known to be in it
	// changes ascend by n. The last one of each user is there; earlier ones are let go of by and by.
	changes []change
}

// change says that a user's presence changed, or that the user came into the room.
type change struct {
	n   int64
	who *state
}

// spare is how many changes of a room are kept beside twice the number of its users.
const spare = 16

// after gives the changes after n.
func (p *place) after(n int64) []change {
	if p == nil || len(p.changes) == 0 || p.changes[len(p.changes)-1].n <= n {
		return nil
	}
	i, _ := slices.BinarySearchFunc(p.changes, n+1, func(c change, n int64) int { return cmp.Compare(c.n, n) })
	return p.changes[i:]
}

// note adds a change. round has not been used before.
func (p *place) note(room shard.Nid, c change, round uint64) {
	p.changes = append(p.changes, c)
	if len(p.changes) <= 2*p.users+spare {
		return
	}
	kept := make([]change, 0, p.users+spare)
	for _, c := range slices.Backward(p.changes) {
		if c.who.round != round && c.who.in(room) {
			c.who.round = round
			kept = append(kept, c)
		}
	}
	slices.Reverse(kept)
	p.changes = kept
}

// in tells whether the user is known to be in a room.
func (s *state) in(room shard.Nid) bool {
	_, in := slices.BinarySearch(s.rooms, room)
	return in
}

// move notes where a user is now, ascending, and gives the rooms that are new. Under mu.
func (h *Hub) move(s *state, rooms []shard.Nid) (entered []shard.Nid) {
	for _, room := range minus(s.rooms, rooms) {
		if p := h.places[room]; p.users > 1 {
			p.users--
		} else {
			delete(h.places, room)
		}
	}
	entered = minus(rooms, s.rooms)
	for _, room := range entered {
		p := h.places[room]
		if p == nil {
			p = new(place)
			h.places[room] = p
		}
		p.users++
	}
	s.rooms = rooms
	return entered
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
