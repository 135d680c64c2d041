package fault_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/heddle-im/heddle/pkg/infra/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errBoom = errors.New("boom")

func TestNilPoints(t *testing.T) {
	var p *fault.Points
	require.NoError(t, p.Hit(context.Background(), "x"))
}

func TestPoints(t *testing.T) {
	ctx := context.Background()
	p := fault.NewPoints()
	require.NoError(t, p.Hit(ctx, "a.b"))
	disarm := p.Arm("a.b", fault.Fail(errBoom))
	err := p.Hit(ctx, "a.b")
	require.ErrorIs(t, err, errBoom)
	require.ErrorContains(t, err, "a.b")
	require.NoError(t, p.Hit(ctx, "other"))
	require.Equal(t, 1, p.Hits("a.b"))
	disarm()
	require.NoError(t, p.Hit(ctx, "a.b"))
	require.Equal(t, 1, p.Hits("a.b"), "not counted when it is not armed")
	p.Arm("a.b", fault.Panic("dead"))
	require.PanicsWithValue(t, "dead", func() { _ = p.Hit(ctx, "a.b") })
}

func TestTimesAndAfter(t *testing.T) {
	ctx := context.Background()
	p := fault.NewPoints()
	p.Arm("times", fault.Times(2, fault.Fail(errBoom)))
	p.Arm("after", fault.After(2, fault.Fail(errBoom)))
	for i := range 5 {
		require.Equal(t, i < 2, p.Hit(ctx, "times") != nil)
		require.Equal(t, i >= 2, p.Hit(ctx, "after") != nil)
	}
}

func TestGate(t *testing.T) {
	p := fault.NewPoints()
	g := fault.NewGate()
	p.Arm("gate", g.Action)
	passed := make(chan error)
	go func() { passed <- p.Hit(context.Background(), "gate") }()
	<-g.Arrived()
	select {
	case <-passed:
		require.Fail(t, "passed a closed gate")
	default:
	}
	g.Open()
	g.Open()
	require.NoError(t, <-passed)

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, fault.NewGate().Action(ctx), context.Canceled)
}

func TestBug(t *testing.T) {
	var none *fault.Bugs
	require.Panics(t, func() { _ = none.Bug(context.Background(), "x is %d", 3) })

	var out bytes.Buffer
	reg := prometheus.NewRegistry()
	b, err := fault.NewBugs(slog.New(slog.NewTextHandler(&out, nil)), reg)
	require.NoError(t, err)
	err = b.Bug(context.Background(), "x is %d", 3)
	var bug *fault.BugError
	require.ErrorAs(t, err, &bug)
	require.Equal(t, "x is 3", bug.What)
	require.Contains(t, bug.Where, "fault_test.go:")
	require.Contains(t, out.String(), "x is 3")
	families, err := reg.Gather()
	require.NoError(t, err)
	require.Equal(t, "heddle_bugs_total", families[0].GetName())
	require.InDelta(t, 1, families[0].GetMetric()[0].GetCounter().GetValue(), 0)
}

func BenchmarkHitUnarmed(b *testing.B) {
	p := fault.NewPoints()
	b.ReportAllocs()
	for b.Loop() {
		_ = p.Hit(context.Background(), "commit.before-publish")
	}
}
