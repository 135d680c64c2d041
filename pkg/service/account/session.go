package account

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
)

// maxDevices bounds the devices of one account.
const maxDevices = 1000

// sessionEntry is the log entry that tells every worker of a change to a user's devices or tokens.
func sessionEntry(userID string, ch entry.SessionChange, devices []string, void [][]byte) (entry.Entry, error) {
	return entry.Session(userID, &entry.SessionBody{Change: ch, DeviceIds: devices, VoidTokens: void})
}

// newSession adds the rows of a new device (or of an old one that logs in again, whose tokens are void then) and its token.
func (h *Host) newSession(ctx context.Context, s shard.ID, c *change, userID string, n *NewSession, fresh bool) error {
	now := h.now().UnixMilli()
	var void [][]byte
	dev := accountdb.Device{
		UserID: userID, DeviceID: n.DeviceID, DisplayName: n.DisplayName, Created: now, LastSeen: now,
		LastSeenIP: n.IP, UserAgent: n.UserAgent, Entry: len(c.Entries),
	}
	kind := entry.SessionAdded
	if !fresh {
		old, exists, err := h.db.Device(ctx, s, userID, n.DeviceID)
		if err != nil {
			return err
		}
		if exists {
			kind, dev.Created = entry.SessionUpdated, old.Created
			if dev.DisplayName == "" {
				dev.DisplayName = old.DisplayName
			}
			tokens, err := h.db.TokenHashes(ctx, s, userID)
			if err != nil {
				return err
			}
			void = tokens[n.DeviceID]
			// Removing the device removes its tokens; the rows are written in this order.
			c.Rows = append(c.Rows, &accountdb.DeviceGone{UserID: userID, DeviceID: n.DeviceID, KeepKeys: true})
		} else if devices, err := h.db.Devices(ctx, s, userID); err != nil {
			return err
		} else if len(devices) >= maxDevices {
			return mxerr.New(mxerr.ResourceLimitExceeded, "This account has too many devices; log out of some first")
		}
	}
	e, err := sessionEntry(userID, kind, []string{n.DeviceID}, void)
	if err != nil {
		return err
	}
	c.Rows = append(c.Rows, &dev, &accountdb.AccessToken{
		Hash: n.TokenHash, UserID: userID, DeviceID: n.DeviceID, Expires: n.Expires, Created: now, Entry: len(c.Entries),
	})
	if n.RefreshHash != nil {
		c.Rows = append(c.Rows, &accountdb.RefreshToken{
			Hash: *n.RefreshHash, UserID: userID, DeviceID: n.DeviceID, Access: n.TokenHash, Expires: n.RefreshExpires, Created: now,
			Line: n.Line.ID, N: n.Line.N,
		})
	}
	c.Entries = append(c.Entries, e)
	c.Answer.DeviceID, c.Answer.Revoked = n.DeviceID, len(void) > 0
	if kind == entry.SessionAdded {
		return listChanged(c, userID, &entry.DeviceListBody{Changed: []string{n.DeviceID}})
	}
	return nil
}

// listChanged notes that what others see of the user's devices changed.
func listChanged(c *change, userID string, body *entry.DeviceListBody) error {
	e, err := entry.DeviceList(userID, body)
	if err != nil {
		return err
	}
	c.Rows = append(c.Rows, &accountdb.DeviceList{UserID: userID, Entry: len(c.Entries)})
	c.Entries = append(c.Entries, e)
	return nil
}

func (h *Host) register(ctx context.Context, s shard.ID, r *Register) (change, error) {
	if r.Guest != nil {
		return h.upgradeGuest(ctx, s, r)
	}
	var c change
	if exists, err := h.db.AccountExists(ctx, s, r.UserID); err != nil {
		return c, err
	} else if exists {
		return c, mxerr.New(mxerr.UserInUse, "The desired user ID is already taken")
	}
	name, err := json.Marshal(r.DisplayName)
	if err != nil {
		return c, err
	}
	c.Rows = append(c.Rows, &accountdb.Account{
		UserID: r.UserID, PasswordHash: r.PasswordHash, Kind: r.Kind, Admin: r.Admin, Created: h.now().UnixMilli(), New: true,
	})
	e, err := entry.Profile(r.UserID, &entry.ProfileBody{Field: "displayname", Value: name})
	if err != nil {
		return c, err
	}
	c.Entries = append(c.Entries, e)
	c.Rows = append(c.Rows, &accountdb.Profile{UserID: r.UserID, Field: "displayname", Value: name})
	h.comesWith(&c, r)
	if r.Session != nil {
		if err := h.newSession(ctx, s, &c, r.UserID, r.Session, true); err != nil {
			return change{}, err
		}
	}
	return c, nil
}

