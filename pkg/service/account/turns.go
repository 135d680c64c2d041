package account

import (
	"context"
	"sync"
)

// turns lets the commands of one user be done one after another. Waiting is bounded by the context, and nothing is held
// for a user without commands.
type turns struct {
	mu    *sync.Mutex // guards queue and the counts in it; never held across I/O
	queue map[string]*turn
}

type turn struct {
	token   chan struct{} // holds one value while nobody has the turn
	waiters int
}

func newTurns() turns { return turns{mu: new(sync.Mutex), queue: make(map[string]*turn)} }

func (t *turns) enter(ctx context.Context, who string) (leave func(), err error) {
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
