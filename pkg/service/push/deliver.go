package push

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/pushdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// wake has a goroutine work for a pusher, if there is something to do and none does. Under mu.
func (t *term) wake(p *pusher) {
	if p.running || p.gone || !t.hasWork(p) {
		return
	}
	p.running = true
	if !t.work.Go(func(ctx context.Context) { t.run(ctx, p) }) {
		p.running = false
		return
	}
	t.running++
}

// idle tells whether nobody is being told anything.
func (t *term) idle() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.running == 0
}

// hasWork tells whether something can be done for a pusher now. Under mu.
func (t *term) hasWork(p *pusher) bool {
	now := t.o.Now()
	if p.behind {
		return t.applied != nil && !now.Before(p.due) && t.gateway(p).open(now)
	}
	return len(p.queue) > 0 || p.badge && !now.Before(p.due)
}

// tick tries again those who are due.
func (t *term) tick(context.Context) {
	t.mu.Lock()
	defer t.mu.Unlock()
	probed := map[*gateway]bool{}
	for p := range t.owed {
		if p.running || !t.hasWork(p) {
			continue
		}
		if g := t.gateway(p); g.fails >= tripAfter { // one of them finds out for all
			if probed[g] {
				continue
			}
			probed[g] = true
		}
		t.wake(p)
	}
	t.pruneGateways()
}

// run works for a pusher until there is nothing left to do.
func (t *term) run(ctx context.Context, p *pusher) {
	for {
		t.mu.Lock()
		if ctx.Err() != nil || p.gone || !t.hasWork(p) {
			p.running = false
			t.running--
			notify(t.progress)
			t.mu.Unlock()
			return
		}
		behind, badge := p.behind, p.badge
		var next *queued
		switch {
		case behind:
		case len(p.queue) > 0:
			q := p.queue[0]
			next = &q
			p.badge = false // it goes with it
		default:
			p.badge = false
		}
		t.mu.Unlock()
		var err error
		switch {
		case behind:
			err = t.catchUp(ctx, p)
		case next != nil:
			if err = t.send(ctx, p, next); err == nil {
				t.pop(p, next)
			}
		case badge:
			err = t.sendBadge(ctx, p)
		}
		t.settleAttempt(ctx, p, err)
	}
}

// pop takes what was told off the queue.
func (t *term) pop(p *pusher, q *queued) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.fresh && !t.fresh(p) {
		if p.fresh = false; !p.behind {
			p.sent = nil
		}
	}
	if p.sent != nil {
		p.sent[q.nid] = struct{}{}
	}
	if len(p.queue) == 0 || p.queue[0].seq != q.seq { // it was noted as owed meanwhile
		return
	}
	p.queue = p.queue[1:]
	if len(p.queue) == 0 {
		p.queue = nil
		delete(t.pending, p)
	}
	notify(t.progress)
}

// settleAttempt notes what came of an attempt.
func (t *term) settleAttempt(ctx context.Context, p *pusher, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		p.fails, p.due = 0, time.Time{}
		return
	}
	if ctx.Err() != nil || p.gone {
		return
	}
	if !errors.Is(err, errClosed) {
		pause := min(t.cfg.MinBackoff<<min(p.fails, 20), t.cfg.MaxBackoff)
		p.fails++
		p.due = t.o.Now().Add(pause)
		t.log.Debug("a notification was not sent", "gateway", p.target.origin, "pause", pause, "error", err)
	}
	if len(p.queue) > 0 || p.behind {
		t.owe(p)
	}
}

