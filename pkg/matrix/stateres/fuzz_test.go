package stateres

import (
	"maps"
	"testing"

	"github.com/stretchr/testify/require"
)

// Rooms made of anything: the bytes choose events, whom they cite (themselves, the future, other rooms), and in which states
// they stand. No panic, work in proportion, and the same result whatever the order of the states and the graph's history.
func FuzzResolve(f *testing.F) {
	f.Add(uint8(0), []byte("0123456789abcdefghijklmnopqrstuvwxyz"))
	f.Add(uint8(1), []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31})
	f.Add(uint8(4), []byte("\xff\xfe\xfd\xfc\x00\x00\x00\x00circles and other rooms\xff\xff\xff\x01\x02\x03"))
	f.Add(uint8(3), []byte{3, 250, 4, 250, 5, 250, 6, 250, 7, 250, 8, 9, 9, 9, 9, 1, 1, 1, 1, 2, 2, 2})
	f.Fuzz(func(t *testing.T, version uint8, data []byte) {
		if len(data) > 400 {
			return
		}
		w := newWorld(t, algorithms[int(version)%len(algorithms)])
		s := w.found()
		next := func() byte {
			if len(data) == 0 {
				return 0
			}
			b := data[0]
			data = data[1:]
			return b
		}
		users := []string{"@alice:a", "@bob:a", "@carol:b", "not a user"}
		states := []State{s, s, s}
		first := w.next
		for len(data) > 0 {
			x := spec{sender: users[next()%4], at: int64(next() % 4)}
			target := users[next()%4]
			switch next() % 8 {
			case 0:
				x.typ, x.content = "m.room.power_levels", `{"users":{"@bob:a":100,"@carol:b":"50"}}`
			case 1:
				x.typ, x.content = "m.room.power_levels", `{"users":{"@carol:b":50}}`
			case 2:
				x.typ, x.content = "m.room.join_rules", `{"join_rule":"invite"}`
			case 3:
				x.typ, x.key, x.content = "m.room.member", target, `{"membership":"ban"}`
			case 4:
				x.typ, x.key, x.content = "m.room.member", x.sender, `{"membership":"join"}`
			case 5:
				x.typ, x.key, x.content = "m.room.member", target, `{"membership":"leave"}`
			case 6:
				x.typ, x.message = "m.room.create", target == "not a user"
			default:
				x.typ = "m.room.topic"
			}
			for range next() % 6 {
				x.auth = append(x.auth, first-4+int64(next()%24)) // perhaps itself, perhaps one that comes later or never
			}
			if next()%16 == 0 {
				x.room = "!elsewhere:a"
			}
			x.rejected = next()%8 == 0
			nid, _ := w.event(s, x)
			into := next()
			for i := range states {
				if into&(1<<i) != 0 {
					states[i] = states[i].Set(w.key(x.typ, x.key), nid)
				}
			}
			if into&8 != 0 {
				states[int(into)%3] = states[int(into)%3].Set(Key{int64(into), 1}, nid)
			}
		}
		for nid, e := range w.entries { // what is cited and missing is not the matter here
			var known []int64
			for _, a := range e.Auth {
				if _, ok := w.entries[a]; ok {
					known = append(known, a)
				}
			}
			e.Auth = known
			w.entries[nid] = e
		}
		got := w.resolve(states...)
		require.Less(t, got.Steps, 3000*(len(w.entries)+20))
		g := w.graph()
		w.chains = true
		_, err := g.Resolve(w, states[1:])
		require.NoError(t, err)
		other, err := g.Resolve(w, []State{states[2], states[0], states[1], states[0]})
		require.NoError(t, err)
		require.Equal(t, maps.Collect(got.State.All()), maps.Collect(other.State.All()))
		again, err := g.Resolve(w, []State{got.State, other.State})
		require.NoError(t, err)
		require.True(t, same(got.State, again.State))
	})
}
