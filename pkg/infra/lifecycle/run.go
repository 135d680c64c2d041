package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Grace is how long a process may take to stop in order.
const Grace = 30 * time.Second

// Runner runs a service as a process. The zero value is ready to use; its
// fields are for tests.
type Runner struct {
	// Grace in place of the constant.
	Grace time.Duration
	// Signals in place of SIGTERM and SIGINT of the process.
	Signals <-chan os.Signal
	// Exit in place of os.Exit.
	Exit func(code int)
	// Log may be nil.
	Log *slog.Logger
}

// Run starts s and runs it until ctx ends, a SIGTERM or SIGINT arrives, or it
// fails; then it stops it and returns. Its error is nil after a signal or the
// end of ctx if everything stopped in order. A second signal, also one during
// the start, exits the process at once with code 1, as does the grace period's
// end if Stop still hangs a second after it.
func (r Runner) Run(ctx context.Context, s Service) error {
	if r.Grace == 0 {
		r.Grace = Grace
	}
	if r.Exit == nil {
		r.Exit = os.Exit //nolint:forbidigo // what hangs would keep a main from doing it
	}
	if r.Log == nil {
		r.Log = slog.New(slog.DiscardHandler)
	}
	if r.Signals == nil {
		ch := make(chan os.Signal, 2)
		signal.Notify(ch, syscall.SIGTERM, syscall.SIGINT)
		defer signal.Stop(ch)
		r.Signals = ch
	}
	runCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	finished := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		r.watchSignals(cancel, finished)
	}()
	defer func() { close(finished); <-watched }()
	return r.run(runCtx, s)
}

func (r Runner) watchSignals(cancel context.CancelFunc, finished <-chan struct{}) {
	for first := true; ; first = false {
		select {
		case sig := <-r.Signals:
			if !first {
				r.Log.Warn("exiting at once", "signal", sig.String())
				r.Exit(1)
				return
			}
			r.Log.Info("stopping", "signal", sig.String())
			cancel()
		case <-finished:
			return
		}
	}
}

func (r Runner) run(ctx context.Context, s Service) error {
	if err := s.Start(ctx); err != nil {
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			return nil // told to stop while starting
		}
		return err
	}
	var failed <-chan error
	if f, ok := s.(Failing); ok {
		failed = f.Failed()
	}
	var cause error
	select {
	case <-ctx.Done():
	case cause = <-failed:
		r.Log.Error("a service failed, stopping", "error", cause)
	}
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.Grace)
	defer cancel()
	hung := time.AfterFunc(r.Grace+time.Second, func() {
		r.Log.Error("did not stop in time, exiting")
		r.Exit(1)
	})
	defer hung.Stop()
	if err := s.Stop(stopCtx); err != nil {
		return errors.Join(cause, fmt.Errorf("stop: %w", err))
	}
	return cause
}

// Run is Runner{Log: log}.Run.
func Run(ctx context.Context, log *slog.Logger, s Service) error {
	return Runner{Log: log}.Run(ctx, s)
}
