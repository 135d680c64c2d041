package stateres

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // the specification's
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/heddle-im/heddle/pkg/matrix/eventauth"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
)

// naive is state resolution as the text has it, sentence by sentence, with sets and walks and no thought of speed: what the
// real thing is compared with.
type naive struct {
	w *world
}

type set map[int64]bool

func (n naive) authChain(nid int64, into set) {
	for _, a := range n.w.entries[nid].Auth {
		if !into[a] {
			into[a] = true
			n.authChain(a, into)
		}
	}
}

func (n naive) entry(nid int64) Entry { return n.w.entries[nid] }

func (n naive) resolve(states []State) map[Key]int64 {
	if n.w.rules.StateRes == roomver.StateResV1 {
		return n.resolveV1(states)
	}
	unconflicted := map[Key]int64{}
	conflicted := set{}
	for _, s := range states {
		for k, v := range s.All() {
			inAll := true
			for _, o := range states {
				if e, ok := o.Get(k); !ok || e != v {
					inAll = false
				}
			}
			if inAll {
				unconflicted[k] = v
			} else {
				conflicted[v] = true
			}
		}
	}
	full := set{}
	var chains []set
	union := set{}
	for _, s := range states {
		c := set{}
		for _, v := range s.All() {
			n.authChain(v, c)
		}
		chains = append(chains, c)
		for v := range c {
			union[v] = true
		}
	}
	for v := range union {
		for _, c := range chains {
			if !c[v] {
				full[v] = true
			}
		}
	}
	for v := range conflicted {
		full[v] = true
	}
	v21 := n.w.rules.StateRes == roomver.StateResV2_1
	if v21 {
		for v := range n.w.entries {
			up, down := conflicted[v], conflicted[v]
			c := set{}
			n.authChain(v, c)
			for x := range c {
				up = up || conflicted[x]
			}
			for x := range conflicted {
				c := set{}
				n.authChain(x, c)
				down = down || c[v]
			}
			if up && down {
				full[v] = true
			}
		}
	}

	x := set{}
	var enlarge func(int64)
	enlarge = func(v int64) {
		x[v] = true
		for _, a := range n.entry(v).Auth {
			if full[a] && !x[a] {
				enlarge(a)
			}
		}
	}
	for v := range full {
		if isPowerEvent(n.entry(v).Event) {
			enlarge(v)
		}
	}
	partial := map[Key]int64{}
	if !v21 {
		for k, v := range unconflicted {
			partial[k] = v
		}
	}
	n.iterate(partial, n.reverseTopological(maps.Clone(x)))
	var rest []int64
	for v := range full {
		if !x[v] {
			rest = append(rest, v)
		}
	}
	n.mainline(rest, partial[n.w.key("m.room.power_levels", "")])
	n.iterate(partial, rest)
	for k, v := range unconflicted {
		partial[k] = v
	}
	return partial
}

func (n naive) authOf(nid int64, typ string) int64 {
	for _, a := range n.entry(nid).Auth {
		if e := n.entry(a).Event; e.Type == typ && e.StateKey == "" {
			return a
		}
	}
	return 0
}

func (n naive) create() *eventauth.Create {
	for _, e := range n.w.entries {
		if e.Event.ID == worldCreate {
			return e.Event.Create()
		}
	}
	return nil
}

func (n naive) less(a, b int64) bool {
	x, y := n.entry(a), n.entry(b)
	level := func(nid int64) eventauth.Level {
		var p *eventauth.PowerLevels
		var c *eventauth.Create
		if pl := n.authOf(nid, "m.room.power_levels"); pl != 0 {
			p = n.entry(pl).Event.PowerLevels()
		}
		if cr := n.authOf(nid, "m.room.create"); cr != 0 {
			c = n.entry(cr).Event.Create()
		}
		if n.w.rules.RoomIDIsHash {
			c = n.create()
		}
		return eventauth.PowerOf(c, p, n.entry(nid).Event.Sender)
	}
	if level(a) != level(b) {
		return level(a) > level(b)
	}
	if x.Time != y.Time {
		return x.Time < y.Time
	}
	return x.Event.ID < y.Event.ID
}

