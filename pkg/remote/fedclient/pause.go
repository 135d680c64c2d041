package fedclient

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/heddle-im/heddle/pkg/matrix/id"
)

// How long a server that fails is left alone: doubling, and up to a quarter more, so that all do not come back at once.
const (
	firstPause   = 2 * time.Second
	longestPause = 6 * time.Hour
	pauseKept    = 24 * time.Hour
)

// pauses remembers which servers are to be left alone. The shared cache says so to all workers; what is remembered here spares asking it, and
// stands in for it.
type pauses struct {
	cache Cache
	now   func() time.Time

	mu    sync.Mutex // guards known
	known map[id.ServerName]seen
}

type seen struct {
	pause
	read time.Time // when the shared cache was last asked
}

type pause struct {
	Failures int   `json:"n"`
	Until    int64 `json:"u"` // ms
}

// rereads is how often the shared cache is asked of one server at most.
const rereads = time.Second

func newPauses(c Cache, now func() time.Time) *pauses {
	return &pauses{cache: c, now: now, known: map[id.ServerName]seen{}}
}

func pauseKey(s id.ServerName) string { return "fed:pause:" + string(s) }

func (p *pauses) get(ctx context.Context, s id.ServerName) pause {
	now := p.now()
	p.mu.Lock()
	k, ok := p.known[s]
	p.mu.Unlock()
	if ok && now.Sub(k.read) < rereads {
		return k.pause
	}
	raw, there, err := p.cache.Get(ctx, pauseKey(s))
	if err != nil {
		return k.pause
	}
	var shared pause
	if there {
		_ = json.Unmarshal(raw, &shared) // what cannot be read is no pause
	}
	p.put(s, shared)
	return shared
}

func (p *pauses) put(s id.ServerName, v pause) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.known) >= maxKnown {
		clear(p.known)
	}
	p.known[s] = seen{v, p.now()}
}

func (p *pauses) left(ctx context.Context, s id.ServerName) time.Duration {
	return max(0, time.UnixMilli(p.get(ctx, s).Until).Sub(p.now()))
}

func (p *pauses) check(ctx context.Context, s id.ServerName) error {
	if d := p.left(ctx, s); d > 0 {
		return fmt.Errorf("%s: %w for another %s", s, ErrBackoff, d.Round(time.Second))
	}
	return nil
}

// failed notes that a server did not answer. Requests that failed together count once.
func (p *pauses) failed(ctx context.Context, s id.ServerName) {
	v := p.get(ctx, s)
	now := p.now()
	if now.UnixMilli() < v.Until {
		return
	}
	v.Failures++
	d := longestPause
	if v.Failures < 16 {
		d = min(firstPause<<(v.Failures-1), longestPause)
	}
	d += time.Duration(rand.Int64N(int64(d)/4 + 1)) //nolint:gosec // nothing is to be kept from anybody
	v.Until = now.Add(d).UnixMilli()
	p.put(s, v)
	if raw, err := json.Marshal(v); err == nil {
		_ = p.cache.Set(ctx, pauseKey(s), raw, max(pauseKept, 2*d)) // it may be lost
	}
}

// answered notes that a server is there, and says whether it had failed.
func (p *pauses) answered(ctx context.Context, s id.ServerName) bool {
	if p.get(ctx, s).Failures == 0 {
		return false
	}
	p.put(s, pause{})
	_ = p.cache.Delete(ctx, pauseKey(s)) // it may be lost
	return true
}

// forget drops what is remembered here of a server, so that the shared cache is asked.
func (p *pauses) forget(s id.ServerName) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.known, s)
}
