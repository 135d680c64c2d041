// Package members knows which workers live: each worker renews its row in PostgreSQL (fleet/lease's Renewer does), and
// each holds the whole register in memory, so that picking a worker for a request makes no query.
//
// Guarantees: a worker is alive if its counter changed within the last few seconds of the observer's own monotonic
// clock, counted only while the observer itself could read the register; no clocks are compared. Pick gives the same
// worker for the same key for as long as that worker lives, whoever asks (rendezvous hashing), and moves only the keys
// of workers that come and go. While the database cannot be read the last register stays in force.
//
// A Register is safe for concurrent use. Its one goroutine is ended and waited for by Stop.
//
// It may be imported by api/ and app.
package members

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/route"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/fleetdb"
)

// AllInOne is the kind of the process that serves every kind.
const AllInOne route.Kind = "heddle"

// clientRole is the role that a master needs to answer clients.
const clientRole = "client"

// Worker is what the register says of one worker.
type Worker struct {
	Instance string
	Kind     route.Kind
	// Address is host:port of its HTTP listener.
	Address                  string
	Version                  string
	ProtocolMin, ProtocolMax int32
	Roles                    []string
	Status                   Status
	// StatusError says that the status in the register could not be read, as that of a later release might not be. Status then is that of
	// a worker that does not want requests: it still gets those that nobody else of its kind wants.
	StatusError error
}

// Status is what changes from second to second: what leasedb writes of itself, and the detail that the worker adds,
// which is this struct as JSON.
type Status struct {
	// Draining is set by the renewer.
	Draining bool `json:"draining"`
	// NATS says that it has a connection; set by the renewer.
	NATS bool `json:"nats"`
	// NotReady says that it cannot do its job yet, or not now.
	NotReady bool `json:"not_ready,omitempty"`
	// Positions is how far it has followed the log of each shard, and Lag by how many entries in all it knows to be behind.
	Positions shard.Vector `json:"positions,omitempty"`
	Lag       int64        `json:"lag,omitempty"`
	// Memory is in bytes.
	Memory int64 `json:"memory_bytes,omitempty"`
	// CPU is in seconds since the start.
	CPU float64 `json:"cpu_seconds,omitempty"`
}

// wanting says that the worker wants requests; one that starts or drains gets them only if all others of its kind do
// not want any either.
func (s *Status) wanting() bool { return !s.Draining && !s.NotReady }

// Serves says whether the worker answers requests of a kind.
func (w *Worker) Serves(k route.Kind) bool {
	switch w.Kind {
	case AllInOne:
		return true
	case route.Master:
		// A master can be given other roles only, such as sending to other servers.
		return k == route.Master && (len(w.Roles) == 0 || slices.Contains(w.Roles, clientRole))
	default:
		return w.Kind == k
	}
}

// Store is the register's table; *fleetdb.Queries is one.
type Store interface {
	Workers(ctx context.Context) ([]fleetdb.WorkersRow, error)
	Forget(ctx context.Context, arg fleetdb.ForgetParams) (int64, error)
}

// Hint makes changes of the register known faster than the next reading. It may lose any of them.
type Hint interface {
	// Changed gets a value after a worker came, went or changed its status; it has a capacity of 1.
	Changed() <-chan struct{}
}

// Options are a register's settings. The zero value is good.
type Options struct {
	// Interval is how often the register is read; 1 s by default.
	Interval time.Duration
	// DeadAfter is how long a counter may stand still; 5 s by default.
	DeadAfter time.Duration
	// ForgetAfter is after how long a dead worker's row is removed; 10 minutes by default.
	ForgetAfter time.Duration
	// Hint may be nil.
	Hint Hint
	Log  *slog.Logger
}

// Register is the register of workers as one of them sees it. It is a lifecycle.Service.
type Register struct {
	store Store
	opts  Options
	view  atomic.Pointer[view]
	tasks *lifecycle.Tasks

	mu    sync.Mutex // guards track; refreshes hold it while they read, and nothing else takes it
	track tracker
}

// view is one reading of the register; immutable.
type view struct {
	live   []Worker
	byKind map[route.Kind][]candidate
}

type candidate struct {
	worker *Worker
	seed   uint64
}

