package account

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
)

// Introspector asks an outside service whom an access token speaks for. Its error is ErrInactive for a token that is not good; any other
// means that nothing is known.
type Introspector interface {
	Introspect(ctx context.Context, token string) (Introspected, error)
}

// Introspected is what an outside service says of a good access token.
type Introspected struct {
	Localpart string
	DeviceID  string // empty: of no device
	// API tells that the token is for the client-server API at all.
	API   bool
	Admin bool
	// ExpiresIn is 0 if the token does not end by itself.
	ExpiresIn time.Duration
}

// ErrInactive is the refusal of an outside service.
var ErrInactive = errors.New("the token is not good, or no longer")

// introspectedFor is how long an answer of the outside service is believed at most. The service has devices removed when it ends a session,
// which is heard of at once.
const introspectedFor = 2 * time.Minute

// PutDevice makes a device without a token, or renames one that there is; an empty name leaves it.
type PutDevice struct {
	UserID      string `json:"user_id"`
	DeviceID    string `json:"device_id"`
	DisplayName string `json:"display_name,omitempty"`
}

// SyncDevices makes the devices of a user those named: it removes all others, and makes those that are missing.
type SyncDevices struct {
	UserID  string   `json:"user_id"`
	Devices []string `json:"devices"`
}

// Reactivate opens an account again that was deactivated. It has no password, device or room.
type Reactivate struct {
	UserID string `json:"user_id"`
}

// AllowReset lets a user replace the cross-signing keys without further proof for a while.
type AllowReset struct {
	UserID string `json:"user_id"`
	Until  int64  `json:"until"` // ms
}

func (c *AllowReset) shardKey() (string, bool)  { return c.UserID, true }
func (c *PutDevice) shardKey() (string, bool)   { return c.UserID, true }
func (c *SyncDevices) shardKey() (string, bool) { return c.UserID, true }
func (c *Reactivate) shardKey() (string, bool)  { return c.UserID, true }

// Method implements [Command].
func (c *AllowReset) Method() string { return "account.allow_reset" }

// Method implements [Command].
func (c *PutDevice) Method() string { return "account.put_device" }

// Method implements [Command].
func (c *SyncDevices) Method() string { return "account.sync_devices" }

// Method implements [Command].
func (c *Reactivate) Method() string { return "account.reactivate" }

// Delegate has an outside service asked about tokens, of which this server then makes none. put makes a device that the service speaks of
// for the first time. It must be called before the first Session.
func (s *Sessions) Delegate(in Introspector, put func(ctx context.Context, cmd *PutDevice) error) {
	s.outside, s.put = in, put
}

// delegated is Session where an outside service has the tokens.
func (s *Sessions) delegated(ctx context.Context, token string, hash [32]byte) (accountdb.Session, error) {
	x, ok := s.cache.get(hash)
	if ok && s.now().UnixMilli() >= x.Expires {
		s.cache.expire(hash)
		ok = false
	}
	if !ok {
		var err error
		if x, err = s.introspect(ctx, token, hash); errors.Is(err, ErrInactive) {
			return accountdb.Session{}, unknownToken(false).WithCause(err)
		} else if err != nil {
			return accountdb.Session{}, err
		}
	}
	if x.Deactivated {
		return accountdb.Session{}, unknownToken(false)
	}
	return x, nil
}

