package roomdb

import (
	"context"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// Activity is when something last happened in a room, in ms by the clock of who did it: Last anything, and Bump one of some types of
// events, 0 if there is none among the latest.
type Activity struct {
	Room       shard.Nid
	Last, Bump int64
}

// ActivityOfRooms reads when something last happened in rooms. What is dated after now counts only if nothing else is
// there. Those without a timeline are left out.
func (r *Reader) ActivityOfRooms(ctx context.Context, rooms []shard.Nid, bump []string, now int64) ([]Activity, error) {
	rows, err := r.q.ActivityOfRooms(ctx, ActivityOfRoomsParams{RoomNids: ints(rooms), Types: bump, NowTs: now})
	return each("activity", rows, err, func(g *ActivityOfRoomsRow) Activity {
		return Activity{shard.Nid(g.RoomNid), g.LastTs, g.BumpTs}
	})
}

// ReceiptsAt reads a room's receipts at some events, and all of one user, in the order of their moves.
func (r *Reader) ReceiptsAt(ctx context.Context, room shard.Nid, userID string, events []string) ([]ReceiptRow, error) {
	rows, err := r.q.ListReceiptsAt(ctx, ListReceiptsAtParams{RoomNid: int64(room), UserID: userID, EventIds: events})
	return each("receipts", rows, err, func(g *ListReceiptsAtRow) ReceiptRow {
		return receiptRow((*ListReceiptsOfUserRow)(g))
	})
}
