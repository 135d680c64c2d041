package soft_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/heddle-im/heddle/pkg/infra/soft"
	"github.com/heddle-im/heddle/pkg/testkit/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, cfg soft.Config) *soft.Store {
	s, err := soft.New(cfg, soft.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// TestContract runs the same suite on both implementations.
func TestContract(t *testing.T) {
	t.Run("memory", func(t *testing.T) { contract(t, open(t, soft.Config{})) })
	t.Run("redis", func(t *testing.T) {
		s := open(t, soft.Config{URL: redistest.New(t).URL, Timeout: 5 * time.Second})
		require.NoError(t, s.Ping(context.Background()))
		require.True(t, s.Remote())
		contract(t, s)
	})
}

func contract(t *testing.T, s *soft.Store) {
	ctx := context.Background()
	const long = time.Hour
	gone := func(t *testing.T, key string) {
		require.Eventually(t, func() bool {
			_, ok, err := s.Get(ctx, key)
			require.NoError(t, err)
			return !ok
		}, 10*time.Second, 2*time.Millisecond)
	}
	t.Run("get and set", func(t *testing.T) {
		_, ok, err := s.Get(ctx, "g")
		require.NoError(t, err)
		require.False(t, ok)
		for _, v := range []string{"one", "", "two\x00"} {
			require.NoError(t, s.Set(ctx, "g", []byte(v), long))
			got, ok, err := s.Get(ctx, "g")
			require.NoError(t, err)
			require.True(t, ok)
			require.Equal(t, v, string(got))
		}
		require.NoError(t, s.Delete(ctx, "g", "none"))
		require.NoError(t, s.Delete(ctx))
		gone(t, "g")
	})
	t.Run("values are copies", func(t *testing.T) {
		v := []byte("abc")
		require.NoError(t, s.Set(ctx, "copy", v, long))
		v[0] = 'x'
		got, _, err := s.Get(ctx, "copy")
		require.NoError(t, err)
		got[1] = 'x'
		got, _, err = s.Get(ctx, "copy")
		require.NoError(t, err)
		require.Equal(t, "abc", string(got))
	})
	t.Run("time to live", func(t *testing.T) {
		require.NoError(t, s.Set(ctx, "ttl", []byte("v"), 20*time.Millisecond))
		gone(t, "ttl")
		require.NoError(t, s.Set(ctx, "ttl", []byte("v"), 0))
		gone(t, "ttl")
	})
	t.Run("increment", func(t *testing.T) {
		require.EqualValues(t, 2, s.Increment(ctx, "i", 2, long))
		require.EqualValues(t, 5, s.Increment(ctx, "i", 3, long))
		require.EqualValues(t, 4, s.Increment(ctx, "i", -1, long))
		// The time counts from the first increment.
		s.Increment(ctx, "short", 1, 30*time.Millisecond)
		require.Eventually(t, func() bool {
			return s.Increment(ctx, "short", 1, 30*time.Millisecond) == 1
		}, 10*time.Second, time.Millisecond)
	})
	t.Run("compare and set", func(t *testing.T) {
		swap := func(old, value []byte, want bool) {
			t.Helper()
			ok, err := s.CompareAndSet(ctx, "cas", old, value, long)
			require.NoError(t, err)
			require.Equal(t, want, ok)
		}
		swap([]byte("a"), []byte("b"), false)
		swap([]byte{}, []byte("b"), false)
		swap(nil, []byte{}, true)
		swap(nil, []byte("b"), false)
		swap([]byte{}, []byte("a"), true)
		swap([]byte("x"), []byte("b"), false)
		swap([]byte("a"), []byte("b"), true)
		v, _, err := s.Get(ctx, "cas")
		require.NoError(t, err)
		require.Equal(t, "b", string(v))
	})
	t.Run("one wins", func(t *testing.T) {
		var wins atomic.Int64
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				ok, err := s.CompareAndSet(ctx, "race", nil, fmt.Append(nil, i), long)
				require.NoError(t, err)
				if ok {
					wins.Add(1)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 1, wins.Load())
	})
	t.Run("take", func(t *testing.T) {
		slow := soft.Rate{PerSecond: 0.001, Burst: 3}
		for left := int64(2); left >= 0; left-- {
			a := s.Take(ctx, "take", slow, 1)
			require.True(t, a.OK)
			require.Equal(t, left, a.Remaining)
			require.Zero(t, a.RetryAfter)
		}
		a := s.Take(ctx, "take", slow, 1)
		require.False(t, a.OK)
		require.Zero(t, a.Remaining)
		require.Greater(t, a.RetryAfter, 900*time.Second)
		require.LessOrEqual(t, a.RetryAfter, 1000*time.Second)
		require.True(t, s.Take(ctx, "take other", slow, 3).OK)
		require.False(t, s.Take(ctx, "take too many", slow, 4).OK)
		require.True(t, s.Take(ctx, "take too many", slow, 3).OK, "a refusal takes nothing")
	})
	t.Run("take refills", func(t *testing.T) {
		r := soft.Rate{PerSecond: 50, Burst: 1}
		require.True(t, s.Take(ctx, "refill", r, 1).OK)
		require.Eventually(t, func() bool { return s.Take(ctx, "refill", r, 1).OK }, 10*time.Second, time.Millisecond)
	})
	t.Run("concurrent takes", func(t *testing.T) {
		var ok atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 20 {
					if s.Take(ctx, "many", soft.Rate{PerSecond: 0.001, Burst: 100}, 1).OK {
						ok.Add(1)
					}
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 100, ok.Load())
	})
	t.Run("ended context", func(t *testing.T) {
		done, cancel := context.WithCancel(ctx)
		cancel()
		_, _, err := s.Get(done, "x")
		require.ErrorIs(t, err, context.Canceled)
	})
}

func TestRedisAway(t *testing.T) {
	ctx := context.Background()
	srv := redistest.New(t)
	s := open(t, soft.Config{URL: srv.URL})
	require.NoError(t, s.Set(ctx, "k", []byte("v"), time.Hour))
	srv.Stop()
	_, _, err := s.Get(ctx, "k")
	require.ErrorIs(t, err, soft.ErrUnavailable)
	require.ErrorIs(t, s.Set(ctx, "k", nil, time.Hour), soft.ErrUnavailable)
	_, err = s.CompareAndSet(ctx, "k", nil, nil, time.Hour)
	require.ErrorIs(t, err, soft.ErrUnavailable)
	require.ErrorIs(t, s.Ping(ctx), soft.ErrUnavailable)
	r := soft.Rate{PerSecond: 0.001, Burst: 2}
	require.True(t, s.Take(ctx, "t", r, 1).OK)
	require.True(t, s.Take(ctx, "t", r, 1).OK)
	require.False(t, s.Take(ctx, "t", r, 1).OK, "limits stay limits")
	require.EqualValues(t, 1, s.Increment(ctx, "i", 1, time.Hour))
	require.EqualValues(t, 2, s.Increment(ctx, "i", 1, time.Hour))

	srv.Start()
	require.Eventually(t, func() bool {
		_, ok, err := s.Get(ctx, "k")
		return err == nil && !ok
	}, 20*time.Second, 10*time.Millisecond)
}

func TestRedisHangs(t *testing.T) {
	ctx := context.Background()
	srv := redistest.New(t)
	s := open(t, soft.Config{URL: srv.URL, Timeout: 50 * time.Millisecond})
	require.NoError(t, s.Ping(ctx))
	srv.Pause()
	defer srv.Resume()
	require.ErrorIs(t, s.Set(ctx, "k", nil, time.Hour), soft.ErrUnavailable)
	require.True(t, s.Take(ctx, "t", soft.Rate{PerSecond: 1, Burst: 1}, 1).OK)
}

func TestMemoryIsBounded(t *testing.T) {
	ctx := context.Background()
	s := open(t, soft.Config{LocalBytes: 1 << 20})
	kept := 0
	for i := range 10000 {
		require.NoError(t, s.Set(ctx, fmt.Sprint(i), make([]byte, 1000), time.Hour))
		_, ok, err := s.Get(ctx, fmt.Sprint(i))
		require.NoError(t, err)
		require.True(t, ok)
	}
	for i := range 10000 {
		if _, ok, _ := s.Get(ctx, fmt.Sprint(i)); ok {
			kept++
		}
	}
	require.Less(t, kept, 1000)
	require.Greater(t, kept, 700)
}

func TestConfigMistakes(t *testing.T) {
	_, err := soft.New(soft.Config{URL: "http://user:secret@x"}, soft.Options{})
	require.ErrorContains(t, err, "redis.url")
	require.NotContains(t, err.Error(), "secret")
}

func BenchmarkTake(b *testing.B) {
	for name, cfg := range map[string]soft.Config{"memory": {}, "redis": {URL: redistest.New(b).URL}} {
		b.Run(name, func(b *testing.B) {
			s := open(b, cfg)
			b.ReportAllocs()
			for b.Loop() {
				s.Take(context.Background(), "k", soft.Rate{PerSecond: 1e6, Burst: 1000}, 1)
			}
		})
	}
}
