package stateres

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/roomver"
)

// attacks are rooms of size n whose forks are meant to be dear to resolve.
var attacks = []struct {
	name  string
	build func(w *world, n int) []State
}{
	{"deep chains of power levels", func(w *world, n int) []State {
		s := w.found()
		a, b := s, s
		for i := range n / 2 {
			a = w.power(a, "@alice:a", fmt.Sprintf(`"@bob:a":50,"@x:a":%d`, i%50))
			b = w.power(b, "@bob:a", fmt.Sprintf(`"@bob:a":50,"@y:a":%d`, i%50))
		}
		return []State{a, b}
	}},
	{"conflicted bans", func(w *world, n int) []State {
		s := w.found()
		a, b := s, s
		for i := range n / 2 {
			u := fmt.Sprintf("@u%d:b", i)
			a = w.membership(a, "@alice:a", u, "ban")
			b = w.membership(b, "@bob:a", u, "ban")
		}
		return []State{a, b}
	}},
	{"power levels side by side", func(w *world, n int) []State {
		s := w.found()
		k := w.key("m.room.power_levels", "")
		var states []State
		for i := range n {
			nid, _ := w.event(s, spec{typ: "m.room.power_levels", sender: "@bob:a", content: fmt.Sprintf(`{"users":{"@bob:a":50,"@z%d:a":1}}`, i), at: int64(n - i)})
			f := s.Set(k, nid)
			if len(states) < 20 {
				states = append(states, f)
				continue
			}
			// Further ones are reached through members that rest on them.
			u := fmt.Sprintf("@v%d:b", i)
			m, _ := w.event(f, spec{typ: "m.room.member", sender: u, key: u, content: `{"membership":"join"}`})
			states[i%20] = states[i%20].Set(w.key("m.room.member", u), m)
		}
		return states
	}},
	{"kicks and joins in turn", func(w *world, n int) []State {
		s := w.found()
		a, b := s, s
		for i := range n / 4 {
			u := fmt.Sprintf("@u%d:b", i%7)
			a = w.membership(w.join(a, u), "@alice:a", u, "leave")
			b = w.membership(w.join(b, u), "@bob:a", u, "leave")
		}
		return []State{a, b}
	}},
	{"join rules on ever newer power levels", func(w *world, n int) []State {
		s := w.found()
		a, b := s, s
		for i := range n / 3 {
			a = w.power(a, "@alice:a", fmt.Sprintf(`"@bob:a":50,"@x:a":%d`, i%50))
			a = w.joinRule(a, "@bob:a", "public")
			b = w.topic(b, "@bob:a")
		}
		return []State{a, b}
	}},
}

// The steps that a resolution takes grow no faster than n log n, whatever the shape: doubling n may not much more than double
// them. Steps count visits to events, edges and comparisons, so that the machine's mood does not matter.
func TestStepsGrowth(t *testing.T) {
	for _, v := range []roomver.Version{roomver.V1, roomver.V11, roomver.V12} {
		for _, attack := range attacks {
			var steps []int
			for _, n := range []int{500, 1000, 2000, 4000} {
				w := newWorld(t, v)
				w.chains = true
				r := w.resolve(attack.build(w, n)...)
				require.Less(t, r.Steps, 200*(n+10), "%s in version %s", attack.name, v)
				steps = append(steps, r.Steps)
			}
			for i := 1; i < len(steps); i++ {
				require.Less(t, float64(steps[i])/float64(steps[i-1]), 2.35, "%s in version %s: %v", attack.name, v, steps)
			}
			t.Logf("v%s %s: %v", v, attack.name, steps)
		}
	}
}

