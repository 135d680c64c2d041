package event

// Event types that the server itself knows.
const (
	TypeCreate            = "m.room.create"
	TypeMember            = "m.room.member"
	TypePowerLevels       = "m.room.power_levels"
	TypeJoinRules         = "m.room.join_rules"
	TypeThirdPartyInvite  = "m.room.third_party_invite"
	TypeHistoryVisibility = "m.room.history_visibility"
	TypeGuestAccess       = "m.room.guest_access"
	TypeAliases           = "m.room.aliases"
	TypeCanonicalAlias    = "m.room.canonical_alias"
	TypeRedaction         = "m.room.redaction"
	TypeServerACL         = "m.room.server_acl"
	TypeTombstone         = "m.room.tombstone"
	TypeName              = "m.room.name"
	TypeTopic             = "m.room.topic"
	TypeAvatar            = "m.room.avatar"
	TypeEncryption        = "m.room.encryption"
	TypeEncrypted         = "m.room.encrypted"
	TypeMessage           = "m.room.message"
	TypePinnedEvents      = "m.room.pinned_events"
	TypePolicy            = "m.room.policy"
	TypeReaction          = "m.reaction"
	TypeSpaceChild        = "m.space.child"
	TypeSpaceParent       = "m.space.parent"
	// TypeDummy is the type of events by which servers join the branches of a room's history. They say nothing, and no client is shown one.
	TypeDummy = "org.matrix.dummy_event"
)

// Memberships.
const (
	Join   = "join"
	Invite = "invite"
	Leave  = "leave"
	Ban    = "ban"
	Knock  = "knock"
)
