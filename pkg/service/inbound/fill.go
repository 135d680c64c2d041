package inbound

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// Bounds of the filling of one gap.
const (
	// fillEvents is how many events are asked for at a time.
	fillEvents = room.MaxBackfill
	// fillServers is how many servers are asked.
	fillServers = 5
	// fillAuth is how many auth events that the state does not have are fetched.
	fillAuth    = 50
	fillTimeout = 15 * time.Second
	// fillPatience bounds it all.
	fillPatience = 90 * time.Second
	// fillPause is how long a gap is left alone that nobody could fill.
	fillPause = 30 * time.Second
	maxPaused = 4096
	// nearLimit and nearTimeout bound the question for the event that is closest to a time.
	nearLimit   = 64 << 10
	nearTimeout = 8 * time.Second
)

// ErrUnfilled is the failure to fill a gap: nobody who was asked gave what is missing.
var ErrUnfilled = errors.New("missing events could not be had")

// Filler fetches what a room's timeline lacks of what happened before this server came, or while it was away, when somebody reads that far
// back. It is a lifecycle service; Stop ends what is under way.
type Filler struct {
	p     *Preparer
	tasks *lifecycle.Tasks

	mu      sync.Mutex // guards all below
	flights map[gapKey]*fillFlight
	paused  map[gapKey]time.Time
}

type gapKey struct {
	room shard.Nid
	ord  int64
}

// fillFlight is the filling of one gap, for all who wait for it.
type fillFlight struct {
	done  chan struct{} // closed when the rest is set
	moved bool
	err   error
}

// NewFiller makes a Filler. Of the options EDUs and Poll are not needed.
func NewFiller(o PreparerOptions) *Filler {
	return &Filler{
		p: NewPreparer(o), tasks: lifecycle.NewTasks(context.Background()),
		flights: map[gapKey]*fillFlight{}, paused: map[gapKey]time.Time{},
	}
}

// Start implements lifecycle.Service.
func (f *Filler) Start(context.Context) error { return nil }

// Stop implements lifecycle.Service.
func (f *Filler) Stop(ctx context.Context) error { return f.tasks.StopWithin(ctx) }

