package lifecycle_test

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorded returns a service that notes its starts and stops.
func recorded(log *[]string, name string, startErr, stopErr error) lifecycle.Service {
	return lifecycle.Funcs{
		OnStart: func(context.Context) error { *log = append(*log, "+"+name); return startErr },
		OnStop:  func(context.Context) error { *log = append(*log, "-"+name); return stopErr },
	}
}

func TestGroupOrder(t *testing.T) {
	var log []string
	g := lifecycle.NewGroup(nil)
	for _, n := range []string{"a", "b", "c"} {
		g.Add(n, recorded(&log, n, nil, nil))
	}
	ctx := context.Background()
	require.NoError(t, g.Start(ctx))
	require.Error(t, g.Start(ctx), "started twice")
	require.NoError(t, g.Stop(ctx))
	require.NoError(t, g.Stop(ctx), "idempotent")
	require.Equal(t, []string{"+a", "+b", "+c", "-c", "-b", "-a"}, log)
}

func TestGroupUnwindsAFailedStart(t *testing.T) {
	var log []string
	boom := errors.New("boom")
	g := lifecycle.NewGroup(nil)
	g.Add("a", recorded(&log, "a", nil, nil))
	g.Add("b", recorded(&log, "b", boom, nil))
	g.Add("c", recorded(&log, "c", nil, nil))
	err := g.Start(context.Background())
	require.ErrorIs(t, err, boom)
	require.ErrorContains(t, err, "start b: boom")
	require.Equal(t, []string{"+a", "+b", "-a"}, log)
	require.NoError(t, g.Stop(context.Background()))
	require.Len(t, log, 3)
}

func TestGroupUnwindsWithALiveContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	g := lifecycle.NewGroup(nil)
	stopErr := errors.New("not stopped")
	g.Add("a", lifecycle.Funcs{OnStop: func(ctx context.Context) error { stopErr = ctx.Err(); return nil }})
	g.Add("b", lifecycle.Funcs{OnStart: func(context.Context) error { cancel(); return nil }})
	g.Add("c", lifecycle.Funcs{})
	require.ErrorIs(t, g.Start(ctx), context.Canceled)
	require.NoError(t, stopErr)
}

func TestGroupStopGoesOnAfterAnError(t *testing.T) {
	var log []string
	boom := errors.New("boom")
	g := lifecycle.NewGroup(nil)
	g.Add("a", recorded(&log, "a", nil, nil))
	g.Add("b", recorded(&log, "b", nil, boom))
	require.NoError(t, g.Start(context.Background()))
	require.ErrorIs(t, g.Stop(context.Background()), boom)
	require.Equal(t, []string{"+a", "+b", "-b", "-a"}, log)
}

type failing struct {
	lifecycle.Funcs
	ch chan error
}

func (f failing) Failed() <-chan error { return f.ch }

func TestRunStopsWhenAServiceFails(t *testing.T) {
	var log []string
	boom := errors.New("boom")
	f := failing{ch: make(chan error, 1)}
	g := lifecycle.NewGroup(nil)
	g.Add("a", recorded(&log, "a", nil, nil))
	g.Add("f", f)
	f.ch <- boom
	require.ErrorIs(t, lifecycle.Run(context.Background(), nil, g), boom)
	require.Equal(t, []string{"+a", "-a"}, log)
}

func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	var log []string
	g := lifecycle.NewGroup(nil)
	g.Add("a", recorded(&log, "a", nil, nil))
	g.Add("b", lifecycle.Funcs{OnStart: func(context.Context) error { time.AfterFunc(0, cancel); return nil }})
	require.NoError(t, lifecycle.Run(ctx, nil, g))
	require.Equal(t, []string{"+a", "-a"}, log)
}

func TestRunRealSignal(t *testing.T) {
	var log []string
	g := lifecycle.NewGroup(nil)
	g.Add("a", recorded(&log, "a", nil, nil))
	g.Add("signal", lifecycle.Funcs{OnStart: func(context.Context) error {
		return syscall.Kill(os.Getpid(), syscall.SIGTERM)
	}})
	require.NoError(t, lifecycle.Run(context.Background(), nil, g))
	require.Equal(t, []string{"+a", "-a"}, log)
}

