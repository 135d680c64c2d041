package push

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/infra/outhttp"
	"github.com/heddle-im/heddle/pkg/infra/telemetry"
	"github.com/heddle-im/heddle/pkg/matrix/pushrule"
	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
	"github.com/heddle-im/heddle/pkg/store/pushdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

const (
	// RoleName is the role under which notifications are sent, by one worker at a time.
	RoleName = "push"
	// Consumer is the name of the sender's cursor.
	Consumer = "push"
)

// Config sets bounds and paces. The zero value of a field means its default.
type Config struct {
	// MaxQueue is how many events wait for a pusher before it is owed them. Default 50.
	MaxQueue int
	// Most is how many of the events that it is owed a pusher is told of, the latest. Default 20.
	Most int
	// MaxAge is how old an event is at most that is told of. Default 24 hours.
	MaxAge time.Duration
	// Patience is for how long what is under way is waited for before the place in the log is stored. Default 2 s.
	Patience time.Duration
	// Linger is for how long those are waited for who are being told something when the role is given away. Default 2 s.
	Linger time.Duration
	// Timeout bounds one request to a gateway. Default 20 s.
	Timeout time.Duration
	// MinBackoff and MaxBackoff bound how long a pusher is left alone after a failure. Default 1 s and 1 hour.
	MinBackoff, MaxBackoff time.Duration
	// Tick is how often it is looked who is to be tried again. Default 250 ms.
	Tick time.Duration
	// Lanes is how many requests are under way at a time, PerGateway how many of them at one gateway, and Fresh how many at one that has
	// not answered yet, or did not answer last time. Default 1024, 64 and 4.
	Lanes, PerGateway, Fresh int
	// Readers is how many notifications are made at a time, which takes queries. Default 8.
	Readers int
	// MaxRooms is of how many rooms it is remembered who hears them. Default 20,000.
	MaxRooms int
	// SaveEvery is how often the place in the log is stored. Default 1 s.
	SaveEvery time.Duration
	// RestartAfter is how long it is waited after a failure before the log is followed anew. Default 5 s.
	RestartAfter time.Duration
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
	c.MaxQueue, c.Most, c.MaxAge = or(c.MaxQueue, 50), or(c.Most, 20), or(c.MaxAge, 24*time.Hour)
	c.Linger = or(c.Linger, 2*time.Second)
	c.Patience, c.Timeout, c.Tick = or(c.Patience, 2*time.Second), or(c.Timeout, 20*time.Second), or(c.Tick, 250*time.Millisecond)
	c.MinBackoff, c.MaxBackoff = or(c.MinBackoff, time.Second), or(c.MaxBackoff, time.Hour)
	c.Lanes, c.PerGateway, c.Fresh, c.Readers = or(c.Lanes, 1024), or(c.PerGateway, 64), or(c.Fresh, 4), or(c.Readers, 8)
	c.MaxRooms, c.SaveEvery, c.RestartAfter = or(c.MaxRooms, 20_000), or(c.SaveEvery, time.Second), or(c.RestartAfter, 5*time.Second)
	return c
}

// Options are what a Sender needs. Stream, Roots, Metrics and Log may be nil.
type Options struct {
	Shards      shard.Map
	DB          *pushdb.DB
	Rooms       *roomdb.Reader
	Accounts    *accountdb.Reader
	Preferences *Preferences
	Cursors     follow.Cursors
	Source      follow.Source
	Stream      follow.Stream
	// Guard says which addresses gateways may have.
	Guard     *outhttp.Guard
	Roots     *x509.CertPool
	UserAgent string
	// Remove removes a pusher that its gateway does not know any more.
	Remove  func(ctx context.Context, k pushdb.PusherKey) error
	Now     func() time.Time
	Metrics *telemetry.Metrics
	Log     *slog.Logger
}

