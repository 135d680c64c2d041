package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/infra/telemetry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/leasedb"
)

// Owner does the work of the leases of a role. The calls for one slot never overlap and alternate: an Opened that
// returned nil is followed by one Closing.
type Owner interface {
	// Opened says that the slot is ours under the epoch. While it runs the lease is valid already. If it fails the lease is
	// given away. Its ctx ends when it returns, when the lease is lost, and when this process stops.
	Opened(ctx context.Context, slot int, epoch shard.Epoch) error
	// Closing asks to stop taking work for the slot and to finish what is in flight; when it returns, nothing more is done under the
	// epoch. Engine.Valid tells whether the lease is still ours meanwhile (it is when it is being given away, not when
	// it was lost). When ctx ends the lease is given up, whatever is in flight.
	Closing(ctx context.Context, slot int)
}

// Role is a set of leases, and who does their work here.
type Role struct {
	// Name is the role; leasedb.Writer for the shards.
	Name  string
	Slots int
	// Address is where the holder answers requests; it stands on the lease rows.
	Address string
	// Session names the database session that the holder writes with, so that a claimant can end it. It must not block.
	// Nil if there is none that could hold locks for long, or if the holder writes it to the rows itself, as commitdb does.
	Session func() leasedb.Session
	Owner   Owner
}

// Hint makes changes of leases known faster than by polling. What it tells is never relied upon.
type Hint interface {
	// Tell says to the others that a lease has changed. It must not block.
	Tell()
	// Told receives when another has said so.
	Told() <-chan struct{}
}

// Config is what an Engine needs.
type Config struct {
	Roles []Role
	// Hint may be nil.
	Hint Hint
	// CloseTimeout bounds Closing of a lease that is given away. Default 10s.
	CloseTimeout time.Duration
	// Width is how many leases of a role are closed at a time by a worker that gives all of its own away. Default 4.
	Width  int
	Logger *slog.Logger
	// Metrics may be nil.
	Metrics *telemetry.Metrics
}

// Engine takes, keeps and gives away the leases of this process. It is a lifecycle.Service; it is started after its
// Renewer and stopped before it.
type Engine struct {
	db      *leasedb.DB
	renewer *Renewer
	cfg     Config
	timing  Timing
	log     *slog.Logger
	metrics *metrics
	roles   map[string]*Role
	names   []string
	grants  map[leasedb.Key]*atomic.Pointer[grant] // the map itself never changes
	shards  []*atomic.Pointer[grant]               // those of the writer, by shard
	wake    chan struct{}                          // capacity 1
	looked  atomic.Int64                           // when the latest look succeeded, on the renewer's clock
	tasks   *lifecycle.Tasks
	stopped sync.Once

	mu      sync.Mutex // guards what follows; never held across I/O or a callback
	holds   map[leasedb.Key]*held
	drain   bool
	drained chan struct{} // closed when drain is set and holds is empty
	closed  bool
	blocked map[leasedb.Key]time.Duration // until when

	// What follows belongs to the loop alone.
	conn    *leasedb.Conn
	watch   *watch
	shunned map[string]time.Duration // until when
}

// grant is what Valid looks at: an epoch, and the generation of the term under which its claim was sent.
type grant struct {
	epoch shard.Epoch
	gen   uint64
}

const (
	defaultCloseTimeout = 10 * time.Second
	startPatience       = 30 * time.Second
	defaultWidth        = 4
	blockedFor          = 5 * time.Second
	shunnedFor          = time.Minute
)

// NewEngine makes an Engine; nothing is done before Start.
func NewEngine(db *leasedb.DB, r *Renewer, cfg Config) *Engine {
	if cfg.CloseTimeout == 0 {
		cfg.CloseTimeout = defaultCloseTimeout
	}
	if cfg.Width == 0 {
		cfg.Width = defaultWidth
	}
	e := &Engine{
		db: db, renewer: r, cfg: cfg, timing: r.timing, log: logger(cfg.Logger),
		roles: map[string]*Role{}, grants: map[leasedb.Key]*atomic.Pointer[grant]{},
		wake: make(chan struct{}, 1), holds: map[leasedb.Key]*held{}, drained: make(chan struct{}),
		watch: newWatch(), blocked: map[leasedb.Key]time.Duration{}, shunned: map[string]time.Duration{},
	}
	e.metrics = newMetrics(e, cfg.Metrics)
	for i := range cfg.Roles {
		role := &cfg.Roles[i]
		e.roles[role.Name] = role
		e.names = append(e.names, role.Name)
		for slot := range role.Slots {
			g := &atomic.Pointer[grant]{}
			e.grants[leasedb.Key{Role: role.Name, Slot: slot}] = g
			if role.Name == leasedb.Writer {
				e.shards = append(e.shards, g)
			}
		}
	}
	return e
}

