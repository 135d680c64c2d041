// Package event is the PDU: parsed once, kept as its canonical bytes.
//
// An Event holds the canonical JSON of its federation form and where the members of that lie. To hash,
// redact, sign and serialise is to join spans of those bytes; what was received is never marshalled
// again, so that it cannot come out different. Everything that varies by room version is read from
// roomver.Rules.
//
//   - Parse takes an event from elsewhere: format and limits are checked, the content hash is compared
//     (an event that fails is redacted, as the specification demands), the event id is derived. Its
//     signatures are then checked with Verify.
//   - ParseTrusted takes an event that was stored after such checks.
//   - Build makes an event from a Proto: hashed and signed.
//
// Guarantees: an Event is immutable and safe for concurrent use; accessors do not allocate. Slices that
// they return share the event's memory: never write to them. The strings of one event share one small
// allocation apart from its JSON. Parse does not panic, whatever the input, and its work is bounded by
// the input's length.
//
// The unsigned member is not part of an Event's JSON: nobody vouches for it. What came with the event is
// at Unsigned; what goes out is given by the caller.
//
// Imported by everything but infra/; imports matrix/* and the standard library's pure parts.
package event

import (
	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
)

// Limits of the specification.
const (
	MaxSize       = 65536 // bytes of the federation form in canonical JSON
	MaxPrevEvents = 20
	MaxAuthEvents = 10
	MaxFieldSize  = 255 // type, state_key, sender, room_id, event_id
)

// A field is a top-level member that the specification knows. Their order is that of their names, so
// that joining fields in order gives sorted keys.
type field uint8

const (
	fAuthEvents field = iota
	fContent
	fDepth
	fEventID
	fHashes
	fMembership
	fOrigin
	fOriginServerTS
	fPrevEvents
	fPrevState
	fRedacts
	fRoomID
	fSender
	fSignatures
	fStateKey
	fType
	numFields

	fUnsigned = numFields // seen while parsing, never kept
	fUnknown  = numFields + 1
)

//nolint:gochecknoglobals // immutable
var fieldNames = [numFields]string{
	"auth_events", "content", "depth", "event_id", "hashes", "membership", "origin", "origin_server_ts",
	"prev_events", "prev_state", "redacts", "room_id", "sender", "signatures", "state_key", "type",
}

func fieldOf(key []byte) field {
	switch string(key) {
	case "auth_events":
		return fAuthEvents
	case "content":
		return fContent
	case "depth":
		return fDepth
	case "event_id":
		return fEventID
	case "hashes":
		return fHashes
	case "membership":
		return fMembership
	case "origin":
		return fOrigin
	case "origin_server_ts":
		return fOriginServerTS
	case "prev_events":
		return fPrevEvents
	case "prev_state":
		return fPrevState
	case "redacts":
		return fRedacts
	case "room_id":
		return fRoomID
	case "sender":
		return fSender
	case "signatures":
		return fSignatures
	case "state_key":
		return fStateKey
	case "type":
		return fType
	case "unsigned":
		return fUnsigned
	}
	return fUnknown
}

// A span is where a member's value lies in the event's JSON; end is 0 if there is no such member. The
// key, whose length is known, stands directly before it.
type span struct{ start, end uint32 }

// Event is a PDU. The zero value is not an event: use Parse, ParseTrusted or Build.
type Event struct {
	rules    *roomver.Rules
	json     []byte // canonical, without unsigned
	unsigned []byte // canonical; nil if there was none
	f        [numFields]span

	// The texts below are slices of one string.

	id       id.EventID
	room     id.RoomID
	sender   id.UserID
	typ      string
	stateKey string
	redacts  id.EventID
	links    []id.EventID // prev_events, then auth_events
	depth    int64
	ts       int64
	prevs    uint8
	flags    flags
}

type flags uint8

const (
	flagState flags = 1 << iota
	flagHashMismatch
	flagOverlongField
)