// New makes a register; nothing is read before Start.
func New(store Store, opts Options) *Register {
	if opts.Interval == 0 {
		opts.Interval = time.Second
	}
	if opts.DeadAfter == 0 {
		opts.DeadAfter = 5 * time.Second
	}
	if opts.ForgetAfter == 0 {
		opts.ForgetAfter = 10 * time.Minute
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	r := &Register{
		store: store, opts: opts,
		track: tracker{deadAfter: opts.DeadAfter, forgetAfter: opts.ForgetAfter, seen: map[string]*seen{}},
	}
	r.view.Store(&view{})
	return r
}

// Start reads the register and keeps it current until Stop. When it returns the register is known.
func (r *Register) Start(ctx context.Context) error {
	if err := r.Refresh(ctx); err != nil {
		return err
	}
	r.tasks = lifecycle.NewTasks(context.WithoutCancel(ctx))
	r.tasks.Go(r.run)
	return nil
}

// Stop ends the reading. It is idempotent.
func (r *Register) Stop(ctx context.Context) error {
	if r.tasks == nil {
		return nil
	}
	return r.tasks.StopWithin(ctx)
}

func (r *Register) run(ctx context.Context) {
	tick := time.NewTicker(r.opts.Interval)
	defer tick.Stop()
	var changed <-chan struct{}
	if r.opts.Hint != nil {
		changed = r.opts.Hint.Changed()
	}
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-changed:
		}
		err := r.Refresh(ctx)
		if err != nil && !failing && ctx.Err() == nil { // once an outage
			r.opts.Log.Warn("the register of workers cannot be read", "error", err)
		}
		failing = err != nil
	}
}

// Refresh reads the register once. The loop does so by itself.
func (r *Register) Refresh(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, r.opts.DeadAfter)
	defer cancel()
	rows, err := r.store.Workers(ctx)
	if err != nil {
		r.track.interrupted()
		return fmt.Errorf("read the register of workers: %w", err)
	}
	live, forget := r.track.observe(rows, time.Now())
	r.complain(live)
	r.view.Store(newView(live))
	var errs []error
	for _, f := range forget {
		if _, err := r.store.Forget(ctx, f); err != nil {
			errs = append(errs, fmt.Errorf("forget worker %s: %w", f.Instance, err))
		}
	}
	return errors.Join(errs...)
}

// complain logs a status that cannot be read, once for each worker.
func (r *Register) complain(live []Worker) {
	for i := range live {
		w := &live[i]
		s := r.track.seen[w.Instance]
		if w.StatusError != nil && !s.complained {
			r.opts.Log.Warn("a worker's status cannot be read", "worker", w.Instance, "error", w.StatusError)
		}
		s.complained = w.StatusError != nil
	}
}

// ParseStatus reads a status as it is in the register.
func ParseStatus(text []byte) (Status, error) {
	var s *Status
	err := json.Unmarshal(text, &s)
	if err == nil && s == nil {
		err = errors.New("null is no status")
	}
	if err != nil {
		return Status{NotReady: true}, fmt.Errorf("read a worker's status: %w", err)
	}
	return *s, nil
}

func newView(live []Worker) *view {
	v := &view{live: live, byKind: make(map[route.Kind][]candidate)}
	for _, k := range route.Kinds() {
		var ready, rest []candidate
		for i := range live {
			w := &live[i]
			if !w.Serves(k) {
				continue
			}
			c := candidate{w, xxhash.Sum64String(w.Instance)}
			if w.Status.wanting() {
				ready = append(ready, c)
			} else {
				rest = append(rest, c)
			}
		}
		if len(ready) == 0 {
			ready = rest
		}
		v.byKind[k] = ready
	}
	return v
}

// Live gives all live workers, by instance.
func (r *Register) Live() []Worker { return slices.Clone(r.view.Load().live) }

// Rank gives the workers to try for a request of a kind, best first: those that rendezvous hashing prefers for the key,
// or in random order for an empty key.
func (r *Register) Rank(kind route.Kind, key string) []Worker {
	cs := r.view.Load().byKind[kind]
	type scored struct {
		w     *Worker
		score uint64
	}
	h := xxhash.Sum64String(key)
	order := make([]scored, len(cs))
	for i, c := range cs {
		s := mix(h ^ c.seed)
		if key == "" {
			s = rand.Uint64() //nolint:gosec // spreading load, not guarding anything
		}
		order[i] = scored{c.worker, s}
	}
	slices.SortFunc(order, func(a, b scored) int {
		switch {
		case a.score > b.score:
			return -1
		case a.score < b.score:
			return 1
		default:
			return 0
		}
	})
	out := make([]Worker, len(order))
	for i, s := range order {
		out[i] = *s.w
	}
	return out
}

// Pick gives the best worker for a request of a kind; ok is false if none lives.
func (r *Register) Pick(kind route.Kind, key string) (w Worker, ok bool) {
	if ws := r.Rank(kind, key); len(ws) > 0 {
		return ws[0], true
	}
	return Worker{}, false
}

// mix is the finaliser of splitmix64: the xor of two hashes alone would order all workers alike for near keys.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}
