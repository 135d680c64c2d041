package accountdb

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// ThreadSubscription sets whether a user wants to hear of a thread.
type ThreadSubscription struct {
	UserID, RoomID, Root  string
	Subscribed, Automatic bool
	// Ended is how far the room had got when the user last ended it.
	Ended int64
	Entry int
}

// Cost implements entry.Row.
func (r *ThreadSubscription) Cost() int { return 64 + len(r.UserID) + len(r.RoomID) + len(r.Root) }

// QueueThreadSubscriptions sets subscriptions of threads.
func QueueThreadSubscriptions(b *pgx.Batch, rows []entry.Placed[*ThreadSubscription]) {
	type placed = *entry.Placed[*ThreadSubscription]
	type key struct{ user, room, root string }
	rows = entry.LastByKey(rows, func(p entry.Placed[*ThreadSubscription]) key {
		return key{p.Row.UserID, p.Row.RoomID, p.Row.Root}
	})
	b.Queue(upsertThreadSubscriptions,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }),
		entry.Column(rows, func(p placed) string { return p.Row.RoomID }),
		entry.Column(rows, func(p placed) string { return p.Row.Root }),
		entry.Column(rows, func(p placed) bool { return p.Row.Subscribed }),
		entry.Column(rows, func(p placed) bool { return p.Row.Automatic }),
		entry.Column(rows, func(p placed) int64 { return p.Row.Ended }),
		entry.Column(rows, func(p placed) int64 { return int64(p.Pos(p.Row.Entry)) }))
}

// ThreadSubscription reads a user's subscription of a thread, also one that was ended.
func (r *Reader) ThreadSubscription(ctx context.Context, s shard.ID, user, room, root string) (x GetThreadSubscriptionRow, ok bool, err error) {
	x, err = r.q.GetThreadSubscription(ctx, GetThreadSubscriptionParams{Shard: int16(s), UserID: user, RoomID: room, Root: root})
	ok, err = found("thread subscription", err)
	return x, ok, err
}

// ThreadSubscriptions reads what became different of a user's subscriptions in (above, upto], the latest first; with held, not what was ended.
func (r *Reader) ThreadSubscriptions(ctx context.Context, s shard.ID, user string, above, upto shard.Pos, held bool, count int) ([]ListThreadSubscriptionsRow, error) {
	rows, err := r.q.ListThreadSubscriptions(ctx, ListThreadSubscriptionsParams{
		Shard: int16(s), UserID: user, Above: int64(above), Upto: int64(upto), OnlyHeld: held, Count: int32(count), //nolint:gosec // callers bound it
	})
	if err != nil {
		return nil, fmt.Errorf("read thread subscriptions: %w", err)
	}
	return rows, nil
}
