package accountdb

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// Threepid gives a user an address.
type Threepid struct {
	UserID, Medium, Address string
	ValidatedAt, AddedAt    int64 // ms
}

// Cost implements entry.Row.
func (r *Threepid) Cost() int { return 96 + len(r.UserID) + len(r.Address) }

// ThreepidGone takes an address from a user.
type ThreepidGone struct{ UserID, Medium, Address string }

// Cost implements entry.Row.
func (r *ThreepidGone) Cost() int { return 64 + len(r.UserID) + len(r.Address) }

// Bind notes that an address is bound to a user at an identity server.
type Bind struct{ UserID, Medium, Address, IDServer string }

// Cost implements entry.Row.
func (r *Bind) Cost() int { return 64 + len(r.UserID) + len(r.Address) + len(r.IDServer) }

// BindGone notes that it is not any more.
type BindGone Bind

// Cost implements entry.Row.
func (r *BindGone) Cost() int { return (*Bind)(r).Cost() }

// ThreepidsGone takes all addresses from a user, and forgets where they are bound.
type ThreepidsGone struct{ UserID string }

// Cost implements entry.Row.
func (r *ThreepidsGone) Cost() int { return 64 + len(r.UserID) }

// ExternalLogin is as whom an outside provider knows a user.
type ExternalLogin struct {
	UserID, Provider, Subject string
	Created                   int64 // ms
}

// Cost implements entry.Row.
func (r *ExternalLogin) Cost() int { return 96 + len(r.UserID) + len(r.Subject) }

// Consent is that a user agreed to a version of a policy.
type Consent struct {
	UserID, Policy, Version string
	At                      int64 // ms
}

// Cost implements entry.Row.
func (r *Consent) Cost() int { return 64 + len(r.UserID) + len(r.Policy) + len(r.Version) }

// QueueThreepids gives users addresses.
func QueueThreepids(b *pgx.Batch, rows []entry.Placed[*Threepid]) {
	type placed = *entry.Placed[*Threepid]
	rows = entry.LastByKey(rows, func(p entry.Placed[*Threepid]) ThreepidGone {
		return ThreepidGone{p.Row.UserID, p.Row.Medium, p.Row.Address}
	})
	b.Queue(upsertThreepids,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }),
		entry.Column(rows, func(p placed) string { return p.Row.Medium }),
		entry.Column(rows, func(p placed) string { return p.Row.Address }),
		entry.Column(rows, func(p placed) int64 { return p.Row.ValidatedAt }),
		entry.Column(rows, func(p placed) int64 { return p.Row.AddedAt }))
}

// QueueThreepidsGone takes addresses from users.
func QueueThreepidsGone(b *pgx.Batch, rows []entry.Placed[*ThreepidGone]) {
	type placed = *entry.Placed[*ThreepidGone]
	b.Queue(deleteThreepids,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }),
		entry.Column(rows, func(p placed) string { return p.Row.Medium }),
		entry.Column(rows, func(p placed) string { return p.Row.Address }))
}

// QueueBinds notes where addresses are bound.
func QueueBinds(b *pgx.Batch, rows []entry.Placed[*Bind]) {
	type placed = *entry.Placed[*Bind]
	b.Queue(insertThreepidBinds,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }),
		entry.Column(rows, func(p placed) string { return p.Row.Medium }),
		entry.Column(rows, func(p placed) string { return p.Row.Address }),
		entry.Column(rows, func(p placed) string { return p.Row.IDServer }))
}

// QueueBindsGone notes where they are not bound any more.
func QueueBindsGone(b *pgx.Batch, rows []entry.Placed[*BindGone]) {
	type placed = *entry.Placed[*BindGone]
	b.Queue(deleteThreepidBinds,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }),
		entry.Column(rows, func(p placed) string { return p.Row.Medium }),
		entry.Column(rows, func(p placed) string { return p.Row.Address }),
		entry.Column(rows, func(p placed) string { return p.Row.IDServer }))
}

// QueueThreepidsOfGone takes all addresses from users.
func QueueThreepidsOfGone(b *pgx.Batch, rows []entry.Placed[*ThreepidsGone]) {
	type placed = *entry.Placed[*ThreepidsGone]
	shards := entry.Column(rows, func(p placed) int16 { return int16(p.Shard) })
	users := entry.Column(rows, func(p placed) string { return p.Row.UserID })
	b.Queue(deleteThreepidsOf, shards, users)
	b.Queue(deleteThreepidBindsOf, shards, users)
}

