package msync_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/filter"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/service/msync"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// members gives the users whose member events stand in a room's state.
func members(j joined) []string {
	out := []string{}
	for _, e := range j.State.Events {
		if e.Type == "m.room.member" {
			out = append(out, *e.StateKey)
		}
	}
	slices.Sort(out)
	return out
}

func lazily(t testing.TB, text string) *filter.Filter {
	t.Helper()
	f, err := filter.Parse([]byte(text))
	require.NoError(t, err)
	return f
}

// TestLazyMembersAreToldOnce: a client hears of a member once, whatever it repeats; who may not know tells again.
func TestLazyMembersAreToldOnce(t *testing.T) {
	w := roomtest.New(t)
	alice, bob, carol, dave := roomtest.User("alice"), roomtest.User("bob"), roomtest.User("carol"), roomtest.User("dave")
	r := w.Room(alice, "11")
	w.Join(r, bob, carol, dave)
	w.State(r, alice, "m.room.name", "", `{"name":"N"}`)
	s, other := start(t, w, 256<<20), start(t, w, 256<<20)
	lazy := lazily(t, `{"room":{"state":{"lazy_load_members":true},"timeline":{"limit":1}}}`)
	redundant := lazily(t, `{"room":{"state":{"lazy_load_members":true,"include_redundant_members":true},"timeline":{"limit":1}}}`)
	ask := func(x *worker, device id.DeviceID, since string, f *filter.Filter) (joined, string) {
		t.Helper()
		x.settled(t, w)
		a := x.sync(t, msync.Request{User: bob, Device: device, Since: since, Filter: f})
		return a.Rooms.Join[string(r)], a.Next
	}
	say := func(u id.UserID) { t.Helper(); w.Send(r, u, "hi") }

	_, t0 := ask(s, "B", "", lazy)
	// Who is a hero is told with the first summary: that is everybody here. A fifth and sixth are not.
	eve, frank, grace := roomtest.User("eve"), roomtest.User("frank"), roomtest.User("grace")
	w.Join(r, eve, frank, grace)
	_, t1 := ask(s, "B", t0, lazy)

	say(grace)
	j, t2 := ask(s, "B", t1, lazy)
	require.Empty(t, members(j), "her joining was told")
	say(carol)
	j, _ = ask(s, "B", t2, lazy)
	require.Empty(t, members(j), "a hero, who was told")

	// On a worker that does not know, everybody who speaks is told, and then no more.
	j, u1 := ask(other, "B", t2, lazy)
	require.Equal(t, []string{string(carol)}, members(j))
	say(carol)
	j, u2 := ask(other, "B", u1, lazy)
	require.Empty(t, members(j))
	say(dave)
	j, u3 := ask(other, "B", u2, lazy)
	require.Equal(t, []string{string(dave)}, members(j))

	// The answer was lost: the same since tells the same again.
	j, _ = ask(other, "B", u2, lazy)
	require.Equal(t, []string{string(dave)}, members(j))

	// A branch: what the lost answer told is not taken for told in another line of answers.
	say(grace)
	j, v3 := ask(other, "B", u2, lazy)
	require.Equal(t, []string{string(grace)}, members(j), "the timeline is short: dave is not in it")
	say(dave)
	j, _ = ask(other, "B", v3, lazy)
	require.Equal(t, []string{string(dave)}, members(j), "in this line dave was not told")
	j, u4 := ask(other, "B", u3, lazy)
	require.Empty(t, members(j), "in that line he was")

	// Another device has a memory of its own, and somebody else's token tells nothing of it.
	say(dave)
	j, _ = ask(other, "X", u4, lazy)
	require.Equal(t, []string{string(dave)}, members(j))

	j, _ = ask(other, "B", u4, redundant)
	require.Equal(t, []string{string(dave)}, members(j), "who wants them always gets them always")

	// A change is told in any case.
	w.Do(&room.SetProfile{Room: r, User: dave, Profile: room.Profile{DisplayName: "D"}})
	say(alice)
	j, _ = ask(other, "B", u4, lazy)
	require.Contains(t, members(j), string(dave))
}

