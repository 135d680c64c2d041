package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Service is a part of a process that runs until it is stopped.
type Service interface {
	// Start returns when the service is ready to be used, or with an error and
	// nothing left running. ctx bounds the start and not the life of the service.
	Start(ctx context.Context) error
	// Stop ends the service and waits for everything that it started; when ctx
	// ends first it stops the hard way. It is idempotent, and does nothing if
	// Start was not called or failed.
	Stop(ctx context.Context) error
}

// Failing is a Service that can end by itself. Run stops the process when it
// does.
type Failing interface {
	// Failed receives the reason, at most once, while the service runs.
	Failed() <-chan error
}

// Funcs makes a Service of two functions, each of which may be nil. As Stop is
// called once by a Group, OnStop need not be idempotent there.
type Funcs struct {
	OnStart func(ctx context.Context) error
	OnStop  func(ctx context.Context) error
}

// Start implements Service.
func (f Funcs) Start(ctx context.Context) error {
	if f.OnStart == nil {
		return nil
	}
	return f.OnStart(ctx)
}

// Stop implements Service.
func (f Funcs) Stop(ctx context.Context) error {
	if f.OnStop == nil {
		return nil
	}
	return f.OnStop(ctx)
}

type member struct {
	name string
	svc  Service
}

// Group is services that start in the order in which they were added and stop
// in the reverse. It is a Service itself. The zero value is not usable.
type Group struct {
	log *slog.Logger

	mu      sync.Mutex // guards what follows; held throughout Start and Stop
	members []member
	started []member // in order; those still to be stopped
	failed  chan error
	watch   *Tasks
}

// NewGroup returns an empty group. log may be nil.
func NewGroup(log *slog.Logger) *Group {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Group{log: log, failed: make(chan error, 1)}
}

// Add appends a service. Not after Start.
func (g *Group) Add(name string, s Service) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.members = append(g.members, member{name, s})
}

// Start starts all services in order. When one fails, those before it are
// stopped again, in reverse, before the error is returned.
func (g *Group) Start(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.started) > 0 {
		return errors.New("group already started")
	}
	g.watch = NewTasks(context.WithoutCancel(ctx))
	for _, m := range g.members {
		begin := time.Now()
		err := ctx.Err()
		if err == nil {
			err = m.svc.Start(ctx)
		}
		if err != nil {
			err = fmt.Errorf("start %s: %w", m.name, err)
			// The start's context may have ended; the unwinding must not suffer.
			uctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unwindTimeout)
			defer cancel()
			return errors.Join(err, g.stop(uctx))
		}
		g.log.DebugContext(ctx, "started", "service", m.name, "took", time.Since(begin))
		g.started = append(g.started, m)
		g.watchFailing(m)
	}
	return nil
}

const unwindTimeout = 10 * time.Second

func (g *Group) watchFailing(m member) {
	f, ok := m.svc.(Failing)
	if !ok {
		return
	}
	g.watch.Go(func(ctx context.Context) {
		select {
		case err := <-f.Failed():
			select {
			case g.failed <- fmt.Errorf("%s: %w", m.name, err):
			default: // only the first is told
			}
		case <-ctx.Done():
		}
	})
}

// Failed implements Failing: it receives the first failure of a service that
// is Failing itself.
func (g *Group) Failed() <-chan error { return g.failed }

// Stop stops what was started, in reverse. It goes on after an error, and
// returns all of them.
func (g *Group) Stop(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.stop(ctx)
}

func (g *Group) stop(ctx context.Context) error {
	var errs []error
	for len(g.started) > 0 {
		m := g.started[len(g.started)-1]
		g.started = g.started[:len(g.started)-1]
		begin := time.Now()
		if err := m.svc.Stop(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", m.name, err))
		}
		g.log.DebugContext(ctx, "stopped", "service", m.name, "took", time.Since(begin))
	}
	if g.watch != nil {
		g.watch.Stop()
	}
	return errors.Join(errs...)
}
