package room

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/eventauth"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/stateres"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/feddb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// maxAccept bounds the events of one command.
const maxAccept = 100

func (c *Accept) room() id.RoomID { return c.Room }

// more: each event may need its state, the events of that, and the auth chains of a resolution.
func (c *Accept) more() int { return 12 * len(c.Events) }

func (c *Accept) decide(*view) (plan, error) {
	if len(c.Events) > maxAccept {
		return plan{}, mxerr.Newf(mxerr.InvalidParam, "more than %d events at once", maxAccept)
	}
	return plan{answer: Answer{Room: c.Room}}, nil // the draft decides, event by event
}

// acceptFact asks for the command's events, and for what the database has of those that they name.
type acceptFact struct{ c *Accept }

type accepted struct {
	events []*event.Event // nil: malformed
	errs   []error
	rows   map[id.EventID]*roomdb.StoredEvent
	nids   []shard.Nid // for the events to have, the same at each attempt
}

func (f acceptFact) load(ctx context.Context, r *live) (any, error) {
	a := &accepted{rows: map[id.EventID]*roomdb.StoredEvent{}}
	var ids []string
	for _, pdu := range f.c.Events {
		e, err := event.Parse(r.rules, pdu)
		if err == nil && (e.RoomID() != r.id || e.Type() == event.TypeCreate) {
			err = errors.New("it is no event of this room")
		}
		if err != nil {
			e = nil
		} else {
			ids = append(ids, string(e.EventID()))
			for _, list := range [][]id.EventID{e.PrevEvents(), e.AuthEvents(), {e.Redacts()}} {
				for _, n := range list {
					ids = append(ids, string(n))
				}
			}
		}
		a.events, a.errs, a.nids = append(a.events, e), append(a.errs, err), append(a.nids, r.term.nid())
	}
	if e, ok := r.id.CreateEvent(); ok {
		ids = append(ids, string(e))
	}
	slices.Sort(ids)
	rows, err := r.term.host.DB.EventsByID(ctx, r.nid, slices.Compact(ids))
	if err != nil {
		return nil, err
	}
	for i := range rows {
		a.rows[id.EventID(rows[i].EventID)] = &rows[i]
	}
	return a, nil
}

// acceptor takes the events of one command into a draft.
type acceptor struct {
	*draft
	given *accepted
	nodes map[id.EventID]*node
	relay bool
	// asked says that the policy server has been asked to sign what it had not; device and txn are of the local sender.
	asked  bool
	device id.DeviceID
	txn    string
}

// node is an event that others build on.
type node struct {
	*held
	after snapshots
	known bool // after is set
	// outlier: its state is not known.
	outlier bool
}

func (d *draft) accept(c *Accept, p *plan) error {
	given := ask[*accepted](&d.view, acceptFact{c})
	if d.lacks() {
		return errLacks
	}
	a := d.acceptor(given)
	a.relay, a.asked, a.device, a.txn = c.Relay, c.Asked, c.Device, c.Txn
	verdicts := make([]Verdict, len(given.events))
	for i, e := range given.events {
		if e == nil {
			verdicts[i] = Verdict{Fate: FateMalformed, Reason: given.errs[i].Error()}
			continue
		}
		v, err := a.take(e, given.nids[i])
		if err != nil {
			return err
		}
		verdicts[i] = v
	}
	var done []int64
	for i := range min(len(verdicts), len(c.Staged)) {
		if verdicts[i].Fate != FateMissing && verdicts[i].Fate != FateUnsigned {
			done = append(done, c.Staged[i])
		}
	}
	if len(done) > 0 {
		a.rows = append(a.rows, &feddb.StagedGone{Seqs: done})
	}
	if len(verdicts) == 1 {
		p.answer.Event = verdicts[0].Event
	}
	return p.tell(verdicts)
}

// tell answers verdicts.
func (p *plan) tell(verdicts []Verdict) error {
	data, err := json.Marshal(verdicts)
	if err != nil {
		return fmt.Errorf("encode verdicts: %w", err)
	}
	p.answer.Data = data
	return nil
}

