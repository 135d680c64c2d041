package stateres

import (
	"cmp"
	"math"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/eventauth"
)

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
	p := r.slots[slotPower]
	if p != none && g.nodes[p].power == none {
		p = none // unusable
	}
	for ; p != none; p = g.nodes[p].parent {
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
	r.position = position
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
	return h.g.soonerByPower(lined{h.nodes[a], h.power[a]}, lined{h.nodes[b], h.power[b]})
}

// soonerByPower is the comparison of the power ordering.
func (g *Graph) soonerByPower(a, b lined) bool {
	if a.power != b.power {
		return a.power > b.power
	}
	x, y := &g.nodes[a.node], &g.nodes[b.node]
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
