package delay

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/store/delaydb"
)

// sendTimeout bounds the sending of one event.
const sendTimeout = 20 * time.Second

// parallel is how many rooms are sent to at the same time.
const parallel = 8

// sweepEvery is how often what was settled long ago is forgotten.
const sweepEvery = 10 * time.Minute

// Start implements lifecycle.Service.
func (e *Engine) Start(ctx context.Context) error {
	e.tasks = lifecycle.NewTasks(context.WithoutCancel(ctx))
	e.tasks.Go(e.run)
	e.tasks.Every(sweepEvery, e.sweep)
	return nil
}

// Stop implements lifecycle.Service.
func (e *Engine) Stop(ctx context.Context) error {
	if e.tasks == nil {
		return nil
	}
	return e.tasks.StopWithin(ctx)
}

func (e *Engine) wake() {
	select {
	case e.nudge <- struct{}{}:
	default:
	}
}

// run sends what is due, and sleeps until more is, until ctx ends.
func (e *Engine) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-e.nudge:
		case <-ctx.Done():
			return
		}
		timer.Reset(e.round(ctx))
	}
}

// round sends what is due now, and tells how long there is nothing to do.
func (e *Engine) round(ctx context.Context) time.Duration {
	for {
		now := e.now()
		list, err := e.o.Store.Claim(ctx, now, now-e.cfg.Stale.Milliseconds(), e.cfg.Batch)
		if err != nil {
			e.warn(ctx, "delayed events could not be read", err)
			return e.cfg.Poll
		}
		e.sendAll(ctx, list)
		if len(list) < e.cfg.Batch || ctx.Err() != nil {
			break
		}
	}
	due, err := e.o.Store.NextDue(ctx)
	if err != nil {
		e.warn(ctx, "delayed events could not be read", err)
		return e.cfg.Poll
	}
	wait := due - e.now()
	if due == delaydb.Never || wait > e.cfg.Poll.Milliseconds() {
		return e.cfg.Poll
	}
	return time.Duration(max(wait, 0)) * time.Millisecond
}

// sendAll sends events, those of one room in the order of their times.
func (e *Engine) sendAll(ctx context.Context, list []delaydb.Event) {
	slices.SortStableFunc(list, func(a, b delaydb.Event) int {
		return cmp.Or(cmp.Compare(a.Room, b.Room), cmp.Compare(a.Due, b.Due), cmp.Compare(a.Since, b.Since))
	})
	var wg sync.WaitGroup
	slots := make(chan struct{}, parallel)
	for len(list) > 0 {
		n := 1
		for n < len(list) && list[n].Room == list[0].Room {
			n++
		}
		of := list[:n]
		list = list[n:]
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			for i := range of {
				if err := e.send(ctx, &of[i]); err != nil && !refused(err) {
					e.warn(ctx, "delayed event was not sent; it is tried again", err)
					return // what comes after it in the room does not overtake it
				}
			}
		})
	}
	wg.Wait()
}

// send sends an event that was claimed, and settles it. If that fails for now, it stays claimed and is taken up again.
func (e *Engine) send(ctx context.Context, ev *delaydb.Event) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	err := e.o.Send(ctx, []byte("delayed:"+ev.ID), ev)
	status, outcome := delaydb.Sent, "sent"
	switch {
	case refused(err):
		status, outcome = delaydb.Refused, "refused"
	case err != nil:
		return err
	}
	e.ended.WithLabelValues(outcome).Inc()
	// It is done: whoever waits for it going away changes nothing about it.
	settle, done := context.WithTimeout(context.WithoutCancel(ctx), sendTimeout)
	defer done()
	if serr := e.o.Store.Settle(settle, ev.ID, status, e.now()); serr != nil {
		e.warn(ctx, "delayed event was not settled; it is done again, without effect", serr)
	}
	return err
}

// refused tells a room's refusal from a failure that may pass.
func refused(err error) bool {
	var m *mxerr.Error
	return errors.As(err, &m) && mxerr.From(m).HTTPStatus < 500 && m.Code != mxerr.LimitExceeded
}

func (e *Engine) sweep(ctx context.Context) {
	const piece = 1000
	for {
		n, err := e.o.Store.Sweep(ctx, e.now()-e.cfg.Keep.Milliseconds(), piece)
		if err != nil {
			e.warn(ctx, "delayed events of long ago were not removed", err)
		}
		if err != nil || n < piece {
			return
		}
	}
}

func (e *Engine) warn(ctx context.Context, what string, err error) {
	if ctx.Err() == nil {
		e.o.Log.Warn(what, "error", err)
	}
}
