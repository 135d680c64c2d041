package cache

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// Requests are turned away while memory is short, and let in again well below that.
func TestPressure(t *testing.T) {
	var live uint64
	collected := 0
	p := NewPressure(1<<30, nil)
	p.read, p.collect = func() usage { return usage{live: live << 20, all: live << 20} }, func() { collected++ }
	for _, c := range []struct {
		live uint64
		busy bool
	}{{0, false}, {840, false}, {871, true}, {1200, true}, {860, true}, {819, false}, {860, false}, {880, true}, {0, false}} {
		live = c.live
		p.look()
		if c.busy {
			require.ErrorIs(t, p.Enter(), ErrBusy, "%d", c.live)
		} else {
			require.NoError(t, p.Enter(), "%d", c.live)
			p.Leave()
		}
	}
	require.Equal(t, int64(4), p.shed.Load())
	require.Equal(t, 4, collected, "who turns away looks at what is live now")
	require.NoError(t, (*Pressure)(nil).Enter())
}

// Those who are under way count for what they will take, before anybody has looked; and so does what no collection gives back.
func TestPressureOfMany(t *testing.T) {
	const limit = 64 << 20
	var u usage
	p := NewPressure(limit, nil)
	p.read, p.collect = func() usage { return u }, func() {}
	p.look()
	in := 0
	for p.Enter() == nil {
		in++
	}
	require.InDelta(t, limit*0.85/pressureEach, in, 2)
	for range in {
		p.Leave()
	}
	require.ErrorIs(t, p.Enter(), ErrBusy, "until somebody has looked")
	p.look()
	require.NoError(t, p.Enter())
	p.Leave()

	u = usage{live: limit / 2, held: limit - 1, all: limit - 1}
	p.collect = func() { u.held = u.live } // it was garbage
	p.look()
	require.NoError(t, p.Enter())
	p.Leave()
	u.held = limit - 1
	p.collect = func() { u.live = u.held } // it was none
	p.look()
	require.ErrorIs(t, p.Enter(), ErrBusy)
	p.collect = func() {}
	u = usage{live: limit / 2, held: limit / 2, all: limit + 1}
	p.look()
	require.ErrorIs(t, p.Enter(), ErrBusy)
	u.all = limit
	p.look()
	require.NoError(t, p.Enter())
}

// The measure is what is live: what is held counts, and what is let go of does not.
func TestPressureOfAProcess(t *testing.T) {
	runtime.GC()
	p := NewPressure(1, nil)
	p.limit = float64(p.read().live) + 32<<20
	p.collect() // what earlier tests left
	p.look()
	require.NoError(t, p.Enter())
	held := make([]byte, 96<<20)
	runtime.GC()
	p.look()
	require.ErrorIs(t, p.Enter(), ErrBusy)
	runtime.KeepAlive(held)
	held = nil
	p.look()
	require.NoError(t, p.Enter())
	_ = held
}
