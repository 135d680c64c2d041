package room_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/shardlog/commit"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// nowhere is a store that commits nothing, once it is told to.
type nowhere struct {
	commit.Store
	on atomic.Bool
}

func (n *nowhere) wrap(s commit.Store) commit.Store {
	n.Store = s
	return n
}

func (n *nowhere) Commit(ctx context.Context, b []commit.Batch) error {
	if n.on.Load() {
		return nil
	}
	return n.Store.Commit(ctx, b)
}

// BenchmarkSend is a warm message send: with a store that does nothing, and with PostgreSQL; by one sender, and by many into one
// room and into 100.
func BenchmarkSend(b *testing.B) {
	for _, durable := range []bool{false, true} {
		for _, c := range []struct{ rooms, senders int }{{1, 1}, {1, 64}, {100, 64}} {
			b.Run(fmt.Sprintf("postgres=%t/rooms=%d/senders=%d", durable, c.rooms, c.senders), func(b *testing.B) {
				n := &nowhere{}
				w := roomtest.New(b, roomtest.WithStore(n.wrap))
				var rooms []id.RoomID
				for range c.rooms {
					r := w.Room(alice, roomver.Default)
					w.Send(r, alice, "warm")
					rooms = append(rooms, r)
				}
				n.on.Store(!durable)
				var at atomic.Int64
				ctx := context.Background()
				b.ReportAllocs()
				b.ResetTimer()
				b.SetParallelism(c.senders)
				if c.senders == 1 {
					for b.Loop() {
						_, err := w.Host.Do(ctx, nil, message(rooms[0], alice, "a message of ordinary length, as people write them", ""))
						require.NoError(b, err)
					}
				} else {
					b.RunParallel(func(p *testing.PB) {
						for p.Next() {
							r := rooms[int(at.Add(1))%len(rooms)]
							if _, err := w.Host.Do(ctx, nil, message(r, alice, "a message of ordinary length, as people write them", "")); err != nil {
								b.Error(err)
							}
						}
					})
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
			})
		}
	}
}
