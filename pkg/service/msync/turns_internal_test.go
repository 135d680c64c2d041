package msync

import (
	"context"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// waits has somebody wait for a turn, which tells on a channel that it has come; it returns when the wait has begun.
func (t *turns) waits(ctx context.Context, test *testing.T, user string, came chan<- string) {
	test.Helper()
	t.mu.Lock()
	before := len(t.waiting[user])
	t.mu.Unlock()
	go func() {
		if t.enter(ctx, user) == nil {
			came <- user
		}
	}()
	require.Eventually(test, func() bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		return len(t.waiting[user]) > before
	}, time.Minute, time.Millisecond)
}

// Somebody who has many syncs wait does not keep others from theirs, and who has gone away takes no turn.
func TestTurnsGoRoundTheUsers(t *testing.T) {
	turns, came := newTurns(2), make(chan string, 20)
	for range 2 {
		require.NoError(t, turns.enter(t.Context(), "greedy"))
	}
	gone, leave := context.WithCancel(t.Context())
	for range 3 {
		turns.waits(t.Context(), t, "greedy", came)
	}
	turns.waits(gone, t, "gone", came)
	turns.waits(t.Context(), t, "modest", came)
	turns.waits(t.Context(), t, "another", came)
	turns.waits(t.Context(), t, "modest", came)
	leave()
	require.Eventually(t, func() bool {
		turns.mu.Lock()
		defer turns.mu.Unlock()
		return len(turns.waiting["gone"]) == 0
	}, time.Minute, time.Millisecond)
	for _, want := range []string{"greedy", "modest", "another", "greedy", "modest", "greedy"} {
		require.Empty(t, came)
		turns.leave()
		require.Equal(t, want, <-came)
	}
	turns.leave()
	turns.leave()
	require.Equal(t, 2, turns.free)
	require.Empty(t, turns.circle)
	require.Empty(t, turns.waiting)
}

// Whoever comes and goes, there are never more turns than there may be, and none is lost.
func TestTurnsAreKept(t *testing.T) {
	const most = 3
	turns := newTurns(most)
	var now atomic.Int32
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(i), 1))
			for range 300 {
				ctx, cancel := context.WithCancel(t.Context())
				if rnd.IntN(3) == 0 {
					go cancel()
				}
				if turns.enter(ctx, strconv.Itoa(rnd.IntN(5))) == nil {
					if n := now.Add(1); n > most {
						t.Error(n)
					}
					now.Add(-1)
					turns.leave()
				}
				cancel()
			}
		})
	}
	all.Wait()
	require.Equal(t, most, turns.free)
	require.Empty(t, turns.waiting)
}
