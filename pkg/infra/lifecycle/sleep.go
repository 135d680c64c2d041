package lifecycle

import (
	"context"
	"time"
)

// Sleep waits. The error is that of ctx if it ends first.
func Sleep(ctx context.Context, d time.Duration) error { return Doze(ctx, d, nil) }

// Doze waits, and no longer than until wake is told something. The error is that of ctx if it ends first.
func Doze(ctx context.Context, d time.Duration, wake <-chan struct{}) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-wake:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
