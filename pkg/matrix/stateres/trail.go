package stateres

import (
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/roomver"
)

// A room that stays forked is resolved again and again, each time with one state that differs a little from what it was. What a resolution found
// is kept as a trail, and a change is followed through it instead: through the auth chains by counting who cites what, and through the
// events that are checked one after the other by what each of them reads: first those that are ordered by power, into whose order a kick or a ban
// is put where it would have come, and then the others. What the former come to as power levels, join rules and creation has to stay as it is, or
// the change is not followed: then everything is found anew. So it is in version 1, and with states that hold events at other events' keys.

const (
	// maxTrailed is of how many states a trail is kept.
	maxTrailed = 8
	// maxChanges is by how many entries one of them may differ to be followed.
	maxChanges = 16
)

// trail is a resolution. It is worked out when the first change is to be followed.
type trail struct {
	g      *Graph
	states []State
	run    *run
	result Result
	nodes  int  // how many it knows of
	known  bool // all below is set

	chains     []chain // of each state, and then, for v2.1, of all conflicted events
	in         []uint8 // node → how many states' auth chains it is in
	conflicted []bool  // node
	rests      []bool  // node → it rests on a conflicted event, directly or not; v2.1
	cited      []bool  // node → another cites it
	full       []bool  // node → it is in the full conflicted set
	power      []bool  // node → it is ordered by power
	underPower []bool  // node → one that is ordered by power cites it
	slots      []int32 // slot → node in the state after those that are ordered by power
	common     []int32 // slot → node, the unconflicted state map
	allowed    []bool  // node → of the full conflicted set: it was allowed

	line        []lined // those that are ordered by power, in their order
	places      []int32 // node → its place in line
	early, late course  // those that are ordered by power, and the others

	changed  []int32        // nodes whose part in the full conflicted set may have changed
	raised   []int32        // power events that came into it
	founded  map[int32]bool // slots whose content after the events that are ordered by power may have changed
	settled  map[int32]bool // slots whose outcome may have changed
	hopeless bool           // the change cannot be followed

	stack, reads []int32 // scratch
}

// chain is a set of events with their auth chains.
type chain struct {
	holds  func(node int32) bool
	in     []bool  // node → it is in the set, or in an auth chain
	citers []int32 // node → how many of those cite it
}

// match finds which state is another one than before; ok says that all others are the same. -1 is none.
func (t *trail) match(states []State) (at int, now State, ok bool) {
	if t == nil || len(states) != len(t.states) {
		return 0, State{}, false
	}
	at = -1
	var taken [maxTrailed]bool
	others := 0
	for _, s := range states {
		i := 0
		for i < len(t.states) && (taken[i] || !t.states[i].Same(s)) {
			i++
		}
		if i < len(t.states) {
			taken[i] = true
			continue
		}
		now = s
		others++
	}
	if others > 1 {
		return 0, State{}, false
	}
	if others == 1 {
		at = slices.Index(taken[:], false)
	}
	return at, now, true
}

// follow resolves states of which one differs little from before. If it says false, that is not so.
func (g *Graph) follow(src Source, states []State) (Result, bool, error) {
	var t *trail
	at, now, ok := 0, State{}, false
	for _, t = range g.trails {
		if at, now, ok = t.match(states); ok {
			break
		}
	}
	if !ok {
		return Result{}, false, nil
	}
	var changes []diff
	var wanted []int64
	if at >= 0 {
		Diff(t.states[at], now, func(k Key, was, is int64) {
			changes = append(changes, diff{key: k, firstNID: was, nid: is})
			if _, known := g.index.get(is); !known && is != 0 {
				wanted = append(wanted, is)
			}
		})
	}
	if len(changes) > maxChanges {
		return Result{}, false, nil
	}
	if err := g.ensure(src, wanted); err != nil {
		return Result{}, false, err
	}
	for i := range changes {
		c := &changes[i]
		c.first, c.node = g.node(c.firstNID), g.node(c.nid)
		for _, n := range [2]int32{c.first, c.node} {
			if n != none && (!g.stands(n, c.key) || g.nodes[n].slot < numFixedSlots) {
				return Result{}, false, nil
			}
		}
	}
	t.run.res.Steps = 0
	if len(changes) > 0 && !t.apply(at, now, changes) {
		g.drop(t)
		return Result{}, false, nil
	}
	g.keep(t)
	if at >= 0 {
		t.states[at] = now
	}
	t.result.Steps = t.run.res.Steps
	return t.result, true, nil
}

