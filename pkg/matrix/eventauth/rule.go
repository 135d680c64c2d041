package eventauth

import (
	"strconv"

	"github.com/heddle-im/heddle/pkg/matrix/roomver"
)

// Rule is the authorisation rule that refused an event, whatever its number in a room version.
type Rule uint8

// The rules that can refuse, in the order of the text. Allowed is the zero value.
const (
	Allowed Rule = iota

	CreatePrevEvents
	CreateRoomID
	CreateVersion
	CreateCreator

	RoomCreate // version 12: the room id names no accepted create event

	AuthDuplicate
	AuthUnselected
	AuthRejected
	AuthNoCreate
	AuthRoom

	Federate

	AliasesStateKey
	AliasesDomain

	MemberMalformed
	MemberAuthoriserSignature
	JoinSender
	JoinBanned
	JoinAuthoriser
	JoinNotInvited
	JoinRuleRefuses
	ThirdPartyBanned
	ThirdPartyUnsigned
	ThirdPartyIncomplete
	ThirdPartyUser
	ThirdPartyUnknown
	ThirdPartySender
	ThirdPartySignature
	InviteSender
	InviteTarget
	InvitePower
	LeaveOwn
	LeaveSender
	LeaveBanned
	LeavePower
	BanSender
	BanPower
	KnockJoinRule
	KnockSender
	KnockMembership
	MemberUnknown

	SenderNotJoined
	ThirdPartyPower
	RequiredPower
	UserStateKey

	PowerNotInteger
	PowerMapNotInteger
	PowerMalformed
	PowerUsers
	PowerCreators
	PowerTopCurrent
	PowerTopNew
	PowerEventsCurrent
	PowerEventsNew
	PowerUsersCurrent
	PowerUsersNew

	RedactionPower

	numRules
)

// layout holds the numbers that depend on which rules a version has.
type layout struct {
	auth, federate, aliases, member, power int // rules of the first level
	via, join, last                        int // in the member rule: last is "otherwise, the membership is unknown"
	restricted, otherwise                  int // in the join rule
	users, creators, none                  int // in the power levels rule
}

func layoutOf(r *roomver.Rules) (l layout) {
	count := func(cond bool) int {
		if cond {
			return 1
		}
		return 0
	}
	l.auth = 2 + count(r.RoomIDIsHash)
	l.federate = l.auth + 1
	l.aliases = l.federate + 1
	l.member = l.aliases + count(r.AliasesAuth)
	l.power = l.member + 5

	l.via = 2
	l.join = 2 + count(r.Restricted)
	l.last = l.join + 4 + count(r.Knock)
	l.restricted = 5
	l.otherwise = 6 + count(r.Restricted)

	l.users = 1 + 2*count(r.PowerLevels == roomver.PowerInt)
	l.creators = l.users + 1
	l.none = l.users + 1 + count(r.PrivilegedCreators)
	return l
}