// comesWith adds the rows of what comes with an account.
func (h *Host) comesWith(c *change, r *Register) {
	if r.Address != nil {
		c.Rows = append(c.Rows, h.threepid(r.UserID, r.Address))
	}
	if r.External != nil {
		c.Rows = append(c.Rows, &accountdb.ExternalLogin{
			UserID: r.UserID, Provider: r.External.Provider, Subject: r.External.Subject, Created: h.now().UnixMilli(),
		})
	}
	h.consents(c, r.UserID, r.Consents)
}

// guest refuses a token that is not of a guest of this name who is there.
func guest(x *accountdb.Session, ok bool, user string, nowMs int64) error {
	if !ok || x.UserID != user || x.Kind != accountdb.KindGuest || x.Deactivated || x.Locked || (x.Expires != 0 && x.Expires <= nowMs) {
		return mxerr.New(mxerr.Forbidden, "The guest_access_token is not of a guest with this user name")
	}
	return nil
}

// upgradeGuest makes a guest's account a user's (spec: "Guest Access"). It stays in its rooms and keeps its profile. The tokens from before, which nobody
// had to prove anything for, end; so do the devices, but for one that the new session goes on with.
func (h *Host) upgradeGuest(ctx context.Context, s shard.ID, r *Register) (change, error) {
	x, ok, err := h.db.SessionByToken(ctx, s, *r.Guest)
	if err == nil {
		err = guest(&x, ok, r.UserID, h.now().UnixMilli())
	}
	if err != nil {
		return change{}, err
	}
	a, _, err := h.db.Account(ctx, s, r.UserID)
	if err != nil {
		return change{}, err
	}
	ending := &Logout{UserID: r.UserID, All: true}
	if r.Session != nil {
		ending.Except = r.Session.DeviceID
	}
	c, err := h.logout(ctx, s, ending)
	if err != nil {
		return change{}, err
	}
	c.Answer = Answer{}
	a.PasswordHash, a.Kind, a.Admin = r.PasswordHash, r.Kind, r.Admin
	c.Rows = append(c.Rows, &a)
	h.comesWith(&c, r)
	if r.Session != nil {
		if err := h.newSession(ctx, s, &c, r.UserID, r.Session, false); err != nil {
			return change{}, err
		}
	}
	return c, nil
}

// standing refuses what an account in its present state may not begin.
func standing(a *accountdb.Account, ok bool) error {
	switch {
	case !ok:
		return mxerr.New(mxerr.Forbidden, "Invalid username or password")
	case a.Deactivated:
		return mxerr.New(mxerr.UserDeactivated, "This account has been deactivated")
	}
	return nil
}

// mayEnter refuses a new session.
func mayEnter(a *accountdb.Account, ok bool) error {
	if err := standing(a, ok); err != nil {
		return err
	}
	if a.Locked {
		return mxerr.New(mxerr.UserLocked, "This account has been locked").With("soft_logout", true)
	}
	return nil
}

func (h *Host) login(ctx context.Context, s shard.ID, l *Login) (change, error) {
	var c change
	a, ok, err := h.db.Account(ctx, s, l.UserID)
	if err != nil {
		return c, err
	}
	if err := mayEnter(&a, ok); err != nil {
		return c, err
	}
	if a.PasswordHash != l.OldPasswordHash && l.OldPasswordHash != "" {
		// The password was changed between its verification and now: what was shown is no longer the password.
		return c, mxerr.New(mxerr.Forbidden, "Invalid username or password")
	}
	if err := h.newSession(ctx, s, &c, l.UserID, &l.Session, false); err != nil {
		return change{}, err
	}
	if l.NewPasswordHash != "" {
		a.PasswordHash = l.NewPasswordHash
		c.Rows = append(c.Rows, &a)
	}
	return c, nil
}

