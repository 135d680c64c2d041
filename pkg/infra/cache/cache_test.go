package cache_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/heddle-im/heddle/pkg/infra/cache"
	"github.com/heddle-im/heddle/pkg/infra/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// budget returns one of limit bytes whose heap is never large.
func budget(limit int64) *cache.Budget {
	return cache.NewBudget(cache.BudgetConfig{Memory: 2 * limit, Live: func() int64 { return 0 }}, nil)
}

func weighBytes(_ int, v []byte) int64 { return int64(len(v)) }

func TestMemoryLimit(t *testing.T) {
	const gib = 1 << 30
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	meminfo := file("MemFree: 1 kB\nMemTotal:       16777216 kB\n") // 16 GiB
	for name, tc := range map[string]struct {
		root fstest.MapFS
		want int64
	}{
		"v2": {fstest.MapFS{
			"proc/meminfo": meminfo, "proc/self/cgroup": file("0::/a/b\n"),
			"sys/fs/cgroup/a/b/memory.max": file("max\n"), "sys/fs/cgroup/a/memory.max": file("2147483648\n"),
		}, 2 * gib},
		"v2 in a container": {fstest.MapFS{
			"proc/meminfo": meminfo, "proc/self/cgroup": file("0::/\n"), "sys/fs/cgroup/memory.max": file("1073741824\n"),
		}, gib},
		"v1": {fstest.MapFS{
			"proc/meminfo": meminfo, "proc/self/cgroup": file("9:cpu,cpuacct:/c\n5:memory:/docker/x\n"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes": file("3221225472\n"),
		}, 3 * gib},
		"v1 without a limit": {fstest.MapFS{
			"proc/meminfo": meminfo, "proc/self/cgroup": file("5:memory:/\n"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes": file("9223372036854771712\n"),
		}, 4 * gib},
		"no cgroup": {fstest.MapFS{"proc/meminfo": meminfo}, 4 * gib},
		"nothing":   {fstest.MapFS{}, gib},
	} {
		require.Equal(t, tc.want/10*9, cache.MemoryLimit(tc.root), name)
	}
}

func TestReadYourWrites(t *testing.T) {
	c := cache.New("t", budget(1<<30), nil, weighBytes)
	for i := range 10000 {
		c.Set(i, []byte{byte(i)})
		v, ok := c.Get(i)
		require.True(t, ok)
		require.Equal(t, []byte{byte(i)}, v)
	}
	require.Equal(t, 10000, c.Len())
	c.Delete(5)
	_, ok := c.Get(5)
	require.False(t, ok)
	c.Clear()
	require.Zero(t, c.Len())
	require.Zero(t, c.Bytes())
}

func TestBudgetIsKept(t *testing.T) {
	b := budget(1 << 20)
	big := cache.New("big", b, nil, weighBytes)
	small := cache.New("small", b, nil, weighBytes)
	for i := range 200 {
		small.Set(i, make([]byte, 1000))
	}
	before := small.Bytes()
	for i := range 5000 {
		big.Set(i, make([]byte, 2000))
		require.LessOrEqual(t, b.Used(), b.Limit())
		require.Equal(t, b.Used(), big.Bytes()+small.Bytes())
	}
	require.Less(t, small.Bytes(), before, "all give")
	require.Positive(t, big.Len())
	big.Set(-1, make([]byte, 4<<20))
	require.LessOrEqual(t, b.Used(), b.Limit(), "what is larger than the budget is not kept")
}

func TestSieveKeepsWhatIsUsed(t *testing.T) {
	b := budget(1 << 20)
	c := cache.New("t", b, nil, weighBytes)
	const hot = 100
	for i := range hot {
		c.Set(i, make([]byte, 1000))
	}
	for scan := hot; scan < 20000; scan++ {
		c.Set(scan, make([]byte, 1000))
		_, ok := c.Get(scan % hot)
		require.True(t, ok, "%d was pushed out by a scan", scan%hot)
	}
}

func TestReserve(t *testing.T) {
	b := budget(1 << 20)
	c := cache.New("t", b, nil, weighBytes)
	for i := range 2000 {
		c.Set(i, make([]byte, 1000))
	}
	a := b.Account("window", nil)
	require.NoError(t, a.Reserve(900<<10), "the cache gives way")
	require.ErrorIs(t, a.Reserve(200<<10), cache.ErrExhausted)
	require.EqualValues(t, 900<<10, a.Used())
	a.Close()
	require.Equal(t, c.Bytes(), b.Used())
}

func TestAdjustFollowsTheHeap(t *testing.T) {
	var live atomic.Int64
	b := cache.NewBudget(cache.BudgetConfig{Memory: 2 << 20, Live: live.Load}, nil)
	c := cache.New("t", b, nil, weighBytes)
	for i := range 2000 {
		c.Set(i, make([]byte, 1000))
	}
	full := b.Used()
	live.Store(2 << 20) // three tenths too much
	b.Adjust()
	require.Less(t, b.Used(), full-(1<<19))
	low := b.Limit()
	live.Store(0)
	b.Adjust()
	require.Greater(t, b.Limit(), low)
	for range 30 {
		b.Adjust()
	}
	require.EqualValues(t, 1<<20, b.Limit())
}

func TestBudgetWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := make(chan struct{})
		var once sync.Once
		b := cache.NewBudget(cache.BudgetConfig{Memory: 1 << 20, Live: func() int64 { once.Do(func() { close(seen) }); return 0 }}, nil)
		ctx := context.Background()
		require.NoError(t, b.Stop(ctx))
		require.NoError(t, b.Start(ctx))
		<-seen
		require.NoError(t, b.Stop(ctx))
		require.NoError(t, b.Stop(ctx))
	})
}

func TestLoadOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := cache.New("t", budget(1<<20), nil, weighBytes)
		var loads atomic.Int64
		release := make(chan struct{})
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				v, err := c.Load(t.Context(), 1, func(context.Context, int) ([]byte, error) {
					loads.Add(1)
					<-release
					return []byte("v"), nil
				})
				require.NoError(t, err)
				require.Equal(t, "v", string(v))
			})
		}
		synctest.Wait()
		close(release)
		wg.Wait()
		require.EqualValues(t, 1, loads.Load())
		v, ok := c.Get(1)
		require.True(t, ok)
		require.Equal(t, "v", string(v))
	})
}

func TestLoadDoesNotOverwrite(t *testing.T) {
	for name, change := range map[string]func(c *cache.Cache[int, []byte]){
		"set":    func(c *cache.Cache[int, []byte]) { c.Set(1, []byte("new")) },
		"delete": func(c *cache.Cache[int, []byte]) { c.Delete(1) },
		"clear":  func(c *cache.Cache[int, []byte]) { c.Clear() },
	} {
		t.Run(name, func(t *testing.T) {
			c := cache.New("t", budget(1<<20), nil, weighBytes)
			v, err := c.Load(t.Context(), 1, func(context.Context, int) ([]byte, error) {
				change(c)
				// Who asks after the change must not get what was read before it.
				v, err := c.Load(t.Context(), 1, func(context.Context, int) ([]byte, error) { return []byte("new"), nil })
				require.NoError(t, err)
				require.Equal(t, "new", string(v))
				return []byte("old"), nil
			})
			require.NoError(t, err)
			require.Equal(t, "old", string(v))
			v, ok := c.Get(1)
			require.True(t, ok)
			require.Equal(t, "new", string(v))
		})
	}
}

func TestLoadErrors(t *testing.T) {
	c := cache.New("t", budget(1<<20), nil, weighBytes)
	boom := errors.New("boom")
	_, err := c.Load(t.Context(), 1, func(context.Context, int) ([]byte, error) { return nil, boom })
	require.ErrorIs(t, err, boom)
	_, err = c.Load(t.Context(), 1, func(context.Context, int) ([]byte, error) { panic("oh") })
	require.ErrorContains(t, err, "oh")
	require.Zero(t, c.Len())
	require.Zero(t, c.Bytes())
}

func TestLoadIsCanceledWithItsLastWaiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := cache.New("t", budget(1<<20), nil, weighBytes)
		ended := make(chan struct{})
		fn := func(ctx context.Context, _ int) ([]byte, error) {
			<-ctx.Done()
			close(ended)
			return nil, ctx.Err()
		}
		first, cancelFirst := context.WithCancel(t.Context())
		second, cancelSecond := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for _, ctx := range []context.Context{first, second} {
			wg.Go(func() {
				_, err := c.Load(ctx, 1, fn)
				require.ErrorIs(t, err, context.Canceled)
			})
		}
		synctest.Wait()
		cancelFirst()
		synctest.Wait()
		select {
		case <-ended:
			require.Fail(t, "ended while somebody waits")
		default:
		}
		cancelSecond()
		<-ended
		wg.Wait()
		v, err := c.Load(t.Context(), 1, func(context.Context, int) ([]byte, error) { return []byte("x"), nil })
		require.NoError(t, err)
		require.Equal(t, "x", string(v))
	})
}

// TestModel compares with a map: whatever is found is what was last set, and
// what is charged is what is there.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := budget(20000)
		c := cache.New("t", b, nil, weighBytes)
		model := map[int]int{}
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			key := rapid.IntRange(0, 60).Draw(t, "key")
			switch rapid.IntRange(0, 3).Draw(t, "op") {
			case 0, 1:
				n := rapid.IntRange(0, 800).Draw(t, "len")
				c.Set(key, make([]byte, n))
				model[key] = n
			case 2:
				c.Delete(key)
				delete(model, key)
			case 3:
				if v, ok := c.Get(key); ok {
					n, in := model[key]
					require.True(t, in)
					require.Len(t, v, n)
				}
			}
			require.LessOrEqual(t, b.Used(), b.Limit())
		}
		var sum int64
		for key := range model {
			if v, ok := c.Get(key); ok {
				sum += int64(len(v)) + 128
			}
		}
		require.Equal(t, sum, b.Used())
	})
}

func TestConcurrent(t *testing.T) {
	b := budget(1 << 20)
	c1 := cache.New("a", b, nil, weighBytes)
	c2 := cache.New("b", b, nil, weighBytes)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 3000 {
				c := c1
				if i%2 == 0 {
					c = c2
				}
				key := rand.IntN(2000)
				switch i % 5 {
				case 0:
					c.Delete(key)
				case 1, 2:
					c.Set(key, make([]byte, rand.IntN(2000)))
				default:
					_, _ = c.Load(context.Background(), key, func(context.Context, int) ([]byte, error) { return make([]byte, 500), nil })
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, b.Used(), c1.Bytes()+c2.Bytes())
	b.Adjust()
	require.LessOrEqual(t, b.Used(), b.Limit())
	c1.Clear()
	c2.Clear()
	require.Zero(t, b.Used())
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := telemetry.NewMetrics(reg)
	b := cache.NewBudget(cache.BudgetConfig{Memory: 1 << 20}, m)
	c := cache.New("rooms", b, m, weighBytes)
	c.Set(1, nil)
	c.Get(1)
	families, err := reg.Gather()
	require.NoError(t, err)
	seen := map[string]string{}
	for _, f := range families {
		seen[f.GetName()] = fmt.Sprint(f.GetMetric()[0])
	}
	require.Contains(t, seen["heddle_memory_budget_account_bytes"], "rooms")
	require.Contains(t, seen["heddle_memory_budget_used_bytes"], "128")
	require.Contains(t, seen["heddle_cache_hits_total"], "value:1")
}

func BenchmarkGet(b *testing.B) {
	c := cache.New("b", budget(1<<30), nil, weighBytes)
	for i := range 1000 {
		c.Set(i, nil)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			c.Get(i % 1000)
		}
	})
}

func BenchmarkSetEvicting(b *testing.B) {
	c := cache.New("b", budget(1<<20), nil, weighBytes)
	v := make([]byte, 1000)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		c.Set(i, v)
	}
}
