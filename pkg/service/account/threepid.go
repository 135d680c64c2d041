package account

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/mail"
	"strings"
	"time"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
)

// The media of addresses.
const (
	MediumEmail  = "email"
	MediumMSISDN = "msisdn"
)

// maxThreepids bounds the addresses of one account, and where they are bound.
const maxThreepids = 50

// Threepid is an address that a user has.
type Threepid = accountdb.Threepid

// Bind is an address that is bound to a user at an identity server.
type Bind = accountdb.Bind

// AddThreepid gives a user an address that was proven. Refused with M_NOT_FOUND without an account.
type AddThreepid struct {
	UserID string `json:"user_id"`
	Proven
}

// RemoveThreepid takes an address from a user.
type RemoveThreepid struct {
	UserID  string `json:"user_id"`
	Medium  string `json:"medium"`
	Address string `json:"address"`
}

// NoteBind notes that an address was bound at an identity server, or unbound.
type NoteBind struct {
	UserID   string `json:"user_id"`
	Medium   string `json:"medium"`
	Address  string `json:"address"`
	IDServer string `json:"id_server"`
	Gone     bool   `json:"gone,omitempty"`
}

// LinkExternal notes as whom an outside provider knows a user.
type LinkExternal struct {
	UserID string `json:"user_id"`
	External
}

// External is somebody as an outside provider knows them.
type External struct {
	Provider string `json:"provider"`
	Subject  string `json:"subject"`
}

// Consent is a version of a policy to which somebody agrees.
type Consent struct {
	Policy  string `json:"policy"`
	Version string `json:"version"`
}

func (c *AddThreepid) shardKey() (string, bool)    { return c.UserID, true }
func (c *RemoveThreepid) shardKey() (string, bool) { return c.UserID, true }
func (c *NoteBind) shardKey() (string, bool)       { return c.UserID, true }
func (c *LinkExternal) shardKey() (string, bool)   { return c.UserID, true }

// Method implements [Command].
func (c *AddThreepid) Method() string { return "account.add_threepid" }

// Method implements [Command].
func (c *RemoveThreepid) Method() string { return "account.remove_threepid" }

// Method implements [Command].
func (c *NoteBind) Method() string { return "account.note_bind" }

// Method implements [Command].
func (c *LinkExternal) Method() string { return "account.link_external" }

// existing refuses to change an account that is not there, or has ended.
func (h *Host) existing(ctx context.Context, s shard.ID, userID string) error {
	a, ok, err := h.db.Account(ctx, s, userID)
	switch {
	case err != nil:
		return err
	case !ok || a.Deactivated:
		return mxerr.New(mxerr.NotFound, "Unknown user")
	}
	return nil
}

func (h *Host) addThreepid(ctx context.Context, s shard.ID, a *AddThreepid) (change, error) {
	if err := h.existing(ctx, s, a.UserID); err != nil {
		return change{}, err
	}
	all, err := h.db.Threepids(ctx, s, a.UserID)
	switch {
	case err != nil:
		return change{}, err
	case len(all) >= maxThreepids:
		return change{}, mxerr.New(mxerr.ResourceLimitExceeded, "This account has too many addresses")
	}
	return change{Rows: []entry.Row{h.threepid(a.UserID, &a.Proven)}}, nil
}

func (h *Host) threepid(user string, p *Proven) *accountdb.Threepid {
	return &accountdb.Threepid{UserID: user, Medium: p.Medium, Address: p.Address, ValidatedAt: p.ValidatedAt, AddedAt: h.now().UnixMilli()}
}

func (h *Host) removeThreepid(r *RemoveThreepid) (change, error) {
	return change{Rows: []entry.Row{&accountdb.ThreepidGone{UserID: r.UserID, Medium: r.Medium, Address: r.Address}}}, nil
}

func (h *Host) noteBind(ctx context.Context, s shard.ID, n *NoteBind) (change, error) {
	b := accountdb.Bind{UserID: n.UserID, Medium: n.Medium, Address: n.Address, IDServer: n.IDServer}
	if n.Gone {
		gone := accountdb.BindGone(b)
		return change{Rows: []entry.Row{&gone}}, nil
	}
	if err := h.existing(ctx, s, n.UserID); err != nil {
		return change{}, err
	}
	all, err := h.db.Binds(ctx, s, n.UserID)
	switch {
	case err != nil:
		return change{}, err
	case len(all) >= maxThreepids:
		return change{}, mxerr.New(mxerr.ResourceLimitExceeded, "Too many addresses of this account are bound")
	}
	return change{Rows: []entry.Row{&b}}, nil
}

