package stateres

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/eventauth"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
)

func isV1(w *world) bool { return w.rules.StateRes == roomver.StateResV1 }

// A moderator who is demoted on one fork and acts on the other: the demotion, by the one with more power, comes first.
func TestDemotionComesFirst(t *testing.T) {
	eachVersion(t, func(t *testing.T, w *world) {
		s := w.join(w.found(), "@carol:a")
		demoted := w.power(s, "@alice:a", `"@bob:a":0`)
		banned := w.membership(s, "@bob:a", "@carol:a", "ban")
		got := w.resolve(demoted, banned).State
		require.Equal(t, w.at(demoted, "m.room.power_levels", ""), w.at(got, "m.room.power_levels", ""))
		require.Equal(t, eventauth.MembershipJoin, w.memberOf(got, "@carol:a"))
	})
}

// Two who have equal power change the levels on two forks: the earlier by origin_server_ts comes first and the later is
// checked against it, so that the later wins if it still may.
func TestEqualPowerByTime(t *testing.T) {
	for _, v := range algorithms[1:] {
		w := newWorld(t, v)
		s := w.found()
		s = w.joinRule(s, "@bob:a", "public")
		early, ok := w.event(s, spec{typ: "m.room.join_rules", sender: "@bob:a", content: `{"join_rule":"invite"}`, at: 100})
		require.True(t, ok)
		late, ok := w.event(s, spec{typ: "m.room.join_rules", sender: "@bob:a", content: `{"join_rule":"private"}`, at: 200})
		require.True(t, ok)
		k := w.key("m.room.join_rules", "")
		require.Equal(t, late, w.at(w.resolve(s.Set(k, early), s.Set(k, late)).State, "m.room.join_rules", ""))
		require.Equal(t, late, w.at(w.resolve(s.Set(k, late), s.Set(k, early)).State, "m.room.join_rules", ""))
	}
}

// The same at the same time: the lower event id comes first.
func TestEqualPowerAndTimeByID(t *testing.T) {
	for _, v := range algorithms[1:] {
		w := newWorld(t, v)
		s := w.found()
		k := w.key("m.room.join_rules", "")
		low, _ := w.event(s, spec{typ: "m.room.join_rules", sender: "@bob:a", content: `{"join_rule":"invite"}`, at: 100, id: "$a"})
		high, _ := w.event(s, spec{typ: "m.room.join_rules", sender: "@bob:a", content: `{"join_rule":"private"}`, at: 100, id: "$b"})
		require.Equal(t, high, w.at(w.resolve(s.Set(k, low), s.Set(k, high)).State, "m.room.join_rules", ""))
	}
}

// Somebody joins on a fork that does not know that the room was closed.
func TestJoinRuleEvasion(t *testing.T) {
	for _, v := range algorithms[1:] {
		w := newWorld(t, v)
		s := w.found()
		closed := w.joinRule(s, "@alice:a", "invite")
		joined := w.join(s, "@zara:b")
		got := w.resolve(closed, joined).State
		require.Equal(t, eventauth.MembershipNone, w.memberOf(got, "@zara:b"))
		require.Equal(t, w.at(closed, "m.room.join_rules", ""), w.at(got, "m.room.join_rules", ""))
	}
	// Version 1 takes the union of what is not in conflict.
	w := newWorld(t, roomver.V1)
	s := w.found()
	require.Equal(t, eventauth.MembershipJoin, w.memberOf(w.resolve(w.joinRule(s, "@alice:a", "invite"), w.join(s, "@zara:b")).State, "@zara:b"))
}

// The mainline decides between topics: the one set under the older power levels comes first, whatever its timestamp says.
func TestMainline(t *testing.T) {
	for _, v := range algorithms[1 : len(algorithms)-1] {
		w := newWorld(t, v)
		s := w.topic(w.found(), "@alice:a")
		old, ok := w.event(s, spec{typ: "m.room.topic", sender: "@bob:a", at: 1_000_000})
		require.True(t, ok)
		newer := w.power(s, "@alice:a", `"@bob:a":50,"@carol:a":50`)
		late, ok := w.event(newer, spec{typ: "m.room.topic", sender: "@bob:a", at: 1})
		require.True(t, ok)
		k := w.key("m.room.topic", "")
		require.Equal(t, late, w.at(w.resolve(newer.Set(k, old), newer.Set(k, late)).State, "m.room.topic", ""))
	}
}

