package account

import (
	"bytes"
	"context"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
)

// errUnknownRefresh is the refusal of a refresh token that is not good. The device is still there, so logging in again keeps it.
func errUnknownRefresh() *mxerr.Error {
	return mxerr.New(mxerr.UnknownToken, "Unrecognised refresh token").With("soft_logout", true)
}

// refresh exchanges a refresh token. The old pair stays good until one of the new is used (ConfirmRefresh, or the next refresh), for
// the answer with the new pair may be lost. A client that asks again for that reason gets another pair, and the lost one is void, so
// that a token that somebody else has read cannot make a second line of sessions beside the first.
func (h *Host) refresh(ctx context.Context, s shard.ID, r *Refresh) (change, error) {
	now := h.now().UnixMilli()
	t, ok, err := h.db.RefreshTokenByHash(ctx, s, r.Hash)
	switch {
	case err != nil:
		return change{}, err
	case !ok:
		return h.spent(ctx, s, r)
	case t.UserID != r.UserID || (t.Expires != 0 && t.Expires <= now):
		return change{}, errUnknownRefresh()
	}
	a, ok, err := h.db.Account(ctx, s, r.UserID)
	switch {
	case err != nil:
		return change{}, err
	case !ok || a.Deactivated:
		return change{}, errUnknownRefresh()
	case a.Locked:
		return change{}, mxerr.New(mxerr.UserLocked, "This account has been locked").With("soft_logout", true)
	}
	all, err := h.db.RefreshTokens(ctx, s, r.UserID, t.DeviceID)
	if err != nil {
		return change{}, err
	}
	var c change
	var void [][]byte
	for i := range all {
		o := &all[i]
		if bytes.Equal(o.Parent, t.Hash[:]) || bytes.Equal(t.Parent, o.Hash[:]) {
			void = append(void, o.Access[:])
			c.Rows = append(c.Rows, &accountdb.RefreshTokenGone{UserID: r.UserID, Hash: o.Hash},
				&accountdb.AccessTokenGone{UserID: r.UserID, Hash: o.Access})
		}
	}
	e, err := sessionEntry(r.UserID, entry.SessionUpdated, nil, void)
	if err != nil {
		return change{}, err
	}
	c.Entries = append(c.Entries, e)
	if t.Parent != nil {
		t.Parent = nil
		c.Rows = append(c.Rows, &t)
	}
	c.Rows = append(c.Rows,
		&accountdb.AccessToken{Hash: r.Access, UserID: r.UserID, DeviceID: t.DeviceID, Expires: r.AccessExpires, Created: now},
		&accountdb.RefreshToken{
			Hash: r.Next, UserID: r.UserID, DeviceID: t.DeviceID, Access: r.Access, Parent: t.Hash[:], Expires: r.NextExpires, Created: now,
			Line: r.NextLine.ID, N: r.NextLine.N,
		})
	c.Answer.DeviceID = t.DeviceID
	return c, nil
}

// spent looks at a refresh token that is not good. Whoever shows one whose successor has been used already has it from somewhere else than the
// client to which this server gave it, or it is the client itself and somebody else has used the successor: nobody can tell, so the session ends
// (RFC 9700, 4.14.2). The device stays, with its keys, for the user to log in again on it. A token that only lost the race of two refreshes at
// once is of the same place in its line as the one that won, and says nothing of the kind.
func (h *Host) spent(ctx context.Context, s shard.ID, r *Refresh) (change, error) {
	if r.Line.ID == nil {
		return change{}, errUnknownRefresh()
	}
	good, err := h.db.RefreshLine(ctx, s, r.UserID, r.Line.ID)
	if err != nil {
		return change{}, err
	}
	if !slices.ContainsFunc(good, func(t accountdb.RefreshToken) bool { return t.N > r.Line.N }) ||
		slices.ContainsFunc(good, func(t accountdb.RefreshToken) bool { return t.N <= r.Line.N }) {
		return change{}, errUnknownRefresh()
	}
	c := change{Answer: Answer{Reused: true, Revoked: true}}
	var void [][]byte
	for i := range good {
		t := &good[i]
		void = append(void, t.Access[:])
		c.Rows = append(c.Rows, &accountdb.RefreshTokenGone{UserID: r.UserID, Hash: t.Hash},
			&accountdb.AccessTokenGone{UserID: r.UserID, Hash: t.Access})
	}
	e, err := sessionEntry(r.UserID, entry.SessionUpdated, nil, void)
	c.Entries = append(c.Entries, e)
	return c, err
}

// confirmRefresh revokes the pair for which the pair of an access token came.
func (h *Host) confirmRefresh(ctx context.Context, s shard.ID, r *ConfirmRefresh) (change, error) {
	x, ok, err := h.db.SessionByToken(ctx, s, r.Access)
	if err != nil || !ok || !x.Unconfirmed || x.UserID != r.UserID {
		return change{Answer: Answer{Unchanged: true}}, err
	}
	all, err := h.db.RefreshTokens(ctx, s, r.UserID, x.DeviceID)
	if err != nil {
		return change{}, err
	}
	var c change
	for i := range all {
		t := &all[i]
		if t.Access != r.Access || t.Parent == nil {
			continue
		}
		var void [][]byte
		for j := range all {
			if old := &all[j]; bytes.Equal(t.Parent, old.Hash[:]) {
				void = append(void, old.Access[:])
				c.Rows = append(c.Rows, &accountdb.RefreshTokenGone{UserID: r.UserID, Hash: old.Hash},
					&accountdb.AccessTokenGone{UserID: r.UserID, Hash: old.Access})
			}
		}
		e, err := sessionEntry(r.UserID, entry.SessionUpdated, nil, void)
		if err != nil {
			return change{}, err
		}
		t.Parent = nil
		c.Rows, c.Entries = append(c.Rows, t), append(c.Entries, e)
	}
	return c, nil
}

func (h *Host) putLoginToken(_ context.Context, _ shard.ID, p *PutLoginToken) (change, error) {
	return change{Rows: []entry.Row{&accountdb.LoginToken{
		Hash: p.Hash, UserID: p.UserID, Expires: p.Expires, Before: h.now().UnixMilli(),
	}}}, nil
}

func (h *Host) loginByToken(ctx context.Context, s shard.ID, l *LoginByToken) (change, error) {
	refused := mxerr.New(mxerr.Forbidden, "Invalid login token")
	user, expires, ok, err := h.db.LoginTokenByHash(ctx, s, l.Hash)
	switch {
	case err != nil:
		return change{}, err
	case !ok || user != l.UserID || expires <= h.now().UnixMilli():
		return change{}, refused
	}
	a, ok, err := h.db.Account(ctx, s, l.UserID)
	if err != nil {
		return change{}, err
	}
	if err := mayEnter(&a, ok); err != nil {
		return change{}, err
	}
	var c change
	if err := h.newSession(ctx, s, &c, l.UserID, &l.Session, false); err != nil {
		return change{}, err
	}
	c.Rows = append(c.Rows, &accountdb.LoginTokenGone{UserID: l.UserID, Hash: l.Hash})
	return c, nil
}
