package e2ee

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/heddle-im/heddle/pkg/infra/turns"
	"github.com/heddle-im/heddle/pkg/shardlog/commit"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
	"github.com/heddle-im/heddle/pkg/store/e2eedb"
)

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

// ErrNotOwner says that this worker does not hold the shard: ask the one that does.
var ErrNotOwner = errors.New("shard is not held here")

// HostOptions are what a Host needs.
type HostOptions struct {
	Shards    shard.Map
	Owners    Owners
	Committer Committer
	DB        *e2eedb.Reader
	Done      Done
	Now       func() time.Time
}

// Host does commands on the shards that this worker holds.
type Host struct {
	HostOptions
	turns *turns.Turns
	n     atomic.Uint64
}

// NewHost makes a Host.
func NewHost(o HostOptions) *Host { return &Host{HostOptions: o, turns: turns.New()} }

// change is what a command decided: log entries, rows, and what to answer.
type change struct {
	entries []entry.Entry
	rows    []entry.Row
	answer  Answer
}

// listChanged notes that what others see of a user's devices and keys changed.
func (c *change) listChanged(user string, body *entry.DeviceListBody) error {
	e, err := entry.DeviceList(user, body)
	if err != nil {
		return err
	}
	c.rows = append(c.rows, &accountdb.DeviceList{UserID: user, Entry: len(c.entries)})
	c.entries = append(c.entries, e)
	return nil
}

// Do does a command on a shard that this worker holds. The same key has its effect once. A refusal is an *mxerr.Error.
func (h *Host) Do(ctx context.Context, key []byte, cmd Command) (Answer, error) {
	leave, err := h.turns.EnterAll(ctx, users(cmd))
	if err != nil {
		return Answer{}, fmt.Errorf("%s: %w", cmd.Method(), err)
	}
	defer leave()
	for {
		a, err := h.try(ctx, cmd.Shard(h.Shards), key, cmd)
		if errors.Is(err, commit.ErrChain) { // somebody else's failure: ours was not tried
			continue
		}
		if err != nil && !errors.Is(err, ErrNotOwner) {
			err = fmt.Errorf("%s: %w", cmd.Method(), err)
		}
		return a, err
	}
}

// users gives whose turn a command needs: nobody's, if it does not decide by what is stored.
func users(cmd Command) []string {
	switch c := cmd.(type) {
	case *UploadKeys:
		return []string{c.UserID}
	case *PutCrossSigning:
		return []string{c.UserID}
	case *PutSignatures:
		return []string{c.UserID}
	case *Dehydrate:
		return []string{c.UserID}
	case *Rehydrated:
		return []string{c.UserID}
	case *PutBackup:
		return []string{c.UserID}
	case *DeleteBackup:
		return []string{c.UserID}
	case *BackUp:
		return []string{c.UserID}
	case *DropBackedUp:
		return []string{c.UserID}
	case *Claim:
		list := make([]string, len(c.Wanted))
		for i, w := range c.Wanted {
			list[i] = w.UserID
		}
		return list
	}
	return nil
}

func (h *Host) try(ctx context.Context, s shard.ID, key []byte, cmd Command) (Answer, error) {
	epoch, ok := h.Owners.Epoch(s)
	if !ok {
		return Answer{}, ErrNotOwner
	}
	if key != nil {
		// A repeat must find its answer before it is judged: its own effect would be held against it.
		if result, ok, err := h.Done.Done(ctx, s, key); err != nil {
			return Answer{}, err
		} else if ok {
			return decodeAnswer(result)
		}
	}
	c, err := h.decide(ctx, s, cmd)
	if err != nil {
		return Answer{}, err
	}
	if len(c.rows) == 0 && len(c.entries) == 0 {
		if _, still := h.Owners.Epoch(s); !still { // what we read may have been overtaken
			return Answer{}, ErrNotOwner
		}
		return c.answer, nil
	}
	result, err := json.Marshal(c.answer)
	if err != nil {
		return Answer{}, err
	}
	out, err := h.Committer.Submit(&entry.Proposal{
		Shard: s, Epoch: epoch, Key: key, Result: result, Entries: c.entries, Rows: c.rows,
		Trace: trace.SpanContextFromContext(ctx),
	}).Wait(ctx)
	switch {
	case errors.Is(err, commit.ErrFenced):
		return Answer{}, ErrNotOwner
	case err != nil:
		return Answer{}, err
	case out.Repeated:
		return decodeAnswer(out.Result)
	}
	return c.answer, nil
}

func decodeAnswer(b []byte) (Answer, error) {
	var a Answer
	if len(b) == 0 {
		return a, nil
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return a, fmt.Errorf("decode stored answer: %w", err)
	}
	return a, nil
}

func (h *Host) decide(ctx context.Context, s shard.ID, cmd Command) (change, error) {
	switch c := cmd.(type) {
	case *UploadKeys:
		return h.uploadKeys(ctx, s, c)
	case *Claim:
		return h.claim(ctx, s, c)
	case *PutCrossSigning:
		return h.putCrossSigning(ctx, c)
	case *PutSignatures:
		return h.putSignatures(ctx, c)
	case *SendToDevice:
		return h.sendToDevice(ctx, s, c)
	case *SendAway:
		return h.sendAway(c)
	case *ListsChanged:
		return h.listsChangedAbroad(c)
	case *Acknowledge:
		return h.acknowledge(c)
	case *NoteSeen:
		return h.noteSeen(c)
	case *Dehydrate:
		return h.dehydrate(ctx, s, c)
	case *Rehydrated:
		return h.rehydrated(ctx, s, c)
	case *PutBackup:
		return h.putBackup(ctx, s, c)
	case *DeleteBackup:
		return h.deleteBackup(ctx, s, c)
	case *BackUp:
		return h.backUp(ctx, s, c)
	case *DropBackedUp:
		return h.dropBackedUp(ctx, s, c)
	}
	return change{}, fmt.Errorf("unknown command %T", cmd)
}

// sampled is true for one in queueCheck messages, or for more where they are large.
func (h *Host) sampled(bytes int) bool {
	weight := 1 + uint64(bytes)/queueCheckBytes
	n := h.n.Add(weight)
	return n/queueCheck != (n-weight)/queueCheck
}
