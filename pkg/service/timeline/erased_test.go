package timeline_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/service/timeline"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// TestErasedUsersAreReadByThoseWhoWereThere, and by nobody else: not by whoever joins later, nor by whoever peeks.
func TestErasedUsersAreReadByThoseWhoWereThere(t *testing.T) {
	w := newWorld(t)
	front := w.Accounts(account.Config{Enabled: true})
	alice, bob, gone, eve := roomtest.User("alice"), roomtest.User("bob"), roomtest.User("gone"), roomtest.User("eve")
	w.Register(front, gone)
	r := w.Room(alice, roomver.Default)
	w.visibility(r, alice, "world_readable")
	w.Join(r, gone)
	w.Send(r, alice, "a")
	secret := w.Send(r, gone, "b")
	w.Do(&room.Send{Room: r, By: roomtest.As(gone), Type: "m.room.message", Content: roomtest.Relating("m.replace", secret, "c")})
	require.Contains(t, w.bodies(eve, r), "b")
	_, err := front.Do(w.Ctx(), &account.Deactivate{UserID: string(gone), Erase: true})
	require.NoError(t, err)
	w.Join(r, bob)
	after := w.Send(r, alice, "d")

	require.Contains(t, w.bodies(alice, r), "a b")
	for _, u := range []id.UserID{bob, eve} {
		require.Equal(t, "a - - d", w.bodies(u, r), u)
		b, err := w.rooms.Event(w.Ctx(), as(u), r, string(secret))
		require.NoError(t, err)
		require.NotContains(t, string(b), `"body"`, "its edit shows no more")
		b, err = w.rooms.Context(w.Ctx(), as(u), r, string(after), 10, nil)
		require.NoError(t, err)
		require.NotContains(t, string(b), `"b"`)
		b, err = w.rooms.Relations(w.Ctx(), as(u), timeline.RelationsQuery{Room: r, Event: secret, Limit: 5})
		require.NoError(t, err)
		require.NotContains(t, string(b), `"c"`)
	}
}
