package e2eedb

// The rows below implement entry.Row. In each, Entry is the index of the proposal's entry whose position the row stores.

// DeviceKey sets the identity keys of a device.
type DeviceKey struct {
	UserID, DeviceID string
	JSON             []byte
	Entry            int
}

// Cost implements entry.Row.
func (r *DeviceKey) Cost() int { return 96 + len(r.UserID) + len(r.JSON) }

// OneTimeKey adds a key that is handed out once. It must not exist.
type OneTimeKey struct {
	UserID, DeviceID, Algorithm, KeyID string
	JSON                               []byte
	Entry                              int
}

// Cost implements entry.Row.
func (r *OneTimeKey) Cost() int { return 128 + len(r.UserID) + len(r.JSON) }

// OneTimeKeyGone removes a key that has been handed out, and notes that it has been.
type OneTimeKeyGone struct{ UserID, DeviceID, Algorithm, KeyID string }

// Cost implements entry.Row.
func (r *OneTimeKeyGone) Cost() int { return 128 + len(r.UserID) }

// SpentKeysForgotten removes what is noted of keys of a device that have been handed out.
type SpentKeysForgotten struct{ UserID, DeviceID string }

// Cost implements entry.Row.
func (r *SpentKeysForgotten) Cost() int { return 96 + len(r.UserID) }

// FallbackKey sets the fallback key of an algorithm, and whether it has been handed out.
type FallbackKey struct {
	UserID, DeviceID, Algorithm, KeyID string
	JSON                               []byte
	Used                               bool
}

// Cost implements entry.Row.
func (r *FallbackKey) Cost() int { return 128 + len(r.UserID) + len(r.JSON) }

// The usages of cross-signing keys.
const (
	Master      = "master"
	SelfSigning = "self_signing"
	UserSigning = "user_signing"
)

// CrossSigningKey sets a user's key of a usage.
type CrossSigningKey struct {
	UserID, Usage string
	JSON          []byte
	Entry         int
}

// Cost implements entry.Row.
func (r *CrossSigningKey) Cost() int { return 96 + len(r.UserID) + len(r.JSON) }

// KeySignature sets a signature by UserID under somebody else's key.
type KeySignature struct {
	UserID, Target, TargetKey, KeyID, Signature string
	// Entry is the one that tells of it.
	Entry int
}

// Cost implements entry.Row.
func (r *KeySignature) Cost() int { return 256 + len(r.Signature) }

// ToDevice adds a message to a device; its place is its entry's position, so that an entry has at most one for each device.
type ToDevice struct {
	UserID, DeviceID string
	JSON             []byte
	Entry            int
}

// Cost implements entry.Row.
func (r *ToDevice) Cost() int { return 96 + len(r.UserID) + len(r.JSON) }

// ToDeviceGone removes the messages to a device up to a position.
type ToDeviceGone struct {
	UserID, DeviceID string
	Upto             int64
}

// Cost implements entry.Row.
func (r *ToDeviceGone) Cost() int { return 96 + len(r.UserID) }

// Dehydrated sets a user's dehydrated device.
type Dehydrated struct {
	UserID, DeviceID string
	Data             []byte
}

// Cost implements entry.Row.
func (r *Dehydrated) Cost() int { return 96 + len(r.UserID) + len(r.Data) }

// BackupVersion makes a version of a user's key backup, or changes it.
type BackupVersion struct {
	UserID      string
	Version     int64
	Algorithm   string
	AuthData    []byte
	ETag, Count int64
	Deleted     bool
}

// Cost implements entry.Row.
func (r *BackupVersion) Cost() int { return 128 + len(r.AuthData) }

// BackupKey sets a session's key in a backup.
type BackupKey struct {
	UserID                string
	Version               int64
	RoomID, SessionID     string
	FirstIndex, Forwarded int64
	Verified              bool
	Data                  []byte
}

// Cost implements entry.Row.
func (r *BackupKey) Cost() int { return 192 + len(r.Data) }

// BackupKeysGone removes at most Most of the keys of a backup, of a room or session if these are not empty.
type BackupKeysGone struct {
	UserID            string
	Version           int64
	RoomID, SessionID string
	Most              int
}

// Cost implements entry.Row.
func (r *BackupKeysGone) Cost() int { return 128 + 16*r.Most }
