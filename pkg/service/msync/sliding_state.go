package msync

import (
	"context"

	"github.com/heddle-im/heddle/pkg/matrix/stateres"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/readdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// keyWish is a wish in the numbers of a room's shard; 0 stands for any.
type keyWish struct{ typ, key int64 }

// keyWishes are the wishes of a config in the numbers of a room's shard.
type keyWishes struct {
	exact  []keyWish
	member int64
	lazy   bool
}

func (w *keyWishes) wants(k stateres.Key) bool {
	for _, x := range w.exact {
		if x.typ == 0 && w.lazy && k.Type == w.member {
			continue
		}
		if (x.typ == 0 || x.typ == k.Type) && (x.key == 0 || x.key == k.StateKey) {
			return true
		}
	}
	return false
}

// names are the names that a config's wishes need numbers for.
func (c config) names(me string) []string {
	out := []string{typeMember, me}
	for _, w := range c.wishes {
		for _, s := range []string{w.typ, w.key} {
			if s != wishAny && s != wishMe && s != wishLazy {
				out = append(out, s)
			}
		}
	}
	return out
}

// number gives a config's wishes in numbers. What has none is nowhere in the shard, and so in no state.
func (c config) number(atoms map[string]shard.Nid, me string) keyWishes {
	out := keyWishes{member: int64(atoms[typeMember]), lazy: c.lazy()}
	of := func(s string) (int64, bool) {
		switch s {
		case wishAny:
			return 0, true
		case wishMe:
			s = me
		}
		n, ok := atoms[s]
		return int64(n), ok
	}
	for _, w := range c.wishes {
		typ, ok1 := of(w.typ)
		key, ok2 := of(w.key)
		if ok1 && ok2 {
			out.exact = append(out.exact, keyWish{typ, key})
		}
	}
	return out
}

// choice is what a room that is told as a whole is asked for.
func (c config) choice(me string) choice {
	name := []byte("sliding")
	for _, w := range c.wishes {
		name = append(append(append(append(name, 0), w.typ...), 0), w.key...)
	}
	return choice{
		name:  string(name),
		names: func(*common, *stretch) []string { return c.names(me) },
		skip: func(numbers map[string]shard.Nid, _ []string) func(stateres.Key) bool {
			want := c.number(numbers, me)
			return func(k stateres.Key) bool { return !want.wants(k) }
		},
	}
}

// wholeState reads the state of a room that is wanted, but what was wanted before.
func (s *slideView) wholeState(ctx context.Context, r *slideRoom, st *stretch, was config) (items []*readdb.Item, err error) {
	if len(r.want.wishes) == 0 {
		return nil, nil
	}
	at := st.end
	if at == 0 { // nothing is told of the timeline: the state as of the upper token
		nid := r.ref.Nid
		if at, err = s.e.Rooms.StateAsOf(ctx, nid, int64(s.to(nid.Shard()))); err != nil || at == 0 {
			return nil, err
		}
	}
	me := s.u.id
	numbers, err := s.numbersOf(ctx, r.x, append(r.want.names(me), was.names(me)...))
	if err != nil {
		return nil, err
	}
	want, had := r.want.number(numbers, me), was.number(numbers, me)
	state, err := s.stateOf(ctx, r.x, at)
	if err != nil {
		return nil, err
	}
	var nids []shard.Nid
	for k, n := range state.All() {
		if want.wants(k) && !had.wants(k) {
			nids = append(nids, shard.Nid(n))
		}
	}
	return s.stateItems(ctx, r.x, nids)
}

// changedState reads what became different of a room's state since the client has heard of it: what is wanted of it, and the keys of all.
func (s *slideView) changedState(ctx context.Context, r *slideRoom, n *roomNews, wants func(typ, key string) bool) error {
	old, err := s.e.Rooms.StateAsOf(ctx, r.ref.Nid, int64(r.since))
	if err != nil {
		return err
	}
	states, err := s.e.Rooms.States(ctx, []shard.Nid{n.st.end, old})
	if err != nil {
		return err
	}
	now, before := states[n.st.end], states[old]
	changed := make(map[stateres.Key]shard.Nid) // 0: it is there no more
	for k, e := range now.All() {
		if was, ok := before.Get(k); !ok || was != e {
			changed[k] = shard.Nid(e)
		}
	}
	for k := range before.All() {
		if _, ok := now.Get(k); !ok {
			changed[k] = 0
		}
	}
	var atoms []shard.Nid
	for k := range changed {
		atoms = append(atoms, shard.Nid(k.Type), shard.Nid(k.StateKey))
	}
	if len(atoms) == 0 {
		return nil
	}
	names, err := s.e.Rooms.AtomNames(ctx, atoms)
	if err != nil {
		return err
	}
	var nids []shard.Nid
	for k, e := range changed {
		name := roomdb.StateName{Type: names[shard.Nid(k.Type)], StateKey: names[shard.Nid(k.StateKey)]}
		n.keys = append(n.keys, name)
		switch {
		case !wants(name.Type, name.StateKey):
		case e == 0:
			n.stubs = append(n.stubs, name)
		default:
			nids = append(nids, e)
		}
	}
	n.state, err = s.itemsOf(ctx, r.ref, nids)
	return err
}
