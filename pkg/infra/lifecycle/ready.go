package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Check says whether a part of the process can do its job now. It should
// answer from what it knows and not go out and ask.
type Check func(ctx context.Context) error

// checkTimeout bounds all checks of one question.
const checkTimeout = 2 * time.Second

var errDraining = errors.New("the process is stopping")

// Readiness is the named checks of a process.
type Readiness struct {
	mu       sync.RWMutex // guards what follows
	checks   map[string]Check
	draining bool
}

// NewReadiness returns a registry without checks, which is ready.
func NewReadiness() *Readiness { return &Readiness{checks: map[string]Check{}} }

// Register adds a check under a name, in place of an earlier one of that name.
// The returned function removes it.
func (r *Readiness) Register(name string, c Check) (remove func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.checks[name] = c
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.checks, name)
	}
}

// Drain makes the process unready for good: balancers are to send no more.
func (r *Readiness) Drain() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.draining = true
}

// Ready runs all checks, in parallel, and returns those that fail by name. An
// empty map means ready. A check that panics or does not answer in time has
// failed.
func (r *Readiness) Ready(ctx context.Context) map[string]error {
	r.mu.RLock()
	checks := make(map[string]Check, len(r.checks))
	for name, c := range r.checks {
		checks[name] = c
	}
	draining := r.draining
	r.mu.RUnlock()
	failed := map[string]error{}
	if draining {
		failed["process"] = errDraining
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	type answer struct {
		name string
		err  error
	}
	answers := make(chan answer, len(checks)) // room for the late, so that they end
	for name, c := range checks {
		go func() { answers <- answer{name, runCheck(ctx, c)} }()
	}
	for range len(checks) {
		select {
		case a := <-answers:
			delete(checks, a.name)
			if a.err != nil {
				failed[a.name] = a.err
			}
		case <-ctx.Done():
			for name := range checks {
				failed[name] = fmt.Errorf("no answer: %w", ctx.Err())
			}
			return failed
		}
	}
	return failed
}

func runCheck(ctx context.Context, c Check) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("check panicked: %v", p)
		}
	}()
	return c(ctx)
}