// TestSummaryIsToldWhenItChanges and the heroes only when they may have changed.
func TestSummaryIsToldWhenItChanges(t *testing.T) {
	w := roomtest.New(t)
	s := start(t, w, 256<<20)
	alice := roomtest.User("alice")
	r := w.Room(alice, "11")
	others := []id.UserID{roomtest.User("b"), roomtest.User("c"), roomtest.User("d"), roomtest.User("e"), roomtest.User("f")}
	w.Join(r, others...)
	since := ""
	ask := func(f *filter.Filter) joined {
		t.Helper()
		s.settled(t, w)
		a := s.sync(t, msync.Request{User: alice, Since: since, Filter: f})
		since = a.Next
		return a.Rooms.Join[string(r)]
	}
	j := ask(nil)
	require.Len(t, *j.Summary.Heroes, 5)
	require.Equal(t, 6, j.Summary.Joined)

	w.Send(r, others[0], "hi")
	j = ask(lazily(t, `{"room":{"state":{"lazy_load_members":true}}}`))
	require.Len(t, j.Timeline.Events, 1)
	require.Nil(t, j.Summary.Heroes, "somebody spoke, nobody came")
	require.Zero(t, j.Summary.Joined)

	w.Do(&room.SetProfile{Room: r, User: others[0], Profile: room.Profile{DisplayName: "B"}})
	j = ask(nil)
	require.Nil(t, j.Summary.Heroes, "a new name is no new member")
	require.Zero(t, j.Summary.Joined)

	w.Join(r, roomtest.User("sixth"))
	j = ask(nil)
	require.Nil(t, j.Summary.Heroes, "the room is not named after who came last")
	require.Equal(t, 7, j.Summary.Joined)

	w.Membership(r, others[0], others[0], room.ActionLeave)
	j = ask(nil)
	require.NotNil(t, j.Summary.Heroes)
	require.NotContains(t, *j.Summary.Heroes, string(others[0]))
	require.Equal(t, 6, j.Summary.Joined)

	// Also when the filter shows nobody the member events.
	w.Join(r, others[0])
	j = ask(lazily(t, `{"room":{"state":{"not_types":["m.room.member"]},"timeline":{"not_types":["m.room.member"]}}}`))
	require.Empty(t, j.Timeline.Events)
	require.Equal(t, 7, j.Summary.Joined)
}

// TestLimitedWhenJoining: a timeline is limited if there is more, or if the client may hold events of an earlier stay.
func TestLimitedWhenJoining(t *testing.T) {
	w := roomtest.New(t)
	s := start(t, w, 256<<20)
	alice, bob := roomtest.User("alice"), roomtest.User("bob")
	since := s.sync(t, msync.Request{User: bob}).Next
	few := lazily(t, `{"room":{"timeline":{"types":["m.room.message"],"limit":3}}}`)
	r := w.Room(alice, "11")
	w.Send(r, alice, "1")
	w.Send(r, alice, "2")
	w.Join(r, bob)
	ask := func() joined {
		t.Helper()
		s.settled(t, w)
		a := s.sync(t, msync.Request{User: bob, Since: since, Filter: few})
		since = a.Next
		return a.Rooms.Join[string(r)]
	}
	j := ask()
	require.Len(t, j.Timeline.Events, 2)
	require.False(t, j.Timeline.Limited)
	w.Membership(r, bob, bob, room.ActionLeave)
	ask()
	w.Join(r, bob)
	j = ask()
	require.Len(t, j.Timeline.Events, 2)
	require.True(t, j.Timeline.Limited, "bob was there before: what he holds does not join on to this")

	w.Membership(r, bob, bob, room.ActionLeave)
	ask()
	w.Send(r, alice, "3")
	w.Send(r, alice, "4")
	w.Join(r, bob)
	require.True(t, ask().Timeline.Limited)

	// Of events that the user may not see there is no more to be had.
	r = w.Room(alice, "11")
	w.State(r, alice, "m.room.history_visibility", "", `{"history_visibility":"joined"}`)
	for range 5 {
		w.Send(r, alice, "hidden")
	}
	w.Join(r, bob)
	w.Send(r, alice, "seen")
	j = ask()
	require.Len(t, j.Timeline.Events, 1)
	require.False(t, j.Timeline.Limited)
}

// TestPressureDoesNotStopTheLog: what is held is charged while the log is heard, and the budget takes it back at once.
func TestPressureDoesNotStopTheLog(t *testing.T) {
	w := roomtest.New(t)
	s := start(t, w, 1<<16)
	alice := roomtest.User("alice")
	r := w.Room(alice, "11")
	since := s.sync(t, msync.Request{User: alice}).Next
	var last id.EventID
	for range 100 {
		last = w.Send(r, alice, "a message that takes some room in memory")
	}
	s.settled(t, w)
	got := s.sync(t, msync.Request{User: alice, Since: since}).Rooms.Join[string(r)].Timeline.Events
	require.Equal(t, string(last), got[len(got)-1].ID)
}
