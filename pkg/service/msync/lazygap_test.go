package msync_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/service/msync"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// heroesAlone has a first sync tell no other members.
const heroesAlone = `{"room":{"state":{"lazy_load_members":true},"timeline":{"limit":0}}}`

// crowd is a room with so many in it that most are not heroes.
func crowd(t *testing.T) (w *roomtest.World, r id.RoomID, users []id.UserID) {
	w = roomtest.New(t)
	for _, u := range []string{"alice", "bob", "c1", "c2", "c3", "c4", "dave", "erin", "frank"} {
		users = append(users, roomtest.User(u))
	}
	r = w.Room(users[0], "11")
	w.Join(r, users[1:]...)
	return w, r, users
}

func name(w *roomtest.World, r id.RoomID, u id.UserID, name string) {
	w.Do(&room.SetProfile{Room: r, User: u, Profile: room.Profile{DisplayName: name}})
}

// What becomes of members between a token and the timeline is told whoever they are, from memory and from the database, of a room that is
// told as a whole, too, if the client held it already.
func TestMembersInGaps(t *testing.T) {
	const few = `{"room":{"state":{"lazy_load_members":true},"timeline":{"limit":1}}}`
	for name1, c := range map[string]struct {
		full  bool
		away  bool
		after bool
	}{
		"of a gap":                          {},
		"of a gap, full state":              {full: true},
		"while the user was away":           {away: true},
		"while the user was away, at once":  {away: true, after: true},
		"of a gap, full state, after it":    {full: true, after: true},
		"away, full state, after the stay":  {away: true, full: true, after: true},
		"away, full state, before the stay": {away: true, full: true},
	} {
		t.Run(name1, func(t *testing.T) {
			w, r, u := crowd(t)
			alice, bob, dave, erin := u[0], u[1], u[6], u[7]
			held := start(t, w, 256<<20)
			since := held.sync(t, msync.Request{User: bob, Filter: lazily(t, few)}).Next
			if c.away {
				w.Membership(r, bob, bob, room.ActionLeave)
			}
			name(w, r, dave, "Dave")
			w.Membership(r, erin, erin, room.ActionLeave)
			if c.away {
				w.Join(r, bob)
			}
			w.Send(r, alice, "1")
			w.Send(r, alice, "2")
			for where, s := range map[string]*worker{"memory": held, "the database": start(t, w, 256<<20)} {
				s.settled(t, w)
				a := s.sync(t, msync.Request{User: bob, Since: since, Filter: lazily(t, few), FullState: c.full, StateAfter: c.after})
				j := a.Rooms.Join[string(r)]
				require.True(t, j.Timeline.Limited)
				j.State.Events = append(j.State.Events, j.StateAfter.Events...)
				require.Contains(t, members(j), string(dave), where)
				require.Contains(t, members(j), string(erin), where)
				require.NotContains(t, members(j), "@frank:heddle.test", "who has not changed, from %s", where)
				if c.full || c.away {
					require.Contains(t, members(j), string(bob), "himself, from %s", where)
				}
			}
		})
	}
}

// Who changes in a timeline and said something before is told as it was then, if the client has not been told.
func TestMembersWhoChangeInTheTimeline(t *testing.T) {
	const lazy = `{"room":{"state":{"lazy_load_members":true}}}`
	w, r, u := crowd(t)
	bob, dave, erin := u[1], u[6], u[7]
	held := start(t, w, 256<<20)
	since := held.sync(t, msync.Request{User: bob, Filter: lazily(t, heroesAlone)}).Next
	w.Send(r, dave, "M0")
	name(w, r, dave, "Dave")
	w.Send(r, dave, "M2")
	name(w, r, erin, "Erin")
	w.Send(r, erin, "M3")
	for where, s := range map[string]*worker{"memory": held, "the database": start(t, w, 256<<20)} {
		s.settled(t, w)
		j := s.sync(t, msync.Request{User: bob, Since: since, Filter: lazily(t, lazy)}).Rooms.Join[string(r)]
		require.Len(t, j.Timeline.Events, 5)
		require.Contains(t, members(j), string(dave), where)
		require.NotContains(t, members(j), string(erin), "she changed before she spoke, from %s", where)
		for _, e := range j.State.Events {
			require.NotContains(t, string(e.Content), "Dave", "as it was before, from %s", where)
		}
		j = s.sync(t, msync.Request{User: bob, Since: since, Filter: lazily(t, lazy), StateAfter: true}).Rooms.Join[string(r)]
		j.State = j.StateAfter
		require.Subset(t, members(j), []string{string(dave), string(erin)}, where)
		for _, e := range j.State.Events {
			if *e.StateKey == string(dave) {
				require.Contains(t, string(e.Content), "Dave", "as it came to be, from %s", where)
			}
		}
	}
}

// A member that a filter hid was not told.
func TestMembersThatAFilterHidAreNotTold(t *testing.T) {
	w, r, u := crowd(t)
	bob, dave := u[1], u[6]
	s := start(t, w, 256<<20)
	hiding := lazily(t, `{"room":{"state":{"lazy_load_members":true,"not_types":["m.room.member"]},"timeline":{"limit":1}}}`)
	a := s.sync(t, msync.Request{User: bob, Filter: hiding})
	w.Send(r, dave, "1")
	s.settled(t, w)
	b := s.sync(t, msync.Request{User: bob, Filter: hiding, Since: a.Next})
	require.Empty(t, members(b.Rooms.Join[string(r)]))
	w.Send(r, dave, "2")
	s.settled(t, w)
	c := s.sync(t, msync.Request{User: bob, Since: b.Next, Filter: lazily(t, `{"room":{"state":{"lazy_load_members":true}}}`)})
	require.Equal(t, []string{string(dave)}, members(c.Rooms.Join[string(r)]))
}

// Who has left is told those who spoke as they were then, and not what they have become since.
func TestMembersOfARoomThatWasLeft(t *testing.T) {
	const lazy = `{"room":{"state":{"lazy_load_members":true}}}`
	w, r, u := crowd(t)
	bob, dave, erin := u[1], u[6], u[7]
	held := start(t, w, 256<<20)
	since := held.sync(t, msync.Request{User: bob, Filter: lazily(t, heroesAlone)}).Next
	w.Send(r, dave, "1")
	w.Send(r, erin, "2")
	w.Membership(r, bob, bob, room.ActionLeave)
	name(w, r, dave, "a secret")
	w.Membership(r, erin, erin, room.ActionLeave)
	for where, s := range map[string]*worker{"memory": held, "the database": start(t, w, 256<<20)} {
		for _, after := range []bool{false, true} {
			s.settled(t, w)
			j := s.sync(t, msync.Request{User: bob, Since: since, Filter: lazily(t, lazy), StateAfter: after}).Rooms.Leave[string(r)]
			j.State.Events = append(j.State.Events, j.StateAfter.Events...)
			require.Contains(t, members(j), string(dave), where)
			for _, e := range j.State.Events {
				require.NotContains(t, string(e.Content), "secret", where)
				if *e.StateKey != string(bob) {
					require.NotContains(t, string(e.Content), `"leave"`, where)
				}
			}
		}
	}
}
