package eventauth

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
)

// Kind is an event's type as far as the rules tell types apart.
type Kind uint8

// The kinds of events.
const (
	KindOther Kind = iota
	KindCreate
	KindMember
	KindPowerLevels
	KindJoinRules
	KindThirdPartyInvite
	KindAliases
	KindRedaction
)

//nolint:gochecknoglobals // constant
var kindTypes = [...]string{
	KindCreate: event.TypeCreate, KindMember: event.TypeMember, KindPowerLevels: event.TypePowerLevels, KindJoinRules: event.TypeJoinRules,
	KindThirdPartyInvite: event.TypeThirdPartyInvite, KindAliases: event.TypeAliases, KindRedaction: event.TypeRedaction,
}

// Membership is a user's membership.
type Membership uint8

// The memberships. MembershipNone is that of a user without a membership event, MembershipUnknown any that is not in the
// specification, and MembershipMissing that of an event which has none.
const (
	MembershipNone Membership = iota
	MembershipJoin
	MembershipInvite
	MembershipLeave
	MembershipBan
	MembershipKnock
	MembershipUnknown
	MembershipMissing
)

//nolint:gochecknoglobals // constant
var membershipNames = [...]string{
	MembershipJoin: "join", MembershipInvite: "invite", MembershipLeave: "leave", MembershipBan: "ban", MembershipKnock: "knock",
}

// ParseMembership returns the membership that s names.
func ParseMembership(s string) Membership {
	for m := MembershipJoin; m <= MembershipKnock; m++ {
		if membershipNames[m] == s {
			return m
		}
	}
	return MembershipUnknown
}

// String is the membership as events write it; "" for those that events do not write.
func (m Membership) String() string {
	if int(m) < len(membershipNames) {
		return membershipNames[m]
	}
	return ""
}

// JoinRule is a room's join rule.
type JoinRule uint8

// The join rules. JoinRuleInvite is the zero value, for it holds in a room without one; JoinRuleUnknown lets nobody in.
const (
	JoinRuleInvite JoinRule = iota
	JoinRulePublic
	JoinRuleKnock
	JoinRuleRestricted
	JoinRuleKnockRestricted
	JoinRuleUnknown
)

func parseJoinRule(content []byte) JoinRule {
	v, ok := canonjson.Get(content, "join_rule")
	if !ok {
		return JoinRuleInvite
	}
	switch string(v) {
	case `"invite"`:
		return JoinRuleInvite
	case `"public"`:
		return JoinRulePublic
	case `"knock"`:
		return JoinRuleKnock
	case `"restricted"`:
		return JoinRuleRestricted
	case `"knock_restricted"`:
		return JoinRuleKnockRestricted
	}
	return JoinRuleUnknown
}

// Fields are the parts of an event that the rules read, from a parsed event or from one that is still being built.
type Fields struct {
	ID       id.EventID // may be empty while the event is being built
	RoomID   id.RoomID  // that of the room, for a create event of room version 12 too
	Type     string
	StateKey *string // nil for an event that is not a state event
	Sender   id.UserID
	Content  []byte // canonical JSON
	// HasRoomID says whether the event itself has a room_id.
	HasRoomID  bool
	PrevEvents []id.EventID
	// AuthEvents may be nil while the event is being built.
	AuthEvents []id.EventID
	Redacts    id.EventID
	// SignedBy tells whether a server has signed; nil while the event is being built.
	SignedBy func(id.ServerName) bool
}

// Reduced is an event reduced to what the rules read. It shares no memory with the event that it was made from and never
// changes.
type Reduced struct {
	ID       id.EventID
	RoomID   id.RoomID
	Type     string
	StateKey string
	Sender   id.UserID

	more       *details // what few events have; nil for most
	Kind       Kind
	Membership Membership // of a member event
	JoinRule   JoinRule   // of a join rules event
	flags      flag
}

type flag uint8

const (
	flagState       flag = 1 << iota // has a state key
	flagHasPrev                      // has previous events
	flagHasRoomID                    // has a room_id
	flagThirdParty                   // content has third_party_invite
	flagAuthoriser                   // content has join_authorised_via_users_server
	flagNotCosigned                  // signed, and not by the authoriser's server
)

func (f flag) has(x flag) bool { return f&x != 0 }

// details is the rare part of a reduced event.
type details struct {
	create     *Create
	power      *PowerLevels
	thirdParty *ThirdPartyInvite
	invite     *thirdPartySigned
	authoriser id.UserID
	onlyPrev   id.EventID // of a join: its only previous event, if that may be the create event
	redacts    id.EventID
}

//nolint:gochecknoglobals // constant, read only
var noDetails details

func (e *Reduced) details() *details {
	if e.more == nil {
		return &noDetails
	}
	return e.more
}

// IsState says whether the event is a state event.
func (e *Reduced) IsState() bool { return e.flags.has(flagState) }

// Create is what a create event says; nil for other events.
func (e *Reduced) Create() *Create { return e.details().create }

// PowerLevels is what a power levels event says; nil for other events.
func (e *Reduced) PowerLevels() *PowerLevels { return e.details().power }