func (n naive) reverseTopological(x set) []int64 {
	var out []int64
	for len(x) > 0 {
		best := int64(0)
		for v := range x {
			ready := true
			for _, a := range n.entry(v).Auth {
				ready = ready && !x[a]
			}
			if ready && (best == 0 || n.less(v, best)) {
				best = v
			}
		}
		out = append(out, best)
		delete(x, best)
	}
	return out
}

func (n naive) mainline(list []int64, p int64) {
	index := map[int64]int{}
	for i := 0; p != 0; i++ {
		index[p] = i
		p = n.authOf(p, "m.room.power_levels")
	}
	position := func(e int64) int {
		for {
			if e = n.authOf(e, "m.room.power_levels"); e == 0 {
				return math.MaxInt
			}
			if i, ok := index[e]; ok {
				return i
			}
		}
	}
	slices.SortFunc(list, func(a, b int64) int {
		x, y := n.entry(a), n.entry(b)
		switch {
		case position(a) != position(b):
			return position(b) - position(a)
		case x.Time != y.Time:
			return int(x.Time - y.Time)
		}
		return strings.Compare(string(x.Event.ID), string(y.Event.ID))
	})
}

func (n naive) allowed(state map[Key]int64, v int64, fallback bool) bool {
	e := n.entry(v)
	st, _ := eventauth.Select(n.w.rules, e.Event, func(k eventauth.TypeKey) *eventauth.Reduced {
		if n.w.rules.RoomIDIsHash && k.Type == "m.room.create" {
			for _, x := range n.w.entries {
				if x.Event.ID == worldCreate {
					return x.Event
				}
			}
		}
		if x, ok := state[n.w.key(k.Type, k.StateKey)]; ok {
			return n.entry(x).Event
		}
		for _, a := range e.Auth {
			if x := n.entry(a); fallback && x.Event.Type == k.Type && x.Event.StateKey == k.StateKey && !x.Rejected {
				return x.Event
			}
		}
		return nil
	})
	return eventauth.Decide(n.w.rules, e.Event, &st) == eventauth.Allowed
}

func (n naive) iterate(state map[Key]int64, list []int64) {
	for _, v := range list {
		if n.allowed(state, v, true) {
			state[n.entry(v).Key] = v
		}
	}
}

func (n naive) resolveV1(states []State) map[Key]int64 {
	values := map[Key][]int64{}
	for _, s := range states {
		for k, v := range s.All() {
			if !slices.Contains(values[k], v) {
				values[k] = append(values[k], v)
			}
		}
	}
	r := map[Key]int64{}
	for k, v := range values {
		if len(v) == 1 {
			r[k] = v[0]
		}
		slices.SortFunc(v, func(a, b int64) int {
			x, y := n.entry(a), n.entry(b)
			if x.Depth != y.Depth {
				return int(x.Depth - y.Depth)
			}
			h, i := sha1.Sum([]byte(x.Event.ID)), sha1.Sum([]byte(y.Event.ID)) //nolint:gosec // the specification's
			return bytes.Compare(i[:], h[:])
		})
	}
	step := func(which func(string) bool, auth bool) {
		chosen := map[Key]int64{}
		for k, list := range values {
			if len(list) < 2 || !which(n.entry(list[0]).Event.Type) {
				continue
			}
			chosen[k] = list[0]
			if auth {
				for _, v := range list[1:] {
					trial := map[Key]int64{}
					for k, v := range r {
						trial[k] = v
					}
					trial[k] = chosen[k]
					if !n.allowed(trial, v, false) {
						break
					}
					chosen[k] = v
				}
				continue
			}
			for i := len(list) - 1; i > 0; i-- {
				if n.allowed(r, list[i], false) {
					chosen[k] = list[i]
					break
				}
			}
		}
		for k, v := range chosen {
			r[k] = v
		}
	}
	step(func(t string) bool { return t == "m.room.power_levels" }, true)
	step(func(t string) bool { return t == "m.room.join_rules" }, true)
	step(func(t string) bool { return t == "m.room.member" }, true)
	step(func(t string) bool {
		return t != "m.room.power_levels" && t != "m.room.join_rules" && t != "m.room.member"
	}, false)
	return r
}

func lowerSHA1(w *world, a, b int64) int64 {
	x, y := sha1.Sum([]byte(w.entries[a].Event.ID)), sha1.Sum([]byte(w.entries[b].Event.ID)) //nolint:gosec // the specification's
	if bytes.Compare(x[:], y[:]) < 0 {
		return a
	}
	return b
}
