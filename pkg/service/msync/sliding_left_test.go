package msync_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// both has a worker that has heard everything, and one that has not, answer.
func both(t *testing.T, w *roomtest.World, held *worker, store *shared, then func(t *testing.T, s *worker)) {
	t.Helper()
	for name, s := range map[string]*worker{"from memory": held, "from the database": startKeeping(t, w, 256<<20, store)} {
		t.Run(name, func(t *testing.T) {
			s.settled(t, w)
			then(t, s)
		})
	}
}

func (r slidingRoom) texts() (ids []string) {
	for _, e := range r.Timeline {
		ids = append(ids, e.ID)
	}
	return ids
}

// Who was told to have left, and is banned then, hears of nothing that happened in between; nor does who declines an invitation.
func TestSlidingTellsWhoIsOutsideOnlyOfTheGoing(t *testing.T) {
	w := roomtest.New(t)
	store := &shared{kept: map[string][]byte{}}
	s := startKeeping(t, w, 256<<20, store)
	alice, bob, carol := roomtest.User("alice"), roomtest.User("bob"), roomtest.User("carol")
	r := w.Room(alice, roomver.Default)
	w.State(r, alice, "m.room.history_visibility", "", `{"history_visibility":"shared"}`)
	w.State(r, alice, "org.example.thing", "", `{"n":1}`)
	w.Join(r, bob)
	w.Membership(r, alice, carol, room.ActionInvite)
	s.settled(t, w)
	bobs := s.slide(t, ask(t, bob, "", everything))
	carols := s.slide(t, ask(t, carol, "", everything))
	require.Equal(t, "invite", carols.Rooms[string(r)].Membership)
	w.Membership(r, alice, bob, room.ActionKick)
	s.settled(t, w)
	bobs = s.slide(t, ask(t, bob, bobs.Pos, everything))
	require.Equal(t, "leave", bobs.Rooms[string(r)].Membership)

	w.State(r, alice, "org.example.thing", "", `{"n":2}`)
	w.Send(r, alice, "secret")
	bobs = s.slide(t, ask(t, bob, bobs.Pos, everything))
	require.Empty(t, bobs.Rooms)
	ban := w.Membership(r, alice, bob, room.ActionBan)
	decline := w.Membership(r, carol, carol, room.ActionLeave)
	both(t, w, s, store, func(t *testing.T, s *worker) {
		for _, c := range []struct {
			u          id.UserID
			pos        string
			going      id.EventID
			membership string
		}{{bob, bobs.Pos, ban, "ban"}, {carol, carols.Pos, decline, "leave"}} {
			a := s.slide(t, ask(t, c.u, c.pos, everything)).Rooms[string(r)]
			require.Equal(t, c.membership, a.Membership)
			require.Equal(t, []string{string(c.going)}, a.texts())
			require.Len(t, a.State, 1)
			require.Equal(t, string(c.going), a.State[0].ID)
		}
	})
}

// Who came into a room and went again between two answers is told it as a whole, as it was when he went: there is nothing that he holds of
// it, or it is of an earlier stay.
func TestSlidingTellsAStayBetweenTwoAnswers(t *testing.T) {
	w := roomtest.New(t)
	store := &shared{kept: map[string][]byte{}}
	s := startKeeping(t, w, 256<<20, store)
	alice, bob := roomtest.User("alice"), roomtest.User("bob")
	r := w.Room(alice, roomver.Default)
	w.State(r, alice, "m.room.name", "", `{"name":"Weaving"}`)
	w.Membership(r, alice, bob, room.ActionInvite)
	s.settled(t, w)
	a := s.slide(t, ask(t, bob, "", everything))
	require.Equal(t, "invite", a.Rooms[string(r)].Membership)
	for _, stay := range []string{"the first", "another"} {
		topic := w.State(r, alice, "m.room.topic", "", fmt.Sprintf(`{"topic":%q}`, stay))
		w.Join(r, bob)
		said := w.Send(r, alice, "welcome")
		left := w.Membership(r, alice, bob, room.ActionKick)
		w.State(r, alice, "m.room.topic", "", `{"topic":"later"}`)
		var next string
		both(t, w, s, store, func(t *testing.T, s *worker) {
			told := s.slide(t, ask(t, bob, a.Pos, everything))
			x := told.Rooms[string(r)]
			require.True(t, x.Initial, stay)
			require.Equal(t, "leave", x.Membership)
			require.Contains(t, x.texts(), string(said))
			require.Equal(t, string(left), x.texts()[len(x.texts())-1])
			require.Len(t, x.stateOf("m.room.name"), 1)
			require.True(t, slices.ContainsFunc(x.State, func(e slidingState) bool { return e.ID == string(topic) }))
			next = told.Pos
		})
		a.Pos = next
	}
}