// ThirdPartyInvite is what a third-party invite event says; nil for other events.
func (e *Reduced) ThirdPartyInvite() *ThirdPartyInvite { return e.details().thirdParty }

// Authoriser is the user that a join names as authorising it, empty if there is none.
func (e *Reduced) Authoriser() id.UserID { return e.details().authoriser }

// Create is what the rules read of a create event.
type Create struct {
	ID         id.EventID
	RoomID     id.RoomID
	Sender     id.UserID
	Creator    id.UserID   // content.creator, or the sender from room version 11
	Additional []id.UserID // of room version 12, sorted
	NoFederate bool        // m.federate is false

	rules   *roomver.Rules
	invalid Rule
}

// IsCreator says whether a user has infinite power; true for nobody before room version 12.
func (c *Create) IsCreator(user id.UserID) bool {
	if c == nil || !c.rules.PrivilegedCreators {
		return false
	}
	if user == c.Sender {
		return true
	}
	_, found := slices.BinarySearch(c.Additional, user)
	return found
}

// ThirdPartyInvite is what the rules read of a third-party invite event.
type ThirdPartyInvite struct {
	Token  string
	Sender id.UserID
	keys   []publicKey
}

// Reduce reduces a parsed event.
func Reduce(e *event.Event) *Reduced {
	f := Fields{
		ID: e.EventID(), RoomID: e.RoomID(), Type: e.Type(), Sender: e.Sender(), Content: e.Content(),
		HasRoomID: e.HasRoomID(), PrevEvents: e.PrevEvents(), AuthEvents: e.AuthEvents(), Redacts: e.Redacts(),
		SignedBy: e.SignedBy,
	}
	if key, ok := e.StateKey(); ok {
		f.StateKey = &key
	}
	return ReduceFields(e.Rules(), &f)
}

// ReduceProto reduces an event that is still to be built, to select its auth events and to learn whether it will be allowed.
// Its auth events need not be known yet. A rule that looks at the server of the event's own id (redactions in room versions 1
// and 2) needs the proto to have one.
func ReduceProto(rules *roomver.Rules, p *event.Proto) (*Reduced, error) {
	content := []byte("{}")
	if p.Content != nil {
		var err error
		if content, err = canonjson.Canonical(p.Content, canonjson.Options{}); err != nil {
			return nil, fmt.Errorf("content: %w", err)
		}
	}
	return ReduceFields(rules, &Fields{
		ID: p.EventID, RoomID: p.RoomID, Type: p.Type, StateKey: p.StateKey, Sender: p.Sender, Content: content,
		HasRoomID:  p.RoomID != "" && (p.Type != event.TypeCreate || !rules.RoomIDIsHash),
		PrevEvents: p.PrevEvents, AuthEvents: p.AuthEvents, Redacts: p.Redacts,
	}), nil
}

// ReduceFields reduces an event given by its parts. It does not fail: what is wrong with an event is found again by the rule that refuses it.
func ReduceFields(rules *roomver.Rules, f *Fields) *Reduced {
	e := &Reduced{}
	for k := KindCreate; int(k) < len(kindTypes); k++ {
		if kindTypes[k] == f.Type {
			e.Kind, e.Type = k, kindTypes[k]
		}
	}
	set := func(fl flag, on bool) {
		if on {
			e.flags |= fl
		}
	}
	set(flagState, f.StateKey != nil)
	set(flagHasPrev, len(f.PrevEvents) > 0)
	set(flagHasRoomID, f.HasRoomID)
	e.copyStrings(f)

	var d details
	switch e.Kind {
	case KindCreate:
		d.create = e.reduceCreate(rules, f.Content)
	case KindMember:
		e.reduceMember(rules, f, &d)
	case KindPowerLevels:
		d.power = parsePowerLevels(rules, f.Content)
	case KindJoinRules:
		e.JoinRule = parseJoinRule(f.Content)
	case KindThirdPartyInvite:
		d.thirdParty = &ThirdPartyInvite{Token: e.StateKey, Sender: e.Sender, keys: parseKeys(f.Content)}
	case KindRedaction:
		if rules.RedactionAuth {
			d.redacts = id.EventID(strings.Clone(string(f.Redacts)))
		}
	default:
	}
	if d != noDetails {
		e.more = &d
	}
	return e
}

// copyStrings copies the event's strings into one piece of memory, so that the event itself can be freed.
func (e *Reduced) copyStrings(f *Fields) {
	var b strings.Builder
	stateKey := ""
	if f.StateKey != nil {
		stateKey = *f.StateKey
	}
	shared := stateKey == string(f.Sender)
	n := len(f.ID) + len(f.RoomID) + len(f.Sender)
	if e.Kind == KindOther {
		n += len(f.Type)
	}
	if !shared {
		n += len(stateKey)
	}
	b.Grow(n)
	b.WriteString(string(f.ID))
	b.WriteString(string(f.RoomID))
	b.WriteString(string(f.Sender))
	if !shared {
		b.WriteString(stateKey)
	}
	if e.Kind == KindOther {
		b.WriteString(f.Type)
	}
	rest := b.String()
	cut := func(n int) (s string) {
		s, rest = rest[:n], rest[n:]
		return s
	}
	e.ID = id.EventID(cut(len(f.ID)))
	e.RoomID = id.RoomID(cut(len(f.RoomID)))
	e.Sender = id.UserID(cut(len(f.Sender)))
	e.StateKey = string(e.Sender)
	if !shared {
		e.StateKey = cut(len(stateKey))
	}
	if e.Kind == KindOther {
		e.Type = rest
	}
}

