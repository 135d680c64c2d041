package stateres

import (
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func collect(s State) []Pair {
	var out []Pair
	for k, e := range s.All() {
		out = append(out, Pair{k, e})
	}
	return out
}

func modelPairs(m map[Key]int64) []Pair {
	var out []Pair
	for k, e := range m {
		out = append(out, Pair{k, e})
	}
	slices.SortFunc(out, func(a, b Pair) int { return a.Compare(b.Key) })
	return out
}

func drawKey(t *rapid.T) Key {
	return Key{rapid.Int64Range(1, 4).Draw(t, "type"), rapid.Int64Range(1, 300).Draw(t, "key")}
}

// The map against Go's own, with every version kept and checked again at the end: no change reaches an older version.
func TestStateModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type version struct {
			s State
			m map[Key]int64
		}
		versions := []version{{State{}, map[Key]int64{}}}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			from := versions[rapid.IntRange(0, len(versions)-1).Draw(t, "from")]
			m := maps.Clone(from.m)
			s := from.s
			switch rapid.IntRange(0, 3).Draw(t, "op") {
			case 0:
				k, e := drawKey(t), rapid.Int64Range(1, 9).Draw(t, "event")
				s, m[k] = s.Set(k, e), e
			case 1:
				k := drawKey(t)
				s = s.Delete(k)
				delete(m, k)
			default:
				var ch []Pair
				for range rapid.IntRange(0, 200).Draw(t, "n") {
					ch = append(ch, Pair{drawKey(t), rapid.Int64Range(0, 9).Draw(t, "event")})
				}
				s = s.Apply(ch)
				for _, c := range ch {
					if m[c.Key] = c.Event; c.Event == 0 {
						delete(m, c.Key)
					}
				}
			}
			versions = append(versions, version{s, m})
		}
		for _, v := range versions {
			require.Equal(t, modelPairs(v.m), collect(v.s))
			require.Equal(t, len(v.m), v.s.Len())
			k := drawKey(t)
			e, ok := v.s.Get(k)
			want, wantOK := v.m[k]
			require.Equal(t, want, e)
			require.Equal(t, wantOK, ok)
			var ofType []Pair
			for k, e := range v.s.OfType(2) {
				ofType = append(ofType, Pair{k, e})
			}
			want2 := slices.DeleteFunc(modelPairs(v.m), func(p Pair) bool { return p.Type != 2 })
			require.True(t, slices.Equal(want2, ofType), "%v %v", want2, ofType)
		}
		a := versions[rapid.IntRange(0, len(versions)-1).Draw(t, "a")]
		b := versions[rapid.IntRange(0, len(versions)-1).Draw(t, "b")]
		type change struct{ a, b int64 }
		got, want := map[Key]change{}, map[Key]change{}
		var order []Key
		Diff(a.s, b.s, func(k Key, x, y int64) { got[k] = change{x, y}; order = append(order, k) })
		for k, e := range a.m {
			if b.m[k] != e {
				want[k] = change{e, b.m[k]}
			}
		}
		for k, e := range b.m {
			if a.m[k] != e {
				want[k] = change{a.m[k], e}
			}
		}
		require.Equal(t, want, got)
		require.True(t, slices.IsSortedFunc(order, Key.Compare))
		require.Len(t, order, len(want))
	})
}

func bigState(n int) State {
	pairs := make([]Pair, n)
	for i := range pairs {
		pairs[i] = Pair{Key{7, int64(i + 1)}, int64(i + 1_000_000)}
	}
	return NewState(pairs)
}

// A difference between forks visits what differs and not what is shared.
func TestDiffIsCheapWhenShared(t *testing.T) {
	s := bigState(50_000)
	f := s
	for i := range 20 {
		f = f.Set(Key{7, int64(i*2000 + 1)}, 5)
	}
	f = f.Set(Key{8, 1}, 5).Set(Key{1, 1}, 5)
	n := 0
	Diff(s, f, func(Key, int64, int64) { n++ })
	require.Equal(t, 22, n)
	allocs := testing.AllocsPerRun(10, func() { Diff(s, f, func(Key, int64, int64) {}) })
	require.Zero(t, allocs)

	// Count leaves touched through a cursor pair, as Diff does it.
	var x, y cursor
	x.open(s.root)
	y.open(f.root)
	steps := 0
	for x.depth > 0 && y.depth > 0 {
		steps++
		if skipShared(&x, &y) {
			continue
		}
		p, q := x.pair(), y.pair()
		c := p.Compare(q.Key)
		if c <= 0 {
			x.next()
		}
		if c >= 0 {
			y.next()
		}
	}
	require.Less(t, steps, 22*5*maxFan)
}

func heapOf(build func() any) uint64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&before)
	v := build()
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(v)
	return after.HeapAlloc - before.HeapAlloc
}

func TestStateMemory(t *testing.T) {
	const n = 50_000
	bulk := float64(heapOf(func() any { return bigState(n) })) / n
	random := float64(heapOf(func() any {
		r := rand.New(rand.NewPCG(1, 2))
		var s State
		for _, i := range r.Perm(n) {
			s = s.Set(Key{7, int64(i + 1)}, int64(i+1))
		}
		return s
	})) / n
	t.Logf("bytes an entry: built in bulk %.1f, after random insertion %.1f", bulk, random)
	require.Less(t, bulk, 32.0)
	require.Less(t, random, 48.0)

	// A thousand versions, each one change on from the last, share almost everything.
	s := bigState(n)
	per := float64(heapOf(func() any {
		versions := make([]State, 1000)
		for i := range versions {
			s = s.Set(Key{7, int64(i*37%n + 1)}, int64(i+2_000_000))
			versions[i] = s
		}
		return versions
	})) / 1000
	t.Logf("bytes for a version with one change: %.0f", per)
	require.Less(t, per, 5000.0)
}

func BenchmarkStateSet(b *testing.B) {
	s := bigState(50_000)
	b.ReportAllocs()
	i := int64(0)
	for b.Loop() {
		i++
		s = s.Set(Key{7, i*7919%50_000 + 1}, i)
	}
}

func BenchmarkStateGet(b *testing.B) {
	s := bigState(50_000)
	b.ReportAllocs()
	i := int64(0)
	for b.Loop() {
		i++
		s.Get(Key{7, i*7919%50_000 + 1})
	}
}

func BenchmarkStateDiff(b *testing.B) {
	s := bigState(50_000)
	f := s
	for i := range 20 {
		f = f.Set(Key{7, int64(i*2000 + 1)}, 5)
	}
	b.ReportAllocs()
	for b.Loop() {
		Diff(s, f, func(Key, int64, int64) {})
	}
}

func BenchmarkStateBuild(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		bigState(50_000)
	}
}
