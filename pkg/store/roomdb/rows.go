package roomdb

import (
	"encoding/binary"
	"errors"

	"github.com/heddle-im/heddle/pkg/matrix/stateres"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// Flag are the properties of an event's row. The bits rest in databases.
type Flag int16

// The flags.
const (
	FlagRejected   Flag = 1 << 0 // failed authorisation: no timeline shows it, no state holds it
	FlagSoftFailed Flag = 1 << 1 // passed on its own auth events, failed against the current state: not shown
	FlagOutlier    Flag = 1 << 2 // known for its id and its auth chain only; its state is not known
	FlagGap        Flag = 1 << 3 // events before it were missing when it took its place
)

// Has tells whether all of the bits are set.
func (f Flag) Has(bits Flag) bool { return f&bits == bits }

// Relation is what is made of an event's relation to its parent. The numbers rest in databases and in indices.
type Relation int16

// The relations; RelationNone stands for those of which nothing is made, among them replacements that are none.
const (
	RelationNone       Relation = 0
	RelationReplace    Relation = 1 // what only the parent decides is not looked at: its sender and type
	RelationThread     Relation = 2
	RelationReference  Relation = 3
	RelationAnnotation Relation = 4
)

// Membership is a membership as a number. The numbers rest in databases.
type Membership int16

// The memberships; None stands for no member event.
const (
	MembershipNone   Membership = 0
	MembershipLeave  Membership = 1
	MembershipInvite Membership = 2
	MembershipKnock  Membership = 3
	MembershipJoin   Membership = 4
	MembershipBan    Membership = 5
)

// String gives the membership as it stands in events; "" for none.
func (m Membership) String() string {
	switch m {
	case MembershipLeave:
		return "leave"
	case MembershipInvite:
		return "invite"
	case MembershipKnock:
		return "knock"
	case MembershipJoin:
		return "join"
	case MembershipBan:
		return "ban"
	case MembershipNone:
	}
	return ""
}

// ParseMembership reads a membership as it stands in events; None for any other string.
func ParseMembership(s string) Membership {
	for m := MembershipLeave; m <= MembershipBan; m++ {
		if m.String() == s {
			return m
		}
	}
	return MembershipNone
}

// Order says how an event's order key, or a base to count from, is found. The zero Order is none.
type Order struct {
	kind uint8
	n    int64
}

const (
	orderNone uint8 = iota
	orderLive
	orderFixed
)

// Live is the order of a live event: the position of the proposal's entry of this index, known at the commit.
func Live(entryIndex int) Order { return Order{orderLive, int64(entryIndex)} }

// Fixed is an order that is known beforehand, below zero for backfilled events.
func Fixed(ord int64) Order { return Order{orderFixed, ord} }

// at gives the order key, nil for none.
func (o Order) at(p entry.Place) *int64 {
	switch o.kind {
	case orderLive:
		n := int64(p.Pos(int(o.n)))
		return &n
	case orderFixed:
		n := o.n
		return &n
	}
	return nil
}

// The rows below implement entry.Row. In each, Entry is the index of the proposal's entry whose position the row stores.

// Atom gives a string its nid. A name that has its nid already is left as it is, so that every proposal that uses a nid
// that is not committed yet can bring the atom along.
type Atom struct {
	Nid  shard.Nid
	Name string
}

// Cost implements entry.Row.
func (r *Atom) Cost() int { return 64 + len(r.Name) }

// Room makes a room. It fails if the room exists.
type Room struct {
	Nid     shard.Nid
	RoomID  string
	Version string
	Entry   int
}

// Cost implements entry.Row.
func (r *Room) Cost() int { return 96 + len(r.RoomID) }

// Event makes an event's row. It fails if the room has the event.
type Event struct {
	Nid, Room   shard.Nid
	Order       Order // Live, Fixed, or none for outliers and rejected events
	EventID     string
	Type        shard.Nid  // atom
	StateKey    *shard.Nid // atom; nil: not a state event
	Sender      shard.Nid  // atom
	Depth       int64
	TS          int64 // ms
	Flags       Flag
	StateBefore shard.Nid
	StateAfter  shard.Nid
	// Extremities are the room's forward extremities after the event; none: just this event.
	Extremities []shard.Nid
	Prev, Auth  []shard.Nid
	// Replaces is the event of the same key in the state before; 0: none.
	Replaces   shard.Nid
	RedactedBy shard.Nid
	RelatesTo  string    // "": none
	RelType    shard.Nid // atom; 0: none
	Relation   Relation
	// SenderDevice and TxnID are set for events of local devices.
	SenderDevice, TxnID string
	Counts              []byte
	JSON                []byte
}

// Cost implements entry.Row.
func (r *Event) Cost() int {
	return 256 + len(r.EventID) + len(r.JSON) + len(r.Counts) + len(r.RelatesTo) + len(r.TxnID) +
		8*(len(r.Extremities)+len(r.Prev)+len(r.Auth))
}

// EventPlaced changes what a stored event's row says of its place in the room: an outlier that got its state, or an event
// whose rejection was repaired.
type EventPlaced struct {
	Nid                     shard.Nid
	Order                   Order
	Flags                   Flag
	StateBefore, StateAfter shard.Nid
	Extremities             []shard.Nid
	Prev                    []shard.Nid
}

// Cost implements entry.Row.
func (r *EventPlaced) Cost() int { return 128 + 8*(len(r.Extremities)+len(r.Prev)) }

// ThreadPart notes that somebody takes part in a thread with an event at a place. An earlier one changes nothing.
type ThreadPart struct {
	Room   shard.Nid
	Root   string
	Sender shard.Nid // atom
	Order  Order     // Live or Fixed
}

// Cost implements entry.Row.
func (r *ThreadPart) Cost() int { return 96 + len(r.Root) }

// Redaction marks an event as redacted by another. Its part in a thread is taken back.
type Redaction struct{ Event, By shard.Nid }

// Cost implements entry.Row.
func (r *Redaction) Cost() int { return 64 }

// StateSnapshot makes a snapshot of a room's state.
type StateSnapshot struct {
	Nid, Room shard.Nid
	Step      int32
	Entries   int32
	Chain     []shard.Nid // to overlay, the full one first, without this one
	Delta     []byte
}

// Cost implements entry.Row.
func (r *StateSnapshot) Cost() int { return 96 + 8*len(r.Chain) + len(r.Delta) }

// ForkedState notes the room's state after an event where it is not the state after the event itself, because the room has forks.
type ForkedState struct{ Room, Event, Snapshot shard.Nid }

// Cost implements entry.Row.
func (r *ForkedState) Cost() int { return 64 }

// CurrentState sets one entry of a room's current state; an Event of 0 removes it.
type CurrentState struct {
	Room, Type, StateKey shard.Nid
	Event                shard.Nid
	Entry                int
}

// Cost implements entry.Row.
func (r *CurrentState) Cost() int { return 64 }

// Member sets a user's membership of a room. It leaves forgotten false.
type Member struct {
	Room       shard.Nid
	UserID     string
	Membership Membership
	Event      shard.Nid
	Local      bool
	PushClass  int16
	PushOffset int64
	PushBase   Order // none: 0
	Entry      int
}

// Cost implements entry.Row.
func (r *Member) Cost() int { return 112 + len(r.UserID) }

// MemberForgotten marks a room that a user has left as forgotten.
type MemberForgotten struct {
	Room   shard.Nid
	UserID string
}

// Cost implements entry.Row.
func (r *MemberForgotten) Cost() int { return 48 + len(r.UserID) }

// Receipt sets a user's receipt in a room or thread.
type Receipt struct {
	Room     shard.Nid
	UserID   string
	Kind     string
	Thread   string
	EventID  string
	EventOrd int64
	TS       int64
	Entry    int
}

// Cost implements entry.Row.
func (r *Receipt) Cost() int { return 112 + len(r.UserID) + len(r.EventID) + len(r.Thread) }

// Alias makes an alias. It fails if the alias exists.
type Alias struct {
	Alias, RoomID, Creator string
	Entry                  int
}

// Cost implements entry.Row.
func (r *Alias) Cost() int { return 64 + len(r.Alias) + len(r.RoomID) + len(r.Creator) }

// AliasMoved has an alias lead to another room than before, if it led to that.
type AliasMoved struct {
	Alias, From, RoomID string
	Entry               int
}

// Cost implements entry.Row.
func (r *AliasMoved) Cost() int { return 64 + len(r.Alias) + len(r.From) + len(r.RoomID) }

// AliasGone removes an alias.
type AliasGone struct{ Alias string }

// Cost implements entry.Row.
func (r *AliasGone) Cost() int { return 48 + len(r.Alias) }

// PublishedRoom lists a room in the public directory.
type PublishedRoom struct {
	Room   shard.Nid
	RoomID string
	Entry  int
}

// Cost implements entry.Row.
func (r *PublishedRoom) Cost() int { return 64 + len(r.RoomID) }

// PublishedRoomGone takes a room out of the public directory.
type PublishedRoomGone struct{ Room shard.Nid }

// Cost implements entry.Row.
func (r *PublishedRoomGone) Cost() int { return 48 }

// ErrNids is the error of reading packed nids whose length is no multiple of 8.
var ErrNids = errors.New("packed nids are malformed")

// PackNids puts nids together as columns hold them: 8 bytes each, big endian.
func PackNids(nids []shard.Nid) []byte {
	b := make([]byte, 0, 8*len(nids))
	for _, n := range nids {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	return b
}

// UnpackNids is the inverse of [PackNids].
func UnpackNids(b []byte) ([]shard.Nid, error) {
	if len(b)%8 != 0 {
		return nil, ErrNids
	}
	nids := make([]shard.Nid, 0, len(b)/8)
	for ; len(b) > 0; b = b[8:] {
		nids = append(nids, shard.Nid(binary.BigEndian.Uint64(b)))
	}
	return nids, nil
}

// StateLoad sets many entries of a room's current state at once, each of them once: the state of a room that was entered.
type StateLoad struct {
	Room  shard.Nid
	Pairs []stateres.Pair
	Entry int
}

// Cost implements entry.Row.
func (r *StateLoad) Cost() int { return 64 + 24*len(r.Pairs) }

// LoadedMember is a membership of a [MemberLoad].
type LoadedMember struct {
	UserID     string
	Membership Membership
	Event      shard.Nid
	Local      bool
}

// MemberLoad sets many memberships of a room at once, each user's once.
type MemberLoad struct {
	Room    shard.Nid
	Members []LoadedMember
	Entry   int
}

// Cost implements entry.Row.
func (r *MemberLoad) Cost() int {
	n := 64
	for i := range r.Members {
		n += 24 + len(r.Members[i].UserID)
	}
	return n
}
