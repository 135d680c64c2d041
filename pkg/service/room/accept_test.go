package room_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/heddle-im/heddle/pkg/matrix/eventauth"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/matrix/stateres"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// far is another server, whose events are checked against what they come to.
type far struct {
	*roomtest.Far
	t     *testing.T
	w     *roomtest.World
	room  id.RoomID
	rules *roomver.Rules
	ref   roomdb.RoomRef
}

func newFar(t *testing.T, w *roomtest.World, r id.RoomID, v roomver.Version) *far {
	f := roomtest.NewFar(w, r, v)
	return &far{Far: f, t: t, w: w, room: r, rules: f.Rules, ref: f.Ref}
}

// check holds what is stored against a resolution from nothing, event by event.
func (f *far) check() {
	t, ctx := f.t, f.w.Ctx()
	events := f.All()
	byNid := map[shard.Nid]*roomdb.StoredEvent{}
	src := loader{f, byNid}
	states := map[shard.Nid]stateres.State{}
	same := func(want stateres.State, at shard.Nid, what string) {
		t.Helper()
		got, err := f.w.Reader.State(ctx, at)
		require.NoError(t, err)
		stateres.Diff(want, got, func(k stateres.Key, a, b int64) { t.Errorf("%s: at %v %d and not %d", what, k, b, a) })
	}
	resolve := func(list []stateres.State) stateres.State {
		res, err := stateres.NewGraph(f.rules, f.room, 0).Resolve(src, list)
		require.NoError(t, err)
		return res.State
	}
	var tips []shard.Nid
	for i := range events {
		byNid[events[i].Nid] = &events[i]
	}
	for i := range events {
		e := &events[i]
		var before []stateres.State
		for _, p := range e.Prev {
			before = append(before, states[p])
		}
		state := resolve(before)
		same(state, e.StateBefore, "before "+e.EventID)
		if e.StateKey != nil && !e.Flags.Has(roomdb.FlagRejected) {
			state = state.Set(stateres.Key{Type: int64(e.Type), StateKey: int64(*e.StateKey)}, int64(e.Nid))
		}
		same(state, e.StateAfter, "after "+e.EventID)
		states[e.Nid] = state
		require.Equal(t, e.Flags == 0, e.Placed)
		if !e.Placed {
			continue
		}
		tips = slices.DeleteFunc(tips, func(n shard.Nid) bool { return slices.Contains(e.Prev, n) })
		tips = append(tips, e.Nid)
		want := e.Extremities
		if len(want) == 0 {
			want = []shard.Nid{e.Nid}
		}
		require.ElementsMatch(t, want, tips, "extremities after %s", e.EventID)
		var all []stateres.State
		for _, n := range tips {
			all = append(all, states[n])
		}
		at, err := f.w.Reader.RoomState(ctx, e)
		require.NoError(t, err)
		same(resolve(all), at, "the room's state after "+e.EventID)
	}
	var heads []stateres.State
	for _, n := range tips {
		heads = append(heads, states[n])
	}
	current := resolve(heads)
	pairs, err := f.w.Reader.CurrentState(ctx, f.ref.Nid)
	require.NoError(t, err)
	stateres.Diff(current, stateres.NewState(pairs), func(k stateres.Key, a, b int64) { t.Errorf("current state: at %v %d and not %d", k, b, a) })
	members, err := f.w.Reader.Members(ctx, f.ref.Nid)
	require.NoError(t, err)
	for _, m := range members {
		if m.Event == 0 {
			continue
		}
		require.Equal(t, m.Membership.String(), f.Parse(byNid[m.Event]).Membership())
	}
}

// loader gives a resolution its events, from the rows.
type loader struct {
	f     *far
	byNid map[shard.Nid]*roomdb.StoredEvent
}

func (l loader) Load(nids []int64) (list []stateres.Entry, err error) {
	for _, n := range nids {
		e := l.byNid[shard.Nid(n)]
		ev := l.f.Parse(e)
		x := stateres.Entry{
			NID: n, Event: eventauth.Reduce(ev), Rejected: e.Flags.Has(roomdb.FlagRejected), Time: e.TS, Depth: e.Depth,
		}
		if e.StateKey != nil {
			x.Key = stateres.Key{Type: int64(e.Type), StateKey: int64(*e.StateKey)}
		}
		for _, a := range e.Auth {
			x.Auth = append(x.Auth, int64(a))
		}
		list = append(list, x)
	}
	return list, nil
}

const eve id.UserID = "@eve:far.test"

