package follow_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/infra/bus"
	"github.com/heddle-im/heddle/pkg/shardlog/commit"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/commitdb"
	"github.com/heddle-im/heddle/pkg/store/logdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
	"github.com/heddle-im/heddle/pkg/testkit/bustest"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
)

const (
	shards  = 4
	timeout = 60 * time.Second
	tick    = 5 * time.Millisecond
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

// house is a database, a bus, and one master that holds all shards.
type house struct {
	t         testing.TB
	db        *pgtest.DB
	nats      *bustest.Server
	bus       *bus.Bus
	log       *logdb.DB
	committer *commit.Committer
	next      atomic.Int64
}

type always struct{}

func (always) Valid(shard.ID, shard.Epoch) bool         { return true }
func (always) Moved(shard.ID, shard.Epoch, shard.Epoch) {}
func (always) Lost(shard.ID, shard.Epoch)               {}

func newHouse(t testing.TB) *house {
	h := &house{t: t, db: pgtest.New(t), nats: bustest.Listen(t)}
	h.bus = h.nats.Connect(follow.LogStream())
	h.log = logdb.NewDB(h.db.DB, shards)
	h.exec(`INSERT INTO shard_lease (shard, epoch, holder) SELECT generate_series(0, $1::int), 1, 'm1'`, shards-1)
	h.exec(`INSERT INTO role_lease (role, slot, epoch, holder) VALUES ('test', 0, 1, 'm1')`)
	h.next.Store(10)
	h.startMaster()
	return h
}

func (h *house) startMaster() {
	w := commitdb.NewWriter(commitdb.Options{Connect: h.db.DB.Connect, Shards: shards, Holder: func() string { return "m1" }})
	pub := follow.NewBusPublisher(h.bus)
	c := commit.New(commit.Config{PollInterval: 300 * time.Millisecond, MaxMessage: 8 << 10},
		commit.Options{Store: w, Publisher: pub, Leases: always{}})
	ctx := context.Background()
	require.NoError(h.t, pub.Start(ctx))
	require.NoError(h.t, c.Start(ctx))
	h.t.Cleanup(func() {
		require.NoError(h.t, c.Stop(ctx))
		require.NoError(h.t, pub.Stop(ctx))
		w.Close()
	})
	for s := range shards {
		require.NoError(h.t, c.Open(ctx, shard.ID(s), 1))
	}
	h.committer = c
}

func (h *house) exec(sql string, args ...any) {
	h.t.Helper()
	_, err := h.db.Pool.Exec(context.Background(), sql, args...)
	require.NoError(h.t, err)
}

// message is a proposal of some entries with their rows.
func (h *house) message(s shard.ID) *entry.Proposal {
	room := shard.MakeNid(s, 1)
	p := &entry.Proposal{Shard: s, Epoch: 1}
	for i := range 1 + rand.IntN(3) {
		n := h.next.Add(1)
		nid := shard.MakeNid(s, n)
		size := rand.IntN(900)
		if rand.IntN(50) == 0 {
			size = 20 << 10 // larger than a message
		}
		json := []byte(fmt.Sprintf(`{"n":%d,"pad":"%0*d"}`, n, size, 0))
		p.Entries = append(p.Entries, entry.Entry{
			Kind: entry.KindEvent, Room: room, Event: nid, Body: []byte(fmt.Sprint("body ", n)), JSON: json,
		})
		p.Rows = append(p.Rows, &roomdb.Event{
			Nid: nid, Room: room, Order: roomdb.Live(i), EventID: fmt.Sprint("$", n), Type: 7, Sender: 8, JSON: json,
		})
	}
	if rand.IntN(4) == 0 {
		p.Entries = append(p.Entries, entry.Entry{Kind: entry.KindAccountData, Subject: "@u:x", Body: []byte("data")})
	}
	return p
}

// load submits so many proposals, some at a time, and waits for their answers.
func (h *house) load(n int) {
	var wg sync.WaitGroup
	left := atomic.Int64{}
	left.Store(int64(n))
	for range 8 {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				ctx, cancel := context.WithTimeout(context.Background(), timeout)
				_, err := h.committer.Submit(h.message(shard.ID(rand.IntN(shards)))).Wait(ctx)
				cancel()
				if err != nil {
					h.t.Error("submit:", err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// midway waits until the load has made so many more entries, or has ended.
func (h *house) midway(entries int64) {
	want := h.next.Load() + entries
	deadline := time.After(time.Second)
	for h.next.Load() < want {
		select {
		case <-deadline:
			return
		case <-time.After(time.Millisecond):
		}
	}
}

// record is a consumer that writes down what it is told, and checks the order.
type record struct {
	t  testing.TB
	mu sync.Mutex
	by [shards][]entry.At
	// again allows that entries are told again from an earlier place on.
	again  bool
	resets []shard.Heads
	fail   func() error
}

func (r *record) Apply(_ context.Context, b follow.Batch) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		if err := r.fail(); err != nil {
			return err
		}
	}
	if b.Incarnation == 0 {
		r.t.Errorf("batch (%d, %d] of shard %s is of no incarnation", b.Prev, b.Last, b.Shard)
	}
	last := b.Prev
	for _, e := range b.Entries {
		if e.Shard != b.Shard || e.Pos <= last || e.Pos > b.Last {
			r.t.Errorf("entry %d of shard %s out of order in (%d, %d]", e.Pos, e.Shard, b.Prev, b.Last)
		}
		last = e.Pos
		list := r.by[b.Shard]
		if n := len(list); n > 0 && e.Pos <= list[n-1].Pos {
			if !r.again {
				r.t.Errorf("entry %d of shard %s came after %d", e.Pos, e.Shard, list[n-1].Pos)
			}
			for n > 0 && list[n-1].Pos >= e.Pos {
				n--
			}
			r.by[b.Shard] = list[:n]
		}
		r.by[b.Shard] = append(r.by[b.Shard], e)
	}
	return nil
}

func (r *record) Reset(_ context.Context, at shard.Heads) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.resets = append(r.resets, at)
	r.by = [shards][]entry.At{}
	return nil
}

// equalsDatabase waits until the follower has what the database has, and compares entry by entry.
func (r *record) equalsDatabase(h *house, f interface {
	WaitFor(context.Context, shard.ID, shard.Pos) error
},
) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	heads, err := h.log.Heads(ctx)
	require.NoError(r.t, err)
	if f != nil {
		for s, pos := range heads.Positions {
			require.NoError(r.t, f.WaitFor(ctx, shard.ID(s), pos))
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for s := range shards {
		want, err := logdb.ReadRange(ctx, h.db.Pool, shard.ID(s), 0, 1<<62, 1<<20)
		require.NoError(r.t, err)
		require.Len(r.t, r.by[s], len(want), "shard %d", s)
		for i := range want {
			require.Equal(r.t, want[i].Pos, r.by[s][i].Pos)
			require.Equal(r.t, string(want[i].Body), string(r.by[s][i].Body))
			require.Equal(r.t, string(want[i].JSON), string(r.by[s][i].JSON))
			require.Equal(r.t, want[i].Subject, r.by[s][i].Subject)
			require.Equal(r.t, want[i].Kind, r.by[s][i].Kind)
			require.Equal(r.t, want[i].Event, r.by[s][i].Event)
			require.Equal(r.t, want[i].Room, r.by[s][i].Room)
		}
	}
}

// follower starts one for r.
func (h *house) follower(stream follow.Stream, r *record, cfg follow.Config) *follow.Follower {
	h.t.Helper()
	if cfg.Poll == 0 {
		cfg.Poll = 100 * time.Millisecond
	}
	f := follow.New(cfg, follow.Options{Source: h.log, Stream: stream, Consumer: r})
	require.NoError(h.t, f.Start(context.Background()))
	h.t.Cleanup(func() { require.NoError(h.t, f.Stop(context.Background())) })
	return f
}

// wild is a stream that does to messages what a network might.
type wild struct {
	inner              follow.Stream
	lose, repeat, swap int // one of so many; 0: none
	renumber           bool
}

func (w *wild) Subscribe(ctx context.Context, deliver func(follow.Message)) error {
	var held *follow.Message
	odds := func(n int) bool { return n > 0 && rand.IntN(n) == 0 }
	seq := uint64(0)
	give := func(m follow.Message) {
		if w.renumber { // the stream's numbers show no hole
			seq++
			m.Seq = seq
		}
		deliver(m)
	}
	return w.inner.Subscribe(ctx, func(m follow.Message) {
		switch {
		case odds(w.lose):
			return
		case odds(w.repeat):
			give(m)
			give(m)
		case odds(w.swap) && held == nil:
			held = &m
			return
		default:
			give(m)
		}
		if held != nil {
			give(*held)
			held = nil
		}
	})
}

// switching is a source that can be away, and come back as another.
type switching struct {
	follow.Source
	mu sync.Mutex
}

var errAway = errors.New("database is away")

func (s *switching) set(src follow.Source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Source = src
}

func (s *switching) get() (follow.Source, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Source == nil {
		return nil, errAway
	}
	return s.Source, nil
}

func (s *switching) Heads(ctx context.Context) (shard.Heads, error) {
	src, err := s.get()
	if err != nil {
		return shard.Heads{}, err
	}
	return src.Heads(ctx)
}

func (s *switching) Read(ctx context.Context, from shard.Heads, piece func(shard.ID, []entry.At) error) (shard.Heads, error) {
	src, err := s.get()
	if err != nil {
		return shard.Heads{}, err
	}
	return src.Read(ctx, from, piece)
}

func (s *switching) History(ctx context.Context) (shard.History, error) {
	src, err := s.get()
	if err != nil {
		return nil, err
	}
	return src.History(ctx)
}
