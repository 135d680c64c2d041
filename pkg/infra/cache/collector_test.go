package cache

import (
	"runtime/debug"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestHeapPercent(t *testing.T) {
	const mb = 1 << 20
	for name, c := range map[string]struct {
		live uint64
		room int64
		want int
	}{
		"nothing is live":           {0, 64 * mb, maxGCPercent},
		"little is live":            {10 * mb, 64 * mb, maxGCPercent},
		"as much is live as room":   {32 * mb, 64 * mb, 200},
		"much is live":              {900 * mb, 64 * mb, minGCPercent},
		"a small limit, small room": {10 * mb, 12 * mb, 120},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.want, heap{live: c.live}.percent(c.room)) })
	}
}

func TestHeapIdle(t *testing.T) {
	const mb = 1 << 20
	for name, c := range map[string]struct {
		heap heap
		want bool
	}{
		"busy":                        {heap{live: 10 * mb, allocated: 50 * mb, objects: 60 * mb, over: 5 * time.Second}, false},
		"idle with garbage":           {heap{live: 10 * mb, allocated: mb, objects: 40 * mb, over: 5 * time.Second}, true},
		"idle with room kept":         {heap{live: 10 * mb, allocated: mb, objects: 10 * mb, spare: 20 * mb, over: 5 * time.Second}, true},
		"idle and small":              {heap{live: 10 * mb, allocated: mb, objects: 11 * mb, spare: mb, over: 5 * time.Second}, false},
		"idle, new objects not live":  {heap{live: 20 * mb, allocated: mb, objects: 10 * mb, over: 5 * time.Second}, false},
		"no time between two glances": {heap{live: mb, objects: 40 * mb}, false},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.want, c.heap.idle()) })
	}
}

// What was needed once is given back after, and the pace follows what is live.
func TestCollectorGivesBack(t *testing.T) {
	before := debug.SetGCPercent(minGCPercent)
	defer debug.SetGCPercent(before)
	clock := time.Now()
	c := NewCollector(1 << 30)
	c.fixed, c.now = false, func() time.Time { return clock }
	hold := make([]byte, 48<<20)
	hold[0] = 1
	c.look()
	require.Equal(t, c.percent, debug.SetGCPercent(c.percent), "the pace that was decided is the runtime's")
	hold = nil //nolint:ineffassign,wastedassign // the point of it
	clock = clock.Add(time.Hour)
	c.look()
	c.look() // reads what the first has left
	require.Less(t, c.samples[2].Value.Uint64()+c.samples[3].Value.Uint64()+c.samples[4].Value.Uint64(), uint64(40<<20))
}
