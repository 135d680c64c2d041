// Package entry holds the kinds of record that the log carries, and the proposal: what a service wants committed.
//
// The set of kinds is closed. Each has one file here, with its typed form and its encoding; adding one touches that file, its
// row type in store/, its section of sync, and the table in docs/architecture.md. A reader that meets a kind it does
// not know advances past it and becomes unready.
//
// The package is pure. It may be imported by every package from layer 3 up.
package entry

import (
	"errors"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/shardlog/wire"
)

// Kind says what an entry is. The numbers rest in databases: they are never reused.
type Kind uint8

// The kinds of entry.
const (
	KindEvent       Kind = 1 // an event took its place in a room's timeline
	KindReceipt     Kind = 2 // a user's receipt in a room moved
	KindAccountData Kind = 3 // a user's account data changed, globally or for a room
	KindProfile     Kind = 4 // a field of a local user's profile changed
	KindSession     Kind = 5 // a local user's devices or tokens changed
	KindDeviceList  Kind = 6 // what others see of a user's devices and keys changed
	KindKeyCounts   Kind = 7 // how many keys of a local user's device are left to be claimed
	KindToDevice    Kind = 8 // messages to a local user's devices
	KindOutgoing    Kind = 9 // EDUs for another server, the subject, were queued

	KindThreadSubscription Kind = 10 // the threads that a user wants to hear of changed
)

// Known tells whether this binary can read entries of the kind.
func (k Kind) Known() bool { return k >= KindEvent && k <= KindThreadSubscription }

// ErrWrongKind is the error of decoding an entry as another kind than it is.
var ErrWrongKind = errors.New("entry is of another kind")

// Entry is one record of a shard's log. Room and Subject say whom it concerns, so that a follower can skip what concerns
// nobody it serves without decoding Body: an event concerns the members of its room and, if it changes a membership, the user
// in Subject; a device list concerns its user and everybody
// who shares a room with it; anything else that has a Subject concerns only that user, and what has none the members of Room.
type Entry struct {
	Kind    Kind
	Room    shard.Nid
	Subject string
	// Event is the nid of the event whose JSON belongs to the entry, 0 if none. In the database the JSON rests in the event's
	// row alone.
	Event shard.Nid
	Body  []byte
	JSON  []byte
}

// Size gives about how many bytes the entry takes, on the wire and in a window.
func (e *Entry) Size() int { return 48 + len(e.Subject) + len(e.Body) + len(e.JSON) }

// At is an entry at its place.
type At struct {
	Shard shard.ID
	Pos   shard.Pos
	Entry
}

// The typed bodies of entries are the wire's messages; these are their names above the log.
type (
	EventBody       = wire.EventBody
	StateChange     = wire.StateChange
	ReceiptBody     = wire.ReceiptBody
	AccountDataBody = wire.AccountDataBody
	ProfileBody     = wire.ProfileBody
	SessionBody     = wire.SessionBody
	DeviceListBody  = wire.DeviceListBody
	KeyCountsBody   = wire.KeyCountsBody
	KeyCount        = wire.KeyCount
	ToDeviceBody    = wire.ToDeviceBody
	ToDeviceMessage = wire.ToDeviceMessage
	PushOutcome     = wire.PushOutcome
	PushException   = wire.PushException
	PushClass       = wire.PushClass
	PushCorrection  = wire.PushCorrection
)
