package stateres

import (
	"cmp"
	"math"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/eventauth"
)

// course is events of the full conflicted set that are checked one after the other, as a trail has them: by what they read and what they would set.
type course struct {
	t       *trail
	order   func(a, b int32) int
	reads   func(n int32) []int32  // the slots whose events decide whether a node is allowed; good until the next call
	before  func(slot int32) int32 // what is in a slot before all of them
	flipped func(slot int32)       // is told of slots whose content may have changed
	setters map[int32][]int32      // slot → those that would set it, in their order
	readers map[int32][]int32      // slot → those that read it, in their order
	queue   []int32                // those that have to be checked again, in order
}

// courses makes those of the events that are ordered by power, and of the others.
func (t *trail) courses() (early, late course) {
	early = course{
		t: t, setters: map[int32][]int32{}, readers: map[int32][]int32{}, flipped: func(slot int32) { t.founded[slot] = true },
		order: func(a, b int32) int { return cmp.Compare(t.places[a], t.places[b]) },
		reads: func(n int32) []int32 {
			t.reads = append(t.readBy(n), slotCreate, slotPower, slotJoinRules)
			return t.reads
		},
		before: func(slot int32) int32 {
			if t.subgraph() {
				return none
			}
			return t.common[slot]
		},
	}
	late = course{
		t: t, setters: map[int32][]int32{}, readers: map[int32][]int32{}, flipped: func(slot int32) { t.settled[slot] = true },
		order: t.byMainline, reads: t.readBy, before: func(slot int32) int32 { return t.slots[slot] },
	}
	return early, late
}

// lined is an event that is ordered by power, with its sender's.
type lined struct {
	node  int32
	power eventauth.Level
}

// queueUp puts a node that none in line cites where it would have come: after all that it cites, before the first that comes after it by power, time
// and name.
func (t *trail) queueUp(n int32) {
	g := t.g
	at := int32(0)
	for _, a := range g.auth(n) {
		if t.power[a] {
			at = max(at, t.places[a]+1)
		}
	}
	x := lined{n, t.run.senderPower(n)}
	for int(at) < len(t.line) && g.soonerByPower(t.line[at], x) {
		at++
	}
	t.line = slices.Insert(t.line, int(at), x)
	for i := int(at); i < len(t.line); i++ {
		t.places[t.line[i].node] = int32(i)
	}
	t.run.res.Steps += len(t.line)
}

// usable says whether a node can be applied at all.
func (t *trail) usable(n int32) bool {
	nd := &t.g.nodes[n]
	return nd.slot != none && nd.flags&nodeUnusable == 0
}

// counts says whether a node that is not ordered by power can be applied.
func (t *trail) counts(n int32) bool {
	nd := &t.g.nodes[n]
	if !t.usable(n) {
		return false
	}
	if nd.slot < numFixedSlots || nd.parent != none && int(t.g.nodes[nd.parent].power) >= len(t.run.position) {
		t.hopeless = true
		return false
	}
	return true
}

// readBy gives the slots whose events decide whether a node is allowed, but those that only events that are ordered by power set.
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

// byMainline is the order by the mainline.
func (t *trail) byMainline(a, b int32) int {
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

func (c *course) inserted(list []int32, n int32) []int32 {
	i, found := slices.BinarySearchFunc(list, n, c.order)
	if found {
		return list
	}
	return slices.Insert(list, i, n)
}

func (c *course) removed(list []int32, n int32) []int32 {
	i, found := slices.BinarySearchFunc(list, n, c.order)
	if !found {
		return list
	}
	return slices.Delete(list, i, i+1)
}

// enlist takes a node in.
func (c *course) enlist(n int32) {
	slot := c.t.g.nodes[n].slot
	c.setters[slot] = c.inserted(c.setters[slot], n)
	for _, s := range c.reads(n) {
		c.readers[s] = c.inserted(c.readers[s], n)
	}
}

// strike takes a node out.
func (c *course) strike(n int32) {
	for _, s := range c.reads(n) {
		c.readers[s] = c.removed(c.readers[s], n)
	}
	if c.t.allowed[n] {
		c.t.allowed[n] = false
		c.spreadAfter(n)
	}
	slot := c.t.g.nodes[n].slot
	c.setters[slot], c.queue = c.removed(c.setters[slot], n), c.removed(c.queue, n)
}

// ask has a node be checked again.
func (c *course) ask(n int32) { c.queue = c.inserted(c.queue, n) }

// spread has those be checked again that read a slot, up to the first that sets it anew.
func (c *course) spread(slot int32, readers []int32) {
	for _, n := range readers {
		c.ask(n)
		if c.t.allowed[n] && c.t.g.nodes[n].slot == slot {
			return
		}
	}
}

// spreadAfter follows that a node is allowed now, or is not any more.
func (c *course) spreadAfter(n int32) {
	slot := c.t.g.nodes[n].slot
	c.flipped(slot)
	list := c.readers[slot]
	i, found := slices.BinarySearchFunc(list, n, c.order)
	if found {
		i++
	}
	c.spread(slot, list[i:])
}

// check checks again what may have changed, in order.
func (c *course) check() {
	for len(c.queue) > 0 {
		n := c.queue[0]
		c.queue = c.queue[1:]
		if now := c.judge(n); now != c.t.allowed[n] {
			c.t.allowed[n] = now
			c.spreadAfter(n)
		}
	}
	c.queue = nil
}

// judge decides about a node in the state that those before it come to.
func (c *course) judge(n int32) bool {
	reads := c.reads(n)
	slots, kept := c.t.slots, make([]int32, len(reads))
	for i, s := range reads {
		kept[i] = slots[s]
		list := c.setters[s]
		at, _ := slices.BinarySearchFunc(list, n, c.order)
		last := c.lastOf(list[:at])
		if last == none {
			last = c.before(s)
		}
		slots[s] = last
	}
	ok := c.t.run.allowed(n)
	for i, s := range reads {
		slots[s] = kept[i]
	}
	return ok
}

// lastOf gives the last that is allowed.
func (c *course) lastOf(list []int32) int32 {
	for i := len(list) - 1; i >= 0; i-- {
		c.t.run.res.Steps++
		if c.t.allowed[list[i]] {
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
			if n = t.late.lastOf(t.late.setters[slot]); n == none {
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
