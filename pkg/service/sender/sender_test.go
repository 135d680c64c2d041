package sender_test

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/service/room"
)

// Events arrive in their order, each once, at most 50 to a transaction, one transaction at a time.
func TestEventsArriveInOrder(t *testing.T) {
	w := newWorld(t)
	f := newFar(w)
	r := w.shared(f)
	m := w.all()
	first := w.Send(r, alice(), "first")
	f.await(first)
	hold := make(chan struct{})
	f.set(func(_ int, _ *transaction, gone <-chan struct{}) (int, string) {
		select {
		case <-hold:
		case <-gone:
		}
		return 0, ""
	})
	sent := []id.EventID{first}
	for i := range 130 {
		sent = append(sent, w.Send(r, alice(), fmt.Sprint(i)))
	}
	close(hold)
	f.await(sent[len(sent)-1])
	w.eventually("idle", m.Idle)
	got := f.taken()
	require.Equal(t, sent, got[slices.Index(got, first):], "in order and once")
	require.Equal(t, 1, f.most, "one at a time")
	for _, x := range f.txns {
		require.LessOrEqual(t, len(x.PDUs), 50)
	}
	require.Less(t, len(f.txns), 20, "they go together")
	require.Zero(t, m.Queued())
	w.eventually("nobody is behind", func() bool { return w.count(`SELECT count(*) FROM fed_behind`) == 0 })
}

// A transaction does not become larger than a megabyte.
func TestTransactionsHaveASize(t *testing.T) {
	w := newWorld(t)
	f := newFar(w)
	r := w.shared(f)
	w.all()
	f.await(w.Send(r, alice(), "first"))
	hold := make(chan struct{})
	f.set(func(int, *transaction, <-chan struct{}) (int, string) { <-hold; return 0, "" })
	var last id.EventID
	for range 45 {
		last = w.Send(r, alice(), strings.Repeat("x", 50<<10))
	}
	close(hold)
	f.await(last)
	for _, x := range f.attempts {
		require.LessOrEqual(t, len(x.Raw), 1<<20+64<<10)
	}
}

// Who is in the room at an event gets it, and nobody else.
func TestWhoIsTold(t *testing.T) {
	w := newWorld(t)
	f, g := newFar(w), newFar(w)
	r := w.shared(f, g)
	bob := f.user("bob")
	m := w.all()

	both := w.Send(r, alice(), "both")
	f.await(both)
	g.await(both)
	alone := w.Room(alice(), version)
	w.Send(alone, alice(), "nobody")

	// What another server sent goes on only if it was left to us, and not back.
	carol := f.user("carol")
	relayed := f.member(r, carol, room.ActionJoin, true)
	g.await(relayed)
	notRelayed := f.member(r, f.user("dave"), room.ActionJoin, false)

	// One user of a server leaves, others remain; then all go, the last is kicked.
	f.member(r, carol, room.ActionLeave, false)
	f.member(r, f.user("dave"), room.ActionLeave, false)
	still := w.Send(r, alice(), "still both")
	f.await(still)
	kick := w.Membership(r, alice(), bob, room.ActionKick)
	after := w.Send(r, alice(), "without far")
	f.await(kick)
	g.await(kick, after)

	// An invitation that is taken back reaches who was invited.
	invite := w.invite(r, bob)
	back := w.Membership(r, alice(), bob, room.ActionKick)
	f.await(back)
	end := w.Send(r, alice(), "end")
	g.await(end)
	w.eventually("idle", m.Idle)
	got := f.taken()
	for _, e := range []id.EventID{relayed, notRelayed, after, end, invite} {
		require.NotContains(t, got, e)
	}
	require.Equal(t, []id.EventID{both, still, kick, back}, got[slices.Index(got, both):])
	require.NotContains(t, g.taken(), notRelayed)

	// Back again.
	f.join(r)
	again := w.Send(r, alice(), "again")
	f.await(again)
}

