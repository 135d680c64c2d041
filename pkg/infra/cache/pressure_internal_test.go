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
	p := NewPressure(1000, nil)
	p.live, p.collect = func() uint64 { return live }, func() { collected++ }
	for _, c := range []struct {
		live uint64
		busy bool
	}{{0, false}, {840, false}, {851, true}, {1200, true}, {820, true}, {799, false}, {840, false}, {860, true}, {0, false}} {
		live = c.live
		p.look()
		if c.busy {
			require.ErrorIs(t, p.Admit(), ErrBusy, "%d", c.live)
		} else {
			require.NoError(t, p.Admit(), "%d", c.live)
		}
	}
	require.Equal(t, int64(4), p.shed.Load())
	require.Equal(t, 4, collected, "who turns away looks at what is live now")
	require.NoError(t, (*Pressure)(nil).Admit())
}

// The measure is what is live: what is held counts, and what is let go of does not.
func TestPressureOfAProcess(t *testing.T) {
	runtime.GC()
	p := NewPressure(1, nil)
	p.limit = float64(p.live()) + 32<<20
	p.look()
	require.NoError(t, p.Admit())
	held := make([]byte, 96<<20)
	runtime.GC()
	p.look()
	require.ErrorIs(t, p.Admit(), ErrBusy)
	runtime.KeepAlive(held)
	held = nil
	p.look()
	require.NoError(t, p.Admit())
	_ = held
}
