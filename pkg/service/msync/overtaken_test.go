package msync_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/filter"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/msync"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// nameOf is the room's name as a client has it that puts the timeline on top of the state.
func nameOf(j joined) (name string) {
	for _, list := range []events{j.State, j.Timeline.events} {
		for _, e := range list.Events {
			if e.Type == "m.room.name" {
				name = string(e.Content)
			}
		}
	}
	return name
}

// A client does not come to hold a state that was overtaken by an event that it is not told: the timeline begins after what was overtaken.
func TestWhatIsOvertakenIsNotInTheTimeline(t *testing.T) {
	w := roomtest.New(t)
	alice, bob, dave := roomtest.User("alice"), roomtest.User("bob"), roomtest.User("dave")
	held := start(t, w, 256<<20)
	hides := `{"room":{"timeline":{"not_senders":["@dave:heddle.test"],"limit":%d}}}`

	r := w.Room(alice, "11")
	w.Join(r, bob, dave)
	w.State(r, alice, "m.room.power_levels", "", fmt.Sprintf(`{"users":{%q:100,%q:50}}`, alice, dave))
	since := held.sync(t, msync.Request{User: bob}).Next
	w.Send(r, alice, "0")
	w.State(r, alice, "m.room.name", "", `{"name":"old"}`)
	w.Send(r, alice, "1")
	w.State(r, dave, "m.room.name", "", `{"name":"new"}`)
	last := w.Send(r, alice, "2")
	for where, s := range map[string]*worker{"memory": held, "the database": start(t, w, 256<<20)} {
		s.settled(t, w)
		for _, from := range []string{since, ""} {
			j := s.sync(t, msync.Request{User: bob, Since: from, Filter: lazily(t, fmt.Sprintf(hides, 50))}).Rooms.Join[string(r)]
			require.JSONEq(t, `{"name":"new"}`, nameOf(j), where)
			require.True(t, j.Timeline.Limited, "what comes before is left out, from %s", where)
			require.Len(t, j.Timeline.Events, 2)
			require.Equal(t, string(last), j.Timeline.Events[1].ID)
			j = s.sync(t, msync.Request{User: bob, Since: from, Filter: lazily(t, fmt.Sprintf(hides, 50)), StateAfter: true}).Rooms.Join[string(r)]
			require.False(t, j.Timeline.Limited, "whose state is the one at the end has no need of it")
			j.State = j.StateAfter
			j.Timeline.Events = nil
			require.JSONEq(t, `{"name":"new"}`, nameOf(j), where)
		}
	}

	// The same where what came in between was not for the user.
	r = w.Room(alice, roomver.Default)
	w.State(r, alice, "m.room.name", "", `{"name":"old"}`)
	w.State(r, alice, "m.room.history_visibility", "", `{"history_visibility":"joined"}`)
	w.State(r, alice, "m.room.name", "", `{"name":"new"}`)
	w.Join(r, bob)
	for _, from := range []string{since, ""} {
		held.settled(t, w)
		j := held.sync(t, msync.Request{User: bob, Since: from, Filter: lazily(t, `{"room":{"timeline":{"limit":50}}}`)}).Rooms.Join[string(r)]
		require.JSONEq(t, `{"name":"new"}`, nameOf(j))
		require.True(t, j.Timeline.Limited)
		require.Len(t, j.Timeline.Events, 2, "that history is hidden, and the joining")
	}
}

