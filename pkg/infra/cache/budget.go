package cache

import (
	"context"
	"errors"
	"fmt"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/infra/telemetry"
)

// ErrExhausted: the budget has no room, and nothing more can be evicted.
var ErrExhausted = errors.New("memory budget exhausted")

// Evict frees about n charged bytes, through its Account, and returns how many
// it freed: fewer if it cannot.
type Evict func(n int64) int64

// BudgetConfig describes a budget.
type BudgetConfig struct {
	// Memory is what the process may use in all, MemoryLimit by default.
	Memory int64
	// Live reads the bytes that survived the last garbage collection. Default:
	// the runtime's. For tests.
	Live func() int64
}

// Budget is the bytes that the caches and windows of one worker share: half of
// its memory, for a heap needs room to be collected in, and requests theirs.
//
// As a lifecycle.Service it also watches the heap, since what is charged is
// estimated: while more survives a collection than cachesAndRest of the memory,
// the limit shrinks, and it grows back slowly.
type Budget struct {
	memory int64
	max    int64 // of limit
	live   func() int64
	tasks  *lifecycle.Tasks

	limit   atomic.Int64
	used    atomic.Int64
	evicted prometheus.Counter
	bytes   *prometheus.GaugeVec

	relieving sync.Mutex // held by the one that evicts

	mu       sync.Mutex // guards accounts
	accounts []*Account
}

const (
	budgetPart   = 2 // the budget is memory/2
	watchPeriod  = 500 * time.Millisecond
	liveTenths   = 7  // of memory may be live
	growTwenties = 20 // a limit that was lowered grows by a twentieth a period
	// An eviction makes a little more room than is needed, so that the next
	// insertion does not evict again.
	slackPart = 64
)

// NewBudget returns a budget; m may be nil.
func NewBudget(cfg BudgetConfig, m *telemetry.Metrics) *Budget {
	if cfg.Live == nil {
		cfg.Live = liveHeap
	}
	b := &Budget{memory: cfg.Memory, max: cfg.Memory / budgetPart, live: cfg.Live}
	b.limit.Store(b.max)
	b.evicted = m.Counter("memory_budget_evicted_bytes_total", "Bytes evicted because the budget was full.")
	b.bytes = m.GaugeVec("memory_budget_account_bytes", "Bytes charged to the memory budget.", "account")
	m.GaugeFunc("memory_budget_limit_bytes", "Bytes that caches and windows may hold in all.",
		func() float64 { return float64(b.limit.Load()) })
	m.GaugeFunc("memory_budget_used_bytes", "Bytes that caches and windows hold in all.",
		func() float64 { return float64(b.used.Load()) })
	return b
}

// Limit is the bytes that may be charged now, Used those that are.
func (b *Budget) Limit() int64 { return b.limit.Load() }

// Used is the bytes charged.
func (b *Budget) Used() int64 { return b.used.Load() }

// Start begins to watch the heap.
func (b *Budget) Start(ctx context.Context) error {
	b.tasks = lifecycle.NewTasks(context.WithoutCancel(ctx))
	b.tasks.Every(watchPeriod, func(context.Context) { b.Adjust() })
	return nil
}

// Stop ends the watching.
func (b *Budget) Stop(ctx context.Context) error {
	if b.tasks == nil {
		return nil
	}
	return b.tasks.StopWithin(ctx)
}

// Adjust compares the live heap with the memory once.
func (b *Budget) Adjust() {
	live, most := b.live(), b.memory/10*liveTenths
	limit := b.limit.Load()
	if live > most {
		// The surplus is in the caches or it is not; giving up a surplus of
		// theirs is right in the first case and all that can be done in the second.
		limit = max(b.max/16, min(limit, b.used.Load())-(live-most))
	} else {
		limit = min(b.max, limit+b.max/growTwenties)
	}
	b.limit.Store(limit)
	b.relieve()
}

// Account opens an account. evict may be nil, for what cannot be evicted. Names
// are few and constant: they are labels of metrics.
func (b *Budget) Account(name string, evict Evict) *Account {
	a := &Account{budget: b, name: name, evict: evict, gauge: b.bytes.WithLabelValues(name)}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.accounts = append(b.accounts, a)
	return a
}

// relieve evicts until the budget is kept, from each account in proportion to
// what it holds. If an eviction runs already that one is relied upon, unless the
// budget is far exceeded: then its end is waited for.
func (b *Budget) relieve() {
	limit := b.limit.Load()
	over := b.used.Load() - limit
	if over <= 0 {
		return
	}
	if over > limit/16 {
		b.relieving.Lock()
	} else if !b.relieving.TryLock() {
		return
	}
	defer b.relieving.Unlock()
	// A second round takes from the others what one account could not give.
	for range 2 {
		need := b.used.Load() - b.limit.Load()
		if need <= 0 {
			return
		}
		need += b.limit.Load() / slackPart
		b.mu.Lock()
		accounts := append([]*Account(nil), b.accounts...)
		b.mu.Unlock()
		var evictable int64
		for _, a := range accounts {
			if a.evict != nil {
				evictable += a.Used()
			}
		}
		if evictable == 0 {
			return
		}
		for _, a := range accounts {
			if held := a.Used(); a.evict != nil && held > 0 {
				share := int64(float64(need)*float64(held)/float64(evictable)) + 1
				b.evicted.Add(float64(a.evict(min(share, held))))
			}
		}
	}
}

// Account is what one cache or window has charged.
type Account struct {
	budget *Budget
	name   string
	evict  Evict
	gauge  prometheus.Gauge
	used   atomic.Int64
}

// Used is the bytes charged to this account.
func (a *Account) Used() int64 { return a.used.Load() }

func (a *Account) add(n int64) {
	a.gauge.Set(float64(a.used.Add(n)))
	a.budget.used.Add(n)
}

// Charge adds n bytes and evicts, of any account, what is then too much. It
// must be called without a lock that an Evict function takes.
func (a *Account) Charge(n int64) {
	a.add(n)
	a.budget.relieve()
}

// Release takes n bytes back. It never evicts, so it may be called under a lock.
func (a *Account) Release(n int64) { a.add(-n) }

// Reserve is Charge for what can be refused: if there is no room even after an
// eviction, nothing is charged and the error is ErrExhausted.
func (a *Account) Reserve(n int64) error {
	a.Charge(n)
	if b := a.budget; b.used.Load() > b.limit.Load() {
		// Perhaps another's eviction had not ended.
		b.relieving.Lock()
		b.relieving.Unlock() //nolint:staticcheck // only waited for
		b.relieve()
		if b.used.Load() > b.limit.Load() {
			a.Release(n)
			return fmt.Errorf("%s: %w", a.name, ErrExhausted)
		}
	}
	return nil
}

// Close takes back all that is charged and closes the account.
func (a *Account) Close() {
	b := a.budget
	b.mu.Lock()
	for i, o := range b.accounts {
		if o == a {
			b.accounts = append(b.accounts[:i:i], b.accounts[i+1:]...)
			break
		}
	}
	b.mu.Unlock()
	a.Release(a.Used())
}

func liveHeap() int64 {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	if s[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return int64(s[0].Value.Uint64())
}
