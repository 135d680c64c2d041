// Package commit is the group committer: it takes proposals from everywhere in a master, for all the shards it holds, and puts
// whatever is ready into one PostgreSQL transaction at a time; then it publishes, then it answers.
//
// It knows two small interfaces, [Store] and [Publisher], and so its tests need no database. It promises: a proposal that is
// answered without error is committed, with its entries at consecutive positions; nothing is answered before its commit; the
// proposals of one shard commit in the order in which they were submitted; what fails takes with it only what was built
// on it. It is imported by services and the composition root.
package commit

import (
	"context"
	"errors"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

var (
	// ErrFenced says that the shard is not ours under the proposal's epoch (any more): nothing was committed, and whoever
	// holds the shard now may be asked.
	ErrFenced = errors.New("shard is held by another writer")
	// ErrChain says that something which the proposal was built on was not committed: nothing was committed.
	ErrChain = errors.New("built on a proposal that was not committed")
	// ErrClosed says that the committer no longer takes proposals.
	ErrClosed = errors.New("committer is closed")
	// ErrTooLarge says that one proposal exceeds what a transaction may hold.
	ErrTooLarge = errors.New("proposal exceeds the limit of a transaction")
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
