package account

import (
	"context"

	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
)

// deactivate ends an account. Its rooms are left by whoever follows the log for that (package farewell), who may be interrupted and goes
// on; here is only what one transaction can hold.
func (h *Host) deactivate(ctx context.Context, s shard.ID, d *Deactivate) (change, error) {
	a, ok, err := h.db.Account(ctx, s, d.UserID)
	switch {
	case err != nil:
		return change{}, err
	case !ok:
		return change{}, mxerr.New(mxerr.NotFound, "Unknown user")
	case a.Deactivated && (a.Erased || !d.Erase):
		return change{Answer: Answer{Unchanged: true}}, nil
	}
	c, err := h.logout(ctx, s, &Logout{UserID: d.UserID, All: true})
	if err != nil {
		return change{}, err
	}
	var void [][]byte
	if len(c.Entries) > 0 {
		body, err := entry.DecodeSession(&c.Entries[0])
		if err != nil {
			return change{}, err
		}
		void = body.GetVoidTokens()
	}
	e, err := sessionEntry(d.UserID, entry.SessionDeactivated, nil, void)
	if err != nil {
		return change{}, err
	}
	c.Answer = Answer{}
	if len(c.Entries) > 0 {
		c.Entries[0] = e // what is gone of the device list stands behind it
	} else {
		c.Entries = []entry.Entry{e}
	}
	fields, err := h.db.Profile(ctx, s, d.UserID)
	if err != nil {
		return change{}, err
	}
	for field := range fields {
		if !d.Erase && field != "displayname" && field != "avatar_url" {
			continue // of the extended fields others may still want to know, such as where the user has gone
		}
		p, err := entry.Profile(d.UserID, &entry.ProfileBody{Field: field})
		if err != nil {
			return change{}, err
		}
		c.Rows = append(c.Rows, &accountdb.Profile{UserID: d.UserID, Field: field, Entry: len(c.Entries)})
		c.Entries = append(c.Entries, p)
	}
	a.PasswordHash, a.Deactivated, a.Erased, a.Admin = "", true, a.Erased || d.Erase, false
	c.Rows = append(c.Rows, &a, &accountdb.ThreepidsGone{UserID: d.UserID})
	if d.Erase {
		c.Rows = append(c.Rows, &accountdb.DataGone{UserID: d.UserID})
	}
	return c, nil
}

// setStanding locks or suspends an account, or lifts that. Sessions stay: the user goes on with them when it is lifted.
func (h *Host) setStanding(ctx context.Context, s shard.ID, p *SetStanding) (change, error) {
	a, ok, err := h.db.Account(ctx, s, p.UserID)
	switch {
	case err != nil:
		return change{}, err
	case !ok || a.Deactivated:
		return change{}, mxerr.New(mxerr.NotFound, "Unknown user")
	case a.Admin:
		return change{}, mxerr.New(mxerr.Forbidden, "Administrators can be neither locked nor suspended")
	}
	locked, suspended := a.Locked, a.Suspended
	if p.Locked != nil {
		a.Locked = *p.Locked
	}
	if p.Suspended != nil {
		a.Suspended = *p.Suspended
	}
	if a.Locked == locked && a.Suspended == suspended {
		return change{Answer: Answer{Unchanged: true}}, nil
	}
	e, err := sessionEntry(p.UserID, entry.SessionUpdated, nil, nil)
	if err != nil {
		return change{}, err
	}
	return change{Entries: []entry.Entry{e}, Rows: []entry.Row{&a}}, nil
}