// node finds an event that another names, nil if it is not known.
func (a *acceptor) node(e id.EventID) *node {
	if n := a.nodes[e]; n != nil {
		return n
	}
	row := a.given.rows[e]
	if row == nil {
		return nil
	}
	h, err := a.r.hold(row)
	if err != nil {
		return nil // what we stored ourselves can be read
	}
	n := &node{held: h, outlier: row.Flags.Has(roomdb.FlagOutlier)}
	a.nodes[e] = n
	return n
}

// withState finds an event and the state after it, nil if that is not known.
func (a *acceptor) withState(e id.EventID) *node {
	n := a.node(e)
	if n == nil || n.known {
		return n
	}
	for _, t := range a.head.tips {
		if t.nid == n.nid {
			n.after, n.known = t.snaps, true
			return n
		}
	}
	row := a.given.rows[e]
	if row.Flags.Has(roomdb.FlagOutlier) {
		return nil
	}
	n.after, n.known = ask[[]roomdb.Snapshot](&a.view, snapshotsFact{row.StateAfter}), true
	return n
}

// snapshotsFact asks for a stored state.
type snapshotsFact struct{ at shard.Nid }

func (f snapshotsFact) load(ctx context.Context, r *live) (any, error) {
	return r.term.host.DB.Snapshots(ctx, f.at)
}

// take takes one event through the checks on receipt, from the fourth on.
func (a *acceptor) take(e *event.Event, nid shard.Nid) (Verdict, error) {
	v := Verdict{Event: e.EventID()}
	stored := a.node(v.Event)
	if stored != nil && !stored.outlier {
		v.Fate = FateKnown
		return v, nil
	}
	prev := a.find(e.PrevEvents(), &v, a.withState)
	auth := a.find(e.AuthEvents(), &v, a.node)
	if len(v.Missing) > 0 {
		v.Fate = FateMissing
		return v, nil
	}
	if a.lacks() {
		return v, errLacks
	}
	before, err := a.before(prev)
	if err != nil {
		return v, err
	}
	h := a.holdNew(nid, e, auth)
	if stored != nil {
		h.nid = stored.nid
	}
	refusal := a.refuse(h, auth, before.state())
	soft := a.refuseByState(h, a.head.state)
	if refusal == nil && soft == nil {
		server, ok := a.recommended(e)
		switch {
		case ok:
		case !a.asked:
			v.Fate, v.Policy = FateUnsigned, server
			return v, nil
		default:
			soft = errNotRecommended
		}
	}
	if a.lacks() {
		return v, errLacks
	}
	switch {
	case refusal != nil:
		h.rejected = true
		v.Fate, v.Reason = FateRejected, refusal.Error()
	case soft != nil:
		v.Fate, v.Reason = FateSoftFailed, soft.Error()
	default:
		v.Fate = FateAccepted
	}
	return v, a.put(h, prev, before, v.Fate, stored != nil)
}

// errNotRecommended is why an event fails softly that the room's policy server does not sign.
var errNotRecommended = errors.New("the room's policy server has not signed it")

func (a *acceptor) holdNew(nid shard.Nid, e *event.Event, auth []*node) *held {
	h := &held{nid: nid, ev: e, red: eventauth.Reduce(e)}
	for _, n := range auth {
		h.auth = append(h.auth, n.nid)
	}
	return h
}

// find gives the nodes that an event names, and notes those that are not known.
func (a *acceptor) find(ids []id.EventID, v *Verdict, look func(id.EventID) *node) []*node {
	nodes := make([]*node, 0, len(ids))
	for _, e := range ids {
		n := look(e)
		if n == nil {
			if !slices.Contains(v.Missing, e) {
				v.Missing = append(v.Missing, e)
			}
			continue
		}
		nodes = append(nodes, n)
	}
	return nodes
}

