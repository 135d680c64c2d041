package eventauth

import (
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
)

// AuthState is what the rules read of a room's state to decide about one event. The zero values stand for events that the
// room does not have.
type AuthState struct {
	Create     *Create
	Power      *PowerLevels
	JoinRule   JoinRule
	Sender     Membership // of the event's sender
	Target     Membership // of a member event's state key
	Authoriser Membership // of the user that a restricted join names
	ThirdParty *ThirdPartyInvite
	// VerifyThirdParty, if set, is asked in place of VerifyThirdParty, by who remembers its answers.
	VerifyThirdParty func(invite *Reduced, with *ThirdPartyInvite) bool
}

// TypeKey names a state entry.
type TypeKey struct{ Type, StateKey string }

// Needs says which of the room's state an event's authorisation reads.
type Needs struct {
	Sender     id.UserID // whose membership
	Target     string    // the user whose membership is changed, if HasTarget
	HasTarget  bool
	JoinRules  bool
	Token      string // of the third-party invite event, if HasToken
	HasToken   bool
	Authoriser id.UserID // whose membership authorises a join, if any
}

// Needs returns what the event's authorisation reads; it is empty for a create event. The create event and the power levels
// are read for every other event.
func (e *Reduced) Needs() (n Needs) {
	if e.Kind == KindCreate {
		return n
	}
	n.Sender = e.Sender
	if e.Kind != KindMember {
		return n
	}
	n.Target, n.HasTarget = e.StateKey, e.IsState()
	n.JoinRules = e.Membership == MembershipJoin || e.Membership == MembershipInvite || e.Membership == MembershipKnock
	d := e.details()
	if d.invite != nil && d.invite.complete {
		n.Token, n.HasToken = d.invite.token, true
	}
	if e.Membership == MembershipJoin {
		n.Authoriser = d.authoriser
	}
	return n
}

// ReadsMore says whether the event's authorisation reads a third-party invite event or an authoriser's membership.
func (e *Reduced) ReadsMore() bool {
	return e.more != nil && (e.more.invite != nil || e.more.authoriser != "")
}

// MaxAuthEvents is the most auth events that any event selects.
const MaxAuthEvents = 7

// AuthTypes appends to dst the state entries that the auth events selection picks for the event: what stands at them in the
// room is what its auth_events should be, and nothing else may be. There are at most MaxAuthEvents.
func AuthTypes(rules *roomver.Rules, e *Reduced, dst []TypeKey) []TypeKey {
	if e.Kind == KindCreate {
		return dst
	}
	n := e.Needs()
	if !rules.RoomIDIsHash {
		dst = append(dst, TypeKey{event.TypeCreate, ""})
	}
	dst = append(dst, TypeKey{event.TypePowerLevels, ""}, TypeKey{event.TypeMember, string(n.Sender)})
	if n.HasTarget && n.Target != string(n.Sender) {
		dst = append(dst, TypeKey{event.TypeMember, n.Target})
	}
	if n.JoinRules {
		dst = append(dst, TypeKey{event.TypeJoinRules, ""})
	}
	if n.HasToken {
		dst = append(dst, TypeKey{event.TypeThirdPartyInvite, n.Token})
	}
	if a := string(n.Authoriser); a != "" && a != string(n.Sender) && a != n.Target {
		dst = append(dst, TypeKey{event.TypeMember, a})
	}
	return dst
}

// StateTypes is AuthTypes with the create event in every version: what must be looked up to fill an AuthState.
func StateTypes(rules *roomver.Rules, e *Reduced, dst []TypeKey) []TypeKey {
	if rules.RoomIDIsHash && e.Kind != KindCreate {
		dst = append(dst, TypeKey{event.TypeCreate, ""})
	}
	return AuthTypes(rules, e, dst)
}

