package msync

import (
	"cmp"
	"context"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/matrix/stateres"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/readdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// maxSenders bounds the member events that are remembered for lazy loading, of one room.
const maxSenders = 512

// state gives the state events that are told beside a timeline: of a room that is told as a whole the whole state, else what
// changed of it since the client heard of it. A client that asks for the state after the timeline gets it as it is at the end. Another one puts
// the events of the timeline on top of what it gets: so of what it finds in the timeline it gets what was there before, and of what changed without
// being told in the timeline, because of a filter, a gap or a resolution of forks, what it came to.
func (v *view) state(ctx context.Context, x *part, st *stretch) ([]*readdb.Item, error) {
	f := &v.Filter.Room.State
	if !f.PassRoom(x.ref.RoomID) {
		return nil, nil
	}
	var items []*readdb.Item
	var err error
	switch {
	case x.held && !x.fresh && !v.FullState:
		items = v.heldState(st)
	case st.end == 0 && !x.fresh && !v.FullState:
		// nothing happened in the room
	default:
		if items, err = v.readState(ctx, x, st); err != nil {
			return nil, err
		}
	}
	if f.LazyLoadMembers {
		if items, err = v.lazy(ctx, x, st, items); err != nil {
			return nil, err
		}
	}
	items = slices.DeleteFunc(items, func(it *readdb.Item) bool { return !it.Passes(f, x.ref.RoomID, nil) })
	if f.LazyLoadMembers {
		v.telling.tell(x.ref.Nid, memberKeys(items, st.items)...)
	}
	return items, nil
}

func (v *view) after() bool { return v.StateAfter || v.StateAfterUnstable }

// heldState is the state that changed, by what is held.
func (v *view) heldState(st *stretch) []*readdb.Item {
	type place struct {
		last, before *readdb.Item // before the first event that is told
	}
	places := make(map[stateKey]*place)
	var order []*place
	begun := false
	for _, it := range st.all {
		begun = begun || len(st.items) > 0 && it == st.items[0]
		k, ok := keyOf(it)
		if !ok || it.NoEffect {
			continue
		}
		p := places[k]
		if p == nil {
			p = new(place)
			places[k], order = p, append(order, p)
		}
		if p.last = it; !begun {
			p.before = it
		}
	}
	items := make([]*readdb.Item, 0, len(order))
	for _, p := range order {
		switch {
		case v.after() || !st.tells(p.last.Nid):
			items = append(items, p.last)
		case p.before != nil:
			items = append(items, p.before)
		}
	}
	return items
}

// readState reads the state, or what changed of it, from snapshots.
func (v *view) readState(ctx context.Context, x *part, st *stretch) ([]*readdb.Item, error) {
	start, end := st.start, st.end
	last := func(upto shard.Pos) (shard.Nid, error) { return v.e.Rooms.StateAsOf(ctx, x.ref.Nid, int64(upto)) }
	var err error
	if end == 0 { // nothing is told of the timeline: the state as of the upper token
		if end, err = last(v.to(x.ref.Nid.Shard())); err != nil {
			return nil, err
		}
		start = end
	}
	at := []shard.Nid{end}
	told := make(map[shard.Nid]bool)
	if !v.after() {
		for _, it := range st.items {
			if _, is := it.Event.StateKey(); is {
				told[it.Nid] = true
			}
		}
		if len(told) > 0 {
			at = append(at, start)
		}
	}
	// old is the state that the client holds, of which it is told what changed; of a room that is told as a whole, this is needed for the members.
	var old shard.Nid
	since, incremental := v.from(x.ref.Nid.Shard())
	whole := !incremental || x.fresh || v.FullState
	if whole && incremental && v.Filter.Room.State.LazyLoadMembers {
		if incremental, err = v.wasIn(ctx, x, since); err != nil {
			return nil, err
		}
	}
	if incremental && (!whole || v.Filter.Room.State.LazyLoadMembers) {
		if old, err = last(since); err != nil {
			return nil, err
		}
		at = append(at, old)
	}
	if whole = whole || old == 0; old == 0 {
		v.telling.renew(x.ref.Nid) // what became of members whom the client knew is not told
	}
	var states map[shard.Nid]stateres.State
	if x.common.has(at) {
		states = x.common.states
	} else if states, err = v.e.Rooms.States(ctx, at); err != nil {
		return nil, err
	}
	skip := func(stateres.Key) bool { return false }
	if whole {
		if skip, err = v.lazyKeys(ctx, x, st); err != nil {
			return nil, err
		}
	}
	return v.stateItems(ctx, x, different(states[end], states[start], states[old], whole, told, skip))
}

// different gives what a state has and an older one had not, or, as a whole, all that it has; but of what the older one had not changed, or if there
// is none, not what is to be skipped. In the place of events that are told it gives what there was before them.
func different(end, before, was stateres.State, whole bool, told map[shard.Nid]bool, skip func(stateres.Key) bool) []shard.Nid {
	var nids []shard.Nid
	for k, n := range end.All() {
		had, ok := was.Get(k)
		same := had == n && ok
		if same && !whole || (same || was.Len() == 0) && skip(k) {
			continue
		}
		if told[shard.Nid(n)] {
			if n, ok = before.Get(k); !ok || n == had && !whole || told[shard.Nid(n)] {
				continue
			}
		}
		nids = append(nids, shard.Nid(n))
	}
	return nids
}

// wasIn tells whether the user was in a room at a place in its order: then a client that has heard of it up to there holds its state.
func (v *view) wasIn(ctx context.Context, x *part, at shard.Pos) (bool, error) {
	if !x.fresh {
		return true, nil
	}
	own, err := v.e.Rooms.MemberEvents(ctx, x.ref.Nid, v.u.id, int64(at)+1, 1)
	return err == nil && len(own) > 0 && joins(&own[0]), err
}

func joins(e *roomdb.MemberEvent) bool {
	content, _ := canonjson.Get(e.JSON, "content")
	membership, _ := canonjson.GetString(content, "membership")
	return membership == event.Join
}

// goneFrom gives after which place a client that has heard of a room up to another one is told of it, now that the user has left: from then on if he was
// in the room then; the whole of it if he came and went since, for the client holds nothing of that stay; or else, outside, no more than the going.
func (v *view) goneFrom(ctx context.Context, x *part, since shard.Pos) (above int64, whole, outside bool, _ error) {
	was, came, err := v.stayed(ctx, x, since)
	switch {
	case err != nil || was:
		return int64(since), false, false, err
	case came:
		return roomdb.Beginning, true, false, nil
	default:
		return int64(x.pos) - 1, false, true, nil
	}
}

// stayed tells of a user who has left whether he was in the room at a place in its order, and whether he came in after it.
func (v *view) stayed(ctx context.Context, x *part, at shard.Pos) (was, came bool, _ error) {
	const page, pages = 32, 8 // of who comes and goes more often it is enough that he came
	below := int64(x.pos)
	for range pages {
		own, err := v.e.Rooms.MemberEvents(ctx, x.ref.Nid, v.u.id, below, page)
		if err != nil {
			return false, false, err
		}
		for i := range own {
			below = own[i].Ord
			if below <= int64(at) {
				return joins(&own[i]), came, nil
			}
			came = came || joins(&own[i])
		}
		if len(own) < page {
			break
		}
	}
	return false, came, nil
}

// lazyKeys tells which member events need not even be read when members are loaded lazily.
func (v *view) lazyKeys(ctx context.Context, x *part, st *stretch) (skip func(stateres.Key) bool, err error) {
	if !v.Filter.Room.State.LazyLoadMembers {
		return func(stateres.Key) bool { return false }, nil
	}
	names := append(append(senders(st), x.heroes...), typeMember, v.u.id)
	numbers, err := v.numbersOf(ctx, x, names)
	if err != nil {
		return nil, err
	}
	return otherMembers(numbers, names), nil
}

// otherMembers tells of the members who are not named.
func otherMembers(numbers map[string]shard.Nid, names []string) func(stateres.Key) bool {
	member := int64(numbers[typeMember])
	wanted := make(map[int64]bool, len(names))
	for _, n := range names {
		if nid, ok := numbers[n]; ok {
			wanted[int64(nid)] = true
		}
	}
	return func(k stateres.Key) bool { return k.Type == member && !wanted[k.StateKey] }
}

func (v *view) itemsOf(ctx context.Context, ref roomdb.RoomRef, nids []shard.Nid) ([]*readdb.Item, error) {
	if len(nids) == 0 {
		return nil, nil
	}
	stored, err := v.e.Rooms.EventsByNid(ctx, nids)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(stored, func(a, b roomdb.StoredEvent) int { return cmp.Compare(a.Ord, b.Ord) })
	items, err := v.e.Rooms.Items(ctx, ref.Version, stored)
	for _, it := range items {
		it.Membership = ""
	}
	return items, err
}

// senders are those who sent what the timeline tells.
func senders(st *stretch) []string {
	var out []string
	for _, it := range st.items {
		if s := string(it.Event.Sender()); !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// memberEvents gives current member events, those that are remembered without a query.
func (v *view) memberEvents(ctx context.Context, x *part, users []string) ([]*readdb.Item, error) {
	var out []*readdb.Item
	var names []roomdb.StateName
	v.e.mu.Lock()
	r := v.e.rooms[x.ref.Nid]
	for _, u := range users {
		if r != nil && r.senders[u] != nil {
			out = append(out, r.senders[u])
		} else {
			names = append(names, roomdb.StateName{Type: typeMember, StateKey: u})
		}
	}
	var last shard.Pos
	if r != nil {
		last = r.last
	}
	v.e.mu.Unlock()
	if len(names) == 0 {
		return out, nil
	}
	found, err := v.e.Rooms.CurrentStateAt(ctx, x.ref.Nid, names)
	if err != nil {
		return nil, err
	}
	rules := roomver.MustGet(roomver.Version(x.ref.Version))
	for name, e := range found {
		ev, err := event.ParseTrusted(rules, e.JSON, id.EventID(e.EventID))
		if err != nil {
			return nil, err
		}
		if e.RedactedBy != 0 {
			ev = ev.Redact()
		}
		it := &readdb.Item{Nid: e.Nid, Room: x.ref.Nid, Event: ev}
		out = append(out, it)
		v.e.mu.Lock()
		// If something happened in the room since, this may be outdated already.
		if r := v.e.rooms[x.ref.Nid]; r != nil && r.last == last && v.hasRead(x.ref.Nid, last) && len(r.senders) < maxSenders {
			r.senders[name.StateKey] = it
		}
		v.e.mu.Unlock()
	}
	return out, nil
}

func (v *view) appendState(b []byte, items []*readdb.Item) []byte {
	switch {
	case v.StateAfter:
		b = append(b, `"state_after":{"events":[`...)
	case v.StateAfterUnstable:
		b = append(b, `"org.matrix.msc4222.state_after":{"events":[`...)
	default:
		b = append(b, `"state":{"events":[`...)
	}
	for i, it := range items {
		if i > 0 {
			b = append(b, ',')
		}
		b = v.appendEvent(b, it)
	}
	return append(b, `]}`...)
}
