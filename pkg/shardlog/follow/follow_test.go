package follow_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/infra/bus"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// Each case does something to the messages; the end is always the database's state, every entry once and in order.
func TestMessagesOnTheirWay(t *testing.T) {
	for name, w := range map[string]wild{
		"all well":                {},
		"lost":                    {lose: 5},
		"lost without a hole":     {lose: 5, renumber: true},
		"all lost":                {lose: 1},
		"repeated":                {repeat: 3},
		"swapped":                 {swap: 3},
		"lost, repeated, swapped": {lose: 7, repeat: 5, swap: 4},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			w.inner = follow.NewBusStream(h.bus)
			r := &record{t: t}
			f := h.follower(&w, r, follow.Config{})
			h.load(200)
			r.equalsDatabase(h, f)
		})
	}
}

func TestNoStreamAtAll(t *testing.T) {
	h := newHouse(t)
	r := &record{t: t}
	f := h.follower(nil, r, follow.Config{})
	h.load(50)
	r.equalsDatabase(h, f)
	reg := prometheus.NewPedanticRegistry()
	require.NoError(t, reg.Register(f.Metrics("test")))
	families, err := reg.Gather()
	require.NoError(t, err)
	require.Len(t, families, 4)
}

func TestLittleRoomForMessages(t *testing.T) {
	h := newHouse(t)
	r := &record{t: t}
	f := h.follower(follow.NewBusStream(h.bus), r, follow.Config{Buffer: 1})
	h.load(200)
	r.equalsDatabase(h, f)
}

func TestFastPathNeedsNoDatabase(t *testing.T) {
	h := newHouse(t)
	r := &record{t: t}
	f := h.follower(follow.NewBusStream(h.bus), r, follow.Config{Poll: time.Hour})
	require.NoError(t, h.bus.Flush(context.Background()))
	// The subscription may begin after the start; what was missed before it is found by the first message.
	_, err := h.committer.Submit(small(0)).Wait(context.Background())
	require.NoError(t, err)
	_, err = h.committer.Submit(small(0)).Wait(context.Background())
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	require.NoError(t, f.WaitFor(ctx, 0, 2))
	counter := &counting{Source: h.log}
	r2 := &record{t: t}
	f2 := follow.New(follow.Config{Poll: time.Hour}, follow.Options{Source: counter, Stream: follow.NewBusStream(h.bus), Consumer: r2})
	require.NoError(t, f2.Start(ctx))
	defer func() { require.NoError(t, f2.Stop(ctx)) }()
	last := shard.Pos(0)
	for i := range 50 {
		p := small(1)
		if i%10 == 9 { // positions that are left free are no hole in the log
			p.Room = 1000
		}
		out, err := h.committer.Submit(p).Wait(ctx)
		require.NoError(t, err)
		require.Equal(t, last+1+shard.Pos(p.Room), out.First)
		last = out.Last
	}
	require.NoError(t, f2.WaitFor(ctx, 1, last))
	require.LessOrEqual(t, counter.reads.Load(), int64(1), "entries came by messages")
}

func small(s shard.ID) *entry.Proposal {
	return &entry.Proposal{Shard: s, Epoch: 1, Entries: []entry.Entry{{Kind: entry.KindAccountData, Subject: "@u:x", Body: []byte("x")}}}
}

// counting counts reads of the log.
type counting struct {
	follow.Source
	reads, heads atomic.Int64
}

func (c *counting) Read(ctx context.Context, from shard.Heads, piece func(shard.ID, []entry.At) error) (shard.Heads, error) {
	c.reads.Add(1)
	return c.Source.Read(ctx, from, piece)
}

func (c *counting) Heads(ctx context.Context) (shard.Heads, error) {
	c.heads.Add(1)
	return c.Source.Heads(ctx)
}

func TestStreamDeletedUnderLoad(t *testing.T) {
	h := newHouse(t)
	r := &record{t: t}
	f := h.follower(follow.NewBusStream(h.bus), r, follow.Config{})
	var wg sync.WaitGroup
	wg.Go(func() { h.load(300) })
	h.midway(40)
	h.nats.Stop() // the streams are in memory
	h.nats.Start()
	wg.Wait()
	h.load(100)
	r.equalsDatabase(h, f)
}

func TestNATSDownUnderLoadAndBack(t *testing.T) {
	h := newHouse(t)
	r := &record{t: t}
	f := h.follower(follow.NewBusStream(h.bus), r, follow.Config{})
	h.load(50)
	h.nats.Stop()
	h.load(60) // answered all the same, a poll interval after the commit
	r.equalsDatabase(h, f)
	h.nats.Start()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	require.NoError(t, h.bus.AwaitConnected(ctx))
	h.load(100)
	r.equalsDatabase(h, f)
}

