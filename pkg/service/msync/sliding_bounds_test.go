package msync_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/msync"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// However much a client asks for, an answer has a length at which it ends: what does not fit in comes in the next, at once, and each room with
// what there is beside it; of rooms that were told before what happened since.
func TestSlidingAnswersHaveAnEnd(t *testing.T) {
	const many = 30
	w := roomtest.New(t)
	s := start(t, w, 256<<20)
	front := w.Accounts(account.Config{})
	alice, bob := roomtest.User("alice"), roomtest.User("bob")
	w.Register(front, bob)
	var rooms []id.RoomID
	for range many {
		r := w.Room(alice, roomver.Default)
		w.Join(r, bob)
		_, err := front.Do(w.Ctx(), &account.SetAccountData{UserID: string(bob), RoomID: string(r), Type: "m.a", Content: []byte(`{"n":1}`)})
		require.NoError(t, err)
		rooms = append(rooms, r)
	}
	s.settled(t, w)
	s.ShortenSliding(1)
	const all = `{"lists":{"all":{"ranges":[[0,1000000]],"timeline_limit":100,"required_state":[["*","*"]]}},"extensions":{"account_data":{"enabled":true}}}`
	pos := ""
	gather := func(initial bool) {
		t.Helper()
		told := map[string]int{}
		for answers := 0; len(told) < many; answers++ {
			q := ask(t, bob, pos, all)
			q.Timeout = time.Minute // none of which is waited for
			a := s.slide(t, q)
			require.NotEmpty(t, a.Rooms)
			require.Less(t, len(a.Rooms), many)
			require.Equal(t, many, a.Lists["all"].Count)
			for r, x := range a.Rooms {
				told[r]++
				require.Equal(t, initial, x.Initial)
				require.Equal(t, 1, told[r], "told once")
				require.NotEmpty(t, x.Timeline)
				if initial {
					require.NotEmpty(t, a.Extensions.AccountData.Rooms[r])
				}
			}
			pos = a.Pos
		}
		require.Empty(t, s.slide(t, ask(t, bob, pos, all)).Rooms)
	}
	gather(true)
	for _, r := range rooms {
		w.Send(r, alice, "hello")
	}
	s.settled(t, w)
	gather(false)
}

// What the lists of one request ask of the state is bounded together: each room may be in all of them.
func TestSlidingListsAreBoundedTogether(t *testing.T) {
	q := new(msync.SlidingRequest)
	q.Lists = map[string]*msync.SlidingList{}
	add := func() error {
		l := new(msync.SlidingList)
		for i := range 200 {
			l.RequiredState = append(l.RequiredState, []string{fmt.Sprintf("t%d", i), fmt.Sprint(len(q.Lists))})
		}
		q.Lists[fmt.Sprint(len(q.Lists))] = l
		return q.Check()
	}
	for range 10 {
		require.NoError(t, add())
	}
	require.Equal(t, mxerr.InvalidParam, mxerr.From(add()).Code)
}

// What comes late, with the time at which it was said, moves no room down.
func TestRoomsAreNotBumpedBackward(t *testing.T) {
	w := roomtest.New(t)
	store := &shared{kept: map[string][]byte{}}
	s := startKeeping(t, w, 256<<20, store)
	alice, erin := roomtest.User("alice"), id.UserID("@erin:"+roomtest.FarServer)
	r, other := w.Room(alice, "11"), w.Room(alice, "11")
	w.State(r, alice, "m.room.join_rules", "", `{"join_rule":"public"}`)
	far := roomtest.NewFar(w, r, "11")
	far.Join(erin)
	w.Send(other, alice, "one")
	w.Send(r, alice, "two")
	s.settled(t, w)
	const first = `{"lists":{"all":{"ranges":[[0,0]],"timeline_limit":1}}}`
	a := s.slide(t, ask(t, alice, "", first))
	before := a.Rooms[string(r)].BumpStamp
	require.Positive(t, before)
	all := far.All()
	late := far.Build(all[len(all)-1:], erin, "m.room.message", nil, string(roomtest.Message("late")))
	require.Less(t, late.OriginServerTS(), before)
	require.Equal(t, room.FateAccepted, far.Send(late)[0].Fate)
	both(t, w, s, store, func(t *testing.T, s *worker) {
		told := s.slide(t, ask(t, alice, a.Pos, first))
		require.Contains(t, told.Rooms, string(r), "it is the first of the list still")
		x := told.Rooms[string(r)]
		require.Equal(t, []string{string(late.EventID())}, x.texts())
		require.GreaterOrEqual(t, x.BumpStamp, before)
	})
}

// Whoever asked for members lazily and does so no more is told them all.
func TestSlidingTellsAllMembersToWhoWantsThemAgain(t *testing.T) {
	w, r, u := crowd(t)
	s := start(t, w, 256<<20)
	s.settled(t, w)
	body := func(more string) string {
		b, err := json.Marshal(map[string]any{"lists": map[string]any{"all": map[string]any{
			"timeline_limit": 1, "required_state": json.RawMessage(`[["*","*"]` + more + `]`),
		}}})
		require.NoError(t, err)
		return string(b)
	}
	a := s.slide(t, ask(t, u[1], "", body(`,["m.room.member","$LAZY"]`)))
	require.Less(t, len(a.Rooms[string(r)].stateOf("m.room.member")), len(u))
	a = s.slide(t, ask(t, u[1], a.Pos, body(``)))
	require.Len(t, a.Rooms[string(r)].stateOf("m.room.member"), len(u))
}
