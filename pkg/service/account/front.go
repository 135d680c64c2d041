package account

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
)

// Doer has a command done by whoever holds its shard, until ctx ends. It is the router between [Host] and other workers.
type Doer interface {
	Do(ctx context.Context, key []byte, cmd Command) (Answer, error)
}

// Config is the registration section of the configuration.
type Config struct {
	// Enabled lets anybody register (with a token, if RequireToken).
	Enabled bool `yaml:"enabled"`
	// SharedSecret lets its holder register users and administrators.
	SharedSecret string `yaml:"shared_secret"`
	// RequireToken asks for a registration token.
	RequireToken bool `yaml:"require_token"`
	// Guests lets anybody make a guest account, which may do little.
	Guests bool
	// Email has people give an e-mail address which they must confirm; RequireEmail demands one.
	Email, RequireEmail bool
	// Reserved is a localpart that nobody can register: that of who sends server notices.
	Reserved string
	// Terms are what people must agree to.
	Terms []Policy
	// Lifetimes says how long tokens last.
	Lifetimes Lifetimes
}

// Lifetimes says how long tokens last; 0: for ever.
type Lifetimes struct {
	// Access is of an access token that cannot be refreshed, Refreshable of one that can, and Refresh of a refresh token.
	Access, Refreshable, Refresh time.Duration
	// Login is of a token for one login. There must be one; default 2 min.
	Login time.Duration
}

func (c Config) withDefaults() Config {
	if c.Lifetimes.Login <= 0 {
		c.Lifetimes.Login = 2 * time.Minute
	}
	return c
}

// Front is the accounts as an API worker sees them: it checks what a client shows, makes secrets and hashes, and has the
// commands done. It keeps nothing.
type Front struct {
	server    id.ServerName
	shards    shard.Map
	cfg       Config
	do        Doer
	db        *accountdb.Reader
	passwords *Passwords
	uia       *UIA
	secret    []byte
	guesses   Guesses // nil: they are not counted
	// reserved tells which names are for application services alone; nil: none.
	reserved func(u id.UserID) bool
	now      func() time.Time
}

// NewFront makes a Front. secret is the cluster's.
func NewFront(server id.ServerName, shards shard.Map, cfg Config, do Doer, db *accountdb.Reader, p *Passwords, secret []byte,
	now func() time.Time,
) *Front {
	return &Front{
		server: server, shards: shards, cfg: cfg.withDefaults(), do: do, db: db, passwords: p, uia: NewUIA(secret, now), secret: secret, now: now,
	}
}

// NewDevice is what a client says of the device that it registers or logs in with.
type NewDevice struct {
	DeviceID    string // empty: one is made
	DisplayName string
	IP          string
	UserAgent   string
	// Refresh asks for a refresh token, and an access token that ends.
	Refresh bool
}

// LoggedIn is a new session, with the only copy of its access token.
type LoggedIn struct {
	UserID, DeviceID, AccessToken string
	// RefreshToken is empty if none was asked for.
	RefreshToken string
	// ExpiresIn is how long the access token is good; 0: for ever.
	ExpiresIn time.Duration
}

// NewUser is an account to be made.
type NewUser struct {
	Localpart string // empty: one is made
	Password  string // empty: none, the account can only be entered otherwise
	Admin     bool
	Kind      accountdb.Kind
	// Token is a registration token to be used up, if any.
	Token string
	// InhibitLogin makes no session.
	InhibitLogin bool
	Device       NewDevice
	// DisplayName is the name that others see; empty: the localpart.
	DisplayName string
	// Address is how an address was proven that comes with the account, if any.
	Address *Credentials
	// Given is an address that somebody who is trusted has proven.
	Given *Proven
	// External is as whom a provider knows the user, if it does.
	External *External
	// Consents are the policies that the user agreed to.
	Consents []Consent
	// Guest is the access token of a guest who becomes this user, who has the name already; empty: nobody has it.
	Guest string
}

// CheckLocalpart refuses a user name that may not be registered. Capitals are taken for small letters: user ids are made of
// these alone, and people write their names as they like.
func (f *Front) CheckLocalpart(localpart string) (id.UserID, error) {
	localpart = strings.ToLower(localpart)
	u, err := id.ParseUserIDStrict("@" + localpart + ":" + string(f.server))
	if err != nil {
		return "", mxerr.New(mxerr.InvalidUsername, "A user name may hold a-z, 0-9, and the characters . _ = - / +").WithCause(err)
	}
	if localpart == f.cfg.Reserved {
		return "", mxerr.New(mxerr.UserInUse, "The desired user ID is already taken")
	}
	return u, nil
}

// Reserve has names refused to people that are for application services alone. It must be called before the first request.
func (f *Front) Reserve(reserved func(u id.UserID) bool) { f.reserved = reserved }

