package account

import (
	"github.com/heddle-im/heddle/pkg/shardlog/command"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
)

// Command is what can be asked of a user's shard. The set is closed: the types below. Each says by what it is sharded.
type Command interface {
	// shardKey is the user id, or the registration token, whose shard does the command.
	shardKey() (key string, isUser bool)
	command.Command
}

// NewSession is a device and an access token to be made. The token is made by the worker that the client talks to, so that
// a repeat of the command makes no second one, and travels as its hash.
type NewSession struct {
	DeviceID    string   `json:"device_id"`
	DisplayName string   `json:"display_name,omitempty"`
	TokenHash   [32]byte `json:"token_hash"`
	Expires     int64    `json:"expires,omitempty"` // ms
	// RefreshHash is of the refresh token, if the client asked for one, which ends at RefreshExpires (ms; 0: never).
	RefreshHash    *[32]byte `json:"refresh_hash,omitempty"`
	RefreshExpires int64     `json:"refresh_expires,omitempty"`
	Line           Line      `json:"line,omitzero"`
	IP             string    `json:"ip,omitempty"`
	UserAgent      string    `json:"user_agent,omitempty"`
}

// Register makes an account, and a session of it unless Session is nil. Refused with M_USER_IN_USE.
type Register struct {
	UserID       string         `json:"user_id"`
	PasswordHash string         `json:"password_hash,omitempty"`
	Kind         accountdb.Kind `json:"kind,omitempty"`
	Admin        bool           `json:"admin,omitempty"`
	DisplayName  string         `json:"display_name,omitempty"`
	Session      *NewSession    `json:"session,omitempty"`
	// Address, External and Consents come with the account.
	Address  *Proven   `json:"address,omitempty"`
	External *External `json:"external,omitempty"`
	Consents []Consent `json:"consents,omitempty"`
	// Guest is the hash of the access token of a guest whose account becomes this one. Refused with M_FORBIDDEN if it is not of such a guest.
	Guest *[32]byte `json:"guest,omitempty"`
}

// Login makes a session of an existing account. The password has been verified. If NewPasswordHash is set, the stored hash
// was of an outdated kind and is replaced, provided it is still OldPasswordHash.
type Login struct {
	UserID          string     `json:"user_id"`
	Session         NewSession `json:"session"`
	OldPasswordHash string     `json:"old_password_hash,omitempty"`
	NewPasswordHash string     `json:"new_password_hash,omitempty"`
}

// Refresh gives a new access token, and a new refresh token, for an old refresh token (spec: "Refreshing access tokens"). Refused with
// M_UNKNOWN_TOKEN.
type Refresh struct {
	UserID string   `json:"user_id"`
	Hash   [32]byte `json:"hash"`
	// Access and Next are the hashes of the new tokens, and when they end, in ms; 0: never.
	Access        [32]byte `json:"access"`
	AccessExpires int64    `json:"access_expires,omitempty"`
	Next          [32]byte `json:"next"`
	NextExpires   int64    `json:"next_expires,omitempty"`
	// Line is that of the token that is exchanged, as far as it is known, and NextLine that of the new one.
	Line     Line `json:"line,omitzero"`
	NextLine Line `json:"next_line,omitzero"`
}

// ConfirmRefresh revokes the tokens for which an access token came, now that it has been used.
type ConfirmRefresh struct {
	UserID string   `json:"user_id"`
	Access [32]byte `json:"access"`
}

// PutLoginToken makes a token that lets the user log in once.
type PutLoginToken struct {
	UserID  string   `json:"user_id"`
	Hash    [32]byte `json:"hash"`
	Expires int64    `json:"expires"` // ms
}

// LoginByToken uses a login token up and makes a session. Refused with M_FORBIDDEN.
type LoginByToken struct {
	UserID  string     `json:"user_id"`
	Hash    [32]byte   `json:"hash"`
	Session NewSession `json:"session"`
}

// Deactivate ends an account for good: no password, device or token is left, and the log has it leave its rooms. Erase removes what the
// server holds of the user beside events.
type Deactivate struct {
	UserID string `json:"user_id"`
	Erase  bool   `json:"erase,omitempty"`
}

// SetStanding locks or suspends an account, or lifts that; nil leaves it. Refused with M_NOT_FOUND, and with M_FORBIDDEN for an
// administrator.
type SetStanding struct {
	UserID    string `json:"user_id"`
	Locked    *bool  `json:"locked,omitempty"`
	Suspended *bool  `json:"suspended,omitempty"`
}

