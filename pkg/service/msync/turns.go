package msync

import (
	"context"
	"slices"
	"sync"
)

// turns lets so many syncs read the database at a time. Users who wait are served in a circle, one sync of each: whoever asks for much at once
// waits for that alone, and delays somebody who asks for little by one of his syncs.
type turns struct {
	mu      sync.Mutex // guards all
	free    int        // none while anybody waits
	circle  []string   // the users in waiting, in the order in which they are served
	waiting map[string][]chan struct{}
}

func newTurns(n int) *turns { return &turns{free: n, waiting: make(map[string][]chan struct{})} }

// enter waits for a turn, which lasts until leave is called, once.
func (t *turns) enter(ctx context.Context, user string) error {
	t.mu.Lock()
	if t.free > 0 {
		t.free--
		t.mu.Unlock()
		return nil
	}
	mine := make(chan struct{})
	if _, in := t.waiting[user]; !in {
		t.circle = append(t.circle, user)
	}
	t.waiting[user] = append(t.waiting[user], mine)
	t.mu.Unlock()
	select {
	case <-mine:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	i := slices.Index(t.waiting[user], mine)
	if i >= 0 {
		t.waiting[user] = slices.Delete(t.waiting[user], i, i+1)
	}
	t.mu.Unlock()
	if i < 0 { // it came to be the turn just now
		t.leave()
	}
	return ctx.Err()
}

// leave gives the turn to who is next.
func (t *turns) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.circle) > 0 {
		user := t.circle[0]
		t.circle = t.circle[1:]
		list := t.waiting[user]
		if len(list) > 1 {
			t.circle, t.waiting[user] = append(t.circle, user), list[1:]
		} else {
			delete(t.waiting, user)
		}
		if len(list) > 0 { // else all of them have given up
			close(list[0])
			return
		}
	}
	t.free++
}
