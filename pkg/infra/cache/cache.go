package cache

import (
	"context"
	"fmt"
	"hash/maphash"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/heddle-im/heddle/pkg/infra/telemetry"
)

// entryOverhead is about what an entry costs beside its key and value.
const entryOverhead = 128

const shardCount = 32

// Cache is a map from K to V that forgets what is seldom used when the budget
// is full. Values are shared between callers and must not be changed.
//
// The policy is SIEVE: a hit only sets a flag, under a read lock, and what was
// never used again goes first, so that a scan does not push out the rest.
type Cache[K comparable, V any] struct {
	weigh   func(K, V) int64
	account *Account
	seed    maphash.Seed
	shards  [shardCount]shard[K, V]
	nextOut atomic.Uint32 // where the next eviction begins

	hits, misses, evictions prometheus.Counter
}

type shard[K comparable, V any] struct {
	mu      sync.RWMutex // guards all but node.visited
	entries map[K]*node[K, V]
	loads   map[K]*load[V]
	head    *node[K, V] // newest
	tail    *node[K, V] // oldest
	hand    *node[K, V] // the next candidate; nil: the tail
	bytes   int64       // the entries' weights
	_       [64]byte    // the next shard's lock is not on this one's cache line
}

type node[K comparable, V any] struct {
	key        K
	value      V
	weight     int64
	visited    atomic.Bool
	prev, next *node[K, V] // towards the head, the tail
}

// load is one load under way.
type load[V any] struct {
	done    chan struct{}
	value   V
	err     error
	cancel  context.CancelFunc
	waiters int // guarded by the shard's mu
}

// New returns a cache that is charged to the budget under name. weigh is the
// bytes that a key and its value hold; what they share with others does not
// count. m may be nil.
func New[K comparable, V any](name string, b *Budget, m *telemetry.Metrics, weigh func(K, V) int64) *Cache[K, V] {
	c := &Cache[K, V]{weigh: weigh, seed: maphash.MakeSeed()}
	c.account = b.Account(name, c.evict)
	for i := range c.shards {
		c.shards[i].entries = map[K]*node[K, V]{}
		c.shards[i].loads = map[K]*load[V]{}
	}
	c.hits = m.CounterVec("cache_hits_total", "Look-ups that found their key.", "cache").WithLabelValues(name)
	c.misses = m.CounterVec("cache_misses_total", "Look-ups that did not.", "cache").WithLabelValues(name)
	c.evictions = m.CounterVec("cache_evictions_total", "Entries evicted.", "cache").WithLabelValues(name)
	return c
}

func (c *Cache[K, V]) shard(key K) *shard[K, V] {
	return &c.shards[maphash.Comparable(c.seed, key)%shardCount]
}

// Get returns the value of key if it is there.
func (c *Cache[K, V]) Get(key K) (V, bool) {
	s := c.shard(key)
	s.mu.RLock()
	n := s.entries[key]
	if n == nil {
		s.mu.RUnlock()
		c.misses.Inc()
		var zero V
		return zero, false
	}
	v := n.value
	if !n.visited.Load() { // else the line stays shared between cores
		n.visited.Store(true)
	}
	s.mu.RUnlock()
	c.hits.Inc()
	return v, true
}

// Set stores a value. A load of the key that is under way will not replace it.
func (c *Cache[K, V]) Set(key K, value V) {
	w := c.weigh(key, value) + entryOverhead
	s := c.shard(key)
	s.mu.Lock()
	delete(s.loads, key)
	delta := s.put(key, value, w)
	s.mu.Unlock()
	c.charge(delta)
}

// charge must not be called under a shard's lock if delta is positive.
func (c *Cache[K, V]) charge(delta int64) {
	if delta > 0 {
		c.account.Charge(delta)
	} else {
		c.account.Release(-delta)
	}
}

// Delete removes a key. A load of it that is under way will not store it.
func (c *Cache[K, V]) Delete(key K) {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.loads, key)
	if n := s.entries[key]; n != nil {
		s.remove(n)
		c.account.Release(n.weight)
	}
}

// Clear removes all keys.
func (c *Cache[K, V]) Clear() {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		clear(s.loads)
		for _, n := range s.entries {
			s.remove(n)
			c.account.Release(n.weight)
		}
		s.mu.Unlock()
	}
}

// Len is the number of keys.
func (c *Cache[K, V]) Len() int {
	total := 0
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.RLock()
		total += len(s.entries)
		s.mu.RUnlock()
	}
	return total
}

// Bytes is what the cache has charged.
func (c *Cache[K, V]) Bytes() int64 { return c.account.Used() }

