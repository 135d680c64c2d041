package cache

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// headroom is how much garbage a busy process lets lie before it collects, where the limit allows. A worker holds little that is
	// live when it serves much that is short-lived; the runtime's own measure, as much as is live, would collect many times a second.
	headroom = 64 << 20
	// Of a small limit no more than this part is headroom.
	headroomPart   = 8
	minGCPercent   = 100
	maxGCPercent   = 400
	collectorEvery = 5 * time.Second
	// A process that allocates less than this in a second has nothing to do; more than idleGarbage of what it holds for later is
	// then given back to the system.
	idleRate    = 1 << 20
	idleGarbage = 6 << 20
)

// Collector paces the garbage collector of a process by what the process does: seldom under load, within the memory limit, which
// the runtime keeps as before; and what an idle process does not need goes back to the system. An operator who sets GOGC decides
// the pace himself. Run is for one goroutine.
type Collector struct {
	room    int64
	fixed   bool
	percent int
	samples []metrics.Sample
	allocs  uint64
	now     func() time.Time
	last    time.Time
}

// NewCollector returns the collector of a process that may use limit bytes.
func NewCollector(limit int64) *Collector {
	_, fixed := os.LookupEnv("GOGC")
	return &Collector{
		room: min(headroom, limit/headroomPart), fixed: fixed, percent: minGCPercent, now: time.Now,
		samples: []metrics.Sample{
			{Name: "/gc/heap/live:bytes"},
			{Name: "/gc/heap/allocs:bytes"},
			{Name: "/memory/classes/heap/objects:bytes"},
			{Name: "/memory/classes/heap/free:bytes"},
			{Name: "/memory/classes/heap/unused:bytes"},
		},
	}
}

// Run paces until ctx ends.
func (c *Collector) Run(ctx context.Context) {
	t := time.NewTicker(collectorEvery)
	defer t.Stop()
	for {
		c.look()
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (c *Collector) look() {
	metrics.Read(c.samples)
	at := c.now()
	h := heap{
		live: c.samples[0].Value.Uint64(), allocated: c.samples[1].Value.Uint64() - c.allocs,
		objects: c.samples[2].Value.Uint64(), spare: c.samples[3].Value.Uint64() + c.samples[4].Value.Uint64(), over: at.Sub(c.last),
	}
	first := c.last.IsZero()
	c.allocs, c.last = c.samples[1].Value.Uint64(), at
	if p := h.percent(c.room); !c.fixed && (p > c.percent+c.percent/10 || p < c.percent-c.percent/10) {
		debug.SetGCPercent(p)
		c.percent = p
	}
	if !first && h.idle() {
		debug.FreeOSMemory()
	}
}

// heap is what a look at it sees, in bytes: what was live at the last collection; what was allocated since the last look; what the
// objects take now, dead ones too; and what is kept for objects to come.
type heap struct {
	live, allocated, objects, spare uint64
	over                            time.Duration
}

// percent is the growth, in percent of what is live, that leaves room bytes for garbage.
func (h heap) percent(room int64) int {
	return int(min(max(uint64(room)*100/max(h.live, 1), minGCPercent), maxGCPercent)) //nolint:gosec // positive, and small
}

// idle reports that the process does nothing and holds memory for it.
func (h heap) idle() bool {
	if h.over <= 0 || float64(h.allocated)/h.over.Seconds() > idleRate {
		return false
	}
	return h.spare+h.objects-min(h.live, h.objects) > idleGarbage
}