func (f *Front) free(u id.UserID) error {
	if f.reserved != nil && f.reserved(u) {
		return mxerr.New(mxerr.Exclusive, "The desired user ID is reserved for an application service").WithStatus(400)
	}
	return nil
}

// Available refuses a user name that is taken or may not be registered.
func (f *Front) Available(ctx context.Context, localpart string) error {
	u, err := f.CheckLocalpart(localpart)
	if err != nil {
		return err
	}
	if err := f.free(u); err != nil {
		return err
	}
	exists, err := f.db.AccountExists(ctx, f.shards.OfUser(string(u)), string(u))
	if err != nil {
		return err
	}
	if exists {
		return mxerr.New(mxerr.UserInUse, "The desired user ID is already taken")
	}
	return nil
}

// Guest refuses a token that is not of a guest with a name, with M_FORBIDDEN.
func (f *Front) Guest(ctx context.Context, token, localpart string) error {
	u, err := f.CheckLocalpart(localpart)
	if err != nil {
		return err
	}
	x, ok, err := f.db.SessionByToken(ctx, f.shards.OfUser(string(u)), HashToken(token))
	if err != nil {
		return err
	}
	return guest(&x, ok, string(u), f.now().UnixMilli())
}

// Register makes an account and, unless inhibited, a session of it.
func (f *Front) Register(ctx context.Context, n NewUser) (LoggedIn, error) {
	if n.Localpart == "" {
		n.Localpart = randomLocalpart()
	}
	u, err := f.CheckLocalpart(n.Localpart)
	if err != nil {
		return LoggedIn{}, err
	}
	if n.Kind != accountdb.KindAppservice { // who acts for one has been asked which names it may use
		if err := f.free(u); err != nil {
			return LoggedIn{}, err
		}
	}
	cmd := Register{UserID: string(u), Kind: n.Kind, Admin: n.Admin, DisplayName: n.DisplayName, External: n.External, Consents: n.Consents}
	if cmd.DisplayName == "" {
		cmd.DisplayName = u.Localpart()
	}
	if n.Guest != "" {
		hash := HashToken(n.Guest)
		cmd.Guest = &hash
	}
	if n.Password != "" {
		if cmd.PasswordHash, err = f.hash(ctx, n.Password); err != nil {
			return LoggedIn{}, err
		}
	}
	out := LoggedIn{UserID: string(u)}
	if !n.InhibitLogin {
		if cmd.Session, out, err = f.session(u, n.Device); err != nil {
			return LoggedIn{}, err
		}
	}
	return out, f.make(ctx, u, &n, &cmd)
}

// make has an account made, with what only one can have: a use of the registration token, the address, the one at a provider.
func (f *Front) make(ctx context.Context, u id.UserID, n *NewUser, cmd *Register) error {
	give := func() error { return f.counted(ctx, n.Token, cmd) }
	if n.External != nil {
		inner := give
		give = func() error { return f.withExternal(ctx, u, *n.External, inner) }
	}
	switch {
	case n.Address != nil:
		p, err := f.Proven(ctx, *n.Address, PurposeRegister)
		if err != nil {
			return err
		}
		cmd.Address = &p
		err = f.withAddress(ctx, u, &p, give)
		if err == nil {
			// The address is in use now, so the proof is worth nothing more, and if it stays it ends by itself.
			_, _ = f.TakeProven(ctx, *n.Address, PurposeRegister)
		}
		return err
	case n.Given != nil:
		cmd.Address = n.Given
		return f.withAddress(ctx, u, n.Given, give)
	}
	return give()
}

// counted uses up a registration token, if there is one, for an account.
func (f *Front) counted(ctx context.Context, token string, cmd *Register) error {
	if token != "" {
		// A crash between the two costs one use of the token, and never gives one too many.
		if _, err := f.do.Do(ctx, newKey(), &UseRegistrationToken{Token: token}); err != nil {
			return err
		}
	}
	_, err := f.do.Do(ctx, newKey(), cmd)
	if token != "" && (mxerr.Is(err, mxerr.UserInUse) || mxerr.Is(err, mxerr.Forbidden)) {
		if _, back := f.do.Do(ctx, newKey(), &UseRegistrationToken{Token: token, Return: true}); back != nil {
			err = errors.Join(err, back)
		}
	}
	return err
}

// LoginPassword makes a session for whoever knows the password. The answer does not tell whether the account exists.
func (f *Front) LoginPassword(ctx context.Context, user, password string, d NewDevice) (LoggedIn, error) {
	u, err := f.named(ctx, user)
	if err != nil {
		return LoggedIn{}, err
	}
	return f.loginPassword(ctx, u, password, d)
}

