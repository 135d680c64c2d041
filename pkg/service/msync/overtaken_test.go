package msync_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/msync"
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
