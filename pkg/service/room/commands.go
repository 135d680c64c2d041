package room

import (
	"encoding/json"
	"time"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// Command is what can be asked of a room, or of an alias. The set is closed: the types below, as pointers. A command is not
// changed after it was given to a [Writer].
//
// Raw JSON in commands (contents) need not be canonical; what is not a JSON object, or breaks canonical JSON's limits,
// is refused with M_BAD_JSON or M_NOT_JSON.
type Command interface {
	// shardKey is the room id, or the alias, whose shard does the command.
	shardKey() string
	// Method is the command's name on the wire.
	Method() string
}

// ShardOf gives the shard that does a command.
func ShardOf(m shard.Map, cmd Command) shard.ID { return m.Of(cmd.shardKey()) }

// Answer is what a command has to say besides that it was done. Which fields are set depends on the command.
type Answer struct {
	// Event is the event that was made, or that already says what the command wanted.
	Event id.EventID
	// Room is the room's id.
	Room id.RoomID
	// Unchanged says that there was nothing to do.
	Unchanged bool
	// Data is the command's own answer, where it has one (see there).
	Data []byte
	// Sign says that nothing was done: the room has a policy server, which has to sign the event first. Data is a [PolicyDraft], whose event comes
	// back by [Accept]. It is what service/policy takes care of; its callers see nothing of it.
	Sign bool
}

// Origin says who acts.
type Origin struct {
	User id.UserID
	// Device is the device whose token was used; empty without one.
	Device id.DeviceID
	// Txn is the client's transaction id; empty if the endpoint has none. Repeats of a command with the same device and
	// transaction id (and the same path, which the other fields tell) are one.
	Txn string
	// Guest says that the user is one: let into rooms only that let guests in.
	Guest bool
	// TS overrides the event's time, in ms: an application service may set it. 0: now.
	TS int64
}

// Profile is what a member event says of a user.
type Profile struct {
	DisplayName string
	AvatarURL   string
}

// StateEvent is a state event that a client wants in a new room.
type StateEvent struct {
	Type     string
	StateKey string
	Content  []byte
}

// Invitation is a user to be invited to a new room.
type Invitation struct {
	User    id.UserID
	Profile Profile
}

// Preset is a preset of createRoom.
type Preset string

// The presets.
const (
	PresetPrivate Preset = "private_chat"
	PresetTrusted Preset = "trusted_private_chat"
	PresetPublic  Preset = "public_chat"
)

// CreateRoom makes a room with all its first events, in one transaction. It must have gone through [Prepare], which checks it and
// gives the room its id. An alias is reserved by a [SetAlias] beforehand (it belongs to another shard); [Create] does
// all of this. Refused with M_ROOM_IN_USE if another request came to the same room id: prepare again. Answers Room.
type CreateRoom struct {
	// Room, TS and Nonce are set by Prepare. In room version 12 the id is the hash of the create event, which TS fixes; Nonce
	// tells apart two requests that came to the same id.
	Room  id.RoomID
	TS    int64
	Nonce []byte

	Creator Origin
	Profile Profile
	Version roomver.Version // empty: the default
	Preset  Preset          // empty: by Public
	// Public lists the room in the directory.
	Public bool
	Name   string
	Topic  string
	// Alias, if set, becomes the canonical alias.
	Alias           id.RoomAlias
	Invite          []Invitation
	IsDirect        bool
	InitialState    []StateEvent
	CreationContent []byte // JSON object, or nil
	PowerOverride   []byte // JSON object, or nil
}

// Send sends a message event. Answers Event.
type Send struct {
	Room    id.RoomID
	By      Origin
	Type    string
	Content []byte
}

// SendState sets a state event. If the room has the same content there already, nothing happens and the Event answered is the
// one in place. m.room.member is decided like [SetMembership]. Answers Event.
type SendState struct {
	Room     id.RoomID
	By       Origin
	Type     string
	StateKey string
	Content  []byte
}

// Redact redacts an event. Content may hold more members for the redaction's content. Answers Event.
type Redact struct {
	Room    id.RoomID
	By      Origin
	Target  id.EventID
	Reason  string
	Content []byte
}

// Action is what [SetMembership] does.
type Action string

// The actions. ActionLeave is also how an invitation is declined and a knock withdrawn.
const (
	ActionJoin   Action = "join"
	ActionInvite Action = "invite"
	ActionLeave  Action = "leave"
	ActionKick   Action = "kick"
	ActionBan    Action = "ban"
	ActionUnban  Action = "unban"
	ActionKnock  Action = "knock"
)

// SetMembership changes a membership. A join of a restricted room is checked against the rooms that its rule names as far as this
// server is in them. Answers Event; Unchanged if the membership was already what was asked for.
type SetMembership struct {
	Room   id.RoomID
	By     Origin
	Target id.UserID // By.User for join, leave, knock
	Action Action
	Reason string
	// Profile is Target's, for join, invite and knock.
	Profile  Profile
	IsDirect bool
	// Content may hold more members for the member event's content.
	Content []byte
}

// SetProfile brings a user's profile into the room's member event, if the user is joined. Answers Event or Unchanged.
type SetProfile struct {
	Room    id.RoomID
	User    id.UserID
	Profile Profile
}

// Forget forgets a room that the user has left. Refused with M_UNKNOWN while the user is in it.
type Forget struct {
	Room id.RoomID
	User id.UserID
}

// The kinds of receipts.
const (
	ReceiptRead        = "m.read"
	ReceiptReadPrivate = "m.read.private"
)

// Receipt moves a user's receipt forward; a move backward is Unchanged.
type Receipt struct {
	Room   id.RoomID
	User   id.UserID
	Kind   string
	Thread string // "": unthreaded; "main"; or the thread's root event
	Event  id.EventID
	TS     int64 // ms; 0: now
}

// Typing says that a user types, for as long as Timeout, or not any more. It is not committed.
type Typing struct {
	Room    id.RoomID
	User    id.UserID
	Typing  bool
	Timeout time.Duration
}

// SetAlias makes an alias of this server. Refused with M_ROOM_IN_USE if it is taken. It is done by the alias's shard, which does not
// know the room: the caller has checked that the user may. With From it moves the alias from that room, and is refused with M_NOT_FOUND if
// it is not there; By then is left alone.
type SetAlias struct {
	Alias id.RoomAlias
	Room  id.RoomID
	By    id.UserID
	From  id.RoomID
}

// DeleteAlias removes an alias. Refused with M_NOT_FOUND; and with M_FORBIDDEN unless By made it or Force is set, by a caller
// who has checked that the user may.
type DeleteAlias struct {
	Alias id.RoomAlias
	By    id.UserID
	Force bool
}

// SetVisibility lists a room in the public directory, or takes it out. Whoever may change the canonical alias may do it;
// Force leaves that check out, for administrators.
type SetVisibility struct {
	Room   id.RoomID
	By     id.UserID
	Public bool
	Force  bool
}

func (c *CreateRoom) shardKey() string    { return string(c.Room) }
func (c *Send) shardKey() string          { return string(c.Room) }
func (c *SendState) shardKey() string     { return string(c.Room) }
func (c *Redact) shardKey() string        { return string(c.Room) }
func (c *SetMembership) shardKey() string { return string(c.Room) }
func (c *SetProfile) shardKey() string    { return string(c.Room) }
func (c *Forget) shardKey() string        { return string(c.Room) }
func (c *Receipt) shardKey() string       { return string(c.Room) }
func (c *Typing) shardKey() string        { return string(c.Room) }
func (c *SetAlias) shardKey() string      { return string(c.Alias) }
func (c *DeleteAlias) shardKey() string   { return string(c.Alias) }
func (c *SetVisibility) shardKey() string { return string(c.Room) }

// Method implements [Command].
func (c *CreateRoom) Method() string { return "room.create" }

// Method implements [Command].
func (c *Send) Method() string { return "room.send" }

// Method implements [Command].
func (c *SendState) Method() string { return "room.send_state" }

// Method implements [Command].
func (c *Redact) Method() string { return "room.redact" }

// Method implements [Command].
func (c *SetMembership) Method() string { return "room.set_membership" }

// Method implements [Command].
func (c *SetProfile) Method() string { return "room.set_profile" }

// Method implements [Command].
func (c *Forget) Method() string { return "room.forget" }

// Method implements [Command].
func (c *Receipt) Method() string { return "room.receipt" }

// Method implements [Command].
func (c *Typing) Method() string { return "room.typing" }

// Method implements [Command].
func (c *SetAlias) Method() string { return "room.set_alias" }

// Method implements [Command].
func (c *DeleteAlias) Method() string { return "room.delete_alias" }

// Method implements [Command].
func (c *SetVisibility) Method() string { return "room.set_visibility" }

// Accept takes events of a room that this server is in, as other servers sent them: each has passed event.Parse and the check of its
// signatures, and comes after those of the others that it names. What they name must be known here, or be among them; what is missing
// is told, for the caller to fetch. Each is authorised by its auth events, by the state before it and by the current state, and
// forks are resolved. Answers Data: a list of [Verdict] as JSON.
//
// How a room is entered by way of another server, whose state comes from there, is another command.
type Accept struct {
	Room   id.RoomID
	Events [][]byte // PDUs
	// Staged are the numbers under which the events are staged, as many as there are events, or none. The rows of those that are
	// done with, whatever became of them, are deleted in the same transaction.
	Staged []int64
	// Relay has this server send what is accepted on to the others in the room: it was given to us for that.
	Relay bool
	// Asked says that the room's policy server has been asked to sign those events that it had not: without its signature they fail softly.
	Asked bool
	// Device and Txn are of who sends the only event, if that is a user of this server.
	Device id.DeviceID
	Txn    string
}

// Verdict is what became of one event.
type Verdict struct {
	Event id.EventID `json:"event_id,omitempty"`
	Fate  Fate       `json:"fate"`
	// Policy is the policy server that has to be asked to sign first.
	Policy id.ServerName `json:"policy,omitempty"`
	// Missing are the events that have to be there first.
	Missing []id.EventID `json:"missing,omitempty"`
	// Reason says why it was refused.
	Reason string `json:"reason,omitempty"`
}

// Fate is what an event's checks came to.
type Fate string

// The fates.
const (
	FateAccepted   Fate = "accepted"
	FateKnown      Fate = "known"       // it was there already
	FateSoftFailed Fate = "soft_failed" // the current state does not allow it: kept, and shown to nobody
	FateRejected   Fate = "rejected"    // its auth events or the state before it do not allow it: kept, and of no effect
	FateMissing    Fate = "missing"     // nothing was done: see Missing
	FateUnsigned   Fate = "unsigned"    // nothing was done: see Policy
	FateMalformed  Fate = "malformed"   // it is no event of this room: dropped
)

func (c *Accept) shardKey() string { return string(c.Room) }

// Method implements [Command].
func (c *Accept) Method() string { return "room.accept" }

// Outline makes a room known, by its version, of which nothing else is known yet. Unchanged if it is known.
type Outline struct {
	Room    id.RoomID
	Version roomver.Version
}

// Outliers stores events of a staged set, from a place in it on, which are authorised by their auth events alone: those have to be known, or
// to be before them. What does not pass is stored as rejected, what names unknown events is left out. The room is known.
type Outliers struct {
	Room  id.RoomID
	Set   []byte
	From  int
	Count int
}

// Enter takes an event whose state before it is the state of a staged set, the events of which were stored by [Outliers].
//
// With Join it is the join by which this server enters the room, or enters it again: what it is not allowed to be is refused with
// M_FORBIDDEN, and else the room goes on from it, and has the state after it. Otherwise it is an event of which nothing that comes before is
// known, and what becomes of it is as with [Accept]. Answers Event, and a list of one [Verdict] as Data.
type Enter struct {
	Room  id.RoomID
	Set   []byte
	Event []byte // PDU
	Join  bool
	// Staged is the number under which the event is staged, 0 if it is not.
	Staged int64
	// Asked is as with [Accept].
	Asked bool
}

// Backfill gives events that were missing their places before the gap at an order key. Set has them, each after those that it names; of those
// that name events which are not known, States has the state before, whose events were stored by [Outliers] already. An event is authorised by its
// auth events and by the state before it; what does not pass is stored as rejected, what lacks others is left out. No entry tells of them. The
// gap moves on before the earliest of them, or is closed. Unchanged if nothing came of it, or if there is no such gap any more.
type Backfill struct {
	Room   id.RoomID
	Gap    int64
	Set    []byte
	States []BackfillState
}

// BackfillState names the staged set that has the state before an event.
type BackfillState struct {
	Event id.EventID
	Set   []byte
}

// OutOfBand stores a member event of a user of this server in a room whose state is not known here, or not any more: an invitation by another
// server, a knock on one, and their ends. The room is known. Stripped is what the user is told of the room, a JSON array, or
// nil. Rescinds says that it is another server's word that an invitation is taken back: it counts if it names the invitation that the user has
// as what allows it, and comes from whoever sent that. Answers Event; Unchanged if it was there, or does not count.
type OutOfBand struct {
	Room     id.RoomID
	Event    []byte // PDU
	Stripped []byte
	Rescinds bool
}

// Template asks for the event by which a user of another server would join, leave or knock. Answers Data: the room's version and the
// event without signatures, as make_join and its like are answered. Refused as the event would be.
type Template struct {
	Room   id.RoomID
	User   id.UserID
	Action Action
}

// InviteDraft asks for an invitation of a user of another server, signed, for that server to sign it too; it then comes back by [Accept].
// Answers Data: an [InviteRequest] as JSON.
type InviteDraft struct{ Invite SetMembership }

// InviteRequest is the body of an invitation as servers send it.
type InviteRequest struct {
	Event    json.RawMessage `json:"event"`
	Version  string          `json:"room_version"`
	Stripped json.RawMessage `json:"invite_room_state"`
}

func (c *Outline) shardKey() string     { return string(c.Room) }
func (c *Outliers) shardKey() string    { return string(c.Room) }
func (c *Enter) shardKey() string       { return string(c.Room) }
func (c *Backfill) shardKey() string    { return string(c.Room) }
func (c *OutOfBand) shardKey() string   { return string(c.Room) }
func (c *Template) shardKey() string    { return string(c.Room) }
func (c *InviteDraft) shardKey() string { return string(c.Invite.Room) }

// Method implements [Command].
func (c *Outline) Method() string { return "room.outline" }

// Method implements [Command].
func (c *Outliers) Method() string { return "room.outliers" }

// Method implements [Command].
func (c *Enter) Method() string { return "room.enter" }

// Method implements [Command].
func (c *Backfill) Method() string { return "room.backfill" }

// Method implements [Command].
func (c *OutOfBand) Method() string { return "room.out_of_band" }

// Method implements [Command].
func (c *Template) Method() string { return "room.template" }

// Method implements [Command].
func (c *InviteDraft) Method() string { return "room.invite_draft" }
