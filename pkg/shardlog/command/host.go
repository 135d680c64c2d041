package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/trace"

	"github.com/heddle-im/heddle/pkg/infra/turns"
	"github.com/heddle-im/heddle/pkg/shardlog/commit"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// ErrNotOwner says that this worker does not hold the shard (any more): ask the one that does, with the same key.
var ErrNotOwner = errors.New("shard is not held here")

// Committer takes proposals. It is *commit.Committer.
type Committer interface {
	Submit(p *entry.Proposal) *commit.Ticket
}

// Owners tells whether this worker holds a shard, and since which epoch.
type Owners interface {
	Epoch(s shard.ID) (shard.Epoch, bool)
}

// Done tells what an idempotency key's command was answered, if it was done.
type Done interface {
	Done(ctx context.Context, s shard.ID, key []byte) (result []byte, ok bool, err error)
}

// Options are what a Host needs.
type Options struct {
	Owners    Owners
	Committer Committer
	Done      Done
}

// Host does commands that are answered by an A, on the shards that this worker holds.
type Host[A any] struct {
	Options
	turns *turns.Turns
}

// NewHost makes a Host.
func NewHost[A any](o Options) *Host[A] { return &Host[A]{Options: o, turns: turns.New()} }

// Request is a command to be done.
type Request struct {
	Name  string
	Shard shard.ID
	// Key makes repeats of the command known; nil: each is done.
	Key []byte
	// Turns are names of what the command decides by: of commands that share one, each sees what the one before it has done.
	Turns []string
}

// Change is what was decided: log entries, rows, and what to answer. Without entries and rows nothing is committed.
type Change[A any] struct {
	Entries []entry.Entry
	Rows    []entry.Row
	Answer  A
}

// Do does a command. Decide reads what is stored and decides by it; it is asked again when another's failure took its turn along. What it
// refuses with is passed on.
func (h *Host[A]) Do(ctx context.Context, r Request, decide func(context.Context) (Change[A], error)) (A, error) {
	var none A
	leave, err := h.turns.EnterAll(ctx, r.Turns)
	if err != nil {
		return none, fmt.Errorf("%s: %w", r.Name, err)
	}
	defer leave()
	for {
		a, err := h.try(ctx, &r, decide)
		switch {
		case errors.Is(err, commit.ErrChain): // somebody else's failure: ours was not tried
			continue
		case errors.Is(err, commit.ErrFenced):
			return none, ErrNotOwner
		case err != nil:
			return none, fmt.Errorf("%s: %w", r.Name, err)
		}
		return a, nil
	}
}

func (h *Host[A]) try(ctx context.Context, r *Request, decide func(context.Context) (Change[A], error)) (none A, _ error) {
	epoch, ok := h.Owners.Epoch(r.Shard)
	if !ok {
		return none, ErrNotOwner
	}
	if r.Key != nil {
		// A repeat must find its answer before it is judged: its own effect would be held against it.
		result, done, err := h.Done.Done(ctx, r.Shard, r.Key)
		if err != nil {
			return none, err
		}
		if done {
			return decodeAnswer[A](result)
		}
	}
	c, err := decide(ctx)
	if err != nil {
		return none, err
	}
	if len(c.Rows) == 0 && len(c.Entries) == 0 {
		if now, still := h.Owners.Epoch(r.Shard); !still || now != epoch { // what was read may have been overtaken
			return none, ErrNotOwner
		}
		return c.Answer, nil
	}
	result, err := json.Marshal(c.Answer)
	if err != nil {
		return none, err
	}
	out, err := h.Committer.Submit(&entry.Proposal{
		Shard: r.Shard, Epoch: epoch, Key: r.Key, Result: result, Entries: c.Entries, Rows: c.Rows,
		Trace: trace.SpanContextFromContext(ctx),
	}).Wait(ctx)
	if err != nil {
		return none, err
	}
	if out.Repeated {
		return decodeAnswer[A](out.Result)
	}
	return c.Answer, nil
}

func decodeAnswer[A any](b []byte) (a A, err error) {
	if len(b) == 0 {
		return a, nil
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return a, fmt.Errorf("decode stored answer: %w", err)
	}
	return a, nil
}
