package lease

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/store/leasedb"
)

func TestTerm(t *testing.T) {
	t.Parallel()
	const s = time.Second
	first := term{valid: 2 * s}
	require.False(t, first.live(0))
	a := first.renewed(10*s, 10*s)
	require.True(t, a.live(12*s-1))
	require.False(t, a.live(12*s), "counted from when it was sent, and the end is not in it")
	b := a.renewed(11*s, 12*s-1)
	require.Equal(t, a.gen, b.gen)
	require.True(t, b.live(13*s-1))
	late := a.renewed(11*s, 12*s)
	require.NotEqual(t, a.gen, late.gen, "answered after the end")
	require.True(t, late.live(12*s))
	stale := a.renewed(10*s, 15*s)
	require.NotEqual(t, a.gen, stale.gen)
	require.False(t, stale.live(15*s))
}

func BenchmarkValid(b *testing.B) {
	r := NewRenewer(nil, RenewerConfig{})
	e := NewEngine(nil, r, Config{Roles: []Role{{Name: leasedb.Writer, Slots: 16}}})
	r.term.Store(&term{sent: r.clock(), gen: 1, valid: time.Hour})
	e.shards[3].Store(&grant{epoch: 1, gen: 1})
	b.ReportAllocs()
	for b.Loop() {
		if !e.Valid(3, 1) {
			b.Fatal("not valid")
		}
	}
}
