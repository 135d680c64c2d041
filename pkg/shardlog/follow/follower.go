package follow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// Config sets a follower's paces. The zero value of a field means its default.
type Config struct {
	// Poll is how often all heads are read. A little under the second after which a writer answers whose publication was not
	// acknowledged, so that the follower has read by then. Default 900 ms.
	Poll time.Duration
	// Grace is how long a head that was read from the database may be ahead before the gap is filled from there, if the stream is
	// delivering: its messages are mostly just under way. Default 20 ms.
	Grace time.Duration
	// Buffer is how many messages wait while the database is read; what is more is dropped, and read from there. Default 1024.
	Buffer int
	// Retry is how long after a failure the database is asked again. Default 100 ms.
	Retry time.Duration
}

func (c Config) withDefaults() Config {
	if c.Poll == 0 {
		c.Poll = 900 * time.Millisecond
	}
	if c.Grace == 0 {
		c.Grace = 20 * time.Millisecond
	}
	if c.Buffer == 0 {
		c.Buffer = 1024
	}
	if c.Retry == 0 {
		c.Retry = 100 * time.Millisecond
	}
	return c
}

// Options are what a follower needs beside its configuration. Stream, Filter, From and Log may be nil.
type Options struct {
	Source   Source
	Stream   Stream
	Consumer Consumer
	// Filter says which entries the consumer wants; nil: all.
	Filter Filter
	// From is where to begin; nil: at the heads as of the start, of which the consumer is told by Reset if it has it.
	From *shard.Heads
	Log  *slog.Logger
}

// Follower follows all shards' logs for one consumer. It is a lifecycle service.
type Follower struct {
	cfg      Config
	source   Source
	stream   Stream
	consumer Consumer
	filter   Filter
	from     *shard.Heads
	log      *slog.Logger

	tasks    *lifecycle.Tasks
	messages chan Message
	polled   chan shard.Heads // capacity 1: what the last poll read
	ask      chan struct{}    // capacity 1: poll now
	failed   chan error       // capacity 1
	ended    chan struct{}    // closed when the follower has stopped

	fills atomic.Int64 // gaps filled from the database

	// Owned by the following goroutine.
	nextSeq  uint64
	lastSeen time.Time    // of the last message
	wanted   shard.Vector // heads that were read and are not reached
	due      *time.Timer  // when the gap to wanted is filled

	mu      sync.Mutex // guards what follows; written by the following goroutine, and by the polling one where said
	at      shard.Heads
	waiters map[shard.ID][]waiter
	heads   shard.Vector // newest heads known
	asOf    time.Time    // when the last poll that succeeded began; by the polling goroutine
	unknown entry.Kind   // an unknown kind that was met
	stopped bool
}

type waiter struct {
	pos  shard.Pos
	done chan struct{}
}

// New makes a follower. Nothing happens before Start.
func New(cfg Config, o Options) *Follower {
	cfg = cfg.withDefaults()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	due := time.NewTimer(time.Hour)
	due.Stop()
	return &Follower{
		cfg: cfg, source: o.Source, stream: o.Stream, consumer: o.Consumer, filter: o.Filter, from: o.From, log: o.Log,
		tasks:    lifecycle.NewTasks(context.Background()),
		messages: make(chan Message, cfg.Buffer),
		polled:   make(chan shard.Heads, 1), ask: make(chan struct{}, 1),
		failed: make(chan error, 1), ended: make(chan struct{}),
		due: due, waiters: map[shard.ID][]waiter{},
	}
}

// Start subscribes, and then reads where the logs end: what is committed from then on reaches the consumer. With a
// place to begin, the consumer has been told all up to the heads of that moment when Start returns.
func (f *Follower) Start(ctx context.Context) error {
	if f.stream != nil {
		f.tasks.Go(func(ctx context.Context) {
			if err := f.stream.Subscribe(ctx, f.deliver); err != nil && ctx.Err() == nil {
				f.fail(fmt.Errorf("subscribe to the log: %w", err))
			}
		})
	}
	if err := f.begin(ctx); err != nil {
		f.tasks.Stop()
		close(f.ended)
		return fmt.Errorf("begin to follow the log: %w", err)
	}
	f.tasks.Go(f.poll)
	f.tasks.Go(f.run)
	return nil
}

func (f *Follower) begin(ctx context.Context) error {
	began := time.Now()
	heads, err := f.source.Heads(ctx)
	if err != nil {
		return err
	}
	f.wanted = make(shard.Vector, len(heads.Positions))
	f.mu.Lock()
	f.asOf, f.heads, f.at = began, heads.Positions.Clone(), heads
	if f.from != nil {
		f.at = shard.Heads{Incarnation: f.from.Incarnation, Positions: f.from.Positions.Clone()}
	}
	f.mu.Unlock()
	if f.from != nil {
		if len(f.from.Positions) != len(heads.Positions) {
			return fmt.Errorf("place of %d shards, of %d", len(f.from.Positions), len(heads.Positions))
		}
		return f.fill(ctx)
	}
	if r, ok := f.consumer.(Resetter); ok {
		return r.Reset(ctx, f.Positions())
	}
	return nil
}

