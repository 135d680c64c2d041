package msync_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/msync"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// All that the window holds is charged to the budget once, receipts and account data too, and given back when it goes; what it held is told
// from the database then.
func TestWhatIsHeldIsCharged(t *testing.T) {
	w := roomtest.New(t)
	s := start(t, w, 256<<20)
	alice, bob := roomtest.User("alice"), roomtest.User("bob")
	front := w.Accounts(account.Config{})
	w.Register(front, bob)
	r := w.Room(alice, roomver.Default)
	w.Join(r, bob)
	since := s.sync(t, msync.Request{User: bob}).Next
	put := func(letter string) {
		for i := range 20 {
			_, err := front.Do(w.Ctx(), &account.SetAccountData{
				UserID: string(bob), Type: fmt.Sprint("org.example.", i), Content: []byte(`{"x":"` + strings.Repeat(letter, 10_000) + `"}`),
			})
			require.NoError(t, err)
		}
		s.settled(t, w)
	}
	const data = 20 * 10_000
	before := s.Held()
	put("a")
	require.Greater(t, s.Held(), before+data)
	put("b")
	require.Less(t, s.Held(), before+data*3/2, "what was replaced is not held any more")

	before = s.Held()
	var last id.EventID
	for i := range 20 {
		last = w.Send(r, alice, fmt.Sprint(i))
	}
	s.settled(t, w)
	said := s.Held()
	for _, u := range []id.UserID{alice, bob} {
		for _, thread := range []string{"", "main"} {
			w.Do(&room.Receipt{Room: r, User: u, Kind: room.ReceiptRead, Thread: thread, Event: last})
		}
	}
	s.settled(t, w)
	require.Greater(t, s.Held(), said)

	all := s.sync(t, msync.Request{User: bob, Since: since})
	for s.Held() > before/4 {
		held := s.Held()
		s.Squeeze()
		require.Less(t, s.Held(), held)
	}
	again := s.sync(t, msync.Request{User: bob, Since: since})
	require.ElementsMatch(t, all.AccountData.Events, again.AccountData.Events)
	require.Len(t, all.AccountData.Events, 20)
	require.Len(t, again.Rooms.Join[string(r)].Ephemeral.Events, len(all.Rooms.Join[string(r)].Ephemeral.Events))

	put("c")
	require.Greater(t, s.Held(), int64(data))
	require.NoError(t, s.Reset(w.Ctx(), s.follower.Positions()))
	require.Zero(t, s.Held())
}

// What is read once for all who are told a room as a whole has the receipts, also those that came later and are not held any more.
func TestReceiptsThatAreNotHeldAreToldWithTheRoom(t *testing.T) {
	w := roomtest.New(t)
	s := start(t, w, 256<<20)
	alice, bob := roomtest.User("alice"), roomtest.User("bob")
	r := w.Room(alice, roomver.Default)
	w.Join(r, bob)
	s.sync(t, msync.Request{User: bob})
	event := w.Send(r, alice, "hello")
	s.settled(t, w)
	s.sync(t, msync.Request{User: bob})
	for _, u := range []id.UserID{alice, bob} {
		w.Do(&room.Receipt{Room: r, User: u, Kind: room.ReceiptRead, Event: event})
	}
	s.settled(t, w)
	s.Squeeze()
	told := s.sync(t, msync.Request{User: bob}).Rooms.Join[string(r)].Ephemeral.Events
	require.Len(t, told, 1)
	require.Contains(t, string(told[0].Content), string(alice))
	require.Contains(t, string(told[0].Content), string(bob))
}

// Who comes into a room is told who types there, though that began before.
func TestWhoComesIsToldWhoTypes(t *testing.T) {
	w := roomtest.New(t)
	s := start(t, w, 256<<20)
	alice, bob := roomtest.User("alice"), roomtest.User("bob")
	r := w.Room(alice, roomver.Default)
	s.sync(t, msync.Request{User: alice}) // and so the room is held
	ref, _, err := s.Rooms.RoomByID(w.Ctx(), r)
	require.NoError(t, err)
	s.HearTyping(&entry.Typing{Shard: uint32(ref.Nid.Shard()), RoomNid: int64(ref.Nid), Epoch: 1, N: 1, UserIds: []string{string(alice)}})
	before := s.sync(t, msync.Request{User: bob})
	w.Join(r, bob)
	s.settled(t, w)
	told := s.sync(t, msync.Request{User: bob, Since: before.Next}).Rooms.Join[string(r)].Ephemeral.Events
	require.Len(t, told, 1)
	require.Equal(t, "m.typing", told[0].Type)
}
