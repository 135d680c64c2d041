package msync

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/heddle-im/heddle/pkg/infra/cache"
	"github.com/heddle-im/heddle/pkg/matrix/stateres"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/readdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// After a restart all who are in a room are told it as a whole, at about the same time. What is the same for all of them is read once
// and kept for a while: the latest events, the state, the receipts and who the room is named after. What of it a user may see, what the filter lets
// through and what is told of an event beside it is found out for each.

// place is what was read of a room, and up to where. What has happened in the room since has another place, so what is kept is never outdated.
type place struct {
	room        shard.Nid
	incarnation uint32
	upto        shard.Pos
	events      int    // of the timeline
	choice      string // of the state
	away        bool   // from a replica: who turns from it to the primary must not get its failure
}

// common is what a room tells everybody. It does not change once it is kept, nor do the items.
type common struct {
	newest []*readdb.Item // the latest events, the latest first
	end    shard.Nid      // the state after them
	// states has end, and, if it is chosen, the state before the events of a timeline that nothing is left out of.
	states   map[shard.Nid]stateres.State
	numbers  map[string]shard.Nid // of the names that are asked for; 0 of those that were nowhere in the shard
	items    map[shard.Nid]*readdb.Item
	receipts []roomdb.ReceiptRow
	summary  *summary
}

// maxCommonState bounds the state events that are kept of a room. Larger states are read by each who asks.
const maxCommonState = 10_000

func newCommons(b *cache.Budget) *cache.Cache[place, *common] {
	return cache.New("sync_rooms", b, nil, func(p place, c *common) int64 { return c.size() + int64(len(p.choice)) })
}

// size is about what it takes.
func (c *common) size() int64 {
	const entrySize, receiptSize, nameSize = 40, 200, 64
	n := 1024 + entrySize*int64(c.states[c.end].Len()) + receiptSize*int64(len(c.receipts)) + nameSize*int64(len(c.numbers))
	for _, it := range c.newest {
		n += sizeOf(it)
	}
	for _, it := range c.items {
		n += sizeOf(it)
	}
	return n
}

// choice is what is read of a room's state.
type choice struct {
	name   string // the same for all who choose alike, be they whoever
	before bool   // the state before the timeline is asked for, too
	// names are the names of which the numbers are asked for, and skip tells by them what is not chosen.
	names func(c *common, line *stretch) []string
	skip  func(numbers map[string]shard.Nid, names []string) func(stateres.Key) bool
}

// choice is what a sync asks of the state of a room that it tells as a whole.
func (v *view) choice() choice {
	if !v.Filter.Room.State.LazyLoadMembers {
		return choice{before: true}
	}
	return choice{
		name: "lazy", before: true, skip: otherMembers,
		names: func(c *common, line *stretch) []string {
			return append(append(senders(line), c.summary.heroes...), typeMember, v.u.id)
		},
	}
}

// share gets what a room that is told as a whole tells everybody who chooses alike.
func (v *view) share(ctx context.Context, x *part, what choice) (err error) {
	if !x.fresh || !x.settled || !v.Filter.Room.State.PassRoom(x.ref.RoomID) {
		return nil
	}
	at := place{
		room: x.ref.Nid, incarnation: v.upper.Incarnation, upto: x.upto, events: v.Filter.TimelineLimit() + 1,
		choice: what.name, away: v.e.Replica != nil && v.e.Replica.Away(ctx),
	}
	x.common, err = v.e.commons.Load(ctx, at, func(ctx context.Context, at place) (*common, error) { return v.readCommon(ctx, x.ref, at, what) })
	return err
}

// readCommon reads it. Of the members it takes those whom this user is told, who is one of many.
func (v *view) readCommon(ctx context.Context, ref roomdb.RoomRef, at place, what choice) (*common, error) {
	c := &common{items: make(map[shard.Nid]*readdb.Item)}
	stored, err := v.e.Rooms.TimelineBackward(ctx, ref.Nid, int64(at.upto)+1, roomdb.Beginning, at.events)
	if err != nil {
		return nil, err
	}
	if c.newest, err = v.e.Rooms.Items(ctx, ref.Version, stored); err != nil {
		return nil, err
	}
	if c.summary, err = v.summaryOf(ctx, ref.Nid); err != nil {
		return nil, err
	}
	if c.receipts, err = v.e.Rooms.ReceiptsSince(ctx, ref.Nid, 0); err != nil || len(stored) == 0 {
		return c, err
	}
	if c.end, err = v.e.Rooms.RoomState(ctx, &stored[0]); err != nil {
		return nil, err
	}
	start, told := c.end, make(map[shard.Nid]bool)
	line := &stretch{items: c.newest[:min(len(c.newest), at.events-1)]}
	for _, it := range line.items {
		start = it.StateBefore
		if it.Event.IsState() {
			told[it.Nid] = what.before
			c.items[it.Nid] = it
		}
	}
	wants := []shard.Nid{c.end}
	if what.before && len(told) > 0 {
		wants = append(wants, start)
	}
	if c.states, err = v.e.Rooms.States(ctx, wants); err != nil {
		return nil, err
	}
	skip := func(stateres.Key) bool { return false }
	if what.names != nil {
		names := what.names(c, line)
		if c.numbers, err = v.e.Rooms.AtomsByName(ctx, ref.Nid.Shard(), names); err != nil {
			return nil, err
		}
		skip = what.skip(c.numbers, names)
		for _, name := range names {
			c.numbers[name] += 0 // not in the state, then
		}
	}
	nids := slices.DeleteFunc(different(c.states[c.end], c.states[start], stateres.State{}, true, told, skip), func(n shard.Nid) bool { return c.items[n] != nil })
	if len(nids) > maxCommonState {
		return c, nil
	}
	items, err := v.itemsOf(ctx, ref, nids)
	for _, it := range items {
		c.items[it.Nid] = it
	}
	return c, err
}

