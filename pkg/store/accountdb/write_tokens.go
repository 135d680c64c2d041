package accountdb

import (
	"github.com/jackc/pgx/v5"

	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// QueueRefreshTokens makes refresh tokens or changes their parents.
func QueueRefreshTokens(b *pgx.Batch, rows []entry.Placed[*RefreshToken]) {
	type placed = *entry.Placed[*RefreshToken]
	rows = entry.LastByKey(rows, func(p entry.Placed[*RefreshToken]) [32]byte { return p.Row.Hash })
	b.Queue(upsertRefreshTokens,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) []byte { return p.Row.Hash[:] }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }),
		entry.Column(rows, func(p placed) string { return p.Row.DeviceID }),
		entry.Column(rows, func(p placed) []byte { return p.Row.Access[:] }),
		entry.Column(rows, func(p placed) []byte { return p.Row.Parent }),
		entry.Column(rows, func(p placed) *int64 {
			if p.Row.Expires == 0 {
				return nil
			}
			return &p.Row.Expires
		}),
		entry.Column(rows, func(p placed) int64 { return p.Row.Created }),
		entry.Column(rows, func(p placed) []byte { return p.Row.Line }),
		entry.Column(rows, func(p placed) int32 { return p.Row.N }))
}

// QueueRefreshTokensGone removes refresh tokens.
func QueueRefreshTokensGone(b *pgx.Batch, rows []entry.Placed[*RefreshTokenGone]) {
	type placed = *entry.Placed[*RefreshTokenGone]
	b.Queue(deleteRefreshTokens,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) []byte { return p.Row.Hash[:] }))
}

// QueueLoginTokens makes login tokens.
func QueueLoginTokens(b *pgx.Batch, rows []entry.Placed[*LoginToken]) {
	type placed = *entry.Placed[*LoginToken]
	b.Queue(insertLoginTokens,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) []byte { return p.Row.Hash[:] }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }),
		entry.Column(rows, func(p placed) int64 { return p.Row.Expires }))
	swept := map[shard.ID]bool{}
	for _, p := range rows {
		if !swept[p.Shard] && p.Row.Before > 0 {
			swept[p.Shard] = true
			b.Queue(deleteExpiredLoginTokens, int16(p.Shard), p.Row.Before)
		}
	}
}

// QueueLoginTokensGone removes login tokens.
func QueueLoginTokensGone(b *pgx.Batch, rows []entry.Placed[*LoginTokenGone]) {
	type placed = *entry.Placed[*LoginTokenGone]
	b.Queue(deleteLoginTokens,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) []byte { return p.Row.Hash[:] }))
}

// QueueDataGone removes account data, filters, subscriptions of threads, consents and external logins.
func QueueDataGone(b *pgx.Batch, rows []entry.Placed[*DataGone]) {
	type placed = *entry.Placed[*DataGone]
	shards := entry.Column(rows, func(p placed) int16 { return int16(p.Shard) })
	users := entry.Column(rows, func(p placed) string { return p.Row.UserID })
	b.Queue(deleteAccountDataOf, shards, users)
	b.Queue(deleteThreadSubscriptionsOf, shards, users)
	b.Queue(deleteFiltersOf, shards, users)
	b.Queue(deleteConsentsOf, shards, users)
	b.Queue(deleteExternalLoginsOf, shards, users)
}
