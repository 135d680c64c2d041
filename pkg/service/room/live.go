package room

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/trace"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/eventauth"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/matrix/stateres"
	"github.com/heddle-im/heddle/pkg/shardlog/commit"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// live is a room in memory: the actor. Commands on it are decided one after another under mu, each on the head that the one before it
// made, whether that is committed or not. When a proposal fails the room is gone: it is never repaired, but loaded anew.
//
// Invariants: head is what the proposals submitted on chain make, in order; cached agrees with head's state; nothing is
// submitted on chain once gone is set, or after a room of the same id was loaded.
type live struct {
	term  *term
	nid   shard.Nid
	id    id.RoomID
	rules *roomver.Rules
	chain *entry.Chain
	used  atomic.Int64 // the host's clock when it was last used
	using atomic.Int32 // commands that hold it at the moment: it is not evicted under them

	mu   sync.Mutex // guards all below; no I/O under it
	gone bool
	// last is the ticket of the latest proposal, nil if there was none since the room was loaded; pending are those that may not be
	// decided, it among them.
	last    *commit.Ticket
	pending []*commit.Ticket
	head    head
	// cached are the state events that were needed so far, by name; nil says that the state has none there.
	cached map[eventauth.TypeKey]*held
	// receipts are the receipts of users who moved one, as they will be when all is committed.
	receipts map[id.UserID][]roomdb.ReceiptRow
	recent   recent
	kin      kin
	// audience is who hears the room, nil until the first event since it was loaded; hearing grows when what was read of it before is void.
	audience *audience
	hearing  uint64
	// graph resolves forks; nil until there was one.
	graph *stateres.Graph
	// joinAt is when this server joins the forward extremities, of which there are many, if nobody has done so by then, in ms; 0: it need not.
	joinAt int64
	// redacted are events whose redaction may not be committed: what is read of them is not what they are.
	redacted []shard.Nid
	size     int64 // about how many bytes it all takes
	charged  int64 // of size, what the budget knows
}

// head is where a room stands: everything that the next event is built on. It is changed by being replaced.
type head struct {
	state stateres.State // the current state: of several tips, what their states resolve to
	snaps snapshots      // what the next stored state may be laid over
	tips  []tip          // the forward extremities, the deepest first
}

// depth is that of the deepest tip.
func (h *head) depth() int64 {
	if len(h.tips) == 0 {
		return 0
	}
	return h.tips[0].depth
}

// tip is a forward extremity.
type tip struct {
	nid   shard.Nid
	id    id.EventID
	depth int64
	hash  event.Hash // in room versions whose links have hashes
	snaps snapshots  // the state after it
}

// held is a state event in memory.
type held struct {
	nid  shard.Nid
	ev   *event.Event // redacted, if it has been
	red  *eventauth.Reduced
	auth []shard.Nid
	// rejected: it is known, and of no effect.
	rejected bool
}

func (h *held) size() int64 { return 512 + 2*int64(h.ev.Size()) }

// The sizes of what a room holds beside its events.
const (
	sizeRoom    = 4096
	sizeState   = 30 // an entry
	sizeAbsent  = 128
	sizeReceipt = 256
)

func (t *term) newLive(nid shard.Nid, room id.RoomID, rules *roomver.Rules) *live {
	return &live{
		term: t, nid: nid, id: room, rules: rules, chain: &entry.Chain{}, cached: map[eventauth.TypeKey]*held{},
		receipts: map[id.UserID][]roomdb.ReceiptRow{}, size: sizeRoom,
	}
}

// roomCommand is a command that is decided on a room's state.
type roomCommand interface {
	Command
	room() id.RoomID
	// decide computes from what the view shows what is to be done. It has no effect, and may be called any number of times. What
	// it asks of the view and the view does not have is loaded, and then it is called again.
	decide(v *view) (plan, error)
	// more is how often beyond maxLoads it may ask for more.
	more() int
}

// maxLoads bounds how often a decision may ask for more.
const maxLoads = 16

