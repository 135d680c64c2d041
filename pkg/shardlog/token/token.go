// Package token is what a client holds between requests, and its only encoder and decoder: sync tokens, which say how far a
// client has read the log, room tokens, which stand for a place in a room's timeline, and places in the public directory and in
// the hierarchy of a space.
//
// Tokens are opaque, versioned and short: base64url, without padding, of a byte that holds kind and version, and of
// varints. Each value has exactly one encoding, so a token that decodes encodes to itself. Decoding takes whatever a stranger sends:
// it never panics, and its errors are [ErrInvalid], which a client is told as M_INVALID_PARAM, or an [UnknownVersionError],
// for a token of a newer release, which is passed on to a worker that announces the version.
//
// Whether a token of an earlier incarnation of the database still says something true is answered by shard.History.
//
// The package is pure. It may be imported by every package from layer 3 up.
package token

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// ErrInvalid is the error of everything that is no token.
var ErrInvalid = errors.New("token is not valid")

// UnknownVersionError is the error of a token of a version that this binary does not know. If no live worker announces the
// version, the client is told M_INVALID_PARAM.
type UnknownVersionError struct {
	Kind    Kind
	Version int
}

// Error implements error.
func (e *UnknownVersionError) Error() string {
	return fmt.Sprintf("token of kind %d has unknown version %d", e.Kind, e.Version)
}

// Kind says what sort of token it is. The numbers are in clients' hands: they are never reused.
type Kind uint8

// The kinds of token.
const (
	KindSync      Kind = 0
	KindRoom      Kind = 1
	KindDirectory Kind = 2
	KindSpace     Kind = 3
)

// The newest versions that this binary reads and writes. A version's number is the feature level (fleet/level) that brings it: it is
// written once the cluster has that level, and a worker that does not know it passes the request on to one that reads the level.
const (
	SyncVersion      = 1
	RoomVersion      = 1
	DirectoryVersion = 1
	SpaceVersion     = 1
)

// MaxLen bounds a token's length: more than one with every part of 256 shards needs.
const MaxLen = 16 << 10

// Section names a part of a sync response that can be cut short, and so has a place of its own. The numbers are in clients' hands.
type Section uint8

// The sections.
const (
	SectionToDevice Section = 1
	// SectionMembers is no position: it is the number of the answer by which the client was last told of members that it loads lazily.
	SectionMembers Section = 2
	// SectionPresence's place is what one process knew of who is online.
	SectionPresence Section = 3
	// SectionConnection is no position either: it is the number of what a client of sliding sync has been told of its rooms.
	SectionConnection Section = 4
	// SectionOpened is a time in ms: when a connection of sliding sync began.
	SectionOpened Section = 5
)

// Place says how far a section that was cut short has been read.
type Place struct {
	Section  Section
	Position shard.Pos
}

// Ephemeral says which typing and presence of a shard the client has been told.
type Ephemeral struct {
	Shard shard.ID
	Epoch shard.Epoch
	N     int64
}

// Sync says how far a client has read the log of every shard.
type Sync struct {
	Incarnation uint32
	Positions   shard.Vector
	// Places are in ascending order of their sections.
	Places []Place
	// Ephemeral are in ascending order of their shards.
	Ephemeral []Ephemeral
}

// AtLeast tells whether t has read everything that u has read, of the log. It is false across incarnations.
func (t *Sync) AtLeast(u *Sync) bool {
	return t.Incarnation == u.Incarnation && t.Positions.AtLeast(u.Positions)
}

// Place gives the place of a section, if it has one.
func (t *Sync) Place(s Section) (shard.Pos, bool) {
	for _, p := range t.Places {
		if p.Section == s {
			return p.Position, true
		}
	}
	return 0, false
}

// EphemeralOf gives what the client has been told of a shard's typing and presence; false if nothing.
func (t *Sync) EphemeralOf(s shard.ID) (Ephemeral, bool) {
	for _, e := range t.Ephemeral {
		if e.Shard == s {
			return e, true
		}
	}
	return Ephemeral{}, false
}

// Max puts together what either of two tokens of one incarnation has read of the log, with the places of t.
func (t *Sync) Max(u *Sync) *Sync {
	m := *t
	m.Positions = t.Positions.Max(u.Positions)
	return &m
}