// A room that is not for other servers is told to none, even if one is thought to be in it.
func TestRoomsThatAreNotForOthers(t *testing.T) {
	w := newWorld(t)
	f := newFar(w)
	r := w.Create(room.CreateRoom{Creator: room.Origin{User: alice()}, Version: version, Preset: room.PresetPublic, CreationContent: []byte(`{"m.federate":false}`)})
	open := w.shared(f)
	ref, ok, err := w.Reader.Room(w.Ctx(), w.Shards.Of(string(r)), string(r))
	require.NoError(t, err)
	require.True(t, ok)
	w.Exec(`INSERT INTO member (room_nid, user_id, membership, event_nid, pos, local) VALUES ($1, $2, 4, 0, 0, false)`, int64(ref.Nid), string(f.user("x")))
	m := w.all()
	secret := w.Send(r, alice(), "secret")
	f.await(w.Send(open, alice(), "open"))
	w.eventually("idle", m.Idle)
	require.NotContains(t, f.taken(), secret)
}

// A transaction that failed is tried again as it was, under the same id, and what came meanwhile goes after it.
func TestTheSameTransactionAgain(t *testing.T) {
	w := newWorld(t)
	f := newFar(w)
	r := w.shared(f)
	w.all()
	f.await(w.Send(r, alice(), "first"))
	from := f.tried()
	failed := make(chan struct{}, 100)
	var up atomic.Bool
	f.set(func(int, *transaction, <-chan struct{}) (int, string) {
		if !up.Load() {
			failed <- struct{}{}
			return 502, ""
		}
		return 0, ""
	})
	a := w.Send(r, alice(), "a")
	<-failed
	b := w.Send(r, alice(), "b")
	<-failed
	<-failed
	up.Store(true)
	f.await(a, b)
	got := f.attempts[from:]
	require.Greater(t, len(got), 3)
	for _, x := range got[:len(got)-1] {
		require.Equal(t, got[0].ID, x.ID)
		require.Equal(t, got[0].Raw, x.Raw)
	}
	require.NotEqual(t, got[0].ID, got[len(got)-1].ID)
}

// A server that is away for long falls behind: nothing is queued for it, a row for each shard says so, and when it is back it gets the latest
// of each room, how its users were made to go, and then everything that follows.
func TestCatchesUpAfterAnOutage(t *testing.T) {
	w := newWorld(t)
	w.cfg.MaxQueue = 3
	f := newFar(w)
	var rooms []id.RoomID
	for range 5 {
		rooms = append(rooms, w.shared(f))
	}
	kicked := w.shared(f)
	m := w.all()
	for _, r := range append(slices.Clone(rooms), kicked) {
		f.await(w.Send(r, alice(), "before"))
	}
	w.eventually("idle", m.Idle)
	f.set(func(int, *transaction, <-chan struct{}) (int, string) { return 503, "" })
	var last []id.EventID
	for _, r := range rooms[:4] {
		for i := range 10 {
			w.Send(r, alice(), fmt.Sprint(i))
		}
		last = append(last, w.Send(r, alice(), "last"))
	}
	kick := w.Membership(kicked, alice(), f.user("bob"), room.ActionKick)
	w.Send(kicked, alice(), "not for them")
	w.eventually("behind", func() bool { _, n := m.Waiting(); return n == 1 })
	w.eventually("rows", func() bool { n := w.count(`SELECT count(*) FROM fed_behind`); return n > 0 && n <= w.Shards.Count() })
	w.eventually("nothing is queued", func() bool { return m.Queued() < 1000 })

	// Another master goes on with it.
	m.stop()
	m = w.all()
	f.set(nil)
	f.await(last...)
	f.await(kick)
	w.eventually("idle", m.Idle)
	w.eventually("rows go", func() bool { return w.count(`SELECT count(*) FROM fed_behind`) == 0 })
	require.Less(t, len(f.taken()), 40, "not everything is sent")
	for _, r := range rooms {
		f.await(w.Send(r, alice(), "after"))
	}
	require.False(t, f.has(w.Send(kicked, alice(), "still not")))
}

