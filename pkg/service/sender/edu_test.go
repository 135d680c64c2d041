package sender_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/e2ee"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

func (w *world) nid(r id.RoomID) shard.Nid {
	ref, ok, err := w.Reader.Room(w.Ctx(), w.Shards.Of(string(r)), string(r))
	require.NoError(w.T, err)
	require.True(w.T, ok)
	return ref.Nid
}

// busy has a server take long over the next transaction, so that what comes meanwhile gathers; done lets it go on.
func (f *far) busy(m *master, r id.RoomID) (done func()) {
	f.w.eventually("idle", m.Idle)
	hold, reached := make(chan struct{}), make(chan struct{}, 10)
	f.set(func(int, *transaction, <-chan struct{}) (int, string) {
		reached <- struct{}{}
		<-hold
		return 0, ""
	})
	f.w.Send(r, alice(), "busy")
	<-reached
	return func() { f.set(nil); close(hold) }
}

// What is soft is told together, and of what changed again and again only the last.
func TestSoftEDUsGather(t *testing.T) {
	w := newWorld(t)
	f := newFar(w)
	r := w.shared(f)
	nid := w.nid(r)
	carol := id.UserID("@carol:heddle.test")
	w.Join(r, carol)
	m := w.all()
	one, two := w.Send(r, alice(), "1"), w.Send(r, alice(), "2")
	f.await(one, two)
	n := int64(0)
	typing := func(users ...string) {
		n++
		m.HearTyping(&entry.Typing{Shard: uint32(nid.Shard()), Epoch: 1, N: n, RoomNid: int64(nid), RoomId: string(r), UserIds: users})
	}
	online := func(u id.UserID, status string, p entry.PresenceValue) {
		m.HearPresence(&entry.PresenceBatch{States: []*entry.PresenceState{{
			UserId: string(u), Presence: p, StatusMsg: status, LastActive: time.Now().UnixMilli(), At: time.Now().UnixMilli(),
			WithRooms: true, Rooms: []int64{int64(nid)},
		}}})
	}

	done := f.busy(m, r)
	typing(string(alice()), string(f.user("bob")))
	typing(string(alice()), string(carol))
	typing(string(carol))
	online(alice(), "a", entry.PresenceOnline)
	online(alice(), "b", entry.PresenceUnavailable)
	online(carol, "c", entry.PresenceOnline)
	online(f.user("bob"), "theirs", entry.PresenceOnline)
	for _, x := range []struct {
		user   id.UserID
		kind   string
		thread string
		event  id.EventID
	}{
		{alice(), room.ReceiptRead, "", one},
		{alice(), room.ReceiptRead, "", two},
		{alice(), room.ReceiptRead, "main", two},
		{carol, room.ReceiptRead, "", two},
		{carol, room.ReceiptReadPrivate, "main", two},
	} {
		w.Do(&room.Receipt{Room: r, User: x.user, Kind: x.kind, Thread: x.thread, Event: x.event, TS: 5})
	}
	// All of it is heard before the marker is; and the marker is taken in before the server is free again.
	marker := f.w.Send(r, alice(), "marker")
	w.eventually("heard", func() bool { return m.Soft() == 0 && m.QueuedFor(f.name) == [2]int{2, 7} })
	from := f.tried()
	done()
	f.await(marker)
	w.eventually("idle", m.Idle)
	require.Equal(t, from+1, f.tried(), "in one transaction")

	require.ElementsMatch(t, []string{
		fmt.Sprintf(`{"room_id":%q,"typing":false,"user_id":%q}`, r, alice()), fmt.Sprintf(`{"room_id":%q,"typing":true,"user_id":%q}`, r, carol),
	}, f.edus("m.typing"))
	receipts := f.edus("m.receipt")
	require.Len(t, receipts, 2, "one user's receipts of two threads do not fit in one")
	all := strings.Join(receipts, "")
	require.Equal(t, 3, strings.Count(all, string(two)))
	require.NotContains(t, all, string(one))
	require.NotContains(t, all, "private")
	require.Equal(t, 1, strings.Count(all, `"thread_id":"main"`))
	online1 := f.edus("m.presence")
	require.Len(t, online1, 1)
	var p struct {
		Push []struct {
			UserID   string `json:"user_id"`
			Presence string `json:"presence"`
			Status   string `json:"status_msg"`
			Ago      *int64 `json:"last_active_ago"`
		} `json:"push"`
	}
	require.NoError(t, json.Unmarshal([]byte(online1[0]), &p))
	require.Len(t, p.Push, 2)
	require.Equal(t, []string{string(alice()), "unavailable", "b"}, []string{p.Push[0].UserID, p.Push[0].Presence, p.Push[0].Status})
	require.NotNil(t, p.Push[0].Ago)

	// What is said again is not told again.
	online(alice(), "b", entry.PresenceUnavailable)
	typing(string(carol))
	f.await(w.Send(r, alice(), "end"))
	w.eventually("idle", func() bool { return m.Soft() == 0 && m.Idle() })
	require.Len(t, f.edus("m.presence"), 1)
	require.Len(t, f.edus("m.typing"), 2)
}

