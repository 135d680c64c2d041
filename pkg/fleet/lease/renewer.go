package lease

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/store/leasedb"
)

// Renewer keeps this worker's row in the register: it writes the row when it starts, moves its counter, and removes it when
// it stops. It is the only thing that moves the counter, whatever the kind of worker, and it has a session of its own,
// so that no other statement can hold a renewal up. It is a lifecycle.Service, and Failing: it fails when another
// process registers under the same name.
type Renewer struct {
	db     *leasedb.DB
	worker leasedb.Worker
	status func() leasedb.Status
	timing Timing
	log    *slog.Logger
	base   time.Time // the local clock's zero
	term   atomic.Pointer[term]
	boot   atomic.Pointer[leasedb.Boot]
	drain  atomic.Bool
	kick   chan struct{} // capacity 1
	failed chan error
	tasks  *lifecycle.Tasks

	mu    sync.Mutex     // guards what follows
	wrote leasedb.Status // the latest status that is known to be in the row
	news  chan struct{}  // closed and made anew when wrote changes
}

// RenewerConfig is what a Renewer needs.
type RenewerConfig struct {
	Worker leasedb.Worker
	// Status is asked before each renewal; it must not block. Nil: connected to NATS, no detail.
	Status func() leasedb.Status
	// Timing is DefaultTiming when zero; only tests set it.
	Timing Timing
	Logger *slog.Logger
}

// NewRenewer makes a Renewer; nothing is written before Start.
func NewRenewer(db *leasedb.DB, cfg RenewerConfig) *Renewer {
	r := &Renewer{
		db: db, worker: cfg.Worker, status: cfg.Status, timing: cfg.Timing.withDefaults(), log: logger(cfg.Logger), base: time.Now(),
		kick: make(chan struct{}, 1), failed: make(chan error, 1), news: make(chan struct{}),
	}
	if r.status == nil {
		r.status = func() leasedb.Status { return leasedb.Status{NATS: true} }
	}
	r.term.Store(&term{valid: r.timing.Valid})
	return r
}

func logger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}

// clock is the local monotonic clock.
func (r *Renewer) clock() time.Duration { return time.Since(r.base) }

// Boot is this start of the instance; zero before Start.
func (r *Renewer) Boot() leasedb.Boot {
	if b := r.boot.Load(); b != nil {
		return *b
	}
	return leasedb.Boot{}
}

// LastSent tells when the last successful renewal was sent (not when it was answered); ok is false when there has
// been none, or a later process has taken the name.
func (r *Renewer) LastSent() (at time.Time, ok bool) {
	t := r.term.Load()
	return r.base.Add(t.sent), t.gen != 0
}

// Live tells whether the last successful renewal was sent less than Timing.Valid ago.
func (r *Renewer) Live() bool { return r.term.Load().live(r.clock()) }

// Check is a readiness check: it fails while renewals do.
func (r *Renewer) Check(context.Context) error {
	if !r.Live() {
		return errors.New("leases are not being renewed")
	}
	return nil
}

// Kick renews at once: something in the status has changed that others should know soon.
func (r *Renewer) Kick() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// Drain tells the others that this worker takes no more leases, and returns when its row says so.
func (r *Renewer) Drain(ctx context.Context) error {
	r.drain.Store(true)
	for {
		r.mu.Lock()
		done, news := r.wrote.Draining, r.news
		r.mu.Unlock()
		if done {
			return nil
		}
		r.Kick()
		select {
		case <-news:
		case <-ctx.Done():
			return fmt.Errorf("announce the drain: %w", ctx.Err())
		}
	}
}

// Start registers the worker and begins to renew.
func (r *Renewer) Start(ctx context.Context) error {
	conn, err := r.db.Connect(ctx)
	if err != nil {
		return fmt.Errorf("register the worker: %w", err)
	}
	sent, st := r.clock(), r.now()
	boot, err := conn.Register(ctx, r.worker, st)
	if err != nil {
		conn.Close()
		return err
	}
	r.boot.Store(&boot)
	r.succeeded(sent, st)
	r.tasks = lifecycle.NewTasks(context.WithoutCancel(ctx))
	r.tasks.Go(func(ctx context.Context) { r.run(ctx, conn) })
	return nil
}

// Stop ends the renewals and removes the row.
func (r *Renewer) Stop(ctx context.Context) error {
	if r.tasks == nil {
		return nil
	}
	return r.tasks.StopWithin(ctx)
}

// Failed implements lifecycle.Failing.
func (r *Renewer) Failed() <-chan error { return r.failed }

func (r *Renewer) run(ctx context.Context, conn *leasedb.Conn) {
	defer func() { r.withdraw(ctx, conn) }()
	tick := time.NewTicker(r.timing.Renew)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-r.kick:
		}
		var err error
		conn, err = r.renew(ctx, conn)
		switch {
		case errors.Is(err, leasedb.ErrSuperseded):
			r.term.Store(&term{valid: r.timing.Valid, gen: 0})
			r.failed <- err
			<-ctx.Done()
			return
		case err != nil && ctx.Err() == nil:
			r.log.Warn("renewal failed", "error", err)
		}
	}
}

// renew sends one renewal, on a new session if there is none. A session on which something failed is given up.
func (r *Renewer) renew(ctx context.Context, conn *leasedb.Conn) (*leasedb.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timing.Valid/2)
	defer cancel()
	if conn == nil {
		var err error
		if conn, err = r.db.Connect(ctx); err != nil {
			return nil, err
		}
	}
	sent, st := r.clock(), r.now()
	r.mu.Lock()
	changed := !same(st, r.wrote)
	r.mu.Unlock()
	if err := conn.Renew(ctx, r.worker, r.Boot(), st, changed); err != nil {
		conn.Close()
		return nil, err
	}
	r.succeeded(sent, st)
	return conn, nil
}

func (r *Renewer) succeeded(sent time.Duration, st leasedb.Status) {
	old := r.term.Load()
	t := old.renewed(sent, r.clock())
	r.term.Store(&t)
	if old.gen != 0 && t.gen != old.gen {
		r.log.Warn("renewal came too late: leases have lapsed", "after", t.sent-old.sent)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !same(st, r.wrote) {
		r.wrote = st
		close(r.news)
		r.news = make(chan struct{})
	}
}

// now is the status to write.
func (r *Renewer) now() leasedb.Status {
	st := r.status()
	st.Draining = st.Draining || r.drain.Load()
	st.Detail = append(json.RawMessage(nil), st.Detail...)
	return st
}

func same(a, b leasedb.Status) bool {
	return a.Draining == b.Draining && a.NATS == b.NATS && bytes.Equal(a.Detail, b.Detail)
}

// withdraw removes the row, so that nobody waits for this worker.
func (r *Renewer) withdraw(ctx context.Context, conn *leasedb.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.timing.Valid/2)
	defer cancel()
	var err error
	if conn == nil { // the last renewal failed, or was cut short by the stop
		conn, err = r.db.Connect(ctx)
	}
	if err == nil {
		defer conn.Close()
		err = conn.Withdraw(ctx, r.Boot())
	}
	if err != nil {
		r.log.Warn("could not withdraw from the register", "error", err)
	}
}
