package stateres

import (
	"cmp"
	"math"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/eventauth"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
)

// Result is a resolved state and what it took.
type Result struct {
	State State
	// Conflicted counts the state entries in which the states differ, Full the events of the full conflicted set, Power those
	// of them that were ordered by power, Steps the visits to events and edges, which grow with the time taken.
	Conflicted, Full, Power, Steps int
}

// Resolve resolves states of the graph's room by the algorithm of its version. The result shares structure with the first
// state. An error means that events could not be read; nothing has changed then, but that the graph may know more.
func (g *Graph) Resolve(src Source, states []State) (Result, error) {
	states, diffs := compare(states)
	if len(states) == 0 {
		return Result{}, nil
	}
	if len(diffs) == 0 {
		return Result{State: states[0]}, nil
	}
	if err := g.ensure(src, eventsOf(states[0], diffs)); err != nil {
		return Result{}, err
	}
	r := newRun(g, states, diffs)
	if g.rules.StateRes == roomver.StateResV1 {
		r.resolveV1()
	} else {
		r.resolveV2()
	}
	return r.result(), nil
}

// diff says that a state has another event than the first state at a key; 0 is none.
type diff struct {
	key          Key
	state        int32
	first, other int64
}

// compare drops states that are equal to the first and lists, by key, where the others differ from it.
func compare(states []State) ([]State, []diff) {
	if len(states) < 2 {
		return states, nil
	}
	kept := []State{states[0]}
	var diffs []diff
next:
	for _, s := range states[1:] {
		for _, k := range kept {
			if k.Same(s) {
				continue next
			}
		}
		before := len(diffs)
		Diff(states[0], s, func(k Key, a, b int64) {
			diffs = append(diffs, diff{k, int32(len(kept)), a, b})
		})
		if len(diffs) > before {
			kept = append(kept, s)
		}
	}
	if len(kept) > 2 {
		slices.SortStableFunc(diffs, func(a, b diff) int { return a.key.Compare(b.key) })
	}
	return kept, diffs
}

// eventsOf lists every event of the states.
func eventsOf(first State, diffs []diff) []int64 {
	nids := make([]int64, 0, first.Len()+len(diffs))
	for _, e := range first.All() {
		nids = append(nids, e)
	}
	for _, d := range diffs {
		if d.other != 0 {
			nids = append(nids, d.other)
		}
	}
	return nids
}

// run is one resolution.
type run struct {
	g      *Graph
	states []State
	diffs  []diff

	common   []int32 // nodes of the entries in which no state differs
	slots    []int32 // slot → node in the state resolved so far, or none
	fixed    []bool  // slot → stands in the unconflicted state map
	touched  []int32 // slots that were set in the course of the resolution
	fallback bool    // what is missing in the state is taken from the event's own auth events
	verify   func(*eventauth.Reduced, *eventauth.ThirdPartyInvite) bool
	res      Result
}

func newRun(g *Graph, states []State, diffs []diff) *run {
	r := &run{g: g, states: states, diffs: diffs, verify: g.verify}
	r.common = make([]int32, 0, states[0].Len())
	d := diffs
	for k, e := range states[0].All() {
		for len(d) > 0 && d[0].key.less(k) {
			d = d[1:]
		}
		if len(d) > 0 && d[0].key == k {
			continue
		}
		if n, ok := g.index.get(e); ok {
			r.common = append(r.common, n)
		}
	}
	r.slots = make([]int32, len(g.slotKeys))
	for i := range r.slots {
		r.slots[i] = none
	}
	r.fixed = make([]bool, len(g.slotKeys))
	r.res.Steps += len(r.common) + len(diffs)
	return r
}

func (g *Graph) verify(invite *eventauth.Reduced, with *eventauth.ThirdPartyInvite) bool {
	p := thirdPartyPair{invite, with}
	ok, known := g.verified[p]
	if !known {
		ok = eventauth.VerifyThirdParty(invite, with)
		if g.verified == nil {
			g.verified = map[thirdPartyPair]bool{}
		}
		g.verified[p] = ok
	}
	return ok
}

// conflicts calls f for each key in conflict with the differences at it.
func (r *run) conflicts(f func([]diff)) {
	for i := 0; i < len(r.diffs); {
		j := i + 1
		for j < len(r.diffs) && r.diffs[j].key == r.diffs[i].key {
			j++
		}
		f(r.diffs[i:j])
		i = j
	}
}

// fix puts the unconflicted entries in the way of those that the resolution would set.
func (r *run) fix() {
	for _, n := range r.common {
		if s := r.g.nodes[n].slot; s != none {
			r.fixed[s] = true
		}
	}
}