// keep puts a trail before the others, of which the oldest goes.
func (g *Graph) keep(t *trail) {
	if g.trails[0] != t {
		g.trails[0], g.trails[1] = t, g.trails[0]
	}
}

// drop forgets a trail.
func (g *Graph) drop(t *trail) {
	for i := range g.trails {
		if g.trails[i] == t {
			g.trails[i] = nil
		}
	}
}

// node gives an event's node, or none.
func (g *Graph) node(nid int64) int32 {
	if n, ok := g.index.get(nid); ok {
		return n
	}
	return none
}

// learn works out what following a change takes.
func (t *trail) learn() {
	g, r := t.g, t.run
	t.known = true
	t.full, t.power, t.allowed, t.slots, t.common = r.full, r.power, r.passed, r.afterPower, r.common
	t.founded, t.settled = map[int32]bool{}, map[int32]bool{}
	t.early, t.late = t.courses()
	for i := range t.states {
		t.chains = append(t.chains, chain{holds: func(n int32) bool { return t.holds(i, n) }})
	}
	if t.subgraph() {
		t.chains = append(t.chains, chain{holds: func(n int32) bool { return t.conflicted[n] }})
	}
	t.grow()
	r.conflicts(func(ds []diff) {
		for i := range ds {
			for _, n := range [2]int32{ds[i].first, ds[i].node} {
				if n != none {
					t.conflicted[n] = true
					t.hopeless = t.hopeless || !g.stands(n, ds[i].key)
				}
			}
		}
	})
	t.count()
	t.rest(0, t.nodes)
	for i := range int32(t.nodes) {
		if !t.power[i] {
			continue
		}
		for _, a := range g.auth(i) {
			t.underPower[a] = true
		}
	}
	for i, n := range r.byPower {
		t.places[n] = int32(i)
		t.line = append(t.line, lined{n, r.senderPower(n)})
		if t.usable(n) {
			t.early.enlist(n)
		}
	}
	for _, n := range r.rest { // in order
		if t.counts(n) {
			t.late.enlist(n)
		}
	}
	r.diffs, r.states, r.rest, r.byPower, r.slots, r.touched = nil, nil, nil, nil, t.slots, nil
	r.fallback = true
}

func (t *trail) subgraph() bool { return t.g.rules.StateRes == roomver.StateResV2_1 }

// count follows all citations once.
func (t *trail) count() {
	g := t.g
	for i := range t.chains {
		c := &t.chains[i]
		if i < len(t.states) {
			for k, nid := range t.states[i].All() {
				if n := g.node(nid); n != none && g.stands(n, k) {
					c.in[n] = true
				}
			}
		} else {
			copy(c.in, t.conflicted)
		}
		for n := t.nodes - 1; n >= 0; n-- {
			c.in[n] = c.in[n] || c.citers[n] > 0
			if !c.in[n] {
				continue
			}
			for _, a := range g.auth(int32(n)) {
				c.citers[a]++
				if c.citers[a] == 1 && i < len(t.states) {
					t.in[a]++
				}
			}
		}
		t.run.res.Steps += t.nodes + len(g.edges)
	}
}

// rest finds which of some nodes rest on conflicted ones, and notes what they cite.
func (t *trail) rest(from, to int) {
	for n := from; n < to; n++ {
		for _, a := range t.g.auth(int32(n)) {
			t.rests[n] = t.rests[n] || t.conflicted[a] || t.rests[a]
			t.cited[a] = true
		}
	}
}