func TestConsumerRestartedInTheMiddle(t *testing.T) {
	h := newHouse(t)
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	r := &record{t: t, again: true}
	var wg sync.WaitGroup
	wg.Go(func() { h.load(400) })
	var d *follow.Durable
	for range 5 {
		d = follow.NewDurable(follow.Config{Poll: 50 * time.Millisecond}, follow.DurableOptions{
			Name: "test", Role: follow.Role{Name: "test", Slot: 0, Epoch: 1}, Cursors: h.log, Source: h.log,
			Stream: follow.NewBusStream(h.bus), Consumer: r, SaveEvery: 10 * time.Millisecond,
		})
		require.NoError(t, d.Start(ctx))
		h.midway(40)
		require.NoError(t, d.Stop(ctx))
	}
	wg.Wait()
	d = follow.NewDurable(follow.Config{Poll: 50 * time.Millisecond}, follow.DurableOptions{
		Name: "test", Role: follow.Role{Name: "test", Slot: 0, Epoch: 1}, Cursors: h.log, Source: h.log, Consumer: r,
		SaveEvery: 10 * time.Millisecond,
	})
	require.NoError(t, d.Start(ctx))
	heads, err := h.log.Heads(ctx)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		at, err := h.log.LoadCursor(ctx, "test")
		return err == nil && at.Positions.AtLeast(heads.Positions)
	}, timeout, tick)
	require.NoError(t, d.Stop(ctx))
	r.equalsDatabase(h, nil)
}

func TestDurableConsumerThatFailsIsToldAgain(t *testing.T) {
	h := newHouse(t)
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var failures atomic.Int64
	r := &record{t: t, again: true, fail: func() error {
		if failures.Add(1)%3 != 0 {
			return errors.New("not now")
		}
		return nil
	}}
	h.load(20)
	d := follow.NewDurable(follow.Config{Poll: 50 * time.Millisecond, Retry: time.Millisecond}, follow.DurableOptions{
		Name: "test", Role: follow.Role{Name: "test", Epoch: 1}, Cursors: h.log, Source: h.log, Consumer: r, SaveEvery: tick,
	})
	require.NoError(t, d.Start(ctx))
	defer func() { require.NoError(t, d.Stop(ctx)) }()
	heads, err := h.log.Heads(ctx)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		at, err := h.log.LoadCursor(ctx, "test")
		return err == nil && at.Positions.AtLeast(heads.Positions)
	}, timeout, tick)
	r.equalsDatabase(h, nil)
	// Another takes the role: the place is not stored any more, and the consumer says so.
	h.exec(`UPDATE role_lease SET epoch = 2`)
	h.load(10)
	select {
	case err := <-d.Failed():
		require.ErrorIs(t, err, follow.ErrRoleLost)
	case <-ctx.Done():
		t.Fatal("it did not notice")
	}
}

// late puts off what it is told until it is flushed, as often as that succeeds.
type late struct {
	record
	mu   sync.Mutex
	held []follow.Batch
	fail func() error
}

func (l *late) Apply(_ context.Context, b follow.Batch) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = append(l.held, b)
	return nil
}

func (l *late) Flush(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.fail(); err != nil {
		return err
	}
	for _, b := range l.held {
		if err := l.record.Apply(ctx, b); err != nil {
			return err
		}
	}
	l.held = nil
	return nil
}

// A place is stored after what was put off has been brought about, and not when that fails.
func TestPlaceOfAConsumerThatPutsOff(t *testing.T) {
	h := newHouse(t)
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var failing atomic.Bool
	failing.Store(true)
	var tried atomic.Int64
	l := &late{record: record{t: t, again: true}, fail: func() error {
		tried.Add(1)
		if failing.Load() {
			return errors.New("not now")
		}
		return nil
	}}
	d := follow.NewDurable(follow.Config{Poll: 50 * time.Millisecond}, follow.DurableOptions{
		Name: "test", Role: follow.Role{Name: "test", Epoch: 1}, Cursors: h.log, Source: h.log, Consumer: l, SaveEvery: tick,
	})
	before, err := h.log.LoadCursor(ctx, "test")
	require.NoError(t, err)
	require.NoError(t, d.Start(ctx))
	h.load(20)
	require.Eventually(t, func() bool { return tried.Load() > 3 }, timeout, tick)
	at, err := h.log.LoadCursor(ctx, "test")
	require.NoError(t, err)
	require.Equal(t, before.Positions, at.Positions)
	failing.Store(false)
	heads, err := h.log.Heads(ctx)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		at, err := h.log.LoadCursor(ctx, "test")
		return err == nil && at.Positions.AtLeast(heads.Positions)
	}, timeout, tick)
	require.NoError(t, d.Stop(ctx))
	l.equalsDatabase(h, nil)
}