// A server that does not answer delays nobody else, and is asked again when it is heard of.
func TestADeadServerDelaysNobody(t *testing.T) {
	w := newWorld(t)
	w.pauses = true
	f, dead := newFar(w), newFar(w)
	hold := make(chan struct{})
	dead.set(func(n int, _ *transaction, gone <-chan struct{}) (int, string) {
		if n == 0 {
			select {
			case <-hold:
			case <-gone:
			}
		}
		return 504, ""
	})
	r := w.shared(f, dead)
	m := w.all()
	var last id.EventID
	for i := range 100 {
		last = w.Send(r, alice(), fmt.Sprint(i))
	}
	f.await(last)
	require.Empty(t, dead.txns)
	close(hold)
	w.eventually("it is left alone", func() bool { return w.client.Backoff(w.Ctx(), dead.name) > 0 })
	w.eventually("it waits", func() bool { n, _ := m.Waiting(); return n == 1 })
	dead.set(nil)
	w.client.Heard(w.Ctx(), dead.name)
	m.Heard(dead.name)
	dead.await(last)
	require.Zero(t, w.client.Backoff(w.Ctx(), dead.name))
}

// Who is killed in the middle of a transaction loses nothing, whether or not the other server took it.
func TestAKillLosesNothing(t *testing.T) {
	w := newWorld(t)
	w.cfg.Patience = time.Minute // else who was not answered for long is caught up with
	f, g := newFar(w), newFar(w)
	r := w.shared(f, g)
	var sent []id.EventID
	for round := range 6 {
		m := w.all()
		reached := make(chan struct{})
		var n atomic.Int64
		f.set(func(_ int, _ *transaction, gone <-chan struct{}) (int, string) {
			if n.Add(1) == int64(1+round%3) {
				close(reached)
				<-gone // it is taken, and never answered
				if round%2 == 0 {
					return 500, "" // or not taken
				}
			}
			return 0, ""
		})
		for more := 10; more > 0; {
			sent = append(sent, w.Send(r, alice(), fmt.Sprint(round)))
			select {
			case <-reached:
				more--
			default:
			}
		}
		m.kill()
	}
	f.set(nil)
	m := w.all()
	f.await(sent...)
	g.await(sent...)
	w.eventually("idle", m.Idle)
	for _, x := range []*far{f, g} {
		require.Equal(t, sent, firsts(x.taken(), sent), "each event's first arrival is in order")
	}
}

// firsts gives the events of a set in the order of their first appearance.
func firsts(got, among []id.EventID) (out []id.EventID) {
	for _, e := range got {
		if slices.Contains(among, e) && !slices.Contains(out, e) {
			out = append(out, e)
		}
	}
	return out
}

// Slots go from one master to another and back under traffic: nothing is lost, and what was acknowledged before is not sent again.
func TestHandOver(t *testing.T) {
	w := newWorld(t)
	w.cfg.Patience = time.Minute
	f, g := newFar(w), newFar(w)
	r := w.shared(f, g)
	a, b := w.all(), w.start()
	var sent []id.EventID
	send := func(n int) {
		for range n {
			sent = append(sent, w.Send(r, alice(), "x"))
		}
	}
	for range 3 {
		send(10)
		for s := range w.Shards.Count() {
			a.close(s)
			send(3)
			b.open(s)
			send(3)
		}
		f.await(sent[len(sent)-1])
		g.await(sent[len(sent)-1])
		a, b = b, a
	}
	for _, x := range []*far{f, g} {
		require.Equal(t, sent, firsts(x.taken(), sent))
		require.Equal(t, 1, x.most, "one transaction at a time")
	}
	w.eventually("idle", a.Idle)
	n := len(f.taken())
	for s := range w.Shards.Count() { // with nothing under way
		a.close(s)
		b.open(s)
	}
	f.await(w.Send(r, alice(), "last"))
	require.Len(t, f.taken(), n+1)
}

