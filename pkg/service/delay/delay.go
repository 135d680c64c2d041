// Package delay sends events later than they were asked for, unless they are cancelled before (MSC4140). Calls rest on it: a device has
// its own leaving scheduled, and puts it off as long as it is there.
//
// Guarantees: an event that is scheduled is sent once, whichever workers die meanwhile, and not before it is due; those of one room that
// a worker finds due together are sent in the order of their times. What the room refuses by then is given up. Who knows an event's id may act
// on it, so ids cannot be guessed.
//
// An [Engine] may run in any number of workers at the same time. The store gives each event to one of them, and the writer does the command of
// one event once, so that an event that was claimed by a worker that died is safely taken up by another. An Engine is safe for concurrent use.
// The package is imported by the write API and the composition root; it knows no HTTP.
package delay

import (
	"context"
	"crypto/rand"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/infra/telemetry"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/store/delaydb"
)

// Send has an event sent by its user. The same key has its effect once. A *mxerr.Error with a status below 500 is the room's refusal.
type Send func(ctx context.Context, key []byte, e *delaydb.Event) error

// Config bounds what is scheduled and says how it is looked after. Zero values take the defaults.
type Config struct {
	// MaxDelay is the longest time that an event may be put off. Default 24 h.
	MaxDelay time.Duration
	// MaxWaiting is how many events of one user may wait. Default 100.
	MaxWaiting int
	// Poll is how often it is looked for what other workers scheduled, and for what these were to send but died. Default 1 s.
	Poll time.Duration
	// Stale is how long a worker may take to send what it claimed, before another takes it up. Default 1 min.
	Stale time.Duration
	// Keep is how long it is remembered what has become of an event. Default 24 h.
	Keep time.Duration
	// Batch is how many events are claimed at a time. Default 100.
	Batch int
}

// WithDefaults fills in what is not set.
func (c Config) WithDefaults() Config {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.MaxDelay, 24*time.Hour)
	def(&c.Poll, time.Second)
	def(&c.Stale, time.Minute)
	def(&c.Keep, 24*time.Hour)
	if c.MaxWaiting == 0 {
		c.MaxWaiting = 100
	}
	if c.Batch == 0 {
		c.Batch = 100
	}
	return c
}

// Options are what an Engine needs. Metrics and Log may be nil.
type Options struct {
	Store   *delaydb.DB
	Send    Send
	Now     func() time.Time
	Metrics *telemetry.Metrics
	Log     *slog.Logger
}

// Engine schedules events and sends them when they are due. It is a lifecycle.Service.
type Engine struct {
	cfg   Config
	o     Options
	ended *prometheus.CounterVec
	nudge chan struct{}
	tasks *lifecycle.Tasks // nil until Start
}

// New makes an Engine.
func New(cfg Config, o Options) *Engine {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Engine{
		cfg: cfg.WithDefaults(), o: o, nudge: make(chan struct{}, 1),
		ended: o.Metrics.CounterVec("delayed_events_total", "Delayed events, by what became of them.", "outcome"),
	}
}

// MaxDelay and MaxWaiting are the bounds, for who tells clients of them.
func (e *Engine) MaxDelay() time.Duration { return e.cfg.MaxDelay }

// MaxWaiting is how many events of one user may wait.
func (e *Engine) MaxWaiting() int { return e.cfg.MaxWaiting }

func (e *Engine) now() int64 { return e.o.Now().UnixMilli() }

// Asked gives the id of the event that a device has asked for before with a transaction id.
func (e *Engine) Asked(ctx context.Context, user, device, txn string) (delayID string, ok bool, err error) {
	return e.o.Store.ByTxn(ctx, user, device, txn)
}

// Schedule has an event sent after its Delay, and gives the id by which it may be acted on until then. Its ID and times are set here.
func (e *Engine) Schedule(ctx context.Context, ev delaydb.Event) (delayID string, err error) {
	if ev.Delay > e.cfg.MaxDelay.Milliseconds() {
		return "", (&mxerr.Error{
			Code: mxerr.Unknown, HTTPStatus: 400, Message: "The requested delay exceeds the allowed maximum.",
		}).With("org.matrix.msc4140.errcode", "M_MAX_DELAY_EXCEEDED").With("org.matrix.msc4140.max_delay", e.cfg.MaxDelay.Milliseconds())
	}
	ev.ID = "syd_" + rand.Text()
	ok, err := e.o.Store.Schedule(ctx, &ev, e.now(), e.cfg.MaxWaiting)
	if err != nil {
		return "", err
	}
	if ok {
		e.wake()
		return ev.ID, nil
	}
	if ev.Txn != "" {
		if again, ok, err := e.o.Store.ByTxn(ctx, ev.User, ev.Device, ev.Txn); ok || err != nil {
			return again, err
		}
	}
	return "", (&mxerr.Error{
		Code: mxerr.Unknown, HTTPStatus: 400, Message: "The maximum number of delayed events has been reached.",
	}).With("org.matrix.msc4140.errcode", "M_MAX_DELAYED_EVENTS_EXCEEDED")
}

// Restart has an event wait anew, as long as at first.
func (e *Engine) Restart(ctx context.Context, delayID string) error {
	ok, err := e.o.Store.Restart(ctx, delayID, e.now())
	if err == nil && !ok {
		err = errNone()
	}
	return err
}

// Cancel has an event never be sent. To cancel it again does no harm.
func (e *Engine) Cancel(ctx context.Context, delayID string) error {
	ok, err := e.o.Store.Cancel(ctx, delayID, e.now())
	if ok {
		e.ended.WithLabelValues("cancelled").Inc()
	}
	if err != nil || ok {
		return err
	}
	return e.already(ctx, delayID, delaydb.Cancelled)
}

// Now has an event sent at once, and fails if the room refuses it.
func (e *Engine) Now(ctx context.Context, delayID string) error {
	ev, ok, err := e.o.Store.ClaimOne(ctx, delayID, e.now())
	if err != nil {
		return err
	}
	if !ok {
		return e.already(ctx, delayID, delaydb.Sent)
	}
	return e.send(ctx, &ev)
}

// already finds what is asked for done.
func (e *Engine) already(ctx context.Context, delayID string, want delaydb.Status) error {
	s, ok, err := e.o.Store.Status(ctx, delayID)
	if err != nil {
		return err
	}
	if !ok || s != want && (s != delaydb.BeingSent || want != delaydb.Sent) {
		return errNone()
	}
	return nil
}

func errNone() error { return mxerr.New(mxerr.NotFound, "There is no such delayed event") }
