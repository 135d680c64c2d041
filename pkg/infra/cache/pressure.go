package cache

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/telemetry"
)

const (
	// Above this part of the memory nobody new is let in, and below the other again. What is between them and all of it is for what is
	// under way, for the caches' last entries, and for garbage.
	pressureHigh, pressureLow = 0.85, 0.80
	pressureEvery             = 250 * time.Millisecond
	// A request that is under way takes so much, though it may not have taken it yet.
	pressureEach = 32 << 10
	// What has come since the last collection is looked at once it is more than this part of the memory.
	pressureGrown = 16
)

// Pressure tells whether a process lives on more memory than leaves room for work, so that requests are turned away before the
// system ends the process. What counts is what is live, and not garbage; and everything, once the collector cannot keep it within the
// limit. A nil *Pressure never tells so. It is safe for concurrent use; Run is for one goroutine.
type Pressure struct {
	limit   float64
	read    func() usage
	collect func()
	high    atomic.Bool
	shed    atomic.Int64
	under   atomic.Int64 // way: requests that were let in and have not left
	spare   atomic.Int64 // how many more may be let in before the next look
	looking sync.Mutex   // held by the one who looks
}

// usage is what a process takes, in bytes: what the last collection left, with what there was no garbage of; the same with the garbage
// since; and with what is free, too.
type usage struct{ live, held, all uint64 }

// NewPressure makes the Pressure of a process that may use limit bytes; m may be nil.
func NewPressure(limit int64, m *telemetry.Metrics) *Pressure {
	p := &Pressure{limit: float64(limit), collect: debug.FreeOSMemory, read: usageReader()}
	m.GaugeFunc("memory_pressure", "1 while requests are turned away because memory is short.", func() float64 {
		if p.high.Load() {
			return 1
		}
		return 0
	})
	m.GaugeFunc("memory_pressure_refused", "Requests that were turned away because memory is short, since the start.", func() float64 {
		return float64(p.shed.Load())
	})
	return p
}

// usageReader reads what this process takes. Its result is for one goroutine at a time.
func usageReader() func() usage {
	samples := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/released:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
	}
	return func() usage {
		metrics.Read(samples)
		all, objects := samples[1].Value.Uint64()-samples[2].Value.Uint64(), samples[3].Value.Uint64()
		heap := objects + samples[4].Value.Uint64() + samples[5].Value.Uint64()
		beside := all - min(heap, all) // stacks, and what the runtime needs to know of all of it
		return usage{live: samples[0].Value.Uint64() + beside, held: objects + beside, all: all}
	}
}

// Run looks at the memory until ctx ends.
func (p *Pressure) Run(ctx context.Context) {
	t := time.NewTicker(pressureEvery)
	defer t.Stop()
	for {
		p.look()
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (p *Pressure) look() {
	p.looking.Lock()
	defer p.looking.Unlock()
	if p.high.Load() {
		// What was live at the last collection may be gone, and who turns requests away may not collect for long. What is free goes
		// back to the system, for all counts.
		p.collect()
	}
	p.judge()
}

// judge is for who holds looking.
func (p *Pressure) judge() {
	u := p.read()
	if float64(u.held) > pressureHigh*p.limit && float64(u.held)-float64(u.live) > p.limit/pressureGrown {
		p.collect() // much has come since the last collection, and it may not be garbage
		u = p.read()
	}
	live := float64(u.live) + float64(p.under.Load()*pressureEach)
	switch {
	case live > pressureHigh*p.limit, float64(u.all) > p.limit:
		p.high.Store(true)
	case live < pressureLow*p.limit:
		p.high.Store(false)
	}
	p.spare.Store(int64(pressureHigh*p.limit-live) / pressureEach)
}

// Enter lets a request in, which calls Leave when it has its answer or only waits; while memory is short it refuses with ErrBusy. When many
// come at once it does not wait for the next look.
func (p *Pressure) Enter() error {
	if p == nil {
		return nil
	}
	p.under.Add(1)
	if !p.high.Load() && p.spare.Add(-1) < 0 && p.looking.TryLock() {
		p.judge()
		p.looking.Unlock()
	}
	if !p.high.Load() {
		return nil
	}
	p.under.Add(-1)
	p.shed.Add(1)
	return ErrBusy
}

// Leave ends what Enter let in.
func (p *Pressure) Leave() {
	if p != nil {
		p.under.Add(-1)
	}
}
