package cache

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/heddle-im/heddle/pkg/infra/telemetry"
)

// ErrBusy: what is under way takes all the memory that there is for it.
var ErrBusy = errors.New("too much is under way")

const (
	// gatePart of the memory is for answers that are being made. The caches have half, and must be able to be full.
	gatePart = 4
	// An answer takes this many times its length while it is made: the rows, the events, the text, and the garbage of each.
	gateTimes = 4
	// What is cheaper than this is let through.
	gateSmall = 128 << 10
	// A Weight of which nothing is known yet.
	gateUnknown = 4 << 20
	// A Weight forgets this part of itself with each answer that was smaller.
	gateForgets = 64
	// gateWait is how long one waits for room.
	gateWait = 20 * time.Second
)

// Gate bounds what answers take that are being made at a time, so that many who ask for much at once wait for each other and do not
// drive the process over its memory. First come, first served. A nil *Gate lets everything through. It is safe for concurrent use.
type Gate struct {
	size    int64
	room    *semaphore.Weighted
	waiting atomic.Int64
}

// Weight is what the answers to one kind of request have lately taken at most. The zero value knows of none.
type Weight struct{ bytes atomic.Int64 }

// NewGate makes the gate of a process that may use memory bytes in all; m may be nil.
func NewGate(memory int64, m *telemetry.Metrics) *Gate {
	g := &Gate{size: memory / gatePart, room: semaphore.NewWeighted(memory / gatePart)}
	m.GaugeFunc("memory_gate_waiting", "Requests that wait for memory.", func() float64 { return float64(g.waiting.Load()) })
	return g
}

// Enter waits until there is room for one more answer of that weight. The caller must call leave when it has the answer, with its
// length, or with -1 if there was none. The error is ErrBusy, or ctx's.
func (g *Gate) Enter(ctx context.Context, w *Weight) (leave func(length int64), err error) {
	if g == nil {
		return func(int64) {}, nil
	}
	n := w.bytes.Load()
	if n == 0 {
		n = gateUnknown
	}
	if n <= gateSmall {
		return w.learn, nil
	}
	n = min(n, g.size) // the largest must be answered as well, alone
	if !g.room.TryAcquire(n) {
		g.waiting.Add(1)
		defer g.waiting.Add(-1)
		waiting, cancel := context.WithTimeout(ctx, gateWait)
		defer cancel()
		if err := g.room.Acquire(waiting, n); err != nil {
			if ctx.Err() == nil {
				err = ErrBusy
			}
			return nil, err
		}
	}
	return func(length int64) {
		w.learn(length)
		g.room.Release(n)
	}, nil
}

func (w *Weight) learn(length int64) {
	if length < 0 {
		return
	}
	n := max(length*gateTimes, 1)
	for {
		old := w.bytes.Load()
		next := max(n, old-old/gateForgets)
		if old == 0 {
			next = n
		}
		if w.bytes.CompareAndSwap(old, next) {
			return
		}
	}
}
