package readdb

import (
	"context"
	"math"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
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
	// JoinedUntil is the order key of the event by which the user was last taken out of the room: no limit for one who is in it,
	// roomdb.Beginning for one who never was.
	JoinedUntil int64
	// Until is the last order key of the stretch that is read: the leaving of one who left, else no limit.
	Until int64
	// Peek says that a stranger, or one who left, may see the room because it is world readable now.
	Peek bool
}

// Was tells whether the user is in the room or has been.
func (a *Access) Was() bool { return a.JoinedUntil != roomdb.Beginning }

// Joined tells whether the user is in the room.
func (a *Access) Joined() bool { return a.Member.Membership == roomdb.MembershipJoin }

// Access finds out what a user may see of a room. ok is false if it is nothing as a whole, or the server does not have the room, in
// which case the answer names none. Single events of a room may have been for everybody: with what is answered, [Reader.Visible] knows
// them.
func (r *Reader) Access(ctx context.Context, room id.RoomID, user id.UserID) (a Access, ok bool, err error) {
	ref, known, err := r.RoomByID(ctx, room)
	if err != nil || !known {
		return a, false, err
	}
	return r.AccessTo(ctx, ref, user)
}

// AccessTo is [Reader.Access] of a room that is known.
func (r *Reader) AccessTo(ctx context.Context, ref roomdb.RoomRef, user id.UserID) (a Access, ok bool, err error) {
	a = Access{Ref: ref, Until: math.MaxInt64, JoinedUntil: roomdb.Beginning}
	m, is, err := r.Member(ctx, ref.Nid, string(user))
	if err != nil {
		return a, false, err
	}
	if is {
		a.Member = m
	}
	if a.Joined() {
		a.JoinedUntil = math.MaxInt64
		return a, true, nil
	}
	if is && !m.Forgotten {
		if a.JoinedUntil, err = r.lastLeft(ctx, ref.Nid, user); err != nil {
			return a, false, err
		}
	}
	current, err := r.CurrentStateAt(ctx, ref.Nid, []roomdb.StateName{{Type: typeVisibility}})
	if err != nil {
		return a, false, err
	}
	if e, is := current[roomdb.StateName{Type: typeVisibility}]; is && e.RedactedBy == 0 {
		a.Peek = visibility.ParseHistory(contentString(e.JSON, "history_visibility")) == visibility.WorldReadable
	}
	if a.Was() && !a.Peek {
		a.Until = a.JoinedUntil
	}
	return a, a.Peek || a.Was(), nil
}

// How far back a user's member events in a room are looked through for the last time that the user was in it.
const (
	memberPage  = 32
	memberPages = 32
)

// lastLeft gives the order key of the event by which a user who is not in a room was last taken out of it; roomdb.Beginning if the user
// never was in it. Declining an invitation, and being banned after leaving, take nobody out.
func (r *Reader) lastLeft(ctx context.Context, room shard.Nid, user id.UserID) (int64, error) {
	later := roomdb.End
	for range memberPages {
		page, err := r.MemberEvents(ctx, room, string(user), later, memberPage)
		if err != nil {
			return 0, err
		}
		for _, e := range page {
			if contentString(e.JSON, "membership") == event.Join {
				return later, nil
			}
			later = e.Ord
		}
		if len(page) < memberPage {
			break
		}
	}
	return roomdb.Beginning, nil
}

// FirstJoin tells whether a user's joining of a room, at an order key, is the first that a client of theirs hears of its timeline: one that had
// been in the room, or declined an invitation, has been told the end of that.
func (r *Reader) FirstJoin(ctx context.Context, room shard.Nid, user id.UserID, ord int64) (bool, error) {
	page, err := r.MemberEvents(ctx, room, string(user), ord, memberPage)
	if err != nil {
		return false, err
	}
	for _, e := range page {
		if m := contentString(e.JSON, "membership"); m != event.Invite && m != event.Knock {
			return false, nil
		}
	}
	return len(page) < memberPage, nil
}

// joinedAfter tells whether the user has been in the room at any time after an order key. One who left had been until then.
func (a *Access) joinedAfter(ord int64) bool { return ord < a.JoinedUntil }

// Visible tells of each item whether the user may see it, and notes the user's membership at it. Of what was not sent to the user, the events
// of those who were erased since lose their content.
func (r *Reader) Visible(ctx context.Context, a *Access, user id.UserID, items []*Item) ([]bool, error) {
	out := make([]bool, len(items))
	var at []shard.Nid
	for i, it := range items {
		if a.Joined() && it.Ord >= int64(a.Member.Pos) {
			out[i], it.Membership = true, event.Join // in the room from that event on
			continue
		}
		at = append(at, it.StateBefore, it.StateAfter)
	}
	if len(at) == 0 {
		return out, nil
	}
	states, err := r.States(ctx, at)
	if err != nil {
		return nil, err
	}
	views, err := r.views(ctx, a.Ref.Nid.Shard(), user, states)
	if err != nil {
		return nil, err
	}
	for i, it := range items {
		if out[i] {
			continue
		}
		before, after := views[it.StateBefore], views[it.StateAfter]
		reader := visibility.Reader{User: user, JoinedAfter: a.joinedAfter(it.Ord)}
		out[i] = visibility.CanSee(it.Event, reader, before, after)
		if it.Membership = after.Membership; it.Membership == "" {
			it.Membership = event.Leave
		}
	}
	return out, r.prune(ctx, items)
}

// prune takes the content out of events of users of this server who were erased, where the reader was not in the room to receive them (spec:
// deactivation with erase). It takes a query only if there are such events of anybody.
func (r *Reader) prune(ctx context.Context, items []*Item) error {
	var p roomdb.Senders
	for _, it := range items {
		if u := string(it.Event.Sender()); it.Membership != event.Join && r.Shards.Local(u) {
			p.Add(r.Shards.OfUser(u), u)
		}
	}
	if p.Empty() {
		return nil
	}
	erased, err := r.Erased(ctx, &p)
	if err != nil || len(erased) == 0 {
		return err
	}
	for _, it := range items {
		if it.Membership != event.Join && erased[string(it.Event.Sender())] {
			it.Event = it.Event.Redact()
		}
	}
	return nil
}

// views reads what the rules need of several states of one room: in two queries, however many they are.
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
