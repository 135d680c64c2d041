package msync_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/e2ee"
	"github.com/heddle-im/heddle/pkg/service/msync"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/shardlog/token"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// encrypted is what an answer says of devices and keys.
type encrypted struct {
	Next     string `json:"next_batch"`
	ToDevice struct {
		Events []struct {
			Type    string `json:"type"`
			Sender  string `json:"sender"`
			Content struct {
				N int `json:"n"`
			} `json:"content"`
		} `json:"events"`
	} `json:"to_device"`
	Lists struct {
		Changed []string `json:"changed"`
		Left    []string `json:"left"`
	} `json:"device_lists"`
	Counts map[string]int `json:"device_one_time_keys_count"`
	Unused []string       `json:"device_unused_fallback_key_types"`
}

func (e encrypted) numbers() (out []int) {
	for _, m := range e.ToDevice.Events {
		out = append(out, m.Content.N)
	}
	return out
}

func (w *worker) devices(t testing.TB, q msync.Request) encrypted {
	t.Helper()
	b, err := w.Sync(t.Context(), q)
	require.NoError(t, err)
	var a encrypted
	require.NoError(t, json.Unmarshal(b, &a), "%s", b)
	return a
}

// people are users with devices.
type people struct {
	*roomtest.World
	accounts *account.Front
	front    *e2ee.Front
}

func newPeople(t *testing.T) *people {
	w := roomtest.New(t)
	p := &people{World: w, accounts: w.Accounts(account.Config{})}
	p.front, _ = w.E2EE()
	return p
}

func (p *people) user(name string, devices ...string) id.UserID {
	p.T.Helper()
	u := roomtest.User(name)
	_, err := p.accounts.Register(p.Ctx(), account.NewUser{Localpart: name, Password: "secret", InhibitLogin: true})
	require.NoError(p.T, err)
	for _, d := range devices {
		p.login(u, d)
	}
	return u
}

func (p *people) login(u id.UserID, device string) {
	p.T.Helper()
	_, err := p.accounts.LoginPassword(p.Ctx(), string(u), "secret", account.NewDevice{DeviceID: device})
	require.NoError(p.T, err)
}

func (p *people) logout(u id.UserID, device string) {
	p.T.Helper()
	_, err := p.accounts.Do(p.Ctx(), &account.Logout{UserID: string(u), Devices: []string{device}})
	require.NoError(p.T, err)
}

func (p *people) rename(u id.UserID, device, name string) {
	p.T.Helper()
	_, err := p.accounts.Do(p.Ctx(), &account.SetDevice{UserID: string(u), DeviceID: device, DisplayName: name})
	require.NoError(p.T, err)
}

func (p *people) send(from, to id.UserID, device string, n int) {
	p.T.Helper()
	require.NoError(p.T, p.front.Send(p.Ctx(), &e2ee.Sending{
		Sender: from, Device: "X", Type: "m.test", Txn: fmt.Sprint(n), Messages: map[string]map[string]json.RawMessage{
			string(to): {device: json.RawMessage(fmt.Sprintf(`{"n":%d}`, n))},
		},
	}))
}

func (p *people) queued(u id.UserID) (n int) {
	p.T.Helper()
	require.NoError(p.T, p.DB.Pool.QueryRow(p.Ctx(), `SELECT count(*) FROM to_device WHERE user_id = $1`, string(u)).Scan(&n))
	return n
}