// holds says whether a state holds an event.
func (t *trail) holds(state int, n int32) bool {
	nd := &t.g.nodes[n]
	if nd.slot == none {
		return false
	}
	nid, _ := t.states[state].Get(t.g.slotKeys[nd.slot])
	return nid == nd.nid
}

// grow makes room for the graph's nodes and slots.
func (t *trail) grow() {
	nodes, slots := len(t.g.nodes), len(t.g.slotKeys)
	for _, b := range []*[]bool{&t.conflicted, &t.rests, &t.cited, &t.full, &t.power, &t.underPower, &t.allowed} {
		*b = padded(*b, nodes, false)
	}
	t.in = padded(t.in, nodes, 0)
	for i := range t.chains {
		t.chains[i].in = padded(t.chains[i].in, nodes, false)
		t.chains[i].citers = padded(t.chains[i].citers, nodes, 0)
	}
	t.places = padded(t.places, nodes, none)
	t.common, t.slots = padded(t.common, slots, none), padded(t.slots, slots, none)
	t.run.slots = t.slots
}

func padded[T any](s []T, n int, with T) []T {
	for len(s) < n {
		s = append(s, with)
	}
	return s
}

// apply follows changes of one state. If it says false, the trail is of no use any more.
func (t *trail) apply(state int, now State, changes []diff) bool {
	if !t.known && !t.hopeless {
		t.learn()
	}
	if t.hopeless {
		return false
	}
	t.grow()
	t.states[state] = now
	for i := range changes {
		if n := changes[i].node; n != none {
			t.add(state, n)
		}
	}
	for i := range changes {
		if n := changes[i].first; n != none {
			t.drop(state, n)
		}
		t.conflict(state, &changes[i])
	}
	t.rest(t.nodes, len(t.g.nodes))
	t.nodes = len(t.g.nodes)
	for _, n := range t.changed {
		t.place(n)
	}
	t.changed = t.changed[:0]
	t.raise()
	if t.hopeless {
		return false
	}
	t.early.check()
	t.found()
	if t.hopeless {
		return false
	}
	t.late.check()
	t.settle()
	return true
}

// add has a node be in a chain, with all that it cites.
func (t *trail) add(chain int, n int32) {
	c := &t.chains[chain]
	stack := append(t.stack[:0], n)
	for len(stack) > 0 {
		n, stack = stack[len(stack)-1], stack[:len(stack)-1]
		if c.in[n] {
			continue
		}
		c.in[n] = true
		for _, a := range t.g.auth(n) {
			t.run.res.Steps++
			if c.citers[a]++; c.citers[a] == 1 {
				t.reached(chain, a, 1)
				stack = append(stack, a)
			}
		}
	}
	t.stack = stack
}

// drop has a node be in a chain no more, unless it is for another reason, and likewise what it cites.
func (t *trail) drop(chain int, n int32) {
	c := &t.chains[chain]
	stack := append(t.stack[:0], n)
	for len(stack) > 0 {
		n, stack = stack[len(stack)-1], stack[:len(stack)-1]
		if !c.in[n] || c.citers[n] > 0 || c.holds(n) {
			continue
		}
		c.in[n] = false
		for _, a := range t.g.auth(n) {
			t.run.res.Steps++
			if c.citers[a]--; c.citers[a] == 0 {
				t.reached(chain, a, -1)
				stack = append(stack, a)
			}
		}
	}
	t.stack = stack
}

// reached notes that a node came into the auth chain of some events, or went.
func (t *trail) reached(chain int, n int32, by int) {
	if chain < len(t.states) {
		t.in[n] = uint8(int(t.in[n]) + by)
	}
	t.changed = append(t.changed, n)
}

