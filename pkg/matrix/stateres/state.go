package stateres

import (
	"cmp"
	"iter"
	"slices"
)

// Key names one entry of a room's state by the small integers that stand for the event type and the state key.
type Key struct{ Type, StateKey int64 }

// Compare orders keys by type, then state key, so that the entries of one type are neighbours.
func (k Key) Compare(o Key) int {
	if c := cmp.Compare(k.Type, o.Type); c != 0 {
		return c
	}
	return cmp.Compare(k.StateKey, o.StateKey)
}

func (k Key) less(o Key) bool {
	return k.Type < o.Type || (k.Type == o.Type && k.StateKey < o.StateKey)
}

// Pair is one state entry: at Key stands the event with nid Event. In a change, Event 0 removes the key.
type Pair struct {
	Key
	Event int64
}

// State is a room's state: an immutable map from Key to event nid. Copying a State copies two words; changing one returns
// another that shares all but O(log n) of its nodes, so forks and history cost what they differ by. The zero State is
// empty and ready. Event nids are positive. Any number of goroutines may read one State.
//
// It is a B+ tree of exactly sized nodes: an entry takes 24 bytes and its share of the nodes above, 26 in all when built in
// bulk and under 30 after random changes (TestStateMemory).
type State struct {
	root *branch
	n    int
}

// maxFan bounds the entries of a leaf and the children of an inner node: a change copies one of each level, so a larger fan
// makes reading cheaper and changing dearer.
const maxFan = 32

// maxHeight is never reached: a tree of this height with the least fill that splitting leaves has 2^60 entries.
const maxHeight = 16

type branch struct {
	pairs []Pair  // leaf: sorted entries, at least one
	kids  []child // inner: at least one, all of the same height
}

type child struct {
	min  Key // the least key below node
	node *branch
}

// find is the index of the child that would hold k.
func (n *branch) find(k Key) int {
	lo, hi := 1, len(n.kids)
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		if k.less(n.kids[m].min) {
			hi = m
		} else {
			lo = m + 1
		}
	}
	return lo - 1
}

