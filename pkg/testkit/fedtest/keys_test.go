package fedtest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/app"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/testkit/certtest"
	"github.com/heddle-im/heddle/pkg/testkit/fedtest"
)

// upload gives a user's device keys: identity keys, one-time keys from a number on, and perhaps a fallback key.
func upload(t testing.TB, u *fedtest.User, from, oneTime int, fallback bool) {
	t.Helper()
	keys := map[string]any{}
	for i := from; i < from+oneTime; i++ {
		keys[fmt.Sprintf("signed_curve25519:K%03d", i)] = map[string]any{"key": fmt.Sprint("one-time ", i), "signatures": map[string]any{}}
	}
	body := map[string]any{"one_time_keys": keys, "device_keys": map[string]any{
		"user_id": u.User, "device_id": u.Device, "algorithms": []string{"m.olm.v1.curve25519-aes-sha2"},
		"keys": map[string]string{"curve25519:" + u.Device: "aaa", "ed25519:" + u.Device: "bbb"}, "signatures": map[string]any{},
	}}
	if fallback {
		body["fallback_keys"] = map[string]any{"signed_curve25519:FALL": map[string]any{"key": "f", "fallback": true, "signatures": map[string]any{}}}
	}
	u.Must(t, "POST", "/keys/upload", body)
}

