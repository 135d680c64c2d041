package commit

import (
	"context"
	"time"

	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// Outcome is what became of a proposal.
type Outcome struct {
	// First and Last are the positions of its first and last entry; both 0 if it had none.
	First, Last shard.Pos
	// Repeated says that the key had been committed before: nothing was committed now, and Result is the earlier one.
	Repeated bool
	Result   []byte
}

// Ticket stands for a submitted proposal.
type Ticket struct {
	done    chan struct{}
	outcome Outcome
	err     error
}

// Done is closed when the outcome is known and may be told.
func (t *Ticket) Done() <-chan struct{} { return t.done }

// Wait waits for the outcome. If ctx ends first the proposal may still be committed.
func (t *Ticket) Wait(ctx context.Context) (Outcome, error) {
	select {
	case <-t.done:
		return t.outcome, t.err
	case <-ctx.Done():
		return Outcome{}, ctx.Err()
	}
}

// pending is a proposal on its way.
type pending struct {
	ticket    Ticket
	proposal  *entry.Proposal
	state     *shardState
	seq       uint64 // order of submission
	cost      int
	submitted time.Time

	// The fields below are guarded by Committer.mu.

	// decided: the outcome is known, if not told. A proposal leaves the queue or batch that it is in when it is decided.
	decided bool
	told    bool
}