func (e *Reduced) reduceCreate(rules *roomver.Rules, content []byte) *Create {
	c := &Create{ID: e.ID, RoomID: e.RoomID, Sender: e.Sender, Creator: e.Sender, rules: rules}
	refuse := func(r Rule) {
		if c.invalid == Allowed {
			c.invalid = r
		}
	}
	if rules.RoomIDIsHash {
		if e.flags.has(flagHasRoomID) {
			refuse(CreateRoomID)
		}
		c.RoomID = id.RoomIDFromCreate(e.ID)
	} else if e.RoomID.Server() != e.Sender.Server() {
		refuse(CreateRoomID)
	}
	if v, ok := canonjson.Get(content, "room_version"); ok {
		s, isString := canonjson.String(v)
		if _, known := roomver.Get(roomver.Version(s)); !isString || !known {
			refuse(CreateVersion)
		}
	}
	if rules.Creator == roomver.CreatorInContent {
		v, ok := canonjson.Get(content, "creator")
		if !ok {
			refuse(CreateCreator)
		}
		s, _ := canonjson.String(v) // a creator that is no string is no user
		c.Creator = id.UserID(s)
	}
	if v, ok := canonjson.Get(content, "additional_creators"); ok && rules.PrivilegedCreators {
		if !canonjson.IsArray(v) {
			refuse(CreateCreator)
		}
		for it := canonjson.Walk(v); it.Next(); {
			s, isString := canonjson.String(it.Value())
			u, err := id.ParseUserID(s)
			if !isString || err != nil {
				refuse(CreateCreator)
				break
			}
			c.Additional = append(c.Additional, u)
		}
		slices.Sort(c.Additional)
	}
	federate, ok := canonjson.GetBool(content, "m.federate")
	c.NoFederate = ok && !federate
	return c
}

func (e *Reduced) reduceMember(rules *roomver.Rules, f *Fields, d *details) {
	membership, via, thirdParty := []byte(nil), []byte(nil), []byte(nil)
	for it := canonjson.Walk(f.Content); it.Next(); {
		switch {
		case it.KeyIs("membership"):
			membership = it.Value()
		case it.KeyIs("join_authorised_via_users_server"):
			via = it.Value()
		case it.KeyIs("third_party_invite"):
			thirdParty = it.Value()
		}
	}
	e.Membership = MembershipMissing
	if membership != nil {
		s, ok := canonjson.String(membership)
		e.Membership = ParseMembership(s)
		if !ok {
			e.Membership = MembershipUnknown
		}
	}
	if via != nil && rules.Restricted {
		e.flags |= flagAuthoriser
		s, _ := canonjson.String(via)
		d.authoriser = id.UserID(s)
		if f.SignedBy != nil && !f.SignedBy(d.authoriser.Server()) {
			e.flags |= flagNotCosigned
		}
	}
	if thirdParty != nil && e.Membership == MembershipInvite {
		e.flags |= flagThirdParty
		d.invite = parseSigned(thirdParty)
	}
	if e.Membership == MembershipJoin && len(f.PrevEvents) == 1 {
		prev := f.PrevEvents[0]
		mayBeCreate := f.AuthEvents == nil // who cites a create event has it among its auth events
		for _, a := range f.AuthEvents {
			mayBeCreate = mayBeCreate || a == prev
		}
		if rules.RoomIDIsHash {
			mayBeCreate = id.RoomIDFromCreate(prev) == f.RoomID
		}
		if mayBeCreate {
			d.onlyPrev = id.EventID(strings.Clone(string(prev)))
		}
	}
}

type publicKey [32]byte

// parseKeys reads the keys of a third-party invite event, each once, in the order of the text: public_key, then public_keys.
func parseKeys(content []byte) []publicKey {
	var keys []publicKey
	add := func(value []byte) {
		s, ok := canonjson.String(value)
		raw, err := signing.DecodeBase64(s)
		if !ok || err != nil || len(raw) != len(publicKey{}) {
			return
		}
		for _, k := range keys {
			if bytes.Equal(k[:], raw) {
				return
			}
		}
		if len(keys) < maxThirdPartyKeys {
			keys = append(keys, publicKey(raw))
		}
	}
	if v, ok := canonjson.Get(content, "public_key"); ok {
		add(v)
	}
	if list, ok := canonjson.Get(content, "public_keys"); ok && canonjson.IsArray(list) {
		for it := canonjson.Walk(list); it.Next(); {
			if v, ok := canonjson.Get(it.Value(), "public_key"); ok {
				add(v)
			}
		}
	}
	return keys
}
