package appservice

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/infra/telemetry"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/appservicedb"
)

// RoleName is the role under which application services are sent what happens, by one worker at a time.
const RoleName = "appservice"

// Config sets bounds and paces. The zero value of a field means its default.
type Config struct {
	// MaxEvents and MaxBytes bound one transaction: it is full when it has as many of the one or of the other. Default 100 and 1 MiB.
	MaxEvents, MaxBytes int
	// MaxBatches and MaxHeld bound what of the log is held for one that does not keep up, before it is read from the database. Default 256 and
	// 4 MiB.
	MaxBatches, MaxHeld int
	// MaxRooms is of how many rooms it is remembered, for each, who of its users is in them. Default 20,000.
	MaxRooms int
	// Timeout bounds one transaction's request. Default 1 min.
	Timeout time.Duration
	// MinBackoff and MaxBackoff bound how long one is left alone after a failure. Default 1 s and 1 min.
	MinBackoff, MaxBackoff time.Duration
	// SaveEvery is how often a place in the log is stored up to which there is nothing to be sent. Default 5 s.
	SaveEvery time.Duration
	// Retry is how long after a failure of the database it is asked again. Default 1 s.
	Retry time.Duration
	// ForgetAfter is for how long the log is kept for one that is not registered any more. Default 7 days.
	ForgetAfter time.Duration
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
	c.MaxEvents, c.MaxBytes, c.MaxBatches, c.MaxHeld = or(c.MaxEvents, 100), or(c.MaxBytes, 1<<20), or(c.MaxBatches, 256), or(c.MaxHeld, 4<<20)
	c.MaxRooms, c.Timeout = or(c.MaxRooms, 20_000), or(c.Timeout, time.Minute)
	c.MinBackoff, c.MaxBackoff = or(c.MinBackoff, time.Second), or(c.MaxBackoff, time.Minute)
	c.SaveEvery, c.Retry, c.ForgetAfter = or(c.SaveEvery, 5*time.Second), or(c.Retry, time.Second), or(c.ForgetAfter, 7*24*time.Hour)
	return c
}

// Received says that a device has been told its messages up to a position.
type Received struct {
	User, Device string
	Upto         shard.Pos
}

// Options are what a Sender needs. Stream, Acknowledge, Metrics and Log may be nil.
type Options struct {
	Server   id.ServerName
	Shards   shard.Map
	Services *Registry
	Client   *Client
	DB       *appservicedb.DB
	Source   follow.Source
	Stream   follow.Stream
	// Acknowledge has messages to devices removed that were told.
	Acknowledge func(ctx context.Context, list []Received) error
	Now         func() time.Time
	Metrics     *telemetry.Metrics
	Log         *slog.Logger
}

// Sender tells application services what happens. It is the owner of the lease of its role.
//
// It promises, for each application service by itself:
//   - It is sent each event that concerns it, in the order of the log of the event's room, in numbered transactions, one at a time. A transaction
//     is stored before it is sent, together with the place in the log that it reaches to, and is sent again, the same under the same id, until
//     it is taken: over restarts and hand-overs between workers nothing is left out, and nothing is in two transactions.
//   - One that does not answer delays nobody else. What waits for it waits in the log; what is held in memory is bounded.
//   - Typing and presence, which are not in the log, may be lost.
type Sender struct {
	cfg     Config
	o       Options
	log     *slog.Logger
	metrics metrics

	mu   sync.Mutex // guards term
	term *term
}

type metrics struct {
	sent *prometheus.CounterVec
	took *prometheus.HistogramVec
}

// NewSender makes a Sender. It does nothing before it is given its role.
func NewSender(cfg Config, o Options) *Sender {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Sender{cfg: cfg.withDefaults(), o: o, log: o.Log, metrics: metrics{
		sent: o.Metrics.CounterVec("appservice_transactions_total", "Transactions to application services, by service and outcome.", "service", "outcome"),
		took: o.Metrics.HistogramVec("appservice_transaction_seconds", "How long application services took for a transaction.",
			[]float64{.01, .05, .1, .5, 1, 5, 10, 60}, "service"),
	}}
}

// Register notes which application services there are, so that the log is kept for them from now on. It is called by every worker that may be
// given the role, before it answers requests.
func (s *Sender) Register(ctx context.Context) error {
	ids := s.ids()
	if len(ids) == 0 {
		return nil
	}
	heads, err := s.o.Source.Heads(ctx)
	if err != nil {
		return fmt.Errorf("register application services: %w", err)
	}
	return s.o.DB.Register(ctx, ids, heads.Positions)
}