// Number is the rule's number in the text of a room version, such as "5.3.3"; "" for Allowed and for a rule that the version
// does not have. Rules which the text writes as the "otherwise, reject" of a list have that line's number. The rule for power
// levels that are no numbers has no line of its own before version 10 and is named by its section.
func (r Rule) Number(rules *roomver.Rules) string { //nolint:cyclop,funlen // one line a rule
	l := layoutOf(rules)
	n := func(parts ...int) string {
		s := strconv.Itoa(parts[0])
		for _, p := range parts[1:] {
			s += "." + strconv.Itoa(p)
		}
		return s
	}
	invite, leave, ban, knock := l.join+1, l.join+2, l.join+3, l.join+4
	switch r {
	case CreatePrevEvents:
		return "1.1"
	case CreateRoomID:
		return "1.2"
	case CreateVersion:
		return "1.3"
	case CreateCreator:
		return "1.4"
	case RoomCreate:
		return "2"
	case AuthDuplicate:
		return n(l.auth, 1)
	case AuthUnselected:
		return n(l.auth, 2)
	case AuthRejected:
		return n(l.auth, 3)
	case AuthNoCreate:
		return n(l.auth, 4)
	case AuthRoom:
		if rules.RoomIDIsHash {
			return n(l.auth, 4) // the list has one line less
		}
		return n(l.auth, 5)
	case Federate:
		return n(l.federate)
	case AliasesStateKey:
		return n(l.aliases, 1)
	case AliasesDomain:
		return n(l.aliases, 2)
	case MemberMalformed:
		return n(l.member, 1)
	case MemberAuthoriserSignature:
		return n(l.member, l.via, 1)
	case JoinSender:
		return n(l.member, l.join, 2)
	case JoinBanned:
		return n(l.member, l.join, 3)
	case JoinAuthoriser:
		return n(l.member, l.join, l.restricted, 2)
	case JoinNotInvited, JoinRuleRefuses:
		return n(l.member, l.join, l.otherwise)
	case ThirdPartyBanned:
		return n(l.member, invite, 1, 1)
	case ThirdPartyUnsigned:
		return n(l.member, invite, 1, 2)
	case ThirdPartyIncomplete:
		return n(l.member, invite, 1, 3)
	case ThirdPartyUser:
		return n(l.member, invite, 1, 4)
	case ThirdPartyUnknown:
		return n(l.member, invite, 1, 5)
	case ThirdPartySender:
		return n(l.member, invite, 1, 6)
	case ThirdPartySignature:
		return n(l.member, invite, 1, 8)
	case InviteSender:
		return n(l.member, invite, 2)
	case InviteTarget:
		return n(l.member, invite, 3)
	case InvitePower:
		return n(l.member, invite, 5)
	case LeaveOwn:
		return n(l.member, leave, 1)
	case LeaveSender:
		return n(l.member, leave, 2)
	case LeaveBanned:
		return n(l.member, leave, 3)
	case LeavePower:
		return n(l.member, leave, 5)
	case BanSender:
		return n(l.member, ban, 1)
	case BanPower:
		return n(l.member, ban, 3)
	case KnockJoinRule:
		return n(l.member, knock, 1)
	case KnockSender:
		return n(l.member, knock, 2)
	case KnockMembership:
		return n(l.member, knock, 4)
	case MemberUnknown:
		return n(l.member, l.last)
	case SenderNotJoined:
		return n(l.member + 1)
	case ThirdPartyPower:
		return n(l.member+2, 1)
	case RequiredPower:
		return n(l.member + 3)
	case UserStateKey:
		return n(l.member + 4)
	case PowerNotInteger:
		return n(l.power, 1)
	case PowerMapNotInteger:
		return n(l.power, 2)
	case PowerMalformed:
		return n(l.power)
	case PowerUsers:
		return n(l.power, l.users)
	case PowerCreators:
		return n(l.power, l.creators)
	case PowerTopCurrent:
		return n(l.power, l.none+1, 1)
	case PowerTopNew:
		return n(l.power, l.none+1, 2)
	case PowerEventsCurrent:
		return n(l.power, l.none+2, 1)
	case PowerEventsNew:
		return n(l.power, l.none+3, 1)
	case PowerUsersCurrent:
		return n(l.power, l.none+4, 1)
	case PowerUsersNew:
		return n(l.power, l.none+5, 1)
	case RedactionPower:
		return n(l.power+1, 3)
	default:
		return ""
	}
}

// Reason says in words why the rule refuses. The text holds nothing from the event and may be shown to anyone.
func (r Rule) Reason() string {
	if int(r) < len(reasons) {
		return reasons[r]
	}
	return ""
}

// Malformed says that the rule refuses what the event itself says, in any room of the version that has it and from anybody.
func (r Rule) Malformed() bool {
	switch r {
	case CreatePrevEvents, CreateRoomID, CreateVersion, CreateCreator, AliasesStateKey, MemberMalformed,
		PowerNotInteger, PowerMapNotInteger, PowerMalformed, PowerUsers, PowerCreators:
		return true
	default:
		return false
	}
}