// A key that only some states have is in conflict from version 2 on: what may not stand is dropped, not kept.
func TestPresentInSomeStatesOnly(t *testing.T) {
	for _, v := range algorithms[1:] {
		w := newWorld(t, v)
		s := w.found()
		banned := w.membership(s, "@alice:a", "@bob:a", "ban")
		with := w.topic(s, "@bob:a")
		r := w.resolve(with, banned)
		require.Zero(t, w.at(r.State, "m.room.topic", ""))
		require.Equal(t, 2, r.Conflicted)
		require.Equal(t, banned.Len(), r.State.Len())
	}
}

// One restricted join does not change what the next is checked against.
func TestRestrictedJoins(t *testing.T) {
	for _, v := range []roomver.Version{roomver.V8, roomver.V10, roomver.V12} {
		w := newWorld(t, v)
		s := w.joinRule(w.found(), "@alice:a", "restricted")
		fork := w.joinRule(s, "@alice:a", "restricted")
		for i := range 10 {
			u := fmt.Sprintf("@u%d:b", i)
			fork = w.send(fork, spec{typ: "m.room.member", sender: u, key: u, content: `{"membership":"join","join_authorised_via_users_server":"@bob:a"}`})
		}
		evil := s
		nid, ok := w.event(s, spec{typ: "m.room.member", sender: "@evil:b", key: "@evil:b", content: `{"membership":"join"}`})
		require.False(t, ok)
		evil = evil.Set(w.key("m.room.member", "@evil:b"), nid)
		got := w.resolve(fork, evil).State
		for i := range 10 {
			require.Equal(t, eventauth.MembershipJoin, w.memberOf(got, fmt.Sprintf("@u%d:b", i)))
		}
		require.Equal(t, eventauth.MembershipNone, w.memberOf(got, "@evil:b"))
	}
}

// Version 12 starts from the empty set: the unconflicted power levels are found through the events' own auth events, and a
// made-up unconflicted entry does not let in what its auth events do not.
func TestV12StartsEmpty(t *testing.T) {
	w := newWorld(t, roomver.V12)
	s := w.found()
	old := s
	s = w.power(s, "@alice:a", `"@bob:a":50,"@carol:a":50`)
	s = w.join(s, "@carol:a")
	// An event that rests on the old power levels, in which @carol:a has none.
	nid, ok := w.event(s, spec{typ: "m.room.topic", sender: "@carol:a", auth: []int64{
		w.at(old, "m.room.power_levels", ""), w.at(s, "m.room.member", "@carol:a"),
	}})
	require.True(t, ok, "by the state it is allowed")
	fork := s.Set(w.key("m.room.topic", ""), nid)
	require.Zero(t, w.at(w.resolve(s, fork).State, "m.room.topic", ""), "by its own auth events it is not")

	w = newWorld(t, roomver.V11) // before, the unconflicted state decided
	s = w.found()
	old = s
	s = w.join(w.power(s, "@alice:a", `"@bob:a":50,"@carol:a":50`), "@carol:a")
	nid, _ = w.event(s, spec{typ: "m.room.topic", sender: "@carol:a", auth: []int64{
		w.at(s, "m.room.create", ""), w.at(old, "m.room.power_levels", ""), w.at(s, "m.room.member", "@carol:a"),
	}})
	require.Equal(t, nid, w.at(w.resolve(s, s.Set(w.key("m.room.topic", ""), nid)).State, "m.room.topic", ""))
}

// The conflicted state subgraph of version 12 holds what lies between two conflicted events and is in every auth chain: the
// power levels that a conflicted event rests on are applied again, where version 11 leaves them out.
func TestV12Subgraph(t *testing.T) {
	sizes := map[roomver.Version]int{}
	for _, v := range []roomver.Version{roomver.V11, roomver.V12} {
		w := newWorld(t, v)
		s0 := w.found()
		p1 := w.power(s0, "@alice:a", `"@bob:a":50,"@carol:a":10`)
		p2 := w.power(p1, "@alice:a", `"@bob:a":50,"@carol:a":20`)
		p3 := w.power(p2, "@alice:a", `"@bob:a":50,"@carol:a":30`)
		tail := w.topic(p3, "@alice:a")
		r := w.resolve(tail, tail.Set(w.key("m.room.power_levels", ""), w.at(p1, "m.room.power_levels", "")))
		sizes[v] = r.Full
		require.Equal(t, w.at(p3, "m.room.power_levels", ""), w.at(r.State, "m.room.power_levels", ""))
	}
	// In conflict: p3 and p1. p2 is in the auth chain of both forks, for the topic rests on p3.
	require.Equal(t, map[roomver.Version]int{roomver.V11: 2, roomver.V12: 3}, sizes)
}