func (s *Sessions) introspect(ctx context.Context, token string, hash [32]byte) (accountdb.Session, error) {
	t, err := s.outside.Introspect(ctx, token)
	switch {
	case errors.Is(err, ErrInactive):
		return accountdb.Session{}, err
	case err != nil:
		return accountdb.Session{}, mxerr.New(mxerr.Unknown, "The authentication service cannot be asked about the access token now").
			WithStatus(503).WithCause(err)
	case !t.API:
		return accountdb.Session{}, errors.Join(ErrInactive, errors.New("the token is not for the client-server API"))
	}
	u, err := id.ParseUserID("@" + t.Localpart + ":" + s.server)
	if err != nil {
		return accountdb.Session{}, errors.Join(ErrInactive, err)
	}
	user, good := string(u), false
	x := accountdb.Session{UserID: user, DeviceID: t.DeviceID, Admin: t.Admin, Expires: s.believed(t.ExpiresIn)}
	loading := s.cache.begin(user)
	defer func() {
		if good {
			s.cache.end(loading, hash, x)
		} else {
			s.cache.abandon(loading)
		}
	}()
	a, ok, err := s.db.Account(ctx, s.shards.OfUser(user), user)
	switch {
	case err != nil:
		return x, err
	case !ok:
		return x, errors.Join(ErrInactive, errors.New("the service has not provisioned the user"))
	}
	x.Kind, x.Locked, x.Suspended, x.Deactivated = a.Kind, a.Locked, a.Suspended, a.Deactivated
	if t.DeviceID != "" && !a.Deactivated {
		_, ok, err := s.db.Device(ctx, s.shards.OfUser(user), user, t.DeviceID)
		if err == nil && !ok {
			err = s.put(ctx, &PutDevice{UserID: user, DeviceID: t.DeviceID})
		}
		if err != nil {
			return x, err
		}
	}
	good = true
	return x, nil
}

// believed gives until when an answer is believed, in ms.
func (s *Sessions) believed(expiresIn time.Duration) int64 {
	if expiresIn <= 0 || expiresIn > introspectedFor {
		expiresIn = introspectedFor
	}
	return s.now().Add(expiresIn).UnixMilli()
}

// present refuses a command on an account that there is not, or that is closed.
func (h *Host) present(ctx context.Context, s shard.ID, userID string) error {
	a, ok, err := h.db.Account(ctx, s, userID)
	switch {
	case err != nil:
		return err
	case !ok:
		return mxerr.New(mxerr.NotFound, "Unknown user")
	case a.Deactivated:
		return mxerr.New(mxerr.UserDeactivated, "This account has been deactivated")
	}
	return nil
}

func (h *Host) putDevice(ctx context.Context, s shard.ID, p *PutDevice) (change, error) {
	if err := h.present(ctx, s, p.UserID); err != nil {
		return change{}, err
	}
	old, exists, err := h.db.Device(ctx, s, p.UserID, p.DeviceID)
	switch {
	case err != nil:
		return change{}, err
	case exists && (p.DisplayName == "" || old.DisplayName == p.DisplayName):
		return change{Answer: Answer{Unchanged: true}}, nil
	case exists:
		return h.setDevice(ctx, s, &SetDevice{UserID: p.UserID, DeviceID: p.DeviceID, DisplayName: p.DisplayName})
	}
	devices, err := h.db.Devices(ctx, s, p.UserID)
	if err != nil {
		return change{}, err
	}
	c := change{Answer: Answer{DeviceID: p.DeviceID}}
	return c, h.addDevices(&c, p.UserID, p.DisplayName, len(devices), []string{p.DeviceID})
}

// addDevices adds devices that there are not yet.
func (h *Host) addDevices(c *change, userID, name string, has int, devices []string) error {
	if has+len(devices) > maxDevices {
		return mxerr.New(mxerr.ResourceLimitExceeded, "This account has too many devices; log out of some first")
	}
	now := h.now().UnixMilli()
	e, err := sessionEntry(userID, entry.SessionAdded, devices, nil)
	if err != nil {
		return err
	}
	for _, d := range devices {
		c.Rows = append(c.Rows, &accountdb.Device{
			UserID: userID, DeviceID: d, DisplayName: name, Created: now, LastSeen: now, Entry: len(c.Entries),
		})
	}
	c.Entries = append(c.Entries, e)
	return listChanged(c, userID, &entry.DeviceListBody{Changed: devices})
}

