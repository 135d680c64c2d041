package msync_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/msync"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// What was said by somebody whom the user has come to ignore since is not shown, and yet the room is told, as its count has changed; once.
func TestWhatAnIgnoredUserHasSaidIsCounted(t *testing.T) {
	w := roomtest.New(t)
	l := listen(t, w)
	front := w.Accounts(account.Config{})
	bob := roomtest.User("bob")
	w.Register(front, alice)
	w.Register(front, bob)
	r := w.Room(alice, "11")
	w.State(r, alice, "m.room.join_rules", "", `{"join_rule":"public"}`)
	w.Join(r, bob)
	l.settled(t, w)
	store := &shared{kept: map[string][]byte{}}
	held := startKeeping(t, w, 256<<20, store)
	_, since := unreadIn(t, held, w, msync.Request{User: alice, Filter: byThread()}, r)
	slid := held.slide(t, ask(t, alice, "", elementX))

	w.Send(r, bob, "hello")
	_, err := front.Do(w.Ctx(), &account.SetAccountData{
		UserID: string(alice), Type: accountdb.TypeIgnored, Content: fmt.Appendf(nil, `{"ignored_users":{%q:{}}}`, bob),
	})
	require.NoError(t, err)
	for name, s := range map[string]*worker{"from memory": held, "from the database": startKeeping(t, w, 256<<20, store)} {
		t.Run(name, func(t *testing.T) {
			s.settled(t, w)
			got, next := unreadIn(t, s, w, msync.Request{User: alice, Since: since, Filter: byThread()}, r)
			require.Equal(t, map[string]unreadCount{"": {Notify: 1}}, got)
			got, _ = unreadIn(t, s, w, msync.Request{User: alice, Since: next, Filter: byThread()}, r)
			require.Nil(t, got)

			a := s.slide(t, ask(t, alice, slid.Pos, elementX))
			require.Contains(t, a.Rooms, string(r))
			require.Empty(t, a.Rooms[string(r)].Timeline)
			require.Equal(t, 1, *a.Rooms[string(r)].Notification)
			require.NotContains(t, s.slide(t, ask(t, alice, a.Pos, elementX)).Rooms, string(r))
		})
	}
}

// Of somebody whom the user ignores neither messages nor invitations are told, in either kind of sync; state is. That begins and ends with the
// change of the list, and what was missed meanwhile is found by a fresh sync alone.
func TestIgnoredUsersAreNotHeard(t *testing.T) {
	w := roomtest.New(t)
	s := start(t, w, 256<<20)
	front := w.Accounts(account.Config{})
	troll := roomtest.User("troll")
	w.Register(front, alice)
	ignore := func(list string) {
		t.Helper()
		_, err := front.Do(w.Ctx(), &account.SetAccountData{
			UserID: string(alice), Type: accountdb.TypeIgnored, Content: []byte(`{"ignored_users":` + list + `}`),
		})
		require.NoError(t, err)
	}
	r := w.Room(alice, "11")
	w.State(r, alice, "m.room.power_levels", "", `{"users":{"`+string(alice)+`":100},"state_default":0}`)
	w.Membership(r, alice, troll, room.ActionInvite)
	w.Join(r, troll)
	den := w.Room(troll, "11")
	w.Membership(den, troll, alice, room.ActionInvite)
	s.settled(t, w)
	all := s.sync(t, msync.Request{User: alice})
	require.Contains(t, all.Rooms.Invite, string(den))

	const list = `{"lists":{"all":{"ranges":[[0,9]],"timeline_limit":20}}}`
	since, pos := all.Next, s.slide(t, ask(t, alice, "", list)).Pos
	// told gives what the next syncs of both kinds say of the room, and whether there is the invitation.
	told := func(by *worker, since, pos string) (ids []string, invited bool, next, nextPos string) {
		t.Helper()
		by.settled(t, w)
		a, b := by.sync(t, msync.Request{User: alice, Since: since}), by.slide(t, ask(t, alice, pos, list))
		for _, e := range a.Rooms.Join[string(r)].Timeline.Events {
			ids = append(ids, e.ID)
		}
		var slid []string
		for _, e := range b.Rooms[string(r)].Timeline {
			slid = append(slid, e.ID)
		}
		if pos != "" {
			require.Equal(t, ids, slid)
		} else {
			require.Subset(t, slid, ids)
		}
		_, invited = a.Rooms.Invite[string(den)]
		require.Equal(t, invited, b.Rooms[string(den)].InviteState != nil)
		return ids, invited, a.Next, b.Pos
	}
	ignore(`{"` + string(troll) + `":{}}`)
	boo := string(w.Send(r, troll, "boo"))
	set := string(w.State(r, troll, "org.example.thing", "", `{}`))
	quiet := string(w.Send(r, alice, "quiet here"))
	ids, _, since, pos := told(s, since, pos)
	require.Equal(t, []string{set, quiet}, ids, "as they come")
	for name, by := range map[string]*worker{"from memory": s, "from the database": start(t, w, 256<<20)} {
		ids, invited, _, _ := told(by, "", "")
		require.Subset(t, ids, []string{set, quiet}, name)
		require.NotContains(t, ids, boo, name)
		require.False(t, invited, name)
	}

	ignore(`{}`)
	back := string(w.Send(r, troll, "back again"))
	ids, _, _, _ = told(s, since, pos)
	require.Equal(t, []string{back}, ids, "what was missed does not come after")
	ids, invited, _, _ := told(s, "", "")
	require.Subset(t, ids, []string{boo, set, quiet, back})
	require.True(t, invited)
}