// refuse checks an event against its own auth events and against the state before it.
func (a *acceptor) refuse(h *held, auth []*node, before stateres.State) error {
	if h.ev.OverlongField() {
		return errors.New("a field is too long")
	}
	named := make([]eventauth.AuthEvent, 0, len(auth))
	for _, n := range auth {
		named = append(named, eventauth.AuthEvent{Event: n.red, Rejected: n.rejected})
	}
	if err := a.refuseByAuth(h, named); err != nil {
		return err
	}
	return a.refuseByState(h, before)
}

// refuseByAuth checks an event against its own auth events.
func (a *acceptor) refuseByAuth(h *held, named []eventauth.AuthEvent) error {
	create := eventauth.AuthEvent{}
	if c := a.createEvent(); c != nil {
		create = eventauth.AuthEvent{Event: c.red, Rejected: c.rejected}
	}
	st, err := eventauth.CheckAuthEvents(a.r.rules, h.red, named, create)
	if err != nil {
		return err
	}
	return eventauth.Check(a.r.rules, h.red, &st)
}

// createEvent gives the room's create event, nil if it is not known yet.
func (a *acceptor) createEvent() *held {
	if e, ok := a.r.id.CreateEvent(); ok {
		if n := a.node(e); n != nil {
			return n.held
		}
	}
	return a.at(event.TypeCreate, "")
}

// refuseByState checks an event against a state of the room.
func (a *acceptor) refuseByState(h *held, state stateres.State) error {
	st, _ := eventauth.Select(a.r.rules, h.red, func(k eventauth.TypeKey) *eventauth.Reduced {
		if at := a.in(state, k); at != nil {
			return at.red
		}
		return nil
	})
	if a.lacks() {
		return nil
	}
	return eventauth.Check(a.r.rules, h.red, &st)
}

// in gives the event at an entry of a state.
func (a *acceptor) in(state stateres.State, k eventauth.TypeKey) *held {
	key, ok := a.key(k)
	if !ok {
		return nil
	}
	n, _ := state.Get(key)
	return a.held(shard.Nid(n))
}

// key gives the entry that a name stands for; ok is false if no state can have it.
func (a *acceptor) key(k eventauth.TypeKey) (key stateres.Key, ok bool) {
	var nids [2]shard.Nid
	for i, name := range []string{k.Type, k.StateKey} {
		nid, known := a.r.term.atoms.get(name)
		if !known {
			a.needs.names = append(a.needs.names, name)
		}
		nids[i] = nid
	}
	return stateres.Key{Type: int64(nids[0]), StateKey: int64(nids[1])}, nids[0] != 0 && nids[1] != 0
}

// heldFact is a state event, known by its nid.
type heldFact struct{ nid shard.Nid }

func (f heldFact) load(ctx context.Context, r *live) (any, error) {
	facts := map[fact]any{}
	err := r.loadEvents(ctx, []shard.Nid{f.nid}, facts)
	return facts[f], err
}

// held gives a state event by its nid.
func (a *acceptor) held(nid shard.Nid) *held {
	if nid == 0 {
		return nil
	}
	if h := a.byNid[nid]; h != nil {
		return h
	}
	if h, ok := a.facts[heldFact{nid}].(*held); ok {
		return h
	}
	a.needs.events = append(a.needs.events, nid)
	return nil
}

// loadEvents reads state events by their nids.
func (r *live) loadEvents(ctx context.Context, nids []shard.Nid, facts map[fact]any) error {
	if len(nids) == 0 {
		return nil
	}
	rows, err := r.term.host.DB.EventsByNid(ctx, nids)
	if err != nil {
		return err
	}
	for i := range rows {
		h, err := r.hold(&rows[i])
		if err != nil {
			return err
		}
		facts[heldFact{h.nid}] = h
	}
	for _, n := range nids {
		if facts[heldFact{n}] == nil {
			return fmt.Errorf("state event %d is missing", n)
		}
	}
	return nil
}

