package room

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.opentelemetry.io/otel/trace"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/eventauth"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/matrix/stateres"
	"github.com/heddle-im/heddle/pkg/shardlog/commit"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// MaxOutliers bounds the events of one [Outliers].
const MaxOutliers = 500

// outline makes a room's row.
func (t *term) outline(ctx context.Context, key []byte, c *Outline) (work, error) {
	if _, ok := roomver.Get(c.Version); !ok {
		return work{}, mxerr.Newf(mxerr.UnsupportedRoomVersion, "room version %q is not supported", c.Version)
	}
	known := Answer{Room: c.Room, Unchanged: true}
	ref, ok, err := t.host.DB.Room(ctx, t.shard, string(c.Room))
	switch {
	case err != nil:
		return work{}, fmt.Errorf("outline room: %w", err)
	case ok && ref.Version != string(c.Version):
		return work{}, mxerr.Newf(mxerr.InvalidParam, "room has version %s", ref.Version)
	case ok:
		return work{answer: known}, nil
	}
	a := Answer{Room: c.Room}
	w := work{answer: a, ticket: t.host.Committer.Submit(&entry.Proposal{
		Shard: t.shard, Epoch: t.epoch, Key: key, Result: encodeAnswer(a), Trace: trace.SpanContextFromContext(ctx),
		Rows: []entry.Row{&roomdb.Room{Nid: t.nid(), RoomID: string(c.Room), Version: string(c.Version)}},
	})}
	w.finish = func(ctx context.Context) (Answer, error) {
		if _, err := w.ticket.Wait(context.WithoutCancel(ctx)); errors.Is(err, commit.ErrConflict) {
			return known, nil // somebody else made it meanwhile
		}
		return t.outcome(ctx, w.ticket, a)
	}
	return w, nil
}

func (c *Outliers) room() id.RoomID { return c.Room }
func (c *Outliers) more() int       { return 0 }

func (c *Outliers) decide(*view) (plan, error) {
	if c.Count > MaxOutliers {
		return plan{}, mxerr.Newf(mxerr.InvalidParam, "more than %d events at once", MaxOutliers)
	}
	return plan{answer: Answer{Room: c.Room}}, nil
}

// outliersFact asks for a part of a staged set, and for what the database has of the events that it names.
type outliersFact struct{ c *Outliers }

