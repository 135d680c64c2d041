package account

import (
	"context"
	"fmt"
	"strconv"

	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/shardlog/token"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
)

// SubscribeThread says that a user wants to hear of a thread, or no longer does (MSC4306). Whoever sends it has looked whether there is such a
// thread for the user. Refused with M_CONFLICTING_UNSUBSCRIPTION.
type SubscribeThread struct {
	UserID string `json:"user_id"`
	RoomID string `json:"room_id"`
	Root   string `json:"root"`
	// End ends a subscription.
	End bool `json:"end,omitempty"`
	// Automatic: the client does it by itself, because of an event.
	Automatic bool `json:"automatic,omitempty"`
	// Ord is the place of that event, and of the room's latest when a subscription is ended.
	Ord int64 `json:"ord,omitempty"`
}

func (c *SubscribeThread) shardKey() (string, bool) { return c.UserID, true }

// Method implements [Command].
func (c *SubscribeThread) Method() string { return "account.subscribe_thread" }

func (h *Host) subscribeThread(ctx context.Context, s shard.ID, c *SubscribeThread) (change, error) {
	old, _, err := h.db.ThreadSubscription(ctx, s, c.UserID, c.RoomID, c.Root)
	if err != nil {
		return change{}, err
	}
	row := &accountdb.ThreadSubscription{
		UserID: c.UserID, RoomID: c.RoomID, Root: c.Root, Subscribed: !c.End, Automatic: c.Automatic && !c.End, Ended: old.Ended,
	}
	switch {
	case c.End && !old.Subscribed, !c.End && old.Subscribed && (c.Automatic || !old.Automatic):
		return change{Answer: Answer{Unchanged: true}}, nil
	case c.End:
		row.Ended = c.Ord
	case c.Automatic && old.Ended != 0 && c.Ord <= old.Ended:
		return change{}, mxerr.New(mxerr.ConflictingUnsubscription, "The thread was unsubscribed from after that event")
	}
	return change{Entries: []entry.Entry{entry.ThreadSubscription(c.UserID)}, Rows: []entry.Row{row}}, nil
}

// MaxThreadSubscriptions is how many changes of subscriptions are told at a time.
const MaxThreadSubscriptions = 1000

// ThreadSubscribed tells whether a user wants to hear of a thread, and whether the client has made that so by itself.
func (r *Reader) ThreadSubscribed(ctx context.Context, user, room, root string) (automatic, ok bool, err error) {
	x, ok, err := r.db.ThreadSubscription(ctx, r.shards.OfUser(user), user, room, root)
	return x.Automatic, ok && x.Subscribed, err
}

// Place reads a place in the log of a user's shard: as ThreadSubscriptions was told to go on from, or a token of sync.
func (r *Reader) Place(user, s string) (shard.Pos, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n >= 0 {
		return shard.Pos(n), nil
	}
	t, err := token.DecodeSync(s, r.shards.Count())
	if err != nil {
		return 0, fmt.Errorf("read a place: %w", err)
	}
	return t.Positions[r.shards.OfUser(user)], nil
}

// ThreadSubscriptions gives what became different of a user's subscriptions in (above, upto], the latest first, and whether there is more.
func (r *Reader) ThreadSubscriptions(ctx context.Context, user string, above, upto shard.Pos, count int) (rows []accountdb.ListThreadSubscriptionsRow, more bool, err error) {
	rows, err = r.db.ThreadSubscriptions(ctx, r.shards.OfUser(user), user, above, upto, above == 0, count+1)
	if len(rows) > count {
		return rows[:count], true, err
	}
	return rows, false, err
}
