package accountdb

// Kind says what sort of account it is.
type Kind int16

// The kinds of account. The numbers rest in databases.
const (
	KindUser       Kind = 0
	KindGuest      Kind = 1
	KindAppservice Kind = 2
)

// The rows below implement entry.Row. In each, Entry is the index of the proposal's entry whose position the row stores.

// Account makes an account, or replaces all that may change of one.
type Account struct {
	UserID       string
	PasswordHash string
	Kind         Kind
	Admin        bool
	Locked       bool
	Suspended    bool
	Deactivated  bool
	Erased       bool
	// ResetUntil is until when the cross-signing keys may be replaced without further proof; ms, 0: not at all.
	ResetUntil int64
	Created    int64 // ms
	// New says that the account must not exist: if it does, the proposal fails.
	New   bool
	Entry int
}

// Cost implements entry.Row.
func (r *Account) Cost() int { return 96 + len(r.UserID) + len(r.PasswordHash) }

// Device makes a device, or changes one's display name.
type Device struct {
	UserID, DeviceID, DisplayName string
	Created                       int64 // ms
	LastSeen                      int64 // ms
	LastSeenIP, UserAgent         string
	Entry                         int
}

// Cost implements entry.Row.
func (r *Device) Cost() int { return 96 + len(r.UserID) + len(r.DeviceID) + len(r.DisplayName) }

// DeviceGone removes a device with its tokens and pushers, its keys and the messages to it.
type DeviceGone struct {
	UserID, DeviceID string
	// KeepKeys removes only the tokens and pushers: somebody logs in with the device again.
	KeepKeys bool
}

// Cost implements entry.Row.
func (r *DeviceGone) Cost() int { return 128 + len(r.UserID) + len(r.DeviceID) }

// AccessToken makes an access token; only its hash is ever stored.
type AccessToken struct {
	Hash             [32]byte
	UserID, DeviceID string
	Expires          int64 // ms; 0: never
	Created          int64 // ms
	Entry            int
}

// Cost implements entry.Row.
func (r *AccessToken) Cost() int { return 128 + len(r.UserID) + len(r.DeviceID) }

// AccessTokenGone removes one access token of a user.
type AccessTokenGone struct {
	UserID string
	Hash   [32]byte
}

// Cost implements entry.Row.
func (r *AccessTokenGone) Cost() int { return 96 }

// RegistrationToken makes a registration token or replaces one's counts. Its shard is that of the token itself.
type RegistrationToken struct {
	Token              string
	UsesAllowed        *int32
	Pending, Completed int32
	Expires            *int64 // ms
}

// Cost implements entry.Row.
func (r *RegistrationToken) Cost() int { return 64 + len(r.Token) }

// RegistrationTokenGone removes a registration token.
type RegistrationTokenGone struct{ Token string }

// Cost implements entry.Row.
func (r *RegistrationTokenGone) Cost() int { return 32 + len(r.Token) }

// Profile sets a field of a profile; an empty Value removes it.
type Profile struct {
	UserID, Field string
	Value         []byte // JSON
	Entry         int
}

// Cost implements entry.Row.
func (r *Profile) Cost() int { return 64 + len(r.UserID) + len(r.Field) + len(r.Value) }

// AccountData sets account data of one type, of a room or global (RoomID empty). A deletion sets {}.
type AccountData struct {
	UserID, RoomID, Type string
	Content              []byte // JSON
	Entry                int
}

// Cost implements entry.Row.
func (r *AccountData) Cost() int {
	return 64 + len(r.UserID) + len(r.RoomID) + len(r.Type) + len(r.Content)
}

// Filter stores a filter under its id; storing the same again changes nothing.
type Filter struct {
	UserID, FilterID string
	JSON             []byte
}

// Cost implements entry.Row.
func (r *Filter) Cost() int { return 64 + len(r.UserID) + len(r.JSON) }

// RefreshToken makes a refresh token, or changes its parent. Only hashes are ever stored.
type RefreshToken struct {
	Hash             [32]byte
	UserID, DeviceID string
	// Access is the hash of the access token that came with it.
	Access [32]byte
	// Parent is the hash of the refresh token that it came for, until one of the two is used; nil then.
	Parent  []byte
	Expires int64 // ms; 0: never
	Created int64 // ms
	// Line is the line of tokens that it is of, nil for none, and N which one.
	Line []byte
	N    int32
}

// Cost implements entry.Row.
func (r *RefreshToken) Cost() int { return 192 + len(r.UserID) + len(r.DeviceID) }

// RefreshTokenGone removes a refresh token.
type RefreshTokenGone struct {
	UserID string
	Hash   [32]byte
}

// Cost implements entry.Row.
func (r *RefreshTokenGone) Cost() int { return 96 }

// LoginToken makes a token that lets a user log in once.
type LoginToken struct {
	Hash    [32]byte
	UserID  string
	Expires int64 // ms
	// Before is a time (ms): some tokens that ended before it go.
	Before int64
}

// Cost implements entry.Row.
func (r *LoginToken) Cost() int { return 96 + len(r.UserID) }

// LoginTokenGone removes a login token.
type LoginTokenGone struct {
	UserID string
	Hash   [32]byte
}

// Cost implements entry.Row.
func (r *LoginTokenGone) Cost() int { return 96 }

// DataGone removes a user's account data and filters, what the user agreed to, and as whom outside providers know the user.
type DataGone struct{ UserID string }

// Cost implements entry.Row.
func (r *DataGone) Cost() int { return 64 + len(r.UserID) }

// DeviceList notes that what others see of a user's devices and keys changed.
type DeviceList struct {
	UserID string
	Entry  int
}

// Cost implements entry.Row.
func (r *DeviceList) Cost() int { return 64 + len(r.UserID) }

// DeviceSeen notes when and from where a device was last seen.
type DeviceSeen struct {
	UserID, DeviceID, IP, UserAgent string
	Seen                            int64 // ms
}

// Cost implements entry.Row.
func (r *DeviceSeen) Cost() int { return 64 + len(r.UserID) + len(r.DeviceID) + len(r.UserAgent) }