// Stop ends the follower and waits for it. It is idempotent.
func (f *Follower) Stop(ctx context.Context) error {
	if err := f.tasks.StopWithin(ctx); err != nil {
		return fmt.Errorf("stop follower: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopped = true
	return nil
}

// Failed tells why the follower ended by itself.
func (f *Follower) Failed() <-chan error { return f.failed }

func (f *Follower) fail(err error) {
	select {
	case f.failed <- err:
	default:
	}
}

// deliver takes a message from the stream. One that finds no room is read from the database later.
func (f *Follower) deliver(m Message) {
	select {
	case f.messages <- m:
	default:
		f.askNow()
	}
}

func (f *Follower) askNow() {
	select {
	case f.ask <- struct{}{}:
	default:
	}
}

// poll reads the heads at every interval, and when asked.
func (f *Follower) poll(ctx context.Context) {
	tick := time.NewTicker(f.cfg.Poll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-f.ask:
		}
		began := time.Now()
		hctx, cancel := context.WithTimeout(ctx, 10*f.cfg.Poll)
		heads, err := f.source.Heads(hctx)
		cancel()
		if err != nil {
			if ctx.Err() == nil {
				f.log.Warn("heads of the log cannot be read", "error", err)
			}
			continue
		}
		f.mu.Lock()
		f.asOf = began
		f.mu.Unlock()
		select {
		case <-f.polled: // an older answer that nobody has taken
		default:
		}
		f.polled <- heads
	}
}

// run is the one goroutine that calls the consumer.
func (f *Follower) run(ctx context.Context) {
	defer close(f.ended)
	for ctx.Err() == nil {
		var err error
		select {
		case <-ctx.Done():
			return
		case m := <-f.messages:
			err = f.onMessage(ctx, m)
		case heads := <-f.polled:
			err = f.onHeads(ctx, heads)
		case <-f.due.C:
			if f.behind(f.wanted) {
				err = f.fill(ctx)
			}
		}
		if err != nil && ctx.Err() == nil {
			f.log.Error("follower stops", "error", err)
			f.fail(err)
			return
		}
	}
}

func (f *Follower) behind(heads shard.Vector) bool { return !f.at.Positions.AtLeast(heads) }

func (f *Follower) onHeads(ctx context.Context, heads shard.Heads) error {
	f.mu.Lock()
	f.heads = heads.Positions
	f.mu.Unlock()
	if heads.Incarnation != f.at.Incarnation {
		return f.fill(ctx)
	}
	if !f.behind(heads.Positions) {
		return nil
	}
	if time.Since(f.lastSeen) > f.cfg.Grace && len(f.messages) == 0 {
		return f.fill(ctx) // the stream is silent
	}
	f.wanted = f.wanted.Max(heads.Positions)
	f.due.Reset(f.cfg.Grace)
	return nil
}

func (f *Follower) onMessage(ctx context.Context, m Message) error {
	f.lastSeen = time.Now()
	if m.Seq != f.nextSeq && f.nextSeq != 0 {
		f.askNow() // a hole, or another stream: who knows what was in it
	}
	f.nextSeq = m.Seq + 1
	h, err := parseHeader(m.Data)
	if err == nil && int(h.shard) >= len(f.at.Positions) {
		err = errMalformed
	}
	if err != nil {
		f.log.Warn("message on the log's stream is no batch", "seq", m.Seq, "error", err)
		f.askNow() // whatever it was, the database knows
		return nil
	}
	at := f.at.Positions[h.shard]
	switch {
	case h.last <= at:
		return nil
	case h.incarnation != f.at.Incarnation || h.prev != at:
		return f.fill(ctx)
	}
	b := Batch{Incarnation: h.incarnation, Shard: shard.ID(h.shard), Prev: h.prev, Last: h.last}
	if ok, err := f.wantedOf(m.Data, &b); err != nil || !ok {
		return f.fill(ctx) // a reference to the database, or broken
	}
	return f.apply(ctx, b)
}

// wantedOf collects the entries of a message that are wanted; false if the message does not hold them all.
func (f *Follower) wantedOf(data []byte, b *Batch) (bool, error) {
	at := b.Prev
	for {
		ent, rest, err := nextEntry(data)
		if err != nil {
			return false, err
		}
		if ent == nil && rest == nil {
			return at == b.Last, nil // a reference to the database has no entries
		}
		data = rest
		e, err := parseEntry(ent)
		if err != nil {
			return false, err
		}
		if e.pos <= at { // positions may be left free between entries (entry.Proposal.Room), and before a new incarnation's first
			return false, nil
		}
		at = e.pos
		if !entry.Kind(e.kind).Known() || e.kind > 0xff {
			f.meetUnknown(entry.Kind(e.kind))
			continue
		}
		if f.filter != nil && !f.filter(entry.Kind(e.kind), e.room, e.subject) {
			continue
		}
		if e.event != 0 && len(e.json) == 0 {
			return false, nil // too large for a message
		}
		b.Entries = append(b.Entries, e.entry(b.Shard))
	}
}

func (f *Follower) meetUnknown(k entry.Kind) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.unknown == 0 {
		f.log.Error("entry of an unknown kind", "kind", k)
		f.unknown = max(k, 1)
	}
}

