package stateres

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/heddle-im/heddle/pkg/matrix/eventauth"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
)

var algorithms = []roomver.Version{roomver.V1, roomver.V2, roomver.V6, roomver.V11, roomver.V12}

// history makes a random room: events on random earlier states, some of them merges, by random users, most of them allowed.
func history(t *rapid.T, w *world) []State {
	users := []string{"@alice:a", "@bob:a", "@carol:a", "@dave:b"}
	pick := func(name string) string { return rapid.SampledFrom(users).Draw(t, name) }
	states := []State{w.found()}
	for range rapid.IntRange(2, 25).Draw(t, "events") {
		s := states[rapid.IntRange(max(0, len(states)-5), len(states)-1).Draw(t, "on")]
		if rapid.IntRange(0, 4).Draw(t, "merge") == 0 {
			o := states[rapid.IntRange(0, len(states)-1).Draw(t, "with")]
			var pairs []Pair
			for k, v := range (naive{w}).resolve([]State{s, o}) {
				pairs = append(pairs, Pair{k, v})
			}
			s = NewState(pairs)
		}
		var x spec
		switch rapid.IntRange(0, 7).Draw(t, "kind") {
		case 0, 1:
			u := pick("user")
			x = spec{typ: "m.room.member", sender: u, key: u, content: `{"membership":"join"}`}
		case 2:
			m := rapid.SampledFrom([]string{"leave", "ban", "invite"}).Draw(t, "membership")
			x = spec{typ: "m.room.member", sender: pick("sender"), key: pick("target"), content: `{"membership":"` + m + `"}`}
		case 3, 4:
			levels := ""
			for _, u := range users {
				if rapid.Bool().Draw(t, "listed") && (u != "@alice:a" || !w.rules.PrivilegedCreators) {
					levels += fmt.Sprintf(`,"%s":%d`, u, rapid.SampledFrom([]int{0, 50, 100}).Draw(t, "level"))
				}
			}
			if levels != "" {
				levels = levels[1:]
			}
			x = spec{typ: "m.room.power_levels", sender: pick("sender"), content: `{"users":{` + levels + `}}`}
		case 5:
			rule := rapid.SampledFrom([]string{"public", "invite"}).Draw(t, "rule")
			x = spec{typ: "m.room.join_rules", sender: pick("sender"), content: `{"join_rule":"` + rule + `"}`}
		default:
			x = spec{typ: rapid.SampledFrom([]string{"m.room.topic", "m.room.name"}).Draw(t, "type"), sender: pick("sender")}
		}
		x.at = rapid.Int64Range(1, 20).Draw(t, "ts")
		nid, ok := w.event(s, x)
		if !ok && rapid.IntRange(0, 5).Draw(t, "force") > 0 {
			continue
		}
		if !ok { // a refused event that got into a state: on another server it may have been accepted
			e := w.entries[nid]
			e.Rejected = true
			w.entries[nid] = e
		}
		states = append(states, s.Set(w.key(x.typ, x.key), nid))
	}
	return states
}

// The graph and the text give the same state, whatever the order, the repetitions, and what the graph has seen before.
func TestResolveAgainstText(t *testing.T) {
	for _, v := range algorithms {
		t.Run("v"+string(v), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				w := newWorld(t, v)
				states := history(t, w)
				warm := w.graph()
				for range 3 {
					var in []State
					for range rapid.IntRange(2, 4).Draw(t, "states") {
						in = append(in, states[rapid.IntRange(0, len(states)-1).Draw(t, "state")])
					}
					want := naive{w}.resolve(in)
					got, err := w.graph().Resolve(w, in)
					require.NoError(t, err)
					require.Equal(t, want, maps.Collect(got.State.All()))

					// Order, repetition, and a graph that knows more.
					again := append(slices.Clone(in), in[0], in[len(in)-1])
					slices.Reverse(again)
					w.chains = !w.chains
					other, err := warm.Resolve(w, again)
					require.NoError(t, err)
					require.True(t, same(got.State, other.State))

					// Equal states that were built apart.
					apart := slices.Clone(in)
					for i, s := range apart {
						var pairs []Pair
						for k, v := range s.All() {
							pairs = append(pairs, Pair{k, v})
						}
						apart[i] = NewState(pairs)
					}
					other, err = warm.Resolve(w, append(apart, in...))
					require.NoError(t, err)
					require.True(t, same(got.State, other.State))

					// The result, resolved with itself, is itself.
					other, err = warm.Resolve(w, []State{got.State, got.State})
					require.NoError(t, err)
					require.True(t, same(got.State, other.State))
				}
			})
		})
	}
}

