package e2eedb

import (
	"context"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// joined is how a member row says that its user is in the room: see roomdb.Membership.
const joined = 4

// UserRoom says that a user is joined to a room.
type UserRoom struct {
	UserID string
	Room   shard.Nid
}

// Rooms reads where users are joined: local ones everywhere, others among the rooms given.
func (r *Reader) Rooms(ctx context.Context, locals, others []string, among []shard.Nid) ([]UserRoom, error) {
	rows, err := r.q.RoomsOfUsers(ctx, RoomsOfUsersParams{Locals: locals, Others: others, Rooms: nids(among), Joined: joined})
	out := make([]UserRoom, len(rows))
	for i, x := range rows {
		out[i] = UserRoom{x.UserID, shard.Nid(x.RoomNid)}
	}
	return out, failed("memberships", err)
}

// ListChange says when a user's device list last changed.
type ListChange struct {
	UserID string
	Shard  shard.ID
	Pos    shard.Pos
}

// ListsChanged reads whose device lists changed after positions of the shards, of those who are joined to one of the rooms.
func (r *Reader) ListsChanged(ctx context.Context, above shard.Vector, rooms []shard.Nid) ([]ListChange, error) {
	p := ListsChangedParams{Rooms: nids(rooms), Joined: joined}
	for s, pos := range above {
		p.Shards, p.Above = append(p.Shards, int16(s)), append(p.Above, int64(pos))
	}
	rows, err := r.q.ListsChanged(ctx, p)
	out := make([]ListChange, len(rows))
	for i, x := range rows {
		out[i] = ListChange{x.UserID, shard.ID(x.Shard), shard.Pos(x.Pos)}
	}
	return out, failed("device lists", err)
}

// Move says that a user's membership of a room changed.
type Move struct {
	UserID string
	Room   shard.Nid
	Joined bool
	Pos    shard.Pos
}

// Moved reads whose membership of rooms changed after positions of their shards.
func (r *Reader) Moved(ctx context.Context, above shard.Vector, rooms []shard.Nid) ([]Move, error) {
	p := MembersMovedParams{Rooms: nids(rooms)}
	for _, n := range rooms {
		p.Above = append(p.Above, int64(above[n.Shard()]))
	}
	rows, err := r.q.MembersMoved(ctx, p)
	out := make([]Move, len(rows))
	for i, x := range rows {
		out[i] = Move{x.UserID, shard.Nid(x.RoomNid), x.Membership == joined, shard.Pos(x.Pos)}
	}
	return out, failed("memberships", err)
}

// Members reads who is joined to any of the rooms.
func (r *Reader) Members(ctx context.Context, rooms []shard.Nid) ([]string, error) {
	users, err := r.q.MembersOf(ctx, MembersOfParams{Rooms: nids(rooms), Joined: joined})
	return users, failed("memberships", err)
}

// Among reads which of some users are joined to any of the rooms.
func (r *Reader) Among(ctx context.Context, users []string, rooms []shard.Nid) ([]string, error) {
	out, err := r.q.AmongMembers(ctx, AmongMembersParams{Users: users, Rooms: nids(rooms), Joined: joined})
	return out, failed("memberships", err)
}

func nids(rooms []shard.Nid) []int64 {
	out := make([]int64, len(rooms))
	for i, n := range rooms {
		out[i] = int64(n)
	}
	return out
}