func (h *Host) linkExternal(ctx context.Context, s shard.ID, l *LinkExternal) (change, error) {
	if err := h.existing(ctx, s, l.UserID); err != nil {
		return change{}, err
	}
	return change{Rows: []entry.Row{
		&accountdb.ExternalLogin{UserID: l.UserID, Provider: l.Provider, Subject: l.Subject, Created: h.now().UnixMilli()},
	}}, nil
}

// maxAddress bounds an address, in bytes.
const maxAddress = 254

// EmailAddress reads an e-mail address as it is stored: in small letters, since nobody has two that differ in that. Refused with
// M_INVALID_PARAM.
func EmailAddress(s string) (string, error) {
	a, err := mail.ParseAddress(s)
	bad := mxerr.New(mxerr.InvalidParam, "This is no e-mail address")
	switch {
	case err != nil:
		return "", bad.WithCause(err)
	case len(s) > maxAddress || a.Name != "" || a.Address != s || strings.ContainsAny(s, "\"<>(),;:\\[] \x7f") || !strings.Contains(s, "@"):
		return "", bad
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f { // what is written otherwise needs servers that know SMTPUTF8
			return "", bad
		}
	}
	return strings.ToLower(s), nil
}

// address reads an address of either medium as it is stored.
func address(medium, s string) (string, error) {
	switch medium {
	case MediumEmail:
		return EmailAddress(s)
	case MediumMSISDN:
		if s == "" || len(s) > 32 || strings.ContainsFunc(s, func(r rune) bool { return r < '0' || r > '9' }) {
			return "", mxerr.New(mxerr.InvalidParam, "This is no phone number")
		}
		return s, nil
	}
	return "", mxerr.New(mxerr.ThreepidMediumNotSupported, "Addresses of this medium are not known here")
}

// Address reads an address as it is stored. Refused with M_INVALID_PARAM and M_THREEPID_MEDIUM_NOT_SUPPORTED.
func Address(medium, s string) (string, error) { return address(medium, s) }

// Threepids gives a user's addresses.
func (f *Front) Threepids(ctx context.Context, u id.UserID) ([]Threepid, error) {
	return f.db.Threepids(ctx, f.shards.OfUser(string(u)), string(u))
}

// Binds gives where a user's addresses are bound.
func (f *Front) Binds(ctx context.Context, u id.UserID) ([]Bind, error) {
	return f.db.Binds(ctx, f.shards.OfUser(string(u)), string(u))
}

// AddressOwner tells whose address it is.
func (f *Front) AddressOwner(ctx context.Context, medium, address string) (u id.UserID, ok bool, err error) {
	s, ok, err := f.db.ThreepidOwner(ctx, medium, address)
	return id.UserID(s), ok, err
}

// claimed does what gives to an owner something that one only may have, while nobody else can be given it.
func (f *Front) claimed(ctx context.Context, of, owner string, taken error, check func() (free bool, err error), give func() error) error {
	a, err := f.do.Do(ctx, newKey(), &Claim{Of: of, Owner: owner, Expires: f.ends(time.Minute)})
	switch {
	case err != nil:
		return err
	case a.Held:
		return taken
	}
	free, err := check()
	if err == nil && !free {
		err = taken
	}
	if err == nil {
		err = give()
	}
	_, back := f.do.Do(ctx, newKey(), &Claim{Of: of, Owner: owner, Release: true})
	if err != nil {
		return errors.Join(err, back)
	}
	return nil // what is not given back ends by itself
}

func inUse() *mxerr.Error {
	return mxerr.New(mxerr.ThreepidInUse, "The address belongs to an account already")
}

// withAddress does what gives a proven address to a user.
func (f *Front) withAddress(ctx context.Context, u id.UserID, p *Proven, give func() error) error {
	return f.claimed(ctx, "address:"+p.Medium+":"+p.Address, string(u), inUse(), func() (bool, error) {
		owner, ok, err := f.AddressOwner(ctx, p.Medium, p.Address)
		return !ok || owner == u, err
	}, give)
}