// Changes of devices are told to who shares a room with the user, and also to who was away.
func TestDevices(t *testing.T) {
	w := newWorld(t)
	f, g := newFar(w), newFar(w)
	accounts := w.Accounts(account.Config{})
	for _, u := range []string{"alice", "carol"} {
		w.Register(accounts, roomtest.User(u))
	}
	r := w.shared(f)
	w.shared(g)
	m := w.all()
	f.await(w.Send(r, alice(), "first"))
	change := func(u id.UserID, device string) {
		e, err := entry.DeviceList(string(u), &entry.DeviceListBody{Changed: []string{device}})
		require.NoError(t, err)
		w.commit(u, e)
	}
	told := func(x *far, u id.UserID, device string) (n int) {
		for _, c := range x.edus("m.device_list_update") {
			if strings.Contains(c, fmt.Sprintf(`"user_id":%q,"device_id":%q`, u, device)) {
				n++
			}
		}
		return n
	}
	change(alice(), "D1")
	w.eventually("told", func() bool { return told(f, alice(), "D1") == 1 && told(g, alice(), "D1") == 1 })

	// Who comes into a room is introduced to the servers there, those that shared none before.
	carol := roomtest.User("carol")
	w.Join(r, carol)
	w.eventually("introduced", func() bool { return told(f, carol, "ALL") == 1 })
	another := w.shared(f)
	w.Join(another, carol)
	f.await(w.Send(another, alice(), "x"))
	w.eventually("idle", m.Idle)
	require.Equal(t, 1, told(f, carol, "ALL"))
	require.Zero(t, told(g, carol, "ALL"))

	// Of many changes the last of each device is told.
	done := f.busy(m, r)
	for range 20 {
		change(alice(), "D1")
		change(alice(), "D2")
	}
	change(alice(), "D3")
	w.eventually("gathered", func() bool { return m.QueuedFor(f.name)[1] == 3 })
	done()
	w.eventually("idle", m.Idle)
	require.Equal(t, []int{2, 1, 1}, []int{told(f, alice(), "D1"), told(f, alice(), "D2"), told(f, alice(), "D3")})

	// Who fell behind is told all there is, of those whose devices changed.
	before := told(f, alice(), "ALL")
	w.eventually("nobody is behind", func() bool { return w.count(`SELECT count(*) FROM fed_behind`) == 0 })
	f.set(func(int, *transaction, <-chan struct{}) (int, string) { return 500, "" })
	change(alice(), "D4")
	w.eventually("rows", func() bool { return w.count(`SELECT count(*) FROM fed_behind`) > 0 })
	m.kill()
	f.set(nil)
	w.all()
	w.eventually("told", func() bool { return told(f, alice(), "ALL") == before+1 })
	require.Zero(t, told(f, alice(), "D4"))
}

// Messages to devices are sent until they are acknowledged, and then no more; also by another master.
func TestMessagesToDevices(t *testing.T) {
	w := newWorld(t)
	f := newFar(w)
	front, _ := w.E2EE()
	m := w.all()
	w.shared(f)
	send := func(n int) {
		require.NoError(t, front.Send(w.Ctx(), &e2ee.Sending{
			Sender: alice(), Device: "A", Type: "m.x", Txn: fmt.Sprint("t", n),
			Messages: map[string]map[string]json.RawMessage{string(f.user("bob")): {"B": json.RawMessage(fmt.Sprintf(`{"n":%d}`, n))}},
		}))
	}
	send(0)
	w.eventually("sent", func() bool { return len(f.edus("m.direct_to_device")) == 1 })
	w.eventually("gone", func() bool { return w.count(`SELECT count(*) FROM fed_edu`) == 0 })
	f.set(func(int, *transaction, <-chan struct{}) (int, string) { return 500, "" })
	const many = 250
	for i := range many {
		send(i + 1)
	}
	require.Equal(t, many, w.count(`SELECT count(*) FROM fed_edu`))
	m.kill()
	f.set(nil)
	m = w.all()
	w.eventually("gone", func() bool { return w.count(`SELECT count(*) FROM fed_edu`) == 0 })
	w.eventually("idle", m.Idle)
	got := f.edus("m.direct_to_device")
	require.Len(t, got, many+1)
	for i, c := range got {
		require.Contains(t, c, fmt.Sprintf(`{"n":%d}`, i), "in order")
	}
	for _, x := range f.txns {
		require.LessOrEqual(t, len(x.EDUs), 100)
	}
}

// What another server refuses even alone is left out, and everything else arrives.
func TestWhatIsRefusedIsLeftOut(t *testing.T) {
	w := newWorld(t)
	f := newFar(w)
	front, _ := w.E2EE()
	r := w.shared(f)
	w.all()
	f.set(func(_ int, x *transaction, _ <-chan struct{}) (int, string) {
		if strings.Contains(x.Raw, "poison") {
			return 400, `{"errcode":"M_BAD_JSON","error":"no"}`
		}
		return 0, ""
	})
	for i := range 9 {
		n := fmt.Sprint(i)
		if i == 4 {
			n = "poison"
		}
		require.NoError(t, front.Send(w.Ctx(), &e2ee.Sending{
			Sender: alice(), Device: "A", Type: "m." + n, Txn: fmt.Sprint("t", i),
			Messages: map[string]map[string]json.RawMessage{string(f.user("bob")): {"B": json.RawMessage(`{}`)}},
		}))
	}
	var good []id.EventID
	for i := range 9 {
		if i == 6 {
			w.Send(r, alice(), "poison")
			continue
		}
		good = append(good, w.Send(r, alice(), fmt.Sprint(i)))
	}
	f.await(good...)
	w.eventually("all messages but one", func() bool { return len(f.edus("m.direct_to_device")) == 8 })
	w.eventually("gone", func() bool { return w.count(`SELECT count(*) FROM fed_edu`) == 0 })
}