// search is the index of the first entry of a leaf that is not below k.
func (n *branch) search(k Key) int {
	lo, hi := 0, len(n.pairs)
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		if n.pairs[m].less(k) {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo
}

// NewState builds a state from entries in any order; of two with the same key the later wins.
func NewState(pairs []Pair) State { return State{}.Apply(pairs) }

// Len is the number of entries.
func (s State) Len() int { return s.n }

// Get returns the event at k, and 0 and false if there is none.
func (s State) Get(k Key) (int64, bool) {
	n := s.root
	if n == nil {
		return 0, false
	}
	for n.kids != nil {
		n = n.kids[n.find(k)].node
	}
	if i := n.search(k); i < len(n.pairs) && n.pairs[i].Key == k {
		return n.pairs[i].Event, true
	}
	return 0, false
}

// Same says whether s and o are the same value by construction; it may be false for equal states that were built apart.
func (s State) Same(o State) bool { return s.root == o.root }

// Set returns the state with event at k. Setting what is already there returns s itself.
func (s State) Set(k Key, event int64) State {
	if have, ok := s.Get(k); ok && have == event {
		return s
	}
	if event != 0 && s.root != nil {
		if root, added, ok := s.root.set(Pair{k, event}); ok {
			return State{root: root, n: s.n + added}
		}
	}
	return s.apply([]Pair{{k, event}})
}

// set copies the path to one entry; ok is false if that would split a leaf, which apply does.
func (n *branch) set(p Pair) (copied *branch, added int, ok bool) {
	if n.kids == nil {
		i := n.search(p.Key)
		if i < len(n.pairs) && n.pairs[i].Key == p.Key {
			pairs := exact(n.pairs)
			pairs[i] = p
			return &branch{pairs: pairs}, 0, true
		}
		if len(n.pairs) == maxFan {
			return nil, 0, false
		}
		pairs := make([]Pair, len(n.pairs)+1)
		copy(pairs, n.pairs[:i])
		pairs[i] = p
		copy(pairs[i+1:], n.pairs[i:])
		return &branch{pairs: pairs}, 1, true
	}
	i := n.find(p.Key)
	below, added, ok := n.kids[i].node.set(p)
	if !ok {
		return nil, 0, false
	}
	kids := exact(n.kids)
	kids[i].node = below
	if p.less(kids[i].min) {
		kids[i].min = p.Key
	}
	return &branch{kids: kids}, added, true
}

// Delete returns the state without k.
func (s State) Delete(k Key) State {
	if _, ok := s.Get(k); !ok {
		return s
	}
	return s.apply([]Pair{{Key: k}})
}

// Apply returns the state with all changes made, in O(changes × log n) and never more than O(n + changes log changes).
// Changes may come in any order; of two with the same key the later wins; Event 0 removes. The slice is not kept.
func (s State) Apply(changes []Pair) State {
	if len(changes) == 0 {
		return s
	}
	byKey := func(a, b Pair) int { return a.Compare(b.Key) }
	if !slices.IsSortedFunc(changes, byKey) {
		changes = slices.Clone(changes)
		slices.SortStableFunc(changes, byKey)
	}
	for i := 1; i < len(changes); i++ {
		if changes[i].Key == changes[i-1].Key {
			changes = lastOfEach(changes)
			break
		}
	}
	return s.apply(changes)
}

func lastOfEach(sorted []Pair) []Pair {
	out := make([]Pair, 0, len(sorted))
	for i, p := range sorted {
		if i+1 == len(sorted) || sorted[i+1].Key != p.Key {
			out = append(out, p)
		}
	}
	return out
}

// apply makes sorted changes without duplicate keys.
func (s State) apply(changes []Pair) State {
	n := s.n
	var level []child
	if s.root == nil {
		level = applyLeaf(nil, changes, nil, &n)
	} else {
		level = s.root.apply(changes, nil, &n)
	}
	for len(level) > 1 {
		level = pack(level, nil)
	}
	if len(level) == 0 {
		return State{}
	}
	root := level[0].node
	for len(root.kids) == 1 {
		root = root.kids[0].node
	}
	return State{root: root, n: n}
}

// apply appends to out the nodes that replace n once the changes are made: none, one, or more if it had to split.
func (n *branch) apply(changes []Pair, out []child, count *int) []child {
	if n.kids == nil {
		return applyLeaf(n.pairs, changes, out, count)
	}
	kids := make([]child, 0, len(n.kids)+1)
	for i, k := range n.kids {
		cut := len(changes)
		if i+1 < len(n.kids) {
			next := n.kids[i+1].min
			cut, _ = slices.BinarySearchFunc(changes, next, func(p Pair, k Key) int { return p.Compare(k) })
		}
		if cut == 0 {
			kids = append(kids, k)
			continue
		}
		kids = k.node.apply(changes[:cut], kids, count)
		changes = changes[cut:]
		if len(changes) == 0 {
			kids = append(kids, n.kids[i+1:]...)
			break
		}
	}
	return pack(kids, out)
}

// applyLeaf merges sorted entries with sorted changes and appends the leaves that hold the result to out.
func applyLeaf(pairs, changes []Pair, out []child, count *int) []child {
	merged := make([]Pair, 0, len(pairs)+len(changes))
	for len(pairs) > 0 || len(changes) > 0 {
		switch {
		case len(changes) == 0:
			merged = append(merged, pairs...)
			pairs = nil
		case len(pairs) > 0 && pairs[0].less(changes[0].Key):
			merged = append(merged, pairs[0])
			pairs = pairs[1:]
		default:
			c := changes[0]
			changes = changes[1:]
			if len(pairs) > 0 && pairs[0].Key == c.Key {
				pairs = pairs[1:]
				*count--
			}
			if c.Event != 0 {
				merged = append(merged, c)
				*count++
			}
		}
	}
	if len(merged) <= maxFan && cap(merged) == len(merged) && len(merged) > 0 {
		return append(out, child{merged[0].Key, &branch{pairs: merged}}) // nothing to spare: keep the slice
	}
	pieces := (len(merged) + maxFan - 1) / maxFan
	for i := range pieces {
		part := exact(merged[len(merged)*i/pieces : len(merged)*(i+1)/pieces])
		out = append(out, child{part[0].Key, &branch{pairs: part}})
	}
	return out
}

// pack appends to out the inner nodes that hold kids, evenly filled.
func pack(kids, out []child) []child {
	pieces := (len(kids) + maxFan - 1) / maxFan
	for i := range pieces {
		part := exact(kids[len(kids)*i/pieces : len(kids)*(i+1)/pieces])
		out = append(out, child{part[0].min, &branch{kids: part}})
	}
	return out
}

// exact copies to a slice without room to grow: nodes never change, and spare capacity would be memory lost.
func exact[T any](s []T) []T {
	out := make([]T, len(s))
	copy(out, s)
	return out
}

// All yields the entries in ascending order of key.
func (s State) All() iter.Seq2[Key, int64] { return s.from(Key{-1 << 63, -1 << 63}) }

// OfType yields the entries of one type in ascending order of state key.
func (s State) OfType(t int64) iter.Seq2[Key, int64] {
	return func(yield func(Key, int64) bool) {
		for k, e := range s.from(Key{t, -1 << 63}) {
			if k.Type != t || !yield(k, e) {
				return
			}
		}
	}
}

func (s State) from(start Key) iter.Seq2[Key, int64] {
	return func(yield func(Key, int64) bool) {
		if s.root != nil {
			s.root.walk(start, yield)
		}
	}
}

func (n *branch) walk(start Key, yield func(Key, int64) bool) bool {
	if n.kids == nil {
		for _, p := range n.pairs[n.search(start):] {
			if !yield(p.Key, p.Event) {
				return false
			}
		}
		return true
	}
	for _, k := range n.kids[n.find(start):] {
		if !k.node.walk(start, yield) {
			return false
		}
	}
	return true
}

// Diff calls f in ascending order for each key at which a and b differ, with the event in each and 0 for none. Subtrees that
// the two share are skipped whole: it costs O(log n) per difference for states that descend from one another, and O(n) for
// states that were built apart.
func Diff(a, b State, f func(k Key, inA, inB int64)) {
	if a.root == b.root {
		return
	}
	var x, y cursor
	x.open(a.root)
	y.open(b.root)
	for x.depth > 0 && y.depth > 0 {
		if skipShared(&x, &y) {
			continue
		}
		p, q := x.pair(), y.pair()
		switch {
		case p.less(q.Key):
			f(p.Key, p.Event, 0)
			x.next()
		case q.less(p.Key):
			f(q.Key, 0, q.Event)
			y.next()
		default:
			if p.Event != q.Event {
				f(p.Key, p.Event, q.Event)
			}
			x.next()
			y.next()
		}
	}
	for ; x.depth > 0; x.next() {
		f(x.pair().Key, x.pair().Event, 0)
	}
	for ; y.depth > 0; y.next() {
		f(y.pair().Key, 0, y.pair().Event)
	}
}

// cursor is a place in a tree: path[0] is the root, path[depth-1] the leaf. Depth 0 is the end.
type cursor struct {
	path  [maxHeight]frame
	depth int
}

type frame struct {
	n *branch
	i int
}

func (c *cursor) open(n *branch) {
	for n != nil {
		c.path[c.depth] = frame{n, 0}
		c.depth++
		if n.kids == nil {
			return
		}
		n = n.kids[0].node
	}
}

func (c *cursor) pair() *Pair {
	f := &c.path[c.depth-1]
	return &f.n.pairs[f.i]
}

func (c *cursor) next() {
	f := &c.path[c.depth-1]
	if f.i++; f.i == len(f.n.pairs) {
		c.leave(c.depth - 1)
	}
}

// leave goes to what follows the node at the given level of the path.
func (c *cursor) leave(level int) {
	for c.depth = level; c.depth > 0; c.depth-- {
		f := &c.path[c.depth-1]
		if f.i++; f.i < len(f.n.kids) {
			c.open(f.n.kids[f.i].node)
			return
		}
	}
}

// skipShared steps both cursors over the highest subtree that both are at the beginning of.
func skipShared(x, y *cursor) bool {
	best := 0
	for h := 1; h <= x.depth && h <= y.depth; h++ { // h counts levels from the leaf: equal nodes have equal heights
		p, q := &x.path[x.depth-h], &y.path[y.depth-h]
		if p.i != 0 || q.i != 0 {
			break
		}
		if p.n == q.n {
			best = h
		}
	}
	if best == 0 {
		return false
	}
	x.leave(x.depth - best)
	y.leave(y.depth - best)
	return true
}