// AddThreepid gives a user the address that was proven in a session. Refused with M_THREEPID_AUTH_FAILED and M_THREEPID_IN_USE.
func (f *Front) AddThreepid(ctx context.Context, u id.UserID, c Credentials) error {
	p, err := f.Proven(ctx, c, PurposeAdd)
	if err != nil {
		return err
	}
	return f.withAddress(ctx, u, &p, func() error {
		if _, err := f.TakeProven(ctx, c, PurposeAdd); err != nil {
			return err
		}
		_, err := f.do.Do(ctx, newKey(), &AddThreepid{UserID: string(u), Proven: p})
		return err
	})
}

// ResetPassword sets the password of whoever has the address that was proven in a session. Refused with M_THREEPID_AUTH_FAILED, also where nobody
// has it.
func (f *Front) ResetPassword(ctx context.Context, c Credentials, password string, logoutOthers bool) error {
	p, err := f.Proven(ctx, c, PurposeReset)
	if err != nil {
		return err
	}
	u, ok, err := f.AddressOwner(ctx, p.Medium, p.Address)
	switch {
	case err != nil:
		return err
	case !ok:
		return mxerr.New(mxerr.ThreepidAuthFailed, "No account has this address")
	}
	hash, err := f.hash(ctx, password)
	if err != nil {
		return err
	}
	if _, err := f.TakeProven(ctx, c, PurposeReset); err != nil { // of two at once, one goes on
		return err
	}
	_, err = f.do.Do(ctx, newKey(), &SetPassword{UserID: string(u), PasswordHash: hash, LogoutOthers: logoutOthers})
	return err
}

// nobody stands for an account that is not there, so that looking for its password takes as long. No user can have this name.
func (f *Front) nobody(medium, address string) id.UserID {
	sum := sha256.Sum256([]byte(medium + "\x00" + address))
	return id.UserID("@NOBODY!" + hex.EncodeToString(sum[:16]) + ":" + string(f.server))
}

// LoginAddress is [Front.LoginPassword] by an address that the user has. The answer does not tell whether anybody has it.
func (f *Front) LoginAddress(ctx context.Context, medium, addr, password string, d NewDevice) (LoggedIn, error) {
	u, err := f.Addressed(ctx, medium, addr)
	if err != nil {
		return LoggedIn{}, err
	}
	return f.loginPassword(ctx, u, password, d)
}

// Addressed gives the user who has an address, or one that cannot be. Refused with M_INVALID_PARAM and M_THREEPID_MEDIUM_NOT_SUPPORTED.
func (f *Front) Addressed(ctx context.Context, medium, addr string) (id.UserID, error) {
	addr, err := address(medium, addr)
	if err != nil {
		return "", err
	}
	u, ok, err := f.AddressOwner(ctx, medium, addr)
	if err == nil && !ok {
		u = f.nobody(medium, addr)
	}
	return u, err
}

// External gives the user whom a provider knows as somebody.
func (f *Front) External(ctx context.Context, e External) (u id.UserID, ok bool, err error) {
	s, ok, err := f.db.ExternalOwner(ctx, e.Provider, e.Subject)
	return id.UserID(s), ok, err
}

// Externals gives as whom providers know a user.
func (f *Front) Externals(ctx context.Context, u id.UserID) ([]External, error) {
	all, err := f.db.ExternalLogins(ctx, f.shards.OfUser(string(u)), string(u))
	out := make([]External, len(all))
	for i, e := range all {
		out[i] = External{e.Provider, e.Subject}
	}
	return out, err
}

// LinkExternal has an existing user log in as somebody at a provider. Refused with M_USER_IN_USE if another does.
func (f *Front) LinkExternal(ctx context.Context, u id.UserID, e External) error {
	return f.withExternal(ctx, u, e, func() error {
		_, err := f.do.Do(ctx, newKey(), &LinkExternal{UserID: string(u), External: e})
		return err
	})
}

func (f *Front) withExternal(ctx context.Context, u id.UserID, e External, give func() error) error {
	taken := mxerr.New(mxerr.UserInUse, "Another account logs in as this user of the provider")
	return f.claimed(ctx, "external:"+e.Provider+":"+e.Subject, string(u), taken, func() (bool, error) {
		owner, ok, err := f.External(ctx, e)
		return !ok || owner == u, err
	}, give)
}

// HasPassword tells whether a user can prove who it is by a password.
func (f *Front) HasPassword(ctx context.Context, u id.UserID) (bool, error) {
	a, ok, err := f.db.Account(ctx, f.shards.OfUser(string(u)), string(u))
	return ok && a.PasswordHash != "", err
}
