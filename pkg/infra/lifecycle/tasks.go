package lifecycle

import (
	"context"
	"sync"
	"time"
)

// Tasks owns goroutines: it gives them a context and waits for them.
type Tasks struct {
	ctx    context.Context
	cancel context.CancelFunc

	mu      sync.Mutex // guards stopped, and orders Go before Wait
	stopped bool
	wg      sync.WaitGroup
}

// NewTasks returns an owner whose goroutines' context derives from ctx. When
// the owner is a Service, ctx should not be that of its Start.
func NewTasks(ctx context.Context) *Tasks {
	ctx, cancel := context.WithCancel(ctx)
	return &Tasks{ctx: ctx, cancel: cancel}
}

// Context is that of the goroutines; it ends with Stop.
func (t *Tasks) Context() context.Context { return t.ctx }

// Go runs f in a goroutine until the context that it is given ends. After Stop
// it does nothing and returns false.
func (t *Tasks) Go(f func(ctx context.Context)) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return false
	}
	t.wg.Go(func() { f(t.ctx) })
	return true
}

// Every runs f at each interval, and once at the beginning, never twice at a
// time, until Stop.
func (t *Tasks) Every(interval time.Duration, f func(ctx context.Context)) bool {
	return t.Go(func(ctx context.Context) {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			f(ctx)
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
}

// Stop ends the context and waits for all goroutines. It is idempotent. It
// must not be called from one of them.
func (t *Tasks) Stop() {
	_ = t.StopWithin(context.Background())
}

// StopWithin is Stop that gives up waiting when ctx ends.
func (t *Tasks) StopWithin(ctx context.Context) error {
	t.mu.Lock()
	t.stopped = true
	t.mu.Unlock()
	t.cancel()
	if ctx.Done() == nil {
		t.wg.Wait()
		return nil
	}
	done := make(chan struct{})
	go func() { // ends with the last of the goroutines
		t.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
