package msync_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/matrix/filter"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/msync"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// largeAccount makes a user of 1,000 rooms with 100 members each, the same people everywhere, and 20 messages in each room.
func largeAccount(b *testing.B) (*roomtest.World, id.UserID) {
	const rooms, members, messages = 1000, 100, 20
	w := roomtest.New(b)
	alice := roomtest.User("alice")
	var all errgroup.Group
	all.SetLimit(64)
	for range rooms {
		r := w.Room(alice, roomver.Default)
		all.Go(func() error {
			do := func(cmd room.Command) error {
				_, err := w.Host.Do(context.Background(), nil, cmd)
				return err
			}
			for i := 1; i < members; i++ {
				u := roomtest.User(fmt.Sprintf("member%d", i))
				if err := do(&room.SetMembership{Room: r, By: roomtest.As(u), Target: u, Action: room.ActionJoin}); err != nil {
					return err
				}
			}
			for i := range messages {
				u := roomtest.User(fmt.Sprintf("member%d", i%10+1))
				if err := do(&room.Send{Room: r, By: roomtest.As(u), Type: "m.room.message", Content: roomtest.Message(fmt.Sprint("message ", i))}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	require.NoError(b, all.Wait())
	w.Exec(`ANALYZE`)
	return w, alice
}

// BenchmarkInitial answers the first sync of a user of 1,000 rooms with 100 members each, as clients ask: members are loaded lazily. Cold
// is a worker that has just begun, and warm one that has answered it before.
func BenchmarkInitial(b *testing.B) {
	w, alice := largeAccount(b)
	f, err := filter.Parse([]byte(`{"room":{"timeline":{"limit":20},"state":{"lazy_load_members":true}}}`))
	require.NoError(b, err)
	q := msync.Request{User: alice, Filter: f}
	sync := func(b *testing.B, s *worker) {
		var n length
		_, _, err := s.Begin(b.Context(), q, &n)
		require.NoError(b, err)
		b.ReportMetric(float64(n), "B/answer")
	}
	sliding := func(b *testing.B, s *worker) {
		ctx, tally := pg.WithTally(b.Context())
		defer func() {
			b.ReportMetric(float64(tally.Count()), "queries")
			b.ReportMetric(float64(tally.Rows()), "rows")
		}()
		body, err := s.slideRaw(ctx, ask(b, alice, "", elementX))
		require.NoError(b, err)
		b.ReportMetric(float64(len(body)), "B/answer")
	}
	for _, c := range []struct {
		name string
		do   func(*testing.B, *worker)
	}{{"sync", sync}, {"sliding", sliding}} {
		b.Run(c.name+"/cold", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				s := start(b, w, 1<<30)
				s.settled(b, w)
				b.StartTimer()
				c.do(b, s)
			}
		})
		b.Run(c.name+"/warm", func(b *testing.B) {
			s := start(b, w, 1<<30)
			s.settled(b, w)
			c.do(b, s)
			b.ReportAllocs()
			for b.Loop() {
				c.do(b, s)
			}
		})
	}
}

// length takes an answer as it is made, and counts it.
type length int64

func (n *length) Write(b []byte) (int, error) {
	*n += length(len(b))
	return len(b), nil
}

// BenchmarkIncremental answers a sync after one message in one of 100 rooms, from memory.
func BenchmarkIncremental(b *testing.B) {
	w := roomtest.New(b)
	alice := roomtest.User("alice")
	var r id.RoomID
	for range 100 {
		r = w.Room(alice, roomver.Default)
	}
	s := start(b, w, 256<<20)
	s.settled(b, w)
	since := s.sync(b, msync.Request{User: alice}).Next
	w.Send(r, alice, "one")
	s.settled(b, w)
	f, err := filter.Parse([]byte(`{"room":{"timeline":{"limit":20},"state":{"lazy_load_members":true}}}`))
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		_, _, err := s.Begin(b.Context(), msync.Request{User: alice, Since: since, Filter: f}, nil)
		require.NoError(b, err)
	}
}
