package stateres

import (
	"bytes"
	"cmp"
	"crypto/sha1" //nolint:gosec // the specification's choice, as a tie break
	"slices"
)

// resolveV1 is the algorithm of room version 1. Where its text leaves room it does as the servers in the field do: each state
// entry is a list of its own, entries of one kind do not see what was decided about one another, and where no event of a list
// is allowed the one of least depth stands.
func (r *run) resolveV1() {
	var power, joinRules, members, others [][]int32
	r.slots = slices.Clone(r.common)
	r.conflicts(func(ds []diff) {
		list := r.alternatives(ds)
		if len(list) == 0 {
			return
		}
		slot := r.g.nodes[list[0]].slot
		switch {
		case len(list) == 1: // some states have no event here, and that is no conflict
			r.set(list[0])
		case slot == slotPower:
			power = append(power, list)
		case slot == slotJoinRules:
			joinRules = append(joinRules, list)
		case r.g.nodes[list[0]].event.Type == "m.room.member":
			members = append(members, list)
		default:
			others = append(others, list)
		}
	})
	for _, lists := range [][][]int32{power, joinRules, members} {
		r.decide(lists, r.lastOfSequence)
	}
	r.decide(others, r.firstAllowed)
}

// alternatives lists the events at a key in conflict, each once, of ascending depth and then descending sha1 of the event id.
func (r *run) alternatives(ds []diff) []int32 {
	type item struct {
		depth int64
		sum   [sha1.Size]byte
		node  int32
	}
	var items []item
	add := func(n int32) {
		if n == none || r.g.nodes[n].flags&nodeUnusable != 0 {
			return
		}
		nd := &r.g.nodes[n]
		items = append(items, item{nd.depth, sha1.Sum([]byte(nd.event.ID)), n}) //nolint:gosec // see above
	}
	add(ds[0].first)
	for i := range ds {
		add(ds[i].node)
	}
	slices.SortFunc(items, func(a, b item) int {
		r.res.Steps++
		if c := cmp.Compare(a.depth, b.depth); c != 0 {
			return c
		}
		if c := bytes.Compare(b.sum[:], a.sum[:]); c != 0 {
			return c
		}
		return cmp.Compare(a.node, b.node)
	})
	var list []int32
	for i := range items {
		if i == 0 || items[i].node != items[i-1].node {
			list = append(list, items[i].node)
		}
	}
	return list
}

// decide settles lists of one kind, none of which sees another's outcome.
func (r *run) decide(lists [][]int32, by func([]int32) int32) {
	chosen := make([]int32, len(lists))
	for i, list := range lists {
		slot := r.g.nodes[list[0]].slot
		chosen[i] = by(list)
		r.slots[slot] = none
	}
	for _, n := range chosen {
		r.set(n)
	}
}

func (r *run) set(n int32) {
	s := r.g.nodes[n].slot
	r.slots[s] = n
	r.touched = append(r.touched, s)
}

// lastOfSequence takes the first event and then each that is allowed after the one before, until one is not.
func (r *run) lastOfSequence(list []int32) int32 {
	slot := r.g.nodes[list[0]].slot
	r.slots[slot] = list[0]
	for _, n := range list[1:] {
		if !r.allowed(n) {
			break
		}
		r.slots[slot] = n
	}
	return r.slots[slot]
}

// firstAllowed takes the deepest event that is allowed, and of those of one depth that with the lowest sha1.
func (r *run) firstAllowed(list []int32) int32 {
	for i := len(list) - 1; i > 0; i-- {
		if r.allowed(list[i]) {
			return list[i]
		}
	}
	return list[0]
}