// onRoom decides a command on a room and submits what it makes.
func (t *term) onRoom(ctx context.Context, key []byte, c roomCommand) (work, error) {
	facts := map[fact]any{}
	// kept stays in memory from one try to the next, so that what was loaded for a decision is there when it is made.
	var kept *live
	release := func() {
		if kept != nil {
			kept.using.Add(-1)
			kept = nil
		}
	}
	defer release()
	for loads := 0; ; {
		r, err := t.room(ctx, c.room())
		if err != nil {
			return work{}, err
		}
		release()
		w, need, err := r.try(ctx, key, c, facts)
		if need != nil {
			if loads++; loads > maxLoads+c.more() {
				err = errors.New("asks for ever more")
			} else if err = r.load(ctx, need, facts); err == nil {
				err = errRedo
				r.using.Add(1)
				kept = r
			}
		}
		r.using.Add(-1)
		r.charge()
		switch {
		case errors.Is(err, errRedo):
			continue
		case err != nil && !refused(err):
			return work{}, fmt.Errorf("%s: %w", c.Method(), err)
		case w.ticket != nil:
			return w, nil
		}
		// Nothing is to be committed. But what was decided may rest on what is not committed yet.
		_, settled := w.finish(ctx)
		switch {
		case errors.Is(settled, errRedo):
			continue
		case settled != nil:
			return work{}, settled
		}
		return work{answer: w.answer}, err
	}
}

func refused(err error) bool {
	var e *mxerr.Error
	return errors.As(err, &e)
}

// try decides a command once, under the room's lock.
func (r *live) try(ctx context.Context, key []byte, c roomCommand, facts map[fact]any) (w work, need *needs, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone {
		return w, nil, errRedo
	}
	r.used.Store(r.term.host.clock.Add(1))
	d := newDraft(r, facts)
	p, err := c.decide(&d.view)
	if err == nil && !d.view.lacks() {
		err = d.realise(c, &p)
	}
	if d.view.lacks() {
		return w, &d.view.needs, nil
	}
	switch {
	case err != nil && !refused(err):
		return w, nil, err
	case err != nil:
		return work{finish: r.settle(r.last, nil)}, nil, err
	case d.empty():
		return work{answer: p.answer, finish: r.settle(r.last, p.after)}, nil, nil
	}
	w.answer = d.answer(&p)
	prop := &entry.Proposal{
		Shard: r.term.shard, Epoch: r.term.epoch, Chain: r.chain, Key: key, Result: encodeAnswer(w.answer),
		Entries: d.entries, Rows: d.rows, Room: d.room, Trace: trace.SpanContextFromContext(ctx),
	}
	w.ticket = r.term.host.Committer.Submit(prop)
	r.adopt(d, w.ticket)
	w.finish = func(ctx context.Context) (Answer, error) { return r.finish(ctx, w.ticket, d, w.answer, p.after) }
	return w, nil, nil
}

// adopt makes a submitted draft the room's head. mu is held.
func (r *live) adopt(d *draft, ticket *commit.Ticket) {
	r.size += int64(d.head.state.Len()-r.head.state.Len()) * sizeState
	r.head, r.last = d.head, ticket
	if r.pending = undecided(r.pending); len(r.pending) == 0 {
		r.redacted = nil
	}
	r.pending = append(r.pending, ticket)
	r.redacted = append(r.redacted, d.redacted...)
	for k, h := range d.over {
		r.put(k, h)
	}
	r.adoptKin(d)
	r.adoptCounts(d)
	for user, rows := range d.receipts {
		if _, ok := r.receipts[user]; !ok {
			r.size += sizeReceipt
		}
		r.receipts[user] = rows
	}
}

// put remembers a state event. mu is held.
func (r *live) put(k eventauth.TypeKey, h *held) {
	if old, ok := r.cached[k]; ok {
		r.size -= sizeAbsent
		if old != nil {
			r.size -= old.size()
		}
	}
	r.cached[k] = h
	r.size += sizeAbsent
	if h != nil {
		r.size += h.size()
	}
}