// Sender tells push gateways what users are to be notified of. It is the owner of the lease of its role.
//
// It promises, for each pusher by itself:
//   - What its user is to be notified of is told at least once, over restarts and hand-overs between workers, in the order in which it was
//     committed in a room; the place in the log is stored only after the gateway has taken it, or after it was noted that the pusher is owed it.
//   - A gateway that fails is left alone for a time that grows, and delays nobody else. When it is back, its pushers are told of the latest
//     of what they are owed: not of what is read, taken back, or older than a day.
//   - What is stored is a row for each pusher that is owed something, and nothing for an event: what it is owed is read from what is counted
//     (store/pushdb).
//   - When a user reads, the number of what is unread is told. It may be lost.
//
// The rules were asked when the event was committed, for the counts; here they are asked again only for how to tell it (sounds).
type Sender struct {
	cfg        Config
	o          Options
	log        *slog.Logger
	metrics    metrics
	predefined *pushrule.Compiled
	transport  *http.Transport
	http       *http.Client

	mu   sync.Mutex // guards term
	term *term
}

// New makes a Sender. It does nothing before it is given its role.
func New(cfg Config, o Options) *Sender {
	cfg = cfg.withDefaults()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Sender{cfg: cfg, o: o, log: o.Log, predefined: pushrule.Compile(pushrule.Defaults(pushrule.Me))}
	s.metrics = newMetrics(s, o.Metrics)
	s.transport = transportFor(cfg, o)
	s.http = &http.Client{
		Transport: s.transport, Timeout: cfg.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return s
}

// Opened implements lease.Owner.
func (s *Sender) Opened(ctx context.Context, slot int, epoch shard.Epoch) error {
	owed, err := s.o.DB.Owed(ctx)
	if err != nil {
		return fmt.Errorf("take over notifications: %w", err)
	}
	t := newTerm(ctx, s, shard.Role{Name: RoleName, Slot: int16(slot), Epoch: epoch})
	if err := t.restore(ctx, owed); err != nil {
		t.work.Stop()
		return fmt.Errorf("take over notifications: %w", err)
	}
	t.work.Every(s.cfg.Tick, t.tick)
	t.work.Every(s.cfg.SaveEvery, t.save)
	t.following.Go(t.follow)
	s.mu.Lock()
	s.term = t
	s.mu.Unlock()
	return nil
}

// Closing implements lease.Owner: what is under way is waited for a while, what is not done is noted as owed, and is the next holder's.
func (s *Sender) Closing(ctx context.Context, _ int) {
	s.mu.Lock()
	t := s.term
	s.term = nil
	s.mu.Unlock()
	if t == nil {
		return
	}
	if err := t.following.StopWithin(ctx); err != nil {
		s.log.Warn("the sender of notifications did not stop in time", "error", err)
	}
	t.await(ctx, t.cfg.Linger, t.idle) // who gives the role away in order has nothing told twice
	if err := t.work.StopWithin(ctx); err != nil {
		s.log.Warn("notifications did not end in time", "error", err)
	}
	t.save(ctx)
	s.transport.CloseIdleConnections()
}

// follow follows the log until ctx ends.
func (t *term) follow(ctx context.Context) {
	for ctx.Err() == nil {
		err := t.followOnce(ctx)
		if ctx.Err() != nil || errors.Is(err, follow.ErrRoleLost) {
			return
		}
		t.log.Error("the sender of notifications does not follow the log and begins anew", "error", err)
		_ = lifecycle.Sleep(ctx, t.cfg.RestartAfter) // the loop looks at ctx
	}
}

func (t *term) followOnce(ctx context.Context) error {
	from, err := t.o.Cursors.LoadCursor(ctx, Consumer)
	if err != nil {
		return err
	}
	t.begin(from.Positions)
	d := follow.NewDurable(t.cfg.Follow, follow.DurableOptions{
		Name: Consumer, Role: t.role, Cursors: t.o.Cursors, Source: t.o.Source, Stream: t.o.Stream, Consumer: t, Filter: wanted,
		Log: t.log, SaveEvery: t.cfg.SaveEvery,
	})
	if err = d.Start(ctx); err == nil {
		if m := t.o.Metrics; m != nil {
			c := d.Metrics()
			if m.Registerer().Register(c) == nil {
				defer m.Registerer().Unregister(c)
			}
		}
		select {
		case <-ctx.Done():
		case err = <-d.Failed():
		}
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.cfg.Patience+3*time.Second)
	defer cancel()
	return errors.Join(err, d.Stop(stop))
}