//nolint:gochecknoglobals // constant
var reasons = [numRules]string{
	CreatePrevEvents: "a create event must not have previous events",
	CreateRoomID:     "the create event's room id does not fit: its domain must be the sender's, and in room version 12 it must be absent",
	CreateVersion:    "the room version is not recognised",
	CreateCreator:    "the create event must name its creator, and additional creators must be valid user ids",
	RoomCreate:       "the room id is not that of an accepted create event",

	AuthDuplicate:  "two auth events have the same type and state key",
	AuthUnselected: "an auth event is none of those that authorise this event",
	AuthRejected:   "an auth event was itself rejected",
	AuthNoCreate:   "the create event is not among the auth events",
	AuthRoom:       "an auth event is of another room",

	Federate: "the room is not federated and the sender is of another server than its creator",

	AliasesStateKey: "an aliases event must be a state event",
	AliasesDomain:   "the state key of an aliases event must be the sender's server",

	MemberMalformed:           "a membership event must have a state key and a membership",
	MemberAuthoriserSignature: "the server of the authorising user has not signed",
	JoinSender:                "only the user itself can join",
	JoinBanned:                "the user is banned",
	JoinAuthoriser:            "the join is not authorised by a joined user who may invite",
	JoinNotInvited:            "the user is not invited",
	JoinRuleRefuses:           "the join rule does not allow to join",
	ThirdPartyBanned:          "the invited user is banned",
	ThirdPartyUnsigned:        "the third-party invitation has no signed part",
	ThirdPartyIncomplete:      "the third-party invitation's signed part must have mxid and token",
	ThirdPartyUser:            "the third-party invitation is for another user",
	ThirdPartyUnknown:         "there is no third-party invitation with this token",
	ThirdPartySender:          "the third-party invitation was sent by another user",
	ThirdPartySignature:       "no signature of the third-party invitation matches one of its keys",
	InviteSender:              "the inviting user is not joined",
	InviteTarget:              "the invited user is joined or banned",
	InvitePower:               "the sender's power level is below the invite level",
	LeaveOwn:                  "the user is neither joined, invited nor knocking",
	LeaveSender:               "the sender is not joined",
	LeaveBanned:               "the user is banned and the sender's power level is below the ban level",
	LeavePower:                "the sender's power level is below the kick level or not above the user's",
	BanSender:                 "the sender is not joined",
	BanPower:                  "the sender's power level is below the ban level or not above the user's",
	KnockJoinRule:             "the join rule does not allow to knock",
	KnockSender:               "only the user itself can knock",
	KnockMembership:           "the user is banned, invited or joined",
	MemberUnknown:             "unknown membership",

	SenderNotJoined: "the sender is not joined",
	ThirdPartyPower: "the sender's power level is below the invite level",
	RequiredPower:   "the sender's power level is below what the event's type requires",
	UserStateKey:    "a state key that begins with @ must be the sender",

	PowerNotInteger:    "a power level is not an integer",
	PowerMapNotInteger: "events or notifications is not an object of integers",
	PowerMalformed:     "a power level is not a number",
	PowerUsers:         "users is not an object of power levels by user id",
	PowerCreators:      "users must not name a creator of the room",
	PowerTopCurrent:    "a level above the sender's own is changed",
	PowerTopNew:        "a level is raised above the sender's own",
	PowerEventsCurrent: "the level of an event or notification above the sender's own is changed",
	PowerEventsNew:     "the level of an event or notification is raised above the sender's own",
	PowerUsersCurrent:  "the level of another user that is not below the sender's own is changed",
	PowerUsersNew:      "a user is raised above the sender's own level",

	RedactionPower: "the sender's power level is below the redact level and the event is of another server",
}

// RefusalError is the error of an event that is not allowed.
type RefusalError struct {
	Rule    Rule
	Version roomver.Version
	Number  string // the rule's number in the version's text
}

// Error says which rule refused and why.
func (r *RefusalError) Error() string {
	return "not authorised by rule " + r.Number + " of room version " + string(r.Version) + ": " + r.Rule.Reason()
}

// Err is the rule as an error: nil if it is Allowed, and else a *RefusalError.
func (r Rule) Err(rules *roomver.Rules) error {
	if r == Allowed {
		return nil
	}
	return &RefusalError{Rule: r, Version: rules.Version, Number: r.Number(rules)}
}