// Rules returns what the event's room version does.
func (e *Event) Rules() *roomver.Rules { return e.rules }

// Version returns the event's room version.
func (e *Event) Version() roomver.Version { return e.rules.Version }

// EventID returns the event's id, given or derived as its room version says.
func (e *Event) EventID() id.EventID { return e.id }

// RoomID returns the room's id; for a create event whose room id is its hash, the derived one.
func (e *Event) RoomID() id.RoomID { return e.room }

// HasRoomID tells whether the event's JSON has a room_id: create events of room version 12 must not.
func (e *Event) HasRoomID() bool { return e.f[fRoomID].end != 0 }

// Type returns the event's type.
func (e *Event) Type() string { return e.typ }

// StateKey returns the state key; ok is false if the event is not a state event.
func (e *Event) StateKey() (key string, ok bool) { return e.stateKey, e.flags&flagState != 0 }

// IsState tells whether the event is a state event.
func (e *Event) IsState() bool { return e.flags&flagState != 0 }

// Is tells whether the event is the state event of this type and key.
func (e *Event) Is(typ, stateKey string) bool {
	return e.flags&flagState != 0 && e.typ == typ && e.stateKey == stateKey
}

// Sender returns the sender.
func (e *Event) Sender() id.UserID { return e.sender }

// Content returns the content, a canonical JSON object.
func (e *Event) Content() []byte { return e.value(fContent) }

// PrevEvents returns the ids of the events before this one.
func (e *Event) PrevEvents() []id.EventID { return e.links[:e.prevs:e.prevs] }

// AuthEvents returns the ids of the events that authorise this one.
func (e *Event) AuthEvents() []id.EventID { return e.links[e.prevs:len(e.links):len(e.links)] }

// Depth returns the depth that the sender's server claims.
func (e *Event) Depth() int64 { return e.depth }

// OriginServerTS returns the time, in milliseconds, that the sender's server claims.
func (e *Event) OriginServerTS() int64 { return e.ts }

// Redacts returns the event that an m.room.redaction names, wherever its room version puts it; empty for
// other events.
func (e *Event) Redacts() id.EventID { return e.redacts }

// Unsigned returns the unsigned object that came with the event, nil if there was none. Nobody vouches
// for it.
func (e *Event) Unsigned() []byte { return e.unsigned }

// JSON returns the federation form without unsigned, in canonical JSON: what is stored.
func (e *Event) JSON() []byte { return e.json }

// Size returns the length of JSON.
func (e *Event) Size() int { return len(e.json) }

// HashMismatch tells whether Parse found the content hash to differ and made the redacted copy of what
// was received: this event.
func (e *Event) HashMismatch() bool { return e.flags&flagHashMismatch != 0 }

// OverlongField tells whether a field is within 255 code points but beyond 255 bytes, in a room version
// without strict byte limits: such an event must be stored as rejected.
func (e *Event) OverlongField() bool { return e.flags&flagOverlongField != 0 }

// Membership returns content.membership of an m.room.member event; empty if it has none or is another.
func (e *Event) Membership() string {
	if e.typ != TypeMember {
		return ""
	}
	v, _ := canonjson.Get(e.Content(), "membership")
	switch string(v) {
	case `"join"`:
		return Join
	case `"invite"`:
		return Invite
	case `"leave"`:
		return Leave
	case `"ban"`:
		return Ban
	case `"knock"`:
		return Knock
	}
	m, _ := canonjson.String(v)
	return m
}

// Origin returns the server that sent the event, by its sender.
func (e *Event) Origin() id.ServerName { return e.sender.Server() }

func (e *Event) value(f field) []byte {
	s := e.f[f]
	return e.json[s.start:s.end:s.end]
}

// appendText appends what a string member says; ok is false if it is missing or no string.
func (e *Event) appendText(dst []byte, f field) (text []byte, ok bool) {
	if e.f[f].end == 0 {
		return dst, false
	}
	return canonjson.AppendText(dst, e.value(f))
}
