package sender_test

import (
	"context"
	"errors"
	"fmt"
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

// counting is a transport that goes nowhere. Some servers are dead.
type counting struct {
	dead map[id.ServerName]bool
	left atomic.Int64
	done chan struct{}
}

// Send implements sender.Transport.
func (c *counting) Send(_ context.Context, to id.ServerName, _ string, _ []byte) ([]byte, error) {
	if c.dead[to] {
		return nil, errors.New("dead")
	}
	if c.left.Add(-1) == 0 {
		c.done <- struct{}{}
	}
	return []byte(`{"pdus":{}}`), nil
}

// Backoff implements sender.Transport.
func (c *counting) Backoff(_ context.Context, to id.ServerName) time.Duration {
	if c.dead[to] {
		return time.Hour
	}
	return 0
}

// BenchmarkEvent takes an event in and has it sent to every server in its room; what a server's transaction costs to sign and to carry is not in
// it.
func BenchmarkEvent(b *testing.B) {
	for _, x := range []struct{ hosts, dead int }{{1, 0}, {1000, 0}, {1000, 100}} {
		b.Run(fmt.Sprintf("hosts=%d/dead=%d", x.hosts, x.dead), func(b *testing.B) { benchmark(b, x.hosts, x.dead) })
	}
}

func benchmark(b *testing.B, hosts, dead int) {
	w := newWorld(b)
	r := w.Room(alice(), version)
	nid := w.nid(r)
	c := &counting{dead: map[id.ServerName]bool{}, done: make(chan struct{}, 1)}
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
		require.NoError(b, s.Apply(w.Ctx(), follow.Batch{
			Shard: nid.Shard(), Prev: at, Last: at + 1, Entries: []entry.At{{Shard: nid.Shard(), Pos: at + 1, Entry: e}},
		}))
		at++
		<-c.done
	}
	event()
	before := w.DB.Counter.Count()
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		event()
		n++
	}
	b.ReportMetric(float64(w.DB.Counter.Count()-before)/float64(n), "queries/op")
	b.ReportMetric(float64(hosts-dead)*float64(n)/b.Elapsed().Seconds(), "transactions/s")
}