// Load returns the value of key, and if it is not there loads it, once for all
// who ask meanwhile, and stores it. An error is not stored. fn's context ends
// when nobody waits any more. What was deleted or set while fn ran is not
// overwritten by its result; those who had asked before get that result.
func (c *Cache[K, V]) Load(ctx context.Context, key K, fn func(ctx context.Context, key K) (V, error)) (V, error) {
	if v, ok := c.Get(key); ok {
		return v, nil
	}
	s := c.shard(key)
	s.mu.Lock()
	if n := s.entries[key]; n != nil { // came between
		defer s.mu.Unlock()
		return n.value, nil
	}
	l := s.loads[key]
	if l == nil {
		lctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		l = &load[V]{done: make(chan struct{}), cancel: cancel}
		s.loads[key] = l
		go c.run(lctx, s, key, l, fn) // ends with fn, which its waiters own together
	}
	l.waiters++
	s.mu.Unlock()
	select {
	case <-l.done:
		return l.value, l.err
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		if l.waiters--; l.waiters == 0 {
			l.cancel()
			if s.loads[key] == l { // whoever asks next must not get its failure
				delete(s.loads, key)
			}
		}
		var zero V
		return zero, ctx.Err()
	}
}

func (c *Cache[K, V]) run(ctx context.Context, s *shard[K, V], key K, l *load[V], fn func(context.Context, K) (V, error)) {
	defer l.cancel()
	l.value, l.err = protect(ctx, key, fn)
	var w, delta int64
	if l.err == nil {
		w = c.weigh(key, l.value) + entryOverhead
	}
	s.mu.Lock()
	if s.loads[key] == l {
		delete(s.loads, key)
		if l.err == nil {
			delta = s.put(key, l.value, w)
		}
	}
	s.mu.Unlock()
	c.charge(delta)
	close(l.done)
}

// protect turns a panic into an error: it would otherwise end the process,
// where the same panic in a request's goroutine ends the request.
func protect[K comparable, V any](ctx context.Context, key K, fn func(context.Context, K) (V, error)) (v V, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("load panicked: %v\n%s", p, debug.Stack())
		}
	}()
	return fn(ctx, key)
}

// evict frees n bytes, a little from each shard in turn. Those that hold less
// than the average are passed over: keys fall into shards by chance, and equal
// shares would in time empty some of all but what is used.
func (c *Cache[K, V]) evict(n int64) int64 {
	var freed int64
	step := n/shardCount + 1
	for range 8 * shardCount {
		if freed >= n {
			break
		}
		s := &c.shards[c.nextOut.Add(1)%shardCount]
		s.mu.Lock()
		var got int64
		var entries int
		if s.bytes >= c.account.Used()/shardCount {
			got, entries = s.evict(min(step, n-freed))
			c.account.Release(got)
		}
		s.mu.Unlock()
		c.evictions.Add(float64(entries))
		freed += got
	}
	return freed
}

// put inserts or replaces, and returns by how much the weight grew. Under mu.
func (s *shard[K, V]) put(key K, value V, weight int64) int64 {
	if n := s.entries[key]; n != nil {
		delta := weight - n.weight
		s.bytes += delta
		n.value, n.weight = value, weight
		n.visited.Store(true)
		return delta
	}
	n := &node[K, V]{key: key, value: value, weight: weight, next: s.head}
	if s.head != nil {
		s.head.prev = n
	} else {
		s.tail = n
	}
	s.head = n
	s.entries[key] = n
	s.bytes += weight
	return weight
}

// remove takes n out. Under mu.
func (s *shard[K, V]) remove(n *node[K, V]) {
	if s.hand == n {
		s.hand = n.prev
	}
	if n.prev != nil {
		n.prev.next = n.next
	} else {
		s.head = n.next
	}
	if n.next != nil {
		n.next.prev = n.prev
	} else {
		s.tail = n.prev
	}
	n.prev, n.next = nil, nil
	delete(s.entries, n.key)
	s.bytes -= n.weight
}

// evict removes what the hand finds unused since it last came by, until want
// bytes are free. Under mu.
func (s *shard[K, V]) evict(want int64) (freed int64, entries int) {
	for freed < want && s.tail != nil {
		n := s.hand
		if n == nil {
			n = s.tail
		}
		if n.visited.Load() {
			n.visited.Store(false)
			s.hand = n.prev
			continue
		}
		s.hand = n // remove moves it on
		s.remove(n)
		freed += n.weight
		entries++
	}
	return freed, entries
}