func (h *Host) logout(ctx context.Context, s shard.ID, l *Logout) (change, error) {
	var c change
	tokens, err := h.db.TokenHashes(ctx, s, l.UserID)
	if err != nil {
		return c, err
	}
	if l.TokenHash != nil {
		e, err := sessionEntry(l.UserID, entry.SessionRemoved, nil, [][]byte{l.TokenHash[:]})
		if err != nil {
			return c, err
		}
		c.Entries = append(c.Entries, e)
		c.Rows = append(c.Rows, &accountdb.AccessTokenGone{UserID: l.UserID, Hash: *l.TokenHash})
		return c, nil
	}
	devices, err := h.db.Devices(ctx, s, l.UserID)
	if err != nil {
		return c, err
	}
	var gone []string
	var void [][]byte
	for _, d := range devices {
		if (l.All && d.DeviceID != l.Except) || slices.Contains(l.Devices, d.DeviceID) {
			gone = append(gone, d.DeviceID)
			void = append(void, tokens[d.DeviceID]...)
			c.Rows = append(c.Rows, &accountdb.DeviceGone{UserID: l.UserID, DeviceID: d.DeviceID})
		}
	}
	if l.All && l.Except == "" {
		for _, hash := range tokens[""] { // tokens without a device
			void = append(void, hash)
			c.Rows = append(c.Rows, &accountdb.AccessTokenGone{UserID: l.UserID, Hash: [32]byte(hash)})
		}
	}
	if len(c.Rows) == 0 {
		c.Answer.Unchanged = true
		return c, nil
	}
	e, err := sessionEntry(l.UserID, entry.SessionRemoved, gone, void)
	if err != nil {
		return change{}, err
	}
	c.Entries = append(c.Entries, e)
	if len(gone) == 0 {
		return c, nil
	}
	if err := h.forgetSettings(ctx, s, l.UserID, gone, &c); err != nil {
		return change{}, err
	}
	return c, listChanged(&c, l.UserID, &entry.DeviceListBody{Gone: gone})
}

// typeLocalSettings begins the account data that holds what is set for one device (MSC3890).
const typeLocalSettings = "org.matrix.msc3890.local_notification_settings."

// forgetSettings deletes what was set for devices that are gone.
func (h *Host) forgetSettings(ctx context.Context, s shard.ID, user string, devices []string, c *change) error {
	types := make([]string, len(devices))
	for i, d := range devices {
		types[i] = typeLocalSettings + d
	}
	rows, err := h.db.DataOf(ctx, []shard.ID{s}, []string{user}, types...)
	if err != nil {
		return err
	}
	for i := range rows {
		if string(rows[i].Content) == deleted {
			continue
		}
		d, err := h.setAccountData(&SetAccountData{UserID: user, Type: rows[i].Type, Content: []byte(deleted)})
		if err != nil {
			return err
		}
		c.Entries, c.Rows = append(c.Entries, d.Entries...), append(c.Rows, d.Rows...)
	}
	return nil
}

func (h *Host) setPassword(ctx context.Context, s shard.ID, p *SetPassword) (change, error) {
	a, ok, err := h.db.Account(ctx, s, p.UserID)
	if err != nil {
		return change{}, err
	}
	if err := standing(&a, ok); err != nil {
		return change{}, err
	}
	var c change
	if p.LogoutOthers {
		if c, err = h.logout(ctx, s, &Logout{UserID: p.UserID, All: true, Except: p.Keep}); err != nil {
			return change{}, err
		}
		c.Answer.Unchanged = false
	}
	a.PasswordHash = p.PasswordHash
	if len(c.Entries) == 0 {
		e, err := sessionEntry(p.UserID, entry.SessionUpdated, nil, nil)
		if err != nil {
			return change{}, err
		}
		c.Entries = append(c.Entries, e)
	}
	c.Rows = append(c.Rows, &a)
	return c, nil
}

func (h *Host) setDevice(ctx context.Context, s shard.ID, d *SetDevice) (change, error) {
	var c change
	dev, ok, err := h.db.Device(ctx, s, d.UserID, d.DeviceID)
	if err != nil {
		return c, err
	}
	if !ok {
		return c, mxerr.New(mxerr.NotFound, "Unknown device")
	}
	e, err := sessionEntry(d.UserID, entry.SessionUpdated, []string{d.DeviceID}, nil)
	if err != nil {
		return c, err
	}
	dev.DisplayName = d.DisplayName
	c.Entries, c.Rows = append(c.Entries, e), append(c.Rows, &dev)
	return c, listChanged(&c, d.UserID, &entry.DeviceListBody{Changed: []string{d.DeviceID}})
}