// settle gives the wait for what a decision without effect on the log rests on.
func (r *live) settle(base *commit.Ticket, after func(*live)) func(context.Context) (Answer, error) {
	return func(ctx context.Context) (Answer, error) {
		if base != nil {
			out, err := base.Wait(ctx)
			switch {
			case err == nil && !out.Repeated:
			case err != nil && isContext(err):
				return Answer{}, err
			case err != nil && lost(err):
				return Answer{}, r.term.lose(err)
			default:
				r.term.drop(r)
				return Answer{}, errRedo
			}
		}
		if after != nil {
			after(r)
		}
		return Answer{}, nil
	}
}

// finish does what is to be done once a proposal's outcome is known.
func (r *live) finish(ctx context.Context, ticket *commit.Ticket, d *draft, a Answer, after func(*live)) (Answer, error) {
	out, err := ticket.Wait(context.WithoutCancel(ctx)) // it is decided
	switch {
	case err == nil && !out.Repeated:
		r.term.atoms.committed(d.fresh)
		r.mu.Lock()
		for i, e := range d.made {
			r.recent.add(e, out.First+shard.Pos(i))
		}
		r.mu.Unlock()
		r.charge()
		if after != nil {
			after(r)
		}
		return a, nil
	case err == nil:
		r.term.drop(r)
		return decodeAnswer(out.Result)
	case lost(err):
		r.term.drop(r)
		return Answer{}, r.term.lose(err)
	case errors.Is(err, commit.ErrChain):
		r.term.drop(r)
		return Answer{}, errRedo
	}
	r.term.drop(r)
	return Answer{}, commitError(err)
}

// charge tells the budget what the room takes. It may evict rooms, this one too.
func (r *live) charge() {
	r.mu.Lock()
	more := r.size - r.charged
	if r.gone {
		more = 0
	}
	// Small changes are told together.
	if more > -sizeRoom && more < sizeRoom && r.charged > 0 {
		more = 0
	}
	r.charged += more
	r.mu.Unlock()
	switch {
	case more > 0:
		r.term.host.account.Charge(more)
	case more < 0:
		r.term.host.account.Release(-more)
	}
}

// retire makes the room gone, and gives back what it was charged. mu is held.
func (r *live) retire() int64 {
	if r.gone {
		return 0
	}
	r.gone = true
	freed := r.charged
	r.charged = 0
	r.term.host.account.Release(freed)
	return freed
}

// evict lets the room go if nothing of it is under way.
func (r *live) evict() int64 {
	if !r.mu.TryLock() {
		return 0
	}
	r.pending = undecided(r.pending)
	idle := len(r.pending) == 0 && r.using.Load() == 0
	var freed int64
	if idle {
		freed = r.retire()
	}
	r.mu.Unlock()
	if idle {
		r.term.remove(r)
	}
	return freed
}

// drop lets a room go whose head is not to be trusted. The next command loads it anew, once all that was submitted is decided.
func (t *term) drop(r *live) {
	r.chain.Break()
	r.mu.Lock()
	r.retire()
	pending := undecided(r.pending)
	r.pending = nil
	r.mu.Unlock()
	if len(pending) > 0 {
		t.mu.Lock()
		t.leftover[r.id] = append(t.leftover[r.id], pending...)
		t.mu.Unlock()
	}
	t.remove(r)
}

// undecided leaves out the tickets at the front whose outcome is known.
func undecided(list []*commit.Ticket) []*commit.Ticket {
	for len(list) > 0 {
		select {
		case <-list[0].Done():
			list = list[1:]
		default:
			return list
		}
	}
	return nil
}

func (t *term) remove(r *live) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.rooms[r.id]
	if s == nil {
		return
	}
	select {
	case <-s.ready:
		if s.room == r {
			delete(t.rooms, r.id)
		}
	default:
	}
}

// loaded appends the rooms that are in memory.
func (t *term) loaded(list []*live) []*live {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.rooms {
		select {
		case <-s.ready:
			if s.room != nil {
				list = append(list, s.room)
			}
		default:
		}
	}
	return list
}

// forgetAll lets all rooms go.
func (t *term) forgetAll() {
	for _, r := range t.loaded(nil) {
		t.drop(r)
	}
}