// QueueExternalLogins notes as whom providers know users.
func QueueExternalLogins(b *pgx.Batch, rows []entry.Placed[*ExternalLogin]) {
	type placed = *entry.Placed[*ExternalLogin]
	b.Queue(insertExternalLogins,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }),
		entry.Column(rows, func(p placed) string { return p.Row.Provider }),
		entry.Column(rows, func(p placed) string { return p.Row.Subject }),
		entry.Column(rows, func(p placed) int64 { return p.Row.Created }))
}

// QueueConsents notes who agreed to what.
func QueueConsents(b *pgx.Batch, rows []entry.Placed[*Consent]) {
	type placed = *entry.Placed[*Consent]
	b.Queue(insertConsents,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }),
		entry.Column(rows, func(p placed) string { return p.Row.Policy }),
		entry.Column(rows, func(p placed) string { return p.Row.Version }),
		entry.Column(rows, func(p placed) int64 { return p.Row.At }))
}

// Threepids reads a user's addresses.
func (r *Reader) Threepids(ctx context.Context, s shard.ID, userID string) ([]Threepid, error) {
	rows, err := r.q.ListThreepids(ctx, ListThreepidsParams{Shard: int16(s), UserID: userID})
	if err != nil {
		return nil, fmt.Errorf("read addresses: %w", err)
	}
	out := make([]Threepid, len(rows))
	for i, g := range rows {
		out[i] = Threepid{UserID: userID, Medium: g.Medium, Address: g.Address, ValidatedAt: g.ValidatedAt, AddedAt: g.AddedAt}
	}
	return out, nil
}

// ThreepidOwner tells whose address it is.
func (r *Reader) ThreepidOwner(ctx context.Context, medium, address string) (userID string, ok bool, err error) {
	userID, err = r.q.GetThreepidOwner(ctx, GetThreepidOwnerParams{Medium: medium, Address: address})
	ok, err = found("owner of an address", err)
	return userID, ok, err
}

// Binds reads where a user's addresses are bound.
func (r *Reader) Binds(ctx context.Context, s shard.ID, userID string) ([]Bind, error) {
	rows, err := r.q.ListThreepidBinds(ctx, ListThreepidBindsParams{Shard: int16(s), UserID: userID})
	if err != nil {
		return nil, fmt.Errorf("read bound addresses: %w", err)
	}
	out := make([]Bind, len(rows))
	for i, g := range rows {
		out[i] = Bind{UserID: userID, Medium: g.Medium, Address: g.Address, IDServer: g.IDServer}
	}
	return out, nil
}

// ExternalOwner tells who logs in as a subject of a provider.
func (r *Reader) ExternalOwner(ctx context.Context, provider, subject string) (userID string, ok bool, err error) {
	userID, err = r.q.GetExternalOwner(ctx, GetExternalOwnerParams{Provider: provider, Subject: subject})
	ok, err = found("owner of an external login", err)
	return userID, ok, err
}

// ExternalLogins reads as whom providers know a user.
func (r *Reader) ExternalLogins(ctx context.Context, s shard.ID, userID string) ([]ExternalLogin, error) {
	rows, err := r.q.ListExternalLogins(ctx, ListExternalLoginsParams{Shard: int16(s), UserID: userID})
	if err != nil {
		return nil, fmt.Errorf("read external logins: %w", err)
	}
	out := make([]ExternalLogin, len(rows))
	for i, g := range rows {
		out[i] = ExternalLogin{UserID: userID, Provider: g.Provider, Subject: g.Subject}
	}
	return out, nil
}

// Consents reads what a user agreed to.
func (r *Reader) Consents(ctx context.Context, s shard.ID, userID string) ([]Consent, error) {
	rows, err := r.q.ListConsents(ctx, ListConsentsParams{Shard: int16(s), UserID: userID})
	if err != nil {
		return nil, fmt.Errorf("read consents: %w", err)
	}
	out := make([]Consent, len(rows))
	for i, g := range rows {
		out[i] = Consent{UserID: userID, Policy: g.Policy, Version: g.Version, At: g.At}
	}
	return out, nil
}