// Who has left is told nothing of what happens in the room afterwards, though there is more to tell of himself.
func TestWhoHasLeftHearsOfHimselfAlone(t *testing.T) {
	for name, again := range map[string]func(w *roomtest.World, r id.RoomID, alice, bob id.UserID){
		"banned": func(w *roomtest.World, r id.RoomID, alice, bob id.UserID) {
			w.Membership(r, alice, bob, room.ActionBan)
		},
		"declined": func(w *roomtest.World, r id.RoomID, alice, bob id.UserID) {
			w.Membership(r, alice, bob, room.ActionInvite)
			w.Membership(r, bob, bob, room.ActionLeave)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := roomtest.New(t)
			alice, bob := roomtest.User("alice"), roomtest.User("bob")
			held := start(t, w, 256<<20)
			r := w.Room(alice, "11")
			w.Join(r, bob)
			w.State(r, alice, "m.room.topic", "", `{"topic":"known"}`)
			w.Membership(r, bob, bob, room.ActionLeave)
			held.settled(t, w)
			since := held.sync(t, msync.Request{User: bob}).Next
			w.State(r, alice, "m.room.topic", "", `{"topic":"secret"}`)
			w.State(r, alice, "m.room.name", "", `{"name":"secret"}`)
			w.Send(r, alice, "secret")
			again(w, r, alice, bob)
			for where, s := range map[string]*worker{"memory": held, "the database": start(t, w, 256<<20)} {
				s.settled(t, w)
				for _, q := range []msync.Request{
					{Since: since},
					{Since: since, StateAfter: true},
					{Filter: lazily(t, `{"room":{"include_leave":true}}`)},
					{Filter: lazily(t, `{"room":{"include_leave":true,"timeline":{"limit":1}}}`)},
					{Filter: lazily(t, `{"room":{"include_leave":true}}`), StateAfter: true},
				} {
					q.User = bob
					b, err := s.Sync(t.Context(), q)
					require.NoError(t, err)
					require.NotContains(t, string(b), "secret", "from %s, %+v", where, q)
					var a answer
					require.NoError(t, json.Unmarshal(b, &a))
					require.NotEmpty(t, a.Rooms.Leave[string(r)].Timeline.Events)
					if q.Since == "" {
						require.Contains(t, string(b), "known", "from %s, %+v", where, q)
					}
				}
			}
		})
	}
}

// Who came and went between two syncs is told the room as it was when he went, and that he may have missed something since an earlier stay.
func TestWhoCameAndWentBetweenSyncs(t *testing.T) {
	w := roomtest.New(t)
	alice, bob := roomtest.User("alice"), roomtest.User("bob")
	s := start(t, w, 256<<20)
	r := w.Room(alice, "11")
	since := s.sync(t, msync.Request{User: bob}).Next
	stay := func() joined {
		t.Helper()
		w.Join(r, bob)
		w.Membership(r, bob, bob, room.ActionLeave)
		s.settled(t, w)
		a := s.sync(t, msync.Request{User: bob, Since: since, Filter: lazily(t, `{"room":{"timeline":{"limit":50}}}`)})
		since = a.Next
		return a.Rooms.Leave[string(r)]
	}
	first := stay()
	require.False(t, first.Timeline.Limited, "all that there is was told")
	require.Equal(t, "m.room.create", first.Timeline.Events[0].Type)
	w.State(r, alice, "m.room.name", "", `{"name":"new"}`)
	s.settled(t, w)
	since = s.sync(t, msync.Request{User: bob, Since: since}).Next
	w.Send(r, alice, "hello")
	second := stay()
	require.True(t, second.Timeline.Limited, "it does not join on to the first stay")
	require.JSONEq(t, `{"name":"new"}`, nameOf(second))
}

// Where events are missing before one that is not told, the timeline ends and says so, full as it may be.
func TestGapBeforeWhatIsNotTold(t *testing.T) {
	w := roomtest.New(t)
	alice := roomtest.User("alice")
	r := w.Room(alice, "12")
	since := start(t, w, 256<<20).sync(t, msync.Request{User: alice}).Next
	hidden := w.Do(&room.Send{Room: r, By: roomtest.As(alice), Type: "org.example.hidden", Content: []byte(`{}`)}).Event
	w.Send(r, alice, "told")
	for _, limit := range []int{1, 2} {
		f, err := filter.Parse(fmt.Appendf(nil, `{"room":{"timeline":{"limit":%d,"types":["m.room.message"]}}}`, limit))
		require.NoError(t, err)
		limited := func() bool {
			s := start(t, w, 256<<20)
			s.settled(t, w)
			return s.sync(t, msync.Request{User: alice, Since: since, Filter: f}).Rooms.Join[string(r)].Timeline.Limited
		}
		w.Exec(`UPDATE event SET flags = flags & ~8 WHERE event_id = $1`, string(hidden))
		require.False(t, limited())
		w.Exec(`UPDATE event SET flags = flags | 8 WHERE event_id = $1`, string(hidden))
		require.True(t, limited(), "limit %d", limit)
	}
}