// Messages come once, a waiting device is woken by its own, and what a since token acknowledges is removed.
func TestMessagesToDevices(t *testing.T) {
	p := newPeople(t)
	s := start(t, p.World, 256<<20)
	alice, bob := p.user("alice", "A"), p.user("bob", "B1", "B2")
	p.send(alice, bob, "B1", 1)
	a := s.devices(t, msync.Request{User: bob, Device: "B1"})
	require.Equal(t, []int{1}, a.numbers())
	require.Equal(t, string(alice), a.ToDevice.Events[0].Sender)
	again := s.devices(t, msync.Request{User: bob, Device: "B1"})
	require.Equal(t, []int{1}, again.numbers(), "who has lost the answer asks again")

	woken := make(chan encrypted, 1)
	go func() {
		woken <- s.devices(t, msync.Request{User: bob, Device: "B1", Since: a.Next, Timeout: 20 * time.Second})
	}()
	p.send(alice, bob, "*", 2)
	b := <-woken
	require.Equal(t, []int{2}, b.numbers())
	require.Eventually(t, func() bool { return p.queued(bob) == 2 }, 10*time.Second, 10*time.Millisecond, "the first is acknowledged")
	s.settled(t, p.World)
	require.Equal(t, []int{2}, s.devices(t, msync.Request{User: bob, Device: "B1", Since: a.Next}).numbers(), "the same since, the same answer")
	require.Equal(t, []int{2}, start(t, p.World, 256<<20).devices(t, msync.Request{User: bob, Device: "B1", Since: a.Next}).numbers(), "from any worker")

	ctx, tally := pg.WithTally(t.Context())
	_, err := s.Sync(ctx, msync.Request{User: bob, Device: "B1", Since: b.Next})
	require.NoError(t, err)
	require.Zero(t, tally.Count(), "within the window no query is made")
	require.Eventually(t, func() bool { return p.queued(bob) == 1 }, 10*time.Second, 10*time.Millisecond)

	p.logout(bob, "B2")
	require.Zero(t, p.queued(bob), "the queue goes with the device")
	p.login(bob, "B2")
	s.settled(t, p.World)
	require.Empty(t, s.devices(t, msync.Request{User: bob, Device: "B2"}).numbers())
}

// A long queue comes a hundred at a time; another worker goes on where one has left off.
func TestLongQueue(t *testing.T) {
	for name, before := range map[string]bool{"from memory": true, "from PostgreSQL": false} {
		t.Run(name, func(t *testing.T) {
			p := newPeople(t)
			alice, bob := p.user("alice", "A"), p.user("bob", "B")
			workers := []*worker{start(t, p.World, 256<<20), start(t, p.World, 256<<20)}
			since := workers[0].devices(t, msync.Request{User: bob, Device: "B"}).Next
			if before {
				workers[1].devices(t, msync.Request{User: bob, Device: "B", Since: since})
			} else {
				workers[0], workers[1] = start(t, p.World, 256<<20), start(t, p.World, 256<<20)
			}
			var want, got []int
			for n := range 230 {
				p.send(alice, bob, "B", n)
				want = append(want, n)
			}
			for i, count := range []int{100, 100, 30, 0} {
				w := workers[i%2]
				w.settled(t, p.World)
				a := w.devices(t, msync.Request{User: bob, Device: "B", Since: since})
				require.Len(t, a.numbers(), count)
				got, since = append(got, a.numbers()...), a.Next
			}
			require.Equal(t, want, got)
			require.Eventually(t, func() bool { return p.queued(bob) == 0 }, 10*time.Second, 10*time.Millisecond)
		})
	}
}

func TestKeyCountsAreTold(t *testing.T) {
	p := newPeople(t)
	s := start(t, p.World, 256<<20)
	bob := p.user("bob", "B")
	a := s.devices(t, msync.Request{User: bob, Device: "B"})
	require.Equal(t, map[string]int{"signed_curve25519": 0}, a.Counts)
	require.Empty(t, a.Unused)
	_, err := p.front.UploadKeys(p.Ctx(), bob, "B", &e2ee.Upload{
		OneTime:  map[string]json.RawMessage{"signed_curve25519:1": json.RawMessage(`{"key":"1"}`), "signed_curve25519:2": json.RawMessage(`{"key":"2"}`)},
		Fallback: map[string]json.RawMessage{"signed_curve25519:f": json.RawMessage(`{"key":"f"}`)},
	})
	require.NoError(t, err)
	claim := func() {
		_, err := p.front.Claim(p.Ctx(), map[string]map[string]string{string(bob): {"B": "signed_curve25519"}})
		require.NoError(t, err)
	}
	for _, want := range []struct {
		n      int
		unused []string
	}{{2, []string{"signed_curve25519"}}, {1, []string{"signed_curve25519"}}, {0, []string{"signed_curve25519"}}, {0, []string{}}} {
		s.settled(t, p.World)
		b := s.devices(t, msync.Request{User: bob, Device: "B", Since: a.Next, Timeout: 20 * time.Second})
		require.Equal(t, want.n, b.Counts["signed_curve25519"])
		require.Equal(t, want.unused, b.Unused)
		fresh := start(t, p.World, 256<<20).devices(t, msync.Request{User: bob, Device: "B", Since: b.Next})
		require.Equal(t, b.Counts, fresh.Counts)
		require.Equal(t, b.Unused, fresh.Unused)
		a = b
		claim()
	}
	p.logout(bob, "B")
	p.login(bob, "B")
	s.settled(t, p.World)
	require.Equal(t, map[string]int{"signed_curve25519": 0}, s.devices(t, msync.Request{User: bob, Device: "B"}).Counts, "another device of the name")
}

