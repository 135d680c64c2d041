package stateres

import (
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

// Resolve resolves states of the graph's room by the algorithm of its version. The result shares structure with the largest
// of the states. An error means that events could not be read; nothing has changed then, but that the graph may know more.
func (g *Graph) Resolve(src Source, states []State) (Result, error) {
	given := distinctStates(states)
	if res, ok, err := g.follow(src, given); ok || err != nil {
		return res, err
	}
	states, diffs := compare(given)
	if len(states) == 0 {
		return Result{}, nil
	}
	if len(diffs) == 0 {
		return Result{State: states[0]}, nil
	}
	var wanted []int64
	want := func(nid int64) {
		if _, ok := g.index.get(nid); !ok && nid != 0 {
			wanted = append(wanted, nid)
		}
	}
	Diff(g.base.state, states[0], func(_ Key, _, is int64) { want(is) })
	for i := range diffs {
		want(diffs[i].nid)
	}
	if err := g.ensure(src, wanted); err != nil {
		return Result{}, err
	}
	g.rebase(states[0])
	r := newRun(g, states, diffs)
	if g.rules.StateRes == roomver.StateResV1 {
		r.resolveV1()
		return r.result(), nil
	}
	r.resolveV2()
	res := r.result()
	if len(given) <= maxTrailed {
		g.keep(&trail{g: g, states: given, run: r, result: res, nodes: len(g.nodes), hopeless: len(g.base.odd) > 0})
	}
	return res, nil
}

// distinctStates leaves out states that are others by construction.
func distinctStates(states []State) []State {
	out := make([]State, 0, len(states))
	for _, s := range states {
		if !slices.ContainsFunc(out, s.Same) {
			out = append(out, s)
		}
	}
	return out
}

// diff says that a state has another event than the first state at a key; nid 0 is none.
type diff struct {
	key         Key
	firstNID    int64
	nid         int64
	first, node int32 // their nodes, or none
	state       int32
}

// compare puts the largest state first, drops states that are equal to others by construction or to the first, and lists, by
// key, where the others differ from the first.
func compare(states []State) ([]State, []diff) {
	if len(states) < 2 {
		return states, nil
	}
	largest := 0
	for i, s := range states {
		if s.Len() > states[largest].Len() {
			largest = i
		}
	}
	kept := []State{states[largest]}
	var diffs []diff
next:
	for i, s := range states {
		for _, k := range kept {
			if i == largest || k.Same(s) {
				continue next
			}
		}
		before := len(diffs)
		diffs = slices.Grow(diffs, kept[0].Len()-s.Len())
		Diff(kept[0], s, func(k Key, a, b int64) {
			diffs = append(diffs, diff{key: k, firstNID: a, nid: b, state: int32(len(kept))})
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

// run is one resolution.
type run struct {
	g      *Graph
	states []State
	diffs  []diff

	common   []int32 // slot → node where no state differs, or none: the unconflicted state map
	odd      []int32 // nodes of common entries that stand at keys which are not theirs
	slots    []int32 // slot → node in the state resolved so far, or none
	touched  []int32 // slots that were set in the course of the resolution
	fallback bool    // what is missing in the state is taken from the event's own auth events
	verify   func(*eventauth.Reduced, *eventauth.ThirdPartyInvite) bool
	res      Result

	// What a trail is made of.
	full, power []bool
	afterPower  []int32 // slots, after the events that are ordered by power
	byPower     []int32 // the events that are ordered by power, in their order
	rest        []int32 // the other events, in theirs
	position    []int32 // of power levels events in the mainline
	passed      []bool  // node → it was allowed
}

func newRun(g *Graph, states []State, diffs []diff) *run {
	r := &run{g: g, states: states, diffs: diffs, verify: g.verify, common: slices.Clone(g.base.slots)}
	at := func(nid int64) int32 {
		if n, ok := g.index.get(nid); ok {
			return n
		}
		return none
	}
	for i := range diffs {
		d := &diffs[i]
		d.first, d.node = at(d.firstNID), at(d.nid)
		if d.first != none && g.stands(d.first, d.key) {
			r.common[g.nodes[d.first].slot] = none
		}
	}
	for k, n := range g.base.odd {
		i, found := slices.BinarySearchFunc(diffs, k, func(d diff, k Key) int { return d.key.Compare(k) })
		if _ = i; !found {
			r.odd = append(r.odd, n)
		}
	}
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

// result applies what was resolved to the first state.
func (r *run) result() Result {
	g := r.g
	changes := make([]Pair, 0, len(r.touched))
	r.conflicts(func(ds []diff) {
		r.res.Conflicted++
		slot := none
		for i := range ds {
			for _, n := range [2]int32{ds[i].first, ds[i].node} {
				if n != none && g.stands(n, ds[i].key) {
					slot = g.nodes[n].slot
				}
			}
		}
		p := Pair{Key: ds[0].key}
		if slot != none && r.slots[slot] != none {
			p.Event = g.nodes[r.slots[slot]].nid
			r.slots[slot] = none // told
		}
		if p.Event != ds[0].firstNID {
			changes = append(changes, p)
		}
	})
	for _, s := range r.touched { // events of auth chains at keys that no state has
		if n := r.slots[s]; n != none && r.common[s] == none {
			changes = append(changes, Pair{g.slotKeys[s], g.nodes[n].nid})
			r.slots[s] = none
		}
	}
	r.res.State = r.states[0].Apply(changes)
	return r.res
}

// at is the node at a slot, in the state or, failing that, among the auth events of node n.
func (r *run) at(n, slot int32) int32 {
	if s := r.slots[slot]; s != none && r.g.nodes[s].flags&nodeUnusable == 0 {
		return s
	}
	if !r.fallback {
		return none
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
	if e.Membership != eventauth.MembershipLeave && e.Membership != eventauth.MembershipBan {
		if m := r.at(n, slotJoinRules); m != none {
			st.JoinRule = r.g.nodes[m].event.JoinRule
		}
	}
	if !e.ReadsMore() {
		return
	}
	needs := e.Needs()
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
			if r.passed != nil {
				r.passed[n] = true
			}
		}
	}
}

// resolveV2 is the algorithm of room versions 2 to 12.
func (r *run) resolveV2() {
	r.fallback = true
	empty := r.g.rules.StateRes == roomver.StateResV2_1
	full := r.fullConflictedSet(empty)
	power := r.powerSet(full)

	if empty {
		r.slots = make([]int32, len(r.common))
		for i := range r.slots {
			r.slots[i] = none
		}
	} else {
		r.slots = slices.Clone(r.common)
	}
	r.byPower, r.passed = r.orderByPower(power), make([]bool, len(full))
	r.apply(r.byPower)
	r.full, r.power, r.afterPower = full, power, slices.Clone(r.slots)

	rest := make([]int32, 0, r.res.Full-r.res.Power)
	for i := range full {
		if full[i] && !power[i] {
			rest = append(rest, int32(i))
		}
	}
	r.orderByMainline(rest)
	r.rest = rest
	r.apply(rest)
}

// fullConflictedSet marks the conflicted events, the auth difference, and for v2.1 the conflicted state subgraph.
func (r *run) fullConflictedSet(subgraph bool) []bool {
	g := r.g
	size := len(g.nodes)
	full := make([]bool, size)
	for i := range r.diffs {
		if n := r.diffs[i].first; n != none {
			full[n] = true
		}
		if n := r.diffs[i].node; n != none {
			full[n] = true
		}
	}
	var between []bool
	if subgraph {
		between = r.subgraph(full)
	}
	if len(r.states) <= 8 {
		authDifference(r, full, 8, func(i int) uint8 { return 1 << i })
	} else {
		authDifference(r, full, 64, func(i int) uint64 { return 1 << i })
	}
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
// in the full auth chain of state i; as many states as a mask has bits are swept at a time. For up to eight, which is nearly
// always, the masks are bytes, for memory is what a sweep waits for.
func authDifference[M uint8 | uint64](r *run, mark []bool, bits int, bit func(int) M) {
	g := r.g
	size := len(g.nodes)
	var some, all []bool // over the sweeps so far, if one is not enough
	if len(r.states) > bits {
		some, all = make([]bool, size), make([]bool, size)
	}
	cites, chain := make([]M, size), make([]M, size)
	for from := 0; from < len(r.states); from += bits {
		if from > 0 {
			clear(cites)
			clear(chain)
		}
		every := M(0)
		for i := range min(bits, len(r.states)-from) {
			every |= bit(i)
		}
		for _, n := range r.common {
			if n != none {
				cites[n] = every
			}
		}
		for _, n := range r.odd {
			cites[n] = every
		}
		r.conflicts(func(ds []diff) {
			first := every
			for k := range ds {
				i := int(ds[k].state) - from
				if i < 0 || i >= bits {
					continue
				}
				first &^= bit(i)
				if n := ds[k].node; n != none {
					cites[n] |= bit(i)
				}
			}
			if n := ds[0].first; n != none {
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
			if some == nil {
				mark[i] = mark[i] || (m != 0 && m != every)
				continue
			}
			some[i] = some[i] || m != 0
			all[i] = (all[i] || from == 0) && m == every
		}
		r.res.Steps += 2*size + len(g.edges) + len(r.diffs) + len(r.common)
	}
	for i := range some {
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
