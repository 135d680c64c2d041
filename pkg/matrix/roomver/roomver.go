// Package roomver says what each room version does: one row of features for each of the versions 1
// to 12.
//
// Nothing else in the project compares versions: code asks for a Rules and reads its fields, so that a
// new version is a new row and every difference between two versions can be read off the table.
//
// Guarantees: rows are immutable and shared; a *Rules is a valid map key and is the same pointer for
// the same version for the life of the process. Safe for concurrent use.
//
// Imported by everything but infra/; imports nothing.
package roomver

// A Version is a room version's name. Versions are not ordered.
type Version string

// The versions of the specification.
const (
	V1  Version = "1"
	V2  Version = "2"
	V3  Version = "3"
	V4  Version = "4"
	V5  Version = "5"
	V6  Version = "6"
	V7  Version = "7"
	V8  Version = "8"
	V9  Version = "9"
	V10 Version = "10"
	V11 Version = "11"
	V12 Version = "12"

	// Default is the version of rooms whose creator names none.
	Default = V12
	// Implied is the version of a room whose create event names none.
	Implied = V1
)

// An EventIDFormat says where an event's id comes from.
type EventIDFormat uint8

const (
	// EventIDGiven is a field of the event, "$opaque:server".
	EventIDGiven EventIDFormat = iota
	// EventIDHashStd is "$" and the reference hash in standard unpadded base64.
	EventIDHashStd
	// EventIDHashURL is "$" and the reference hash in URL-safe unpadded base64.
	EventIDHashURL
)

// A StateRes names a state resolution algorithm.
type StateRes uint8

const (
	// StateResV1 is the algorithm of room version 1.
	StateResV1 StateRes = iota
	// StateResV2 is the algorithm of room versions 2 to 11.
	StateResV2
	// StateResV2_1 starts from the empty set and adds the conflicted state subgraph.
	StateResV2_1
)

// A PowerFormat says in which forms power levels are accepted.
type PowerFormat uint8

const (
	// PowerLax accepts integers, strings that hold integers, and floats (truncated).
	PowerLax PowerFormat = iota
	// PowerIntOrString accepts integers and strings that hold integers.
	PowerIntOrString
	// PowerInt accepts integers only, and other types are refused by the authorisation rules.
	PowerInt
)

// A CreatorSource says who is the creator of a room.
type CreatorSource uint8

const (
	// CreatorInContent is content.creator of the create event.
	CreatorInContent CreatorSource = iota
	// CreatorIsSender is the sender of the create event.
	CreatorIsSender
)

// Rules is what a room version does.
type Rules struct {
	Version Version

	// Event format.

	EventIDs EventIDFormat
	// LinksWithHashes: prev_events and auth_events hold [id, {"sha256": …}] pairs.
	LinksWithHashes bool
	// RoomIDIsHash: the room id is the create event's id with the sigil "!", the create event has no
	// room_id, and auth_events must not name it.
	RoomIDIsHash bool
	// StrictJSON: events must obey canonical JSON's limits, integers above all.
	StrictJSON bool
	// StrictByteLimits: a field beyond 255 bytes makes the event invalid. Without it only a field beyond
	// 255 code points does; one between is stored as rejected, as other servers do.
	StrictByteLimits bool
	// RedactsInContent: a redaction names its target in content.redacts, not at the top level.
	RedactsInContent bool
	Redaction        Redaction

	// Signatures.

	// SignedByEventIDServer: the server part of the event id must sign too.
	SignedByEventIDServer bool
	// SignedByAuthorisingServer: the server of content.join_authorised_via_users_server must sign too.
	SignedByAuthorisingServer bool
	// EnforceKeyValidity: a key counts only if valid at the event's origin_server_ts.
	EnforceKeyValidity bool

	// Authorisation.

	StateRes StateRes
	// AliasesAuth: m.room.aliases has an authorisation rule of its own.
	AliasesAuth bool
	// RedactionAuth: whether a redaction may be done is an authorisation rule; else it is decided when
	// both events are known, and the redaction itself is a message like any other.
	RedactionAuth bool
	// NotificationLevels: changes of the power levels' notifications are checked as those of events.
	NotificationLevels bool
	PowerLevels        PowerFormat
	Knock              bool
	Restricted         bool
	KnockRestricted    bool
	Creator            CreatorSource
	// PrivilegedCreators: the creators, content.additional_creators among them, have infinite power.
	PrivilegedCreators bool
}

// A Redaction says which members survive redaction beyond those that always do.
type Redaction struct {
	// LegacyTopLevel keeps origin, membership and prev_state.
	LegacyTopLevel bool
	// CreateAll keeps all of m.room.create's content, else creator.
	CreateAll bool
	// Aliases keeps m.room.aliases' aliases.
	Aliases bool
	// JoinRulesAllow keeps m.room.join_rules' allow.
	JoinRulesAllow bool
	// MemberAuthorised keeps m.room.member's join_authorised_via_users_server.
	MemberAuthorised bool
	// MemberThirdPartySigned keeps third_party_invite.signed of m.room.member.
	MemberThirdPartySigned bool
	// PowerInvite keeps m.room.power_levels' invite.
	PowerInvite bool
	// Redacts keeps m.room.redaction's redacts.
	Redacts bool
}

// Get returns the rules of a version; ok is false if this server does not know it.
func Get(v Version) (rules *Rules, ok bool) {
	for i := range table {
		if table[i].Version == v {
			return &table[i], true
		}
	}
	return nil, false
}

// MustGet is Get for the versions of this package's constants; it panics for others.
func MustGet(v Version) *Rules {
	r, ok := Get(v)
	if !ok {
		panic("roomver: unknown version " + string(v))
	}
	return r
}

// All returns the known versions, oldest first, in a new slice.
func All() []*Rules {
	all := make([]*Rules, len(table))
	for i := range table {
		all[i] = &table[i]
	}
	return all
}

// Valid tells whether s conforms to the grammar of version names, known or not.
func (v Version) Valid() bool {
	for i := range len(v) {
		c := v[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' {
			return false
		}
	}
	return v != "" && len(v) <= 32
}

// String returns the version's name.
func (v Version) String() string { return string(v) }