// Fill fetches the next events of a gap, which is done once for all who ask. moved says that the gap is another one afterwards, or closed:
// whoever reads there should read again. What is fetched goes on when ctx ends.
func (f *Filler) Fill(ctx context.Context, ref roomdb.RoomRef, ord int64) (moved bool, err error) {
	key := gapKey{ref.Nid, ord}
	f.mu.Lock()
	if until, ok := f.paused[key]; ok {
		if time.Now().Before(until) {
			f.mu.Unlock()
			return false, ErrUnfilled
		}
		delete(f.paused, key)
	}
	flight, under := f.flights[key]
	if !under {
		flight = &fillFlight{done: make(chan struct{})}
		f.flights[key] = flight
		begun := f.tasks.Go(func(ctx context.Context) {
			ctx, cancel := context.WithTimeout(ctx, fillPatience)
			defer cancel()
			flight.moved, flight.err = f.fill(ctx, ref, ord)
			f.landed(key, flight)
		})
		if !begun {
			delete(f.flights, key)
			f.mu.Unlock()
			return false, ErrUnfilled
		}
	}
	f.mu.Unlock()
	select {
	case <-flight.done:
		return flight.moved, flight.err
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

func (f *Filler) landed(key gapKey, flight *fillFlight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.flights, key)
	if !flight.moved {
		if len(f.paused) >= maxPaused {
			clear(f.paused)
		}
		f.paused[key] = time.Now().Add(fillPause)
	}
	close(flight.done)
}

// fill asks one server after the other.
func (f *Filler) fill(ctx context.Context, ref roomdb.RoomRef, ord int64) (moved bool, err error) {
	rules, ok := roomver.Get(roomver.Version(ref.Version))
	if !ok {
		return false, fmt.Errorf("room %s: unknown version %q", ref.RoomID, ref.Version)
	}
	at, ok, err := f.p.o.Rooms.Gap(ctx, ref.Nid, ord)
	if err != nil || !ok {
		return !ok, err
	}
	g := &gap{Preparer: f.p, room: id.RoomID(ref.RoomID), nid: ref.Nid, shard: ref.Nid.Shard(), rules: rules}
	missing, senders, err := g.beyond(ctx, &at)
	if err != nil {
		return false, err
	}
	if len(missing) == 0 { // it all came some other way
		return g.backfill(ctx, ord, nil, nil)
	}
	servers, err := g.witnesses(ctx, senders)
	if err != nil {
		return false, err
	}
	last := ErrUnfilled
	for _, s := range servers {
		if moved, err = g.fillFrom(ctx, s, ord, missing); moved || ctx.Err() != nil {
			return moved, err
		}
		if err != nil {
			f.p.o.Log.Info("a server did not give what is missing", "room", ref.RoomID, "server", string(s), "error", err)
			last = fmt.Errorf("%w: %w", ErrUnfilled, err)
		}
	}
	return false, last
}

// Near asks other servers in a room for the event that is closest to a time in ms, at it or after it, or before it, and gives what the first
// of them names that answers. Whether there is such an event is not known by that.
func (f *Filler) Near(ctx context.Context, ref roomdb.RoomRef, ts int64, forward bool) (event id.EventID, at int64, err error) {
	g := &gap{Preparer: f.p, room: id.RoomID(ref.RoomID), nid: ref.Nid, shard: ref.Nid.Shard()}
	servers, err := g.witnesses(ctx, nil)
	if err != nil {
		return "", 0, err
	}
	query := url.Values{"ts": {strconv.FormatInt(ts, 10)}, "dir": {"b"}}
	if forward {
		query.Set("dir", "f")
	}
	err = ErrUnfilled
	for _, s := range servers {
		raw, asked := g.ask(ctx, s, "GET", fedPath("timestamp_to_event", ref.RoomID), query, nil, nearLimit, nearTimeout)
		if asked != nil {
			err = fmt.Errorf("%w: %w", ErrUnfilled, asked)
			continue
		}
		var answer struct {
			Event id.EventID `json:"event_id"`
			TS    int64      `json:"origin_server_ts"`
		}
		if json.Unmarshal(raw, &answer) == nil && answer.Event != "" {
			return answer.Event, answer.TS, nil
		}
	}
	return "", 0, err
}

// beyond gives the events that a gap's edge names and that are not known, and the servers of those who sent the edge.
func (g *gap) beyond(ctx context.Context, at *roomdb.Gap) (missing []id.EventID, senders []id.ServerName, err error) {
	edge, err := g.o.Rooms.EventsByNid(ctx, at.Edge)
	if err != nil {
		return nil, nil, err
	}
	var named []id.EventID
	for i := range edge {
		e, err := event.ParseTrusted(g.rules, edge[i].JSON, id.EventID(edge[i].EventID))
		if err != nil {
			return nil, nil, fmt.Errorf("read event %s: %w", edge[i].EventID, err)
		}
		named = append(named, e.PrevEvents()...)
		senders = append(senders, e.Sender().Server())
	}
	_, missing, err = g.placed(ctx, named)
	return missing, senders, err
}

// placed tells of which events the state is known, and gives the others, each once.
func (g *gap) placed(ctx context.Context, events []id.EventID) (known map[id.EventID]bool, others []id.EventID, err error) {
	names := make([]string, len(events))
	for i, e := range events {
		names[i] = string(e)
	}
	rows, err := g.o.Rooms.EventsByID(ctx, g.nid, names)
	if err != nil {
		return nil, nil, err
	}
	known = make(map[id.EventID]bool, len(rows))
	for i := range rows {
		if !rows[i].Flags.Has(roomdb.FlagOutlier) {
			known[id.EventID(rows[i].EventID)] = true
		}
	}
	for _, e := range events {
		if !known[e] && !slices.Contains(others, e) {
			others = append(others, e)
		}
	}
	return known, others, nil
}

// witnesses gives the servers to ask: those of who sent what follows the gap, then others that are in the room.
func (g *gap) witnesses(ctx context.Context, first []id.ServerName) ([]id.ServerName, error) {
	hosts, err := g.o.DB.Hosts(ctx, g.nid)
	if err != nil {
		return nil, err
	}
	var out []id.ServerName
	add := func(s id.ServerName) {
		if s != g.o.Server && s.Valid() && !slices.Contains(out, s) && len(out) < fillServers {
			out = append(out, s)
		}
	}
	for _, s := range first {
		if slices.Contains(hosts, string(s)) {
			add(s)
		}
	}
	for _, s := range hosts {
		add(id.ServerName(s))
	}
	return out, nil
}

// fillFrom asks one server for what is before a gap, and has what it gives take its place.
func (g *gap) fillFrom(ctx context.Context, from id.ServerName, ord int64, missing []id.EventID) (moved bool, err error) {
	query := url.Values{"limit": {strconv.Itoa(fillEvents)}}
	for _, e := range missing[:min(len(missing), fillEvents)] {
		query.Add("v", string(e))
	}
	raw, err := g.ask(ctx, from, "GET", fedPath("backfill", string(g.room)), query, nil, answerLimit, fillTimeout)
	if err != nil {
		return false, err
	}
	var answer struct {
		PDUs []json.RawMessage `json:"pdus"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return false, wrap("read backfill", err)
	}
	events := parsed(ctx, g.o.Keys, g.rules, g.room, answer.PDUs[:min(len(answer.PDUs), fillEvents)])
	events, bottom, err := g.chosen(ctx, events, missing)
	if err != nil || len(events) == 0 {
		return false, err
	}
	var states []room.BackfillState
	defer func() {
		for _, s := range states {
			g.dropSet(ctx, s.Set)
		}
	}()
	lost := map[id.EventID]bool{}
	for _, e := range bottom {
		set, err := g.stateBefore(ctx, from, e)
		if err == nil {
			states = append(states, room.BackfillState{Event: e.EventID(), Set: set.ID})
			err = set.Store(ctx, g.o.Writer, g.room)
		}
		if err != nil {
			g.o.Log.Info("the state before a missing event could not be had", "room", string(g.room), "event", string(e.EventID()), "error", err)
			lost[e.EventID()] = true
		}
	}
	events = without(events, lost)
	if len(events) == 0 {
		return false, nil
	}
	if err := g.authOf(ctx, from, events); err != nil {
		return false, err
	}
	return g.backfill(ctx, ord, events, states)
}

// chosen leaves out what nobody asked for: what is not among the missing events or before them, or known. The rest is put in order; bottom are those
// of it of which something before is not known.
func (g *gap) chosen(ctx context.Context, events []*event.Event, missing []id.EventID) (out, bottom []*event.Event, err error) {
	byID := make(map[id.EventID]*event.Event, len(events))
	var named []id.EventID
	for _, e := range events {
		byID[e.EventID()] = e
		named = append(append(named, e.EventID()), e.PrevEvents()...)
	}
	known, _, err := g.placed(ctx, named)
	if err != nil {
		return nil, nil, err
	}
	taken := map[id.EventID]bool{}
	for todo := slices.Clone(missing); len(todo) > 0; {
		e := byID[todo[len(todo)-1]]
		todo = todo[:len(todo)-1]
		if e == nil || known[e.EventID()] || taken[e.EventID()] {
			continue
		}
		taken[e.EventID()] = true
		out = append(out, e)
		todo = append(todo, e.PrevEvents()...)
	}
	slices.SortFunc(out, func(a, b *event.Event) int {
		return cmp.Or(cmp.Compare(a.Depth(), b.Depth()), cmp.Compare(a.OriginServerTS(), b.OriginServerTS()), cmp.Compare(a.EventID(), b.EventID()))
	})
	out = inOrder(out, (*event.Event).PrevEvents)
	for _, e := range out {
		if slices.ContainsFunc(e.PrevEvents(), func(p id.EventID) bool { return !known[p] && !taken[p] }) {
			bottom = append(bottom, e)
		}
	}
	if n := len(bottom) - room.MaxBackfillStates; n > 0 { // the latest suffice to go on; the others stay missing
		lost := map[id.EventID]bool{}
		for _, e := range bottom[:n] {
			lost[e.EventID()] = true
		}
		bottom, out = bottom[n:], without(out, lost)
		bottom = slices.DeleteFunc(bottom, func(e *event.Event) bool { return !slices.Contains(out, e) })
	}
	return out, bottom, nil
}

// without leaves out events, and those that come after them.
func without(events []*event.Event, lost map[id.EventID]bool) []*event.Event {
	if len(lost) == 0 {
		return events
	}
	out := make([]*event.Event, 0, len(events))
	for _, e := range events {
		if lost[e.EventID()] || slices.ContainsFunc(e.PrevEvents(), func(p id.EventID) bool { return lost[p] }) {
			lost[e.EventID()] = true
			continue
		}
		out = append(out, e)
	}
	return out
}

// authOf fetches the auth events of events that are neither known nor among them.
func (g *gap) authOf(ctx context.Context, from id.ServerName, events []*event.Event) error {
	among := make(map[id.EventID]bool, len(events))
	for _, e := range events {
		among[e.EventID()] = true
	}
	var named []id.EventID
	for _, e := range events {
		for _, a := range e.AuthEvents() {
			if !among[a] {
				named = append(named, a)
			}
		}
	}
	lacking, err := g.unknown(ctx, named)
	if err != nil || len(lacking) == 0 {
		return err
	}
	set, err := StageSet(ctx, g.o.DB, g.singly(ctx, from, lacking[:min(len(lacking), fillAuth)]), nil, nil)
	if err != nil {
		return err
	}
	defer g.dropSet(ctx, set.ID)
	return set.Store(ctx, g.o.Writer, g.room)
}

// backfill has events take their places before a gap.
func (g *gap) backfill(ctx context.Context, ord int64, events []*event.Event, states []room.BackfillState) (moved bool, err error) {
	set, err := stageList(ctx, g.o.DB, events)
	if err != nil {
		return false, err
	}
	defer g.dropSet(ctx, set)
	a, err := g.o.Writer.Do(ctx, nil, &room.Backfill{Room: g.room, Gap: ord, Set: set, States: states})
	return err == nil && !a.Unchanged, err
}
