package stateres

import (
	"errors"
	"fmt"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/eventauth"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
)

// Entry is one event as a Source hands it over.
type Entry struct {
	NID      int64
	Key      Key                // where the event stands in a State; not read of an event that is not a state event
	Event    *eventauth.Reduced // shared, not copied
	Auth     []int64            // the nids of its auth_events; not kept
	Rejected bool               // it was refused on receipt
	Time     int64              // origin_server_ts
	Depth    int64              // read in room version 1 only
}

// Source reads events by nid. The answer must hold all that were asked for, in any order; it may hold more, the auth events of
// those that were asked for before all, and then they will not be asked for again: a source that returns whole auth chains is
// asked once.
type Source interface {
	Load(nids []int64) ([]Entry, error)
}

// DefaultMaxEvents bounds the events of one room's graph unless NewGraph is told otherwise; about 400 bytes each.
const DefaultMaxEvents = 4_000_000

// ErrTooManyEvents says that a room's graph would exceed its bound.
var ErrTooManyEvents = errors.New("too many auth events")

// MissingError names events that the source did not know.
type MissingError struct{ NIDs []int64 }

// Error implements error.
func (e *MissingError) Error() string {
	return fmt.Sprintf("%d events of the auth chain are missing, the first with nid %d", len(e.NIDs), e.NIDs[0])
}

// The numbers of the state entries that every room has; further ones are given out as events name them.
const (
	slotCreate int32 = iota
	slotPower
	slotJoinRules
	numFixedSlots
)

const none int32 = -1

// Graph is the auth events of one room. Make it with NewGraph; it grows as resolutions load events, and may be dropped and
// made anew at any time.
type Graph struct {
	rules     *roomver.Rules
	room      id.RoomID
	maxEvents int

	index nidIndex // nid → node
	nodes []node
	ends  []uint32 // edges of node i are edges[ends[i-1]:ends[i]]
	edges []int32

	users    map[string]int32            // user → slot of its membership
	others   map[eventauth.TypeKey]int32 // other state entries → slot
	slotKeys []Key                       // slot → its key, once an event has told it

	powers   []int32 // nodes of power levels events, ascending
	base     base
	create   *eventauth.Create // of the room, in version 12
	verified map[thirdPartyPair]bool
	// trails are what is kept of resolutions, that of the latest first: of a room's state, and of what an event that joins branches follows.
	trails [2]*trail
}

type node struct {
	nid    int64
	time   int64
	depth  int64
	event  *eventauth.Reduced
	slot   int32 // its state entry, none if it is not a state event
	sender int32 // the slot of its sender's membership
	parent int32 // the power levels event among its auth events, or none
	power  int32 // its index in powers, or none
	flags  nodeFlag
}

type nodeFlag uint8

const (
	nodeRejected nodeFlag = 1 << iota
	nodeUnusable          // part of a circle, of another room, or not a state event: never applied, never authorises
	nodePower             // a power event
)

// base is the state that the last resolution began from, as an array: the next one begins from a state that differs little.
type base struct {
	state State
	slots []int32       // slot → node
	odd   map[Key]int32 // entries that hold an event of another key, which nothing but their auth chains counts for
}

type thirdPartyPair struct {
	invite *eventauth.Reduced
	with   *eventauth.ThirdPartyInvite
}

// NewGraph makes the empty graph of a room. maxEvents bounds how many events it holds; 0 means DefaultMaxEvents.
func NewGraph(rules *roomver.Rules, room id.RoomID, maxEvents int) *Graph {
	if maxEvents <= 0 {
		maxEvents = DefaultMaxEvents
	}
	g := &Graph{
		rules: rules, room: room, maxEvents: maxEvents,
		users: map[string]int32{}, others: map[eventauth.TypeKey]int32{},
		slotKeys: make([]Key, numFixedSlots),
	}
	g.others[eventauth.TypeKey{Type: "m.room.create"}] = slotCreate
	g.others[eventauth.TypeKey{Type: "m.room.power_levels"}] = slotPower
	g.others[eventauth.TypeKey{Type: "m.room.join_rules"}] = slotJoinRules
	return g
}

// Len is the number of events in the graph.
func (g *Graph) Len() int { return len(g.nodes) }

func (g *Graph) auth(n int32) []int32 {
	start := uint32(0)
	if n > 0 {
		start = g.ends[n-1]
	}
	return g.edges[start:g.ends[n]]
}

func (g *Graph) userSlot(user string) int32 {
	s, ok := g.users[user]
	if !ok {
		s = g.newSlot()
		g.users[user] = s
	}
	return s
}

func (g *Graph) newSlot() int32 {
	g.slotKeys = append(g.slotKeys, Key{})
	return int32(len(g.slotKeys) - 1)
}

func (g *Graph) slotOf(e *eventauth.Reduced) int32 {
	if e.Kind == eventauth.KindMember {
		return g.userSlot(e.StateKey)
	}
	return g.slotAt(eventauth.TypeKey{Type: e.Type, StateKey: e.StateKey})
}

