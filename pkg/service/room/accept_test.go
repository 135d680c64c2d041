package room_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/eventauth"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/matrix/stateres"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// far is another server that knows all that the world has stored of a room, and builds events wherever it likes.
type far struct {
	t     *testing.T
	w     *roomtest.World
	room  id.RoomID
	rules *roomver.Rules
	ref   roomdb.RoomRef
	n     int
}

const farServer id.ServerName = "far.test"

func newFar(t *testing.T, w *roomtest.World, r id.RoomID, v roomver.Version) *far {
	ref, ok, err := w.Reader.Room(w.Ctx(), shardOf(w, r), string(r))
	require.NoError(t, err)
	require.True(t, ok)
	return &far{t: t, w: w, room: r, rules: roomver.MustGet(v), ref: ref}
}

// all reads every event of the room, rejected ones too, in the order in which they were made known.
func (f *far) all() []roomdb.StoredEvent {
	rows, err := f.w.DB.Pool.Query(f.w.Ctx(), `SELECT nid FROM event WHERE room_nid = $1 ORDER BY nid`, int64(f.ref.Nid))
	require.NoError(f.t, err)
	defer rows.Close()
	var nids []shard.Nid
	for rows.Next() {
		var n int64
		require.NoError(f.t, rows.Scan(&n))
		nids = append(nids, shard.Nid(n))
	}
	events, err := f.w.Reader.EventsByNid(f.w.Ctx(), nids)
	require.NoError(f.t, err)
	slices.SortFunc(events, func(a, b roomdb.StoredEvent) int { return int(a.Nid - b.Nid) })
	return events
}

func (f *far) parse(e *roomdb.StoredEvent) *event.Event {
	ev, err := event.ParseTrusted(f.rules, e.JSON, id.EventID(e.EventID))
	require.NoError(f.t, err)
	return ev
}

// build makes an event on some stored ones, with the auth events that the state after the first of them has.
func (f *far) build(prev []roomdb.StoredEvent, sender id.UserID, typ string, key *string, content string) *event.Event {
	f.n++
	p := event.Proto{
		RoomID: f.room, Type: typ, StateKey: key, Sender: sender, Content: []byte(content), LinkHashes: map[id.EventID]event.Hash{},
		EventID: id.EventID(fmt.Sprintf("$far%d:%s", f.n, farServer)), OriginServerTS: now().UnixMilli() + int64(f.n),
	}
	for i := range prev {
		ev := f.parse(&prev[i])
		p.PrevEvents = append(p.PrevEvents, ev.EventID())
		p.LinkHashes[ev.EventID()] = ev.ReferenceHash()
		p.Depth = max(p.Depth, ev.Depth()+1)
	}
	state, err := f.w.Reader.State(f.w.Ctx(), prev[0].StateAfter)
	require.NoError(f.t, err)
	reduced, err := eventauth.ReduceProto(f.rules, &p)
	require.NoError(f.t, err)
	_, auth := eventauth.Select(f.rules, reduced, func(k eventauth.TypeKey) *eventauth.Reduced {
		atoms, err := f.w.Reader.AtomsByName(f.w.Ctx(), f.ref.Nid.Shard(), []string{k.Type, k.StateKey})
		require.NoError(f.t, err)
		n, ok := state.Get(stateres.Key{Type: int64(atoms[k.Type]), StateKey: int64(atoms[k.StateKey])})
		if !ok {
			return nil
		}
		rows, err := f.w.Reader.EventsByNid(f.w.Ctx(), []shard.Nid{shard.Nid(n)})
		require.NoError(f.t, err)
		ev := f.parse(&rows[0])
		p.LinkHashes[ev.EventID()] = ev.ReferenceHash()
		return eventauth.Reduce(ev)
	})
	for _, a := range auth {
		p.AuthEvents = append(p.AuthEvents, a.ID)
	}
	e, err := event.Build(f.rules, &p, farServer, f.w.Key)
	require.NoError(f.t, err)
	return e
}

func (f *far) send(events ...*event.Event) []room.Verdict {
	c := &room.Accept{Room: f.room}
	for _, e := range events {
		c.Events = append(c.Events, e.JSON())
	}
	a := f.w.Do(c)
	var verdicts []room.Verdict
	require.NoError(f.t, json.Unmarshal(a.Data, &verdicts))
	require.Len(f.t, verdicts, len(events))
	return verdicts
}

func (f *far) join(u id.UserID) {
	all := f.all()
	key := string(u)
	v := f.send(f.build(all[len(all)-1:], u, "m.room.member", &key, `{"membership":"join"}`))
	require.Equal(f.t, room.FateAccepted, v[0].Fate, v[0].Reason)
}

