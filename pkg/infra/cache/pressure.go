package cache

import (
	"context"
	"runtime"
	"runtime/metrics"
	"sync/atomic"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/telemetry"
)

const (
	// Above this part of the memory nobody new is let in, and below the other again. What is between them and all of it is for what is
	// under way, for the caches' last entries, and for garbage.
	pressureHigh, pressureLow = 0.85, 0.80
	pressureEvery             = 250 * time.Millisecond
)

// Pressure tells whether a process lives on more memory than leaves room for work, so that requests are turned away before the
// system ends the process. What counts is what is live, and not garbage. A nil *Pressure never tells so. It is safe for
// concurrent use; Run is for one goroutine.
type Pressure struct {
	limit   float64
	live    func() uint64
	collect func()
	high    atomic.Bool
	shed    atomic.Int64
}

// NewPressure makes the Pressure of a process that may use limit bytes; m may be nil.
func NewPressure(limit int64, m *telemetry.Metrics) *Pressure {
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	p := &Pressure{limit: float64(limit), collect: runtime.GC, live: func() uint64 {
		metrics.Read(samples)
		return samples[0].Value.Uint64() + samples[1].Value.Uint64()
	}}
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
	live := float64(p.live())
	if p.high.Load() {
		// What was live at the last collection may be gone, and who turns requests away may not collect for long.
		p.collect()
		live = float64(p.live())
	}
	switch {
	case live > pressureHigh*p.limit:
		p.high.Store(true)
	case live < pressureLow*p.limit:
		p.high.Store(false)
	}
}

// Admit refuses with ErrBusy while memory is short.
func (p *Pressure) Admit() error {
	if p == nil || !p.high.Load() {
		return nil
	}
	p.shed.Add(1)
	return ErrBusy
}