// slotAt is the slot of an entry that is no membership.
func (g *Graph) slotAt(k eventauth.TypeKey) int32 {
	s, ok := g.others[k]
	if !ok {
		s = g.newSlot()
		g.others[k] = s
	}
	return s
}

// staging is what one ensure has read and not yet added.
type staging struct {
	entries []Entry
	wanted  []bool   // the entry is needed: the source may have given more
	at      nidIndex // nid → entries
}

// ensure loads the given events and their auth chains.
func (g *Graph) ensure(src Source, nids []int64) error {
	var st staging
	count := 0
	for ask := nids; len(ask) > 0; {
		slices.Sort(ask)
		ask = slices.Compact(ask)
		if count += len(ask); len(g.nodes)+count > g.maxEvents {
			return ErrTooManyEvents
		}
		if err := st.load(src, ask); err != nil {
			return err
		}
		var next []int64
		for _, n := range ask {
			i, _ := st.at.get(n)
			st.wanted[i] = true
		}
		for _, n := range ask {
			i, _ := st.at.get(n)
			for _, a := range st.entries[i].Auth {
				if _, known := g.index.get(a); known {
					continue
				}
				if k, staged := st.at.get(a); !staged || !st.wanted[k] {
					next = append(next, a)
				}
			}
		}
		ask = next
	}
	g.addAll(&st)
	return nil
}

// load stages events that are not staged yet.
func (st *staging) load(src Source, ask []int64) error {
	var request, missing []int64
	for _, n := range ask {
		if _, ok := st.at.get(n); !ok {
			request = append(request, n)
		}
	}
	if len(request) == 0 {
		return nil
	}
	loaded, err := src.Load(request)
	if err != nil {
		return fmt.Errorf("load auth chain: %w", err)
	}
	st.entries = slices.Grow(st.entries, len(loaded))
	st.wanted = slices.Grow(st.wanted, len(loaded))
	for i := range loaded {
		if _, again := st.at.get(loaded[i].NID); again || loaded[i].NID == 0 || loaded[i].Event == nil {
			continue
		}
		st.at.put(loaded[i].NID, int32(len(st.entries)))
		st.entries = append(st.entries, loaded[i])
		st.wanted = append(st.wanted, false)
	}
	for _, n := range ask {
		if _, ok := st.at.get(n); !ok {
			missing = append(missing, n)
		}
	}
	if len(missing) > 0 {
		return &MissingError{NIDs: missing}
	}
	return nil
}

// rebase makes s the base; its events are in the graph.
func (g *Graph) rebase(s State) {
	for len(g.base.slots) < len(g.slotKeys) {
		g.base.slots = append(g.base.slots, none)
	}
	Diff(g.base.state, s, func(k Key, was, is int64) {
		if n, ok := g.index.get(was); ok {
			if slot := g.nodes[n].slot; g.stands(n, k) {
				g.base.slots[slot] = none
			}
			delete(g.base.odd, k)
		}
		if n, ok := g.index.get(is); ok {
			if g.stands(n, k) {
				g.base.slots[g.nodes[n].slot] = n
				return
			}
			if g.base.odd == nil {
				g.base.odd = map[Key]int32{}
			}
			g.base.odd[k] = n
		}
	})
	g.base.state = s
}

// stands says whether an event is of the key at which it was found.
func (g *Graph) stands(n int32, k Key) bool {
	slot := g.nodes[n].slot
	return slot != none && g.slotKeys[slot] == k
}

// addAll adds the staged events, auth events before those that cite them. It is Tarjan's algorithm without recursion: circles,
// which only rooms of versions 1 and 2 can be made to have, come out together, whatever the order of arrival.
func (g *Graph) addAll(st *staging) {
	type frame struct {
		v    int32
		edge int
	}
	n := len(st.entries)
	g.nodes, g.ends = slices.Grow(g.nodes, n), slices.Grow(g.ends, n)
	number, low := make([]int32, n), make([]int32, n) // number 0: not visited
	done := make([]bool, n)
	var path []frame
	var stack []int32
	count := int32(0)
	visit := func(v int32) {
		count++
		number[v], low[v] = count, count
		stack = append(stack, v)
		path = append(path, frame{v: v})
	}
	for root := range int32(n) {
		if number[root] != 0 || !st.wanted[root] {
			continue
		}
		visit(root)
		for len(path) > 0 {
			f := &path[len(path)-1]
			v := f.v
			if f.edge < len(st.entries[v].Auth) {
				w, staged := st.at.get(st.entries[v].Auth[f.edge])
				f.edge++
				switch {
				case !staged || done[w] || !st.wanted[w]: // in the graph already
				case number[w] == 0:
					visit(w)
				default:
					low[v] = min(low[v], number[w])
				}
				continue
			}
			path = path[:len(path)-1]
			if len(path) > 0 {
				u := path[len(path)-1].v
				low[u] = min(low[u], low[v])
			}
			if low[v] == number[v] {
				from := len(stack) - 1
				for stack[from] != v {
					from--
				}
				g.addComponent(st, stack[from:], done)
				stack = stack[:from]
			}
		}
	}
}

