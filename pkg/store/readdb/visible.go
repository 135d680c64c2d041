package readdb

import (
	"context"
	"maps"
	"math"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/matrix/stateres"
	"github.com/heddle-im/heddle/pkg/matrix/visibility"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

const (
	typeVisibility = "m.room.history_visibility"
	typeMember     = "m.room.member"
)

// Access is what a user may see of a room as a whole.
type Access struct {
	Ref roomdb.RoomRef
	// Member is the user's row; its membership is None for a stranger.
	Member roomdb.MemberRow
	// Until is the last order key that the user may see: the leaving of one who left, else no limit.
	Until int64
	// Peek says that a stranger, or one who left, may see the room because it is world readable now.
	Peek bool
}

// Joined tells whether the user is in the room.
func (a *Access) Joined() bool { return a.Member.Membership == roomdb.MembershipJoin }

// Access finds out what a user may see of a room. ok is false if the room is not known, or nothing of it may be seen.
func (r *Reader) Access(ctx context.Context, room id.RoomID, user id.UserID) (a Access, ok bool, err error) {
	ref, ok, err := r.RoomByID(ctx, room)
	if err != nil || !ok {
		return a, false, err
	}
	return r.AccessTo(ctx, ref, user)
}

// AccessTo is [Reader.Access] of a room that is known.
func (r *Reader) AccessTo(ctx context.Context, ref roomdb.RoomRef, user id.UserID) (a Access, ok bool, err error) {
	a = Access{Ref: ref, Until: math.MaxInt64}
	m, is, err := r.Member(ctx, ref.Nid, string(user))
	if err != nil {
		return a, false, err
	}
	if is {
		a.Member = m
	}
	if a.Joined() {
		return a, true, nil
	}
	current, err := r.CurrentStateAt(ctx, ref.Nid, []roomdb.StateName{{Type: typeVisibility}})
	if err != nil {
		return a, false, err
	}
	if e, is := current[roomdb.StateName{Type: typeVisibility}]; is {
		rules, known := roomver.Get(roomver.Version(ref.Version))
		if known {
			parsed, err := event.ParseTrusted(rules, e.JSON, id.EventID(e.EventID))
			if err != nil {
				return a, false, err
			}
			a.Peek = visibility.HistoryOf(parsed) == visibility.WorldReadable
		}
	}
	switch {
	case a.Peek:
		return a, true, nil
	case is && (m.Membership == roomdb.MembershipLeave || m.Membership == roomdb.MembershipBan) && !m.Forgotten:
		was, err := r.wasIn(ctx, m)
		a.Until = int64(m.Pos)
		return a, was, err
	}
	return a, false, nil
}

// wasIn tells whether a member who left had been in the room: a declined invitation opens nothing.
func (r *Reader) wasIn(ctx context.Context, m roomdb.MemberRow) (bool, error) {
	left, err := r.EventsByNid(ctx, []shard.Nid{m.Event})
	if err != nil || len(left) == 0 {
		return false, err
	}
	state, err := r.State(ctx, left[0].StateBefore)
	if err != nil {
		return false, err
	}
	views, err := r.views(ctx, m.Room.Shard(), id.UserID(m.UserID), map[shard.Nid]stateres.State{left[0].StateBefore: state})
	if err != nil {
		return false, err
	}
	return views[left[0].StateBefore].Membership == "join", nil
}

// joinedAfter tells whether the user joined after an order key. One who left had been in the room until then.
func (a *Access) joinedAfter(ord int64) bool {
	switch a.Member.Membership {
	case roomdb.MembershipJoin, roomdb.MembershipLeave, roomdb.MembershipBan:
		return ord < int64(a.Member.Pos)
	case roomdb.MembershipNone, roomdb.MembershipInvite, roomdb.MembershipKnock:
	}
	return false
}

// Visible tells of each item whether the user may see it, and notes the user's membership at it.
func (r *Reader) Visible(ctx context.Context, a *Access, user id.UserID, items []*Item) ([]bool, error) {
	out := make([]bool, len(items))
	states := make(map[shard.Nid]stateres.State)
	for i, it := range items {
		switch {
		case it.Ord > a.Until:
		case a.Joined() && it.Ord >= int64(a.Member.Pos):
			out[i], it.Membership = true, "join" // in the room from that event on
		default:
			states[it.StateBefore], states[it.StateAfter] = stateres.State{}, stateres.State{}
		}
	}
	if len(states) == 0 {
		return out, nil
	}
	states, err := r.States(ctx, slices.Collect(maps.Keys(states)))
	if err != nil {
		return nil, err
	}
	views, err := r.views(ctx, a.Ref.Nid.Shard(), user, states)
	if err != nil {
		return nil, err
	}
	for i, it := range items {
		if out[i] || it.Ord > a.Until {
			continue
		}
		before, after := views[it.StateBefore], views[it.StateAfter]
		reader := visibility.Reader{User: user, JoinedAfter: a.joinedAfter(it.Ord)}
		out[i] = visibility.CanSee(it.Event, reader, before, after)
		if it.Membership = after.Membership; it.Membership == "" {
			it.Membership = "leave"
		}
	}
	return out, nil
}

// views reads what the rules need of several states of one room: in three queries, however many they are.
func (r *Reader) views(ctx context.Context, s shard.ID, user id.UserID, states map[shard.Nid]stateres.State) (map[shard.Nid]visibility.View, error) {
	atoms, err := r.AtomsByName(ctx, s, []string{typeVisibility, typeMember, "", string(user)})
	if err != nil {
		return nil, err
	}
	keyOf := func(typ, key string) (stateres.Key, bool) {
		t, ok1 := atoms[typ]
		k, ok2 := atoms[key]
		return stateres.Key{Type: int64(t), StateKey: int64(k)}, ok1 && ok2
	}
	historyKey, hasHistory := keyOf(typeVisibility, "")
	memberKey, hasMember := keyOf(typeMember, string(user))
	var nids []shard.Nid
	for _, st := range states {
		if n, ok := st.Get(historyKey); ok && hasHistory {
			nids = append(nids, shard.Nid(n))
		}
		if n, ok := st.Get(memberKey); ok && hasMember {
			nids = append(nids, shard.Nid(n))
		}
	}
	rows, err := r.EventsByNid(ctx, nids)
	if err != nil {
		return nil, err
	}
	content := make(map[shard.Nid][]byte, len(rows))
	for i := range rows {
		content[rows[i].Nid] = rows[i].JSON
	}
	views := make(map[shard.Nid]visibility.View, len(states))
	for at, st := range states {
		var v visibility.View
		if n, ok := st.Get(historyKey); ok && hasHistory {
			v.History = visibility.ParseHistory(contentString(content[shard.Nid(n)], "history_visibility"))
		}
		if n, ok := st.Get(memberKey); ok && hasMember {
			v.Membership = contentString(content[shard.Nid(n)], "membership")
		}
		views[at] = v
	}
	return views, nil
}
