package accountdb

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// Pusher makes a pusher, or replaces the one of the same user, app and key.
type Pusher struct {
	UserID, AppID, Pushkey, Kind, AppDisplayName, DeviceDisplayName, ProfileTag, Lang string

	Data     []byte // JSON
	DeviceID string // of the device that set it
	Created  int64  // ms; since when it is told of what happens
	Disabled bool   // it is told of nothing
}

// Cost implements entry.Row.
func (r *Pusher) Cost() int {
	return 128 + len(r.UserID) + len(r.AppID) + len(r.Pushkey) + len(r.AppDisplayName) + len(r.DeviceDisplayName) + len(r.Data)
}

// PusherGone removes a pusher.
type PusherGone struct{ UserID, AppID, Pushkey string }

// Cost implements entry.Row.
func (r *PusherGone) Cost() int { return 64 + len(r.UserID) + len(r.AppID) + len(r.Pushkey) }

// QueuePushers makes pushers or replaces them.
func QueuePushers(b *pgx.Batch, rows []entry.Placed[*Pusher]) {
	type placed = *entry.Placed[*Pusher]
	rows = entry.LastByKey(rows, func(p entry.Placed[*Pusher]) PusherGone {
		return PusherGone{p.Row.UserID, p.Row.AppID, p.Row.Pushkey}
	})
	b.Queue(upsertPushers,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }),
		entry.Column(rows, func(p placed) string { return p.Row.AppID }),
		entry.Column(rows, func(p placed) string { return p.Row.Pushkey }),
		entry.Column(rows, func(p placed) string { return p.Row.Kind }),
		entry.Column(rows, func(p placed) string { return p.Row.AppDisplayName }),
		entry.Column(rows, func(p placed) string { return p.Row.DeviceDisplayName }),
		entry.Column(rows, func(p placed) string { return p.Row.ProfileTag }),
		entry.Column(rows, func(p placed) string { return p.Row.Lang }),
		entry.Column(rows, func(p placed) []byte { return p.Row.Data }),
		entry.Column(rows, func(p placed) string { return p.Row.DeviceID }),
		entry.Column(rows, func(p placed) int64 { return p.Row.Created }),
		entry.Column(rows, func(p placed) bool { return p.Row.Disabled }))
}

// QueuePushersGone removes pushers.
func QueuePushersGone(b *pgx.Batch, rows []entry.Placed[*PusherGone]) {
	type placed = *entry.Placed[*PusherGone]
	b.Queue(deletePushers,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }),
		entry.Column(rows, func(p placed) string { return p.Row.AppID }),
		entry.Column(rows, func(p placed) string { return p.Row.Pushkey }))
}

// Pushers reads a user's pushers, ordered by app and key.
func (r *Reader) Pushers(ctx context.Context, s shard.ID, userID string) ([]Pusher, error) {
	rows, err := r.q.ListPushers(ctx, ListPushersParams{Shard: int16(s), UserID: userID})
	if err != nil {
		return nil, fmt.Errorf("read pushers: %w", err)
	}
	out := make([]Pusher, len(rows))
	for i, g := range rows {
		out[i] = Pusher{
			UserID: userID, AppID: g.AppID, Pushkey: g.Pushkey, Kind: g.Kind, AppDisplayName: g.AppDisplayName,
			DeviceDisplayName: g.DeviceDisplayName, ProfileTag: g.ProfileTag, Lang: g.Lang, Data: g.Data, DeviceID: g.DeviceID,
			Created: g.Created, Disabled: g.Disabled,
		}
	}
	return out, nil
}

// PusherOwners tells who has a pusher of this app and key.
func (r *Reader) PusherOwners(ctx context.Context, appID, pushkey string) ([]string, error) {
	users, err := r.q.ListPusherOwners(ctx, ListPusherOwnersParams{AppID: appID, Pushkey: pushkey})
	if err != nil {
		return nil, fmt.Errorf("read pushers: %w", err)
	}
	return users, nil
}