// Select fills in the state for an event from a lookup in a room's state, and returns the auth events that the event should
// name, in the order of AuthTypes. lookup returns nil for an entry that is not there.
func Select(rules *roomver.Rules, e *Reduced, lookup func(TypeKey) *Reduced) (st AuthState, auth []*Reduced) {
	var buf [MaxAuthEvents + 1]TypeKey
	types := StateTypes(rules, e, buf[:0])
	for _, k := range types {
		a := lookup(k)
		if a == nil {
			continue
		}
		st.Put(e, a)
		if a.Kind != KindCreate || !rules.RoomIDIsHash {
			auth = append(auth, a)
		}
	}
	return st, auth
}

// Put fills in the state for event e with the state event a. Events that e does not read are ignored.
func (st *AuthState) Put(e, a *Reduced) {
	if !a.IsState() {
		return
	}
	switch a.Kind {
	case KindCreate:
		if a.StateKey == "" {
			st.Create = a.Create()
		}
	case KindPowerLevels:
		if a.StateKey == "" {
			st.Power = a.PowerLevels()
		}
	case KindJoinRules:
		if a.StateKey == "" {
			st.JoinRule = a.JoinRule
		}
	case KindThirdPartyInvite:
		if n := e.Needs(); n.HasToken && n.Token == a.StateKey {
			st.ThirdParty = a.ThirdPartyInvite()
		}
	case KindMember:
		if a.StateKey == string(e.Sender) {
			st.Sender = a.Membership
		}
		if e.Kind != KindMember {
			return
		}
		if a.StateKey == e.StateKey {
			st.Target = a.Membership
		}
		if e.more != nil && a.StateKey == string(e.more.authoriser) {
			st.Authoriser = a.Membership
		}
	default:
	}
}

// AuthEvent is an entry of an event's auth_events.
type AuthEvent struct {
	Event    *Reduced
	Rejected bool // it was itself refused
}

// CheckAuthEvents decides by the rules on the event's own auth_events, and returns the state that they make, for Check: the
// two together are step 4 of the checks on receipt. In room version 12 the create event is not among the auth events; create
// is then the one that the room id names, with a nil Event if there is none. In other versions create is not read.
func CheckAuthEvents(rules *roomver.Rules, e *Reduced, auth []AuthEvent, create AuthEvent) (AuthState, error) {
	st, r := authEvents(rules, e, auth, create)
	return st, r.Err(rules)
}

func authEvents(rules *roomver.Rules, e *Reduced, auth []AuthEvent, create AuthEvent) (st AuthState, r Rule) {
	if e.Kind == KindCreate {
		return st, Allowed // the first rule decides about create events, and reads nothing else
	}
	if rules.RoomIDIsHash {
		c := create.Event
		if c == nil || create.Rejected || c.Create() == nil || c.Create().RoomID != e.RoomID {
			return st, RoomCreate
		}
		st.Put(e, c)
	}
	var buf [MaxAuthEvents]TypeKey
	types := AuthTypes(rules, e, buf[:0])
	var seen [MaxAuthEvents]bool
	worst := Allowed
	refuse := func(r Rule) {
		if worst == Allowed || r < worst {
			worst = r
		}
	}
	for i, a := range auth {
		if a.Event == nil {
			refuse(AuthRejected)
			continue
		}
		at := -1
		for j, t := range types {
			if a.Event.IsState() && t.Type == a.Event.Type && t.StateKey == a.Event.StateKey {
				at = j
			}
		}
		switch {
		case at < 0:
			refuse(AuthUnselected)
		case seen[at]:
			refuse(AuthDuplicate)
		default:
			seen[at] = true
		}
		if i > MaxAuthEvents {
			return st, worst // more than can be selected: one of the above was found
		}
		if a.Rejected || (e.ID != "" && a.Event.ID == e.ID) { // an event cannot have been accepted before itself
			refuse(AuthRejected)
		}
		if a.Event.RoomID != e.RoomID {
			refuse(AuthRoom)
		}
		st.Put(e, a.Event)
	}
	if !rules.RoomIDIsHash && st.Create == nil {
		refuse(AuthNoCreate)
	}
	return st, worst
}
