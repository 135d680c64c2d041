package msync_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// Who types in a room is told when the room comes back into the window, or the extension comes to tell of it, though nothing else happened.
func TestSlidingTellsWhoTypesInRoomsThatItDidNotTellOf(t *testing.T) {
	w := roomtest.New(t)
	s := start(t, w, 256<<20)
	alice, bob := roomtest.User("alice"), roomtest.User("bob")
	r := w.Room(alice, roomver.Default)
	w.Join(r, bob)
	s.settled(t, w)
	ref, _, err := s.Rooms.RoomByID(w.Ctx(), r)
	require.NoError(t, err)
	n := int64(0)
	types := func(users ...string) {
		n++
		s.HearTyping(&entry.Typing{Shard: uint32(ref.Nid.Shard()), RoomNid: int64(ref.Nid), Epoch: 1, N: n, UserIds: users})
	}
	body := func(from int, extension bool) string {
		return fmt.Sprintf(`{"lists":{"all":{"ranges":[[%d,9]],"timeline_limit":1}},"extensions":{"typing":{"enabled":%t}}}`, from, extension)
	}
	for name, without := range map[string]string{"out of the window": body(5, true), "without the extension": body(0, false)} {
		t.Run(name, func(t *testing.T) {
			types()
			a := s.slide(t, ask(t, bob, "", body(0, true)))
			require.Contains(t, a.Rooms, string(r))
			types(string(alice))
			a = s.slide(t, ask(t, bob, a.Pos, without))
			require.Empty(t, a.Extensions.Typing.Rooms)
			a = s.slide(t, ask(t, bob, a.Pos, body(0, true)))
			require.Contains(t, string(a.Extensions.Typing.Rooms[string(r)].Content), string(alice))
			require.Empty(t, s.slide(t, ask(t, bob, a.Pos, body(0, true))).Extensions.Typing.Rooms)
		})
	}
}

// With an older part of a timeline, the receipts at its events are told; those that moved, too.
func TestSlidingTellsReceiptsAtAnOlderTimeline(t *testing.T) {
	w := roomtest.New(t)
	store := &shared{kept: map[string][]byte{}}
	s := startKeeping(t, w, 256<<20, store)
	alice, bob, carol, dave := roomtest.User("alice"), roomtest.User("bob"), roomtest.User("carol"), roomtest.User("dave")
	r := w.Room(alice, roomver.Default)
	w.Join(r, bob, carol, dave)
	var events []id.EventID
	for i := range 10 {
		events = append(events, w.Send(r, alice, fmt.Sprint(i)))
	}
	w.Do(&room.Receipt{Room: r, User: carol, Kind: room.ReceiptRead, Event: events[7]})
	w.Do(&room.Receipt{Room: r, User: dave, Kind: room.ReceiptReadPrivate, Event: events[7]})
	w.Do(&room.Receipt{Room: r, User: dave, Kind: room.ReceiptRead, Event: events[1]})
	s.settled(t, w)
	body := func(limit int) string {
		return fmt.Sprintf(`{"lists":{"all":{"ranges":[[0,9]],"timeline_limit":%d}},"extensions":{"receipts":{"enabled":true}}}`, limit)
	}
	a := s.slide(t, ask(t, bob, "", body(1)))
	require.NotContains(t, string(a.Extensions.Receipts.Rooms[string(r)].Content), string(carol))
	w.Do(&room.Receipt{Room: r, User: alice, Kind: room.ReceiptRead, Event: events[9]})
	both(t, w, s, store, func(t *testing.T, s *worker) {
		told := string(s.slide(t, ask(t, bob, a.Pos, body(5))).Extensions.Receipts.Rooms[string(r)].Content)
		require.Contains(t, told, string(carol))
		require.Contains(t, told, string(alice))
		require.NotContains(t, told, string(dave), "his public receipt is at none of these events, and the other is his own")
	})
}