// result applies what was resolved to the first state.
func (r *run) result() Result {
	var changes []Pair
	for _, s := range r.touched {
		if n := r.slots[s]; n != none && !r.fixed[s] {
			changes = append(changes, Pair{r.g.slotKeys[s], r.g.nodes[n].nid})
		}
	}
	byKey := func(a, b Pair) int { return a.Compare(b.Key) }
	slices.SortFunc(changes, byKey)
	changes = slices.Compact(changes)
	all := make([]Pair, 0, len(changes)+len(r.diffs))
	rest := changes
	r.conflicts(func(d []diff) {
		r.res.Conflicted++
		for len(rest) > 0 && rest[0].less(d[0].key) {
			all = append(all, rest[0])
			rest = rest[1:]
		}
		p := Pair{Key: d[0].key}
		if len(rest) > 0 && rest[0].Key == p.Key {
			p, rest = rest[0], rest[1:]
		}
		if p.Event != d[0].first {
			all = append(all, p)
		}
	})
	r.res.State = r.states[0].Apply(append(all, rest...))
	return r.res
}

// at is the node at a slot, in the state or, failing that, among the auth events of node n.
func (r *run) at(n, slot int32) int32 {
	if s := r.slots[slot]; s != none || !r.fallback {
		return s
	}
	auth := r.g.auth(n)
	r.res.Steps += len(auth)
	for _, a := range auth {
		if m := &r.g.nodes[a]; m.slot == slot && m.flags&(nodeRejected|nodeUnusable) == 0 {
			return a
		}
	}
	return none
}

func (r *run) membership(n, slot int32) eventauth.Membership {
	if m := r.at(n, slot); m != none {
		return r.g.nodes[m].event.Membership
	}
	return eventauth.MembershipNone
}

// allowed decides about node n in the state resolved so far.
func (r *run) allowed(n int32) bool {
	nd := &r.g.nodes[n]
	if nd.flags&nodeUnusable != 0 {
		return false
	}
	r.res.Steps++
	e := nd.event
	st := eventauth.AuthState{Create: r.g.create, Sender: r.membership(n, nd.sender)}
	if !r.g.rules.RoomIDIsHash {
		if m := r.at(n, slotCreate); m != none {
			st.Create = r.g.nodes[m].event.Create()
		}
	}
	if m := r.at(n, slotPower); m != none {
		st.Power = r.g.nodes[m].event.PowerLevels()
	}
	if e.Kind == eventauth.KindMember {
		r.member(n, &st)
	}
	return eventauth.Decide(r.g.rules, e, &st) == eventauth.Allowed
}

// member adds to the state what member events read.
func (r *run) member(n int32, st *eventauth.AuthState) {
	e := r.g.nodes[n].event
	st.Target = r.membership(n, r.g.nodes[n].slot)
	needs := e.Needs()
	if needs.JoinRules {
		if m := r.at(n, slotJoinRules); m != none {
			st.JoinRule = r.g.nodes[m].event.JoinRule
		}
	}
	if needs.HasToken {
		if slot, ok := r.g.others[eventauth.TypeKey{Type: "m.room.third_party_invite", StateKey: needs.Token}]; ok {
			if m := r.at(n, slot); m != none {
				st.ThirdParty = r.g.nodes[m].event.ThirdPartyInvite()
				st.VerifyThirdParty = r.verify
			}
		}
	}
	if needs.Authoriser != "" {
		if slot, ok := r.g.users[string(needs.Authoriser)]; ok {
			st.Authoriser = r.membership(n, slot)
		}
	}
}

// apply is the iterative auth checks algorithm.
func (r *run) apply(list []int32) {
	for _, n := range list {
		if r.allowed(n) {
			s := r.g.nodes[n].slot
			r.slots[s] = n
			r.touched = append(r.touched, s)
		}
	}
}

// resolveV2 is the algorithm of room versions 2 to 12.
func (r *run) resolveV2() {
	r.fallback = true
	empty := r.g.rules.StateRes == roomver.StateResV2_1
	full := r.fullConflictedSet(empty)
	power := r.powerSet(full)

	r.fix()
	if !empty {
		for _, n := range r.common {
			if s := r.g.nodes[n].slot; s != none {
				r.slots[s] = n
			}
		}
	}
	r.apply(r.orderByPower(power))

	rest := make([]int32, 0, r.res.Full-r.res.Power)
	for i := range full {
		if full[i] && !power[i] {
			rest = append(rest, int32(i))
		}
	}
	r.orderByMainline(rest)
	r.apply(rest)
}

