package roomdb

import (
	"context"
	"fmt"
	"math"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// MemberEvent is a user's member event in a room: its place, and the PDU.
type MemberEvent struct {
	Ord  int64
	JSON []byte
}

// MemberEvents reads a user's member events in a room that come before a place, the latest first.
func (r *Reader) MemberEvents(ctx context.Context, room shard.Nid, userID string, below int64, count int) ([]MemberEvent, error) {
	rows, err := r.q.ListMemberEvents(ctx, ListMemberEventsParams{
		Shard: int16(room.Shard()), UserID: userID, RoomNid: int64(room), Below: below, Count: int32(count),
	})
	return each("member events", rows, err, func(g *ListMemberEventsRow) MemberEvent {
		e := MemberEvent{JSON: g.Json}
		if g.Ord != nil {
			e.Ord = *g.Ord
		}
		return e
	})
}

// HostJoined tells whether users of another server are in a room.
func (r *Reader) HostJoined(ctx context.Context, room shard.Nid, host string) (bool, error) {
	in, err := r.q.IsHostJoined(ctx, IsHostJoinedParams{Host: host, RoomNid: int64(room)})
	if err != nil {
		return false, fmt.Errorf("read hosts: %w", err)
	}
	return in, nil
}

// Moment is a place in the order by time: that of an event, or between events.
type Moment struct{ TS, Ord int64 }

// From is the moment before all events of a time in ms, and Until the one after them.
func From(ts int64) Moment { return Moment{ts, math.MinInt64} }

// Until is the moment after all events of a time in ms.
func Until(ts int64) Moment { return Moment{ts, math.MaxInt64} }

// EventsAfter reads the events of a room after a moment, the earliest first.
func (r *Reader) EventsAfter(ctx context.Context, room shard.Nid, m Moment, count int) ([]StoredEvent, error) {
	rows, err := r.q.EventsFromTime(ctx, EventsFromTimeParams{RoomNid: int64(room), Ts: m.TS, Ord: m.Ord, Count: int32(count)})
	return storedEvents(rows, err)
}

// EventsBefore reads the events of a room before a moment, the latest first.
func (r *Reader) EventsBefore(ctx context.Context, room shard.Nid, m Moment, count int) ([]StoredEvent, error) {
	rows, err := r.q.EventsUntilTime(ctx, EventsUntilTimeParams{RoomNid: int64(room), Ts: m.TS, Ord: m.Ord, Count: int32(count)})
	return storedEvents(rows, err)
}