func TestFilterSkipsAndAdvances(t *testing.T) {
	h := newHouse(t)
	r := &record{t: t}
	f := follow.New(follow.Config{Poll: 50 * time.Millisecond}, follow.Options{
		Source: h.log, Stream: follow.NewBusStream(h.bus), Consumer: r,
		Filter: func(k entry.Kind, _ shard.Nid, subject []byte) bool {
			return k == entry.KindAccountData && string(subject) == "@u:x"
		},
	})
	require.NoError(t, f.Start(context.Background()))
	defer func() { require.NoError(t, f.Stop(context.Background())) }()
	h.load(100)
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	heads, err := h.log.Heads(ctx)
	require.NoError(t, err)
	require.NoError(t, f.Reach(ctx, heads))
	require.True(t, f.Positions().Positions.AtLeast(heads.Positions))
	n := 0
	for _, list := range r.by {
		for _, e := range list {
			require.Equal(t, entry.KindAccountData, e.Kind)
			n++
		}
	}
	var want int
	require.NoError(t, h.db.Pool.QueryRow(ctx, `SELECT count(*) FROM log WHERE kind = 3`).Scan(&want))
	require.Equal(t, want, n)
}

func TestUnknownKindAdvancesAndMakesUnready(t *testing.T) {
	h := newHouse(t)
	r := &record{t: t}
	f := h.follower(follow.NewBusStream(h.bus), r, follow.Config{})
	require.NoError(t, f.Ready(context.Background()))
	p := small(2)
	p.Entries[0].Kind = 200
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	out, err := h.committer.Submit(p).Wait(ctx)
	require.NoError(t, err)
	require.NoError(t, f.WaitFor(ctx, 2, out.Last))
	require.ErrorIs(t, f.Ready(ctx), follow.ErrUnknownKind)
	require.Empty(t, r.by[2])
}

func TestTrimmedLogIsKeptForCursorsAndResetsWhoIsBehind(t *testing.T) {
	h := newHouse(t)
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	role := shard.Role{Name: "test", Epoch: 1}
	h.load(100)
	_, err := h.log.LoadCursor(ctx, "slow")
	require.NoError(t, err)
	n, held, err := h.log.Trim(ctx, role, 0, 0, 1000)
	require.NoError(t, err)
	require.True(t, held)
	require.Zero(t, n, "a durable consumer has not passed them")
	heads, err := h.log.Heads(ctx)
	require.NoError(t, err)
	held, err = h.log.SaveCursor(ctx, "slow", role, heads.Positions)
	require.NoError(t, err)
	require.True(t, held)
	n, _, err = h.log.Trim(ctx, role, 0, 5, 10)
	require.NoError(t, err)
	require.Equal(t, int64(10), n, "in bounded pieces")
	for n > 0 {
		n, _, err = h.log.Trim(ctx, role, 0, 0, 10)
		require.NoError(t, err)
	}
	after, err := h.log.Heads(ctx)
	require.NoError(t, err)
	require.Equal(t, heads, after, "a log that was trimmed to nothing keeps its head")
	_, held, err = h.log.Trim(ctx, shard.Role{Name: "test", Epoch: 7}, 1, 0, 10)
	require.NoError(t, err)
	require.False(t, held)

	from := shard.Heads{Incarnation: heads.Incarnation, Positions: make(shard.Vector, shards)}
	_, err = h.log.Read(ctx, from, func(shard.ID, []entry.At) error { t.Error("called"); return nil })
	require.ErrorIs(t, err, shard.ErrTrimmed)
	r := &record{t: t}
	f := follow.New(follow.Config{}, follow.Options{Source: h.log, Consumer: r, From: &from})
	require.NoError(t, f.Start(ctx))
	require.Len(t, r.resets, 1)
	require.Equal(t, heads, f.Positions())
	require.NoError(t, f.Stop(ctx))
}

func TestIndexSharesQueriesBegunAfterTheRequest(t *testing.T) {
	h := newHouse(t)
	src := &counting{Source: h.log}
	x := follow.NewIndex(src)
	defer x.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 10 {
				out, err := h.committer.Submit(small(3)).Wait(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				heads, err := x.Heads(ctx)
				if err != nil || heads.Positions[3] < out.Last {
					t.Errorf("own write at %d is not in %v (%v)", out.Last, heads, err)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("160 requests, %d queries", src.heads.Load())
	require.Less(t, src.heads.Load(), int64(160))
}

func TestGarbageOnTheStream(t *testing.T) {
	h := newHouse(t)
	r := &record{t: t}
	f := h.follower(follow.NewBusStream(h.bus), r, follow.Config{})
	h.load(20)
	for _, data := range [][]byte{nil, {0xff}, []byte("garbage"), {0x10, 0xff, 0x01}} {
		_, err := h.bus.PublishStream(bus.Message{Subject: "log.0", Data: data})
		require.NoError(t, err)
	}
	h.load(20)
	r.equalsDatabase(h, f)
}
