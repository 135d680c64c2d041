package stateres

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/heddle-im/heddle/pkg/matrix/roomver"
)

// Whatever becomes of the states of a fork, one after the other, a graph that follows the changes gives what one gives that finds it all anew.
func TestChangesAreFollowed(t *testing.T) {
	for _, v := range algorithms {
		t.Run("v"+string(v), func(t *testing.T) {
			followed, all, purges, purged := 0, 0, 0, 0
			rapid.Check(t, func(t *rapid.T) {
				w := newWorld(t, v)
				w.chains = rapid.Bool().Draw(t, "chains")
				users := []string{"@alice:a", "@bob:a", "@carol:a", "@dave:b", "@erin:c"}
				pick := func(name string) string { return rapid.SampledFrom(users).Draw(t, name) }
				states := make([]State, rapid.IntRange(2, 4).Draw(t, "states"))
				states[0] = w.found()
				for i := range states {
					states[i] = states[0]
				}
				g := w.graph()
				rare := rapid.IntRange(0, 3).Draw(t, "rare")
				purge := rapid.IntRange(0, 3).Draw(t, "purge") == 0 // hardly anything but kicks and bans
				for range rapid.IntRange(2, 40).Draw(t, "steps") {
					i := rapid.IntRange(0, len(states)-1).Draw(t, "of")
					changes, power := 1, false
					if rapid.IntRange(0, 4).Draw(t, "several") == 0 {
						changes = 3
					}
					for range changes {
						var x spec
						kind := rapid.IntRange(0, 12).Draw(t, "kind")
						if kind < 4 && rapid.IntRange(0, rare).Draw(t, "again") > 0 {
							kind += 4
						}
						if purge && rapid.IntRange(0, 3).Draw(t, "another") > 0 {
							kind = 0
						}
						switch kind {
						case 0:
							m := rapid.SampledFrom([]string{"leave", "ban"}).Draw(t, "membership")
							x = spec{typ: "m.room.member", sender: pick("sender"), key: pick("target"), content: `{"membership":"` + m + `"}`}
						case 1:
							u := rapid.SampledFrom(users[1:]).Draw(t, "powerful")
							x = spec{typ: "m.room.power_levels", sender: pick("sender"), content: fmt.Sprintf(`{"users":{%q:50}}`, u)}
						case 2:
							rule := rapid.SampledFrom([]string{"public", "invite"}).Draw(t, "rule")
							x = spec{typ: "m.room.join_rules", sender: pick("sender"), content: `{"join_rule":"` + rule + `"}`}
						case 3: // as it is elsewhere, or was never
							k := w.key("m.room.member", pick("target"))
							n, _ := states[rapid.IntRange(0, len(states)-1).Draw(t, "from")].Get(k)
							states[i] = states[i].Set(k, n)
							continue
						case 4, 5, 6:
							u := pick("user")
							x = spec{typ: "m.room.member", sender: u, key: u, content: `{"membership":"join"}`}
							if rapid.Bool().Draw(t, "restricted") {
								x.content = `{"membership":"join","join_authorised_via_users_server":"` + pick("via") + `"}`
							}
						case 7:
							u := pick("user")
							x = spec{typ: "m.room.member", sender: u, key: u, content: `{"membership":"leave"}`}
						case 8:
							x = spec{typ: "m.room.member", sender: pick("sender"), key: pick("target"), content: `{"membership":"invite"}`}
						default:
							x = spec{typ: rapid.SampledFrom([]string{"m.room.topic", "m.room.name"}).Draw(t, "type"), sender: pick("sender")}
						}
						x.at = rapid.Int64Range(1, 20).Draw(t, "ts")
						nid, ok := w.event(states[i], x)
						if !ok && rapid.IntRange(0, 3).Draw(t, "force") > 0 {
							continue
						}
						if rapid.IntRange(0, 7).Draw(t, "cites less") == 0 {
							e := w.entries[nid]
							if n := len(e.Auth); n > 0 {
								i := rapid.IntRange(0, n-1).Draw(t, "lacks")
								e.Auth = slices.Delete(slices.Clone(e.Auth), i, i+1)
							}
							w.entries[nid] = e
						}
						if !ok && rapid.Bool().Draw(t, "refused") {
							e := w.entries[nid]
							e.Rejected = true
							w.entries[nid] = e
						}
						states[i] = states[i].Set(w.key(x.typ, x.key), nid)
						power = power || kind == 0 && x.sender != x.key
					}
					if len(states) > 2 && rapid.IntRange(0, 3).Draw(t, "fewer") == 0 { // as an event does that joins some of them
						some := states[:2]
						got, err := g.Resolve(w, some)
						require.NoError(t, err)
						require.True(t, same(w.resolve(some...).State, got.State))
					}
					had, size := g.trails, g.Len()
					got, err := g.Resolve(w, states)
					require.NoError(t, err)
					all++
					if g.trails[0] != nil && slices.Contains(had[:], g.trails[0]) && g.Len() > size {
						followed++
						if power {
							purged++
						}
					}
					if power {
						purges++
					}
					want := w.resolve(states...)
					require.Equal(t, maps.Collect(want.State.All()), maps.Collect(got.State.All()))
					require.Equal(t, [3]int{want.Conflicted, want.Full, want.Power}, [3]int{got.Conflicted, got.Full, got.Power})
				}
			})
			t.Logf("followed %d of %d, with a kick or a ban %d of %d", followed, all, purged, purges)
			if roomver.MustGet(v).StateRes != roomver.StateResV1 {
				require.Greater(t, followed, all/4)
				require.Greater(t, purged, purges/5)
			}
		})
	}
}