// A hundred who claim at once, through two masters of the owner's server and from another server, get fifty one-time keys, each once,
// and then the fallback key.
func TestEachOneTimeKeyOnceAcrossServers(t *testing.T) {
	ca := certtest.NewAuthority(t)
	one, two := fedtest.NewHomeserver(t, ca, "127.0.0.1"), fedtest.Run(t, ca, "localhost")
	var masters []*fedtest.Worker
	for _, name := range []string{"m1", "m2"} {
		masters = append(masters, one.Start(app.Master, name))
	}
	one.Start(app.FederationReader, "f1")
	bob, alice := one.NewUser(t, "bob"), two.NewUser(t, "alice")
	upload(t, bob, 0, 50, true)

	var mu sync.Mutex
	got := map[string]int{}
	var wg sync.WaitGroup
	errs := make(chan error, 100)
	for i := range 100 {
		client := *alice.Client
		if i%2 == 0 {
			client = *bob.Client
			client.URL = masters[i/2%2].URL()
		}
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			var a struct {
				Keys     map[string]map[string]map[string]any `json:"one_time_keys"`
				Failures map[string]any                       `json:"failures"`
			}
			err := client.Do(ctx, "POST", "/keys/claim", map[string]any{
				"one_time_keys": map[string]any{bob.User: map[string]string{bob.Device: "signed_curve25519"}},
			}, &a)
			if err == nil && len(a.Failures) > 0 {
				err = fmt.Errorf("failures: %v", a.Failures)
			}
			if err != nil {
				errs <- err
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for key := range a.Keys[bob.User][bob.Device] {
				got[key]++
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	require.Equal(t, 50, got["signed_curve25519:FALL"])
	delete(got, "signed_curve25519:FALL")
	require.Len(t, got, 50)
	for key, n := range got {
		require.Equal(t, 1, n, key)
	}
}

// A server that shares a room with a user is told the user's devices, and only those that are this server's to tell.
func TestDevicesAreTold(t *testing.T) {
	s := newStage(t)
	s.enter(t, "12", "weaver")
	upload(t, s.alice, 0, 1, false)
	ask := func(user string) (status int, answer map[string]json.RawMessage) {
		status, raw := s.remote.Ask(t, s.home, "GET", fed+"user/devices/"+url.PathEscape(user), nil)
		require.NoError(t, json.Unmarshal(raw, &answer), "%s", raw)
		return status, answer
	}
	status, answer := ask(s.alice.User)
	require.Equal(t, 200, status)
	require.JSONEq(t, encoded(t, s.alice.User), string(answer["user_id"]))
	var stream int64
	require.NoError(t, json.Unmarshal(answer["stream_id"], &stream))
	require.Positive(t, stream)
	var devices []struct {
		ID   string `json:"device_id"`
		Keys struct {
			Keys map[string]string `json:"keys"`
		} `json:"keys"`
	}
	require.NoError(t, json.Unmarshal(answer["devices"], &devices))
	require.Len(t, devices, 1)
	require.Equal(t, s.alice.Device, devices[0].ID)
	require.Equal(t, "bbb", devices[0].Keys.Keys["ed25519:"+s.alice.Device])
	_, answer = ask("@nobody:" + string(s.home.Name))
	require.Equal(t, "[]", string(answer["devices"]))
	for _, not := range []string{"@bob:" + string(fedtest.Nowhere(t)), "nobody"} {
		status, answer = ask(not)
		require.GreaterOrEqual(t, status, 400, not)
		require.Less(t, status, 500, not)
		require.NotContains(t, answer, "devices")
	}
}

// keeper is a user whose client keeps device lists as it is told to: what it has fetched of whom it shares rooms with.
type keeper struct {
	*fedtest.User
	known map[string]string // the name of the user's device, as it was when the keys were fetched
}

// keep syncs, and fetches what is told to have changed.
func (k *keeper) keep(t testing.TB) {
	t.Helper()
	clear(k.Seen.Changed)
	clear(k.Seen.Forgone)
	k.Sync(t, false)
	for u := range k.Seen.Forgone {
		delete(k.known, u)
	}
	ask := map[string]any{}
	for u := range k.Seen.Changed {
		ask[u] = []string{}
	}
	if len(ask) == 0 {
		return
	}
	a := k.Must(t, "POST", "/keys/query", map[string]any{"device_keys": ask})
	require.Empty(t, a["failures"])
	lists, _ := a["device_keys"].(map[string]any)
	for u := range ask {
		devices, _ := lists[u].(map[string]any)
		k.known[u] = ""
		for _, d := range devices {
			unsigned, _ := d.(map[string]any)["unsigned"].(map[string]any)
			k.known[u], _ = unsigned["device_display_name"].(string)
		}
	}
}

// Clients on two servers who keep device lists as they are told to know the present keys of everybody whom they share a room with, and hold on
// to nobody else, whoever comes, goes, comes back and changes the devices meanwhile.
func TestDeviceListsOfTwoServersAgainstModel(t *testing.T) {
	ca := certtest.NewAuthority(t)
	homes := []*fedtest.Homeserver{fedtest.Run(t, ca, "127.0.0.1"), fedtest.Run(t, ca, "localhost")}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	const users, rooms, rounds, steps = 4, 2, 6, 6
	var all []*keeper
	name := map[string]string{} // of each user's device, now
	for i := range users {
		u := homes[i%2].NewUser(t, fmt.Sprint("u", i))
		upload(t, u, 0, 0, false)
		all = append(all, &keeper{u, map[string]string{}})
	}
	rename := func(k *keeper, to string) {
		k.Must(t, "PUT", "/devices/"+url.PathEscape(k.Device), map[string]string{"display_name": to})
		name[k.User.User] = to
	}
	in := map[string]map[string]bool{}
	for i := range rooms {
		room := all[i].Create(t, "11", map[string]any{"preset": "public_chat"})
		in[room] = map[string]bool{all[i].User.User: true}
	}
	list := slices.Sorted(maps.Keys(in))
	for _, k := range all {
		rename(k, "first")
		k.keep(t)
		for _, o := range all { // a new client asks for everybody that it finds in its rooms
			k.known[o.User.User] = ""
		}
		clear(k.known)
	}
	shares := func(a, b *keeper) bool {
		return slices.ContainsFunc(list, func(r string) bool { return in[r][a.User.User] && in[r][b.User.User] })
	}
	wrong := func() string {
		for _, k := range all {
			for _, o := range all {
				if o == k {
					continue
				}
				has, ok := k.known[o.User.User]
				switch share := shares(k, o); {
				case share && !ok:
					return fmt.Sprintf("%s has never heard of %s", k.User.User, o.User.User)
				case share && has != name[o.User.User]:
					return fmt.Sprintf("%s knows %q of %s, who is at %q", k.User.User, has, o.User.User, name[o.User.User])
				case !share && ok:
					return fmt.Sprintf("%s holds on to %s", k.User.User, o.User.User)
				}
			}
		}
		return ""
	}
	said := ""
	t.Cleanup(func() { t.Logf("wrong in the end: %q", said) })
	for round := range rounds {
		for step := range steps {
			k, room := all[rng.IntN(users)], list[rng.IntN(rooms)]
			switch rng.IntN(4) {
			case 0:
				rename(k, fmt.Sprint(round, "/", step))
			case 1, 2:
				if !in[room][k.User.User] && len(in[room]) > 0 {
					k.Join(t, room, homes...)
					in[room][k.User.User] = true
				}
			case 3:
				if in[room][k.User.User] && len(in[room]) > 1 { // a room that all have left is nobody's to come back to
					k.Must(t, "POST", fedtest.RoomPath(room, "leave"), map[string]any{})
					delete(in[room], k.User.User)
				}
			}
			if rng.IntN(3) == 0 {
				all[rng.IntN(users)].keep(t)
			}
		}
		// What is on its way between the servers arrives; then no client may be wrong about anybody.
		require.Eventually(t, func() bool {
			for _, k := range all {
				k.keep(t)
			}
			said = wrong()
			return said == ""
		}, patience, 50*time.Millisecond, "round %d", round)
	}
}

// Who comes back into a room by way of a server that has not heard of the leave comes in anew: the client is told the room, and of whom to ask keys.
func TestComingBackBeforeTheLeaveIsHeardOf(t *testing.T) {
	s := newStage(t)
	s.alice.Sync(t, false)
	for _, version := range []roomver.Version{roomver.V10, roomver.V12} {
		t.Run("version "+string(version), func(t *testing.T) {
			p := s.remote.Host(t, version, "host"+string(version))
			room := string(p.Room)
			p.Tell(t, func(answer map[string]any) {
				e, err := event.Parse(p.Rules, answer["event"].(json.RawMessage))
				if err != nil {
					t.Errorf("what was sent: %v", err)
					return
				}
				p.State = append(p.State, e)
			})
			s.alice.Must(t, "POST", p.JoinVia(), map[string]any{})
			s.alice.Until(t, "the host's keys", func(v *fedtest.Seen) bool { return v.Changed[string(p.User)] })
			s.alice.Must(t, "POST", fedtest.RoomPath(room, "leave"), nil)
			s.alice.Until(t, "nobody", func(v *fedtest.Seen) bool { return v.Forgone[string(p.User)] })
			s.alice.SeesRoom(t, room, "leave")
			clear(s.alice.Seen.Changed)
			clear(s.alice.Seen.Members)
			s.alice.Must(t, "POST", p.JoinVia(), map[string]any{})
			s.alice.Sync(t, false)
			require.Equal(t, "join", s.alice.Seen.Section[room])
			require.True(t, s.alice.Seen.Changed[string(p.User)])
			require.Equal(t, "join", s.alice.Seen.Members[room][string(p.User)], "the state is told, and not only what is new of it")
		})
	}
}