func (f outliersFact) load(ctx context.Context, r *live) (any, error) {
	staged, err := r.term.host.Sets.SetPiece(ctx, f.c.Set, f.c.From, f.c.Count)
	if err != nil {
		return nil, err
	}
	a := &accepted{rows: map[id.EventID]*roomdb.StoredEvent{}}
	var ids []string
	for i := range staged {
		e, err := event.Parse(r.rules, staged[i].JSON)
		if err != nil || e.RoomID() != r.id {
			continue // whoever staged it has checked that
		}
		ids = append(ids, string(e.EventID()))
		for _, n := range e.AuthEvents() {
			ids = append(ids, string(n))
		}
		a.events, a.nids = append(a.events, e), append(a.nids, r.term.nid())
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

func (d *draft) acceptor(given *accepted) *acceptor {
	if d.byNid == nil {
		d.byNid = map[shard.Nid]*held{}
		for _, h := range d.r.cached {
			if h != nil {
				d.byNid[h.nid] = h
			}
		}
	}
	return &acceptor{draft: d, given: given, nodes: map[id.EventID]*node{}}
}

// outliers stores events that are known by their auth chains only.
func (d *draft) outliers(c *Outliers, _ *plan) error {
	given := ask[*accepted](&d.view, outliersFact{c})
	if d.lacks() {
		return errLacks
	}
	a := d.acceptor(given)
	for i, e := range given.events {
		if a.node(e.EventID()) != nil {
			continue
		}
		var v Verdict
		auth := a.find(e.AuthEvents(), &v, a.node)
		if len(v.Missing) > 0 {
			continue
		}
		h := a.holdNew(given.nids[i], e, auth)
		refusal := a.refuseAlone(h, auth)
		row, _ := a.rowOf(h.nid, e)
		row.Flags, row.Auth = roomdb.FlagOutlier, h.auth
		if refusal != nil {
			h.rejected = true
			row.Flags |= roomdb.FlagRejected
		}
		if key, ok := e.StateKey(); ok {
			k := a.atom(key)
			row.StateKey = &k
		}
		a.rows = append(a.rows, row)
		a.nodes[e.EventID()] = &node{held: h, outlier: true}
	}
	if a.lacks() {
		return errLacks
	}
	return nil
}

// refuseAlone checks an event against its own auth events, and nothing else.
func (a *acceptor) refuseAlone(h *held, auth []*node) error {
	if h.ev.OverlongField() {
		return errors.New("a field is too long")
	}
	named := make([]eventauth.AuthEvent, 0, len(auth))
	for _, n := range auth {
		named = append(named, eventauth.AuthEvent{Event: n.red, Rejected: n.rejected})
	}
	return a.refuseByAuth(h, named)
}

func (c *Enter) room() id.RoomID { return c.Room }
func (c *Enter) more() int       { return 24 }

//nolint:unparam // commands decide with an error, this one never has one
func (c *Enter) decide(*view) (plan, error) { return plan{answer: Answer{Room: c.Room}}, nil }

// enterFact asks for the state that a staged set names, as it was stored, and for the events that the command's own event names.
type enterFact struct{ c *Enter }

type entered struct {
	accepted
	pairs   []stateres.Pair
	members map[stateres.Key]roomdb.LoadedMember
}

func (f enterFact) load(ctx context.Context, r *live) (any, error) {
	own := &Accept{Room: f.c.Room, Events: [][]byte{f.c.Event}}
	loaded, err := acceptFact{own}.load(ctx, r)
	if err != nil {
		return nil, err
	}
	given, _ := loaded.(*accepted)
	e := &entered{accepted: *given, members: map[stateres.Key]roomdb.LoadedMember{}}
	if err := e.readSet(ctx, r, f.c.Set); err != nil {
		return nil, err
	}
	return e, nil
}

// readSet reads the state that a staged set names.
func (e *entered) readSet(ctx context.Context, r *live, set []byte) error {
	ids, err := r.term.host.Sets.SetState(ctx, set)
	if err != nil {
		return err
	}
	for piece := range slices.Chunk(ids, 1000) {
		if err := e.add(ctx, r, piece); err != nil {
			return err
		}
	}
	return nil
}

// add takes stored events into the state. Those that were rejected, or never stored, are no part of it.
func (e *entered) add(ctx context.Context, r *live, ids []string) error {
	rows, err := r.term.host.DB.EventsByID(ctx, r.nid, ids)
	if err != nil {
		return err
	}
	for i := range rows {
		row := &rows[i]
		if row.StateKey == nil || row.Flags.Has(roomdb.FlagRejected) {
			continue
		}
		key := stateres.Key{Type: int64(row.Type), StateKey: int64(*row.StateKey)}
		e.pairs = append(e.pairs, stateres.Pair{Key: key, Event: int64(row.Nid)})
		h, err := r.hold(row)
		if err != nil {
			return err
		}
		if h.ev.Type() == event.TypeMember {
			user, _ := h.ev.StateKey()
			e.members[key] = roomdb.LoadedMember{
				UserID: user, Membership: roomdb.ParseMembership(h.ev.Membership()), Event: row.Nid,
				Local: id.UserID(user).Server() == r.term.host.Server,
			}
		}
	}
	return nil
}

// enter takes an event with the state before it.
func (d *draft) enter(c *Enter, p *plan) error {
	given := ask[*entered](&d.view, enterFact{c})
	if d.lacks() {
		return errLacks
	}
	e := given.events[0]
	if e == nil {
		return mxerr.New(mxerr.BadJSON, "event is malformed").WithCause(given.errs[0])
	}
	a := d.acceptor(&given.accepted)
	v := Verdict{Event: e.EventID()}
	p.answer.Event = v.Event
	stored := a.node(v.Event)
	if stored != nil && !stored.outlier {
		v.Fate, p.answer.Unchanged = FateKnown, true
		a.unstage(c.Staged)
		return p.tell([]Verdict{v})
	}
	auth := a.find(e.AuthEvents(), &v, a.node)
	if len(v.Missing) > 0 {
		v.Fate = FateMissing
		return p.tell([]Verdict{v})
	}
	state := stateres.NewState(given.pairs)
	before, row := snapshots(nil).push(a.r.term.nid(), a.r.nid, state)
	h := a.holdNew(given.nids[0], e, auth)
	if stored != nil {
		h.nid = stored.nid
	}
	refusal := a.refuse(h, auth, state)
	if a.lacks() {
		return errLacks
	}
	a.rows = append(a.rows, row)
	if c.Join {
		if refusal != nil {
			return mxerr.New(mxerr.Forbidden, "the join is not allowed by the room's state").WithCause(refusal)
		}
		if err := a.join(h, before, given, stored != nil); err != nil {
			return err
		}
		v.Fate = FateAccepted
		return p.tell([]Verdict{v})
	}
	var soft error
	if refusal == nil {
		soft = a.refuseByState(h, a.head.state)
	}
	if refusal == nil && soft == nil {
		if server, ok := a.recommended(e); !ok {
			if !c.Asked {
				v.Fate, v.Policy = FateUnsigned, server
				a.rows = nil
				return p.tell([]Verdict{v})
			}
			soft = errNotRecommended
		}
	}
	var prev []*node
	for _, n := range e.PrevEvents() {
		if known := a.node(n); known != nil {
			prev = append(prev, known)
		}
	}
	if a.lacks() {
		return errLacks
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
	a.unstage(c.Staged)
	if err := a.put(h, prev, before, v.Fate, stored != nil); err != nil {
		return err
	}
	return p.tell([]Verdict{v})
}

func (a *acceptor) unstage(seq int64) {
	if seq != 0 {
		a.rows = append(a.rows, stagedGone(seq))
	}
}

// join makes an event the room's only forward extremity, and the state after it the room's.
func (a *acceptor) join(h *held, before snapshots, given *entered, stored bool) error {
	row, body := a.rowOf(h.nid, h.ev)
	key, _ := h.ev.StateKey()
	k := a.atom(key)
	at := stateres.Key{Type: int64(row.Type), StateKey: int64(k)}
	replaced, _ := before.state().Get(at)
	after, snapshot := before.push(a.r.term.nid(), a.r.nid, before.state().Set(at, int64(h.nid)))
	row.StateKey, row.Auth, row.Replaces = &k, h.auth, shard.Nid(replaced)
	row.StateBefore, row.StateAfter, row.Order = before.nid(), after.nid(), roomdb.Live(len(a.entries))
	for _, n := range h.ev.PrevEvents() {
		if known := a.node(n); known != nil {
			row.Prev = append(row.Prev, known.nid)
		}
	}
	body.StateBefore, body.StateAfter, body.Membership = int64(row.StateBefore), int64(row.StateAfter), h.ev.Membership()
	body.Flags |= entry.FlagPassedOn // by the server that let us in
	if a.lacksPast(h.ev) {
		a.gapBefore(row, body, a.head.state.Len() == 0)
	}
	if was := a.held(shard.Nid(replaced)); was != nil {
		body.PrevMembership, body.ReplacesNid, body.ReplacesEventId = was.ev.Membership(), int64(was.nid), string(was.ev.EventID())
		body.ReplacesSender, body.ReplacesContent = string(was.ev.Sender()), was.ev.Content()
	}
	if body.PrevMembership == event.Join { // nobody of this server was in the room: the user's leave has not reached who told the state
		body.PrevMembership = event.Leave
	}
	a.byNid[h.nid] = h
	given.members[at] = roomdb.LoadedMember{
		UserID: key, Membership: roomdb.ParseMembership(h.ev.Membership()), Event: h.nid, Local: a.local(id.UserID(key)),
	}
	a.replaceState(after.state(), given)
	a.overlayAll(after.state())
	if a.lacks() {
		return errLacks
	}
	a.rows = append(a.rows, snapshot)
	if stored {
		a.rows = append(a.rows, &roomdb.EventPlaced{
			Nid: row.Nid, Order: row.Order, Flags: row.Flags, StateBefore: row.StateBefore, StateAfter: row.StateAfter, Prev: row.Prev,
		})
	} else {
		a.rows = append(a.rows, row)
	}
	a.head = head{state: after.state(), snaps: after, tips: []tip{a.r.tipOf(h.nid, h.ev, after)}}
	logged, err := entry.Event(a.r.nid, h.nid, body, h.ev.JSON())
	if err != nil {
		return err
	}
	a.entries = append(a.entries, logged)
	a.noteMade(h.ev)
	return nil
}

// replaceState writes the rows by which the current state becomes another one.
func (a *acceptor) replaceState(state stateres.State, given *entered) {
	load := &roomdb.StateLoad{Room: a.r.nid, Entry: len(a.entries)}
	members := &roomdb.MemberLoad{Room: a.r.nid, Entry: len(a.entries)}
	stateres.Diff(a.head.state, state, func(k stateres.Key, old, now int64) {
		if now != 0 {
			load.Pairs = append(load.Pairs, stateres.Pair{Key: k, Event: now})
			if m, ok := given.members[k]; ok {
				members.Members = append(members.Members, m)
				a.toldNoMore(id.UserID(m.UserID), event.Invite, m.Membership.String()) // as it may have been
			}
			return
		}
		a.rows = append(a.rows, &roomdb.CurrentState{
			Room: a.r.nid, Type: shard.Nid(k.Type), StateKey: shard.Nid(k.StateKey), Entry: len(a.entries),
		})
		if was := a.held(shard.Nid(old)); was != nil && was.ev.Type() == event.TypeMember {
			user, _ := was.ev.StateKey()
			members.Members = append(members.Members, roomdb.LoadedMember{
				UserID: user, Membership: roomdb.MembershipLeave, Event: was.nid, Local: a.local(id.UserID(user)),
			})
		}
	})
	a.rows = append(a.rows, load, members)
}

// overlayAll has what is remembered of the room's state agree with another state.
func (a *acceptor) overlayAll(state stateres.State) {
	for name, was := range a.r.cached {
		key, ok := a.key(name)
		if !ok {
			continue
		}
		n, _ := state.Get(key)
		if was != nil && was.nid == shard.Nid(n) || was == nil && n == 0 {
			continue
		}
		a.overlay(name, a.held(shard.Nid(n)))
	}
}