func (f *Front) loginPassword(ctx context.Context, u id.UserID, password string, d NewDevice) (LoggedIn, error) {
	a, err := f.verify(ctx, u, password)
	if err != nil {
		return LoggedIn{}, err
	}
	cmd := Login{UserID: string(u), OldPasswordHash: a.PasswordHash}
	if a.stale {
		if cmd.NewPasswordHash, err = f.hash(ctx, password); err != nil {
			return LoggedIn{}, err
		}
	}
	s, in, err := f.session(u, d)
	if err != nil {
		return LoggedIn{}, err
	}
	cmd.Session = *s
	if _, err := f.do.Do(ctx, newKey(), &cmd); err != nil {
		return LoggedIn{}, err
	}
	return in, nil
}

type verified struct {
	accountdb.Account
	stale bool
}

func (f *Front) verify(ctx context.Context, u id.UserID, password string) (verified, error) {
	refused := mxerr.New(mxerr.Forbidden, "Invalid username or password")
	if f.guesses != nil {
		if err := f.guesses.MayGuess(ctx, u); err != nil {
			return verified{}, err
		}
	}
	a, ok, err := f.db.Account(ctx, f.shards.OfUser(string(u)), string(u))
	if err != nil {
		return verified{}, err
	}
	right, stale, err := f.passwords.Verify(ctx, a.PasswordHash, password) // also without an account: it takes as long
	switch {
	case err != nil:
		return verified{}, err
	case !ok || !right:
		if f.guesses != nil {
			f.guesses.Guessed(ctx, u)
		}
		return verified{}, refused
	case a.Deactivated:
		return verified{}, mxerr.New(mxerr.UserDeactivated, "This account has been deactivated")
	}
	return verified{a, stale}, nil
}

// VerifyPassword refuses a password that is not the user's.
func (f *Front) VerifyPassword(ctx context.Context, u id.UserID, password string) error {
	_, err := f.verify(ctx, u, password)
	return err
}

// SetPassword replaces a user's password; with logoutOthers every device but keep is removed.
func (f *Front) SetPassword(ctx context.Context, u id.UserID, password string, logoutOthers bool, keep string) error {
	hash, err := f.hash(ctx, password)
	if err != nil {
		return err
	}
	_, err = f.do.Do(ctx, newKey(), &SetPassword{UserID: string(u), PasswordHash: hash, LogoutOthers: logoutOthers, Keep: keep})
	return err
}

// LoginAs makes a session for whoever may act as the user.
func (f *Front) LoginAs(ctx context.Context, u id.UserID, d NewDevice) (LoggedIn, error) {
	s, in, err := f.session(u, d)
	if err != nil {
		return LoggedIn{}, err
	}
	if _, err := f.do.Do(ctx, newKey(), &Login{UserID: string(u), Session: *s}); err != nil {
		return LoggedIn{}, err
	}
	return in, nil
}

// LocalUser resolves what a client gives as user: a localpart or a full id of this server.
func (f *Front) LocalUser(user string) (id.UserID, error) { return f.localUser(user) }

// Do has a command done that needs no secrets made.
func (f *Front) Do(ctx context.Context, cmd Command) (Answer, error) {
	return f.do.Do(ctx, newKey(), cmd)
}

// UIA gives the interactive authentication sessions.
func (f *Front) UIA() *UIA { return f.uia }

// Config gives how registration is set.
func (f *Front) Config() Config { return f.cfg }

// TokenValid tells whether a registration token may be used.
func (f *Front) TokenValid(ctx context.Context, token string) (bool, error) {
	t, ok, err := f.db.RegistrationToken(ctx, f.shards.Of(token), token)
	if err != nil || !ok {
		return false, err
	}
	return TokenUsable(&t, f.now().UnixMilli()), nil
}

// nonceLifetime is how long a nonce of shared-secret registration is good.
const nonceLifetime = time.Minute

// Nonce gives a nonce for [Front.RegisterShared]. It is signed and says when it ends; it is not remembered, since a request
// that is played again finds the name taken.
func (f *Front) Nonce() string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], uint64(f.now().Add(nonceLifetime).UnixMilli()))
	_, _ = rand.Read(b[8:])
	return hex.EncodeToString(append(b[:], f.nonceMAC(b[:])...))
}

func (f *Front) nonceMAC(b []byte) []byte {
	mac := hmac.New(sha1.New, f.secret)
	_, _ = mac.Write([]byte("registration nonce"))
	_, _ = mac.Write(b)
	return mac.Sum(nil)
}

func (f *Front) nonceGood(nonce string) bool {
	b, err := hex.DecodeString(nonce)
	return err == nil && len(b) == 16+sha1.Size && hmac.Equal(b[16:], f.nonceMAC(b[:16])) &&
		f.now().UnixMilli() <= int64(binary.BigEndian.Uint64(b[:8]))
}