// conflict follows what a change at a key does to the conflicts.
func (t *trail) conflict(state int, c *diff) {
	g := t.g
	var values [maxTrailed]int64
	was, is := false, false
	for i, s := range t.states {
		values[i], _ = s.Get(c.key)
		is = is || values[i] != values[0]
	}
	for i := range t.states {
		was = was || i != state && values[i] != c.firstNID
	}
	mark := func(n int32, conflicted bool) {
		if t.conflicted[n] == conflicted {
			return
		}
		if t.subgraph() && t.cited[n] && !t.rests[n] { // what cites it may come to rest on a conflicted event, or cease to
			t.hopeless = true
			return
		}
		t.conflicted[n] = conflicted
		t.changed = append(t.changed, n)
		switch {
		case !t.subgraph():
		case conflicted:
			t.add(len(t.states), n)
		default:
			t.drop(len(t.states), n)
		}
	}
	slot, gone := none, c.first
	for i := range t.states {
		n := g.node(values[i])
		if n == none {
			continue
		}
		slot = g.nodes[n].slot
		mark(n, is)
		if n == gone {
			gone = none
		}
	}
	if gone != none {
		slot = g.nodes[gone].slot
		mark(gone, false)
	}
	switch {
	case is && !was:
		t.result.Conflicted++
	case was && !is:
		t.result.Conflicted--
	}
	common := none
	if !is {
		common = g.node(values[0])
	}
	t.settled[slot] = true
	if t.common[slot] == common {
		return
	}
	t.common[slot] = common
	if t.subgraph() { // which begins from nothing
		return
	}
	t.founded[slot] = true
	t.early.spread(slot, t.early.readers[slot])
}

// place follows whether a node is in the full conflicted set.
func (t *trail) place(n int32) {
	now := t.conflicted[n] || t.in[n] > 0 && int(t.in[n]) < len(t.states)
	if !now && t.subgraph() {
		now = t.chains[len(t.states)].citers[n] > 0 && t.rests[n]
	}
	if now == t.full[n] {
		return
	}
	t.full[n] = now
	if now && t.underPower[n] || t.power[n] { // others would come before it, or it is to leave them
		t.hopeless = true
		return
	}
	switch {
	case !now:
		t.result.Full--
		if t.counts(n) {
			t.late.strike(n)
		}
	case t.g.nodes[n].flags&nodePower != 0:
		t.result.Full++
		t.raised = append(t.raised, n)
	default:
		t.result.Full++
		if t.counts(n) {
			t.late.enlist(n)
			t.late.ask(n)
		}
	}
}

// raise has power events that came into the full conflicted set be ordered by power, with what they cite in it. None of those that were so before
// cites one of them, so that each has its place and moves no other.
func (t *trail) raise() {
	g := t.g
	var all []int32
	for len(t.raised) > 0 && !t.hopeless {
		n := t.raised[len(t.raised)-1]
		t.raised = t.raised[:len(t.raised)-1]
		if t.power[n] || !t.full[n] {
			continue
		}
		if g.nodes[n].flags&nodePower == 0 && t.counts(n) {
			t.late.strike(n)
		}
		t.power[n] = true
		all = append(all, n)
		for _, a := range g.auth(n) {
			t.underPower[a] = true
			if t.full[a] && !t.power[a] {
				t.raised = append(t.raised, a)
			}
		}
	}
	t.raised = t.raised[:0]
	slices.Sort(all) // what is cited comes before what cites it
	for _, n := range all {
		t.result.Power++
		t.queueUp(n)
		if t.usable(n) {
			t.early.enlist(n)
			t.early.ask(n)
		}
	}
}

// found brings up to date what the others of the full conflicted set begin from.
func (t *trail) found() {
	for slot := range t.founded {
		now := t.early.lastOf(t.early.setters[slot])
		if now == none {
			now = t.early.before(slot)
		}
		if now == t.slots[slot] {
			continue
		}
		t.hopeless = t.hopeless || slot < numFixedSlots
		t.slots[slot] = now
		t.settled[slot] = true
		t.late.spread(slot, t.late.readers[slot])
	}
	clear(t.founded)
}