// catchUp tells a pusher of the latest of what it is owed.
func (t *term) catchUp(ctx context.Context, p *pusher) error {
	t.mu.Lock()
	above, upto := p.above.Clone(), t.applied.Clone()
	p.missed = false
	t.mu.Unlock()
	list, err := t.owedTo(ctx, p, above, upto)
	if err != nil {
		return err
	}
	for i := range list {
		if err := t.send(ctx, p, &list[i]); err != nil {
			return err
		}
		t.mu.Lock()
		if p.sent != nil {
			p.sent[list[i].nid] = struct{}{}
		}
		t.mu.Unlock()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !p.behind {
		return nil
	}
	if !p.missed {
		t.settle(p)
		return nil
	}
	for s := range upto {
		p.above[s] = max(p.above[s], upto[s])
	}
	p.version++
	return nil
}

// owedTo lists what a pusher is to be told of between places of the log: the latest that is not read, in the order in which it was said.
func (t *term) owedTo(ctx context.Context, p *pusher, above, upto shard.Vector) ([]queued, error) {
	leave, err := t.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	rooms, err := t.o.Rooms.Memberships(ctx, p.key.UserID)
	if err != nil {
		return nil, err
	}
	var windows []pushdb.Window
	refs, invites := map[shard.Nid]*roomdb.MembershipRow{}, map[shard.Nid]bool{}
	for i := range rooms {
		m := &rooms[i]
		refs[m.Nid] = m
		s := m.Nid.Shard()
		switch {
		case m.Membership == roomdb.MembershipJoin && upto[s] > above[s]:
			windows = append(windows, pushdb.Window{Room: m.Nid, Above: int64(max(above[s], m.Pos)), Upto: int64(upto[s])})
		case m.Membership == roomdb.MembershipInvite && m.Pos > above[s] && m.Pos <= upto[s]:
			invites[m.Event] = true
		}
	}
	found, err := t.notified(ctx, p.key.UserID, windows)
	if err != nil {
		return nil, err
	}
	highlights := make(map[shard.Nid]bool, len(found))
	nids := make([]shard.Nid, 0, len(found)+len(invites))
	for _, n := range found {
		highlights[n.Event] = n.Count.Highlight > 0
		nids = append(nids, n.Event)
	}
	for n := range invites {
		nids = append(nids, n)
	}
	events, err := t.o.Rooms.EventsByNid(ctx, nids)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []queued
	for i := range events {
		e := &events[i]
		if _, told := p.sent[e.Nid]; told || t.old(e.TS) || e.RedactedBy != 0 || e.TS < p.target.created {
			continue
		}
		ref := refs[e.Room]
		out = append(out, queued{notice: &notice{
			room: e.Room, roomID: ref.RoomID, version: ref.Version, nid: e.Nid, id: e.EventID, shard: e.Room.Shard(), pos: shard.Pos(e.Ord),
			ts: e.TS, json: e.JSON, invite: invites[e.Nid],
		}, highlight: highlights[e.Nid]})
	}
	slices.SortFunc(out, func(a, b queued) int { return cmp.Or(cmp.Compare(a.ts, b.ts), cmp.Compare(a.nid, b.nid)) })
	return out[max(0, len(out)-t.cfg.Most):], nil
}

// notified lists what is unread of what a user was to be notified of.
func (t *term) notified(ctx context.Context, user string, windows []pushdb.Window) ([]*pushdb.Notification, error) {
	by, err := t.o.DB.Notified(ctx, user, windows, false, t.cfg.Most)
	if err != nil {
		return nil, err
	}
	var list []*pushdb.Notification
	var rooms []shard.Nid
	for _, of := range by {
		for i := range of {
			list, rooms = append(list, &of[i]), append(rooms, of[i].Room)
		}
	}
	if len(list) == 0 {
		return nil, nil
	}
	reads, err := t.o.DB.Reads(ctx, user, rooms)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(n *pushdb.Notification) bool { return n.Ord <= reads[n.Room].Read(n.Thread) })
	return list, t.o.DB.Locate(ctx, list)
}

// enter waits for one of the places of those who read the database.
func (t *term) enter(ctx context.Context) (leave func(), err error) {
	select {
	case t.readers <- struct{}{}:
		return func() { <-t.readers }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// unread counts what a user has not read. The rooms in which something happened since are read anew.
func (t *term) unread(ctx context.Context, r *recipient) (int64, error) {
	select { // one at a time: what one has read is what another would
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	t.mu.Lock()
	var rooms []shard.Nid
	if r.complete {
		rooms = make([]shard.Nid, 0, len(r.staleRooms))
		for n := range r.staleRooms {
			rooms = append(rooms, n)
		}
	} else {
		r.unread = map[shard.Nid]int64{}
	}
	r.complete, r.staleRooms = true, map[shard.Nid]struct{}{}
	t.mu.Unlock()
	var places []pushdb.Place
	var counts []*pushdb.Unread
	var err error
	if rooms == nil || len(rooms) > 0 {
		if places, err = t.o.DB.Places(ctx, r.id, rooms); err == nil && len(places) > 0 {
			counts, err = t.o.DB.Unread(ctx, r.id, places)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		r.complete = false
		return 0, err
	}
	for _, n := range rooms {
		delete(r.unread, n)
	}
	for i, p := range places {
		if n := counts[i].Total().Notify; n > 0 {
			r.unread[p.Room] = n
		}
	}
	var sum int64
	for _, n := range r.unread {
		sum += n
	}
	return sum, nil
}
