package fedtest_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/app"
	"github.com/heddle-im/heddle/pkg/testkit/certtest"
	"github.com/heddle-im/heddle/pkg/testkit/fedtest"
)

// triangle is three homeservers of which the first and the third cannot reach each other, neither way, and so know of each other only what the
// second tells.
func triangle(t *testing.T) (alice, bob, carol *fedtest.User) {
	t.Helper()
	ca := certtest.NewAuthority(t)
	one, two, three := fedtest.NewHomeserver(t, ca, "127.0.0.1"), fedtest.Run(t, ca, "127.0.0.2"), fedtest.NewHomeserver(t, ca, "127.0.0.3")
	for _, h := range []*fedtest.Homeserver{one, three} {
		own, _ := netip.ParseAddrPort(string(h.Name))
		h.Config.Federation.AllowNetworks = []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32"), netip.PrefixFrom(own.Addr(), 32)}
		h.Config.Federation.KeyServers = []string{string(two.Name)}
		h.Start(app.AllInOne, "one")
	}
	return one.NewUser(t, "alice"), two.NewUser(t, "bob"), three.NewUser(t, "carol")
}

// Two servers that never reach each other share a room by way of a third: the one comes in through the second candidate, each has what the
// other says by asking the third for what is missing (few events: get_missing_events; many: the state there, and the rest when somebody reads
// back), and in the end all three have the same.
func TestByWayOfAThird(t *testing.T) {
	alice, bob, carol := triangle(t)
	for _, v := range versions {
		t.Run("version "+string(v), func(t *testing.T) {
			room := alice.Create(t, string(v), map[string]any{"preset": "public_chat"})
			bob.Join(t, room, alice.Home)
			alice.SeesMember(t, room, bob, "join")
			bob.SeesRoom(t, room, "join")
			levels := alice.Must(t, "GET", fedtest.RoomPath(room, "state", "m.room.power_levels", ""), nil)
			levels["state_default"], levels["events"] = 0, map[string]any{}
			levels["users"].(map[string]any)[carol.User] = 50
			bob.Sees(t, room, alice.Set(t, room, "m.room.power_levels", "", levels))
			carol.Join(t, room, alice.Home, bob.Home) // the first of them is nowhere
			bob.SeesMember(t, room, carol, "join")
			carol.SeesRoom(t, room, "join")
			// The first hears of the third's coming by the second's next word.
			heard := bob.Say(t, room, "somebody came")
			alice.Sees(t, room, heard)
			alice.SeesMember(t, room, carol, "join")
			carol.Sees(t, room, heard)
			require.Equal(t, alice.State(t, room), carol.State(t, room))

			for i, p := range [][2]*fedtest.User{{alice, carol}, {carol, alice}} {
				from, to := p[0], p[1]
				few := []string{from.Say(t, room, "warp"), from.Set(t, room, "m.room.topic", "", map[string]any{"topic": fmt.Sprint("pattern ", i)})}
				bob.Sees(t, room, few...)
				to.Sees(t, room, append(few, bob.Say(t, room, "I pass it on"))...)

				var many []string
				for n := range 50 { // more than is asked for at once
					switch n {
					case 10:
						many = append(many, from.Set(t, room, "m.room.name", "", map[string]any{"name": fmt.Sprint("the loom ", i)}))
					case 20:
						from.Must(t, "POST", fedtest.RoomPath(room, "ban"), map[string]any{"user_id": fmt.Sprintf("@moth%d:%s", i, from.Home.Name)})
					case 30:
						guest := from.Home.NewUser(t, fmt.Sprint("guest", i, "v", v))
						guest.Join(t, room)
					}
					many = append(many, from.Say(t, room, fmt.Sprint("row ", n)))
				}
				bob.Sees(t, room, many...)
				last := bob.Say(t, room, "and all of that")
				to.Sees(t, room, last)
				require.Equal(t, from.State(t, room), to.State(t, room))
				read := history(t, to, room, 20)
				slices.Reverse(read)
				begin := slices.Index(read, many[0])
				require.GreaterOrEqual(t, begin, 0, "what was missed can be read back")
				require.Equal(t, many, only(read[begin:], many), "each once, in the order in which it was said")
				from.Sees(t, room, last)
			}
			for _, u := range []*fedtest.User{alice, bob, carol} {
				history(t, u, room, 100) // what is missing is fetched
			}
			fedtest.Agree(t, room, alice, bob, carol)
		})
	}
}

// only gives those of a list that are among others.
func only(list, among []string) (out []string) {
	for _, e := range list {
		if slices.Contains(among, e) {
			out = append(out, e)
		}
	}
	return out
}
