package msync_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/msync"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// pieces takes an answer as it is made.
type pieces struct {
	list [][]byte
	each func() error // after each
}

func (p *pieces) Write(b []byte) (int, error) {
	p.list = append(p.list, bytes.Clone(b))
	return len(b), p.each()
}

// failing is a replica of which every read fails once.
type failing struct{}

func (failing) Read(ctx context.Context, _ shard.Heads, read func(context.Context) error) error {
	gone, leave := context.WithCancel(ctx)
	leave()
	if read(gone) == nil {
		return errors.New("a read that could not be done is answered")
	}
	return read(ctx)
}

func (failing) Away(context.Context) bool { return false }

// manyRooms makes a user of many rooms.
func manyRooms(t *testing.T) *roomtest.World {
	w := roomtest.New(t)
	for range 150 {
		w.Room(roomtest.User("alice"), roomver.Default)
	}
	w.Create(room.CreateRoom{Creator: roomtest.As(roomtest.User("bob")), Invite: []room.Invitation{{User: roomtest.User("alice")}}})
	return w
}

// What tells everything is written in pieces, which together are the answer; who writes them holds no turn. What is read again on the
// primary because the replica has failed is written once.
func TestAFirstSyncIsWrittenAsItIsMade(t *testing.T) {
	w := manyRooms(t)
	alice := roomtest.User("alice")
	for name, replica := range map[string]msync.Replica{"primary": nil, "replica": failing{}} {
		s := startWith(t, w, 256<<20, func(o *msync.Options) { o.Replica = replica })
		s.settled(t, w)
		whole, err := s.Sync(t.Context(), msync.Request{User: alice})
		require.NoError(t, err)
		want := parse(t, whole)
		require.Len(t, want.Rooms.Join, 150)
		require.Len(t, want.Rooms.Invite, 1)
		for _, q := range []msync.Request{{User: alice}, {User: alice, Since: want.Next, FullState: true}} {
			got := pieces{each: func() error { require.Zero(t, s.Reading(), name); return nil }}
			body, p, err := s.BeginTo(t.Context(), q, &got)
			require.NoError(t, err, name)
			require.Nil(t, p)
			require.Nil(t, body)
			require.Greater(t, len(got.list), 2)
			for _, b := range got.list {
				require.Less(t, len(b), len(whole)/2)
			}
			told := parse(t, bytes.Join(got.list, nil))
			require.Equal(t, want.Next, told.Next)
			require.Len(t, told.Rooms.Join, 150)
			if q.Since == "" {
				require.Equal(t, want.Rooms, told.Rooms)
			}
		}
		w.Send(anyRoom(want), alice, "hello")
		s.settled(t, w)
		body, p, err := s.BeginTo(t.Context(), msync.Request{User: alice, Since: want.Next}, &pieces{})
		require.NoError(t, err)
		require.Nil(t, p)
		require.Len(t, parse(t, body).Rooms.Join, 1, "what tells little is given")
	}
}

// Clients that take nothing of their answers keep nobody from theirs.
func TestSlowClientsDelayNobody(t *testing.T) {
	w := manyRooms(t)
	s := start(t, w, 256<<20)
	s.settled(t, w)
	const slow = 3 * 16
	taken, resume, done := make(chan struct{}, 4*slow), make(chan struct{}), make(chan error, slow)
	for range slow {
		go func() {
			var got pieces
			got.each = func() error {
				taken <- struct{}{}
				<-resume
				return nil
			}
			_, _, err := s.BeginTo(t.Context(), msync.Request{User: roomtest.User("alice")}, &got)
			done <- err
		}()
	}
	for range slow {
		<-taken
	}
	require.Zero(t, s.Reading())
	require.Len(t, s.sync(t, msync.Request{User: roomtest.User("bob")}).Rooms.Join, 1)
	close(resume)
	for range slow {
		require.NoError(t, <-done)
	}
}

// A client that leaves in the middle of its answer, while the next piece is being read, ends the reading.
func TestAFirstSyncEndsWithItsClient(t *testing.T) {
	w := manyRooms(t)
	s := start(t, w, 256<<20)
	s.settled(t, w)
	alice := roomtest.User("alice")
	there, err := pgx.Connect(t.Context(), w.DB.DSN)
	require.NoError(t, err)
	t.Cleanup(func() { _ = there.Close(context.Background()) })
	tx, err := w.DB.Pool.Begin(t.Context())
	require.NoError(t, err)
	var got pieces
	got.each = func() error {
		_, err := tx.Exec(t.Context(), `LOCK TABLE event IN ACCESS EXCLUSIVE MODE`)
		return err
	}
	ctx, leave := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, _, err := s.BeginTo(ctx, msync.Request{User: alice}, &got)
		done <- err
	}()
	blocked := func() (n int) {
		require.NoError(t, there.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%TimelineBackward%'`).Scan(&n))
		return n
	}
	require.Eventually(t, func() bool { return blocked() > 0 }, time.Minute, time.Millisecond)
	leave()
	require.ErrorIs(t, <-done, context.Canceled)
	require.Zero(t, s.Reading())
	require.Eventually(t, func() bool { return blocked() == 0 }, time.Minute, time.Millisecond)
	require.NoError(t, tx.Rollback(t.Context()))
	require.Len(t, got.list, 1)
	require.Len(t, s.sync(t, msync.Request{User: alice}).Rooms.Join, 150)

	broken := errors.New("broken")
	got = pieces{each: func() error { return broken }}
	_, _, err = s.BeginTo(t.Context(), msync.Request{User: alice}, &got)
	require.ErrorIs(t, err, broken)
	require.Len(t, got.list, 1)
}

func anyRoom(a toldAll) id.RoomID {
	for r := range a.Rooms.Join {
		return id.RoomID(r)
	}
	return ""
}
