package msync_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/invitation"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/msync"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// TestUnwantedInvitationsAreNotShown: those that came before they were blocked, and those that are ignored, to a worker that knew the
// rules before and to one that reads them.
func TestUnwantedInvitationsAreNotShown(t *testing.T) {
	w := roomtest.New(t)
	front := w.Accounts(account.Config{Enabled: true})
	s := start(t, w, 256<<20)
	alice, bob, carol := roomtest.User("alice"), roomtest.User("bob"), roomtest.User("carol")
	rooms := map[id.UserID]id.RoomID{alice: w.Room(alice, "12"), carol: w.Room(carol, "12")}
	for u, r := range rooms {
		w.Membership(r, u, bob, room.ActionInvite)
	}
	shown := func(by *worker) (list []id.RoomID) {
		t.Helper()
		by.settled(t, w)
		all := by.sync(t, msync.Request{User: bob}).Rooms.Invite
		slid := by.slide(t, ask(t, bob, "", `{"lists":{"all":{"ranges":[[0,9]],"timeline_limit":1}}}`))
		require.Len(t, slid.Rooms, len(all))
		for r := range all {
			require.Contains(t, slid.Rooms, r)
			list = append(list, id.RoomID(r))
		}
		return list
	}
	set := func(typ, content string) {
		t.Helper()
		_, err := front.Do(w.Ctx(), &account.SetAccountData{UserID: string(bob), Type: typ, Content: json.RawMessage(content)})
		require.NoError(t, err)
	}
	require.Len(t, shown(s), 2)
	for _, c := range []struct {
		typ, content string
		want         []id.RoomID
	}{
		{invitation.TypeConfig, `{"default_action":"block"}`, nil},
		{invitation.TypeFiltered, `{"allowed_users":["@carol:*"]}`, []id.RoomID{rooms[carol]}},
		{invitation.TypeConfig, `{}`, []id.RoomID{rooms[alice], rooms[carol]}},
		{invitation.TypeFiltered, `{"ignored_users":["@carol:*"]}`, []id.RoomID{rooms[alice]}},
		{invitation.TypeFiltered, fmt.Sprintf(`{"blocked_servers":[%q]}`, roomtest.Server), nil},
	} {
		set(c.typ, c.content)
		require.ElementsMatch(t, c.want, shown(s), c.content)
		require.ElementsMatch(t, c.want, shown(start(t, w, 256<<20)), c.content)
	}
}
