package commit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// Options are what a committer needs beside its configuration. Log and Registerer may be nil.
type Options struct {
	Store      Store
	Publisher  Publisher
	Leases     Leases
	Log        *slog.Logger
	Registerer prometheus.Registerer
	// Tracer gets a span for each commit; it may be nil.
	Tracer trace.TracerProvider
}

// Committer is the group committer of one process.
type Committer struct {
	cfg     Config
	store   Store
	pub     Publisher
	leases  Leases
	log     *slog.Logger
	metrics *metrics
	tracer  trace.Tracer

	ctx      context.Context // of the work; ends when Stop gives up
	cancel   context.CancelFunc
	wake     chan struct{} // capacity 1: something to do
	outgoing chan *flight  // committed batches, in order, for the publishing goroutine
	loops    sync.WaitGroup
	flights  sync.WaitGroup // answers that wait for an acknowledgement

	mu      sync.Mutex // guards all below, and the fields of shardState and pending that say so; no I/O under it
	started bool
	stopped bool
	seq     uint64
	queue   []*pending
	// inFlight is what was last taken from the queue.
	inFlight []*pending
	shards   map[shard.ID]*shardState
	held     []*pending // answers that wait until their lease is valid again
	recheck  *time.Timer
}

// shardState is a shard that is open. Its fields are guarded by Committer.mu; head is changed by the committing goroutine only.
type shardState struct {
	id          shard.ID
	epoch       shard.Epoch
	head        Head
	closing     bool
	outstanding int           // proposals not answered
	drained     chan struct{} // closed when closing and outstanding is 0
	drainedOnce bool
}

// New makes a committer. Nothing happens before Start.
func New(cfg Config, o Options) *Committer {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Tracer == nil {
		o.Tracer = noop.NewTracerProvider()
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Committer{
		cfg: cfg.WithDefaults(), store: o.Store, pub: o.Publisher, leases: o.Leases, log: o.Log,
		metrics: newMetrics(o.Registerer), tracer: o.Tracer.Tracer(tracerName),
		ctx: ctx, cancel: cancel,
		wake: make(chan struct{}, 1), outgoing: make(chan *flight, 256),
		shards: map[shard.ID]*shardState{},
	}
}

// Start starts the committer's goroutines. It implements lifecycle.Service.
func (c *Committer) Start(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.started {
		return errors.New("committer was started before")
	}
	c.started = true
	c.loops.Go(c.publishLoop)
	c.loops.Go(c.commitLoop)
	return nil
}

// Stop refuses further proposals, finishes what was submitted, and returns when all is answered. When ctx ends before, what
// is left fails. It is idempotent.
func (c *Committer) Stop(ctx context.Context) error {
	c.mu.Lock()
	c.stopped = true
	started := c.started
	c.mu.Unlock()
	c.poke()
	if !started {
		c.cancel()
		return nil
	}
	done := make(chan struct{})
	go func() { // ends with the loops and the last answer
		c.loops.Wait()
		c.flights.Wait()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = fmt.Errorf("stop committer: %w", ctx.Err())
	}
	c.cancel()
	c.abandonHeld()
	if err != nil {
		<-done
	}
	c.metrics.unregister()
	return err
}

// Open begins to take proposals for a shard that is held under the epoch. It waits for the end of what an earlier epoch of the
// shard still has in flight.
func (c *Committer) Open(ctx context.Context, s shard.ID, e shard.Epoch) error {
	if err := c.Close(ctx, s); err != nil {
		return err
	}
	head, err := c.store.Open(ctx, s, e)
	if err != nil {
		return fmt.Errorf("open shard %s: %w", s, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return ErrClosed
	}
	if c.shards[s] != nil {
		return fmt.Errorf("open shard %s: it was opened meanwhile", s)
	}
	c.shards[s] = &shardState{id: s, epoch: e, head: head, drained: make(chan struct{})}
	c.metrics.openShards.Set(float64(len(c.shards)))
	return nil
}

// Close takes no further proposals for a shard, and returns when those that were submitted are answered. Closing a shard
// that is not open does nothing.
func (c *Committer) Close(ctx context.Context, s shard.ID) error {
	c.mu.Lock()
	st := c.shards[s]
	if st == nil {
		c.mu.Unlock()
		return nil
	}
	st.closing = true
	c.checkDrained(st)
	c.mu.Unlock()
	select {
	case <-st.drained:
	case <-ctx.Done():
		return fmt.Errorf("close shard %s: %w", s, ctx.Err())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget(st)
	return nil
}

// Drop gives a shard up at once, because its lease is lost: what was submitted fails, unless it turns out to be committed.
func (c *Committer) Drop(s shard.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if st := c.shards[s]; st != nil {
		c.drop(st)
	}
}

// Head gives the last position of an open shard's log that is committed.
func (c *Committer) Head(s shard.ID) (Head, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.shards[s]
	if st == nil {
		return Head{}, false
	}
	return st.head, true
}

// Submit takes a proposal. It never waits: what is wrong with it is told by the ticket.
func (c *Committer) Submit(p *entry.Proposal) *Ticket {
	w := &pending{
		ticket: Ticket{done: make(chan struct{})}, proposal: p, cost: p.Cost(), submitted: time.Now(),
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.admit(w); err != nil {
		// What the caller builds on it would be built on nothing.
		breakChain(p)
		w.ticket.err = err
		close(w.ticket.done)
		return &w.ticket
	}
	c.seq++
	w.seq = c.seq
	w.state.outstanding++
	c.queue = append(c.queue, w)
	c.metrics.queue.Set(float64(len(c.queue)))
	c.poke()
	return &w.ticket
}

func (c *Committer) admit(w *pending) error {
	p := w.proposal
	st := c.shards[p.Shard]
	switch {
	case c.stopped:
		return ErrClosed
	case st == nil || st.closing || st.epoch != p.Epoch:
		return ErrFenced
	case p.Chain.Broken():
		return ErrChain
	case w.cost > c.cfg.MaxBytes:
		return ErrTooLarge
	case len(c.queue) >= c.cfg.MaxQueue:
		return fmt.Errorf("%w: %d proposals wait already", ErrUnavailable, len(c.queue))
	}
	w.state = st
	return nil
}

func breakChain(p *entry.Proposal) {
	if p.Chain != nil {
		p.Chain.Break()
	}
}

func (c *Committer) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// drop gives up a shard: nothing more is taken for it, and what is queued or in flight fails.
func (c *Committer) drop(st *shardState) {
	st.closing = true
	c.forget(st)
	for _, w := range c.queue {
		if w.state == st && !w.decided {
			c.decide(w, Outcome{}, ErrFenced)
		}
	}
	held := c.held
	c.held = nil
	for _, w := range held {
		if w.state != st {
			c.held = append(c.held, w)
			continue
		}
		w.ticket.outcome, w.ticket.err = Outcome{}, ErrUnknownOutcome
		c.tell(w)
	}
	c.checkDrained(st)
}

func (c *Committer) forget(st *shardState) {
	if c.shards[st.id] == st {
		delete(c.shards, st.id)
		c.metrics.openShards.Set(float64(len(c.shards)))
	}
}

func (c *Committer) checkDrained(st *shardState) {
	if st.closing && st.outstanding == 0 && !st.drainedOnce {
		st.drainedOnce = true
		close(st.drained)
	}
}