// A client that keeps what it is told of device lists knows of every change: it is compared with who shares a room and how often their
// lists changed, whatever the history, and wherever and whenever it syncs.
func TestDeviceListsAgainstModel(t *testing.T) {
	p := newPeople(t)
	rng := rand.New(rand.NewPCG(7, uint64(time.Now().UnixNano())))
	const users, rooms, steps = 5, 4, 160
	var all []id.UserID
	version := make(map[id.UserID]int) // how often a user's list changed
	for i := range users {
		u := p.user(fmt.Sprintf("u%d", i), "D")
		all = append(all, u)
	}
	in := make(map[id.RoomID]map[id.UserID]bool)
	var list []id.RoomID
	for i := range rooms {
		r := p.Create(room.CreateRoom{Creator: roomtest.As(all[i%users]), Preset: "public_chat"})
		list = append(list, r)
		in[r] = map[id.UserID]bool{all[i%users]: true}
	}
	shares := func(a, b id.UserID) bool {
		return a == b || slices.ContainsFunc(list, func(r id.RoomID) bool { return in[r][a] && in[r][b] })
	}
	// client is what a client holds: the versions of the lists as it has fetched them when it was told to.
	type client struct {
		since string
		known map[id.UserID]int
	}
	clients := make(map[id.UserID]*client)
	workers := []*worker{start(t, p.World, 256<<20), start(t, p.World, 256<<20)}
	for _, u := range all {
		c := &client{since: workers[0].devices(t, msync.Request{User: u, Device: "D"}).Next, known: make(map[id.UserID]int)}
		for _, o := range all {
			if shares(u, o) {
				c.known[o] = version[o]
			}
		}
		clients[u] = c
	}
	sync := func(u id.UserID) {
		w := workers[rng.IntN(len(workers))]
		if rng.IntN(12) == 0 { // one that holds nothing yet
			w = start(t, p.World, 256<<20)
			workers[rng.IntN(len(workers))] = w
		}
		w.settled(t, p.World)
		c := clients[u]
		a := w.devices(t, msync.Request{User: u, Device: "D", Since: c.since})
		c.since = a.Next
		for _, o := range a.Lists.Left {
			require.False(t, shares(u, id.UserID(o)), "%s is told that %s left", u, o)
			delete(c.known, id.UserID(o))
		}
		for _, o := range a.Lists.Changed {
			c.known[id.UserID(o)] = version[id.UserID(o)] // it asks for the keys
		}
		for _, o := range all {
			if v, ok := c.known[o]; shares(u, o) {
				require.True(t, ok && v == version[o], "%s knows %d of %s, whose list is at %d (told: %+v)", u, v, o, version[o], a.Lists)
			} else {
				require.False(t, ok, "%s holds on to %s", u, o)
			}
		}
	}
	for step := range steps {
		u, r := all[rng.IntN(users)], list[rng.IntN(rooms)]
		switch rng.IntN(6) {
		case 0, 1:
			p.rename(u, "D", fmt.Sprint("name", step))
			version[u]++
		case 2, 3:
			if !in[r][u] {
				p.Join(r, u)
				in[r][u] = true
			}
		case 4:
			if in[r][u] {
				p.Membership(r, u, u, room.ActionLeave)
				delete(in[r], u)
			}
		case 5:
			sync(u)
		}
	}
	for _, u := range all {
		sync(u)
		_, err := token.DecodeSync(clients[u].since, 4)
		require.NoError(t, err)
	}
}

