package shard

import "errors"

var (
	// ErrTrimmed says that a part of a log that was to be read has been trimmed.
	ErrTrimmed = errors.New("log has been trimmed")
	// ErrIncarnation says that the database is in another incarnation than was asked for.
	ErrIncarnation = errors.New("database is in another incarnation")
)

// Vector holds a position of every shard: v[s] is that of shard s.
type Vector []Pos

// Int64s gives the positions as the database has them.
func (v Vector) Int64s() []int64 {
	out := make([]int64, len(v))
	for i, p := range v {
		out[i] = int64(p)
	}
	return out
}

// Clone gives a copy.
func (v Vector) Clone() Vector { return append(Vector(nil), v...) }

// AtLeast tells whether no component of v is before that of w. Vectors of different lengths are never comparable.
func (v Vector) AtLeast(w Vector) bool {
	if len(v) != len(w) {
		return false
	}
	for s := range v {
		if v[s] < w[s] {
			return false
		}
	}
	return true
}

// Max gives the later position of each shard. The vectors have the same length.
func (v Vector) Max(w Vector) Vector {
	m := v.Clone()
	for s := range m {
		m[s] = max(m[s], w[s])
	}
	return m
}

// Min gives the earlier position of each shard. The vectors have the same length.
func (v Vector) Min(w Vector) Vector {
	m := v.Clone()
	for s := range m {
		m[s] = min(m[s], w[s])
	}
	return m
}

// Heads is how far the logs of all shards reach, as one snapshot of the database has it.
type Heads struct {
	Incarnation uint32
	Positions   Vector
}

// Step is how far apart the positions of two incarnations are: further than any shard can write between a backup and
// the loss of what came after it, so that no position is used twice.
const Step Pos = 1 << 32

// Incarnation is one history of the database: a restore or a failover begins another.
type Incarnation struct {
	// Number is not used twice, even if the database is restored to the same moment twice.
	Number uint32
	// Began is the first position of each shard that belongs to this incarnation; all before it is common with the
	// incarnation before. The first entry is written at [Incarnation.Start] or later.
	Began Vector
	// First says that there was no incarnation before.
	First bool
}

// Start gives the position after which a shard's first entry of this incarnation is written.
func (i Incarnation) Start(s ID) Pos {
	if i.First {
		return i.Began[s] - 1
	}
	return i.Began[s] - 1 + Step
}

// History is the incarnations of a database, the oldest first.
type History []Incarnation

// Current gives the last incarnation.
func (h History) Current() (Incarnation, bool) {
	if len(h) == 0 {
		return Incarnation{}, false
	}
	return h[len(h)-1], true
}

// Holds tells whether a vector of positions learned in an incarnation still says something true: the incarnation is the
// current one, or what the vector has seen is all before the next one began. A vector for which it is false
// has seen entries that a restore undid.
func (h History) Holds(incarnation uint32, v Vector) bool {
	for i := range h {
		if h[i].Number != incarnation {
			continue
		}
		if i == len(h)-1 {
			return true
		}
		next := h[i+1].Began
		if len(next) != len(v) {
			return false
		}
		for s := range v {
			if v[s] >= next[s] {
				return false
			}
		}
		return true
	}
	return false
}

// Role is a lease of something other than a shard's writing, as its holder has it.
type Role struct {
	Name  string
	Slot  int16
	Epoch Epoch
}
