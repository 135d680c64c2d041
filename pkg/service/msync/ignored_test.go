package msync_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/msync"
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