// Room version 1: the depth decides, and sha1 where depths are equal.
func TestV1Depth(t *testing.T) {
	w := newWorld(t, roomver.V1)
	s := w.topic(w.found(), "@alice:a")
	k := w.key("m.room.topic", "")
	a, _ := w.event(s, spec{typ: "m.room.topic", sender: "@alice:a", id: "$a:a"})
	b, _ := w.event(s, spec{typ: "m.room.topic", sender: "@alice:a", id: "$b:a"})
	set := func(nid, depth int64) {
		e := w.entries[nid]
		e.Depth = depth
		w.entries[nid] = e
	}
	set(a, 500)
	set(b, 400)
	require.Equal(t, a, w.at(w.resolve(s.Set(k, b), s.Set(k, a)).State, "m.room.topic", ""))
	set(b, 600)
	require.Equal(t, b, w.at(w.resolve(s.Set(k, b), s.Set(k, a)).State, "m.room.topic", ""))
	set(b, 500)
	got := w.at(w.resolve(s.Set(k, b), s.Set(k, a)).State, "m.room.topic", "")
	require.Equal(t, lowerSHA1(w, a, b), got)
}

// Attacks.

// Events that cite themselves or one another in a circle are never applied and never authorise; all else goes on.
func TestCircles(t *testing.T) {
	eachVersion(t, func(t *testing.T, w *world) {
		s := w.found()
		base := []int64{w.at(s, "m.room.create", ""), w.at(s, "m.room.power_levels", ""), w.at(s, "m.room.member", "@alice:a")}
		self, _ := w.event(s, spec{typ: "m.room.power_levels", sender: "@alice:a", content: `{"users":{"@evil:b":100}}`})
		e := w.entries[self]
		e.Auth = append(e.Auth, self)
		w.entries[self] = e
		one, _ := w.event(s, spec{typ: "m.room.name", sender: "@alice:a", auth: append(base, 5001)})
		two, _ := w.event(s, spec{typ: "m.room.avatar", sender: "@alice:a", auth: append(base, 5000)})
		for nid, at := range map[int64]int64{one: 5000, two: 5001} {
			e := w.entries[nid]
			e.NID = at
			w.entries[at] = e
		}
		topic := w.topic(s, "@alice:a")
		fork := s.Set(w.key("m.room.power_levels", ""), self).Set(w.key("m.room.name", ""), 5000).Set(w.key("m.room.avatar", ""), 5001)
		got := w.resolve(topic, fork).State
		require.Equal(t, w.at(s, "m.room.power_levels", ""), w.at(got, "m.room.power_levels", ""))
		require.Zero(t, w.at(got, "m.room.avatar", ""))
		require.Zero(t, w.at(got, "m.room.name", ""))
		require.Equal(t, w.at(topic, "m.room.topic", ""), w.at(got, "m.room.topic", ""))
	})
}

// Events of another room are neither applied nor do they authorise.
func TestWrongRoom(t *testing.T) {
	eachVersion(t, func(t *testing.T, w *world) {
		s := w.found()
		foreign, _ := w.event(s, spec{typ: "m.room.power_levels", sender: "@alice:a", content: `{"users":{"@evil:b":100}}`, room: "!other:a"})
		citing, _ := w.event(s, spec{typ: "m.room.topic", sender: "@evil:b", auth: []int64{w.at(s, "m.room.create", ""), foreign}})
		fork := s.Set(w.key("m.room.power_levels", ""), foreign).Set(w.key("m.room.topic", ""), citing)
		got := w.resolve(fork, w.joinRule(s, "@alice:a", "public")).State
		require.Equal(t, w.at(s, "m.room.power_levels", ""), w.at(got, "m.room.power_levels", ""))
		if !isV1(w) { // which takes what is not in conflict as it comes
			require.Zero(t, w.at(got, "m.room.topic", ""))
		}
	})
}

