package msync_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/filter"
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

// manyRooms makes a user of many rooms, some of which have much to tell.
func manyRooms(t *testing.T) *roomtest.World {
	w := roomtest.New(t)
	alice, bob := roomtest.User("alice"), roomtest.User("bob")
	for i := range 100 {
		r := w.Room(alice, roomver.Default)
		w.Join(r, bob)
		if i%2 == 0 {
			w.Send(r, alice, strings.Repeat("weft ", 8000))
		}
	}
	w.Create(room.CreateRoom{Creator: roomtest.As(bob), Invite: []room.Invitation{{User: alice}}})
	return w
}

// What is long is written in pieces, which together are the answer; who writes them holds no turn. What is read again on the primary because the
// replica has failed is written once.
func TestALongAnswerIsWrittenAsItIsMade(t *testing.T) {
	w := manyRooms(t)
	alice := roomtest.User("alice")
	for name, replica := range map[string]msync.Replica{"primary": nil, "replica": failing{}} {
		s := startWith(t, w, 256<<20, func(o *msync.Options) { o.Replica = replica })
		s.settled(t, w)
		whole, err := s.Sync(t.Context(), msync.Request{User: alice})
		require.NoError(t, err)
		want := parse(t, whole)
		require.Len(t, want.Rooms.Join, 100)
		require.Len(t, want.Rooms.Invite, 1)
		written := func(q msync.Request, least int) toldAll {
			q.User = alice
			got := pieces{each: func() error { require.Zero(t, s.Reading(), name); return nil }}
			body, p, err := s.Begin(t.Context(), q, &got)
			require.NoError(t, err, name)
			require.Nil(t, p)
			require.Nil(t, body)
			require.GreaterOrEqual(t, len(got.list), least)
			return parse(t, bytes.Join(got.list, nil))
		}
		require.Equal(t, want.Rooms, written(msync.Request{}, 4).Rooms)
		require.Len(t, written(msync.Request{Since: want.Next, FullState: true}, 2).Rooms.Join, 100)

		for r := range want.Rooms.Join {
			w.Send(id.RoomID(r), alice, strings.Repeat("warp ", 8000))
		}
		s.settled(t, w)
		s.Squeeze() // who comes after a long time
		require.Len(t, written(msync.Request{Since: want.Next}, 6).Rooms.Join, 100)
	}
}

// What is short is given, and nothing is written of an answer that may not be given, whatever was read for it.
func TestWhatIsShortIsNotWritten(t *testing.T) {
	w := manyRooms(t)
	alice := roomtest.User("alice")
	s := start(t, w, 256<<20)
	s.settled(t, w)
	all, err := s.Sync(t.Context(), msync.Request{User: alice})
	require.NoError(t, err)
	first := parse(t, all)
	nobody := pieces{each: func() error { return errors.New("something is written") }}
	w.Send(anyRoom(first), alice, "hello")
	s.settled(t, w)
	body, p, err := s.Begin(t.Context(), msync.Request{User: alice, Since: first.Next}, &nobody)
	require.NoError(t, err)
	require.Nil(t, p)
	next := parse(t, body)
	require.Len(t, next.Rooms.Join, 1)

	for r := range first.Rooms.Join {
		w.Do(&room.Send{Room: id.RoomID(r), By: roomtest.As(roomtest.User("bob")), Type: "org.example.unheard", Content: []byte(`{}`)})
	}
	s.settled(t, w)
	s.Squeeze()
	f, err := filter.Parse([]byte(`{"room":{"timeline":{"not_types":["org.example.unheard"]},"ephemeral":{"types":[]},"state":{"types":[]}},"presence":{"types":[]}}`))
	require.NoError(t, err)
	body, p, err = s.Begin(t.Context(), msync.Request{User: alice, Since: next.Next, Filter: f, Timeout: time.Minute}, &nobody)
	require.NoError(t, err)
	require.Nil(t, body)
	require.NotNil(t, p, "it waits")
	ctx, leave := context.WithCancel(t.Context())
	leave()
	_, err = p.Wait(ctx)
	require.ErrorIs(t, err, context.Canceled)
}

// Clients that take nothing of their answers keep nobody from theirs.
func TestSlowClientsDelayNobody(t *testing.T) {
	w := manyRooms(t)
	s := start(t, w, 256<<20)
	s.settled(t, w)
	const slow = 3 * 16
	taken, resume, done := make(chan struct{}, slow), make(chan struct{}), make(chan error, slow)
	for range slow {
		go func() {
			var got pieces
			got.each = func() error {
				if len(got.list) == 1 {
					taken <- struct{}{}
				}
				<-resume
				return nil
			}
			_, _, err := s.Begin(t.Context(), msync.Request{User: roomtest.User("alice")}, &got)
			done <- err
		}()
	}
	for range slow {
		<-taken
	}
	require.Zero(t, s.Reading())
	require.Len(t, s.sync(t, msync.Request{User: roomtest.User("bob")}).Rooms.Join, 101)
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
		_, _, err := s.Begin(ctx, msync.Request{User: alice}, &got)
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
	require.Len(t, s.sync(t, msync.Request{User: alice}).Rooms.Join, 100)

	broken := errors.New("broken")
	got = pieces{each: func() error { return broken }}
	_, _, err = s.Begin(t.Context(), msync.Request{User: alice}, &got)
	require.ErrorIs(t, err, broken)
	require.Len(t, got.list, 1)
}

func anyRoom(a toldAll) id.RoomID {
	for r := range a.Rooms.Join {
		return id.RoomID(r)
	}
	return ""
}
