package follow_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/testkit/bustest"
)

// place is how far a worker is. blocked is told of each who waits for more.
type place struct {
	blocked chan struct{}

	mu   sync.Mutex
	at   shard.Pos
	more chan struct{}
}

func (p *place) WaitFor(ctx context.Context, _ shard.ID, pos shard.Pos) error {
	for {
		p.mu.Lock()
		at, more := p.at, p.more
		p.mu.Unlock()
		if at >= pos {
			return nil
		}
		p.blocked <- struct{}{}
		select {
		case <-more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (p *place) reach(pos shard.Pos) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at = pos
	close(p.more)
	p.more = make(chan struct{})
}

// at is a log that reaches up to a place.
type at struct {
	follow.Source
	pos shard.Pos
}

func (a at) Heads(context.Context) (shard.Heads, error) {
	return shard.Heads{Incarnation: 1, Positions: shard.Vector{0, a.pos}}, nil
}

// hall is workers on one bus.
type hall struct {
	nats    *bustest.Server
	live    []string
	workers map[string]*follow.Everywhere
	places  map[string]*place
}

func newHall(t *testing.T, patience time.Duration, live ...string) *hall {
	h := &hall{nats: bustest.Listen(t), live: live, workers: map[string]*follow.Everywhere{}, places: map[string]*place{}}
	index := follow.NewIndex(at{pos: 7})
	t.Cleanup(index.Stop)
	for _, name := range live {
		p := &place{at: 7, more: make(chan struct{}), blocked: make(chan struct{}, 8)}
		w := follow.NewEverywhere(t.Context(), follow.EverywhereOptions{
			Bus: h.nats.Connect(), Self: name, Live: func() []string { return h.live }, Heads: index, Applied: p, Patience: patience,
		})
		require.NoError(t, w.Start(t.Context()))
		t.Cleanup(func() { require.NoError(t, w.Stop(context.Background())) })
		h.places[name], h.workers[name] = p, w
	}
	return h
}

// Whoever is behind is waited for, also the one who asks.
func TestEverywhere(t *testing.T) {
	h := newHall(t, time.Minute, "a", "b", "c")
	require.True(t, h.workers["a"].Await(t.Context(), 1), "all are there")
	for _, behind := range h.live {
		h.places[behind].reach(6)
		done := make(chan bool, 1)
		go func() { done <- h.workers["a"].Await(t.Context(), 1) }()
		<-h.places[behind].blocked
		require.Empty(t, done, "%s is behind", behind)
		h.places[behind].reach(7)
		require.True(t, <-done)
	}
	h.places["c"].reach(6)
	require.True(t, h.workers["a"].Await(t.Context(), 0), "of another shard")
}

// Who does not answer, or cannot be asked, is waited for a short while only.
func TestEverywhereButWhereNobodyAnswers(t *testing.T) {
	h := newHall(t, 100*time.Millisecond, "a", "b")
	h.places["b"].reach(6)
	require.False(t, h.workers["a"].Await(t.Context(), 1))
	h.places["b"].reach(7)
	require.True(t, h.workers["a"].Await(t.Context(), 1))
	h.nats.Stop()
	require.False(t, h.workers["a"].Await(t.Context(), 1))
	require.False(t, h.workers["a"].Await(t.Context(), 9), "there is no such shard")
}