// Encode gives the token as clients see it.
func (t *Sync) Encode() string {
	b := make([]byte, 0, 16+5*len(t.Positions)+12*len(t.Places)+12*len(t.Ephemeral))
	b = append(b, head(KindSync, SyncVersion))
	b = binary.AppendUvarint(b, uint64(t.Incarnation))
	b = binary.AppendUvarint(b, uint64(len(t.Positions)))
	for _, p := range t.Positions {
		b = binary.AppendUvarint(b, uint64(p))
	}
	b = binary.AppendUvarint(b, uint64(len(t.Places)))
	for _, p := range t.Places {
		b = append(b, byte(p.Section))
		b = binary.AppendUvarint(b, uint64(p.Position))
	}
	// Nothing stands for no ephemeral pairs: most tokens end here.
	for _, e := range t.Ephemeral {
		b = append(b, byte(e.Shard))
		b = binary.AppendUvarint(b, uint64(e.Epoch))
		b = binary.AppendUvarint(b, uint64(e.N))
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// Room is a place in a room's timeline: between the event and its neighbour in the direction of reading.
type Room struct {
	// Order is the event's order key, and Event its nid, 0 if the place is at no event.
	Order int64
	Event shard.Nid
}

// Encode gives the token as clients see it.
func (t Room) Encode() string {
	b := make([]byte, 0, 24)
	b = append(b, head(KindRoom, RoomVersion))
	b = binary.AppendVarint(b, t.Order)
	b = binary.AppendUvarint(b, uint64(t.Event))
	return base64.RawURLEncoding.EncodeToString(b)
}

//nolint:unparam // each kind has a version of its own, also while all stand at the first
func head(k Kind, version byte) byte { return byte(k)<<5 | version }

// DecodeSync reads a sync token of a homeserver with so many shards.
func DecodeSync(s string, shards int) (*Sync, error) {
	r, err := open(s, KindSync, SyncVersion)
	if err != nil {
		return nil, err
	}
	t := &Sync{Incarnation: uint32(r.uvarint(1<<32 - 1))}
	if n := r.uvarint(256); int(n) != shards {
		return nil, fmt.Errorf("%w: of another number of shards", ErrInvalid)
	}
	t.Positions = make(shard.Vector, shards)
	for i := range t.Positions {
		t.Positions[i] = shard.Pos(r.uvarint(1<<63 - 1))
	}
	n := r.uvarint(255)
	for last := -1; n > 0 && !r.bad; n-- {
		p := Place{Section: Section(r.byte()), Position: shard.Pos(r.uvarint(1<<63 - 1))}
		r.bad = r.bad || int(p.Section) <= last
		last = int(p.Section)
		t.Places = append(t.Places, p)
	}
	for last := -1; !r.bad && len(r.b) > 0; {
		e := Ephemeral{
			Shard: shard.ID(r.byte()), Epoch: shard.Epoch(r.uvarint(1<<63 - 1)), N: int64(r.uvarint(1<<63 - 1)),
		}
		r.bad = r.bad || int(e.Shard) <= last || int(e.Shard) >= shards
		last = int(e.Shard)
		t.Ephemeral = append(t.Ephemeral, e)
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	return t, nil
}

// DecodeRoom reads a room token.
func DecodeRoom(s string) (Room, error) {
	r, err := open(s, KindRoom, RoomVersion)
	if err != nil {
		return Room{}, err
	}
	t := Room{Order: r.varint(), Event: shard.Nid(r.uvarint(1<<63 - 1))}
	if err := r.end(); err != nil {
		return Room{}, err
	}
	return t, nil
}

// KindOf tells what sort of token it claims to be, for the endpoints that take both.
func KindOf(s string) (Kind, error) {
	b, err := decode(s)
	if err != nil {
		return 0, err
	}
	k := Kind(b[0] >> 5)
	if k > KindRoom {
		return 0, fmt.Errorf("%w: of no kind", ErrInvalid)
	}
	return k, nil
}

func decode(s string) ([]byte, error) {
	if s == "" || len(s) > MaxLen {
		return nil, fmt.Errorf("%w: length %d", ErrInvalid, len(s))
	}
	for i := range len(s) {
		if s[i] == '\n' || s[i] == '\r' { // which the decoder would skip
			return nil, fmt.Errorf("%w: not base64url", ErrInvalid)
		}
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) == 0 {
		return nil, fmt.Errorf("%w: not base64url", ErrInvalid)
	}
	return b, nil
}

// open checks kind and version and gives a reader of the rest.
//
//nolint:unparam // as head
func open(s string, k Kind, newest byte) (*reader, error) {
	b, err := decode(s)
	if err != nil {
		return nil, err
	}
	kind, version := Kind(b[0]>>5), b[0]&31
	if version == 0 || kind != k {
		return nil, fmt.Errorf("%w: of another kind", ErrInvalid)
	}
	if version > newest {
		return nil, &UnknownVersionError{Kind: kind, Version: int(version)}
	}
	return &reader{b: b[1:]}, nil
}

// reader reads varints in their shortest form; what goes wrong sticks.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) uvarint(most uint64) uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || n > 1 && r.b[n-1] == 0 || v > most {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	u := r.uvarint(1<<64 - 1)
	return int64(u>>1) ^ -int64(u&1)
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.bad = true
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) end() error {
	if r.bad || len(r.b) > 0 {
		return fmt.Errorf("%w: malformed", ErrInvalid)
	}
	return nil
}