// A chain far deeper than any stack would bear.
func TestAbsurdlyLongChain(t *testing.T) {
	for _, v := range []roomver.Version{roomver.V1, roomver.V2, roomver.V12} {
		w := newWorld(t, v)
		w.chains = true
		s := w.found()
		const n = 200_000
		prev := w.at(s, "m.room.power_levels", "")
		model := w.entries[prev]
		for i := range int64(n) {
			e := model
			e.NID = 10_000 + i
			e.Auth = []int64{w.at(s, "m.room.create", ""), prev, w.at(s, "m.room.member", "@alice:a")}
			e.Time = i
			w.entries[e.NID] = e
			prev = e.NID
		}
		g := w.graph()
		r, err := g.Resolve(w, []State{s, s.Set(w.key("m.room.power_levels", ""), prev)})
		require.NoError(t, err)
		require.Greater(t, g.Len(), n)
		require.Equal(t, prev, w.at(r.State, "m.room.power_levels", ""))
		require.Less(t, r.Steps, 100*n)
	}
}

// bigRoom is a room with n members, as a state.
func bigRoom(w *world, n int) State {
	s := w.found()
	pairs := make([]Pair, 0, n)
	for i := range n {
		u := fmt.Sprintf("@user%06d:server%d.example", i, i%500)
		nid, _ := w.event(s, spec{typ: "m.room.member", sender: u, key: u, content: `{"membership":"join"}`})
		pairs = append(pairs, Pair{w.key("m.room.member", u), nid})
	}
	return s.Apply(pairs)
}

// benchmarkResolve resolves again and again in a graph that is warm. With apart, each time from a state that shares nothing with
// the one before.
func benchmarkResolve(b *testing.B, v roomver.Version, apart bool, build func(w *world) []State) {
	w := newWorld(b, v)
	w.chains = true
	states := build(w)
	g := w.graph()
	if _, err := g.Resolve(w, states); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		g.trails = [2]*trail{} // to find it all anew
		if apart {
			g.base = base{}
		}
		r, err := g.Resolve(w, states)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(r.Conflicted), "conflicts")
	}
}

// twoForks is a room of n members of which each fork sees something else: a topic here, join rules there, ten joins each.
func twoForks(w *world, n int) []State {
	s := bigRoom(w, n)
	a, b := w.topic(s, "@alice:a"), w.joinRule(s, "@alice:a", "public")
	for i := range 10 {
		a = w.join(a, fmt.Sprintf("@a%d:a", i))
		b = w.join(b, fmt.Sprintf("@b%d:b", i))
	}
	return []State{a, b}
}

// halfMissing is the same, and the second fork lacks every other member.
func halfMissing(w *world, n int) []State {
	f := twoForks(w, n)
	var gone []Pair
	i := 0
	for k := range f[1].OfType(number(w.types, "m.room.member")) {
		if i++; i > 2 && i%2 == 0 {
			gone = append(gone, Pair{Key: k})
		}
	}
	return []State{f[0], f[1].Apply(gone)}
}

// withBans is the same, and the first fork has banned k members whom the second has not.
func withBans(w *world, n, k int) []State {
	f := twoForks(w, n)
	var bans []Pair
	for i := range k {
		u := fmt.Sprintf("@user%06d:server%d.example", i, i%500)
		nid, _ := w.event(f[0], spec{typ: "m.room.member", sender: "@alice:a", key: u, content: `{"membership":"ban"}`})
		bans = append(bans, Pair{w.key("m.room.member", u), nid})
	}
	return []State{f[0].Apply(bans), f[1]}
}

func BenchmarkResolve(b *testing.B) {
	for _, v := range []roomver.Version{roomver.V11, roomver.V12} {
		for _, n := range []int{10_000, 50_000} {
			b.Run(fmt.Sprintf("v%s/%d", v, n), func(b *testing.B) {
				benchmarkResolve(b, v, false, func(w *world) []State { return twoForks(w, n) })
			})
			b.Run(fmt.Sprintf("v%s/%d-half-missing", v, n), func(b *testing.B) {
				benchmarkResolve(b, v, false, func(w *world) []State { return halfMissing(w, n) })
			})
		}
		b.Run(fmt.Sprintf("v%s/50000-apart", v), func(b *testing.B) {
			benchmarkResolve(b, v, true, func(w *world) []State { return twoForks(w, 50_000) })
		})
		b.Run(fmt.Sprintf("v%s/50000-5000-bans", v), func(b *testing.B) {
			benchmarkResolve(b, v, false, func(w *world) []State { return withBans(w, 50_000, 5000) })
		})
	}
}