// addComponent adds events that cite one another in a circle, or one event that does not.
func (g *Graph) addComponent(st *staging, members []int32, done []bool) {
	circle := len(members) > 1
	for _, m := range members {
		e := &st.entries[m]
		circle = circle || slices.Contains(e.Auth, e.NID)
	}
	first := int32(len(g.nodes))
	for _, m := range members {
		g.add(&st.entries[m], first, circle)
		done[m] = true
	}
}

// add appends an event. Citations of events at or after first are dropped: they belong to a circle.
func (g *Graph) add(e *Entry, first int32, circle bool) {
	i := int32(len(g.nodes))
	n := node{
		nid: e.NID, time: e.Time, depth: e.Depth, event: e.Event,
		slot: none, sender: g.userSlot(string(e.Event.Sender)), parent: none, power: none,
	}
	room := e.Event.RoomID
	if c := e.Event.Create(); c != nil {
		room = c.RoomID
	}
	if circle || room != g.room || !e.Event.IsState() {
		n.flags |= nodeUnusable
	}
	if e.Rejected {
		n.flags |= nodeRejected
	}
	start := len(g.edges)
	for _, a := range e.Auth {
		if t, ok := g.index.get(a); ok && t < first {
			g.edges = append(g.edges, t)
		}
	}
	g.edges = append(g.edges[:start], distinct(g.edges[start:])...)
	g.ends = append(g.ends, uint32(len(g.edges)))
	for _, t := range g.edges[start:] {
		if a := &g.nodes[t]; a.slot == slotPower && a.flags&nodeUnusable == 0 && (n.parent == none || t < n.parent) {
			n.parent = t
		}
	}
	if e.Event.IsState() {
		if n.slot = n.sender; e.Event.Kind != eventauth.KindMember || e.Event.StateKey != string(e.Event.Sender) {
			n.slot = g.slotOf(e.Event)
		}
		if g.slotKeys[n.slot] == (Key{}) {
			g.slotKeys[n.slot] = e.Key
		}
		if isPowerEvent(e.Event) {
			n.flags |= nodePower
		}
	}
	if n.slot == slotPower && n.flags&nodeUnusable == 0 {
		n.power = int32(len(g.powers))
		g.powers = append(g.powers, i)
	}
	if n.slot == slotCreate && g.rules.RoomIDIsHash && n.flags&(nodeUnusable|nodeRejected) == 0 {
		g.create = e.Event.Create()
	}
	g.nodes = append(g.nodes, n)
	g.index.put(e.NID, i)
}

// distinct removes repetitions from a list, which is short in events that honest servers make.
func distinct(s []int32) []int32 {
	if len(s) > 16 {
		slices.Sort(s)
		return slices.Compact(s)
	}
	out := s[:0]
	for _, v := range s {
		if !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}

// isPowerEvent says whether a state event may take away somebody's ability to do something.
func isPowerEvent(e *eventauth.Reduced) bool {
	switch e.Kind {
	case eventauth.KindPowerLevels, eventauth.KindJoinRules:
		return true
	case eventauth.KindMember:
		return (e.Membership == eventauth.MembershipLeave || e.Membership == eventauth.MembershipBan) &&
			string(e.Sender) != e.StateKey
	default:
		return false
	}
}

// nidIndex maps nids to nodes: open addressing with at most half of the places taken. Nid 0 is no event's.
type nidIndex struct {
	keys  []int64
	vals  []int32
	shift uint
	n     int
}

func (x *nidIndex) slot(nid int64) int {
	return int(uint64(nid) * 0x9E3779B97F4A7C15 >> x.shift)
}

func (x *nidIndex) get(nid int64) (int32, bool) {
	if x.n == 0 || nid == 0 {
		return 0, false
	}
	mask := len(x.keys) - 1
	for i := x.slot(nid); ; i = (i + 1) & mask {
		switch x.keys[i] {
		case nid:
			return x.vals[i], true
		case 0:
			return 0, false
		}
	}
}

func (x *nidIndex) put(nid int64, v int32) {
	if x.n*2 >= len(x.keys) {
		old := *x
		size := max(64, 2*len(x.keys))
		*x = nidIndex{keys: make([]int64, size), vals: make([]int32, size), shift: 64}
		for 1<<(64-x.shift) < size {
			x.shift--
		}
		for i, k := range old.keys {
			if k != 0 {
				x.put(k, old.vals[i])
			}
		}
	}
	mask := len(x.keys) - 1
	i := x.slot(nid)
	for x.keys[i] != 0 {
		i = (i + 1) & mask
	}
	x.keys[i], x.vals[i] = nid, v
	x.n++
}
