package room

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/cache"
	"github.com/heddle-im/heddle/pkg/infra/telemetry"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/pushrule"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
	"github.com/heddle-im/heddle/pkg/shardlog/command"
	"github.com/heddle-im/heddle/pkg/shardlog/commit"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/feddb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// Committer takes proposals. It is *commit.Committer.
type Committer interface {
	Submit(p *entry.Proposal) *commit.Ticket
}

// Ephemeral tells the workers what is not committed. It must not block, and may be called by any goroutine.
type Ephemeral interface {
	PublishTyping(TypingUsers)
}

// TypingUsers says who types in a room, all of them. N grows within an epoch of the shard; what has an older pair is void, and with
// a new epoch nobody types.
type TypingUsers struct {
	Shard   shard.ID
	Epoch   shard.Epoch
	N       int64
	RoomNid shard.Nid
	Room    id.RoomID
	Users   []id.UserID
}

// Sets reads staged sets of events.
type Sets interface {
	SetPiece(ctx context.Context, set []byte, from, count int) ([]feddb.SetEvent, error)
	SetState(ctx context.Context, set []byte) ([]string, error)
}

// Options are what a Host needs. Metrics and Log may be nil.
type Options struct {
	Server    id.ServerName
	Shards    shard.Map
	Key       signing.Key // signs the events
	Committer Committer
	// DB reads the primary.
	DB *roomdb.Reader
	// Push reads the primary.
	Push PushReader
	// Preferences are those of this server's users; nil: nobody has any.
	Preferences Preferences
	Ephemeral   Ephemeral
	// Notices is the user whose invitations cannot be declined: who sends server notices, in rooms of that alone; empty: nobody.
	Notices id.UserID
	// Sets reads events that were staged for this. It is *feddb.DB.
	Sets   Sets
	Budget *cache.Budget
	Now    func() time.Time
	// Random makes event ids in room versions 1 and 2.
	Random  io.Reader
	Metrics *telemetry.Metrics
	Log     *slog.Logger
}

// Host does commands on the rooms of the shards that this process holds. It implements [Writer].
type Host struct {
	Options
	account *cache.Account
	metrics hostMetrics
	clock   atomic.Int64       // counts uses of rooms, to know the least recent
	rules   *pushrule.Compiled // as they are predefined, for nobody in particular

	mu    sync.RWMutex // guards terms; no I/O under it
	terms map[shard.ID]*term
}

// NewHost makes a Host that holds no shard.
func NewHost(o Options) *Host {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	h := &Host{
		Options: o, metrics: newHostMetrics(o.Metrics), terms: map[shard.ID]*term{},
		rules: pushrule.Compile(pushrule.Defaults(pushrule.Me)),
	}
	h.account = o.Budget.Account("rooms", h.evict)
	return h
}

// ErrOvertaken says that a shard was opened under a later epoch meanwhile.
var ErrOvertaken = errors.New("the shard is open under a later epoch")

// Open begins to do commands on a shard's rooms, under an epoch. The committer must have the shard open. If the shard is open
// under an earlier epoch it is closed first; under a later one it stays as it is, and the error is ErrOvertaken: who opens a shard
// anew because its epoch was raised may come after one who took it again.
func (h *Host) Open(ctx context.Context, s shard.ID, e shard.Epoch) error {
	for {
		if t := h.term(s); t != nil {
			if t.epoch > e {
				return fmt.Errorf("open shard %s under epoch %d: %w", s, e, ErrOvertaken)
			}
			if err := h.closeTerm(ctx, t); err != nil {
				return err
			}
		}
		seq, err := h.DB.MaxSeq(ctx)
		if err != nil {
			return fmt.Errorf("open shard %s: %w", s, err)
		}
		t := newTerm(h, s, e, seq)
		if h.begin(t) {
			return nil
		}
		t.typing.stop()
	}
}

// begin lets a term serve its shard if no other does.
func (h *Host) begin(t *term) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.terms[t.shard] != nil {
		return false
	}
	h.terms[t.shard] = t
	return true
}

func (h *Host) term(s shard.ID) *term {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.terms[s]
}

// Close stops taking commands for a shard, and returns when those that were begun are answered. Closing a shard that is not open
// does nothing.
func (h *Host) Close(ctx context.Context, s shard.ID) error {
	t := h.term(s)
	if t == nil {
		return nil
	}
	return h.closeTerm(ctx, t)
}

func (h *Host) closeTerm(ctx context.Context, t *term) error {
	drained := t.close()
	select {
	case <-drained:
	case <-ctx.Done():
		return fmt.Errorf("close shard %s: %w", t.shard, ctx.Err())
	}
	t.typing.stop()
	t.forgetAll()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.terms[t.shard] == t {
		delete(h.terms, t.shard)
	}
	return nil
}

// Do implements [Writer] for the shards that are open here.
func (h *Host) Do(ctx context.Context, key []byte, cmd Command) (Answer, error) {
	t := h.term(ShardOf(h.Shards, cmd))
	if t == nil || !t.enter() {
		return Answer{}, command.ErrNotOwner
	}
	defer t.leave()
	if key == nil {
		key = txnKey(cmd)
	}
	a, err := t.once(ctx, key, cmd)
	h.metrics.done(cmd, err)
	return a, err
}

// evict lets go of the rooms that were not used for longest, until about n bytes are free.
func (h *Host) evict(n int64) int64 {
	h.mu.RLock()
	var all []*live
	for _, t := range h.terms {
		all = t.loaded(all)
	}
	h.mu.RUnlock()
	slices.SortFunc(all, func(a, b *live) int { return int(a.used.Load() - b.used.Load()) })
	var freed int64
	for _, r := range all {
		if freed >= n {
			break
		}
		freed += r.evict()
	}
	return freed
}

// lost tells that the shard turned out not to be ours under the term's epoch.
func lost(err error) bool {
	return errors.Is(err, commit.ErrFenced) || errors.Is(err, commit.ErrClosed) || errors.Is(err, commit.ErrUnknownOutcome)
}
