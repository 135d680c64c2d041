// Package turns lets what concerns one thing be done one after another: the commands of one user, say.
//
// Waiting is bounded by the context, and nothing is held for a name that nobody waits for. It is safe for concurrent use, and may be
// imported by every package from layer 3 up.
package turns

import (
	"context"
	"slices"
	"sync"
)

// Turns gives turns by name.
type Turns struct {
	mu    sync.Mutex // guards queue and the counts in it; never held across I/O
	queue map[string]*turn
}

type turn struct {
	token   chan struct{} // holds one value while nobody has the turn
	waiters int
}

// New makes Turns.
func New() *Turns { return &Turns{queue: make(map[string]*turn)} }

// Enter waits for the turn of a name, which lasts until leave is called, once.
func (t *Turns) Enter(ctx context.Context, who string) (leave func(), err error) {
	t.mu.Lock()
	q := t.queue[who]
	if q == nil {
		q = &turn{token: make(chan struct{}, 1)}
		q.token <- struct{}{}
		t.queue[who] = q
	}
	q.waiters++
	t.mu.Unlock()

	done := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if q.waiters--; q.waiters == 0 {
			delete(t.queue, who)
		}
	}
	select {
	case <-q.token:
		return func() { q.token <- struct{}{}; done() }, nil
	case <-ctx.Done():
		done()
		return nil, ctx.Err()
	}
}

// EnterAll waits for the turns of several names. They are taken in one order, so that nobody waits in a circle.
func (t *Turns) EnterAll(ctx context.Context, names []string) (leave func(), err error) {
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	leaves := make([]func(), 0, len(names))
	leave = func() {
		for _, l := range slices.Backward(leaves) {
			l()
		}
	}
	for _, n := range names {
		l, err := t.Enter(ctx, n)
		if err != nil {
			leave()
			return nil, err
		}
		leaves = append(leaves, l)
	}
	return leave, nil
}
