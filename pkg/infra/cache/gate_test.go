package cache_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/infra/cache"
)

// However many come at once, what they take together stays within the part that is for it, and all are served.
func TestGateBoundsWhatIsUnderWay(t *testing.T) {
	const memory, large = 160 << 20, 2 << 20
	g := cache.NewGate(memory, nil)
	var w cache.Weight
	var now, most atomic.Int64
	leave, err := g.Enter(context.Background(), &w)
	require.NoError(t, err)
	leave(large)
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			leave, err := g.Enter(context.Background(), &w)
			if err != nil {
				t.Error(err)
				return
			}
			n := now.Add(4 * large)
			for old := most.Load(); old < n; old = most.Load() {
				if most.CompareAndSwap(old, n) {
					break
				}
			}
			now.Add(-4 * large)
			leave(large)
		})
	}
	wg.Wait()
	require.LessOrEqual(t, most.Load(), int64(memory/4))
}

func TestGateLetsTheSmallPass(t *testing.T) {
	g := cache.NewGate(16<<20, nil)
	var small, large cache.Weight
	leave, err := g.Enter(context.Background(), &small)
	require.NoError(t, err)
	leave(100)
	leave, err = g.Enter(context.Background(), &large)
	require.NoError(t, err)
	leave(1 << 30) // more than all there is: alone, but served
	leave, err = g.Enter(context.Background(), &large)
	require.NoError(t, err)
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = g.Enter(gone, &large)
	require.ErrorIs(t, err, context.Canceled)
	for range 1000 {
		l, err := g.Enter(context.Background(), &small)
		require.NoError(t, err)
		l(-1)
	}
	leave(10)
	// It is forgotten with time that there was a large one.
	for range 2000 {
		l, err := g.Enter(context.Background(), &large)
		require.NoError(t, err)
		l(10)
	}
	hold, err := g.Enter(context.Background(), &large)
	require.NoError(t, err)
	another, err := g.Enter(context.Background(), &large)
	require.NoError(t, err)
	hold(10)
	another(10)
	var none *cache.Gate
	leave, err = none.Enter(context.Background(), &large)
	require.NoError(t, err)
	leave(1)
}