// Start looks at the leases for the first time, takes what is free, and goes on by itself. It does not wait until
// what it took is open.
func (e *Engine) Start(ctx context.Context) error {
	if e.renewer.boot.Load() == nil {
		return errors.New("leases need a renewer that has been started")
	}
	if err := e.begin(ctx); err != nil {
		return err
	}
	e.tasks = lifecycle.NewTasks(context.WithoutCancel(ctx))
	e.tasks.Go(e.run)
	return nil
}

// begin connects for the first time, and sees to it that the leases have rows. A database that does not answer in time is asked again, as it
// is later: who gave up over it would be started again, only to ask the same.
func (e *Engine) begin(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for {
		err := e.connect(ctx)
		if err == nil {
			err = e.ensure(ctx)
		}
		if err == nil {
			return nil
		}
		e.disconnect()
		e.log.WarnContext(ctx, "cannot see the leases yet", "error", err)
		if lifecycle.Sleep(ctx, e.timing.Poll) != nil {
			return err
		}
	}
}

func (e *Engine) ensure(ctx context.Context) error {
	for _, r := range e.roles {
		if err := e.conn.Ensure(ctx, r.Name, r.Slots); err != nil {
			return err
		}
	}
	return nil
}

// Valid tells whether this process owns the shard under the epoch now: whether it may answer for it. It takes no lock.
func (e *Engine) Valid(s shard.ID, epoch shard.Epoch) bool {
	return int(s) < len(e.shards) && e.valid(e.shards[s], epoch)
}

// ValidSlot is Valid for a slot of any role.
func (e *Engine) ValidSlot(k leasedb.Key, epoch shard.Epoch) bool {
	g := e.grants[k]
	return g != nil && e.valid(g, epoch)
}

func (e *Engine) valid(p *atomic.Pointer[grant], epoch shard.Epoch) bool {
	g := p.Load()
	if g == nil || g.epoch != epoch {
		return false
	}
	t := e.renewer.term.Load()
	return t.gen == g.gen && t.live(e.renewer.clock())
}

// Epoch gives the epoch under which this process owns the shard now.
func (e *Engine) Epoch(s shard.ID) (shard.Epoch, bool) {
	if int(s) >= len(e.shards) {
		return 0, false
	}
	g := e.shards[s].Load()
	if g == nil || !e.valid(e.shards[s], g.epoch) {
		return 0, false
	}
	return g.epoch, true
}

// Holds lists the leases that are open here, with their epochs.
func (e *Engine) Holds() map[leasedb.Key]shard.Epoch {
	e.mu.Lock()
	defer e.mu.Unlock()
	m := make(map[leasedb.Key]shard.Epoch, len(e.holds))
	for k, h := range e.holds {
		if h.phase == open {
			m[k] = h.epoch
		}
	}
	return m
}

// Check is a readiness check: it fails while the leases cannot be seen or renewed.
func (e *Engine) Check(ctx context.Context) error {
	if age := e.renewer.clock() - time.Duration(e.looked.Load()); age > e.timing.Wait {
		return fmt.Errorf("leases have not been seen for %s", age.Round(time.Second))
	}
	return e.renewer.Check(ctx)
}

// Wake makes the engine look at once.
func (e *Engine) Wake() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// Moved tells that the committer has raised the epoch of a shard that this process owns, after a COMMIT of unknown outcome.
// The new epoch is valid at once, and the old one no more; Opened and Closing are not called.
func (e *Engine) Moved(s shard.ID, from, to shard.Epoch) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if h := e.holds[leasedb.ShardKey(s)]; h != nil && h.epoch == from {
		e.move(leasedb.ShardKey(s), to)
	}
}

// Lost tells that a fence found a shard not to be ours under the epoch any more. It is closed, and taken anew if it turns
// out to be free or ours.
func (e *Engine) Lost(s shard.ID, epoch shard.Epoch) {
	k := leasedb.ShardKey(s)
	e.mu.Lock()
	// A raised epoch may have been seen on the row before this is told: what counts is that it is the same tenure.
	if h := e.holds[k]; h != nil && h.claimed <= epoch && !h.lapsed && !h.revoked {
		e.lose(k, h)
	}
	e.mu.Unlock()
	e.Wake()
}

// Drain gives all leases away and takes no more. It returns when none is left, or with ctx.
func (e *Engine) Drain(ctx context.Context) error {
	e.mu.Lock()
	e.drain = true
	e.mu.Unlock()
	// The others must know first, or they would leave to us what we give away. When they cannot be told, they find out.
	tctx, cancel := context.WithTimeout(ctx, e.timing.Valid/2)
	defer cancel()
	if err := e.renewer.Drain(tctx); err != nil {
		e.log.Warn("give leases away unannounced", "error", err)
	}
	e.Wake()
	select {
	case <-e.drained:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("give leases away: %w", ctx.Err())
	}
}

// Stop drains, and ends what is left when ctx ends.
func (e *Engine) Stop(ctx context.Context) error {
	if e.tasks == nil {
		return nil
	}
	var err error
	e.stopped.Do(func() {
		err = e.Drain(ctx)
		for _, g := range e.grants {
			g.Store(nil)
		}
		wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		err = errors.Join(err, e.tasks.StopWithin(wait))
	})
	return err
}
