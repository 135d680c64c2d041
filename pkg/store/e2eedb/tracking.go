package e2eedb

import (
	"context"
	"fmt"
	"maps"
	"slices"

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

// Mine is a user's own membership of a room, and when it last changed.
type Mine struct {
	Room   shard.Nid
	Joined bool
	Pos    shard.Pos
}

// Tracked reads what happened after positions to the device lists that a user follows: those of everybody who shares a room with the user, and
// the own. changed are whose keys are to be asked for anew, for their lists changed or they share a room only now; left are those
// who share none any more.
func (r *Reader) Tracked(ctx context.Context, m shard.Map, user string, above shard.Vector, mine []Mine) (changed, left []string, err error) {
	var joinedRooms, oldRooms, newRooms, goneRooms []shard.Nid
	for _, x := range mine {
		fresh := x.Pos > above[x.Room.Shard()]
		switch {
		case x.Joined && fresh:
			newRooms = append(newRooms, x.Room)
		case x.Joined:
			oldRooms = append(oldRooms, x.Room)
		case fresh:
			goneRooms = append(goneRooms, x.Room)
		}
	}
	joinedRooms = append(append(joinedRooms, oldRooms...), newRooms...)
	news, gone := make(map[string]bool), make(map[string]bool)
	lists, err := r.ListsChanged(ctx, above, joinedRooms)
	if err != nil {
		return nil, nil, err
	}
	for _, c := range lists {
		news[c.UserID] = true
	}
	own, err := r.ListPos(ctx, m.OfUser(user), user)
	if err != nil {
		return nil, nil, err
	}
	// Also of rooms that the user has come into: it may have left them and come back, and others may have left meanwhile.
	moves, err := r.Moved(ctx, above, append(slices.Clone(joinedRooms), goneRooms...))
	if err != nil {
		return nil, nil, err
	}
	for _, x := range moves {
		if x.Joined {
			news[x.UserID] = true
		} else {
			gone[x.UserID] = true
		}
	}
	met := false // somebody in a room that the user has come into
	for rooms, into := range map[*[]shard.Nid]map[string]bool{&newRooms: news, &goneRooms: gone} {
		if len(*rooms) == 0 {
			continue
		}
		users, err := r.Members(ctx, *rooms)
		if err != nil {
			return nil, nil, err
		}
		for _, u := range users {
			into[u] = true
			met = met || rooms == &newRooms && u != user
		}
	}
	for u := range news { // moves in a room that the user has left make nobody known
		gone[u] = true
	}
	delete(news, user)
	delete(gone, user)
	candidates := slices.Sorted(maps.Keys(gone))
	share := make(map[string]bool)
	if len(candidates) > 0 {
		still, err := r.Among(ctx, candidates, joinedRooms)
		if err != nil {
			return nil, nil, err
		}
		for _, u := range still {
			share[u] = true
		}
	}
	for _, u := range candidates {
		switch {
		case !share[u]:
			left = append(left, u)
		case news[u]:
			changed = append(changed, u)
		}
	}
	// Who comes into a room is new to those there; the user's other devices are told that too.
	if own > above[m.OfUser(user)] || met {
		changed = append(changed, user)
	}
	signed, err := r.q.ListSignedSince(ctx, ListSignedSinceParams{Shard: int16(m.OfUser(user)), UserID: user, Pos: int64(above[m.OfUser(user)])})
	if err != nil {
		return nil, nil, fmt.Errorf("read whose keys were signed: %w", err)
	}
	return WithSigned(changed, left, signed), left, nil
}

// WithSigned adds those whose keys the user has signed to those of whom the user is told that they changed.
func WithSigned(changed, left, signed []string) []string {
	for _, u := range signed {
		if !slices.Contains(left, u) && !slices.Contains(changed, u) {
			changed = append(changed, u)
		}
	}
	return changed
}
