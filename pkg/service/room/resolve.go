package room

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/eventauth"
	"github.com/heddle-im/heddle/pkg/matrix/stateres"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// resolve gives what the states after some events resolve to. If they are those that the current state is the resolution of, whichever events
// they are after, that is known: while a room is forked, what changes no state costs nothing here.
//
// The graph that a resolution works on is kept with the room; it may also hold events of drafts that came to nothing, which no state names.
func (a *acceptor) resolve(after []snapshots) (stateres.State, error) {
	after = distinct(after)
	if len(after) == 1 {
		return after[0].state(), nil
	}
	if slices.EqualFunc(after, distinct(afterTips(a.head.tips)), func(x, y snapshots) bool { return x.nid() == y.nid() }) {
		return a.head.state, nil
	}
	states := make([]stateres.State, len(after))
	for i, s := range after {
		states[i] = s.state()
	}
	if a.r.graph == nil {
		a.r.graph = stateres.NewGraph(a.r.rules, a.r.id, 0)
	}
	before := a.r.graph.Len()
	res, err := a.r.graph.Resolve(source{a}, states)
	a.r.size += int64(a.r.graph.Len()-before) * sizeGraph
	switch {
	case errors.Is(err, errLacks):
		return stateres.State{}, errLacks
	case err != nil:
		return stateres.State{}, fmt.Errorf("resolve state: %w", err)
	}
	a.r.term.host.metrics.resolved(&res)
	return res.State, nil
}

// afterTips gives the states after extremities.
func afterTips(tips []tip) []snapshots {
	list := make([]snapshots, len(tips))
	for i, t := range tips {
		list[i] = t.snaps
	}
	return list
}

// distinct orders states by their nids and leaves out repetitions.
func distinct(list []snapshots) []snapshots {
	slices.SortFunc(list, func(a, b snapshots) int { return cmp.Compare(a.nid(), b.nid()) })
	return slices.CompactFunc(list, func(a, b snapshots) bool { return a.nid() == b.nid() })
}

// sizeGraph is about what an event takes in a graph.
const sizeGraph = 400

// chainFact is an event as a resolution needs it. It is loaded with all its auth events.
type chainFact struct{ nid shard.Nid }

func (f chainFact) load(ctx context.Context, r *live) (any, error) {
	facts := map[fact]any{}
	err := r.loadChains(ctx, []shard.Nid{f.nid}, facts)
	return facts[f], err
}

// source gives a resolution its events: from memory those that are not stored yet, else those that were loaded.
type source struct{ a *acceptor }

// Load implements stateres.Source.
func (s source) Load(nids []int64) ([]stateres.Entry, error) {
	a := s.a
	entries := make([]stateres.Entry, 0, len(nids))
	for _, n := range nids {
		if e, ok := a.facts[chainFact{shard.Nid(n)}].(stateres.Entry); ok {
			entries = append(entries, e)
			continue
		}
		h := a.byNid[shard.Nid(n)]
		if h == nil {
			a.needs.chains = append(a.needs.chains, shard.Nid(n))
			continue
		}
		e := stateres.Entry{
			NID: n, Event: h.red, Rejected: h.rejected, Time: h.ev.OriginServerTS(), Depth: h.ev.Depth(), Auth: ints(h.auth),
		}
		if key, ok := h.ev.StateKey(); ok {
			e.Key, _ = a.key(eventauth.TypeKey{Type: h.ev.Type(), StateKey: key})
		}
		entries = append(entries, e)
	}
	if a.lacks() {
		return nil, errLacks
	}
	return entries, nil
}

func ints(nids []shard.Nid) []int64 {
	out := make([]int64, len(nids))
	for i, n := range nids {
		out[i] = int64(n)
	}
	return out
}

// chainBatch is how many events are read at once.
const chainBatch = 1000

// loadChains reads events with their auth events, and the auth events of those, to the end.
func (r *live) loadChains(ctx context.Context, nids []shard.Nid, facts map[fact]any) error {
	seen := map[shard.Nid]bool{}
	var todo []shard.Nid
	add := func(n shard.Nid) {
		if _, ok := facts[chainFact{n}]; !ok && !seen[n] {
			seen[n] = true
			todo = append(todo, n)
		}
	}
	for _, n := range nids {
		add(n)
	}
	for len(todo) > 0 {
		n := min(len(todo), chainBatch)
		batch := todo[:n]
		todo = todo[n:]
		rows, err := r.term.host.DB.EventsByNid(ctx, batch)
		if err != nil {
			return err
		}
		if len(rows) != len(batch) {
			return fmt.Errorf("of %d auth events %d are there", len(batch), len(rows))
		}
		for i := range rows {
			row := &rows[i]
			h, err := r.hold(row)
			if err != nil {
				return err
			}
			e := stateres.Entry{
				NID: int64(h.nid), Event: h.red, Rejected: h.rejected, Time: row.TS, Depth: row.Depth, Auth: ints(row.Auth),
			}
			if row.StateKey != nil {
				e.Key = stateres.Key{Type: int64(row.Type), StateKey: int64(*row.StateKey)}
			}
			facts[chainFact{h.nid}] = e
			for _, n := range row.Auth {
				add(n)
			}
		}
	}
	return nil
}