// What a resolution puts into the state in place of the first fork's is an event of the forks or of their auth chains that is
// allowed by its own auth events, with the create event and the unconflicted entries untouched. And the result authorises what was decided
// last: a topic or a name is by somebody whom the resolved state has neither banned nor left without the power for it. (Version 1 lets an
// event stand where none is allowed, and version 12 decides before it looks at what is not in conflict.)
func TestResultIsAuthorised(t *testing.T) {
	for _, v := range algorithms {
		t.Run("v"+string(v), func(t *testing.T) {
			decidedLast := 0
			rapid.Check(t, func(t *rapid.T) {
				w := newWorld(t, v)
				states := history(t, w)
				a, b := states[len(states)-1], states[rapid.IntRange(0, len(states)-1).Draw(t, "other")]
				got := w.resolve(a, b).State
				for k, nid := range got.All() {
					e := w.entries[nid]
					require.Equal(t, k, e.Key)
					x, inA := a.Get(k)
					y, inB := b.Get(k)
					if inA && inB && x == y {
						require.Equal(t, x, nid)
						continue
					}
					var st eventauth.AuthState
					if w.rules.RoomIDIsHash {
						st.Create = w.entries[w.at(got, "m.room.create", "")].Event.Create()
					}
					if !e.Rejected {
						for _, n := range e.Auth {
							st.Put(e.Event, w.entries[n].Event)
						}
						require.Equal(t, eventauth.Allowed, eventauth.Decide(w.rules, e.Event, &st))
					}
					if typ := e.Event.Type; w.rules.StateRes != roomver.StateResV2 || typ != "m.room.topic" && typ != "m.room.name" {
						continue
					}
					power, sender := w.entries[w.at(got, "m.room.power_levels", "")], w.entries[w.at(got, "m.room.member", string(e.Event.Sender))]
					if power.Event == nil || sender.Event == nil || power.Rejected || sender.Rejected {
						continue
					}
					decidedLast++
					st = eventauth.AuthState{Create: st.Create, Sender: eventauth.MembershipJoin}
					st.Put(e.Event, w.entries[w.at(got, "m.room.create", "")].Event)
					st.Put(e.Event, power.Event)
					if sender.Event.Membership == eventauth.MembershipBan { // whoever left by themselves may have done so later
						st.Put(e.Event, sender.Event)
					}
					require.Equal(t, eventauth.Allowed, eventauth.Decide(w.rules, e.Event, &st), "%s by %s", e.Event.Type, e.Event.Sender)
				}
			})
			if roomver.MustGet(v).StateRes == roomver.StateResV2 {
				require.Positive(t, decidedLast)
			}
		})
	}
}

func eachVersion(t *testing.T, f func(t *testing.T, w *world)) {
	for _, r := range roomver.All() {
		t.Run("v"+string(r.Version), func(t *testing.T) { f(t, newWorld(t, r.Version)) })
	}
}

// The specification's example of a soft failure: B bans X, C is a topic by X beside it. "In the original version of the
// algorithm C would be in the resolved state, whereas in latter versions the algorithm tries to prioritise the ban."
func TestSpecBanAndTopic(t *testing.T) {
	eachVersion(t, func(t *testing.T, w *world) {
		a := w.found()
		b := w.membership(a, "@alice:a", "@bob:a", "ban")
		c := w.topic(a, "@bob:a")
		d := w.resolve(b, c).State
		require.Equal(t, eventauth.MembershipBan, w.memberOf(d, "@bob:a"))
		want := int64(0)
		if w.rules.StateRes == roomver.StateResV1 {
			want = w.at(c, "m.room.topic", "")
		}
		require.Equal(t, want, w.at(d, "m.room.topic", ""))
	})
}
