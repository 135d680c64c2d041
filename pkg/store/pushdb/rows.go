package pushdb

import (
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// Class is a class of users for whom most events come to the same. The numbers rest in databases.
type Class int16

// The classes, by what a message in the room comes to. Whatever else a user's rules say of an event is an exception.
const (
	// ClassAll: as the predefined rules have it.
	ClassAll Class = 0
	// ClassSome: a message does not count, but what the predefined rules put above that does, such as a mention of the room.
	ClassSome Class = 1
	// ClassNone: nothing counts.
	ClassNone Class = 2
)

// Flags say what an event counts for in each class. The bits rest in databases.
type Flags int16

// The flags.
const (
	AllNotify     Flags = 1
	AllHighlight  Flags = 2
	SomeNotify    Flags = 4
	SomeHighlight Flags = 8
)

// In gives what an event counts for in a class.
func (f Flags) In(c Class) Count {
	switch c {
	case ClassAll:
		return Count{Notify: bit(f, AllNotify), Highlight: bit(f, AllHighlight)}
	case ClassSome:
		return Count{Notify: bit(f, SomeNotify), Highlight: bit(f, SomeHighlight)}
	default:
		return Count{}
	}
}

func bit(f, of Flags) int64 {
	if f&of != 0 {
		return 1
	}
	return 0
}

// Count is a number of notifications, and how many of them are highlights.
type Count struct{ Notify, Highlight int64 }

// Plus adds.
func (c Count) Plus(d Count) Count { return Count{c.Notify + d.Notify, c.Highlight + d.Highlight} }

// Minus subtracts.
func (c Count) Minus(d Count) Count { return Count{c.Notify - d.Notify, c.Highlight - d.Highlight} }

// Running is what all events of a thread up to a place count for, by class.
type Running struct{ All, Some Count }

// In gives the counts of a class.
func (r Running) In(c Class) Count {
	switch c {
	case ClassAll:
		return r.All
	case ClassSome:
		return r.Some
	default:
		return Count{}
	}
}

// Plus adds an event.
func (r Running) Plus(f Flags) Running {
	return Running{All: r.All.Plus(f.In(ClassAll)), Some: r.Some.Plus(f.In(ClassSome))}
}

// The rows below implement entry.Row. In each, Entry is the index of the proposal's entry that is the event. Thread is the id of the
// thread's root, empty for the main timeline.

// Tally is an event that counts for a class, with the running counts of its thread.
type Tally struct {
	Room    shard.Nid
	Thread  string
	Flags   Flags
	Running Running
	Entry   int
}

// Cost implements entry.Row.
func (r *Tally) Cost() int { return 128 + len(r.Thread) }

// Thread notes that something in a thread counts for somebody.
type Thread struct {
	Room   shard.Nid
	Thread string
	Entry  int
}

// Cost implements entry.Row.
func (r *Thread) Cost() int { return 80 + len(r.Thread) }

// Exception is what an event counts for a user beyond what it does for the user's class.
type Exception struct {
	Room   shard.Nid
	UserID string
	Thread string
	Beyond Count
	Entry  int
}

// Cost implements entry.Row.
func (r *Exception) Cost() int { return 112 + len(r.UserID) + len(r.Thread) }

// Correction takes back what an event counts for: one at an order key, or, if Back is not 0, one that stands so many entries before.
type Correction struct {
	Room   shard.Nid
	Ord    int64
	Back   int
	Thread string
	Flags  Flags
	Entry  int
}

// Cost implements entry.Row.
func (r *Correction) Cost() int { return 96 + len(r.Thread) }

// SetClass sets a user's class from an event on, that event included.
type SetClass struct {
	Room   shard.Nid
	UserID string
	Class  Class
	Entry  int
}

// Cost implements entry.Row.
func (r *SetClass) Cost() int { return 80 + len(r.UserID) }

// Sent notes that a user of this server has said something in a thread, and so has read it up to there.
type Sent struct {
	Room   shard.Nid
	UserID string
	Thread string
	Entry  int
}

// Cost implements entry.Row.
func (r *Sent) Cost() int { return 96 + len(r.UserID) + len(r.Thread) }

var _ = []entry.Row{(*Tally)(nil), (*Thread)(nil), (*Exception)(nil), (*Correction)(nil), (*SetClass)(nil), (*Sent)(nil)}