// apply tells the consumer, and then those who wait.
func (f *Follower) apply(ctx context.Context, b Batch) error {
	if err := f.consumer.Apply(ctx, b); err != nil {
		return fmt.Errorf("apply log of shard %s from %d to %d: %w", b.Shard, b.Prev, b.Last, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at.Positions[b.Shard] = b.Last
	f.heads[b.Shard] = max(f.heads[b.Shard], b.Last)
	f.wake(b.Shard)
	return nil
}

// fill reads what is missing from the database. Nothing newer is applied meanwhile. It is tried until it succeeds, or what
// was applied turns out not to be true any more.
func (f *Follower) fill(ctx context.Context) error {
	f.fills.Add(1)
	for {
		f.due.Stop()
		from := shard.Heads{Incarnation: f.at.Incarnation, Positions: f.at.Positions.Clone()}
		var consumerErr error
		heads, err := f.source.Read(ctx, from, func(s shard.ID, entries []entry.At) error {
			consumerErr = f.applyRead(ctx, s, entries)
			return consumerErr
		})
		switch {
		case err == nil:
			f.mu.Lock()
			f.heads = f.heads.Max(heads.Positions)
			f.mu.Unlock()
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case consumerErr != nil:
			return consumerErr
		case errors.Is(err, shard.ErrIncarnation):
			err = f.changeIncarnation(ctx)
		case errors.Is(err, shard.ErrTrimmed):
			err = f.reset(ctx, err)
		default:
			f.log.Warn("log cannot be read", "error", err)
			if err := lifecycle.Sleep(ctx, f.cfg.Retry); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
	}
}

func (f *Follower) applyRead(ctx context.Context, s shard.ID, entries []entry.At) error {
	if len(entries) == 0 {
		return nil
	}
	b := Batch{Incarnation: f.at.Incarnation, Shard: s, Prev: f.at.Positions[s], Last: entries[len(entries)-1].Pos}
	for i := range entries {
		e := &entries[i]
		if !e.Kind.Known() {
			f.meetUnknown(e.Kind)
			continue
		}
		if f.filter == nil || f.filter(e.Kind, e.Room, []byte(e.Subject)) {
			b.Entries = append(b.Entries, *e)
		}
	}
	return f.apply(ctx, b)
}

// changeIncarnation goes over to the database's incarnation: on from here if nothing that was applied was undone.
func (f *Follower) changeIncarnation(ctx context.Context) error {
	history, err := f.source.History(ctx)
	if err != nil {
		f.log.Warn("history of the database cannot be read", "error", err)
		return lifecycle.Sleep(ctx, f.cfg.Retry)
	}
	now, ok := history.Current()
	begun := f.at.Incarnation != 0 // else nothing had ever been written, and nothing can have been undone
	if !ok || (begun && !history.Holds(f.at.Incarnation, f.at.Positions)) {
		return f.reset(ctx, ErrUndone)
	}
	f.mu.Lock()
	f.at.Incarnation = now.Number
	f.mu.Unlock()
	f.log.Info("database is in a new incarnation", "number", now.Number)
	return nil
}

// reset begins anew at the heads.
func (f *Follower) reset(ctx context.Context, why error) error {
	r, ok := f.consumer.(Resetter)
	if !ok {
		return why
	}
	heads, err := f.source.Heads(ctx)
	if err != nil {
		f.log.Warn("heads of the log cannot be read", "error", err)
		return lifecycle.Sleep(ctx, f.cfg.Retry)
	}
	f.log.Warn("follower begins anew", "reason", why)
	if err := r.Reset(ctx, shard.Heads{Incarnation: heads.Incarnation, Positions: heads.Positions.Clone()}); err != nil {
		return fmt.Errorf("reset consumer: %w", err)
	}
	f.wanted = make(shard.Vector, len(heads.Positions))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at, f.heads = heads, heads.Positions.Clone()
	for s := range f.at.Positions {
		f.wake(shard.ID(s))
	}
	return nil
}