// before gives the state before an event that follows others.
func (a *acceptor) before(prev []*node) (snapshots, error) {
	if len(prev) == 0 {
		return nil, nil
	}
	same := true
	for _, n := range prev {
		same = same && n.after.nid() == prev[0].after.nid()
	}
	if same {
		return prev[0].after, nil
	}
	state, err := a.stateOf(prev)
	if err != nil {
		return nil, err
	}
	return a.stored(prev, state), nil
}

// stored gives the snapshot of a state that others were resolved to, which is that of one of them or made.
func (a *acceptor) stored(prev []*node, state stateres.State) snapshots {
	for _, n := range prev {
		if equal(n.after.state(), state) {
			return n.after
		}
	}
	snaps, row := prev[0].after.push(a.r.term.nid(), a.r.nid, state)
	a.rows = append(a.rows, row)
	return snaps
}

func equal(a, b stateres.State) bool {
	if a.Same(b) {
		return true
	}
	if a.Len() != b.Len() {
		return false
	}
	n := 0
	stateres.Diff(a, b, func(stateres.Key, int64, int64) { n++ })
	return n == 0
}

// put stores an event that was checked, and if it is accepted moves the head on.
func (a *acceptor) put(h *held, prev []*node, before snapshots, fate Fate, stored bool) error {
	row, body := a.rowOf(h.nid, h.ev)
	if a.relay {
		body.Flags |= entry.FlagRelay
	}
	if a.txn != "" || a.device != "" {
		row.SenderDevice, row.TxnID, body.DeviceId, body.TxnId = string(a.device), a.txn, string(a.device), a.txn
	}
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
		if fate != FateRejected {
			var snapshot *roomdb.StateSnapshot
			after, snapshot = before.push(a.r.term.nid(), a.r.nid, before.state().Set(at, int64(h.nid)))
			a.rows = append(a.rows, snapshot)
		}
	}
	if a.lacks() {
		return errLacks
	}
	row.StateAfter = after.nid()
	body.StateBefore, body.StateAfter = int64(row.StateBefore), int64(row.StateAfter)
	a.byNid[h.nid] = h
	a.nodes[h.ev.EventID()] = &node{held: h, after: after, known: true}
	at := len(a.rows)
	a.rows = append(a.rows, row)
	switch fate {
	case FateRejected:
		row.Flags = roomdb.FlagRejected
	case FateSoftFailed:
		row.Flags = roomdb.FlagSoftFailed
	default:
		if a.lacksPast(h.ev) { // it came with the state before it
			row.Order = roomdb.Live(len(a.entries))
			a.gapBefore(row, body, false)
		}
		a.said = a.said || h.ev.Type() != event.TypeDummy
		if err := a.advance(h, prev, before, after, row, body); err != nil {
			return err
		}
	}
	if stored { // as an outlier so far
		a.rows[at] = &roomdb.EventPlaced{
			Nid: row.Nid, Order: row.Order, Flags: row.Flags, StateBefore: row.StateBefore, StateAfter: row.StateAfter,
			Extremities: row.Extremities, Prev: row.Prev,
		}
	}
	return nil
}

