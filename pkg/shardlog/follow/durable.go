package follow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// ErrRoleLost says that the role under which a durable consumer works is held by another.
var ErrRoleLost = errors.New("role is held by another worker")

// Cursors keeps places in the database. It is store/logdb.
type Cursors interface {
	// LoadCursor reads a consumer's places; a shard that it has none of begins where its log does.
	LoadCursor(ctx context.Context, consumer string) (shard.Heads, error)
	// SaveCursor stores places of a consumer, if the role is held under the epoch; else held is false.
	SaveCursor(ctx context.Context, consumer string, role Role, at shard.Vector) (held bool, err error)
}

// Flusher is a Consumer that may put off the effects of what it is told, so that many cost as much as one. Flush brings about
// all of them; when it fails, none is forgotten. A durable consumer's place is stored after it. It is called beside Apply.
type Flusher interface {
	Flush(ctx context.Context) error
}

// Role is the lease under which a consumer works.
type Role = shard.Role

// DurableOptions are what a durable consumer needs. Stream, Filter and Log may be nil.
type DurableOptions struct {
	// Name is under which the places are kept.
	Name     string
	Role     Role
	Cursors  Cursors
	Source   Source
	Stream   Stream
	Consumer Consumer
	Filter   Filter
	Log      *slog.Logger
	// SaveEvery is how often places are stored. Default 1 s.
	SaveEvery time.Duration
}

// Durable follows the log for a consumer that must miss nothing over restarts. Its place is stored after the consumer was told, so that it
// is told everything at least once: its effects must be idempotent. A consumer that fails is told the same again, with
// pauses, until it succeeds. It is a lifecycle service; it fails with ErrRoleLost when another holds the role.
type Durable struct {
	cfg      Config
	o        DurableOptions
	tasks    *lifecycle.Tasks
	follower *Follower
	failed   chan error

	mu    sync.Mutex // guards at, dirty
	at    shard.Vector
	dirty bool
}

// NewDurable makes a durable consumer. Nothing happens before Start.
func NewDurable(cfg Config, o DurableOptions) *Durable {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.SaveEvery == 0 {
		o.SaveEvery = time.Second
	}
	return &Durable{cfg: cfg, o: o, tasks: lifecycle.NewTasks(context.Background()), failed: make(chan error, 1)}
}

// Start reads the places and begins to follow. What was missed while nobody followed is told to the consumer by and by, after
// Start has returned.
func (d *Durable) Start(ctx context.Context) error {
	from, err := d.o.Cursors.LoadCursor(ctx, d.o.Name)
	if err != nil {
		return fmt.Errorf("start consumer %s: %w", d.o.Name, err)
	}
	d.at = from.Positions.Clone()
	d.follower = New(d.cfg, Options{
		Source: d.o.Source, Stream: d.o.Stream, Consumer: d, Filter: d.o.Filter, From: &from, Log: d.o.Log,
	})
	d.tasks.Go(func(ctx context.Context) {
		if err := d.follower.Start(ctx); err != nil {
			if ctx.Err() == nil {
				d.fail(fmt.Errorf("start consumer %s: %w", d.o.Name, err))
			}
			return
		}
		select {
		case <-ctx.Done():
		case err := <-d.follower.Failed():
			d.fail(err)
		}
	})
	d.tasks.Go(d.save)
	return nil
}

// Stop ends the consumer, waits for it, and stores its place. It is idempotent.
func (d *Durable) Stop(ctx context.Context) error {
	if d.follower == nil {
		return nil
	}
	if err := d.tasks.StopWithin(ctx); err != nil {
		return fmt.Errorf("stop consumer %s: %w", d.o.Name, err)
	}
	if err := d.follower.Stop(ctx); err != nil {
		return err
	}
	if err := d.store(ctx); err != nil && !errors.Is(err, ErrRoleLost) {
		return err
	}
	return nil
}

// Failed tells why the consumer ended by itself.
func (d *Durable) Failed() <-chan error { return d.failed }

func (d *Durable) fail(err error) {
	select {
	case d.failed <- err:
	default:
	}
}

// Ready tells whether the consumer keeps up.
func (d *Durable) Ready(ctx context.Context) error { return d.follower.Ready(ctx) }

// Apply implements Consumer, for the follower.
func (d *Durable) Apply(ctx context.Context, b Batch) error {
	pause := d.cfg.withDefaults().Retry
	for len(b.Entries) > 0 {
		err := d.o.Consumer.Apply(ctx, b)
		if err == nil {
			break
		}
		d.o.Log.Warn("consumer failed and is told again", "consumer", d.o.Name, "shard", b.Shard, "position", b.Last, "error", err)
		if err := lifecycle.Sleep(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, 10*time.Second)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at[b.Shard], d.dirty = b.Last, true
	return nil
}

func (d *Durable) save(ctx context.Context) {
	tick := time.NewTicker(d.o.SaveEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := d.store(ctx)
		switch {
		case errors.Is(err, ErrRoleLost):
			d.fail(err)
			return
		case err != nil && ctx.Err() == nil:
			d.o.Log.Warn("place of a consumer cannot be stored", "consumer", d.o.Name, "error", err)
		}
	}
}

func (d *Durable) store(ctx context.Context) error {
	d.mu.Lock()
	at, dirty := d.at.Clone(), d.dirty
	d.dirty = false
	d.mu.Unlock()
	if !dirty {
		return nil
	}
	var held bool
	var err error
	if f, ok := d.o.Consumer.(Flusher); ok {
		err = f.Flush(ctx)
	}
	if err == nil {
		held, err = d.o.Cursors.SaveCursor(ctx, d.o.Name, d.o.Role, at)
	}
	if err == nil && held {
		return nil
	}
	d.mu.Lock()
	d.dirty = true
	d.mu.Unlock()
	if err != nil {
		return fmt.Errorf("store place of %s: %w", d.o.Name, err)
	}
	return fmt.Errorf("%s: %w", d.o.Name, ErrRoleLost)
}
