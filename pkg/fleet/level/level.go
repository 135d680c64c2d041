// Package level keeps the cluster's feature level, by which two adjacent releases run side by side on data that both write.
//
// What a release would write that its predecessor cannot read (an entry kind, an encoding, a version of a token, a method between
// workers) has a number, its level. A release reads it from the first day, and writes it only where [Level.Allows] says so. The
// cluster's level is one row: it is raised to the lowest of what the workers in the register read, by any of them, and never lowered.
// From then on a release that does not read it cannot register: there is no way back past it.
//
// Guarantees: Allows(n) is true only if no worker in the register reads less than n, and none can register that does; a
// worker that read the level earlier knows a lower one at worst, and so writes what everybody reads.
//
// A Level is safe for concurrent use. Its one goroutine is ended and waited for by Stop. It may be imported by app, and by services
// as what they declare of it.
package level

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/store/fleetdb"
)

// Store is where the level is; *fleetdb.DB is one.
type Store interface {
	// Level gives the cluster's level, and the lowest of what the workers in the register read.
	Level(ctx context.Context) (fleetdb.Level, error)
	// Raise raises the cluster's level as far as all in the register read, and gives it.
	Raise(ctx context.Context) (int32, error)
}

// Options are a Level's settings.
type Options struct {
	// Reads is the highest level that this process reads.
	Reads int32
	// Interval is how often the level is read; 2 s by default.
	Interval time.Duration
	Log      *slog.Logger
}

// Level is the cluster's feature level as one worker knows it. It is a lifecycle.Service.
type Level struct {
	store Store
	opts  Options
	now   atomic.Int32
	tasks *lifecycle.Tasks
}

// New makes a Level; nothing is read before Start, and until then nothing is allowed.
func New(store Store, o Options) *Level {
	if o.Interval == 0 {
		o.Interval = 2 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Level{store: store, opts: o}
}

// Allows tells whether what has level n may be written.
func (l *Level) Allows(n int32) bool { return n <= l.now.Load() }

// Reads is the highest level that this process reads.
func (l *Level) Reads() int32 { return l.opts.Reads }

// Now is the level that was read last.
func (l *Level) Now() int32 { return l.now.Load() }

// TooOldError is the error of a process that cannot read what the others write.
type TooOldError struct{ Reads, Cluster int32 }

// Error implements error.
func (e *TooOldError) Error() string {
	return fmt.Sprintf("this release reads feature level %d and the database is at %d: "+
		"a later release has taken it past the point of no return", e.Reads, e.Cluster)
}

// Check is for the readiness: it fails once the cluster has gone beyond this process.
func (l *Level) Check(context.Context) error {
	if now := l.now.Load(); now > l.opts.Reads {
		return &TooOldError{l.opts.Reads, now}
	}
	return nil
}

// Start reads the level, and keeps it current until Stop. It fails with a [TooOldError] if this process cannot work here.
func (l *Level) Start(ctx context.Context) error {
	if err := l.look(ctx); err != nil {
		return err
	}
	if err := l.Check(ctx); err != nil {
		return err
	}
	l.tasks = lifecycle.NewTasks(context.WithoutCancel(ctx))
	l.tasks.Go(l.run)
	return nil
}

// Stop ends the reading. It is idempotent.
func (l *Level) Stop(ctx context.Context) error {
	if l.tasks == nil {
		return nil
	}
	return l.tasks.StopWithin(ctx)
}

func (l *Level) run(ctx context.Context) {
	t := time.NewTicker(l.opts.Interval)
	defer t.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		err := l.look(ctx)
		if err != nil && !failing && ctx.Err() == nil { // once an outage
			l.opts.Log.Warn("the feature level cannot be read", "error", err)
		}
		failing = err != nil
	}
}

// look reads the level, and raises it if it can be.
func (l *Level) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	at, err := l.store.Level(ctx)
	if err != nil {
		return fmt.Errorf("read the feature level: %w", err)
	}
	l.learn(at.Cluster)
	if at.Readable <= at.Cluster {
		return nil
	}
	now, err := l.store.Raise(ctx)
	if err != nil {
		return fmt.Errorf("raise the feature level: %w", err)
	}
	l.learn(now)
	return nil
}

// learn notes the level. It does not go down: what one reads of a database that was restored holds until the restart, when the
// others of its release have long been told of the level.
func (l *Level) learn(now int32) {
	before := l.now.Load()
	for now > before && !l.now.CompareAndSwap(before, now) {
		before = l.now.Load()
	}
	if now <= before {
		return
	}
	if before != 0 {
		l.opts.Log.Info("the feature level was raised", "level", now)
	}
	if now > l.opts.Reads {
		l.opts.Log.Error("this release is too old for the cluster", "error", &TooOldError{l.opts.Reads, now})
	}
}
