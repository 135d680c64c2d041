package room

import (
	"context"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/stateres"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// MaxBackfill bounds the events of one [Backfill], and MaxBackfillStates those of them whose state is given.
const (
	MaxBackfill       = 100
	MaxBackfillStates = 8
)

func (c *Backfill) room() id.RoomID { return c.Room }
func (c *Backfill) more() int       { return 12 * MaxBackfill }

//nolint:unparam // commands decide with an error, this one never has one
func (c *Backfill) decide(*view) (plan, error) {
	return plan{answer: Answer{Room: c.Room, Unchanged: true}}, nil
}

// backfillFact asks for the gap, for the command's events, and for what the database has of those that they and the gap's edge name.
type backfillFact struct{ c *Backfill }

type backfilled struct {
	accepted
	gap  roomdb.Gap
	open bool
	edge []roomdb.StoredEvent
	// states are those before events whose own past is not known.
	states map[id.EventID]stateres.State
	// base is a state of the room that these are stored as changes of.
	base snapshots
}

func (f backfillFact) load(ctx context.Context, r *live) (any, error) {
	// What was submitted before is committed first: another one may have filled the same gap.
	r.mu.Lock()
	last := r.last
	r.mu.Unlock()
	if last != nil {
		select {
		case <-last.Done():
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	db := r.term.host.DB
	b := &backfilled{accepted: accepted{rows: map[id.EventID]*roomdb.StoredEvent{}}, states: map[id.EventID]stateres.State{}}
	var err error
	if b.gap, b.open, err = db.Gap(ctx, r.nid, f.c.Gap); err != nil || !b.open {
		return b, err
	}
	if b.edge, err = db.EventsByNid(ctx, b.gap.Edge); err != nil {
		return nil, err
	}
	var ids []string
	for i := range b.edge {
		h, err := r.hold(&b.edge[i])
		if err != nil {
			return nil, err
		}
		for _, e := range append(h.ev.PrevEvents(), h.ev.EventID()) {
			ids = append(ids, string(e))
		}
		if b.base == nil {
			if b.base, err = db.Snapshots(ctx, b.edge[i].StateBefore); err != nil {
				return nil, err
			}
		}
	}
	staged, err := r.term.host.Sets.SetPiece(ctx, f.c.Set, 0, MaxBackfill)
	if err != nil {
		return nil, err
	}
	for i := range staged {
		e, err := event.Parse(r.rules, staged[i].JSON)
		if err != nil || e.RoomID() != r.id {
			continue // whoever staged it has checked that
		}
		ids = append(ids, string(e.EventID()))
		for _, list := range [][]id.EventID{e.PrevEvents(), e.AuthEvents(), {e.Redacts()}} {
			for _, n := range list {
				ids = append(ids, string(n))
			}
		}
		b.events, b.nids = append(b.events, e), append(b.nids, r.term.nid())
	}
	if e, ok := r.id.CreateEvent(); ok {
		ids = append(ids, string(e))
	}
	slices.Sort(ids)
	rows, err := db.EventsByID(ctx, r.nid, slices.Compact(ids))
	if err != nil {
		return nil, err
	}
	for i := range rows {
		b.rows[id.EventID(rows[i].EventID)] = &rows[i]
	}
	for _, s := range f.c.States[:min(len(f.c.States), MaxBackfillStates)] {
		given := &entered{members: map[stateres.Key]roomdb.LoadedMember{}}
		if err := given.readSet(ctx, r, s.Set); err != nil {
			return nil, err
		}
		b.states[s.Event] = stateres.NewState(given.pairs)
	}
	return b, nil
}

// backfill gives events that were missing their places before a gap's event: no entry tells of them, and nothing that is so now changes.
func (d *draft) backfill(c *Backfill, p *plan) error {
	given := ask[*backfilled](&d.view, backfillFact{c})
	if d.lacks() {
		return errLacks
	}
	if !given.open {
		return nil // somebody else has been at it
	}
	a := d.acceptor(&given.accepted)
	var placed []*roomdb.Event // those that are shown, each after those that it names
	var held []*held
	for i, e := range given.events {
		row, h, err := a.placeEarlier(e, given, i)
		if err != nil {
			return err
		}
		if row != nil {
			placed, held = append(placed, row), append(held, h)
		}
	}
	if a.lacks() {
		return errLacks
	}
	a.orderEarlier(given, placed)
	a.moveGap(given, placed, held)
	if a.lacks() {
		return errLacks
	}
	p.answer.Unchanged = len(a.rows) == 0
	return nil
}

// placeEarlier checks one event and makes its row, without a place yet; nil if it is not shown: it is known already, lacks what it names, or is
// rejected.
func (a *acceptor) placeEarlier(e *event.Event, given *backfilled, i int) (*roomdb.Event, *held, error) {
	stored := a.node(e.EventID())
	if stored != nil && !stored.outlier || e.Type() == event.TypeCreate && (stored == nil || stored.rejected) {
		return nil, nil, nil
	}
	var v Verdict
	prev := a.find(e.PrevEvents(), &v, a.withState)
	state, told := given.states[e.EventID()]
	var before snapshots
	switch {
	case len(v.Missing) == 0:
		if a.lacks() {
			return nil, nil, nil
		}
		var err error
		if before, err = a.before(prev); err != nil {
			return nil, nil, err
		}
	case told:
		snaps, row := given.base.push(a.r.term.nid(), a.r.nid, state)
		before = snaps
		a.rows = append(a.rows, row)
	default:
		return nil, nil, nil
	}
	v = Verdict{}
	auth := a.find(e.AuthEvents(), &v, a.node)
	if len(v.Missing) > 0 {
		return nil, nil, nil
	}
	h := a.holdNew(given.nids[i], e, auth)
	if stored != nil {
		h.nid, h.rejected = stored.nid, stored.rejected
	}
	var refusal error
	if e.Type() != event.TypeCreate { // which was judged when it was stored
		refusal = a.refuse(h, auth, before.state())
	}
	if a.lacks() {
		return nil, nil, nil
	}
	h.rejected = h.rejected || refusal != nil
	row := a.rowEarlier(h, prev, before, stored != nil)
	if h.rejected {
		return nil, nil, nil
	}
	return row, h, nil
}

// rowEarlier makes the row of an event that was checked.
func (a *acceptor) rowEarlier(h *held, prev []*node, before snapshots, stored bool) *roomdb.Event {
	row, body := a.rowOf(h.nid, h.ev)
	for _, n := range prev {
		row.Prev = append(row.Prev, n.nid)
	}
	row.Auth, row.StateBefore = h.auth, before.nid()
	after := before
	if key, ok := h.ev.StateKey(); ok {
		k := a.atom(key)
		row.StateKey = &k
		at := stateres.Key{Type: int64(row.Type), StateKey: int64(k)}
		replaced, _ := before.state().Get(at)
		row.Replaces = shard.Nid(replaced)
		if !h.rejected {
			var snapshot *roomdb.StateSnapshot
			after, snapshot = before.push(a.r.term.nid(), a.r.nid, before.state().Set(at, int64(h.nid)))
			a.rows = append(a.rows, snapshot)
		}
	}
	if a.lacks() {
		return row // all of it is done again
	}
	row.StateAfter = after.nid()
	a.byNid[h.nid] = h
	a.nodes[h.ev.EventID()] = &node{held: h, after: after, known: true}
	if h.rejected {
		row.Flags = roomdb.FlagRejected
	} else {
		a.redactFor(h, before.state(), body)
	}
	if stored {
		a.rows = append(a.rows, &earlier{row})
	} else {
		a.rows = append(a.rows, row)
	}
	return row
}

// earlier is the row of an event that was stored as an outlier: it becomes a [roomdb.EventPlaced] once its place is known.
type earlier struct{ *roomdb.Event }

// orderEarlier gives events their places: below the gap's event, the last of them the highest. What there is no place for stays without.
func (a *acceptor) orderEarlier(given *backfilled, placed []*roomdb.Event) {
	next, ok := given.gap.Next()
	for _, row := range slices.Backward(placed) {
		if !ok {
			break
		}
		row.Order = roomdb.Fixed(next)
		a.takePart(row)
		next, ok = (&roomdb.Gap{Ord: next, Floor: given.gap.Floor}).Next()
	}
	for i, r := range a.rows {
		if e, ok := r.(*earlier); ok {
			a.rows[i] = &roomdb.EventPlaced{
				Nid: e.Nid, Order: e.Order, Flags: e.Flags, StateBefore: e.StateBefore, StateAfter: e.StateAfter, Prev: e.Prev,
			}
		}
	}
}

// moveGap has the gap's edge name what it now knows, and moves the gap before the earliest of the events that were placed. It is closed if nothing
// is missing any more, or if there is no place for more.
func (a *acceptor) moveGap(given *backfilled, placed []*roomdb.Event, held []*held) {
	var edge []shard.Nid
	for i := range given.edge {
		row := &given.edge[i]
		n := a.node(id.EventID(row.EventID))
		if n == nil {
			continue
		}
		prev, whole := a.known(n.ev.PrevEvents())
		if !whole {
			edge = append(edge, row.Nid)
		}
		if !slices.Equal(prev, row.Prev) {
			order := roomdb.Order{}
			if row.Placed {
				order = roomdb.Fixed(row.Ord)
			}
			a.rows = append(a.rows, &roomdb.EventPlaced{
				Nid: row.Nid, Order: order, Flags: row.Flags, StateBefore: row.StateBefore, StateAfter: row.StateAfter,
				Extremities: row.Extremities, Prev: prev,
			})
		}
	}
	for i, h := range held {
		if _, whole := a.known(h.ev.PrevEvents()); !whole {
			edge = append(edge, placed[i].Nid)
		}
	}
	lowest := given.gap.Ord
	for range placed {
		next, ok := (&roomdb.Gap{Ord: lowest, Floor: given.gap.Floor}).Next()
		if !ok {
			edge = nil
			break
		}
		lowest = next
	}
	if lowest == given.gap.Ord && slices.Equal(edge, given.gap.Edge) {
		return
	}
	a.rows = append(a.rows, &roomdb.GapGone{Room: a.r.nid, Ord: given.gap.Ord})
	if len(edge) > 0 {
		a.rows = append(a.rows, &roomdb.GapRow{Room: a.r.nid, Order: roomdb.Fixed(lowest), Floor: given.gap.Floor, Edge: edge})
	}
}

// known gives the nids of those of events that are known with their state; whole says that they all are.
func (a *acceptor) known(events []id.EventID) (nids []shard.Nid, whole bool) {
	whole = true
	for _, e := range events {
		n := a.node(e)
		if n == nil {
			whole = false
			continue
		}
		nids = append(nids, n.nid)
		whole = whole && !n.outlier
	}
	return nids, whole
}

// lacksPast tells whether events that an event names are not known with their state.
func (a *acceptor) lacksPast(e *event.Event) bool {
	_, whole := a.known(e.PrevEvents())
	return !whole
}

// gapBefore notes that events before an event are missing. first says that nothing came before them here.
func (a *acceptor) gapBefore(row *roomdb.Event, body *entry.EventBody, first bool) {
	g := &roomdb.GapRow{Room: a.r.nid, Order: row.Order, Free: roomdb.RoomOfGap, Edge: []shard.Nid{row.Nid}}
	if first {
		g.Free, g.Floor = 0, roomdb.Beginning
	}
	a.room = g.Free
	row.Flags |= roomdb.FlagGap
	body.Flags |= entry.FlagGap
	a.rows = append(a.rows, g)
}