// A fork that stays open: one side says something, again and again.
func BenchmarkFollow(b *testing.B) {
	for _, v := range []roomver.Version{roomver.V11, roomver.V12} {
		for _, n := range []int{10_000, 50_000} {
			b.Run(fmt.Sprintf("v%s/%d", v, n), func(b *testing.B) {
				w := newWorld(b, v)
				w.chains = true
				f := twoForks(w, n)
				turns := [2]State{w.topic(f[0], "@alice:a"), w.topic(f[0], "@bob:a")}
				g := w.graph()
				i := 0
				for b.Loop() {
					if _, err := g.Resolve(w, []State{turns[i%2], f[1]}); err != nil {
						b.Fatal(err)
					}
					i++
				}
			})
		}
	}
}

// A fork that stays open while one side bans one member after the other: the time of a ban, over all of them.
func BenchmarkFollowBans(b *testing.B) {
	for _, v := range []roomver.Version{roomver.V11, roomver.V12} {
		for _, bans := range []int{500, 1000, 2000} {
			b.Run(fmt.Sprintf("v%s/%d", v, bans), func(b *testing.B) {
				w := newWorld(b, v)
				w.chains = true
				f := twoForks(w, 10_000)
				states := make([]State, bans)
				for i := range states {
					f[0] = w.membership(f[0], "@alice:a", fmt.Sprintf("@user%06d:server%d.example", i, i%500), "ban")
					states[i] = f[0]
				}
				for b.Loop() {
					g := w.graph()
					for _, s := range states {
						if _, err := g.Resolve(w, []State{s, f[1]}); err != nil {
							b.Fatal(err)
						}
					}
				}
				b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*bans), "µs/ban")
			})
		}
	}
}

func BenchmarkAttack(b *testing.B) {
	for _, v := range []roomver.Version{roomver.V1, roomver.V11, roomver.V12} {
		for _, attack := range attacks {
			for _, n := range []int{2000, 4000, 8000} {
				b.Run(fmt.Sprintf("v%s/%s/%d", v, attack.name, n), func(b *testing.B) {
					benchmarkResolve(b, v, false, func(w *world) []State { return attack.build(w, n) })
				})
			}
		}
	}
}

// What a graph holds beyond the reduced events, which it shares with whoever else keeps them: after one resolution, and once changes are
// followed.
func TestGraphMemory(t *testing.T) {
	const n = 50_000
	w := newWorld(t, roomver.V12)
	states := twoForks(w, n)
	again := []State{w.topic(states[0], "@bob:a"), states[1]}
	for turns, most := range []float64{300, 350} {
		per := float64(heapOf(func() any {
			g := w.graph()
			_, err := g.Resolve(w, states)
			require.NoError(t, err)
			if turns > 0 {
				_, err = g.Resolve(w, again)
				require.NoError(t, err)
				require.True(t, g.trails[0].known)
			}
			return g
		})) / n
		runtime.KeepAlive(w)
		t.Logf("bytes an event: %.0f", per)
		require.Less(t, per, most)
	}
}

// The graph of a room of 50,000 members, from nothing.
func BenchmarkGraphBuild(b *testing.B) {
	w := newWorld(b, roomver.V11)
	states := twoForks(w, 50_000)
	all := make([]Entry, 0, len(w.entries))
	for _, e := range w.entries {
		all = append(all, e)
	}
	src := sourceFunc(func([]int64) ([]Entry, error) { return all, nil })
	b.ReportAllocs()
	var nids []int64
	for _, n := range states[0].All() {
		nids = append(nids, n)
	}
	for b.Loop() {
		g := w.graph()
		if err := g.ensure(src, nids); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(all)), "ns/event")
}