// advance makes an accepted event a forward extremity, and the current state what the extremities' states resolve to.
func (a *acceptor) advance(h *held, prev []*node, before, after snapshots, row *roomdb.Event, body *entry.EventBody) error {
	tips := []tip{a.r.tipOf(h.nid, h.ev, after)}
	for _, t := range a.head.tips {
		if !slices.ContainsFunc(prev, func(n *node) bool { return n.nid == t.nid }) {
			tips = append(tips, t)
		}
	}
	sortTips(tips)
	if len(tips) > 1 {
		row.Extremities = nidsOfTips(tips)
	}
	state, err := a.resolve(afterTips(tips))
	if err != nil {
		return err
	}
	row.Order = roomdb.Live(len(a.entries))
	was := a.head.state
	stateres.Diff(was, state, func(k stateres.Key, old, now int64) { a.change(h, k, shard.Nid(old), shard.Nid(now), body) })
	if row.StateKey != nil {
		if n, _ := state.Get(stateres.Key{Type: int64(row.Type), StateKey: int64(*row.StateKey)}); shard.Nid(n) != h.nid {
			body.Flags |= entry.FlagNoEffect
		}
	}
	a.redactFor(h, before.state(), body)
	if a.lacks() {
		return errLacks
	}
	a.count(h.ev, body)
	if a.lacks() {
		return errLacks
	}
	a.head = head{state: state, snaps: after, tips: tips}
	if !equal(after.state(), state) { // for whoever reads the room as of here
		a.snapshot()
		a.rows = append(a.rows, &roomdb.ForkedState{Room: a.r.nid, Event: h.nid, Snapshot: a.head.snaps.nid()})
	}
	logged, err := entry.Event(a.r.nid, h.nid, body, h.ev.JSON())
	if err != nil {
		return err
	}
	a.entries = append(a.entries, logged)
	a.noteMade(h.ev)
	a.takePart(row)
	return nil
}

// change makes one change of the current state: by the event itself, or by what the resolution made of others.
func (a *acceptor) change(h *held, k stateres.Key, old, now shard.Nid, body *entry.EventBody) {
	was, is := a.held(old), a.held(now)
	if a.lacks() {
		return
	}
	either := is
	if either == nil {
		either = was
	}
	name := eventauth.TypeKey{Type: either.ev.Type()}
	name.StateKey, _ = either.ev.StateKey()
	a.overlay(name, is)
	a.rows = append(a.rows, &roomdb.CurrentState{
		Room: a.r.nid, Type: shard.Nid(k.Type), StateKey: shard.Nid(k.StateKey), Event: now, Entry: len(a.entries),
	})
	c := &entry.StateChange{Type: name.Type, StateKey: name.StateKey, EventNid: int64(now)}
	if is != nil {
		c.EventId, c.Membership = string(is.ev.EventID()), is.ev.Membership()
	}
	if was != nil {
		c.PrevMembership = was.ev.Membership()
	}
	if name.Type == event.TypeMember {
		a.rows = append(a.rows, &roomdb.Member{
			Room: a.r.nid, UserID: name.StateKey, Membership: roomdb.ParseMembership(c.Membership), Event: now,
			Local: a.local(id.UserID(name.StateKey)), PushBase: roomdb.Live(len(a.entries)), Entry: len(a.entries),
		})
		a.toldNoMore(id.UserID(name.StateKey), c.PrevMembership, c.Membership)
	}
	if is != h {
		body.StateChanges = append(body.StateChanges, c)
		return
	}
	body.Membership, body.PrevMembership = c.Membership, c.PrevMembership
	if was != nil {
		body.ReplacesNid, body.ReplacesEventId = int64(was.nid), string(was.ev.EventID())
		body.ReplacesSender, body.ReplacesContent = string(was.ev.Sender()), was.ev.Content()
	}
	if name.Type == event.TypeMember {
		body.StrippedState = a.stripped(c.Membership, h.ev.Sender())
	}
}

// redactFor redacts what an accepted redaction names, if it may. A target that is not known yet is left alone.
func (a *acceptor) redactFor(h *held, before stateres.State, body *entry.EventBody) {
	target := h.ev.Redacts()
	if target == "" {
		return
	}
	n := a.node(target)
	if n == nil {
		return
	}
	if !a.r.rules.RedactionAuth && n.ev.Sender().Server() != h.ev.Sender().Server() {
		var st eventauth.AuthState
		if c := a.in(before, eventauth.TypeKey{Type: event.TypeCreate}); c != nil {
			st.Create = c.red.Create()
		}
		if p := a.in(before, eventauth.TypeKey{Type: event.TypePowerLevels}); p != nil {
			st.Power = p.red.PowerLevels()
		}
		if a.lacks() || !st.CanRedactOthers(h.ev.Sender()) {
			return
		}
	}
	body.Redacts = string(target)
	a.redact(&redactee{id: target, nid: n.nid}, h.nid)
}
