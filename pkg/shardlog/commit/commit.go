// Package commit is the group committer: it takes proposals from everywhere in a master, for all the shards it holds, and puts
// whatever is ready into one PostgreSQL transaction at a time; then it publishes, then it answers.
//
// # Why not a transaction for each proposal
//
// The naive design commits each proposal as it comes. A commit costs a few round trips and a flush of the write-ahead log,
// so that a room takes a few hundred events a second, and sixteen shards side by side mostly wait for each other's
// flushes: 10,600 events/s were measured with a transaction of about 2 events for each shard, and 24,000 with one of about 31 for all. Batching is what pays.
// So there is one queue, and one transaction in flight: while it runs, the next one's proposals gather, and the slower
// the database, the larger the batches become. Nobody waits for a timer.
//
// # Invariants
//
//  1. A proposal that is answered without error is committed, with its entries at consecutive positions.
//  2. The proposals of one shard commit in the order in which they were submitted; positions are dense (within an incarnation
//     of the database) but for those that a proposal leaves free before it, and a shard's batches are published in their order.
//  3. A proposal fails alone, but for what was built on it: what its chain holds after it. What stands before it in its chain is not touched.
//  4. A shard that is not ours any more commits nothing, and does not hold up the others.
//  5. While it is not known whether a transaction was committed, no other is begun.
//  6. Nothing is answered that is not committed, and nothing while the lease of its shard is not valid by the local clock.
//  7. Publishing never holds up the next transaction. An answer waits for the acknowledgement of its publication or, failing that
//     within [Config.AckTimeout], until followers have read the database of their own accord: so what one client
//     caused first arrives first.
//
// # Failure
//
// Store.Commit says what went wrong by its error, and each kind has its treatment: a [FencedError] takes the lost shards out of the
// batch and the rest is tried again; a [RepeatedError] answers the commands that had been done before and the rest is tried
// again; [ErrUnavailable] is tried again for a while; [ErrUnknownOutcome] is settled before anything else happens: the
// store raises the epoch of each shard, which waits for the old transaction's end, and then looks; anything else is some
// proposal's fault, and the batch is committed in halves until the culprit is alone.
//
// The package knows three small interfaces, [Store], [Publisher] and [Leases], and so most of its tests need no database. It is
// imported by services, store/commitdb and the composition root. A [Committer] may be used by any number of
// goroutines.
package commit

import (
	"context"
	"errors"
	"fmt"

	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// What callers are answered.
var (
	// ErrFenced says that the shard is not ours under the proposal's epoch (any more): nothing was committed, and whoever
	// holds the shard now may be asked.
	ErrFenced = errors.New("shard is held by another writer")
	// ErrChain says that something which the proposal was built on was not committed: nothing was committed.
	ErrChain = errors.New("built on a proposal that was not committed")
	// ErrClosed says that the committer no longer takes proposals: nothing was committed.
	ErrClosed = errors.New("committer is closed")
	// ErrTooLarge says that one proposal exceeds what a transaction may hold.
	ErrTooLarge = errors.New("proposal exceeds the limit of a transaction")
	// ErrConflict says that a row which had to be new is there already: nothing was committed.
	ErrConflict = errors.New("row exists already")
	// ErrUnavailable says that the database could not be reached, or refused for reasons of its own: nothing was committed.
	ErrUnavailable = errors.New("database is not available")
	// ErrUnknownOutcome says that the proposal may or may not have been committed. Whoever holds the shard now may be asked,
	// with the same key.
	ErrUnknownOutcome = errors.New("outcome of the commit is unknown")
)

// Store writes batches. It is store/commitdb; errors other than those named here are a proposal's fault.
type Store interface {
	// Open reads where a shard's log ends. The shard is held under the epoch, or the error is ErrFenced.
	Open(ctx context.Context, s shard.ID, e shard.Epoch) (Head, error)
	// Commit writes the batches, of different shards in ascending order, in one transaction: all of them or none.
	// The error may be a *FencedError or a *RepeatedError, or wrap ErrUnavailable or ErrUnknownOutcome.
	Commit(ctx context.Context, batches []Batch) error
	// Settle finds out what became of batches whose outcome is unknown. Afterwards they cannot be committed any more if
	// they were not. Shards that are still held under the batch's epoch have a new epoch afterwards.
	Settle(ctx context.Context, batches []Batch) ([]Verdict, error)
}

// Publisher hands messages to the stream.
type Publisher interface {
	// Publish sends a message on the subject of a shard, in the order of the calls. It returns without waiting for the
	// acknowledgement, which acked is told of, from any goroutine, once; or never, if it was lost.
	Publish(s shard.ID, message []byte, acked func(error))
}

// Leases says which shards are ours. Its methods are called by the committer's goroutines, and must neither wait nor call
// the committer's Open, Close or Stop.
type Leases interface {
	// Valid tells whether a shard is ours under the epoch as far as the local clock can say.
	Valid(s shard.ID, e shard.Epoch) bool
	// Moved tells that the committer raised a shard's epoch itself, to learn what became of a transaction; the shard is still ours. What
	// was prepared under the old epoch fails with ErrFenced, and rooms are loaded anew.
	Moved(s shard.ID, from, to shard.Epoch)
	// Lost tells that the shard is not ours under the epoch any more.
	Lost(s shard.ID, e shard.Epoch)
}

// Head is where a shard's log ends.
type Head struct {
	Incarnation uint32
	// Last is the last position of the log, and Next that of the next entry: the one after it, or a step further when a new
	// incarnation has begun.
	Last, Next shard.Pos
}

// Batch is one shard's part of a transaction.
type Batch struct {
	Shard       shard.ID
	Epoch       shard.Epoch
	Incarnation uint32
	// Prev is the last position before the batch, and Last that of its last entry; the same if it has none.
	Prev, Last shard.Pos
	Proposals  []Placed
}

// Placed is a proposal with its place.
type Placed struct {
	*entry.Proposal
	Place entry.Place
}

// Verdict is what became of one shard's batch.
type Verdict struct {
	Shard shard.ID
	// Committed says that the batch is in the database.
	Committed bool
	// Held says that the shard is still ours, now under Epoch.
	Held  bool
	Epoch shard.Epoch
}

// FencedError says that some shards of a batch are not held under the batch's epoch; nothing was committed.
type FencedError struct{ Shards []shard.ID }

// Error implements error.
func (e *FencedError) Error() string { return fmt.Sprintf("%v: shards %v", ErrFenced, e.Shards) }

// Unwrap makes the error an [ErrFenced].
func (e *FencedError) Unwrap() error { return ErrFenced }

// RepeatedError says that some proposals' keys have been committed before, and with which results; nothing was committed.
type RepeatedError struct{ Results map[*entry.Proposal][]byte }

// Error implements error.
func (e *RepeatedError) Error() string {
	return fmt.Sprintf("%d commands have been done before", len(e.Results))
}