// latest gives the latest events for one user, for whom more is noted of them.
func (c *common) latest() []*readdb.Item {
	copies := make([]readdb.Item, len(c.newest))
	out := make([]*readdb.Item, len(copies))
	for i, it := range c.newest {
		copies[i] = *it
		out[i] = &copies[i]
	}
	return out
}

// has tells whether it has all of some states.
func (c *common) has(at []shard.Nid) bool {
	return c != nil && !slices.ContainsFunc(at, func(n shard.Nid) bool { _, ok := c.states[n]; return !ok })
}

// stateOf gives the state of a room at a place in it.
func (v *view) stateOf(ctx context.Context, x *part, at shard.Nid) (stateres.State, error) {
	if x.common != nil {
		if state, ok := x.common.states[at]; ok {
			return state, nil
		}
	}
	return v.e.Rooms.State(ctx, at)
}

// stateItems gives state events of a room, the earliest first.
func (v *view) stateItems(ctx context.Context, x *part, nids []shard.Nid) ([]*readdb.Item, error) {
	if x.common == nil {
		return v.itemsOf(ctx, x.ref, nids)
	}
	items := make([]*readdb.Item, 0, len(nids))
	var missing []shard.Nid
	for _, n := range nids {
		if it := x.common.items[n]; it != nil {
			items = append(items, it)
		} else {
			missing = append(missing, n)
		}
	}
	read, err := v.itemsOf(ctx, x.ref, missing)
	items = append(items, read...)
	slices.SortFunc(items, func(a, b *readdb.Item) int { return cmp.Compare(a.Ord, b.Ord) })
	return items, err
}

// numbersOf gives the numbers of names in a room's shard.
func (v *view) numbersOf(ctx context.Context, x *part, names []string) (map[string]shard.Nid, error) {
	s := x.ref.Nid.Shard()
	if x.common == nil || x.common.numbers == nil {
		return v.e.Rooms.AtomsByName(ctx, s, names)
	}
	out := make(map[string]shard.Nid, len(names))
	var missing []string
	for _, name := range names {
		n, ok := x.common.numbers[name]
		if !ok && name == v.u.id {
			n, ok = v.own.get(s)
		}
		switch {
		case !ok:
			missing = append(missing, name)
		case n != 0:
			out[name] = n
		}
	}
	if len(missing) == 0 {
		return out, nil
	}
	read, err := v.e.Rooms.AtomsByName(ctx, s, missing)
	for name, n := range read {
		if out[name] = n; name == v.u.id {
			v.own.set(s, n)
		}
	}
	return out, err
}

// receiptsNow gives the receipts of a room as they were read, but those that have moved since.
func (x *part) receiptsNow() []roomdb.ReceiptRow {
	if len(x.later) == 0 {
		return x.common.receipts
	}
	places := make(map[receiptKey]int, len(x.common.receipts))
	rows := slices.Clone(x.common.receipts)
	for i := range rows {
		places[keyOfReceipt(&rows[i])] = i
	}
	for i := range x.later {
		r := &x.later[i].ReceiptRow
		if at, ok := places[keyOfReceipt(r)]; !ok {
			rows = append(rows, *r)
		} else if rows[at].Pos < r.Pos {
			rows[at] = *r
		}
	}
	slices.SortFunc(rows, func(a, b roomdb.ReceiptRow) int { return cmp.Compare(a.Pos, b.Pos) })
	return rows
}

// ownNumbers are the numbers of the user's name in shards, as far as they were read for an answer.
type ownNumbers struct {
	mu sync.Mutex // guards of
	of map[shard.ID]shard.Nid
}

func (o *ownNumbers) get(s shard.ID) (shard.Nid, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, ok := o.of[s]
	return n, ok
}

func (o *ownNumbers) set(s shard.ID, n shard.Nid) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.of == nil {
		o.of = make(map[shard.ID]shard.Nid)
	}
	o.of[s] = n
}
