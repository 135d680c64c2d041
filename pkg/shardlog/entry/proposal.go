package entry

import (
	"sync/atomic"

	"go.opentelemetry.io/otel/trace"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// Row is a domain row that a proposal writes. The concrete types are those of the store's packages; the set is closed by
// store/commitdb, which knows how to write each.
//
// A row that must hold the position of one of its proposal's entries has a field for that entry's index; the store
// fills in the position when it is known.
type Row interface {
	// Cost gives about how many bytes the row takes in a transaction.
	Cost() int
}

// Proposal is what a service wants committed as one: log entries, the rows that go with them, and the key that makes a
// retry find its answer. All belong to one shard. Everything in it is committed in one transaction under the shard's
// fence, or nothing is. A proposal is not changed after it was submitted.
type Proposal struct {
	Shard shard.ID
	// Epoch is the epoch under which it was prepared.
	Epoch shard.Epoch
	// Chain orders proposals that build on each other; nil if it builds on nothing.
	Chain *Chain
	// Key is the idempotency key, or nil. Result is stored with it, and is what a repeat of the command is answered.
	Key    []byte
	Result []byte

	Entries []Entry
	Rows    []Row
	// Room is how many positions are left free before its first entry, for events of its room that are found later and belong before it: they
	// have an order key and no entry. A proposal without entries leaves none.
	Room int64

	// Trace is the span in which it was made, if any: the commit is part of that trace.
	Trace trace.SpanContext
}

// Cost gives about how many bytes the proposal takes in a transaction.
func (p *Proposal) Cost() int {
	n := len(p.Key) + len(p.Result)
	for i := range p.Entries {
		n += p.Entries[i].Size()
	}
	for _, r := range p.Rows {
		n += r.Cost()
	}
	return n
}

// Chain is what speculative proposals hang on: a room as it was loaded once. A room's next event is built on the state in
// memory, before the one before it is committed. If one fails, what was built on it fails with it: the chain is broken, no
// further proposal of it is accepted, and the room is loaded anew with a new chain.
type Chain struct{ broken atomic.Bool }

// Break marks the chain as broken. It may be called by anyone, any number of times.
func (c *Chain) Break() { c.broken.Store(true) }

// Broken tells whether the chain is broken.
func (c *Chain) Broken() bool { return c != nil && c.broken.Load() }