// Logout removes devices with their tokens: those named, or all but Except.
type Logout struct {
	UserID  string   `json:"user_id"`
	Devices []string `json:"devices,omitempty"`
	All     bool     `json:"all,omitempty"`
	Except  string   `json:"except,omitempty"`
	// TokenHash is of a token without a device that is to be removed.
	TokenHash *[32]byte `json:"token_hash,omitempty"`
}

// SetPassword replaces the password. With LogoutOthers all devices but Keep are removed.
type SetPassword struct {
	UserID       string `json:"user_id"`
	PasswordHash string `json:"password_hash"`
	LogoutOthers bool   `json:"logout_others,omitempty"`
	Keep         string `json:"keep,omitempty"`
}

// SetDevice changes a device's display name. Refused with M_NOT_FOUND.
type SetDevice struct {
	UserID      string `json:"user_id"`
	DeviceID    string `json:"device_id"`
	DisplayName string `json:"display_name"`
}

// SetProfile sets a field of the profile to a JSON value; an empty one removes it.
type SetProfile struct {
	UserID string `json:"user_id"`
	Field  string `json:"field"`
	Value  []byte `json:"value,omitempty"`
}

// SetAccountData sets account data, global or of a room.
type SetAccountData struct {
	UserID  string `json:"user_id"`
	RoomID  string `json:"room_id,omitempty"`
	Type    string `json:"type"`
	Content []byte `json:"content"`
}

// SetTag sets a tag of a room, or removes it if Content is empty. The tags are one piece of account data, m.tag, of which
// the others stay as they are.
type SetTag struct {
	UserID string `json:"user_id"`
	RoomID string `json:"room_id"`
	Tag    string `json:"tag"`
	// Content is the tag's own object.
	Content []byte `json:"content,omitempty"`
}

// PutFilter stores a filter. Its id is derived from its content, so that the same filter is stored once.
type PutFilter struct {
	UserID string `json:"user_id"`
	JSON   []byte `json:"json"`
}

// UseRegistrationToken counts one use of a registration token, if it has one left. Return gives one back instead, after a
// registration that failed. Refused with M_UNAUTHORIZED.
type UseRegistrationToken struct {
	Token  string `json:"token"`
	Return bool   `json:"return,omitempty"`
}

// PutRegistrationToken makes or replaces a registration token.
type PutRegistrationToken struct {
	Token       string `json:"token"`
	UsesAllowed *int32 `json:"uses_allowed,omitempty"`
	Expires     *int64 `json:"expires,omitempty"` // ms
}

func (c *Register) shardKey() (string, bool)             { return c.UserID, true }
func (c *Login) shardKey() (string, bool)                { return c.UserID, true }
func (c *Refresh) shardKey() (string, bool)              { return c.UserID, true }
func (c *ConfirmRefresh) shardKey() (string, bool)       { return c.UserID, true }
func (c *PutLoginToken) shardKey() (string, bool)        { return c.UserID, true }
func (c *LoginByToken) shardKey() (string, bool)         { return c.UserID, true }
func (c *Deactivate) shardKey() (string, bool)           { return c.UserID, true }
func (c *SetStanding) shardKey() (string, bool)          { return c.UserID, true }
func (c *Logout) shardKey() (string, bool)               { return c.UserID, true }
func (c *SetPassword) shardKey() (string, bool)          { return c.UserID, true }
func (c *SetDevice) shardKey() (string, bool)            { return c.UserID, true }
func (c *SetProfile) shardKey() (string, bool)           { return c.UserID, true }
func (c *SetAccountData) shardKey() (string, bool)       { return c.UserID, true }
func (c *SetTag) shardKey() (string, bool)               { return c.UserID, true }
func (c *PutFilter) shardKey() (string, bool)            { return c.UserID, true }
func (c *UseRegistrationToken) shardKey() (string, bool) { return c.Token, false }
func (c *PutRegistrationToken) shardKey() (string, bool) { return c.Token, false }

// Method implements [Command].
func (c *Register) Method() string { return "account.register" }

// Method implements [Command].
func (c *Login) Method() string { return "account.login" }

// Method implements [Command].
func (c *Refresh) Method() string { return "account.refresh" }

// Method implements [Command].
func (c *ConfirmRefresh) Method() string { return "account.confirm_refresh" }