func TestSecondSignalExits(t *testing.T) {
	signals := make(chan os.Signal)
	exited := make(chan int, 1)
	s := lifecycle.Funcs{OnStop: func(context.Context) error {
		signals <- syscall.SIGINT
		require.Equal(t, 1, <-exited)
		return nil
	}}
	go func() { signals <- syscall.SIGTERM }()
	r := lifecycle.Runner{Signals: signals, Exit: func(c int) { exited <- c }}
	require.NoError(t, r.Run(context.Background(), s))
}

func TestRunGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var code atomic.Int64
		released := make(chan struct{})
		signals := make(chan os.Signal, 1)
		signals <- syscall.SIGTERM
		s := lifecycle.Funcs{OnStop: func(ctx context.Context) error {
			<-ctx.Done() // the grace period has ended
			<-released   // and it hangs on
			return ctx.Err()
		}}
		r := lifecycle.Runner{Signals: signals, Exit: func(c int) { code.Store(int64(c)); close(released) }}
		begin := time.Now()
		require.ErrorIs(t, r.Run(context.Background(), s), context.DeadlineExceeded)
		require.EqualValues(t, 1, code.Load())
		require.Equal(t, lifecycle.Grace+time.Second, time.Since(begin))
	})
}

func TestTasks(t *testing.T) {
	tasks := lifecycle.NewTasks(context.Background())
	var ended atomic.Int64
	for range 10 {
		require.True(t, tasks.Go(func(ctx context.Context) {
			<-ctx.Done()
			ended.Add(1)
		}))
	}
	tasks.Stop()
	require.EqualValues(t, 10, ended.Load())
	tasks.Stop()
	require.False(t, tasks.Go(func(context.Context) { t.Error("ran after Stop") }))
}

func TestTasksStopWithin(t *testing.T) {
	tasks := lifecycle.NewTasks(context.Background())
	release := make(chan struct{})
	tasks.Go(func(context.Context) { <-release })
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, tasks.StopWithin(ctx), context.Canceled)
	close(release)
	tasks.Stop()
}

func TestTasksEvery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tasks := lifecycle.NewTasks(context.Background())
		n := 0
		tasks.Every(time.Second, func(context.Context) { n++ })
		time.Sleep(3500 * time.Millisecond) //nolint:forbidigo // of the bubble's clock
		tasks.Stop()
		require.Equal(t, 4, n)
	})
}

func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		require.NoError(t, lifecycle.Sleep(t.Context(), time.Second))
		require.Equal(t, time.Second, time.Since(began))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, lifecycle.Sleep(ctx, time.Hour), context.DeadlineExceeded)
		require.Equal(t, 2*time.Second, time.Since(began))
		wake := make(chan struct{}, 1)
		wake <- struct{}{}
		require.NoError(t, lifecycle.Doze(t.Context(), time.Hour, wake))
		require.Equal(t, 2*time.Second, time.Since(began), "it was told before")
		require.NoError(t, lifecycle.Doze(t.Context(), time.Second, wake))
		require.Equal(t, 3*time.Second, time.Since(began))
	})
}

func TestReadiness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		r := lifecycle.NewReadiness()
		require.Empty(t, r.Ready(ctx))
		bad := errors.New("no leases")
		r.Register("good", func(context.Context) error { return nil })
		remove := r.Register("leases", func(context.Context) error { return bad })
		require.Equal(t, map[string]error{"leases": bad}, r.Ready(ctx))
		remove()
		require.Empty(t, r.Ready(ctx))

		removePanic := r.Register("p", func(context.Context) error { panic("oh") })
		require.ErrorContains(t, r.Ready(ctx)["p"], "oh")
		removePanic()

		release := make(chan struct{})
		removeSlow := r.Register("slow", func(context.Context) error { <-release; return nil })
		failed := r.Ready(ctx)
		require.Len(t, failed, 1)
		require.ErrorIs(t, failed["slow"], context.DeadlineExceeded)
		close(release)
		removeSlow()

		r.Drain()
		require.Len(t, r.Ready(ctx), 1)
	})
}
