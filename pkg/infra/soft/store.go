package soft

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/heddle-im/heddle/pkg/infra/telemetry"
)

// ErrUnavailable: the store cannot be reached. What was asked for may have
// been done all the same.
var ErrUnavailable = errors.New("soft store unavailable")

// Rate is a limit: PerSecond on average, Burst at once.
type Rate struct {
	PerSecond float64
	Burst     int64
}

// interval is the time that one costs, at least a microsecond.
func (r Rate) interval() time.Duration {
	if r.PerSecond <= 0 {
		return 24 * time.Hour
	}
	return max(time.Microsecond, min(24*time.Hour, time.Duration(float64(time.Second)/r.PerSecond)))
}

// Allowance is the answer of Take.
type Allowance struct {
	OK bool
	// Remaining is what could be taken at once after this.
	Remaining int64
	// RetryAfter is when what was refused would be allowed. 0 if OK.
	RetryAfter time.Duration
}

// backend is what Redis and this process's memory have in common.
type backend interface { //nolint:interfacebloat // the one narrow seam between the two
	get(ctx context.Context, key string) ([]byte, bool, error)
	set(ctx context.Context, key string, value []byte, ttl time.Duration) error
	delete(ctx context.Context, keys ...string) error
	increment(ctx context.Context, key string, by int64, ttl time.Duration) (int64, error)
	swap(ctx context.Context, key string, old, value []byte, ttl time.Duration) (bool, error)
	take(ctx context.Context, key string, interval time.Duration, burst, n int64) (Allowance, error)
	ping(ctx context.Context) error
	close() error
}

// Store keeps values under keys for a time. Keys of different uses begin with
// different words: "ratelimit:", "presence:".
type Store struct {
	backend backend
	local   *memory // what Take and Increment fall back to; the backend itself without Redis
	remote  bool
	breaker breaker
	log     *slog.Logger
	errs    *prometheus.CounterVec
}

// Options are what New needs beside the configuration. Every field may be nil.
type Options struct {
	Logger  *slog.Logger
	Metrics *telemetry.Metrics
}

// New returns a store in Redis, or in this process if cfg.URL is empty. That
// Redis is away is no error. The caller owns the result and must Close it.
func New(cfg Config, opts Options) (*Store, error) {
	cfg = cfg.WithDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("redis.%w", err)
	}
	s := &Store{local: newMemory(cfg.LocalBytes), log: opts.Logger, remote: cfg.URL != ""}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.errs = opts.Metrics.CounterVec("soft_errors_total", "Calls of the soft store that failed or were answered without it.", "op")
	s.backend = s.local
	if s.remote {
		r, err := newRedis(cfg)
		if err != nil {
			return nil, fmt.Errorf("redis.url: %w", err)
		}
		s.backend = r
	}
	opts.Metrics.GaugeFunc("soft_available", "1 while the soft store can be reached.", func() float64 {
		if s.breaker.allow() {
			return 1
		}
		return 0
	})
	return s, nil
}

// Get returns the value of key; false if there is none. Callers for whom the
// value is only a cache may ignore the error.
func (s *Store) Get(ctx context.Context, key string) (value []byte, ok bool, err error) {
	err = s.do(ctx, "get", func() error {
		value, ok, err = s.backend.get(ctx, key)
		return err
	})
	return value, ok, err
}

// Set stores value for ttl, which must be positive.
func (s *Store) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	return s.do(ctx, "set", func() error { return s.backend.set(ctx, key, value, clampTTL(ttl)) })
}

// Delete removes keys.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	if len(keys) == 0 {
		return nil
	}
	return s.do(ctx, "delete", func() error { return s.backend.delete(ctx, keys...) })
}

// CompareAndSet stores value for ttl if the key's value is old, where a nil
// old means that there is none, and says whether it did.
func (s *Store) CompareAndSet(ctx context.Context, key string, old, value []byte, ttl time.Duration) (swapped bool, err error) {
	err = s.do(ctx, "compare_and_set", func() error {
		swapped, err = s.backend.swap(ctx, key, old, value, clampTTL(ttl))
		return err
	})
	return swapped, err
}

// Increment adds to a counter that begins at 0 and lives for ttl from its first
// increment, and returns the sum. Without Redis it counts in this process.
func (s *Store) Increment(ctx context.Context, key string, by int64, ttl time.Duration) int64 {
	var sum int64
	err := s.do(ctx, "increment", func() (err error) {
		sum, err = s.backend.increment(ctx, key, by, clampTTL(ttl))
		return err
	})
	if err != nil {
		sum, _ = s.local.increment(ctx, key, by, clampTTL(ttl)) // has no errors
	}
	return sum
}

// Take takes n from the bucket of key, or nothing if there is not as much
// (GCRA). Without Redis it counts in this process.
func (s *Store) Take(ctx context.Context, key string, rate Rate, n int64) Allowance {
	var a Allowance
	interval, burst := rate.interval(), max(1, rate.Burst)
	err := s.do(ctx, "take", func() (err error) {
		a, err = s.backend.take(ctx, key, interval, burst, n)
		return err
	})
	if err != nil {
		a, _ = s.local.take(ctx, key, interval, burst, n) // has no errors
	}
	return a
}

// Ping says whether the store can be reached now.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.backend.ping(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	s.breaker.success()
	return nil
}

// Remote says whether the store is shared with other processes.
func (s *Store) Remote() bool { return s.remote }

// Close frees the connections. Calls after it fail.
func (s *Store) Close() error { return s.backend.close() }

// do runs one call under the breaker.
func (s *Store) do(ctx context.Context, op string, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !s.breaker.allow() {
		s.errs.WithLabelValues(op).Inc()
		return ErrUnavailable
	}
	err := f()
	if err == nil {
		if s.breaker.success() {
			s.log.Info("soft store is back")
		}
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err() // the caller gave up: that says nothing about the store
	}
	s.errs.WithLabelValues(op).Inc()
	if s.breaker.failure() {
		s.log.Warn("soft store unavailable, going on without it", "error", err)
	}
	return fmt.Errorf("%w: %s: %w", ErrUnavailable, op, err)
}

func clampTTL(d time.Duration) time.Duration { return max(d, time.Millisecond) }

const (
	breakAfter = 3
	breakFor   = time.Second
)

// breaker spares callers the wait for a store that is away.
type breaker struct {
	mu       sync.Mutex // guards what follows
	failures int
	until    time.Time // no calls before this
}

// allow says whether to call: always, but for the pause after each failure once
// there were several in a row.
func (b *breaker) allow() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failures < breakAfter || time.Now().After(b.until)
}

// failure counts one, and says whether it opened the breaker.
func (b *breaker) failure() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failures++
	if b.failures >= breakAfter {
		b.until = time.Now().Add(breakFor)
	}
	return b.failures == breakAfter
}

// success closes the breaker, and says whether it was open.
func (b *breaker) success() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	was := b.failures >= breakAfter
	b.failures = 0
	return was
}
