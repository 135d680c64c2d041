package follow

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// indexTimeout bounds the query that many may wait for.
const indexTimeout = 10 * time.Second

// Index tells the committed heads as of now: by a query begun after the request for it came in, and shared by all who then wait.
// However many ask, two queries at most are wanted at a time: the one under way, and the next.
type Index struct {
	source Source
	tasks  *lifecycle.Tasks

	mu      sync.Mutex // guards what follows
	running bool
	next    *round // who came while a query was under way, or nil
}

// round is one query and its result.
type round struct {
	done  chan struct{}
	heads shard.Heads
	err   error
}

// NewIndex makes an index. Its owner stops it.
func NewIndex(source Source) *Index {
	return &Index{source: source, tasks: lifecycle.NewTasks(context.Background())}
}

// Stop ends the query under way. It is idempotent.
func (x *Index) Stop() { x.tasks.Stop() }

// Heads gives heads that hold everything committed before the call. They are shared: they must not be changed.
func (x *Index) Heads(ctx context.Context) (shard.Heads, error) {
	x.mu.Lock()
	if x.next == nil {
		x.next = &round{done: make(chan struct{})}
	}
	r := x.next
	if !x.running {
		if !x.tasks.Go(x.run) {
			x.mu.Unlock()
			return shard.Heads{}, ErrStopped
		}
		x.running = true
	}
	x.mu.Unlock()
	select {
	case <-r.done:
		return r.heads, r.err
	case <-ctx.Done():
		return shard.Heads{}, fmt.Errorf("learn the heads: %w", ctx.Err())
	}
}

// run makes queries while somebody waits.
func (x *Index) run(ctx context.Context) {
	for {
		x.mu.Lock()
		r := x.next
		x.next = nil
		x.running = r != nil
		x.mu.Unlock()
		if r == nil {
			return
		}
		qctx, cancel := context.WithTimeout(ctx, indexTimeout)
		r.heads, r.err = x.source.Heads(qctx)
		cancel()
		close(r.done)
	}
}