// fullConflictedSet marks the conflicted events, the auth difference, and for v2.1 the conflicted state subgraph.
func (r *run) fullConflictedSet(subgraph bool) []bool {
	g := r.g
	size := len(g.nodes)
	full := make([]bool, size)
	r.conflicts(func(ds []diff) {
		if n, ok := g.index.get(ds[0].first); ok {
			full[n] = true
		}
		for _, d := range ds {
			if n, ok := g.index.get(d.other); ok {
				full[n] = true
			}
		}
	})
	var between []bool
	if subgraph {
		between = r.subgraph(full)
	}
	r.authDifference(full)
	for i, b := range between {
		full[i] = full[i] || b
	}
	for _, f := range full {
		if f {
			r.res.Full++
		}
	}
	return full
}

// authDifference marks what is in the auth chains of some states and not of all. Bit i of a node's mask says that the node is
// in the full auth chain of state i; 64 states are swept at a time.
func (r *run) authDifference(mark []bool) {
	g := r.g
	size := len(g.nodes)
	some, all := make([]bool, size), make([]bool, size)
	cites, chain := make([]uint64, size), make([]uint64, size)
	for base := 0; base < len(r.states); base += 64 {
		if base > 0 {
			clear(cites)
			clear(chain)
		}
		every := ^uint64(0) >> (64 - min(64, len(r.states)-base))
		for _, n := range r.common {
			cites[n] = every
		}
		r.conflicts(func(ds []diff) {
			first := every
			for _, d := range ds {
				i := int(d.state) - base
				if i < 0 || i > 63 {
					continue
				}
				first &^= 1 << i
				if n, ok := g.index.get(d.other); ok {
					cites[n] |= 1 << i
				}
			}
			if n, ok := g.index.get(ds[0].first); ok {
				cites[n] |= first
			}
		})
		for i := size - 1; i >= 0; i-- {
			m := cites[i] | chain[i]
			if m == 0 {
				continue
			}
			for _, a := range g.auth(int32(i)) {
				chain[a] |= m
			}
		}
		for i, m := range chain {
			some[i] = some[i] || m != 0
			all[i] = (all[i] || base == 0) && m == every
		}
		r.res.Steps += 2*size + len(g.edges) + len(r.diffs) + len(r.common)
	}
	for i := range mark {
		mark[i] = mark[i] || (some[i] && !all[i])
	}
}

// subgraph marks what lies on a path of citations from one conflicted event to another.
func (r *run) subgraph(conflicted []bool) []bool {
	g := r.g
	size := len(g.nodes)
	reaches, reached := make([]bool, size), slices.Clone(conflicted)
	for i := range size {
		reaches[i] = conflicted[i]
		for _, a := range g.auth(int32(i)) {
			reaches[i] = reaches[i] || reaches[a]
		}
	}
	for i := size - 1; i >= 0; i-- {
		if reached[i] {
			for _, a := range g.auth(int32(i)) {
				reached[a] = true
			}
		}
	}
	for i := range reached {
		reached[i] = reached[i] && reaches[i]
	}
	r.res.Steps += 3*size + 2*len(g.edges)
	return reached
}

// powerSet marks the power events of the full conflicted set and what they cite, directly or not, inside of that set. Like the
// servers in the field it follows citations inside the set only.
func (r *run) powerSet(full []bool) []bool {
	g := r.g
	set := make([]bool, len(full))
	for i := len(full) - 1; i >= 0; i-- {
		if !full[i] {
			continue
		}
		set[i] = set[i] || g.nodes[i].flags&nodePower != 0
		if !set[i] {
			continue
		}
		r.res.Power++
		for _, a := range g.auth(int32(i)) {
			set[a] = set[a] || full[a]
		}
	}
	r.res.Steps += len(full)
	return set
}

