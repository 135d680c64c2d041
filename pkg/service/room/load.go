package room

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/eventauth"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/matrix/stateres"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// errNoRoom is the refusal of a command on a room that this server does not have.
func errNoRoom() error { return mxerr.New(mxerr.NotFound, "this server does not know the room") }

// room gives a room in memory, loading it if need be, once for all who ask. The caller counts down its using when it is done.
func (t *term) room(ctx context.Context, room id.RoomID) (*live, error) {
	for {
		s, mine := t.reserve(room)
		if !mine {
			select {
			case <-s.ready:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			switch {
			case s.err == nil:
				s.room.using.Add(1)
				return s.room, nil
			case ctx.Err() == nil && (isContext(s.err) || errors.Is(s.err, errRedo)):
				continue // whoever was making it gave up
			}
			return nil, s.err
		}
		r, err := t.loadRoom(ctx, room)
		if err == nil {
			r.using.Add(1)
		}
		t.fill(room, s, r, err)
		return r, err
	}
}

// reserve gives a room's slot. If mine, the caller has to fill it.
func (t *term) reserve(room id.RoomID) (s *slot, mine bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s, ok := t.rooms[room]; ok {
		return s, false
	}
	s = &slot{ready: make(chan struct{})}
	t.rooms[room] = s
	return s, true
}

// fill ends the loading of a room. What failed is not kept.
func (t *term) fill(room id.RoomID, s *slot, r *live, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.room, s.err = r, err
	if err != nil {
		delete(t.rooms, room)
	}
	close(s.ready)
}

// waitLeftover waits until what the room's predecessor in memory submitted is decided.
func (t *term) waitLeftover(ctx context.Context, room id.RoomID) error {
	for {
		t.mu.Lock()
		list := undecided(t.leftover[room])
		if len(list) == 0 {
			delete(t.leftover, room)
		} else {
			t.leftover[room] = list
		}
		t.mu.Unlock()
		if len(list) == 0 {
			return nil
		}
		select {
		case <-list[0].Done():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// loadRoom reads a room: where its log stands, and its state. State events are read when they are needed.
func (t *term) loadRoom(ctx context.Context, room id.RoomID) (*live, error) {
	if err := t.waitLeftover(ctx, room); err != nil {
		return nil, err
	}
	db := t.host.DB
	at, ok, err := db.Tip(ctx, t.shard, string(room))
	if err != nil {
		return nil, fmt.Errorf("load room: %w", err)
	}
	if !ok {
		ref, known, err := db.Room(ctx, t.shard, string(room))
		if err != nil {
			return nil, fmt.Errorf("load room: %w", err)
		}
		if !known {
			return nil, errNoRoom()
		}
		at = roomdb.Tip{Room: ref.Nid, Version: ref.Version} // an outline, see [Outline]
	}
	rules, ok := roomver.Get(roomver.Version(at.Version))
	if !ok {
		return nil, fmt.Errorf("load room: its version %q is not known", at.Version)
	}
	t.host.metrics.loads.Inc()
	r := t.newLive(at.Room, room, rules)
	r.used.Store(t.host.clock.Add(1))
	if at.Event == 0 {
		return r, nil
	}
	if err := r.loadHead(ctx, &at); err != nil {
		return nil, fmt.Errorf("load room: %w", err)
	}
	r.size += int64(r.head.state.Len()) * sizeState
	return r, nil
}

func (r *live) loadHead(ctx context.Context, at *roomdb.Tip) error {
	db := r.term.host.DB
	tips := at.Extremities
	if len(tips) == 0 {
		tips = []shard.Nid{at.Event}
	}
	chain, err := db.Snapshots(ctx, at.StateAfter)
	if err != nil {
		return err
	}
	r.head.snaps = chain
	r.head.state = r.head.snaps.state()
	if len(tips) == 1 && tips[0] == at.Event && !r.rules.LinksWithHashes {
		r.head.tips = []tip{{nid: at.Event, id: id.EventID(at.EventID), depth: at.Depth, snaps: chain}}
		return nil
	}
	rows, err := db.EventsByNid(ctx, tips)
	if err != nil {
		return err
	}
	if len(rows) != len(tips) {
		return fmt.Errorf("of %d forward extremities %d are there", len(tips), len(rows))
	}
	for i := range rows {
		e, err := event.ParseTrusted(r.rules, rows[i].JSON, id.EventID(rows[i].EventID))
		if err != nil {
			return fmt.Errorf("read event %s: %w", rows[i].EventID, err)
		}
		snaps, err := db.Snapshots(ctx, rows[i].StateAfter)
		if err != nil {
			return err
		}
		r.head.tips = append(r.head.tips, r.tipOf(rows[i].Nid, e, snaps))
	}
	sortTips(r.head.tips)
	if len(tips) > 1 {
		return r.loadForked(ctx)
	}
	return nil
}

// loadForked reads the current state of a room with several forward extremities: it is not the state after any one event.
func (r *live) loadForked(ctx context.Context) error {
	pairs, err := r.term.host.DB.CurrentState(ctx, r.nid)
	if err != nil {
		return err
	}
	r.head.state = stateres.NewState(pairs)
	return nil
}

// sortTips puts the deepest first, so that every server that has them lists them alike.
func sortTips(tips []tip) {
	slices.SortFunc(tips, func(a, b tip) int {
		return cmp.Or(cmp.Compare(b.depth, a.depth), cmp.Compare(a.id, b.id))
	})
}

func isContext(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

func (r *live) tipOf(nid shard.Nid, e *event.Event, after snapshots) tip {
	t := tip{nid: nid, id: e.EventID(), depth: e.Depth(), snaps: after}
	if r.rules.LinksWithHashes {
		t.hash = e.ReferenceHash()
	}
	return t
}

// load reads what a decision lacks.
func (r *live) load(ctx context.Context, n *needs, facts map[fact]any) error {
	if len(n.names) > 0 {
		if err := r.term.atoms.load(ctx, r.term.host.DB, r.term.shard, n.names); err != nil {
			return err
		}
	}
	if len(n.entries) > 0 {
		if err := r.loadEntries(ctx, n.entries); err != nil {
			return err
		}
	}
	if err := r.loadEvents(ctx, n.events, facts); err != nil {
		return err
	}
	if err := r.loadChains(ctx, n.chains, facts); err != nil {
		return err
	}
	for _, f := range n.facts {
		v, err := f.load(ctx, r)
		if err != nil {
			return err
		}
		facts[f] = v
	}
	return nil
}

// loadEntries reads state events by their names.
func (r *live) loadEntries(ctx context.Context, entries []eventauth.TypeKey) error {
	names := make([]string, 0, 2*len(entries))
	for _, k := range entries {
		names = append(names, k.Type, k.StateKey)
	}
	if err := r.term.atoms.load(ctx, r.term.host.DB, r.term.shard, names); err != nil {
		return err
	}
	at := r.locate(entries)
	nids := make([]shard.Nid, 0, len(at))
	for _, n := range at {
		if n != 0 {
			nids = append(nids, n)
		}
	}
	events := map[shard.Nid]*held{}
	if len(nids) > 0 {
		rows, err := r.term.host.DB.EventsByNid(ctx, nids)
		if err != nil {
			return err
		}
		for i := range rows {
			h, err := r.hold(&rows[i])
			if err != nil {
				return err
			}
			events[h.nid] = h
		}
	}
	// The state may have changed meanwhile. Entries that changed are in cached: what is not committed cannot be read.
	now := r.locate(entries)
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, n := range at {
		if _, ok := r.cached[k]; ok || now[k] != n {
			continue
		}
		if n != 0 && events[n] == nil {
			return fmt.Errorf("state event %d at (%s, %s) is missing", n, k.Type, k.StateKey)
		}
		h := events[n]
		if slices.Contains(r.redacted, n) {
			h.ev = h.ev.Redact()
		}
		r.put(k, h)
	}
	return nil
}

// locate gives the nids of the events at entries of the state, 0 for none. Names that are not known any more are left out.
func (r *live) locate(entries []eventauth.TypeKey) map[eventauth.TypeKey]shard.Nid {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := make(map[eventauth.TypeKey]shard.Nid, len(entries))
	for _, k := range entries {
		typ, ok1 := r.term.atoms.get(k.Type)
		key, ok2 := r.term.atoms.get(k.StateKey)
		if !ok1 || !ok2 {
			continue
		}
		at[k] = 0
		if typ != 0 && key != 0 {
			n, _ := r.head.state.Get(stateres.Key{Type: int64(typ), StateKey: int64(key)})
			at[k] = shard.Nid(n)
		}
	}
	return at
}

// hold makes a state event of its row.
func (r *live) hold(row *roomdb.StoredEvent) (*held, error) {
	e, err := event.ParseTrusted(r.rules, row.JSON, id.EventID(row.EventID))
	if err != nil {
		return nil, fmt.Errorf("read event %s: %w", row.EventID, err)
	}
	h := &held{nid: row.Nid, ev: e, red: eventauth.Reduce(e), auth: row.Auth, rejected: row.Flags.Has(roomdb.FlagRejected)}
	if row.RedactedBy != 0 {
		h.ev = e.Redact()
	}
	return h, nil
}
