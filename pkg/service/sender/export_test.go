package sender

import (
	"context"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// Kill ends a sender as SIGKILL does: transactions are cut off, and what was acknowledged since the last save is not stored.
func (s *Sender) Kill() {
	s.tasks.Stop()
	s.mu.Lock()
	var list []*slot
	for _, sl := range s.slots {
		list = append(list, sl)
	}
	s.mu.Unlock()
	for _, sl := range list {
		sl.tasks.Stop()
	}
}

// Queued tells how many bytes are queued.
func (s *Sender) Queued() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}

// Waiting counts the destinations that wait, and those that are behind.
func (s *Sender) Waiting() (wait, behind int) { return s.waitingNow() }

// Idle tells whether nothing is queued or under way.
func (s *Sender) Idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sl := range s.slots {
		for _, d := range sl.dests {
			if d.state != idle || !d.quiet() {
				return false
			}
		}
	}
	return true
}

// Closes tells whether a slot is being given away.
func (s *Sender) Closes(slot int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	sl := s.slots[slot]
	return sl != nil && sl.closing
}

// Soft counts what was heard besides the log and not taken in.
func (s *Sender) Soft() int { return len(s.soft) }

// QueuedFor counts the events and EDUs queued for a destination.
func (s *Sender) QueuedFor(name id.ServerName) [2]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.destination(name)
	return [2]int{len(d.queue), len(d.edus)}
}

// Apply takes in a batch of the log.
func (s *Sender) Apply(ctx context.Context, b follow.Batch) error { return (*feed)(s).Apply(ctx, b) }

// Applied tells up to where a slot has taken in a shard's log.
func (s *Sender) Applied(slot int, sh shard.ID) shard.Pos {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slots[slot].applied[sh]
}
