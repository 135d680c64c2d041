package commit_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/shardlog/commit"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// easy is a store, a publisher and leases that do what they are told.
type easy struct {
	mu      sync.Mutex
	valid   bool
	delay   time.Duration // of acknowledgements; below zero: none
	gate    chan struct{} // a commit waits for it, if not nil
	batches [][]commit.Batch
}

func (e *easy) Open(context.Context, shard.ID, shard.Epoch) (commit.Head, error) {
	return commit.Head{Incarnation: 1, Next: 1}, nil
}

func (e *easy) Commit(ctx context.Context, b []commit.Batch) error {
	if e.gate != nil {
		select {
		case <-e.gate:
		case <-ctx.Done():
			return commit.ErrUnavailable
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.batches = append(e.batches, b)
	return nil
}

func (e *easy) Settle(context.Context, []commit.Batch) ([]commit.Verdict, error) { return nil, nil }

func (e *easy) Publish(_ shard.ID, _ []byte, acked func(error)) {
	if e.delay >= 0 {
		time.AfterFunc(e.delay, func() { acked(nil) })
	}
}

func (e *easy) Valid(shard.ID, shard.Epoch) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.valid
}
func (e *easy) Moved(shard.ID, shard.Epoch, shard.Epoch) {}
func (e *easy) Lost(shard.ID, shard.Epoch)               {}

func (e *easy) set(valid bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.valid = valid
}

func started(t *testing.T, e *easy, cfg commit.Config) *commit.Committer {
	c := commit.New(cfg, commit.Options{Store: e, Publisher: e, Leases: e})
	require.NoError(t, c.Start(t.Context()))
	require.NoError(t, c.Open(t.Context(), 0, 1))
	return c
}

func one(size int) *entry.Proposal {
	return &entry.Proposal{Epoch: 1, Entries: []entry.Entry{{Kind: entry.KindEvent, Body: make([]byte, size)}}}
}

// pass lets the bubble's clock go on.
func pass(d time.Duration) { <-time.After(d) }

func isDone(tk *commit.Ticket) bool {
	select {
	case <-tk.Done():
		return true
	default:
		return false
	}
}

func TestAnswerWaitsForTheStreamOrThePoll(t *testing.T) {
	for name, c := range map[string]struct{ delay, answer time.Duration }{
		"acknowledged":     {30 * time.Millisecond, 30 * time.Millisecond},
		"too late":         {150 * time.Millisecond, time.Second},
		"not acknowledged": {-1, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				com := started(t, &easy{valid: true, delay: c.delay}, commit.Config{})
				began := time.Now()
				_, err := com.Submit(one(1)).Wait(t.Context())
				require.NoError(t, err)
				require.Equal(t, c.answer, time.Since(began))
				require.NoError(t, com.Stop(t.Context()))
			})
		})
	}
}

func TestNothingIsAnsweredWithoutAValidLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &easy{}
		c := started(t, e, commit.Config{})
		tk := c.Submit(one(1))
		pass(10 * time.Second)
		e.mu.Lock()
		require.Len(t, e.batches, 1, "it is committed")
		e.mu.Unlock()
		require.False(t, isDone(tk))
		e.set(true)
		_, err := tk.Wait(t.Context())
		require.NoError(t, err)

		e.set(false)
		tk = c.Submit(one(1))
		pass(time.Second)
		c.Drop(0)
		_, err = tk.Wait(t.Context())
		require.ErrorIs(t, err, commit.ErrUnknownOutcome)
		require.NoError(t, c.Stop(t.Context()))
	})
}

func TestCloseDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := started(t, &easy{valid: true, delay: 50 * time.Millisecond}, commit.Config{})
		a, b := c.Submit(one(1)), c.Submit(one(1))
		var closed atomic.Bool
		go func() {
			if c.Close(t.Context(), 0) == nil {
				closed.Store(true)
			}
		}()
		pass(time.Millisecond)
		_, err := c.Submit(one(1)).Wait(t.Context())
		require.ErrorIs(t, err, commit.ErrFenced, "closing")
		require.False(t, closed.Load())
		_, err = a.Wait(t.Context())
		require.NoError(t, err)
		_, err = b.Wait(t.Context())
		require.NoError(t, err)
		synctest.Wait()
		require.True(t, closed.Load())
		require.NoError(t, c.Close(t.Context(), 0))
		require.NoError(t, c.Stop(t.Context()))
		_, err = c.Submit(one(1)).Wait(t.Context())
		require.ErrorIs(t, err, commit.ErrClosed)
	})
}

func TestStopGivesUpWhenToldTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := started(t, &easy{valid: true, gate: make(chan struct{})}, commit.Config{})
		tk := c.Submit(one(1))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, c.Stop(ctx), context.DeadlineExceeded)
		_, err := tk.Wait(t.Context())
		require.ErrorIs(t, err, commit.ErrUnavailable)
	})
}

func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &easy{valid: true, gate: make(chan struct{})}
		c := started(t, e, commit.Config{MaxRows: 8, MaxBytes: 1000, MaxQueue: 20})
		chain := &entry.Chain{}
		big := one(2000)
		big.Chain = chain
		_, err := c.Submit(big).Wait(t.Context())
		require.ErrorIs(t, err, commit.ErrTooLarge)
		after := one(1)
		after.Chain = chain
		_, err = c.Submit(after).Wait(t.Context())
		require.ErrorIs(t, err, commit.ErrChain)
		first := c.Submit(one(1))
		synctest.Wait() // it is in flight
		var tickets []*commit.Ticket
		for range 20 {
			tickets = append(tickets, c.Submit(one(300)))
		}
		_, err = c.Submit(one(1)).Wait(t.Context())
		require.ErrorIs(t, err, commit.ErrUnavailable, "too many wait")
		close(e.gate)
		for _, tk := range append(tickets, first) {
			_, err := tk.Wait(t.Context())
			require.NoError(t, err)
		}
		for _, b := range e.batches {
			require.LessOrEqual(t, len(b[0].Proposals), 4, "rows")
			cost := 0
			for _, p := range b[0].Proposals {
				cost += p.Cost()
			}
			require.LessOrEqual(t, cost, 1000)
		}
		require.NoError(t, c.Stop(t.Context()))
	})
}