// check holds what is stored against a resolution from nothing, event by event.
func (f *far) check() {
	t, ctx := f.t, f.w.Ctx()
	events := f.all()
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
		require.Equal(t, m.Membership.String(), f.parse(byNid[m.Event]).Membership())
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
		ev := l.f.parse(e)
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
		f.join(eve)
		before := f.all()
		said := w.Send(r, alice, "first")
		// A message on an older event forks the room.
		fork := f.build(before[len(before)-1:], eve, "m.room.message", nil, `{"body":"fork"}`)
		v := f.send(fork, fork)
		require.Equal(t, []room.Fate{room.FateAccepted, room.FateKnown}, []room.Fate{v[0].Fate, v[1].Fate}, v[0].Reason)
		// The next event of ours brings it together.
		joined := w.Send(r, alice, "together")
		all := f.all()
		last := all[len(all)-1]
		require.Equal(t, string(joined), last.EventID)
		require.Len(t, last.Prev, 2)
		require.Empty(t, last.Extremities)
		// Rejected: eve has no power. Its state is of no effect.
		empty := ""
		v = f.send(f.build(all[len(all)-1:], eve, "m.room.name", &empty, `{"name":"mine"}`))
		require.Equal(t, room.FateRejected, v[0].Fate)
		// Missing: what an unknown event builds on.
		ghost := f.build(all[len(all)-1:], eve, "x", nil, `{}`)
		ghostRow := roomdb.StoredEvent{EventID: string(ghost.EventID()), JSON: ghost.JSON(), StateAfter: last.StateAfter}
		late := f.build([]roomdb.StoredEvent{ghostRow}, eve, "x", nil, `{"a":1}`)
		v = f.send(late)
		require.Equal(t, room.FateMissing, v[0].Fate)
		require.Equal(t, []id.EventID{ghost.EventID()}, v[0].Missing)
		v = f.send(ghost, late)
		require.Equal(t, []room.Fate{room.FateAccepted, room.FateAccepted}, []room.Fate{v[0].Fate, v[1].Fate})
		// Soft failed: allowed where it hangs, but banned by now.
		all = f.all()
		w.Membership(r, alice, eve, room.ActionBan)
		v = f.send(f.build(all[len(all)-1:], eve, "m.room.message", nil, `{"body":"evading"}`))
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
	g.join(eve)
	all := g.all()
	stray := g.build(all[len(all)-1:], eve, "x", nil, `{}`)
	a := w.Do(&room.Accept{Room: r, Events: [][]byte{[]byte(`{`), stray.JSON(), f.all()[0].JSON}})
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
		f.join(eve)
		for range rapid.IntRange(4, 16).Draw(rt, "events") {
			if rapid.IntRange(0, 7).Draw(rt, "restart") == 0 {
				world.Restart()
			}
			n := rapid.IntRange(0, 3).Draw(rt, "n")
			content := fmt.Sprintf(`{"n":%d}`, n)
			if rapid.IntRange(0, 2).Draw(rt, "local") == 0 {
				res := <-async(world, nil, command(rt, r, nil))
				collect(t, new([]id.EventID), &[]<-chan result{done(res)})
				continue
			}
			all := slices.DeleteFunc(f.all(), func(e roomdb.StoredEvent) bool { return !e.Placed })
			back := rapid.IntRange(1, min(8, len(all)-7)).Draw(rt, "back")
			prev := []roomdb.StoredEvent{all[len(all)-back]}
			if back > 1 && rapid.Bool().Draw(rt, "merge") {
				prev = append(prev, all[len(all)-1])
			}
			key := ""
			switch rapid.IntRange(0, 4).Draw(rt, "kind") {
			case 0:
				f.send(f.build(prev, eve, "m.room.message", nil, content))
			case 1:
				f.send(f.build(prev, eve, "m.room.topic", &key, content))
			case 2:
				key = string(bob)
				f.send(f.build(prev, eve, "m.room.member", &key, rapid.SampledFrom([]string{
					`{"membership":"ban"}`, `{"membership":"leave"}`, `{"membership":"invite"}`,
				}).Draw(rt, "membership")))
			case 3:
				f.send(f.build(prev, eve, "m.room.join_rules", &key, rapid.SampledFrom([]string{
					`{"join_rule":"invite"}`, `{"join_rule":"public"}`,
				}).Draw(rt, "rule")))
			case 4:
				key = string(eve)
				f.send(f.build(prev, eve, "m.room.member", &key, rapid.SampledFrom([]string{
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
