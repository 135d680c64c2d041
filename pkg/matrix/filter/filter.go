// Package filter holds the filters of the client-server API ("Filtering"): parsed strictly, and applied to events.
//
// Of the limits of a sync's filter, that of room.timeline alone leaves anything out: a timeline that is cut says so, and has a token by which
// the rest is found. State, account data, receipts, typing and presence are told once, when they change, and have neither; what a limit
// left out of them a client would never hear of. The other limits are checked, therefore, and mean no more than that a client expects few.
// A limit of 0 is taken although the specification wants more than that, for clients ask in this way for no timeline at all.
//
// A filter is immutable once parsed and safe for concurrent use. The package is pure: bytes in, values or errors out. It may be
// imported by every package above layer 1.
package filter

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/id"
)

// Limits of what is taken from a client.
const (
	MaxBytes   = 64 << 10 // the whole filter as JSON
	maxListed  = 1000     // entries of one list
	maxType    = 255      // bytes of an event's type
	maxLimit   = 1000     // the highest limit that is honoured
	defaultMax = 10       // timeline events when the filter says nothing
)

// ErrInvalid is the error of a filter that does not follow the specification; what is wrong stands before it.
var ErrInvalid = errors.New("invalid filter")

// Format is the form in which events are given.
type Format string

// The event formats.
const (
	FormatClient     Format = "client"
	FormatFederation Format = "federation"
)

// Filter is what a client wants of a sync.
type Filter struct {
	EventFields []string    `json:"event_fields,omitzero"`
	EventFormat Format      `json:"event_format,omitzero"`
	Presence    EventFilter `json:"presence,omitzero"`
	AccountData EventFilter `json:"account_data,omitzero"`
	Room        RoomFilter  `json:"room,omitzero"`

	picked fields // what EventFields names; nil: everything
}

// RoomFilter is what a client wants of rooms.
type RoomFilter struct {
	// Rooms are those wanted; nil means all. NotRooms are left out in any case.
	Rooms        []string        `json:"rooms,omitzero"`
	NotRooms     []string        `json:"not_rooms,omitzero"`
	IncludeLeave bool            `json:"include_leave,omitzero"`
	AccountData  RoomEventFilter `json:"account_data,omitzero"`
	Ephemeral    RoomEventFilter `json:"ephemeral,omitzero"`
	State        RoomEventFilter `json:"state,omitzero"`
	Timeline     RoomEventFilter `json:"timeline,omitzero"`
}

// EventFilter chooses events by type and sender.
type EventFilter struct {
	// Limit is the most events wanted; nil means that the filter does not say. What is told once only is not cut by it (see the package).
	Limit      *int     `json:"limit,omitzero"`
	Types      []string `json:"types,omitzero"`
	NotTypes   []string `json:"not_types,omitzero"`
	Senders    []string `json:"senders,omitzero"`
	NotSenders []string `json:"not_senders,omitzero"`
}

// RoomEventFilter chooses events of rooms.
type RoomEventFilter struct {
	EventFilter

	Rooms                     []string `json:"rooms,omitzero"`
	NotRooms                  []string `json:"not_rooms,omitzero"`
	ContainsURL               *bool    `json:"contains_url,omitzero"`
	LazyLoadMembers           bool     `json:"lazy_load_members,omitzero"`
	IncludeRedundantMembers   bool     `json:"include_redundant_members,omitzero"`
	UnreadThreadNotifications bool     `json:"unread_thread_notifications,omitzero"`
	RelatedByRelTypes         []string `json:"related_by_rel_types,omitzero"`
	RelatedBySenders          []string `json:"related_by_senders,omitzero"`
	// RelTypes and NotRelTypes choose by what an event's own relation is (MSC3874).
	RelTypes    []string `json:"org.matrix.msc3874.rel_types,omitzero"`
	NotRelTypes []string `json:"org.matrix.msc3874.not_rel_types,omitzero"`
}

