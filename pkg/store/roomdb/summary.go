package roomdb

import (
	"context"
	"fmt"
	"math"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// RoomsByID reads rooms by their ids; those that do not exist are left out, and no order is promised.
func (r *Reader) RoomsByID(ctx context.Context, m shard.Map, ids []string) ([]RoomRef, error) {
	p := RoomsByIDParams{RoomIds: ids}
	for _, s := range ids {
		p.Shards = append(p.Shards, int16(m.Of(s)))
	}
	rows, err := r.q.RoomsByID(ctx, p)
	return each("rooms", rows, err, func(g *RoomsByIDRow) RoomRef { return RoomRef{shard.Nid(g.Nid), g.RoomID, g.Version} })
}

// RoomState is an event of the current state of one of several rooms.
type RoomState struct {
	Room       shard.Nid
	Type       string
	EventID    string
	RedactedBy shard.Nid
	JSON       []byte
}

// StateOfRooms reads, of the current states of rooms, the events of some types that have an empty state key.
func (r *Reader) StateOfRooms(ctx context.Context, rooms []shard.Nid, types []string) ([]RoomState, error) {
	rows, err := r.q.StateOfRooms(ctx, StateOfRoomsParams{RoomNids: ints(rooms), Types: types})
	return each("states", rows, err, func(g *StateOfRoomsRow) RoomState {
		return RoomState{shard.Nid(g.RoomNid), g.TypeName, g.EventID, shard.Nid(g.RedactedBy), g.Json}
	})
}

// TypeOfRooms reads, of the current states of rooms, all events of a type.
func (r *Reader) TypeOfRooms(ctx context.Context, rooms []shard.Nid, typ string) ([]RoomState, error) {
	rows, err := r.q.TypeOfRooms(ctx, TypeOfRoomsParams{RoomNids: ints(rooms), Type: typ})
	return each("states", rows, err, func(g *TypeOfRoomsRow) RoomState {
		return RoomState{shard.Nid(g.RoomNid), typ, g.EventID, shard.Nid(g.RedactedBy), g.Json}
	})
}

// Joined is how many are in a room.
type Joined struct {
	Count int
	// Here says that users of this server are among them.
	Here bool
}

// CountJoined counts who is in rooms; those that nobody is in are left out.
func (r *Reader) CountJoined(ctx context.Context, rooms []shard.Nid) (map[shard.Nid]Joined, error) {
	rows, err := r.q.CountJoined(ctx, ints(rooms))
	if err != nil {
		return nil, fmt.Errorf("count members: %w", err)
	}
	out := make(map[shard.Nid]Joined, len(rows))
	for _, g := range rows {
		out[shard.Nid(g.RoomNid)] = Joined{int(g.Joined), g.Here}
	}
	return out, nil
}

// MembershipsIn reads a user's memberships of rooms; those that the user has nothing to do with are left out.
func (r *Reader) MembershipsIn(ctx context.Context, rooms []shard.Nid, userID string) (map[shard.Nid]Membership, error) {
	rows, err := r.q.MembershipsIn(ctx, MembershipsInParams{RoomNids: ints(rooms), UserID: userID})
	if err != nil {
		return nil, fmt.Errorf("read memberships: %w", err)
	}
	out := make(map[shard.Nid]Membership, len(rows))
	for _, g := range rows {
		out[shard.Nid(g.RoomNid)] = Membership(g.Membership)
	}
	return out, nil
}

// Listed is a room of the public directory. The directory is ordered by Joined and then by nid, the largest first.
type Listed struct {
	RoomRef
	Joined int64
}

// DirectoryTop is above all of the directory.
func DirectoryTop() Listed {
	return Listed{RoomRef: RoomRef{Nid: math.MaxInt64}, Joined: math.MaxInt64}
}

// PublishedBelow reads what follows a place in the directory, in its order.
func (r *Reader) PublishedBelow(ctx context.Context, at Listed, count int) ([]Listed, error) {
	rows, err := r.q.ListPublishedDown(ctx, ListPublishedDownParams{Joined: at.Joined, Nid: int64(at.Nid), Count: int32(count)})
	return each("directory", rows, err, listed)
}

// PublishedAbove reads what comes before a place in the directory, from there upward.
func (r *Reader) PublishedAbove(ctx context.Context, at Listed, count int) ([]Listed, error) {
	rows, err := r.q.ListPublishedUp(ctx, ListPublishedUpParams{Joined: at.Joined, Nid: int64(at.Nid), Count: int32(count)})
	return each("directory", rows, err, func(g *ListPublishedUpRow) Listed { return listed((*ListPublishedDownRow)(g)) })
}

func listed(g *ListPublishedDownRow) Listed {
	return Listed{RoomRef{shard.Nid(g.Nid), g.RoomID, g.Version}, g.Joined}
}

// CountPublished counts the rooms of the directory.
func (r *Reader) CountPublished(ctx context.Context) (int, error) {
	n, err := r.q.CountPublished(ctx)
	if err != nil {
		return 0, fmt.Errorf("count directory: %w", err)
	}
	return int(n), nil
}