// RegisterShared makes an account for whoever knows the shared secret: mac is the HMAC-SHA1, in hex, of nonce, name,
// password, "admin" or "notadmin" and, if given, the user type, with NUL between them.
func (f *Front) RegisterShared(ctx context.Context, nonce, userType, mac string, n NewUser) (LoggedIn, error) {
	if f.cfg.SharedSecret == "" {
		return LoggedIn{}, mxerr.New(mxerr.Unknown, "Shared secret registration is not enabled").WithStatus(400)
	}
	if !f.nonceGood(nonce) {
		return LoggedIn{}, mxerr.New(mxerr.Unknown, "Unrecognised nonce").WithStatus(400)
	}
	admin := "notadmin"
	if n.Admin {
		admin = "admin"
	}
	parts := []string{nonce, n.Localpart, n.Password, admin}
	if userType != "" {
		parts = append(parts, userType)
	}
	want := hmac.New(sha1.New, []byte(f.cfg.SharedSecret))
	_, _ = want.Write([]byte(strings.Join(parts, "\x00")))
	got, err := hex.DecodeString(mac)
	if err != nil || !hmac.Equal(got, want.Sum(nil)) {
		return LoggedIn{}, mxerr.New(mxerr.Forbidden, "HMAC incorrect")
	}
	return f.Register(ctx, n)
}

// localUser resolves what a client gives as user at login: a localpart or a full id of this server.
func (f *Front) localUser(user string) (id.UserID, error) {
	if !strings.HasPrefix(user, "@") {
		user = "@" + user + ":" + string(f.server)
	}
	u, err := id.ParseUserID(user)
	if err != nil || u.Server() != f.server {
		return "", mxerr.New(mxerr.Forbidden, "Invalid username or password")
	}
	return u, nil
}

// hash hashes a new password that may be used.
func (f *Front) hash(ctx context.Context, password string) (string, error) {
	switch {
	case password == "":
		return "", mxerr.New(mxerr.WeakPassword, "The password is empty")
	case len(password) > maxPasswordBytes:
		return "", mxerr.Newf(mxerr.InvalidParam, "The password is longer than %d bytes", maxPasswordBytes)
	}
	return f.passwords.Hash(ctx, password)
}

func (f *Front) session(u id.UserID, d NewDevice) (*NewSession, LoggedIn, error) {
	if d.DeviceID == "" {
		d.DeviceID = newDeviceID()
	} else if _, err := id.ParseDeviceID(d.DeviceID); err != nil {
		return nil, LoggedIn{}, mxerr.New(mxerr.InvalidParam, "Invalid device_id").WithCause(err)
	}
	if err := CheckDisplayName(d.DisplayName); err != nil {
		return nil, LoggedIn{}, err
	}
	in := LoggedIn{
		UserID: string(u), DeviceID: d.DeviceID, AccessToken: newToken(accessPrefix, u.Localpart()), ExpiresIn: f.cfg.Lifetimes.Access,
	}
	s := &NewSession{
		DeviceID: d.DeviceID, DisplayName: d.DisplayName, TokenHash: HashToken(in.AccessToken),
		IP: d.IP, UserAgent: clip(d.UserAgent, 256),
	}
	if d.Refresh {
		s.Line = newLine()
		in.RefreshToken, in.ExpiresIn = f.newRefreshToken(u.Localpart(), s.Line), f.cfg.Lifetimes.Refreshable
		hash := HashToken(in.RefreshToken)
		s.RefreshHash, s.RefreshExpires = &hash, f.ends(f.cfg.Lifetimes.Refresh)
	}
	s.Expires = f.ends(in.ExpiresIn)
	return s, in, nil
}

// maxDisplayName bounds a device's display name, in bytes.
const maxDisplayName = 100

// CheckDisplayName refuses a name that no device can have.
func CheckDisplayName(s string) error {
	switch {
	case len(s) > maxDisplayName:
		return mxerr.Newf(mxerr.TooLarge, "The device's display name is longer than %d bytes", maxDisplayName)
	case strings.IndexByte(s, 0) >= 0: // PostgreSQL's texts cannot hold it
		return mxerr.New(mxerr.InvalidParam, "The device's display name holds U+0000")
	}
	return nil
}

// clip makes of a header's text one that can be stored.
func clip(s string, n int) string { return strings.ToValidUTF8(s[:min(n, len(s))], "") }

// newKey gives a fresh idempotency key.
func newKey() []byte {
	k := make([]byte, 16)
	_, _ = rand.Read(k)
	return k
}

func randomLocalpart() string {
	var b [10]byte
	_, _ = rand.Read(b[:])
	return fmt.Sprintf("u%x", b)
}
