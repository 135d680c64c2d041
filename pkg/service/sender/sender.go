package sender

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/cache"
	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/infra/telemetry"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/senderdb"
)

// RoleName is the role under whose leases destinations are served.
const RoleName = "federation-sender"

// Transport carries transactions to other servers.
type Transport interface {
	// Send delivers a transaction and gives the answer. A server that answers anything but 2xx is a *RefusedError; any error but a refusal with
	// status 400 or 413 makes Backoff say for how long the server is to be left alone.
	Send(ctx context.Context, to id.ServerName, txn string, body []byte) (answer []byte, err error)
	// Backoff tells for how long a server is still to be left alone.
	Backoff(ctx context.Context, to id.ServerName) time.Duration
}

// RefusedError is the error of a server that answered, but not with 2xx.
type RefusedError struct {
	Status int
	// Matrix says that the answer was a Matrix error, and so came from a homeserver and not from something before it.
	Matrix bool
	Err    error
}

// Error implements error.
func (r *RefusedError) Error() string { return r.Err.Error() }

// Unwrap gives what the transport said.
func (r *RefusedError) Unwrap() error { return r.Err }

// EDU is what other servers are told besides events.
type EDU struct {
	Type    string
	Content json.RawMessage
}

// Devices says what other servers are told of users' devices.
type Devices interface {
	// Updates gives it for a change of a user's device list at a position; all there is to tell, whatever the position, if change is nil.
	Updates(ctx context.Context, user id.UserID, pos shard.Pos, change *entry.DeviceListBody) ([]EDU, error)
}

// Config sets bounds and paces. The zero value of a field means its default.
type Config struct {
	// MaxQueue is how many events wait for a destination before it falls behind. Default 1000.
	MaxQueue int
	// MaxBytes is how many bytes wait for all destinations. Default 64 MiB.
	MaxBytes int64
	// GiveUp is how long a destination fails before it falls behind. Default 10 minutes.
	GiveUp time.Duration
	// Patience is for how long a destination that has not acknowledged holds the cursor back; then its position is stored. Default 10 s.
	Patience time.Duration
	// SaveEvery is how often places are stored. Default 1 s.
	SaveEvery time.Duration
	// Tick is how often it is looked who is due. Default 250 ms.
	Tick time.Duration
	// Recheck is how long a destination is left alone at most without asking the transport whether it still is to be. Default 1 minute.
	Recheck time.Duration
	// Drain is for how long what is queued is still sent, and waited for, when a slot is given away. Default 5 s.
	Drain time.Duration
	// Retries is how many failing destinations are tried at the same time. Default 64.
	Retries int
	// Lanes is how many transactions to destinations that answered last time are in flight, and Fresh how many to others. Default 4096
	// and 1024.
	Lanes, Fresh int
	// Follow are the paces of the follower.
	Follow follow.Config
}

func or[T comparable](v, d T) T {
	var zero T
	if v == zero {
		return d
	}
	return v
}

func (c Config) withDefaults() Config {
	c.MaxQueue, c.MaxBytes = or(c.MaxQueue, 1000), or(c.MaxBytes, 64<<20)
	c.GiveUp, c.Patience, c.SaveEvery = or(c.GiveUp, 10*time.Minute), or(c.Patience, 10*time.Second), or(c.SaveEvery, time.Second)
	c.Tick, c.Recheck, c.Drain = or(c.Tick, 250*time.Millisecond), or(c.Recheck, time.Minute), or(c.Drain, 5*time.Second)
	c.Retries, c.Lanes, c.Fresh = or(c.Retries, 64), or(c.Lanes, 4096), or(c.Fresh, 1024)
	return c
}

// Options are what a Sender needs. Stream, Valid, Metrics and Log may be nil.
type Options struct {
	Server    id.ServerName
	Shards    shard.Map
	DB        *senderdb.DB
	Cursors   follow.Cursors
	Source    follow.Source
	Stream    follow.Stream
	Transport Transport
	Devices   Devices
	// Valid tells whether a slot is still held under an epoch; nil: always.
	Valid   func(slot int, epoch shard.Epoch) bool
	Budget  *cache.Budget
	Now     func() time.Time
	Metrics *telemetry.Metrics
	Log     *slog.Logger
}

// Sender serves the destinations of the slots that it holds. It is a lifecycle service, and the owner of the leases of its role; it is started
// before these are taken and stopped when they are given away.
type Sender struct {
	cfg     Config
	o       Options
	log     *slog.Logger
	metrics metrics
	rooms   *rooms
	tasks   *lifecycle.Tasks
	changed chan struct{} // capacity 1: slots have come
	kick    chan struct{} // capacity 1: somebody is due
	soft    chan any      // what was heard besides the log: *entry.Typing, *entry.PresenceBatch
	retries chan struct{}
	lanes   chan struct{}
	fresh   chan struct{}
	big     chan struct{} // transactions in flight that are large
	account *cache.Account
	charged atomic.Int64 // bytes that were queued or let go since the account was last told

	mu          sync.Mutex // guards all below, and every slot's and destination's fields that say so; never held across I/O
	gen         int64      // grows with each slot that comes
	incarnation uint32
	slots       map[int]*slot
	bytes       int64 // of all that is queued
}

// slot is a slot that is held here.
type slot struct {
	role     shard.Role
	consumer string
	gen      int64
	tasks    *lifecycle.Tasks
	saving   sync.Mutex // one save at a time

	// Guarded by Sender.mu.
	applied shard.Vector // up to where the log was taken in
	saved   shard.Vector
	dests   map[id.ServerName]*destination
	waiting map[*destination]struct{}
	working int
	closing bool
	idle    chan struct{} // closed when the slot is closing and nobody works
}