// orderByPower is the reverse topological power ordering: Kahn's algorithm with a heap of what is ready.
func (r *run) orderByPower(set []bool) []int32 {
	g := r.g
	nodes := make([]int32, 0, r.res.Power)
	local := make([]int32, len(set)) // node → index in nodes
	for i, in := range set {
		if in {
			local[i] = int32(len(nodes))
			nodes = append(nodes, int32(i))
		}
	}
	waits := make([]int32, len(nodes))    // how many of its auth events have not been put out
	citers := make([]int32, len(nodes)+1) // start of each node's citers in by
	for i, n := range nodes {
		for _, a := range g.auth(n) {
			if set[a] {
				waits[i]++
				citers[local[a]+1]++
			}
		}
	}
	for i := range nodes {
		citers[i+1] += citers[i]
	}
	by, fill := make([]int32, citers[len(nodes)]), slices.Clone(citers)
	for i, n := range nodes {
		for _, a := range g.auth(n) {
			if set[a] {
				by[fill[local[a]]] = int32(i)
				fill[local[a]]++
			}
		}
	}
	r.res.Steps += len(set) + 2*len(by)

	h := powerHeap{g: g, nodes: nodes, power: make([]eventauth.Level, len(nodes)), steps: &r.res.Steps}
	for i, n := range nodes {
		h.power[i] = r.senderPower(n)
		if waits[i] == 0 {
			h.push(int32(i))
		}
	}
	order := make([]int32, 0, len(nodes))
	for len(h.heap) > 0 {
		i := h.pop()
		order = append(order, nodes[i])
		for _, c := range by[citers[i]:citers[i+1]] {
			if waits[c]--; waits[c] == 0 {
				h.push(c)
			}
		}
	}
	return order
}

// senderPower is the power level of an event's sender by the event's own auth events.
func (r *run) senderPower(n int32) eventauth.Level {
	nd := &r.g.nodes[n]
	var power *eventauth.PowerLevels
	if nd.parent != none {
		power = r.g.nodes[nd.parent].event.PowerLevels()
	}
	create := r.g.create
	if !r.g.rules.RoomIDIsHash && power == nil {
		for _, a := range r.g.auth(n) {
			if m := &r.g.nodes[a]; m.slot == slotCreate && m.flags&nodeUnusable == 0 {
				create = m.event.Create()
			}
		}
	}
	return eventauth.PowerOf(create, power, nd.event.Sender)
}

// orderByMainline sorts events by the mainline ordering based on the power levels resolved so far.
func (r *run) orderByMainline(list []int32) {
	g := r.g
	const nowhere = math.MaxInt32
	position := make([]int32, len(g.powers))
	for i := range position {
		position[i] = none
	}
	length := int32(0)
	for p := r.slots[slotPower]; p != none; p = g.nodes[p].parent {
		position[g.nodes[p].power] = length
		length++
	}
	for i, n := range g.powers { // ascending: its parent's position is known
		if position[i] != none {
			continue
		}
		position[i] = nowhere
		if p := g.nodes[n].parent; p != none {
			position[i] = position[g.nodes[p].power]
		}
	}
	type item struct {
		time     int64
		position int32
		node     int32
	}
	items := make([]item, len(list))
	for i, n := range list {
		items[i] = item{g.nodes[n].time, nowhere, n}
		if p := g.nodes[n].parent; p != none {
			items[i].position = position[g.nodes[p].power]
		}
	}
	slices.SortFunc(items, func(a, b item) int {
		r.res.Steps++
		if c := cmp.Compare(b.position, a.position); c != 0 {
			return c
		}
		if c := cmp.Compare(a.time, b.time); c != 0 {
			return c
		}
		return cmp.Compare(g.nodes[a.node].event.ID, g.nodes[b.node].event.ID)
	})
	for i := range items {
		list[i] = items[i].node
	}
	r.res.Steps += len(g.powers) + len(list)
}

// powerHeap is a binary heap of indexes into nodes, the smallest by the comparison of the power ordering on top.
type powerHeap struct {
	g     *Graph
	nodes []int32
	power []eventauth.Level
	heap  []int32
	steps *int
}

func (h *powerHeap) less(a, b int32) bool {
	*h.steps++
	if h.power[a] != h.power[b] {
		return h.power[a] > h.power[b]
	}
	x, y := &h.g.nodes[h.nodes[a]], &h.g.nodes[h.nodes[b]]
	if x.time != y.time {
		return x.time < y.time
	}
	return x.event.ID < y.event.ID
}

func (h *powerHeap) push(v int32) {
	h.heap = append(h.heap, v)
	for i := len(h.heap) - 1; i > 0; {
		up := (i - 1) / 2
		if !h.less(h.heap[i], h.heap[up]) {
			return
		}
		h.heap[i], h.heap[up] = h.heap[up], h.heap[i]
		i = up
	}
}

func (h *powerHeap) pop() int32 {
	top := h.heap[0]
	last := len(h.heap) - 1
	h.heap[0] = h.heap[last]
	h.heap = h.heap[:last]
	for i := 0; ; {
		c := 2*i + 1
		if c >= last {
			return top
		}
		if c+1 < last && h.less(h.heap[c+1], h.heap[c]) {
			c++
		}
		if !h.less(h.heap[c], h.heap[i]) {
			return top
		}
		h.heap[i], h.heap[c] = h.heap[c], h.heap[i]
		i = c
	}
}
