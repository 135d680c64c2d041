package media

import (
	"context"
	"sync"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/store/mediadb"
)

// flights has things done once for all who want them at the same time.
type flights[K comparable, V any] struct {
	most int
	mu   sync.Mutex // guards all
	all  map[K]*flight[V]
}

type flight[V any] struct {
	done  chan struct{}
	value V // when done
	err   error
}

// do gives what fn gives, or gave to somebody who came before and whose fn is under way. fn is one of tasks: it goes on if nobody waits for it
// any more.
func (f *flights[K, V]) do(ctx context.Context, tasks *lifecycle.Tasks, key K, fn func(ctx context.Context) (V, error)) (V, error) {
	var none V
	f.mu.Lock()
	if f.all == nil {
		f.all = map[K]*flight[V]{}
	}
	one, ok := f.all[key]
	if !ok && len(f.all) >= f.most {
		f.mu.Unlock()
		return none, mxerr.Unavailable("Too much is being done at the moment", 1000)
	}
	if !ok {
		one = &flight[V]{done: make(chan struct{}), err: context.Canceled}
		started := tasks.Go(func(ctx context.Context) {
			defer func() {
				f.mu.Lock()
				delete(f.all, key)
				f.mu.Unlock()
				close(one.done)
			}()
			one.value, one.err = fn(ctx)
		})
		if !started {
			f.mu.Unlock()
			return none, context.Canceled
		}
		f.all[key] = one
	}
	f.mu.Unlock()
	select {
	case <-one.done:
		return one.value, one.err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// failures remembers for a while what could not be fetched.
type failures struct {
	now  func() time.Time
	keep time.Duration
	mu   sync.Mutex // guards all
	all  map[mediadb.Key]failure
}

type failure struct {
	err   error
	until time.Time
}

// maxFailures bounds what is remembered; beyond, all is forgotten.
const maxFailures = 10_000

func (f *failures) add(k mediadb.Key, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all == nil || len(f.all) >= maxFailures {
		f.all = map[mediadb.Key]failure{}
	}
	f.all[k] = failure{err, f.now().Add(f.keep)}
}

func (f *failures) of(k mediadb.Key) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	one, ok := f.all[k]
	if !ok {
		return nil
	}
	if f.now().After(one.until) {
		delete(f.all, k)
		return nil
	}
	return one.err
}

// waiting are those who wait for contents that are announced.
type waiting struct {
	mu  sync.Mutex // guards all
	all map[string]map[chan struct{}]struct{}
}

// join gives a channel on which it is told that a URI has its content; leave ends it.
func (w *waiting) join(uri string) (told <-chan struct{}, leave func()) {
	c := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all == nil {
		w.all = map[string]map[chan struct{}]struct{}{}
	}
	if w.all[uri] == nil {
		w.all[uri] = map[chan struct{}]struct{}{}
	}
	w.all[uri][c] = struct{}{}
	return c, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.all[uri], c)
		if len(w.all[uri]) == 0 {
			delete(w.all, uri)
		}
	}
}

func (w *waiting) tell(uri string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.all[uri] {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// Hear tells that a URI has its content now.
func (s *Service) Hear(uri string) { s.waiting.tell(uri) }
