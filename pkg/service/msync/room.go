package msync

import (
	"context"
	"math"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/filter"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/shardlog/token"
	"github.com/heddle-im/heddle/pkg/store/readdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

const typeMember = "m.room.member"

// stretch is what is told of a room's timeline.
type stretch struct {
	items   []*readdb.Item
	limited bool
	// counted says that events are left out that may have changed what is unread: by the filter, or because the user ignores the sender by now.
	counted bool
	// before is the order key below which the client goes on reading backwards.
	before int64
	// all are the events after since, told or not, the oldest first, if they are held; from the database what they come to is told by the
	// difference of states.
	all []*readdb.Item
	// hidden are the keys of state events that are left out, after what is told: as far as a client folds the timeline into the state.
	hidden map[stateKey]bool
	// start and end are the states (snapshot nids) before the first event that is told and after the last that happened; 0 if the
	// timeline was held.
	start, end shard.Nid
}

type stateKey struct{ typ, key string }

func keyOf(it *readdb.Item) (k stateKey, ok bool) {
	key, ok := it.Event.StateKey()
	return stateKey{it.Event.Type(), key}, ok
}

// leaveOut notes that an event is not told.
func (st *stretch) leaveOut(it *readdb.Item) {
	if k, ok := keyOf(it); ok && !it.NoEffect {
		if st.hidden == nil {
			st.hidden = make(map[stateKey]bool)
		}
		st.hidden[k] = true
	}
}

// overtaken tells whether an event of the same key that comes later is left out. It is told in the state then, on top of which a client puts the timeline:
// what it replaced must not be there.
func (v *view) overtaken(st *stretch, it *readdb.Item) bool {
	k, ok := keyOf(it)
	return ok && !v.after() && st.hidden[k]
}

// tells says whether an event is told.
func (st *stretch) tells(nid shard.Nid) bool {
	return slices.ContainsFunc(st.items, func(it *readdb.Item) bool { return it.Nid == nid })
}

// joinedRoom makes the body of a room that the user is in; nil if there is nothing to tell.
func (v *view) joinedRoom(ctx context.Context, x *part) ([]byte, error) {
	if err := v.share(ctx, x, v.choice()); err != nil {
		return nil, err
	}
	st, err := v.timeline(ctx, x)
	if err != nil {
		return nil, err
	}
	summary, err := v.summary(ctx, x, st)
	if err != nil {
		return nil, err
	}
	state, err := v.state(ctx, x, st)
	if err != nil {
		return nil, err
	}
	receipts, err := v.receiptsOf(ctx, x)
	if err != nil {
		return nil, err
	}
	ephemeral := v.appendEphemeral(nil, x, receipts)
	data := v.roomData(x)
	whole := x.fresh || v.FullState
	if !whole && !st.limited && len(st.items)+len(state)+len(ephemeral)+len(data) == 0 && string(summary) == `{}` &&
		!st.counted && !x.counted && !slices.ContainsFunc(receipts, v.reads) {
		return nil, nil
	}
	if x.fresh && v.since != nil && !st.limited {
		// The client may hold events from when the user was in the room before: between those and these is a gap.
		first, err := v.e.Rooms.FirstJoin(ctx, x.ref.Nid, v.User, int64(x.pos))
		if err != nil {
			return nil, err
		}
		st.limited = !first
	}
	if err := v.aggregate(ctx, x, st); err != nil {
		return nil, err
	}
	b := v.appendTimeline(append([]byte(nil), '{'), st)
	b = v.appendState(append(b, ','), state)
	b = append(b, `,"ephemeral":{"events":[`...)
	b = append(b, ephemeral...)
	b = append(b, `]},"account_data":{"events":[`...)
	b = append(b, data...)
	b = v.appendUnread(append(b, `]},`...), x)
	b = append(b, `,"summary":`...)
	b = append(b, summary...)
	return append(b, '}'), nil
}

func isMember(it *readdb.Item) bool {
	_, state := it.Event.StateKey()
	return state && it.Event.Type() == typeMember
}

// leaving reads the timeline of a room that the user has left: after a place, up to the leaving. was tells whether the user had been in it;
// of one who had not, nothing but the leaving is told. It gives nil if the user has forgotten the room: nothing
// of it is told then.
func (v *view) leaving(ctx context.Context, x *part, above int64) (st *stretch, was bool, _ error) {
	a, _, err := v.e.Rooms.AccessTo(ctx, x.ref, v.User)
	if err != nil {
		return nil, false, err
	}
	if was = a.Was(); !was { // declined an invitation
		above = int64(x.pos) - 1
	}
	if a.Member.Forgotten {
		return nil, was, nil
	}
	a.Until, a.JoinedUntil = int64(x.pos), min(a.JoinedUntil, int64(x.pos))
	a.Member.Membership, a.Member.Pos = x.membership.membership, x.pos
	if st, err = v.read(ctx, x, above, int64(x.pos), &a); err != nil {
		return nil, was, err
	}
	if was && a.JoinedUntil < int64(x.pos) { // who was banned after leaving is not told what became of the room in between
		if st.end, err = v.e.Rooms.StateAsOf(ctx, x.ref.Nid, a.JoinedUntil); err != nil {
			return nil, was, err
		}
	}
	if st.limited {
		err = v.e.Rooms.Aggregate(ctx, &a, v.User, v.ignored, st.items)
	}
	return st, was, err
}

// leftRoom makes the body of a room that the user has left, up to the leaving.
func (v *view) leftRoom(ctx context.Context, x *part) ([]byte, error) {
	since, incremental := v.from(x.ref.Nid.Shard())
	above, whole, outside := roomdb.Beginning, !incremental, false
	if incremental {
		var err error
		if above, whole, outside, err = v.goneFrom(ctx, x, since); err != nil {
			return nil, err
		}
	}
	st, was, err := v.leaving(ctx, x, above)
	switch {
	case err != nil:
		return nil, err
	case st == nil && incremental: // what is forgotten is told as left, and no more than that
		b := v.appendState([]byte(`{"timeline":{"events":[],"limited":false},`), nil)
		return append(b, `,"account_data":{"events":[]}}`...), nil
	case st == nil:
		return nil, nil
	}
	var state []*readdb.Item
	if was && !outside {
		if state, err = v.state(ctx, &part{membership: x.membership, fresh: whole}, st); err != nil {
			return nil, err
		}
	}
	if whole && incremental && !st.limited { // the client may hold events of an earlier stay
		first, err := v.e.Rooms.FirstJoin(ctx, x.ref.Nid, v.User, int64(since)+1)
		if err != nil {
			return nil, err
		}
		st.limited = !first
	}
	b := v.appendTimeline(append([]byte(nil), '{'), st)
	b = v.appendState(append(b, ','), state)
	b = append(b, `,"account_data":{"events":[`...)
	b = append(b, v.roomData(x)...)
	return append(b, `]}}`...), nil
}

// timeline chooses what is told of a room's timeline.
func (v *view) timeline(ctx context.Context, x *part) (*stretch, error) {
	since, incremental := v.from(x.ref.Nid.Shard())
	if x.held && !x.fresh {
		return v.heldTimeline(ctx, x)
	}
	above := roomdb.Beginning
	var a *readdb.Access
	if incremental && !x.fresh {
		above = int64(since)
	} else {
		a = &readdb.Access{Ref: x.ref, Until: math.MaxInt64, JoinedUntil: math.MaxInt64}
		a.Member = roomdb.MemberRow{
			Room: x.ref.Nid, UserID: v.u.id, Membership: x.membership.membership, Event: x.event, Pos: x.pos, Local: true,
		}
	}
	return v.read(ctx, x, above, int64(v.to(x.ref.Nid.Shard())), a)
}

func (v *view) heldTimeline(ctx context.Context, x *part) (*stretch, error) {
	related, err := v.e.Rooms.RelatedBy(ctx, x.ref.Nid, &v.Filter.Room.Timeline, x.events)
	if err != nil {
		return nil, err
	}
	// What the client reads backwards from is where the database would have it too; if nothing of what there is fits in, the end.
	st := &stretch{before: int64(v.to(x.ref.Nid.Shard()))}
	limit := v.Filter.TimelineLimit()
	for i := len(x.events) - 1; i >= 0; i-- {
		it := x.events[i]
		st.counted = st.counted || v.ignoresAnew && v.ignores(it)
		shown := v.shown(x, it, related)
		if len(st.items) == limit && !shown {
			continue
		}
		if len(st.items) == limit || shown && v.overtaken(st, it) {
			st.limited = true
			break
		}
		st.before = it.Ord - 1
		if shown {
			st.items = append(st.items, it)
		} else {
			st.leaveOut(it)
		}
	}
	slices.Reverse(st.items)
	st.all = x.events
	return st, nil
}

// read reads what is told of a timeline from the database: the latest events of (above, upto]. With an access, only what it lets be
// seen.
func (v *view) read(ctx context.Context, x *part, above, upto int64, a *readdb.Access) (*stretch, error) {
	limit := v.Filter.TimelineLimit()
	st := &stretch{before: upto}
	below := upto + 1
	const pages = 8 // a filter that lets little through does not read the whole room
	for page := range pages {
		count := limit + 1
		if page > 0 {
			count = max(count, 100)
		}
		items, err := v.page(ctx, x, st, below, above, count)
		if err != nil {
			return nil, err
		}
		seen := make([]bool, len(items))
		if a != nil {
			if seen, err = v.e.Rooms.Visible(ctx, a, v.User, items); err != nil {
				return nil, err
			}
		}
		related, err := v.e.Rooms.RelatedBy(ctx, x.ref.Nid, &v.Filter.Room.Timeline, items)
		if err != nil {
			return nil, err
		}
		for i, it := range items {
			below = it.Ord
			// The user's own going is told in any case.
			if a != nil && !seen[i] && it.Nid != x.event {
				st.leaveOut(it)
				continue
			}
			shown := v.shown(x, it, related)
			if len(st.items) == limit && !shown && !it.Gap {
				continue
			}
			if len(st.items) == limit || shown && v.overtaken(st, it) {
				st.limited = true
				return st.reversed(), nil
			}
			if a == nil {
				it.Membership = "join"
			}
			st.before = it.Ord - 1
			if shown {
				st.items, st.start = append(st.items, it), it.StateBefore
			} else {
				st.leaveOut(it)
				st.counted = st.counted || v.ignoresAnew || !v.ignores(it)
			}
			if it.Gap { // what was there before does not lead up to it
				st.limited = true
				return st.reversed(), nil
			}
		}
		if len(items) < count {
			return st.reversed(), nil
		}
	}
	st.limited = true
	return st.reversed(), nil
}

// page reads the next events of a stretch, the latest first. The first page tells where the stretch ends.
func (v *view) page(ctx context.Context, x *part, st *stretch, below, above int64, count int) ([]*readdb.Item, error) {
	first := st.end == 0
	if first && x.common != nil {
		st.start, st.end = x.common.end, x.common.end
		return x.common.latest(), nil
	}
	stored, err := v.e.Rooms.TimelineBackward(ctx, x.ref.Nid, below, above, count)
	if err != nil {
		return nil, err
	}
	if first && len(stored) > 0 {
		if st.end, err = v.e.Rooms.RoomState(ctx, &stored[0]); err != nil {
			return nil, err
		}
		st.start = st.end
	}
	return v.e.Rooms.Items(ctx, x.ref.Version, stored)
}

// shown tells whether an event of the timeline is told: it passes the filter, and is not a message of somebody whom the user
// ignores.
func (v *view) shown(x *part, it *readdb.Item, related map[string]bool) bool {
	return !v.ignores(it) && it.Passes(&v.Filter.Room.Timeline, x.ref.RoomID, related)
}

func (v *view) ignores(it *readdb.Item) bool {
	_, state := it.Event.StateKey()
	return !state && v.ignored[string(it.Event.Sender())]
}

func (st *stretch) reversed() *stretch {
	slices.Reverse(st.items)
	return st
}

func (v *view) appendTimeline(b []byte, st *stretch) []byte {
	b = append(b, `"timeline":{"events":[`...)
	for i, it := range st.items {
		if i > 0 {
			b = append(b, ',')
		}
		b = v.appendEvent(b, it)
	}
	b = append(b, `],"prev_batch":`...)
	b = canonjson.AppendString(b, token.Room{Order: st.before}.Encode())
	if st.limited {
		return append(b, `,"limited":true}`...)
	}
	return append(b, `,"limited":false}`...)
}

// appendEvent appends an event in the format and with the members that the filter asks for.
func (v *view) appendEvent(b []byte, it *readdb.Item) []byte {
	if v.Filter.Picks() {
		return v.Filter.AppendPicked(b, v.appendWhole(nil, it))
	}
	return v.appendWhole(b, it)
}

func (v *view) appendWhole(b []byte, it *readdb.Item) []byte {
	if v.Filter.EventFormat == filter.FormatFederation {
		return it.Event.AppendFederation(b, it.AppendUnsigned(nil, v.now))
	}
	return it.Append(b, v.now, true)
}