// ids are those of the application services that are sent something.
func (s *Sender) ids() []string {
	var out []string
	for _, x := range s.o.Services.All() {
		if x.URL != "" {
			out = append(out, x.ID)
		}
	}
	return out
}

// term is the time in which this worker has the role.
type term struct {
	*Sender
	role  shard.Role
	work  *lifecycle.Tasks
	posts []*post
}

// Opened implements lease.Owner.
func (s *Sender) Opened(ctx context.Context, slot int, epoch shard.Epoch) error {
	if err := s.Register(ctx); err != nil {
		return err
	}
	gone, err := s.o.DB.Forget(ctx, s.ids(), s.cfg.ForgetAfter)
	if err != nil {
		return err
	}
	for _, name := range gone {
		s.log.Warn("an application service that is registered no more is forgotten", "service", name)
	}
	t := &term{
		Sender: s, role: shard.Role{Name: RoleName, Slot: int16(slot), Epoch: epoch},
		work: lifecycle.NewTasks(context.WithoutCancel(ctx)),
	}
	for _, x := range s.o.Services.All() {
		if x.URL == "" {
			continue
		}
		state, err := s.o.DB.Load(ctx, x.ID, s.o.Shards.Count())
		if err != nil {
			t.work.Stop()
			return err
		}
		t.posts = append(t.posts, newPost(t, x, state))
	}
	for _, p := range t.posts {
		t.work.Go(p.run)
	}
	if len(t.posts) > 0 {
		t.work.Go(t.follow)
		t.work.Every(time.Hour, func(ctx context.Context) { // those that are registered are not forgotten
			if err := s.Register(ctx); err != nil && ctx.Err() == nil {
				s.log.Warn("application services were not noted as registered", "error", err)
			}
		})
	}
	s.mu.Lock()
	s.term = t
	s.mu.Unlock()
	return nil
}

// Closing implements lease.Owner. What is under way is sent again by the next holder.
func (s *Sender) Closing(ctx context.Context, _ int) {
	s.mu.Lock()
	t := s.term
	s.term = nil
	s.mu.Unlock()
	if t == nil {
		return
	}
	if err := t.work.StopWithin(ctx); err != nil {
		s.log.Warn("the sender to application services did not stop in time", "error", err)
	}
	s.o.Client.Close()
}

// posts gives those that are served here now.
func (s *Sender) posts() []*post {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.term == nil {
		return nil
	}
	return s.term.posts
}

// Kick has one tried at once that is being left alone: it has shown that it is there.
func (s *Sender) Kick(service string) {
	for _, p := range s.posts() {
		if p.service.ID == service {
			p.kick()
		}
	}
}

// HearTyping takes in who types in a room.
func (s *Sender) HearTyping(typing *entry.Typing) {
	for _, p := range s.posts() {
		if p.service.Ephemeral {
			p.hearTyping(typing)
		}
	}
}

// HearPresence takes in who is online.
func (s *Sender) HearPresence(b *entry.PresenceBatch) {
	for _, p := range s.posts() {
		if p.service.Ephemeral {
			p.hearPresence(b)
		}
	}
}

// follow hands the log to the posts until ctx ends. A follower that fails is begun anew.
func (t *term) follow(ctx context.Context) {
	for ctx.Err() == nil {
		f := follow.New(t.cfg.Follow, follow.Options{
			Source: t.o.Source, Stream: t.o.Stream, Consumer: (*fan)(t), Filter: t.wanted, Log: t.log,
		})
		err := f.Start(ctx)
		if err == nil {
			select {
			case <-ctx.Done():
			case err = <-f.Failed():
			}
		}
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		err = errors.Join(err, f.Stop(stop))
		cancel()
		if ctx.Err() != nil {
			return
		}
		t.log.Error("the sender to application services does not follow the log and begins anew", "error", err)
		_ = lifecycle.Sleep(ctx, t.cfg.Retry) // the loop looks at ctx
	}
}

// wanted is the follower's filter.
func (t *term) wanted(k entry.Kind, _ shard.Nid, _ []byte) bool {
	for _, p := range t.posts {
		if p.wants(k) {
			return true
		}
	}
	return false
}

// fan hands what the follower applies to all posts.
type fan term

// Apply implements follow.Consumer. It never waits: who has no room reads from the database.
func (f *fan) Apply(_ context.Context, b follow.Batch) error {
	for _, p := range f.posts {
		p.offer(b)
	}
	return nil
}

// Reset implements follow.Resetter.
func (f *fan) Reset(_ context.Context, at shard.Heads) error {
	for _, p := range f.posts {
		p.reset(at)
	}
	return nil
}
