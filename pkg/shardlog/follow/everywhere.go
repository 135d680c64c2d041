package follow

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/heddle-im/heddle/pkg/infra/bus"
	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// Everywhere waits until all workers have applied the log, for the few changes that must hold on every one of them once they are answered. A
// worker that hears the question answers when its follower is there. It is a lifecycle service.
type Everywhere struct {
	o     EverywhereOptions
	inbox string // the subject of answers to this process
	tasks *lifecycle.Tasks
	subs  []*bus.Subscription

	mu     sync.Mutex // guards what follows
	n      uint64
	asking map[uint64]*asking
}

// Applied tells how far this worker has applied the log. *Follower does.
type Applied interface {
	WaitFor(ctx context.Context, s shard.ID, pos shard.Pos) error
}

// EverywhereOptions are what an Everywhere needs. Log may be nil.
type EverywhereOptions struct {
	Bus *bus.Bus
	// Self is the name of this worker, and Live gives those of all who live.
	Self string
	Live func() []string
	// Heads is asked how far the log reaches.
	Heads   *Index
	Applied Applied
	// Patience bounds how long a worker is waited for. Default 500 ms.
	Patience time.Duration
	Log      *slog.Logger
}

// The subjects of questions and of answers; what is sent by them may be lost.
const (
	subjectApplied = "applied.ask"
	prefixAnswers  = "applied.answer."
)

// maxAsked bounds the questions of others that are waited on here at a time; beyond, they go unanswered.
const maxAsked = 1000

// question asks for an answer once a shard is applied up to a position.
type question struct {
	Inbox    string    `json:"inbox"`
	Number   uint64    `json:"number"`
	Shard    shard.ID  `json:"shard"`
	Position shard.Pos `json:"position"`
}

type applied struct {
	Number uint64 `json:"number"`
	By     string `json:"by"`
}

// asking is a question that is waited on: done is closed when all of those who are missing have answered.
type asking struct {
	missing map[string]bool
	done    chan struct{}
}

func (a *asking) heard(by string) {
	if !a.missing[by] {
		return
	}
	if delete(a.missing, by); len(a.missing) == 0 {
		close(a.done)
	}
}

// NewEverywhere makes one; its work carries the values of ctx.
func NewEverywhere(ctx context.Context, o EverywhereOptions) *Everywhere {
	if o.Patience == 0 {
		o.Patience = 500 * time.Millisecond
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Everywhere{o: o, inbox: prefixAnswers + rand.Text(), tasks: lifecycle.NewTasks(ctx), asking: make(map[uint64]*asking)}
}

// Start implements lifecycle.Service.
func (e *Everywhere) Start(ctx context.Context) error {
	waiting := make(chan struct{}, maxAsked)
	for subject, handle := range map[string]func(*bus.Incoming){
		subjectApplied: func(in *bus.Incoming) {
			var q question
			if err := json.Unmarshal(in.Data, &q); err != nil || q.Inbox == e.inbox {
				return
			}
			select {
			case waiting <- struct{}{}:
			default:
				return
			}
			if !e.tasks.Go(func(ctx context.Context) {
				defer func() { <-waiting }()
				e.answer(ctx, &q)
			}) {
				<-waiting
			}
		},
		e.inbox: func(in *bus.Incoming) {
			var a applied
			if json.Unmarshal(in.Data, &a) == nil {
				e.heard(&a)
			}
		},
	} {
		sub, err := e.o.Bus.Subscribe(ctx, subject, handle)
		if err != nil {
			return fmt.Errorf("subscribe to %s: %w", subject, err)
		}
		e.subs = append(e.subs, sub)
	}
	return nil
}

// Stop implements lifecycle.Service.
func (e *Everywhere) Stop(ctx context.Context) error {
	for _, s := range e.subs {
		s.Stop()
	}
	return e.tasks.StopWithin(ctx)
}

func (e *Everywhere) answer(ctx context.Context, q *question) {
	ctx, cancel := context.WithTimeout(ctx, e.o.Patience)
	defer cancel()
	if e.o.Applied.WaitFor(ctx, q.Shard, q.Position) != nil {
		return
	}
	if b, err := json.Marshal(applied{q.Number, e.o.Self}); err == nil {
		_ = e.o.Bus.Publish(bus.Message{Subject: q.Inbox, Data: b}) // who is not answered does not wait for long
	}
}

func (e *Everywhere) heard(a *applied) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if x := e.asking[a.Number]; x != nil {
		x.heard(a.By)
	}
}

// Await returns when everything that is committed of a shard is applied by every live worker, or when that has taken too long: a worker that does
// not answer, or cannot be asked, hears of it by itself within the second in which it reads the heads. It tells whether all have answered.
func (e *Everywhere) Await(ctx context.Context, s shard.ID) bool {
	ctx, cancel := context.WithTimeout(ctx, e.o.Patience)
	defer cancel()
	heads, err := e.o.Heads.Heads(ctx)
	if err != nil || int(s) >= len(heads.Positions) {
		return false
	}
	x := &asking{missing: make(map[string]bool), done: make(chan struct{})}
	for _, w := range e.o.Live() {
		x.missing[w] = true
	}
	x.missing[e.o.Self] = true
	e.mu.Lock()
	e.n++
	number := e.n
	e.asking[number] = x
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.asking, number)
	}()
	if len(x.missing) > 1 {
		b, err := json.Marshal(question{e.inbox, number, s, heads.Positions[s]})
		if err == nil {
			err = e.o.Bus.Publish(bus.Message{Subject: subjectApplied, Data: b})
		}
		if err != nil {
			e.o.Log.Debug("other workers cannot be asked how far they are", "error", err)
			_ = e.o.Applied.WaitFor(ctx, s, heads.Positions[s])
			return false
		}
	}
	if e.o.Applied.WaitFor(ctx, s, heads.Positions[s]) != nil {
		return false
	}
	e.heard(&applied{number, e.o.Self})
	select {
	case <-x.done:
		return true
	case <-ctx.Done():
		e.o.Log.Debug("a worker does not say how far it is", "shard", s)
		return false
	}
}
