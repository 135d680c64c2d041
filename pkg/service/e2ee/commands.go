package e2ee

import (
	"encoding/json"

	"github.com/heddle-im/heddle/pkg/shardlog/command"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// Command is what can be asked of a shard. The set is closed: the types below.
type Command interface {
	command.Command
	// Shard is the shard that does it.
	Shard(m shard.Map) shard.ID
}

// NewKey is a one-time or fallback key to be stored.
type NewKey struct {
	Algorithm string          `json:"a"`
	KeyID     string          `json:"k"`
	JSON      json.RawMessage `json:"j"`
}

// UploadKeys stores keys of a device. What has been checked of them is what they say of themselves.
type UploadKeys struct {
	UserID   string `json:"user_id"`
	DeviceID string `json:"device_id"`
	// Device are the identity keys; nil leaves them.
	Device   json.RawMessage `json:"device,omitempty"`
	OneTime  []NewKey        `json:"one_time,omitempty"`
	Fallback []NewKey        `json:"fallback,omitempty"`
}

// Wanted names a device, and of which algorithm a key of it is wanted.
type Wanted struct {
	UserID    string `json:"u"`
	DeviceID  string `json:"d"`
	Algorithm string `json:"a"`
}

// Claim takes one key of each device that is named. All users are of one shard.
type Claim struct {
	Wanted []Wanted `json:"wanted"`
}

// PutCrossSigning sets a user's cross-signing keys; nil leaves one as it is.
type PutCrossSigning struct {
	UserID      string          `json:"user_id"`
	Master      json.RawMessage `json:"master,omitempty"`
	SelfSigning json.RawMessage `json:"self_signing,omitempty"`
	UserSigning json.RawMessage `json:"user_signing,omitempty"`
	// Confirmed says that the user has confirmed to replace keys.
	Confirmed bool `json:"confirmed,omitempty"`
}

// OwnSignature adds signatures to a key of the signer: to that of a device, or, if DeviceID is empty, to the master key.
type OwnSignature struct {
	DeviceID string `json:"d,omitempty"`
	// Key is the key with the new signatures, which have been verified.
	Key json.RawMessage `json:"k"`
}

// OtherSignature is a verified signature under a master key of somebody else.
type OtherSignature struct {
	Target    string `json:"t"`
	TargetKey string `json:"p"`
	KeyID     string `json:"k"`
	Signature string `json:"s"`
}

// PutSignatures stores signatures by a user.
type PutSignatures struct {
	UserID string           `json:"user_id"`
	Own    []OwnSignature   `json:"own,omitempty"`
	Other  []OtherSignature `json:"other,omitempty"`
}

// ToDevice is a message to a device of a user of this server, or, if DeviceID is *, to all of the user's.
type ToDevice struct {
	UserID   string `json:"u"`
	DeviceID string `json:"d"`
	// Of, if it is not 0, says that of all the user's devices only those of one Part of so many are meant: what is large goes to many devices
	// by several commands.
	Part int `json:"p,omitempty"`
	Of   int `json:"o,omitempty"`
	// JSON is {"content":…,"sender":…,"type":…}.
	JSON json.RawMessage `json:"j"`
}

// SendToDevice delivers messages to devices of users of one shard.
type SendToDevice struct {
	Messages []ToDevice `json:"messages"`
}

// SendAway queues an EDU for another server.
type SendAway struct {
	Server string `json:"server"`
	// Type is m.direct_to_device if it is empty.
	Type    string          `json:"type,omitempty"`
	Content json.RawMessage `json:"content"`
}

// ListsChanged notes that device lists of users of one other server changed.
type ListsChanged struct {
	Users []string `json:"users"`
}

// Received says up to where a device has received its messages.
type Received struct {
	UserID   string `json:"u"`
	DeviceID string `json:"d"`
	Upto     int64  `json:"p"`
}

// Acknowledge removes messages that were received. All users are of one shard.
type Acknowledge struct {
	Received []Received `json:"received"`
}

// Seen says when and from where a device was last used.
type Seen struct {
	UserID    string `json:"u"`
	DeviceID  string `json:"d"`
	IP        string `json:"ip,omitempty"`
	UserAgent string `json:"ua,omitempty"`
	At        int64  `json:"at"`
}

// NoteSeen stores when devices were last used. All users are of one shard.
type NoteSeen struct {
	Seen []Seen `json:"seen"`
}

// Dehydrate makes a dehydrated device, in place of one that there may be.
type Dehydrate struct {
	UserID      string          `json:"user_id"`
	DeviceID    string          `json:"device_id"`
	DisplayName string          `json:"display_name,omitempty"`
	Data        json.RawMessage `json:"data"`
	Keys        UploadKeys      `json:"keys"`
}

// Rehydrated removes the dehydrated device. Refused with M_NOT_FOUND.
type Rehydrated struct {
	UserID string `json:"user_id"`
}

// PutBackup makes a version of the key backup, or, if Version is set, changes its auth data. Refused with M_NOT_FOUND.
type PutBackup struct {
	UserID    string          `json:"user_id"`
	Version   int64           `json:"version,omitempty"`
	Algorithm string          `json:"algorithm"`
	AuthData  json.RawMessage `json:"auth_data"`
}

// DeleteBackup deletes a version, and removes some of its keys: it is asked again until none is left. Refused with M_NOT_FOUND.
type DeleteBackup struct {
	UserID  string `json:"user_id"`
	Version int64  `json:"version"`
}

// BackedUp is the key of a session, as a backup holds it.
type BackedUp struct {
	RoomID     string          `json:"r"`
	SessionID  string          `json:"s"`
	FirstIndex int64           `json:"i"`
	Forwarded  int64           `json:"f,omitempty"`
	Verified   bool            `json:"v,omitempty"`
	Data       json.RawMessage `json:"d"`
}

// BackUp stores keys in the current version, where they are better than what is there. Refused with M_WRONG_ROOM_KEYS_VERSION.
type BackUp struct {
	UserID  string     `json:"user_id"`
	Version int64      `json:"version"`
	Keys    []BackedUp `json:"keys"`
}

// DropBackedUp removes some of a version's keys, of a room or session if these are set: it is asked again until none is left.
type DropBackedUp struct {
	UserID    string `json:"user_id"`
	Version   int64  `json:"version"`
	RoomID    string `json:"room_id,omitempty"`
	SessionID string `json:"session_id,omitempty"`
}

// Answer is what a command has to say.
type Answer struct {
	// Counts are of the device's one-time keys by algorithm.
	Counts map[string]int64 `json:"counts,omitempty"`
	Keys   []ClaimedKey     `json:"keys,omitempty"`
	// Unconfirmed: the user must confirm first.
	Unconfirmed bool     `json:"unconfirmed,omitempty"`
	Unknown     []string `json:"unknown,omitempty"` // devices, of signatures
	Version     int64    `json:"version,omitempty"`
	ETag        int64    `json:"etag,omitempty"`
	Count       int64    `json:"count,omitempty"`
	More        bool     `json:"more,omitempty"`
	DeviceID    string   `json:"device_id,omitempty"`
}

// ClaimedKey is a key that was handed out.
type ClaimedKey struct {
	UserID   string `json:"u"`
	DeviceID string `json:"d"`
	// KeyID is algorithm:id.
	KeyID string          `json:"k"`
	JSON  json.RawMessage `json:"j"`
}

// Method implements [Command].
func (c *UploadKeys) Method() string { return "e2ee.upload_keys" }

// Method implements [Command].
func (c *Claim) Method() string { return "e2ee.claim" }

// Method implements [Command].
func (c *PutCrossSigning) Method() string { return "e2ee.put_cross_signing" }

// Method implements [Command].
func (c *PutSignatures) Method() string { return "e2ee.put_signatures" }

// Method implements [Command].
func (c *SendToDevice) Method() string { return "e2ee.send_to_device" }

// Method implements [Command].
func (c *SendAway) Method() string { return "e2ee.send_away" }

// Method implements [Command].
func (c *ListsChanged) Method() string { return "e2ee.lists_changed" }

// Method implements [Command].
func (c *Acknowledge) Method() string { return "e2ee.acknowledge" }

// Method implements [Command].
func (c *NoteSeen) Method() string { return "e2ee.note_seen" }

// Method implements [Command].
func (c *Dehydrate) Method() string { return "e2ee.dehydrate" }

// Method implements [Command].
func (c *Rehydrated) Method() string { return "e2ee.rehydrated" }

// Method implements [Command].
func (c *PutBackup) Method() string { return "e2ee.put_backup" }

// Method implements [Command].
func (c *DeleteBackup) Method() string { return "e2ee.delete_backup" }

// Method implements [Command].
func (c *BackUp) Method() string { return "e2ee.back_up" }

// Method implements [Command].
func (c *DropBackedUp) Method() string { return "e2ee.drop_backed_up" }

// Shard implements [Command].
func (c *UploadKeys) Shard(m shard.Map) shard.ID { return m.OfUser(c.UserID) }

// Shard implements [Command].
func (c *Claim) Shard(m shard.Map) shard.ID { return m.OfUser(c.Wanted[0].UserID) }

// Shard implements [Command].
func (c *PutCrossSigning) Shard(m shard.Map) shard.ID { return m.OfUser(c.UserID) }

// Shard implements [Command].
func (c *PutSignatures) Shard(m shard.Map) shard.ID { return m.OfUser(c.UserID) }

// Shard implements [Command].
func (c *SendToDevice) Shard(m shard.Map) shard.ID { return m.OfUser(c.Messages[0].UserID) }

// Shard implements [Command].
func (c *SendAway) Shard(m shard.Map) shard.ID { return m.Of(c.Server) }

// Shard implements [Command].
func (c *ListsChanged) Shard(m shard.Map) shard.ID { return m.OfUser(c.Users[0]) }

// Shard implements [Command].
func (c *Acknowledge) Shard(m shard.Map) shard.ID { return m.OfUser(c.Received[0].UserID) }

// Shard implements [Command].
func (c *NoteSeen) Shard(m shard.Map) shard.ID { return m.OfUser(c.Seen[0].UserID) }

// Shard implements [Command].
func (c *Dehydrate) Shard(m shard.Map) shard.ID { return m.OfUser(c.UserID) }

// Shard implements [Command].
func (c *Rehydrated) Shard(m shard.Map) shard.ID { return m.OfUser(c.UserID) }

// Shard implements [Command].
func (c *PutBackup) Shard(m shard.Map) shard.ID { return m.OfUser(c.UserID) }

// Shard implements [Command].
func (c *DeleteBackup) Shard(m shard.Map) shard.ID { return m.OfUser(c.UserID) }

// Shard implements [Command].
func (c *BackUp) Shard(m shard.Map) shard.ID { return m.OfUser(c.UserID) }

// Shard implements [Command].
func (c *DropBackedUp) Shard(m shard.Map) shard.ID { return m.OfUser(c.UserID) }

// all gives an empty command of each kind.
func all() []Command {
	return []Command{
		&UploadKeys{}, &Claim{}, &PutCrossSigning{}, &PutSignatures{}, &SendToDevice{}, &SendAway{}, &ListsChanged{}, &Acknowledge{}, &NoteSeen{},
		&Dehydrate{}, &Rehydrated{}, &PutBackup{}, &DeleteBackup{}, &BackUp{}, &DropBackedUp{},
	}
}

// Methods gives the names of all commands.
func Methods() []string { return command.Methods(all()) }

// Decode reads a command as JSON has it.
func Decode(method string, b []byte) (Command, error) { return command.Decode(all(), method, b) }
