package stateres

import (
	"cmp"
	"math"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/eventauth"
)

// The events of the full conflicted set that are not ordered by power, as a trail has them: by what they read and what they would set.

// counts says whether a node that is not ordered by power can be applied at all.
func (t *trail) counts(n int32) bool {
	nd := &t.g.nodes[n]
	if nd.slot == none || nd.flags&nodeUnusable != 0 {
		return false
	}
	if nd.slot < numFixedSlots || nd.parent != none && int(t.g.nodes[nd.parent].power) >= len(t.run.position) {
		t.hopeless = true
		return false
	}
	return true
}

// readBy gives the slots whose events decide whether a node is allowed, but those that only events that are ordered by power set. They are good until
// the next call.
func (t *trail) readBy(n int32) []int32 {
	g := t.g
	nd := &g.nodes[n]
	list := append(t.reads[:0], nd.sender)
	add := func(s int32) {
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	if nd.event.Kind == eventauth.KindMember {
		if nd.slot != none {
			add(nd.slot)
		}
		if nd.event.ReadsMore() {
			needs := nd.event.Needs()
			if needs.HasToken {
				add(g.slotAt(eventauth.TypeKey{Type: "m.room.third_party_invite", StateKey: needs.Token}))
			}
			if needs.Authoriser != "" {
				add(g.userSlot(string(needs.Authoriser)))
			}
		}
	}
	t.grow() // slots that nobody had named
	t.reads = list
	return list
}

// where is a node's place in the mainline.
func (t *trail) where(n int32) int32 {
	if p := t.g.nodes[n].parent; p != none {
		return t.run.position[t.g.nodes[p].power]
	}
	return math.MaxInt32
}

// order is that by the mainline.
func (t *trail) order(a, b int32) int {
	t.run.res.Steps++
	x, y := &t.g.nodes[a], &t.g.nodes[b]
	if c := cmp.Compare(t.where(b), t.where(a)); c != 0 {
		return c
	}
	if c := cmp.Compare(x.time, y.time); c != 0 {
		return c
	}
	return cmp.Compare(x.event.ID, y.event.ID)
}

func (t *trail) inserted(list []int32, n int32) []int32 {
	i, _ := slices.BinarySearchFunc(list, n, t.order)
	return slices.Insert(list, i, n)
}

func (t *trail) removed(list []int32, n int32) []int32 {
	i, found := slices.BinarySearchFunc(list, n, t.order)
	if !found {
		return list
	}
	return slices.Delete(list, i, i+1)
}

// after gives those of a list that come after a node.
func (t *trail) after(list []int32, n int32) []int32 {
	i, found := slices.BinarySearchFunc(list, n, t.order)
	if found {
		i++
	}
	return list[i:]
}

// spread has those be checked again that read a slot, up to the first that sets it anew.
func (t *trail) spread(slot int32, readers []int32) {
	for _, n := range readers {
		if !t.queued[n] {
			t.queued[n] = true
			i, _ := slices.BinarySearchFunc(t.queue, n, t.order)
			t.queue = slices.Insert(t.queue, i, n)
		}
		if t.allowed[n] && t.g.nodes[n].slot == slot {
			return
		}
	}
}

// flipped follows that a node is allowed now, or is not any more.
func (t *trail) flipped(n int32) {
	slot := t.g.nodes[n].slot
	t.settled[slot] = true
	t.spread(slot, t.after(t.readers[slot], n))
}

// check checks again what may have changed, in order.
func (t *trail) check() {
	for len(t.queue) > 0 {
		n := t.queue[0]
		t.queue = t.queue[1:]
		t.queued[n] = false
		if !t.full[n] {
			continue
		}
		if now := t.judge(n); now != t.allowed[n] {
			t.allowed[n] = now
			t.flipped(n)
		}
	}
	t.queue = nil
}

// judge decides about a node in the state that those before it come to.
func (t *trail) judge(n int32) bool {
	slots := t.slots
	reads := t.readBy(n)
	kept := make([]int32, len(reads))
	for i, s := range reads {
		kept[i] = slots[s]
		list := t.setters[s]
		at, _ := slices.BinarySearchFunc(list, n, t.order)
		if last := t.lastOf(list[:at]); last != none {
			slots[s] = last
		}
	}
	ok := t.run.allowed(n)
	for i, s := range reads {
		slots[s] = kept[i]
	}
	return ok
}

// lastOf gives the last that is allowed.
func (t *trail) lastOf(list []int32) int32 {
	for i := len(list) - 1; i >= 0; i-- {
		t.run.res.Steps++
		if t.allowed[list[i]] {
			return list[i]
		}
	}
	return none
}

// settle brings the result up to date.
func (t *trail) settle() {
	for slot := range t.settled {
		n := t.common[slot]
		if n == none {
			if n = t.lastOf(t.setters[slot]); n == none {
				n = t.slots[slot]
			}
		}
		switch k := t.g.slotKeys[slot]; {
		case k == Key{}:
		case n == none:
			t.result.State = t.result.State.Delete(k)
		default:
			t.result.State = t.result.State.Set(k, t.g.nodes[n].nid)
		}
	}
	clear(t.settled)
}
