package push_test

import (
	"context"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/infra/outhttp"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

func TestNotificationsSayWhatTheSpecificationSays(t *testing.T) {
	w := newWorld(t)
	g := newGateway(w)
	r := w.Room(alice(), version)
	w.State(r, alice(), "m.room.name", "", `{"name":"Loom"}`)
	w.Join(r, bob())
	w.State(r, alice(), "m.room.member", string(alice()), `{"membership":"join","displayname":"Alice"}`)
	w.pusher(bob(), g, "full", `"brand":"x"`)
	w.pusher(bob(), g, "id", `"format":"event_id_only"`)
	w.start()

	e := w.Send(r, alice(), "hello")
	w.eventually("both pushers", func() bool { return len(g.events()) == 2 })
	for _, n := range g.all() {
		require.Equal(t, string(e), n.EventID)
		require.Equal(t, string(r), n.RoomID)
		require.Equal(t, 1, *n.Counts.Unread)
		require.Nil(t, n.Counts.Missed)
		require.Len(t, n.Devices, 1)
		d := n.Devices[0]
		require.Equal(t, "im.test", d.AppID)
		require.Positive(t, d.PushkeyTS)
		require.Less(t, d.PushkeyTS, time.Now().UnixMilli()/100, "in seconds")
		require.NotContains(t, d.Data, "url")
		if d.Pushkey == "id" {
			require.Equal(t, "event_id_only", d.Data["format"])
			require.Nil(t, n.Content)
			require.Empty(t, n.Type+n.Sender+n.SenderDisplayName+n.RoomName)
			continue
		}
		require.Equal(t, "x", d.Data["brand"])
		require.Equal(t, "hello", n.Content["body"])
		require.Equal(t, "m.room.message", n.Type)
		require.Equal(t, string(alice()), n.Sender)
		require.Equal(t, "Alice", n.SenderDisplayName)
		require.Equal(t, "Loom", n.RoomName)
		require.Equal(t, "high", n.Prio, "a room of two has a sound")
		require.Equal(t, "default", d.Tweaks["sound"])
		require.NotContains(t, d.Tweaks, "highlight")
	}
	mention := w.Do(&room.Send{
		Room: r, By: roomtest.As(alice()), Type: "m.room.message",
		Content: []byte(`{"msgtype":"m.text","body":"you","m.mentions":{"user_ids":["` + string(bob()) + `"]}}`),
	}).Event
	n := g.of(mention)
	require.Equal(t, 2, *n.Counts.Unread)
	w.eventually("the highlight", func() bool {
		for _, n := range g.all() {
			if n.EventID == string(mention) && n.Devices[0].Pushkey == "full" {
				return n.Devices[0].Tweaks["highlight"] == true
			}
		}
		return false
	})
	secret := w.Do(&room.Send{
		Room: r, By: roomtest.As(alice()), Type: "m.room.encrypted", Content: []byte(`{"algorithm":"m.megolm.v1.aes-sha2","ciphertext":"x"}`),
	}).Event
	n = g.of(secret)
	require.Equal(t, "high", n.Prio)
	require.Equal(t, 3, *n.Counts.Unread)
}

func TestNobodyIsToldOfWhatIsNotForThem(t *testing.T) {
	w := newWorld(t)
	g := newGateway(w)
	r, other := w.Room(alice(), version), w.Room(alice(), version)
	w.Join(r, bob())
	w.pusher(bob(), g, "bob")
	w.start()
	w.Send(r, bob(), "my own")
	w.Send(other, alice(), "elsewhere")
	w.Do(&room.Send{Room: r, By: roomtest.As(alice()), Type: "m.reaction", Content: []byte(`{}`)})
	w.Membership(r, bob(), bob(), room.ActionLeave)
	w.Send(r, alice(), "when bob is gone")
	w.Join(r, bob())
	last := w.Send(r, alice(), "when bob is back")
	g.of(last)
	require.Equal(t, []string{string(last)}, g.events())
}

func TestInvitationsAreTold(t *testing.T) {
	w := newWorld(t)
	g := newGateway(w)
	r := w.Room(alice(), version)
	w.pusher(bob(), g, "bob")
	w.start()
	e := w.Membership(r, alice(), bob(), room.ActionInvite)
	n := g.of(e)
	require.Equal(t, "m.room.member", n.Type)
	require.True(t, n.UserIsTarget)
	require.Nil(t, n.Counts.Unread)
}

func TestARejectedPusherIsRemoved(t *testing.T) {
	w := newWorld(t)
	g := newGateway(w)
	g.reject = []string{"bad"}
	r := w.Room(alice(), version)
	w.Join(r, bob())
	w.pusher(bob(), g, "bad")
	w.pusher(bob(), g, "good")
	w.start()
	w.Send(r, alice(), "one")
	w.eventually("the pusher goes", func() bool { return w.count(`SELECT count(*) FROM pusher`) == 1 })
	w.caughtUp()
	two := w.Send(r, alice(), "two")
	require.Equal(t, "good", g.of(two).Devices[0].Pushkey)
	w.caughtUp()
	require.Len(t, g.events(), 3)
	require.Zero(t, w.count(`SELECT count(*) FROM push_owed`))
}

func TestAPusherThatComesOrGoesIsHeardOf(t *testing.T) {
	w := newWorld(t)
	g := newGateway(w)
	r := w.Room(alice(), version)
	w.Join(r, bob())
	w.start()
	w.Send(r, alice(), "nobody hears")
	w.caughtUp()
	w.pusher(bob(), g, "bob")
	e := w.Send(r, alice(), "bob hears")
	g.of(e)
	_, err := w.front.Do(w.Ctx(), &account.SetPusher{UserID: string(bob()), Pusher: account.Pusher{AppID: "im.test", Pushkey: "bob"}, Remove: true})
	require.NoError(t, err)
	w.caughtUp() // a user's shard and a room's have no order between them
	w.Send(r, alice(), "nobody hears again")
	w.caughtUp()
	require.Equal(t, []string{string(e)}, g.events())
}

func TestAPusherThatIsSwitchedOffIsToldOfNothing(t *testing.T) {
	w := newWorld(t)
	g := newGateway(w)
	r := w.Room(alice(), version)
	w.Join(r, bob())
	w.pusher(bob(), g, "on")
	w.pusher(bob(), g, "off")
	w.start()
	first := w.Send(r, alice(), "both hear")
	w.eventually("both pushers", func() bool { return len(g.events()) == 2 })
	list, err := account.NewReader(w.Shards, accountdb.NewReader(w.DB.Pool)).Pushers(w.Ctx(), bob())
	require.NoError(t, err)
	off := list[0]
	require.Equal(t, "off", off.Pushkey)
	for _, off.Disabled = range []bool{true, false} {
		w.caughtUp()
		require.NoError(t, w.front.SetPusher(w.Ctx(), bob(), off, true, true))
		w.caughtUp() // a user's shard and a room's have no order between them
		if off.Disabled {
			one := w.Send(r, alice(), "one hears")
			w.caughtUp()
			require.Equal(t, []string{string(first), string(first), string(one)}, g.events())
			require.Zero(t, w.count(`SELECT count(*) FROM push_owed`))
		}
	}
	last := w.Send(r, alice(), "both hear again")
	w.eventually("both pushers", func() bool { return len(g.events()) == 5 })
	require.Equal(t, []string{string(last), string(last)}, g.events()[3:], "what was said meanwhile is not told")
}

func TestReadingIsToldAsANumber(t *testing.T) {
	w := newWorld(t)
	g := newGateway(w)
	r := w.Room(alice(), version)
	w.Join(r, bob())
	w.pusher(bob(), g, "bob")
	w.start()
	one, two := w.Send(r, alice(), "one"), w.Send(r, alice(), "two")
	g.of(two)
	badge := func(want int) {
		t.Helper()
		w.eventually("a badge", func() bool {
			list := g.all()
			n := list[len(list)-1]
			return n.EventID == "" && n.Counts.Unread != nil && *n.Counts.Unread == want
		})
	}
	w.read(bob(), r, one)
	badge(1)
	w.read(bob(), r, two)
	badge(0)
	three := w.Send(r, alice(), "three")
	require.Equal(t, 1, *g.of(three).Counts.Unread)
	w.Send(r, bob(), "who answers has read")
	badge(0)
	asked := g.requests()
	w.Send(r, bob(), "nothing new")
	w.caughtUp()
	require.Equal(t, asked, g.requests())
}

func TestAGatewayThatIsDownAndBack(t *testing.T) {
	w := newWorld(t)
	g, other := newGateway(w), newGateway(w)
	r := w.Room(alice(), version)
	carol := roomtest.User("carol")
	w.Register(w.front, carol)
	w.Join(r, bob(), carol)
	w.pusher(bob(), g, "bob")
	w.pusher(carol, other, "carol")
	w.start()
	first := w.Send(r, alice(), "zero")
	g.of(first)
	g.answers(func(notified) int { return http.StatusBadGateway })
	var lost []id.EventID
	for _, text := range []string{"one", "two", "three"} {
		lost = append(lost, w.Send(r, alice(), text))
	}
	for _, e := range lost {
		other.of(e) // who is not concerned does not wait
	}
	w.caughtUp()
	require.Equal(t, 1, w.count(`SELECT count(*) FROM push_owed`), "one row, however many events")
	w.Redact(r, alice(), lost[1])
	asked := g.requests()
	w.eventually("what is owed is listed anew", func() bool { return g.requests() >= asked+2 })
	g.answers(nil)
	g.of(lost[2])
	four := w.Send(r, alice(), "four")
	g.of(four)
	w.eventually("the row goes", func() bool { return w.count(`SELECT count(*) FROM push_owed`) == 0 })
	require.Equal(t, []string{string(first), string(lost[0]), string(lost[2]), string(four)}, g.events(), "each once, in order")
}

func TestWhatIsReadMeanwhileIsNotTold(t *testing.T) {
	w := newWorld(t)
	g := newGateway(w)
	r := w.Room(alice(), version)
	w.Join(r, bob())
	w.pusher(bob(), g, "bob")
	w.start()
	g.answers(func(notified) int { return http.StatusServiceUnavailable })
	one := w.Send(r, alice(), "one")
	w.caughtUp()
	w.read(bob(), r, one)
	two := w.Send(r, alice(), "two")
	w.caughtUp()
	g.answers(nil)
	g.of(two)
	require.Equal(t, []string{string(two)}, g.events())
}

func TestOnlyTheLatestIsToldAfterALongTime(t *testing.T) {
	w := newWorld(t)
	w.cfg.Most = 3
	g := newGateway(w)
	r := w.Room(alice(), version)
	w.Join(r, bob())
	w.pusher(bob(), g, "bob")
	w.start()
	var tried sync.Map
	g.answers(func(n notified) int {
		tried.Store(n.EventID, true)
		return http.StatusServiceUnavailable
	})
	var want []string
	for i := range 10 {
		if e := w.Send(r, alice(), "text"); i >= 7 {
			want = append(want, string(e))
		}
	}
	// An attempt begins with the earliest that it is to tell of: what is now tried is the last three, and no list from before them.
	w.eventually("the latest are tried", func() bool { _, ok := tried.Load(want[0]); return ok })
	g.answers(nil)
	w.eventually("the latest", func() bool { return len(g.events()) >= 3 })
	w.eventually("the row goes", func() bool { return w.count(`SELECT count(*) FROM push_owed`) == 0 })
	require.Equal(t, want, g.events())
}

func TestNothingIsLostOverRestarts(t *testing.T) {
	w := newWorld(t)
	g := newGateway(w)
	r := w.Room(alice(), version)
	w.Join(r, bob())
	w.pusher(bob(), g, "bob")
	m := w.start()
	zero := w.Send(r, alice(), "zero")
	g.of(zero)
	w.caughtUp()

	// One that is given away in order: nothing twice.
	m.stop()
	one := w.Send(r, alice(), "while nobody sends")
	m = w.start()
	g.of(one)
	w.caughtUp()
	m.stop()
	m = w.start()
	w.caughtUp()
	require.Equal(t, []string{string(zero), string(one)}, g.events())

	// One that dies while a request is under way: told by the next.
	hold, held := make(chan struct{}), make(chan struct{}, 100)
	g.answers(func(notified) int {
		held <- struct{}{}
		<-hold
		return http.StatusServiceUnavailable
	})
	two := w.Send(r, alice(), "two")
	<-held
	m.kill()
	close(hold)
	g.answers(nil)
	m = w.start()
	g.of(two)
	w.caughtUp()

	// One that goes while its gateway is down: what is owed is the next one's.
	g.answers(func(notified) int { return http.StatusServiceUnavailable })
	three := w.Send(r, alice(), "three")
	asked := g.requests()
	w.eventually("an attempt", func() bool { return g.requests() > asked })
	w.caughtUp()
	m.stop()
	require.Equal(t, 1, w.count(`SELECT count(*) FROM push_owed`))
	g.answers(nil)
	w.start()
	g.of(three)
	w.eventually("the row goes", func() bool { return w.count(`SELECT count(*) FROM push_owed`) == 0 })
	require.Equal(t, string(three), g.events()[len(g.events())-1])
}

func TestOneWhoLostTheRoleStoresNothing(t *testing.T) {
	w := newWorld(t)
	g := newGateway(w)
	r := w.Room(alice(), version)
	w.Join(r, bob())
	w.pusher(bob(), g, "bob")
	old := w.start()
	one := w.Send(r, alice(), "one")
	g.of(one)
	w.caughtUp()
	w.eventually("it is owed nothing", func() bool { return w.count(`SELECT count(*) FROM push_owed`) == 0 })
	g.answers(func(notified) int { return http.StatusServiceUnavailable })
	old.kill() // its epoch has passed
	require.Zero(t, w.count(`SELECT count(*) FROM push_owed`))
	two := w.Send(r, alice(), "two")
	g.answers(nil)
	w.start()
	g.of(two)
}

func TestForbiddenNetworksAreNotReached(t *testing.T) {
	w := newWorld(t)
	w.guard = outhttp.NewGuard(nil, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")})
	g := newGateway(w)
	var reached atomic.Bool
	g.answers(func(notified) int { reached.Store(true); return http.StatusOK })
	r := w.Room(alice(), version)
	w.Join(r, bob())
	w.pusher(bob(), g, "bob")
	w.start()
	w.Send(r, alice(), "one")
	w.caughtUp()
	w.eventually("it is owed", func() bool { return w.count(`SELECT count(*) FROM push_owed`) == 1 })
	require.False(t, reached.Load())
}

func TestAGatewayThatHangsDelaysNobodyElse(t *testing.T) {
	w := newWorld(t)
	w.cfg.Lanes, w.cfg.Timeout = 8, time.Minute
	g, hangs := newGateway(w), newGateway(w)
	hold := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	hangs.answers(func(notified) int {
		select {
		case <-hold:
		case <-ctx.Done():
		}
		return http.StatusServiceUnavailable
	})
	defer close(hold)
	r := w.Room(alice(), version)
	w.Join(r, bob())
	w.pusher(bob(), g, "bob")
	for _, name := range []string{"c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8", "c9"} {
		u := roomtest.User(name)
		w.Register(w.front, u)
		w.Join(r, u)
		w.pusher(u, hangs, name)
	}
	w.start()
	for range 3 {
		g.of(w.Send(r, alice(), "text"))
	}
	w.caughtUp()
}
