package roomdb

import (
	"context"
	"math"

	"github.com/jackc/pgx/v5"

	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// RoomOfGap is how many places are left free before an event that is taken while events before it are missing: so many of these can take
// their place in the timeline later. It is less than a follower may be behind without being taken for stuck.
const RoomOfGap = 8192

// Gap is a place in a room's timeline before which events are missing.
type Gap struct {
	// Ord is the place of the event that follows what is missing. What is found takes the places below it, the latest first, and above Floor.
	Ord, Floor int64
	// Edge are the events that name what is missing.
	Edge []shard.Nid
}

// Next is the place that the latest of what is missing takes; ok is false if there is none left.
func (g *Gap) Next() (ord int64, ok bool) {
	if g.Floor == Beginning { // what comes before all that this server has heard of a room is below zero
		return min(g.Ord, 0) - 1, true
	}
	return g.Ord - 1, g.Ord-1 > g.Floor
}

// GapRow notes a gap before an event.
type GapRow struct {
	Room  shard.Nid
	Order Order
	// Free is how many places below the event were left free for what is missing; if it is 0, Floor says as of where they are.
	Free  int64
	Floor int64
	Edge  []shard.Nid
}

// Cost implements entry.Row.
func (r *GapRow) Cost() int { return 64 + 8*len(r.Edge) }

// GapGone removes a gap: it moved, or is closed.
type GapGone struct {
	Room shard.Nid
	Ord  int64
}

// Cost implements entry.Row.
func (r *GapGone) Cost() int { return 32 }

// QueueGaps notes gaps.
func QueueGaps(b *pgx.Batch, rows []entry.Placed[*GapRow]) {
	type placed = *entry.Placed[*GapRow]
	b.Queue(upsertGaps,
		entry.Column(rows, func(p placed) int64 { return int64(p.Row.Room) }),
		entry.Column(rows, func(p placed) *int64 { return p.Row.Order.at(p.Place) }),
		entry.Column(rows, func(p placed) int64 {
			if at := p.Row.Order.at(p.Place); p.Row.Free > 0 && at != nil {
				return *at - 1 - p.Row.Free
			}
			return p.Row.Floor
		}),
		entry.Column(rows, func(p placed) []byte { return PackNids(p.Row.Edge) }))
}

// QueueGapsGone removes gaps.
func QueueGapsGone(b *pgx.Batch, rows []entry.Placed[*GapGone]) {
	type placed = *entry.Placed[*GapGone]
	b.Queue(deleteGaps,
		entry.Column(rows, func(p placed) int64 { return int64(p.Row.Room) }),
		entry.Column(rows, func(p placed) int64 { return p.Row.Ord }))
}

// Gaps reads the gaps of a room whose event is at a place or below it, and above another, the latest first.
func (r *Reader) Gaps(ctx context.Context, room shard.Nid, upto, above int64, count int) ([]Gap, error) {
	rows, err := r.q.ListGaps(ctx, ListGapsParams{RoomNid: int64(room), Upto: upto, Above: above, Count: int32(count)})
	var bad error
	gaps, err := each("gaps", rows, err, func(g *ListGapsRow) Gap {
		edge, err := UnpackNids(g.Edge)
		if err != nil {
			bad = err
		}
		return Gap{Ord: g.Ord, Floor: g.Floor, Edge: edge}
	})
	if err == nil {
		err = bad
	}
	return gaps, err
}

// Gap reads the gap before an event at a place; ok is false if there is none.
func (r *Reader) Gap(ctx context.Context, room shard.Nid, ord int64) (g Gap, ok bool, err error) {
	above := ord
	if above > math.MinInt64 {
		above--
	}
	gaps, err := r.Gaps(ctx, room, ord, above, 1)
	if err != nil || len(gaps) == 0 {
		return g, false, err
	}
	return gaps[0], true, nil
}