// A room that a list has for its type is told to be left in that list.
func TestSlidingTellsOfLeavingASpaceInAListOfSpaces(t *testing.T) {
	w := roomtest.New(t)
	store := &shared{kept: map[string][]byte{}}
	s := startKeeping(t, w, 256<<20, store)
	bob := roomtest.User("bob")
	space := w.Create(room.CreateRoom{Creator: roomtest.As(bob), CreationContent: []byte(`{"type":"m.space"}`)})
	safe := w.Room(bob, roomver.Default)
	w.State(safe, bob, "m.room.encryption", "", `{"algorithm":"m.megolm.v1.aes-sha2"}`)
	s.settled(t, w)
	lists := func(filters string) string {
		return `{"lists":{"all":{"ranges":[[0,9]],"timeline_limit":1,"filters":` + filters + `}}}`
	}
	var before []slidingAnswer
	cases := []struct {
		filters string
		r       id.RoomID
	}{{`{"room_types":["m.space"]}`, space}, {`{"is_encrypted":true}`, safe}}
	for _, c := range cases {
		a := s.slide(t, ask(t, bob, "", lists(c.filters)))
		require.Len(t, a.Rooms, 1)
		require.Contains(t, a.Rooms, string(c.r))
		before = append(before, a)
	}
	w.Membership(space, bob, bob, room.ActionLeave)
	w.Membership(safe, bob, bob, room.ActionLeave)
	both(t, w, s, store, func(t *testing.T, s *worker) {
		for i, c := range cases {
			q := ask(t, bob, before[i].Pos, lists(c.filters))
			a := s.slide(t, q)
			require.Len(t, a.Rooms, 1, c.filters)
			require.Equal(t, "leave", a.Rooms[string(c.r)].Membership)
		}
	})
}

// Who is kicked is told who kicked him, if he loads members lazily and does not know them.
func TestSlidingTellsWhoKicked(t *testing.T) {
	w, r, u := crowd(t)
	store := &shared{kept: map[string][]byte{}}
	s := startKeeping(t, w, 256<<20, store)
	alice, bob, dave := u[0], u[1], u[6]
	w.State(r, alice, "m.room.power_levels", "", fmt.Sprintf(`{"users":{%q:100,%q:50}}`, alice, dave))
	s.settled(t, w)
	a := s.slide(t, ask(t, bob, "", elementX))
	require.NotContains(t, a.Rooms[string(r)].stateOf("m.room.member"), string(dave))
	w.Membership(r, dave, bob, room.ActionKick)
	name(w, r, dave, "later")
	both(t, w, s, store, func(t *testing.T, s *worker) {
		told := s.slide(t, ask(t, bob, a.Pos, elementX)).Rooms[string(r)]
		require.Equal(t, []string{string(bob), string(dave)}, told.stateOf("m.room.member"))
		for _, e := range told.State {
			if e.StateKey == string(dave) {
				require.NotContains(t, string(*e.Content), "later")
			}
		}
	})
}

// Of a room that the user comes into and leaves any number of times, one leaving is held.
func TestSlidingHoldsOneLeavingOfARoom(t *testing.T) {
	w := roomtest.New(t)
	s := start(t, w, 256<<20)
	alice, bob := roomtest.User("alice"), roomtest.User("bob")
	r := w.Room(alice, roomver.Default)
	a := s.slide(t, ask(t, bob, "", everything))
	for range 3 {
		w.Membership(r, alice, bob, room.ActionInvite)
		s.settled(t, w)
		a = s.slide(t, ask(t, bob, a.Pos, everything))
		require.Equal(t, "invite", a.Rooms[string(r)].Membership)
		left := w.Membership(r, bob, bob, room.ActionLeave)
		s.settled(t, w)
		a = s.slide(t, ask(t, bob, a.Pos, everything))
		require.Equal(t, "leave", a.Rooms[string(r)].Membership)
		require.Equal(t, []string{string(left)}, a.Rooms[string(r)].texts())
	}
	require.Equal(t, 1, s.Moments(string(bob)))
}
