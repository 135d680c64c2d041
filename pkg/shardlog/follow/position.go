package follow

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// Positions gives how far the consumer has been told.
func (f *Follower) Positions() shard.Heads {
	f.mu.Lock()
	defer f.mu.Unlock()
	return shard.Heads{Incarnation: f.at.Incarnation, Positions: f.at.Positions.Clone()}
}

// WaitFor waits until the consumer has been told all of a shard up to a position.
func (f *Follower) WaitFor(ctx context.Context, s shard.ID, pos shard.Pos) error {
	f.mu.Lock()
	if int(s) >= len(f.at.Positions) {
		f.mu.Unlock()
		return fmt.Errorf("wait for shard %s: no such shard", s)
	}
	if f.at.Positions[s] >= pos {
		f.mu.Unlock()
		return nil
	}
	w := waiter{pos: pos, done: make(chan struct{})}
	f.waiters[s] = append(f.waiters[s], w)
	f.mu.Unlock()
	select {
	case <-w.done:
		return nil
	case <-f.ended:
		f.drop(s, w)
		return ErrStopped
	case <-ctx.Done():
		f.drop(s, w)
		return ctx.Err()
	}
}

// Reach waits until the consumer has been told all that the heads hold of some shards; of all if none is named. Heads come from
// an [Index].
func (f *Follower) Reach(ctx context.Context, heads shard.Heads, shards ...shard.ID) error {
	if len(shards) == 0 {
		for s := range heads.Positions {
			if err := f.WaitFor(ctx, shard.ID(s), heads.Positions[s]); err != nil {
				return err
			}
		}
		return nil
	}
	for _, s := range shards {
		if int(s) >= len(heads.Positions) {
			return fmt.Errorf("reach heads of shard %s: no such shard", s)
		}
		if err := f.WaitFor(ctx, s, heads.Positions[s]); err != nil {
			return err
		}
	}
	return nil
}

func (f *Follower) drop(s shard.ID, w waiter) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiters[s] = slices.DeleteFunc(f.waiters[s], func(o waiter) bool { return o.done == w.done })
}

// wake tells those who wait for a position of a shard that is reached. mu is held.
func (f *Follower) wake(s shard.ID) {
	list := f.waiters[s]
	if len(list) == 0 {
		return
	}
	kept := list[:0]
	for _, w := range list {
		if f.at.Positions[s] >= w.pos {
			close(w.done)
			continue
		}
		kept = append(kept, w)
	}
	clear(list[len(kept):])
	f.waiters[s] = kept
}

// Lag gives by how many positions the consumer is behind the newest heads known, over all shards, and for how long nothing
// has been learned of the heads.
func (f *Follower) Lag() (positions int64, silence time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.heads {
		positions += int64(max(0, f.heads[s]-f.at.Positions[s]))
	}
	return positions, time.Since(f.asOf)
}

// readyLag and readyPolls bound what a follower may be behind and still count as ready.
const (
	readyLag   = 10_000
	readyPolls = 5
)

// Ready tells whether the follower can be relied on: it knows the heads, is not far behind, and could read all that it met.
func (f *Follower) Ready(context.Context) error {
	select {
	case <-f.ended:
		return ErrStopped
	default:
	}
	f.mu.Lock()
	unknown := f.unknown
	f.mu.Unlock()
	if unknown != 0 {
		return fmt.Errorf("%w (%d)", ErrUnknownKind, unknown)
	}
	lag, silence := f.Lag()
	if lag > readyLag || silence > readyPolls*f.cfg.Poll {
		return fmt.Errorf("%w: by %d positions, heads read %s ago", ErrBehind, lag, silence.Round(time.Millisecond))
	}
	return nil
}
