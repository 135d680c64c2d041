// Package follow follows the log: the stream says early what is new, the database says what is true.
//
// A [Follower] hands each entry that its consumer wants to it exactly once and in order, whatever becomes of the messages on their way:
// lost, repeated, reordered, the stream deleted, NATS gone. It applies a message if it begins where the
// follower stands, ignores it if it ends there or before, and else fills the gap from one snapshot of the database over
// all shards, applying nothing newer meanwhile. It reads all heads at every poll interval, and at any hole in the stream's own
// numbering, so that silence is not mistaken for peace.
//
// Following is cheap for who serves little: an entry that the filter turns down is skipped without being decoded or copied.
//
// A [Durable] consumer keeps its place in the database and so is told everything at least once, over restarts. An [Index] tells the
// heads as of now, for reads of what was just written.
//
// The package's types may be used by any number of goroutines; a consumer is called by one at a time. It is imported by the
// services that follow the log and by the composition root.
package follow

import (
	"context"
	"errors"

	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// Source reads the log from the database. It is store/logdb.
type Source interface {
	// Heads reads how far all logs reach, in one query begun after the call.
	Heads(ctx context.Context) (shard.Heads, error)
	// Read reads, from one snapshot, everything after from and up to the heads, shard by shard in order, and gives the
	// heads. piece is called with at most a few hundred entries at a time. The error wraps shard.ErrIncarnation if the
	// database is in another incarnation than from, and shard.ErrTrimmed if entries after from are no longer in the log; piece was then not called.
	Read(ctx context.Context, from shard.Heads, piece func(s shard.ID, entries []entry.At) error) (shard.Heads, error)
	// History reads the incarnations.
	History(ctx context.Context) (shard.History, error)
}

// Consumer is told what is in the log.
type Consumer interface {
	// Apply is called for each batch, also when no entry of it is wanted. Its entries may be kept. When it fails, the follower
	// stops with the error.
	Apply(ctx context.Context, b Batch) error
}

// Resetter is a consumer that can begin anew. A follower whose consumer is none fails when it must.
type Resetter interface {
	// Reset is called when what was applied may not be true any more, or when a part of the log cannot be read any more:
	// the consumer forgets everything and goes on from these heads.
	Reset(ctx context.Context, at shard.Heads) error
}

// Batch is consecutive entries of one shard.
type Batch struct {
	// Incarnation is that of the database in which the batch was read or received. It can change from one batch to the next without a
	// Reset, if nothing that was applied was undone.
	Incarnation uint32
	Shard       shard.ID
	// Prev is the position before the batch, and Last its last one. The entries in between are all those that are wanted.
	Prev, Last shard.Pos
	Entries    []entry.At
}

// Filter tells whether an entry is wanted, by what stands in front of its body. It must not keep subject.
type Filter func(k entry.Kind, room shard.Nid, subject []byte) bool

// Message is a message of the stream.
type Message struct {
	// Seq is the stream's own number of the message.
	Seq  uint64
	Data []byte
}

// Stream delivers the messages of all shards, in the stream's order, from the time of the call on. infra/bus has it.
type Stream interface {
	// Subscribe delivers until ctx ends. deliver is called from one goroutine and may block for a while; the messages that a stream
	// then drops are found by their numbers. A stream that was deleted or lost delivers again when it is there.
	Subscribe(ctx context.Context, deliver func(Message)) error
}

var (
	// ErrUndone says that the database was restored to a moment before what was applied.
	ErrUndone = errors.New("database has undone what was applied")
	// ErrUnknownKind says that an entry of an unknown kind was met.
	ErrUnknownKind = errors.New("entry of an unknown kind: a newer release writes this log")
	// ErrBehind says that the follower does not know that it is up to date.
	ErrBehind = errors.New("follower is behind")
	// ErrStopped says that the follower has ended.
	ErrStopped = errors.New("follower has stopped")
)