// An event with two power levels events among its auth events, one of them rejected, and with thousands of repetitions.
func TestDuplicateAndOversizedAuthEvents(t *testing.T) {
	eachVersion(t, func(t *testing.T, w *world) {
		s := w.found()
		bad, _ := w.event(s, spec{typ: "m.room.power_levels", sender: "@evil:b", content: `{"users":{"@evil:b":100}}`, rejected: true})
		joined := w.join(s, "@evil:b")
		auth := []int64{w.at(s, "m.room.create", ""), bad, w.at(joined, "m.room.member", "@evil:b")}
		for range 5000 {
			auth = append(auth, bad, w.at(s, "m.room.power_levels", ""))
		}
		nid, ok := w.event(joined, spec{typ: "m.room.topic", sender: "@evil:b", auth: auth})
		require.False(t, ok)
		r := w.resolve(joined.Set(w.key("m.room.topic", ""), nid), w.topic(joined, "@alice:a"))
		require.NotEqual(t, nid, w.at(r.State, "m.room.topic", ""))
		require.Less(t, r.Steps, 5000)
	})
}

// A conflicted non-state event, and a state entry that holds an event of another key.
func TestMalformedStates(t *testing.T) {
	eachVersion(t, func(t *testing.T, w *world) {
		s := w.found()
		m, _ := w.event(s, spec{typ: "m.room.message", sender: "@alice:a", message: true})
		r := w.resolve(s.Set(Key{77, 77}, m), s.Set(Key{78, 78}, w.at(s, "m.room.power_levels", "")))
		require.Equal(t, w.at(s, "m.room.power_levels", ""), w.at(r.State, "m.room.power_levels", ""))
		require.NotEqual(t, m, w.at(r.State, "m.room.message", ""))
	})
}

func TestSourceErrors(t *testing.T) {
	w := newWorld(t, roomver.V11)
	s := w.found()
	_, err := w.graph().Resolve(w, []State{s, s.Set(Key{9, 9}, 424242)})
	var missing *MissingError
	require.ErrorAs(t, err, &missing)
	require.Equal(t, []int64{424242}, missing.NIDs)

	broken := errors.New("no database")
	_, err = w.graph().Resolve(sourceFunc(func([]int64) ([]Entry, error) { return nil, broken }), []State{s, w.topic(s, "@alice:a")})
	require.ErrorIs(t, err, broken)

	_, err = NewGraph(w.rules, w.room, 3).Resolve(w, []State{s, w.topic(s, "@alice:a")})
	require.ErrorIs(t, err, ErrTooManyEvents)

	r, err := w.graph().Resolve(w, nil)
	require.NoError(t, err)
	require.Zero(t, r.State.Len())
}

type sourceFunc func([]int64) ([]Entry, error)

func (f sourceFunc) Load(n []int64) ([]Entry, error) { return f(n) }

// The graph is built once: a second resolution asks for what is new, and a source that returns chains is asked once.
func TestGraphIsKept(t *testing.T) {
	w := newWorld(t, roomver.V11)
	s := w.found()
	for i := range 51 {
		s = w.power(s, "@alice:a", fmt.Sprintf(`"@bob:a":%d`, i))
	}
	g := w.graph()
	w.chains = true
	_, err := g.Resolve(w, []State{s, w.topic(s, "@alice:a")})
	require.NoError(t, err)
	require.Equal(t, 1, w.loads)
	n := g.Len()
	_, err = g.Resolve(w, []State{s, w.topic(s, "@bob:a")})
	require.NoError(t, err)
	require.Equal(t, 2, w.loads)
	require.Equal(t, n+1, g.Len())
}

// More states than fit in one word of a mask.
func TestManyStates(t *testing.T) {
	for _, v := range algorithms {
		w := newWorld(t, v)
		s := w.found()
		var in []State
		for i := range 150 {
			in = append(in, w.join(s, fmt.Sprintf("@u%d:a", i)))
			if i%40 == 7 {
				in = append(in, w.membership(s, "@alice:a", "@bob:a", "ban"), w.power(s, "@bob:a", fmt.Sprintf(`"@bob:a":50,"@x%d:a":1`, i)))
			}
		}
		require.Equal(t, naive{w}.resolve(in), mapOf(w.resolve(in...).State))
	}
}

func mapOf(s State) map[Key]int64 {
	m := map[Key]int64{}
	for k, v := range s.All() {
		m[k] = v
	}
	return m
}
