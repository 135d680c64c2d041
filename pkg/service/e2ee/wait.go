package e2ee

import (
	"context"
	"time"
)

// MaxWait is how long other servers are waited for whose users' keys a client wants: what the specification recommends, and the most.
const MaxWait = 10 * time.Second

// Wait gives how long other servers are waited for when a client says so many milliseconds; nil: it says nothing. Refused with
// M_INVALID_PARAM.
func Wait(ms *int64) (time.Duration, error) {
	switch {
	case ms == nil || *ms >= MaxWait.Milliseconds():
		return MaxWait, nil
	case *ms < 0:
		return 0, invalid("timeout is negative")
	}
	return time.Duration(*ms) * time.Millisecond, nil
}

// asking bounds how long all other servers together are waited for. It ends by a cancellation and not by a deadline: that a client had little
// patience says nothing of the servers, which are not left alone for it.
func asking(ctx context.Context, wait time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	timer := time.AfterFunc(wait, cancel)
	return ctx, func() {
		timer.Stop()
		cancel()
	}
}
