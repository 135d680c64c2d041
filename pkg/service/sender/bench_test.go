package sender_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/service/sender"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/senderdb"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// counting is a transport that goes nowhere. Some servers are dead: they refuse, or say nothing.
type counting struct {
	dead   map[id.ServerName]bool
	silent bool
	left   atomic.Int64
	done   chan struct{}

	mu    sync.Mutex // guards the two below
	begun time.Time
	took  []time.Duration // of each transaction since its event was told
}

// Send implements sender.Transport.
func (c *counting) Send(ctx context.Context, to id.ServerName, _ string, _ []byte) ([]byte, error) {
	if c.dead[to] {
		if c.silent {
			<-ctx.Done()
		}
		return nil, errors.New("dead")
	}
	c.mu.Lock()
	c.took = append(c.took, time.Since(c.begun))
	c.mu.Unlock()
	if c.left.Add(-1) == 0 {
		c.done <- struct{}{}
	}
	return []byte(`{"pdus":{}}`), nil
}

// Backoff implements sender.Transport.
func (c *counting) Backoff(_ context.Context, to id.ServerName) time.Duration {
	if c.dead[to] && !c.silent {
		return time.Hour
	}
	return 0 // of who is silent nobody knows yet
}

// BenchmarkEvent takes an event in and has it sent to every server in its room; what a server's transaction costs to sign and to carry is not in
// it.
func BenchmarkEvent(b *testing.B) {
	for _, x := range []struct {
		hosts, dead int
		silent      bool
	}{{1, 0, false}, {1000, 0, false}, {1000, 100, false}, {1000, 100, true}} {
		b.Run(fmt.Sprintf("hosts=%d/dead=%d/silent=%t", x.hosts, x.dead, x.silent), func(b *testing.B) { benchmark(b, x.hosts, x.dead, x.silent) })
	}
}

func benchmark(b *testing.B, hosts, dead int, silent bool) {
	w := newWorld(b)
	r := w.Room(alice(), version)
	nid := w.nid(r)
	c := &counting{dead: map[id.ServerName]bool{}, silent: silent, done: make(chan struct{}, 1)}
	for i := range hosts {
		if i < dead {
			c.dead[id.ServerName(fmt.Sprintf("h%d.test", i))] = true
		}
	}
	w.Exec(`INSERT INTO member (room_nid, user_id, membership, event_nid, pos, local) SELECT $1, '@u:h' || i || '.test', 4, 0, 0, false FROM generate_series(0, $2::int - 1) i`,
		int64(nid), hosts)
	s := sender.New(w.Ctx(), sender.Config{}, sender.Options{
		Server: roomtest.Server, Shards: w.Shards, DB: senderdb.NewDB(w.DB.DB), Cursors: w.Log(), Source: w.Log(), Transport: c,
		Devices: w.news, Budget: w.budget, Now: time.Now,
	})
	for n := range w.Shards.Count() {
		require.NoError(b, s.Opened(w.Ctx(), n, 0))
		defer s.Closing(w.Ctx(), n)
	}
	at := s.Applied(0, nid.Shard())
	pdu := []byte(fmt.Sprintf(`{"content":{"body":%q,"msgtype":"m.text"},"type":"m.room.message"}`, make([]byte, 200)))
	event := func() {
		e, err := entry.Event(nid, shard.MakeNid(nid.Shard(), int64(at)+1), &entry.EventBody{RoomId: string(r), Sender: string(alice()), Type: "m.room.message"}, pdu)
		require.NoError(b, err)
		c.left.Store(int64(hosts - dead))
		c.mu.Lock()
		c.begun = time.Now()
		c.mu.Unlock()
		require.NoError(b, s.Apply(w.Ctx(), follow.Batch{
			Shard: nid.Shard(), Prev: at, Last: at + 1, Entries: []entry.At{{Shard: nid.Shard(), Pos: at + 1, Entry: e}},
		}))
		at++
		<-c.done
	}
	event()
	before := w.DB.Counter.Count()
	c.mu.Lock()
	c.took = nil
	c.mu.Unlock()
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		event()
		n++
	}
	b.ReportMetric(float64(w.DB.Counter.Count()-before)/float64(n), "queries/op")
	b.ReportMetric(float64(hosts-dead)*float64(n)/b.Elapsed().Seconds(), "transactions/s")
	c.mu.Lock()
	defer c.mu.Unlock()
	slices.Sort(c.took)
	b.ReportMetric(float64(c.took[len(c.took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(c.took[len(c.took)*99/100].Microseconds())/1000, "p99-ms")
}
