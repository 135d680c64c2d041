package msync_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/msync"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// A member whom the client knew, and who changed where it was not told so, is told again when he speaks: in a gap, while the user was away, and
// where the gap was told by a worker that knew nothing of what the client knew.
func TestMembersWhoChangedUnseenAreToldWhenTheySpeak(t *testing.T) {
	const lazy = `{"lists":{"all":{"ranges":[[0,9]],"timeline_limit":%d,"required_state":[["m.room.member","$LAZY"]]}}}`
	one, none := fmt.Sprintf(lazy, 1), fmt.Sprintf(lazy, 0)
	for name1, c := range map[string]struct {
		away, others bool
		gap          string
	}{
		"a gap": {gap: one}, "a gap of which nothing is told": {gap: none}, "away": {gap: one, away: true},
		"a gap that another worker told": {gap: none, others: true},
	} {
		t.Run(name1, func(t *testing.T) {
			w, r, u := crowd(t)
			store := &shared{kept: map[string][]byte{}}
			s := startKeeping(t, w, 256<<20, store)
			by := s
			if c.others {
				by = startKeeping(t, w, 256<<20, store)
			}
			alice, bob, dave := u[0], u[1], u[6]
			w.Send(r, dave, "hello")
			s.settled(t, w)
			a := s.slide(t, ask(t, bob, "", one))
			require.Contains(t, a.Rooms[string(r)].stateOf("m.room.member"), string(dave))
			if c.away {
				w.Membership(r, bob, bob, room.ActionLeave)
				s.settled(t, w)
				a = s.slide(t, ask(t, bob, a.Pos, one))
				require.Equal(t, "leave", a.Rooms[string(r)].Membership)
			}
			name(w, r, dave, "Dave")
			if c.away {
				w.Join(r, bob)
			}
			w.Send(r, alice, "1")
			w.Send(r, alice, "2")
			by.settled(t, w)
			a = by.slide(t, ask(t, bob, a.Pos, c.gap))
			require.True(t, a.Rooms[string(r)].Limited)
			require.NotContains(t, a.Rooms[string(r)].stateOf("m.room.member"), string(dave))
			w.Send(r, dave, "me again")
			s.settled(t, w)
			a = s.slide(t, ask(t, bob, a.Pos, one))
			require.Contains(t, a.Rooms[string(r)].stateOf("m.room.member"), string(dave))
			w.Send(r, dave, "and again")
			s.settled(t, w)
			require.Empty(t, s.slide(t, ask(t, bob, a.Pos, one)).Rooms[string(r)].State, "now they know each other")
		})
	}
}

// The same of a sync, where a client comes back into a room.
func TestMembersWhoChangedWhileAwayAreToldWhenTheySpeak(t *testing.T) {
	w, r, u := crowd(t)
	s := start(t, w, 256<<20)
	alice, bob, dave := u[0], u[1], u[6]
	const few = `{"room":{"state":{"lazy_load_members":true},"timeline":{"limit":1}}}`
	w.Send(r, dave, "hello")
	s.settled(t, w)
	since := s.sync(t, msync.Request{User: bob, Filter: lazily(t, few)}).Next
	w.Membership(r, bob, bob, room.ActionLeave)
	s.settled(t, w)
	since = s.sync(t, msync.Request{User: bob, Since: since, Filter: lazily(t, few)}).Next
	name(w, r, dave, "Dave")
	w.Join(r, bob)
	w.Send(r, alice, "1")
	s.settled(t, w)
	a := s.sync(t, msync.Request{User: bob, Since: since, Filter: lazily(t, few)})
	require.NotContains(t, members(a.Rooms.Join[string(r)]), string(dave))
	w.Send(r, dave, "me again")
	s.settled(t, w)
	a = s.sync(t, msync.Request{User: bob, Since: a.Next, Filter: lazily(t, few)})
	require.Contains(t, members(a.Rooms.Join[string(r)]), string(dave))
}

// An older part of the timeline, told because more is asked for, is no gap: of the members what changed is told.
func TestMembersAreToldBesideAnOlderTimeline(t *testing.T) {
	w, r, u := crowd(t)
	s := start(t, w, 256<<20)
	alice, bob, dave := u[0], u[1], u[6]
	for range 10 {
		w.Send(r, alice, "hello")
	}
	w.Send(r, dave, "hello")
	s.settled(t, w)
	const lazy = `{"lists":{"all":{"ranges":[[0,9]],"timeline_limit":%d,"required_state":[["m.room.member","$LAZY"]]}}}`
	a := s.slide(t, ask(t, bob, "", fmt.Sprintf(lazy, 1)))
	w.Membership(r, dave, dave, room.ActionLeave)
	s.settled(t, w)
	told := s.slide(t, ask(t, bob, a.Pos, fmt.Sprintf(lazy, 5))).Rooms[string(r)]
	require.True(t, told.Expanded)
	require.Len(t, told.Timeline, 5)
	require.Contains(t, told.stateOf("m.room.member"), string(dave))
}

// A room that has no name has that of its heroes, which is told as they change it.
func TestHeroesAreToldAsTheyChange(t *testing.T) {
	w := roomtest.New(t)
	store := &shared{kept: map[string][]byte{}}
	s := startKeeping(t, w, 256<<20, store)
	alice, bob := roomtest.User("alice"), roomtest.User("bob")
	r := w.Room(alice, roomver.Default)
	w.Join(r, bob)
	s.settled(t, w)
	a := s.slide(t, ask(t, bob, "", elementX))
	require.Equal(t, string(alice), a.Rooms[string(r)].Heroes[0].User)
	name(w, r, alice, "Alice of the looms")
	both(t, w, s, store, func(t *testing.T, s *worker) {
		told := s.slide(t, ask(t, bob, a.Pos, elementX)).Rooms[string(r)]
		require.Equal(t, []hero{{User: string(alice), Name: "Alice of the looms"}}, told.Heroes)
	})
	s.settled(t, w)
	a = s.slide(t, ask(t, bob, a.Pos, elementX))
	name(w, r, bob, "Bob")
	both(t, w, s, store, func(t *testing.T, s *worker) {
		require.NotEmpty(t, s.slide(t, ask(t, bob, a.Pos, elementX)).Rooms[string(r)].Timeline)
	})
	w.State(r, alice, "m.room.name", "", `{"name":"Weaving"}`)
	s.settled(t, w)
	b := s.slide(t, ask(t, bob, a.Pos, elementX))
	require.Equal(t, "Weaving", *b.Rooms[string(r)].Name)
	require.Empty(t, b.Rooms[string(r)].Heroes)
	name(w, r, alice, "Alice")
	s.settled(t, w)
	require.Empty(t, s.slide(t, ask(t, bob, b.Pos, elementX)).Rooms[string(r)].Heroes)
}