func (h *Host) syncDevices(ctx context.Context, s shard.ID, p *SyncDevices) (change, error) {
	if err := h.present(ctx, s, p.UserID); err != nil {
		return change{}, err
	}
	devices, err := h.db.Devices(ctx, s, p.UserID)
	if err != nil {
		return change{}, err
	}
	var gone []string
	has := make(map[string]bool, len(devices))
	for _, d := range devices {
		has[d.DeviceID] = true
		if !slices.Contains(p.Devices, d.DeviceID) {
			gone = append(gone, d.DeviceID)
		}
	}
	var missing []string
	for _, d := range p.Devices {
		if !has[d] {
			has[d], missing = true, append(missing, d)
		}
	}
	c, err := h.logout(ctx, s, &Logout{UserID: p.UserID, Devices: gone})
	c.Answer.Revoked = len(gone) > 0 // the service's tokens, which are not known here
	if err != nil || len(missing) == 0 {
		return c, err
	}
	c.Answer.Unchanged = false
	return c, h.addDevices(&c, p.UserID, "", len(devices)-len(gone), missing)
}

func (h *Host) reactivate(ctx context.Context, s shard.ID, p *Reactivate) (change, error) {
	a, ok, err := h.db.Account(ctx, s, p.UserID)
	switch {
	case err != nil:
		return change{}, err
	case !ok:
		return change{}, mxerr.New(mxerr.NotFound, "Unknown user")
	case !a.Deactivated:
		return change{Answer: Answer{Unchanged: true}}, nil
	}
	e, err := sessionEntry(p.UserID, entry.SessionUpdated, nil, nil)
	if err != nil {
		return change{}, err
	}
	a.Deactivated, a.Erased = false, false
	return change{Rows: []entry.Row{&a}, Entries: []entry.Entry{e}}, nil
}

func (h *Host) allowReset(ctx context.Context, s shard.ID, p *AllowReset) (change, error) {
	a, ok, err := h.db.Account(ctx, s, p.UserID)
	switch {
	case err != nil:
		return change{}, err
	case !ok || a.Deactivated:
		return change{}, mxerr.New(mxerr.NotFound, "Unknown user")
	}
	e, err := sessionEntry(p.UserID, entry.SessionUpdated, nil, nil)
	if err != nil {
		return change{}, err
	}
	a.ResetUntil = p.Until
	return change{Rows: []entry.Row{&a}, Entries: []entry.Entry{e}}, nil
}

// resetFor is how long cross-signing keys may be replaced after the authentication service has asked for it.
const resetFor = 10 * time.Minute

// AllowReset lets the user replace the cross-signing keys without further proof for ten minutes.
func (f *Front) AllowReset(ctx context.Context, u id.UserID) error {
	_, err := f.do.Do(ctx, newKey(), &AllowReset{UserID: string(u), Until: f.now().Add(resetFor).UnixMilli()})
	return err
}

// MayReset tells whether the user may replace the cross-signing keys without further proof now.
func (f *Front) MayReset(ctx context.Context, u id.UserID) (bool, error) {
	a, ok, err := f.db.Account(ctx, f.shards.OfUser(string(u)), string(u))
	return ok && a.ResetUntil > f.now().UnixMilli(), err
}

// Provision makes an account without a password or a device, if there is none.
func (f *Front) Provision(ctx context.Context, u id.UserID) (made bool, err error) {
	exists, err := f.db.AccountExists(ctx, f.shards.OfUser(string(u)), string(u))
	if err != nil || exists {
		return false, err
	}
	_, err = f.do.Do(ctx, newKey(), &Register{UserID: string(u), DisplayName: u.Localpart(), Kind: accountdb.KindUser})
	if mxerr.Is(err, mxerr.UserInUse) {
		return false, nil
	}
	return err == nil, err
}

// Standing is what is known of an account.
type Standing struct{ Locked, Suspended, Deactivated bool }

// Standing tells how an account stands, if there is one.
func (f *Front) Standing(ctx context.Context, u id.UserID) (s Standing, ok bool, err error) {
	a, ok, err := f.db.Account(ctx, f.shards.OfUser(string(u)), string(u))
	return Standing{a.Locked, a.Suspended, a.Deactivated}, ok, err
}