// Method implements [Command].
func (c *PutLoginToken) Method() string { return "account.put_login_token" }

// Method implements [Command].
func (c *LoginByToken) Method() string { return "account.login_by_token" }

// Method implements [Command].
func (c *Deactivate) Method() string { return "account.deactivate" }

// Method implements [Command].
func (c *SetStanding) Method() string { return "account.set_standing" }

// Method implements [Command].
func (c *Logout) Method() string { return "account.logout" }

// Method implements [Command].
func (c *SetPassword) Method() string { return "account.set_password" }

// Method implements [Command].
func (c *SetDevice) Method() string { return "account.set_device" }

// Method implements [Command].
func (c *SetProfile) Method() string { return "account.set_profile" }

// Method implements [Command].
func (c *SetAccountData) Method() string { return "account.set_account_data" }

// Method implements [Command].
func (c *SetTag) Method() string { return "account.set_tag" }

// Method implements [Command].
func (c *PutFilter) Method() string { return "account.put_filter" }

// Method implements [Command].
func (c *UseRegistrationToken) Method() string { return "account.use_registration_token" }

// Method implements [Command].
func (c *PutRegistrationToken) Method() string { return "account.put_registration_token" }

// Answer is what a command has to say besides that it was done.
type Answer struct {
	// DeviceID is the device that was made.
	DeviceID string `json:"device_id,omitempty"`
	FilterID string `json:"filter_id,omitempty"`
	// Unchanged says that there was nothing to do.
	Unchanged bool `json:"unchanged,omitempty"`
	// Revoked says that tokens were good for a device, or may have been, and are no more.
	Revoked bool `json:"revoked,omitempty"`
	// Reused says that a refresh token was spent long ago, and that its session has ended for that.
	Reused bool `json:"reused,omitempty"`
	// Held says that another has what was claimed.
	Held bool `json:"held,omitempty"`
	// Proven is the address that was proven.
	Proven *Proven `json:"proven,omitempty"`
	// NextLink is where the browser goes after a letter's link.
	NextLink string `json:"next_link,omitempty"`
}

// Everywhere tells whether what was done by a command that was answered with a is to hold on every worker once it is answered: it took access
// away from whoever held it, or locked or suspended an account, or let it go again. A refresh is none of these, nor is the use of what it gave:
// how long the older access token stays good is the server's to say (spec: POST /refresh), and the older refresh token is looked for where the
// log is written, which needs to wait for nobody.
func Everywhere(cmd Command, a *Answer) bool {
	if a.Unchanged {
		return false
	}
	switch c := cmd.(type) {
	case *Logout, *Deactivate, *SetStanding:
		return true
	case *SetPassword:
		return c.LogoutOthers
	case *Register:
		return c.Guest != nil
	}
	return a.Revoked
}

// all gives an empty command of each kind.
func all() []Command {
	return []Command{
		&Register{}, &Login{}, &Logout{}, &SetPassword{}, &SetDevice{}, &SetProfile{}, &SetAccountData{}, &SetTag{},
		&PutFilter{}, &UseRegistrationToken{}, &PutRegistrationToken{}, &Refresh{}, &ConfirmRefresh{}, &PutLoginToken{}, &LoginByToken{},
		&Deactivate{}, &SetStanding{}, &ChangePushRule{}, &SetPusher{}, &FollowRoom{}, &Report{},
		&PutDevice{}, &SyncDevices{}, &Reactivate{}, &AllowReset{}, &SubscribeThread{},
		&BeginValidation{}, &ConfirmValidation{}, &TakeValidation{}, &UndoValidation{}, &Claim{}, &PassStage{},
		&AddThreepid{}, &RemoveThreepid{}, &NoteBind{}, &LinkExternal{}, &Agree{},
	}
}

// Methods gives the names of all commands.
func Methods() []string { return command.Methods(all()) }

// Decode reads a command as JSON has it.
func Decode(method string, b []byte) (Command, error) { return command.Decode(all(), method, b) }

// The names of stored things that callers need.
type (
	// Session is whom an access token speaks for.
	Session = accountdb.Session
	// Kind says what sort of account it is.
	Kind = accountdb.Kind
)

// The kinds of account.
const (
	KindUser       = accountdb.KindUser
	KindGuest      = accountdb.KindGuest
	KindAppservice = accountdb.KindAppservice
)