// Parse reads a filter as a client defines it. Members that the specification does not know are ignored.
func Parse(b []byte) (*Filter, error) {
	f := new(Filter)
	if err := decode(b, f); err != nil {
		return nil, err
	}
	if f.EventFormat == "" {
		f.EventFormat = FormatClient
	}
	if f.EventFormat != FormatClient && f.EventFormat != FormatFederation {
		return nil, fmt.Errorf("event_format: unknown format: %w", ErrInvalid)
	}
	if len(f.EventFields) > maxListed {
		return nil, fmt.Errorf("event_fields: too many: %w", ErrInvalid)
	}
	f.picked = parseFields(f.EventFields)
	for name, e := range map[string]*EventFilter{"presence": &f.Presence, "account_data": &f.AccountData} {
		if err := e.check(name); err != nil {
			return nil, err
		}
	}
	if err := checkRooms("room", f.Room.Rooms, f.Room.NotRooms); err != nil {
		return nil, err
	}
	for name, e := range map[string]*RoomEventFilter{
		"room.account_data": &f.Room.AccountData, "room.ephemeral": &f.Room.Ephemeral,
		"room.state": &f.Room.State, "room.timeline": &f.Room.Timeline,
	} {
		if err := e.check(name); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// ParseRoomEvents reads a filter of room events alone, as /messages and /context take it.
func ParseRoomEvents(b []byte) (*RoomEventFilter, error) {
	f := new(RoomEventFilter)
	if err := decode(b, f); err != nil {
		return nil, err
	}
	return f, f.check("filter")
}

func decode(b []byte, v any) error {
	if len(b) > MaxBytes {
		return fmt.Errorf("larger than %d bytes: %w", MaxBytes, ErrInvalid)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}

func (e *EventFilter) check(name string) error {
	if e.Limit != nil {
		if *e.Limit < 0 {
			return fmt.Errorf("%s.limit: negative: %w", name, ErrInvalid)
		}
		*e.Limit = min(*e.Limit, maxLimit)
	}
	for _, l := range [][]string{e.Types, e.NotTypes, e.Senders, e.NotSenders} {
		if len(l) > maxListed {
			return fmt.Errorf("%s: a list is too long: %w", name, ErrInvalid)
		}
	}
	e.Types, e.NotTypes = tidy(e.Types), tidy(e.NotTypes)
	return checkUsers(name, e.Senders, e.NotSenders)
}

// tidy makes patterns no longer than they need to be, and leaves out those that match no type that an event can have: each is held against every event.
func tidy(patterns []string) []string {
	for i, p := range patterns {
		for strings.Contains(p, "**") {
			p = strings.ReplaceAll(p, "**", "*")
		}
		patterns[i] = p
	}
	return slices.DeleteFunc(patterns, func(p string) bool { return len(p)-strings.Count(p, "*") > maxType })
}

func checkUsers(name string, lists ...[]string) error {
	for _, l := range lists {
		for _, u := range l {
			if _, err := id.ParseUserID(u); err != nil {
				return fmt.Errorf("%s: senders: %w: %w", name, err, ErrInvalid)
			}
		}
	}
	return nil
}

func (e *RoomEventFilter) check(name string) error {
	if err := e.EventFilter.check(name); err != nil {
		return err
	}
	for _, l := range [][]string{e.RelatedByRelTypes, e.RelatedBySenders, e.RelTypes, e.NotRelTypes} {
		if len(l) > maxListed {
			return fmt.Errorf("%s: a list is too long: %w", name, ErrInvalid)
		}
	}
	if err := checkUsers(name, e.RelatedBySenders); err != nil {
		return err
	}
	return checkRooms(name, e.Rooms, e.NotRooms)
}

func checkRooms(name string, lists ...[]string) error {
	for _, l := range lists {
		if len(l) > maxListed {
			return fmt.Errorf("%s.rooms: too many: %w", name, ErrInvalid)
		}
		for _, r := range l {
			if _, err := id.ParseRoomID(r); err != nil {
				return fmt.Errorf("%s.rooms: %w: %w", name, err, ErrInvalid)
			}
		}
	}
	return nil
}

// LimitOr gives the limit, or def if the filter names none.
func (e *EventFilter) LimitOr(def int) int {
	if e.Limit == nil {
		return def
	}
	return *e.Limit
}

// TimelineLimit gives the most timeline events wanted of a room in one sync.
func (f *Filter) TimelineLimit() int { return f.Room.Timeline.LimitOr(defaultMax) }

// Empty tells whether every event passes.
func (e *EventFilter) Empty() bool {
	return e.Types == nil && e.NotTypes == nil && e.Senders == nil && e.NotSenders == nil
}

// PassType tells whether events of the type pass, of some sender at least.
func (e *EventFilter) PassType(typ string) bool {
	return (e.Types == nil || matchAny(e.Types, typ)) && !matchAny(e.NotTypes, typ)
}

// Pass tells whether an event of the type and sender passes.
func (e *EventFilter) Pass(typ, sender string) bool {
	return e.PassType(typ) &&
		(e.Senders == nil || slices.Contains(e.Senders, sender)) && !slices.Contains(e.NotSenders, sender)
}

// PassRoom tells whether events of the room pass.
func (e *RoomEventFilter) PassRoom(roomID string) bool { return passRoom(e.Rooms, e.NotRooms, roomID) }

// PassRoom tells whether the room is wanted at all.
func (r *RoomFilter) PassRoom(roomID string) bool { return passRoom(r.Rooms, r.NotRooms, roomID) }

func passRoom(rooms, not []string, roomID string) bool {
	return (rooms == nil || slices.Contains(rooms, roomID)) && !slices.Contains(not, roomID)
}

// PassEvent tells whether an event passes, what relates to it aside. The content is canonical JSON.
func (e *RoomEventFilter) PassEvent(roomID, typ, sender string, content []byte) bool {
	if !e.PassRoom(roomID) || !e.Pass(typ, sender) {
		return false
	}
	if e.ContainsURL != nil {
		if _, has := canonjson.Get(content, "url"); has != *e.ContainsURL { // of whatever kind it is: the key is what is asked for
			return false
		}
	}
	return e.RelTypes == nil && e.NotRelTypes == nil || e.passRelation(content)
}

func (e *RoomEventFilter) passRelation(content []byte) bool {
	var typ string
	var related bool
	if relates, _ := canonjson.Get(content, "m.relates_to"); canonjson.IsObject(relates) {
		typ, related = canonjson.GetString(relates, "rel_type")
	}
	if related && slices.Contains(e.NotRelTypes, typ) {
		return false
	}
	return e.RelTypes == nil || related && slices.Contains(e.RelTypes, typ)
}

// All tells whether every event of every room passes.
func (e *RoomEventFilter) All() bool {
	return e.Empty() && e.Rooms == nil && e.NotRooms == nil && e.ContainsURL == nil && e.RelTypes == nil && e.NotRelTypes == nil &&
		!e.NeedsRelations()
}

// NeedsRelations tells whether the filter chooses by what relates to an event, which only the database can say.
func (e *RoomEventFilter) NeedsRelations() bool {
	return e.RelatedByRelTypes != nil || e.RelatedBySenders != nil
}

// matchAny tells whether one of the patterns matches; a * in a pattern stands for any number of characters.
func matchAny(patterns []string, s string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return Glob(p, s) })
}

// Glob tells whether a pattern in which * stands for any number of characters matches the whole of s. It takes time
// proportional to the product of their lengths at worst.
func Glob(pattern, s string) bool {
	head, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == s
	}
	if !strings.HasPrefix(s, head) {
		return false
	}
	s = s[len(head):]
	for {
		part, after, more := strings.Cut(rest, "*")
		if !more {
			return strings.HasSuffix(s, part)
		}
		i := strings.Index(s, part)
		if i < 0 {
			return false
		}
		s, rest = s[i+len(part):], after
	}
}
