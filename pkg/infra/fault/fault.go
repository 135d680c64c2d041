// Package fault has the two tools for what should not happen: fail points, at
// which a test makes a real failure happen at an exact place, and Bugs, which
// report a state that the code holds to be impossible.
//
// Guarantees: a nil *Points and a nil *Bugs are usable; without a test there is
// no way to arm a point. A point that is not armed costs a nil check or one
// read-locked look-up.
//
// Concurrency: everything is safe for use by any number of goroutines.
//
// Any package of layer 3 and up, and infra, may import it. It imports nothing
// of Heddle.
package fault

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Action is what happens at an armed point. It may return an error, block
// until ctx ends or a channel says so, panic, or kill the process.
type Action func(ctx context.Context) error

// Points is the fail points of one process or of one test.
type Points struct {
	mu    sync.RWMutex // guards what follows
	armed map[string]Action
	hits  map[string]int
}

// NewPoints returns a set in which no point is armed.
func NewPoints() *Points {
	return &Points{armed: map[string]Action{}, hits: map[string]int{}}
}

// Hit is called where a fault may be injected. The name reads
// "package.place", as in "commit.before-publish". It returns the action's
// error, wrapped with the name.
func (p *Points) Hit(ctx context.Context, name string) error {
	if p == nil {
		return nil
	}
	p.mu.RLock()
	a := p.armed[name]
	p.mu.RUnlock()
	if a == nil {
		return nil
	}
	p.mu.Lock()
	p.hits[name]++
	p.mu.Unlock()
	if err := a(ctx); err != nil {
		return fmt.Errorf("fail point %s: %w", name, err)
	}
	return nil
}

// Arm makes a happen at the point, in place of an earlier action, until the
// returned function is called.
func (p *Points) Arm(name string, a Action) (disarm func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed[name] = a
	return func() { p.Disarm(name) }
}

// Disarm makes nothing happen at the point any more.
func (p *Points) Disarm(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.armed, name)
}

// Hits is how often the point was reached while it was armed.
func (p *Points) Hits(name string) int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.hits[name]
}

// Fail returns err.
func Fail(err error) Action {
	return func(context.Context) error { return err }
}

// Times runs a the first n times, and nothing after.
func Times(n int, a Action) Action {
	var mu sync.Mutex // guards n
	return func(ctx context.Context) error {
		mu.Lock()
		run := n > 0
		n--
		mu.Unlock()
		if !run {
			return nil
		}
		return a(ctx)
	}
}

// After does nothing the first n times, and runs a from then on.
func After(n int, a Action) Action {
	var mu sync.Mutex // guards n
	return func(ctx context.Context) error {
		mu.Lock()
		run := n <= 0
		n--
		mu.Unlock()
		if !run {
			return nil
		}
		return a(ctx)
	}
}

// Panic panics with v.
func Panic(v any) Action {
	return func(context.Context) error { panic(v) }
}

// Gate blocks who reaches a point until the test opens it.
type Gate struct {
	arrived chan struct{}
	open    chan struct{}
	once    sync.Once
}

// NewGate returns a closed gate.
func NewGate() *Gate {
	return &Gate{arrived: make(chan struct{}, 1024), open: make(chan struct{})}
}

// Action waits until the gate is open, or returns the error of ctx.
func (g *Gate) Action(ctx context.Context) error {
	select {
	case g.arrived <- struct{}{}:
	default:
	}
	select {
	case <-g.open:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Arrived receives once for each that has reached the gate.
func (g *Gate) Arrived() <-chan struct{} { return g.arrived }

// Open lets all pass, now and from now on. It is idempotent.
func (g *Gate) Open() { g.once.Do(func() { close(g.open) }) }

// Bugs reports impossible states. A nil *Bugs panics.
type Bugs struct {
	log   *slog.Logger
	count prometheus.Counter
}

// NewBugs returns what production uses: each bug is logged as an error with
// the place, and counted. Tests pass nil, and so panic.
func NewBugs(log *slog.Logger, reg prometheus.Registerer) (*Bugs, error) {
	b := &Bugs{log: log, count: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "heddle_bugs_total", Help: "States that the code holds to be impossible. Each is a bug: see the log.",
	})}
	if reg != nil {
		if err := reg.Register(b.count); err != nil {
			return nil, fmt.Errorf("register the bug counter: %w", err)
		}
	}
	return b, nil
}

// BugError is the error that Bug returns.
type BugError struct {
	What  string
	Where string // file:line
}

func (e *BugError) Error() string { return "bug: " + e.What + " at " + e.Where }

// Bug reports an impossible state. In production it returns an error, with
// which the caller gives up what it was doing; in tests it panics.
func (b *Bugs) Bug(ctx context.Context, format string, args ...any) error {
	err := &BugError{What: fmt.Sprintf(format, args...), Where: "?"}
	if _, file, line, ok := runtime.Caller(1); ok {
		err.Where = fmt.Sprintf("%s:%d", file, line)
	}
	if b == nil {
		panic(err)
	}
	b.count.Inc()
	b.log.ErrorContext(ctx, err.Error(), "bug", true)
	return err
}