// New makes a Sender, whose work carries the values of ctx. Nothing happens before Start.
func New(ctx context.Context, cfg Config, o Options) *Sender {
	cfg = cfg.withDefaults()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Valid == nil {
		o.Valid = func(int, shard.Epoch) bool { return true }
	}
	s := &Sender{
		cfg: cfg, o: o, log: o.Log, tasks: lifecycle.NewTasks(context.WithoutCancel(ctx)),
		changed: make(chan struct{}, 1), kick: make(chan struct{}, 1), soft: make(chan any, 1024),
		retries: make(chan struct{}, cfg.Retries), lanes: make(chan struct{}, cfg.Lanes), fresh: make(chan struct{}, cfg.Fresh),
		big: make(chan struct{}, maxBig), slots: map[int]*slot{},
	}
	s.account = o.Budget.Account("federation-queue", nil)
	s.rooms = newRooms(s)
	s.metrics = newMetrics(s, o.Metrics)
	return s
}

// Start implements lifecycle.Service.
func (s *Sender) Start(context.Context) error {
	s.tasks.Go(s.follow)
	s.tasks.Go(s.schedule)
	s.tasks.Go(s.hearSoft)
	s.tasks.Every(s.cfg.SaveEvery, s.saveAll)
	return nil
}

// Stop implements lifecycle.Service. The slots have been closed before.
func (s *Sender) Stop(ctx context.Context) error {
	if err := s.tasks.StopWithin(ctx); err != nil {
		return fmt.Errorf("stop sender: %w", err)
	}
	s.rooms.close()
	s.account.Close()
	return nil
}

// Opened implements lease.Owner.
func (s *Sender) Opened(ctx context.Context, n int, epoch shard.Epoch) error {
	sl := &slot{
		role:     shard.Role{Name: RoleName, Slot: int16(n), Epoch: epoch},
		consumer: fmt.Sprintf("%s/%d", RoleName, n), dests: map[id.ServerName]*destination{}, waiting: map[*destination]struct{}{},
	}
	from, err := s.o.Cursors.LoadCursor(ctx, sl.consumer)
	if err != nil {
		return err
	}
	behind, err := s.o.DB.LoadBehind(ctx, sl.role.Slot)
	if err != nil {
		return err
	}
	stored, err := s.o.DB.EDUDestinations(ctx, shard.ID(n))
	if err != nil {
		return err
	}
	sl.tasks = lifecycle.NewTasks(context.WithoutCancel(ctx))
	sl.applied, sl.saved = from.Positions.Clone(), from.Positions.Clone()
	now := s.o.Now()
	for _, b := range behind {
		d := sl.dest(id.ServerName(b.Destination))
		if d.owed == nil {
			d.owed, d.saved = map[shard.ID]shard.Pos{}, map[shard.ID]shard.Pos{}
		}
		d.owed[b.Shard], d.saved[b.Shard] = b.Pos, b.Pos
		sl.wait(d, now)
	}
	for _, host := range stored {
		d := sl.dest(id.ServerName(host))
		d.stored = true
		sl.wait(d, now)
	}
	s.mu.Lock()
	s.gen++
	sl.gen = s.gen
	s.incarnation = max(s.incarnation, from.Incarnation)
	s.slots[n] = sl
	s.mu.Unlock()
	// From now on rooms are read with this slot's destinations among their hosts; only what is taken in with such counts for it.
	s.rooms.renew(sl.gen)
	notify(s.changed)
	notify(s.kick)
	return nil
}

// Closing implements lease.Owner: what is queued for those who answer is sent and waited for, for a while, what was acknowledged is stored, and
// the rest is the next holder's.
func (s *Sender) Closing(ctx context.Context, n int) {
	s.mu.Lock()
	sl := s.slots[n]
	if sl == nil {
		s.mu.Unlock()
		return
	}
	sl.closing, sl.idle = true, make(chan struct{})
	clear(sl.waiting)
	if sl.working == 0 {
		close(sl.idle)
	}
	s.mu.Unlock()
	t := time.NewTimer(s.cfg.Drain)
	defer t.Stop()
	select {
	case <-sl.idle:
	case <-t.C:
	case <-ctx.Done():
	}
	if err := sl.tasks.StopWithin(ctx); err != nil {
		s.log.Warn("transactions did not end in time", "slot", n, "error", err)
	}
	if err := s.save(ctx, sl); err != nil && !errors.Is(err, follow.ErrRoleLost) {
		s.log.Warn("places of destinations were not stored", "slot", n, "error", err)
	}
	s.mu.Lock()
	delete(s.slots, n)
	for _, d := range sl.dests {
		s.forget(d)
	}
	gen := s.gen
	s.mu.Unlock()
	s.settle()
	s.rooms.renew(gen)
}

// Heard tells that a server has shown that it is there: it is sent at once what it is owed.
func (s *Sender) Heard(server id.ServerName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sl := s.slots[int(s.o.Shards.Of(string(server)))]
	if sl == nil {
		return
	}
	d := sl.dests[server]
	if d == nil {
		return
	}
	if _, waits := sl.waiting[d]; waits {
		d.due = time.Time{}
		notify(s.kick)
	}
}

// HearTyping takes in who types in a room. It may be dropped.
func (s *Sender) HearTyping(t *entry.Typing) { s.hear(t) }

// HearPresence takes in who is online. It may be dropped.
func (s *Sender) HearPresence(b *entry.PresenceBatch) { s.hear(b) }

func (s *Sender) hear(m any) {
	select {
	case s.soft <- m:
	default:
	}
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