// Who leaves a room and comes back between two syncs is told who went meanwhile, from memory and from the database.
func TestWhoComesBackIsToldWhoWent(t *testing.T) {
	p := newPeople(t)
	s := start(t, p.World, 256<<20)
	alice, bob := p.user("alice", "A"), p.user("bob", "B")
	r := p.Create(room.CreateRoom{Creator: roomtest.As(alice), Preset: "public_chat"})
	p.Join(r, bob)
	s.settled(t, p.World)
	since := s.devices(t, msync.Request{User: bob, Device: "B"}).Next
	p.Membership(r, bob, bob, room.ActionLeave)
	p.Membership(r, alice, alice, room.ActionLeave)
	p.Join(r, bob)
	for _, w := range []*worker{s, start(t, p.World, 256<<20)} {
		w.settled(t, p.World)
		require.Equal(t, []string{string(alice)}, w.devices(t, msync.Request{User: bob, Device: "B", Since: since}).Lists.Left)
	}
}

// Who comes to others in a room is told of them, and of itself, for its other devices.
func TestWhoComesIsToldOfItself(t *testing.T) {
	p := newPeople(t)
	s := start(t, p.World, 256<<20)
	alice, bob := p.user("alice", "A"), p.user("bob", "B")
	r := p.Create(room.CreateRoom{Creator: roomtest.As(alice), Preset: "public_chat"})
	s.settled(t, p.World)
	since := s.devices(t, msync.Request{User: bob, Device: "B"}).Next
	of := s.devices(t, msync.Request{User: alice, Device: "A"}).Next
	p.Join(r, bob)
	s.settled(t, p.World)
	a := s.devices(t, msync.Request{User: bob, Device: "B", Since: since})
	require.Equal(t, []string{string(alice), string(bob)}, a.Lists.Changed)
	require.Equal(t, []string{string(bob)}, s.devices(t, msync.Request{User: alice, Device: "A", Since: of}).Lists.Changed)
	p.Create(room.CreateRoom{Creator: roomtest.As(bob)}) // where nobody else is
	s.settled(t, p.World)
	require.Empty(t, s.devices(t, msync.Request{User: bob, Device: "B", Since: a.Next}).Lists.Changed)
}

// Whoever signs somebody's keys tells the signer's own devices to ask for them again, and nobody else: from memory, and after it is lost.
func TestSignaturesAreToldToTheSigner(t *testing.T) {
	p := newPeople(t)
	s := start(t, p.World, 256<<20)
	alice, bob, carol := p.user("alice", "A", "A2"), p.user("bob", "B"), p.user("carol", "C")
	r := p.Create(room.CreateRoom{Creator: roomtest.As(alice), Preset: "public_chat"})
	p.Join(r, bob)
	s.settled(t, p.World)
	since := make(map[id.UserID]string)
	for _, u := range []id.UserID{alice, bob, carol} {
		since[u] = s.devices(t, msync.Request{User: u, Device: "A2"}).Next
	}
	_, err := p.front.Do.Do(p.Ctx(), nil, &e2ee.PutSignatures{UserID: string(alice), Other: []e2ee.OtherSignature{
		{Target: string(bob), TargetKey: "x", KeyID: "ed25519:u", Signature: "s"}, {Target: string(carol), TargetKey: "x", KeyID: "ed25519:u", Signature: "s"},
	}})
	require.NoError(t, err)
	for _, w := range []*worker{s, start(t, p.World, 256<<20)} {
		w.settled(t, p.World)
		a := w.devices(t, msync.Request{User: alice, Device: "A2", Since: since[alice]})
		require.ElementsMatch(t, []string{string(bob), string(carol)}, a.Lists.Changed)
		require.Empty(t, a.Lists.Left)
		require.Empty(t, w.devices(t, msync.Request{User: alice, Device: "A2", Since: a.Next}).Lists.Changed)
		for _, u := range []id.UserID{bob, carol} {
			require.Empty(t, w.devices(t, msync.Request{User: u, Device: "A2", Since: since[u]}).Lists.Changed)
		}
	}
}
