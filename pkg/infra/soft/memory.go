package soft

import (
	"bytes"
	"container/list"
	"context"
	"hash/maphash"
	"strconv"
	"sync"
	"time"
)

const (
	memoryShards = 16
	itemOverhead = 160 // about what an item costs beside its key and value
)

// memory is the store in this process: bounded, and what was not used for
// longest goes first.
type memory struct {
	seed   maphash.Seed
	shards [memoryShards]memoryShard
}

type memoryShard struct {
	mu    sync.Mutex // guards what follows
	max   int64
	bytes int64
	items map[string]*list.Element // of *item
	order *list.List               // most recently used first
}

type item struct {
	key     string
	value   []byte
	expires time.Time
}

func (i *item) size() int64 { return int64(len(i.key)+len(i.value)) + itemOverhead }

func newMemory(maxBytes int64) *memory {
	m := &memory{seed: maphash.MakeSeed()}
	for i := range m.shards {
		m.shards[i] = memoryShard{max: maxBytes / memoryShards, items: map[string]*list.Element{}, order: list.New()}
	}
	return m
}

// with runs f on the shard of key, locked.
func (m *memory) with(key string, f func(s *memoryShard, now time.Time)) {
	s := &m.shards[maphash.String(m.seed, key)%memoryShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s, time.Now())
}

// find returns the live item of key, nil if there is none. Under mu.
func (s *memoryShard) find(key string, now time.Time) *item {
	e := s.items[key]
	if e == nil {
		return nil
	}
	i := e.Value.(*item) //nolint:errcheck // put puts nothing else
	if !now.Before(i.expires) {
		s.drop(e)
		return nil
	}
	s.order.MoveToFront(e)
	return i
}

// put stores a value, and drops others if there are too many. Under mu.
func (s *memoryShard) put(key string, value []byte, expires time.Time) {
	if e := s.items[key]; e != nil {
		s.drop(e)
	}
	i := &item{key: key, value: value, expires: expires}
	s.items[key] = s.order.PushFront(i)
	s.bytes += i.size()
	for s.bytes > s.max && s.order.Len() > 0 {
		s.drop(s.order.Back())
	}
}

func (s *memoryShard) drop(e *list.Element) {
	i := e.Value.(*item) //nolint:errcheck // put puts nothing else
	s.order.Remove(e)
	delete(s.items, i.key)
	s.bytes -= i.size()
}

func (m *memory) get(_ context.Context, key string) (value []byte, ok bool, _ error) {
	m.with(key, func(s *memoryShard, now time.Time) {
		if i := s.find(key, now); i != nil {
			value, ok = bytes.Clone(i.value), true
		}
	})
	return value, ok, nil
}

func (m *memory) set(_ context.Context, key string, value []byte, ttl time.Duration) error {
	m.with(key, func(s *memoryShard, now time.Time) { s.put(key, bytes.Clone(value), now.Add(ttl)) })
	return nil
}

func (m *memory) delete(_ context.Context, keys ...string) error {
	for _, key := range keys {
		m.with(key, func(s *memoryShard, _ time.Time) {
			if e := s.items[key]; e != nil {
				s.drop(e)
			}
		})
	}
	return nil
}

func (m *memory) increment(_ context.Context, key string, by int64, ttl time.Duration) (sum int64, _ error) {
	m.with(key, func(s *memoryShard, now time.Time) {
		expires := now.Add(ttl)
		if i := s.find(key, now); i != nil {
			sum, _ = strconv.ParseInt(string(i.value), 10, 64) // another kind of value counts as 0
			expires = i.expires
		}
		sum += by
		s.put(key, strconv.AppendInt(nil, sum, 10), expires)
	})
	return sum, nil
}

func (m *memory) swap(_ context.Context, key string, old, value []byte, ttl time.Duration) (swapped bool, _ error) {
	m.with(key, func(s *memoryShard, now time.Time) {
		i := s.find(key, now)
		if (i == nil) != (old == nil) || (i != nil && !bytes.Equal(i.value, old)) {
			return
		}
		s.put(key, bytes.Clone(value), now.Add(ttl))
		swapped = true
	})
	return swapped, nil
}

// take is gcraScript in Go.
func (m *memory) take(_ context.Context, key string, interval time.Duration, burst, n int64) (a Allowance, _ error) {
	m.with(key, func(s *memoryShard, now time.Time) {
		full := now
		if i := s.find(key, now); i != nil {
			full = i.expires // an item lives until its bucket is full again
		}
		updated := full.Add(time.Duration(n) * interval)
		capacity := time.Duration(burst) * interval
		if wait := updated.Add(-capacity).Sub(now); wait > 0 {
			a = Allowance{Remaining: int64((capacity - full.Sub(now)) / interval), RetryAfter: wait}
			return
		}
		if updated.After(now) {
			s.put(key, nil, updated)
		}
		a = Allowance{OK: true, Remaining: int64((capacity - updated.Sub(now)) / interval)}
	})
	return a, nil
}

func (m *memory) ping(context.Context) error { return nil }

func (m *memory) close() error { return nil }