// A slot that is given away while one of its destinations is behind another is given away when both have what was queued, so that neither is sent
// anything twice, though one cursor serves both.
func TestHandOverWhileOneIsAheadOfAnother(t *testing.T) {
	w := newWorld(t)
	w.cfg.Patience = time.Minute
	fast := newFar(w)
	slow := newFar(w)
	for w.Shards.Of(string(slow.name)) != w.Shards.Of(string(fast.name)) {
		slow = newFar(w)
	}
	hold := make(chan struct{})
	r := w.shared(fast, slow)
	a, b := w.all(), w.start()
	first := w.Send(r, alice(), "first")
	fast.await(first)
	slow.await(first)
	slow.set(func(_ int, _ *transaction, gone <-chan struct{}) (int, string) {
		select {
		case <-hold:
		case <-gone:
		}
		return 0, ""
	})
	var sent []id.EventID
	for range 130 { // more than two transactions
		sent = append(sent, w.Send(r, alice(), "x"))
	}
	fast.await(sent...)
	slot := int(w.Shards.Of(string(fast.name)))
	closed := make(chan struct{})
	go func() { // waited for below
		defer close(closed)
		a.close(slot)
	}()
	w.eventually("it is being given away", func() bool { return a.Closes(slot) })
	close(hold)
	<-closed
	require.Equal(t, sent, firsts(slow.taken(), sent), "what was queued is sent before the slot goes")
	b.open(slot)
	last := w.Send(r, alice(), "last")
	for _, f := range []*far{fast, slow} {
		f.await(last)
		require.Len(t, f.taken(), len(slices.Compact(slices.Sorted(slices.Values(f.taken())))), "nothing comes twice")
	}
}

// What waits in memory is bounded for all together.
func TestMemoryIsBounded(t *testing.T) {
	w := newWorld(t)
	w.cfg.MaxBytes = 64 << 10
	f, g := newFar(w), newFar(w)
	f.set(func(int, *transaction, <-chan struct{}) (int, string) { return 500, "" })
	r := w.shared(f, g)
	m := w.all()
	var last id.EventID
	for range 30 {
		last = w.Send(r, alice(), strings.Repeat("x", 10<<10))
		g.await(last)
		w.eventually("bounded", func() bool { return m.Queued() <= 80<<10 })
	}
	_, behind := m.Waiting()
	require.Equal(t, 1, behind)
	f.set(nil)
	f.await(last)
}

// Of a log that cannot be read any more, what matters is found in the rooms.
func TestBeginsAnewWhenTheLogIsGone(t *testing.T) {
	w := newWorld(t)
	f := newFar(w)
	r := w.shared(f)
	m := w.all()
	f.await(w.Send(r, alice(), "before"))
	w.eventually("idle", m.Idle)
	m.stop()
	w.Send(r, alice(), "missed")
	last := w.Send(r, alice(), "last")
	w.Exec(`DELETE FROM log`)
	w.Exec(`UPDATE log_floor f SET pos = 1000000 + f.pos`)
	m = w.all()
	f.await(last)
	w.eventually("rows go", func() bool { return m.Idle() && w.count(`SELECT count(*) FROM fed_behind`) == 0 })
}

// What is queued for a server that goes on failing is let go of, though it is not tried meanwhile.
func TestGivesUpQueuing(t *testing.T) {
	w := newWorld(t)
	w.pauses = true
	w.cfg.GiveUp = 50 * time.Millisecond
	f := newFar(w)
	f.set(func(int, *transaction, <-chan struct{}) (int, string) { return 503, "" })
	r := w.shared(f)
	m := w.all()
	last := w.Send(r, alice(), "x")
	w.eventually("behind", func() bool { _, n := m.Waiting(); return n == 1 && m.Queued() == 0 })
	f.set(nil)
	w.client.Heard(w.Ctx(), f.name)
	m.Heard(f.name)
	f.await(last)
}
