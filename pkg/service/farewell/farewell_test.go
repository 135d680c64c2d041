package farewell_test

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/farewell"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/service/roomwalk"
	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

const (
	alice = id.UserID("@alice:heddle.test")
	bob   = id.UserID("@bob:heddle.test")
)

type world struct {
	*roomtest.World
	front *account.Front
	fail  atomic.Bool
	tried chan id.RoomID
}

func newWorld(t *testing.T) *world {
	w := &world{World: roomtest.New(t), tried: make(chan id.RoomID, 1000)}
	w.front = w.Accounts(account.Config{})
	for _, u := range []id.UserID{alice, bob} {
		w.Register(w.front, u)
	}
	w.Exec(`INSERT INTO role_lease (role, slot, epoch, holder) VALUES ('background', 0, 1, 'm')`)
	return w
}

// consume starts the consumer as a master does; stop it with what is returned.
func (w *world) consume() (stop func()) {
	leave := func(ctx context.Context, r id.RoomID, u id.UserID) error {
		w.tried <- r
		if w.fail.Load() {
			return errors.New("the shard is on its way to another master")
		}
		_, err := w.Host.Do(ctx, nil, &room.SetMembership{Room: r, By: room.Origin{User: u}, Target: u, Action: room.ActionLeave})
		return err
	}
	d := follow.NewDurable(follow.Config{Poll: 20 * time.Millisecond}, follow.DurableOptions{
		Name: farewell.Consumer, Role: follow.Role{Name: "background", Epoch: 1}, Cursors: w.Log(), Source: w.Log(),
		Consumer: farewell.New(roomwalk.New(roomwalk.Config{Retry: time.Millisecond}, w.Reader, nil, nil), leave), Filter: farewell.Filter,
	})
	require.NoError(w.T, d.Start(w.Ctx()))
	stop = sync.OnceFunc(func() { require.NoError(w.T, d.Stop(w.Ctx())) })
	w.T.Cleanup(stop)
	return stop
}

func (w *world) memberships(u id.UserID) map[id.RoomID]roomdb.Membership {
	rows, err := w.Reader.Memberships(w.Ctx(), string(u))
	require.NoError(w.T, err)
	m := map[id.RoomID]roomdb.Membership{}
	for i := range rows {
		m[id.RoomID(rows[i].RoomID)] = rows[i].Membership
	}
	return m
}

// A deactivated user leaves every room, declines every invitation, and nothing else happens; also when the consumer was stopped in the
// middle of it and another goes on.
func TestFarewell(t *testing.T) {
	w := newWorld(t)
	joined, invited, left, banned := w.Room(bob, "12"), w.Room(bob, "11"), w.Room(bob, "12"), w.Room(bob, "12")
	for _, r := range []id.RoomID{joined, left, banned} {
		w.Membership(r, bob, alice, room.ActionInvite)
		w.Join(r, alice)
	}
	w.Membership(invited, bob, alice, room.ActionInvite)
	w.Membership(left, alice, alice, room.ActionLeave)
	w.Membership(banned, bob, alice, room.ActionBan)

	w.fail.Store(true)
	stop := w.consume()
	require.NoError(t, w.front.SetPassword(w.Ctx(), bob, "another", true, ""), "another change of somebody's sessions")
	require.NoError(t, w.front.Deactivate(w.Ctx(), alice, false))
	require.Contains(t, []id.RoomID{joined, invited}, <-w.tried)
	stop()
	require.Equal(t, roomdb.MembershipJoin, w.memberships(alice)[joined], "not yet")

	w.fail.Store(false)
	w.consume()
	require.Eventually(t, func() bool {
		m := w.memberships(alice)
		return m[joined] == roomdb.MembershipLeave && m[invited] == roomdb.MembershipLeave
	}, 20*time.Second, 10*time.Millisecond)
	require.Equal(t, roomdb.MembershipBan, w.memberships(alice)[banned], "a leave would lift the ban")
	require.Equal(t, roomdb.MembershipJoin, w.memberships(bob)[joined])
}