func TestAcceptFates(t *testing.T) {
	w := roomtest.New(t)
	for _, version := range []roomver.Version{roomver.V1, roomver.V10, roomver.V11, roomver.V12} {
		r := w.Room(alice, version)
		f := newFar(t, w, r, version)
		f.Join(eve)
		before := f.All()
		said := w.Send(r, alice, "first")
		// A message on an older event forks the room.
		fork := f.Build(before[len(before)-1:], eve, "m.room.message", nil, `{"body":"fork"}`)
		v := f.Send(fork, fork)
		require.Equal(t, []room.Fate{room.FateAccepted, room.FateKnown}, []room.Fate{v[0].Fate, v[1].Fate}, v[0].Reason)
		// The next event of ours brings it together.
		joined := w.Send(r, alice, "together")
		all := f.All()
		last := all[len(all)-1]
		require.Equal(t, string(joined), last.EventID)
		require.Len(t, last.Prev, 2)
		require.Empty(t, last.Extremities)
		// Rejected: eve has no power. Its state is of no effect.
		empty := ""
		v = f.Send(f.Build(all[len(all)-1:], eve, "m.room.name", &empty, `{"name":"mine"}`))
		require.Equal(t, room.FateRejected, v[0].Fate)
		// Missing: what an unknown event builds on.
		ghost := f.Build(all[len(all)-1:], eve, "x", nil, `{}`)
		ghostRow := roomdb.StoredEvent{EventID: string(ghost.EventID()), JSON: ghost.JSON(), StateAfter: last.StateAfter}
		late := f.Build([]roomdb.StoredEvent{ghostRow}, eve, "x", nil, `{"a":1}`)
		v = f.Send(late)
		require.Equal(t, room.FateMissing, v[0].Fate)
		require.Equal(t, []id.EventID{ghost.EventID()}, v[0].Missing)
		v = f.Send(ghost, late)
		require.Equal(t, []room.Fate{room.FateAccepted, room.FateAccepted}, []room.Fate{v[0].Fate, v[1].Fate})
		// Soft failed: allowed where it hangs, but banned by now.
		all = f.All()
		w.Membership(r, alice, eve, room.ActionBan)
		v = f.Send(f.Build(all[len(all)-1:], eve, "m.room.message", nil, `{"body":"evading"}`))
		require.Equal(t, room.FateSoftFailed, v[0].Fate)
		require.NotContains(t, fmt.Sprint(bodies(t, w, r)), "evading")
		f.check()
		w.Restart()
		w.Membership(r, alice, eve, room.ActionUnban)
		w.Send(r, alice, "after")
		f.check()
		require.NotEmpty(t, said)
	}
}

func TestAcceptMalformed(t *testing.T) {
	w := roomtest.New(t)
	r, other := w.Room(alice, roomver.V11), w.Room(alice, roomver.V11)
	f, g := newFar(t, w, r, roomver.V11), newFar(t, w, other, roomver.V11)
	g.Join(eve)
	all := g.All()
	stray := g.Build(all[len(all)-1:], eve, "x", nil, `{}`)
	a := w.Do(&room.Accept{Room: r, Events: [][]byte{[]byte(`{`), stray.JSON(), f.All()[0].JSON}})
	var v []room.Verdict
	require.NoError(t, json.Unmarshal(a.Data, &v))
	for _, x := range v {
		require.Equal(t, room.FateMalformed, x.Fate)
	}
	f.check()
}

// A far ban and a local message, a far topic against a local one: forks of the state are resolved, and the members follow.
func TestAcceptRandomForks(t *testing.T) {
	world := roomtest.New(t)
	rapid.Check(t, func(rt *rapid.T) {
		version := rapid.SampledFrom([]roomver.Version{roomver.V2, roomver.V10, roomver.V11, roomver.V12}).Draw(rt, "version")
		users := `"@eve:far.test":60,"@bob:heddle.test":30`
		if version != roomver.V12 {
			users += `,"@alice:heddle.test":100`
		}
		r := world.Create(room.CreateRoom{
			Creator: roomtest.As(alice), Version: version, Preset: room.PresetPublic,
			PowerOverride: []byte(`{"users":{` + users + `},"state_default":0,"ban":20,"kick":20,"events":{}}`),
		})
		f := newFar(t, world, r, version)
		world.Join(r, bob)
		f.Join(eve)
		for range rapid.IntRange(4, 16).Draw(rt, "events") {
			if rapid.IntRange(0, 7).Draw(rt, "restart") == 0 {
				world.Restart()
			}
			n := rapid.IntRange(0, 3).Draw(rt, "n")
			content := fmt.Sprintf(`{"n":%d}`, n)
			if rapid.IntRange(0, 2).Draw(rt, "local") == 0 {
				res := <-async(world, nil, anyCommand(rt, r, nil))
				collect(t, new([]id.EventID), &[]<-chan result{done(res)})
				continue
			}
			all := slices.DeleteFunc(f.All(), func(e roomdb.StoredEvent) bool { return !e.Placed })
			back := rapid.IntRange(1, min(8, len(all)-7)).Draw(rt, "back")
			prev := []roomdb.StoredEvent{all[len(all)-back]}
			if back > 1 && rapid.Bool().Draw(rt, "merge") {
				prev = append(prev, all[len(all)-1])
			}
			key := ""
			switch rapid.IntRange(0, 4).Draw(rt, "kind") {
			case 0:
				f.Send(f.Build(prev, eve, "m.room.message", nil, content))
			case 1:
				f.Send(f.Build(prev, eve, "m.room.topic", &key, content))
			case 2:
				key = string(bob)
				f.Send(f.Build(prev, eve, "m.room.member", &key, rapid.SampledFrom([]string{
					`{"membership":"ban"}`, `{"membership":"leave"}`, `{"membership":"invite"}`,
				}).Draw(rt, "membership")))
			case 3:
				f.Send(f.Build(prev, eve, "m.room.join_rules", &key, rapid.SampledFrom([]string{
					`{"join_rule":"invite"}`, `{"join_rule":"public"}`,
				}).Draw(rt, "rule")))
			case 4:
				key = string(eve)
				f.Send(f.Build(prev, eve, "m.room.member", &key, rapid.SampledFrom([]string{
					`{"membership":"join"}`, `{"membership":"leave"}`,
				}).Draw(rt, "own")))
			}
		}
		f.check()
	})
}

func done(r result) <-chan result {
	ch := make(chan result, 1)
	ch <- r
	return ch
}
