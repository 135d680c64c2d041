package lease

import (
	"context"
	"time"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/leasedb"
)

// held is a lease that this process has to do with, from the claim until the row is released and the callbacks are
// done. Guarded by Engine.mu.
type held struct {
	hold
	claimed shard.Epoch // with which it began
	gen     uint64
	calls   context.CancelFunc // ends the callback that runs
	active  bool               // a callback runs
	// revoked: the lease is to be released, or was lost; nothing is valid any more.
	revoked bool
	// release: the row is still ours and is to be given away once revoked.
	release bool
	// deadline is when a lease that is being given away is taken from a callback that does not return.
	deadline time.Duration
}

// connect opens the session over which everything is seen. What was seen over an earlier one counts no more.
func (e *Engine) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, e.timing.Valid/2)
	defer cancel()
	conn, err := e.db.Connect(ctx)
	if err != nil {
		return err
	}
	e.conn, e.watch = conn, newWatch()
	return nil
}

func (e *Engine) disconnect() {
	if e.conn != nil {
		e.conn.Close()
	}
	e.conn, e.watch = nil, newWatch()
}

func (e *Engine) run(ctx context.Context) {
	defer e.disconnect()
	tick := time.NewTicker(e.timing.Poll)
	defer tick.Stop()
	var told <-chan struct{}
	if e.cfg.Hint != nil {
		told = e.cfg.Hint.Told()
	}
	for {
		e.step(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-e.wake:
		case <-told:
		}
	}
}

// step looks once and does what follows from it.
func (e *Engine) step(ctx context.Context) {
	now := e.renewer.clock()
	e.lapse()
	e.overdue(now)
	if err := e.look(ctx); err != nil {
		if ctx.Err() == nil {
			e.log.Warn("cannot see the leases", "error", err)
		}
		e.disconnect()
	} else {
		for _, role := range e.names {
			e.act(ctx, role)
		}
		e.releaseAll(ctx)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	counts := make(map[string]int, len(e.names))
	for k := range e.holds {
		counts[k.Role]++
	}
	for _, role := range e.names {
		e.metrics.held.WithLabelValues(role).Set(float64(counts[role]))
	}
	if e.drain && len(e.holds) == 0 && !e.closed {
		e.closed = true
		close(e.drained)
	}
}

// lapse ends the leases whose term has ended. It needs no database.
func (e *Engine) lapse() {
	t := e.renewer.term.Load()
	now := e.renewer.clock()
	e.mu.Lock()
	defer e.mu.Unlock()
	for k, h := range e.holds {
		if h.lapsed || h.revoked || (t.gen == h.gen && t.live(now)) {
			continue
		}
		e.lose(k, h)
	}
}

// overdue takes leases from callbacks that do not return, once they are being given away.
func (e *Engine) overdue(now time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for k, h := range e.holds {
		if h.phase == closing && h.release && !h.revoked && now >= h.deadline {
			e.log.Error("lease is not let go of in time", "lease", k.String())
			e.revoke(k, h)
		}
	}
}

func (e *Engine) look(ctx context.Context) error {
	if e.conn == nil {
		if err := e.connect(ctx); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, e.timing.Valid/2)
	defer cancel()
	sent := e.renewer.clock()
	snap, err := e.conn.Observe(ctx, e.names)
	if err != nil {
		return err
	}
	arrived := e.renewer.clock()
	e.watch.look(snap, sent, arrived)
	e.looked.Store(int64(arrived))
	return nil
}

// act does what the plan for a role says.
func (e *Engine) act(ctx context.Context, role string) {
	r := e.roles[role]
	now := e.renewer.clock()
	var session leasedb.Session
	if r.Session != nil {
		session = r.Session()
	}
	e.mu.Lock()
	p := decide(e.state(role, now))
	for _, k := range p.lost {
		if h := e.holds[k]; h != nil && !h.revoked && !h.lapsed {
			e.lose(k, h)
		}
	}
	for _, k := range p.give {
		e.give(k)
	}
	for _, row := range p.moved {
		e.move(row.Key, row.Epoch)
	}
	e.mu.Unlock()

	for _, row := range p.leave {
		e.release(ctx, row.Key, row.Epoch)
	}
	for _, row := range p.claim {
		if !e.claim(ctx, r, row, session) {
			break
		}
	}
	for _, boot := range p.late {
		e.shunned[boot] = now + shunnedFor
	}
}

// state is what decide is to judge. Under mu.
func (e *Engine) state(role string, now time.Duration) state {
	s := state{
		me: e.renewer.Boot().String(), role: role, timing: e.timing, watch: e.watch, live: e.renewer.Live(), drain: e.drain,
		holds: make(map[leasedb.Key]hold, len(e.holds)), blocked: map[leasedb.Key]bool{}, shunned: map[string]bool{},
	}
	for k, h := range e.holds {
		s.holds[k] = h.hold
	}
	for k, until := range e.blocked {
		if s.blocked[k] = now < until; !s.blocked[k] {
			delete(e.blocked, k)
		}
	}
	for b, until := range e.shunned {
		if s.shunned[b] = now < until; !s.shunned[b] {
			delete(e.shunned, b)
		}
	}
	return s
}

// claim takes a lease and begins to open it; false if the session is broken.
func (e *Engine) claim(ctx context.Context, r *Role, row leasedb.Row, s leasedb.Session) bool {
	if e.conn == nil || e.conn.Closed() {
		return false
	}
	// What is claimed is valid for as long as the renewals before the claim go on without a lapse.
	t := e.renewer.term.Load()
	if !t.live(e.renewer.clock()) {
		return false
	}
	me := e.renewer.Boot().String()
	cctx, cancel := context.WithTimeout(ctx, e.timing.Valid/2)
	defer cancel()
	epoch, ok, err := e.conn.Claim(cctx, row, me, s, r.Address)
	if err != nil {
		e.log.Warn("cannot claim a lease", "lease", row.Key.String(), "error", err)
		return !e.conn.Closed()
	}
	if !ok {
		return true // somebody was faster, or holds it locked; the next look tells
	}
	e.log.Info("lease taken", "lease", row.Key.String(), "epoch", int64(epoch), "from", row.Holder)
	e.metrics.changes.WithLabelValues(r.Name, "taken").Inc()
	e.mu.Lock()
	h := &held{hold: hold{epoch: epoch, phase: opening}, claimed: epoch, gen: t.gen}
	e.holds[row.Key] = h
	e.grants[row.Key].Store(&grant{epoch: epoch, gen: t.gen})
	e.call(h, 0, func(ctx context.Context) {
		err := r.Owner.Opened(ctx, row.Slot, epoch)
		e.opened(row.Key, h, err)
	})
	e.mu.Unlock()
	e.tell()
	return true
}

// call runs a callback of a lease in a goroutine. Under mu; f clears active when the callback has returned.
func (e *Engine) call(h *held, limit time.Duration, f func(ctx context.Context)) {
	h.active = e.tasks.Go(func(ctx context.Context) {
		var cancel context.CancelFunc
		if limit > 0 {
			ctx, cancel = context.WithTimeout(ctx, limit)
		} else {
			ctx, cancel = context.WithCancel(ctx)
		}
		defer cancel()
		e.mu.Lock()
		h.calls = cancel
		if h.phase == opening && h.lapsed {
			cancel()
		}
		e.mu.Unlock()
		f(ctx)
		e.Wake()
	})
}

// opened takes in what became of Opened.
func (e *Engine) opened(k leasedb.Key, h *held, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	h.active = false
	if err != nil {
		if !h.lapsed {
			e.log.Error("lease could not be opened", "lease", k.String(), "error", err)
			e.metrics.changes.WithLabelValues(k.Role, "refused").Inc()
			e.blocked[k] = e.renewer.clock() + blockedFor
		}
		h.phase, h.release = closing, h.release || !h.lapsed
		e.revoke(k, h)
		return
	}
	h.phase = open
	if h.lapsed {
		e.close(k, h)
	}
}

// lose ends a lease that is ours no longer. Under mu.
func (e *Engine) lose(k leasedb.Key, h *held) {
	e.log.Warn("lease lost", "lease", k.String(), "epoch", int64(h.epoch))
	e.metrics.changes.WithLabelValues(k.Role, "lost").Inc()
	// The row may still be ours although we believe in it no longer; a worker that leaves gives it away all the same.
	h.lapsed, h.release = true, e.drain
	e.grants[k].Store(nil)
	switch h.phase {
	case opening:
		if h.calls != nil {
			h.calls()
		}
	case open:
		e.close(k, h)
	case closing:
		e.revoke(k, h)
	}
}

// move goes on with a lease under a later epoch. Under mu.
func (e *Engine) move(k leasedb.Key, to shard.Epoch) {
	h := e.holds[k]
	if h == nil || h.lapsed || h.revoked || h.epoch >= to {
		return
	}
	h.epoch = to
	// The generation stays: it is as good as when the lease was claimed, since the row has been ours ever since.
	e.grants[k].Store(&grant{epoch: to, gen: h.gen})
}

// give begins to give a lease away. Under mu.
func (e *Engine) give(k leasedb.Key) {
	h := e.holds[k]
	if h == nil || h.phase != open {
		return
	}
	busy := 0
	for o, h := range e.holds {
		if o.Role == k.Role && h.phase == closing {
			busy++
		}
	}
	if busy >= e.cfg.Width {
		return // its turn comes when another is done
	}
	h.release = true
	e.close(k, h)
}

// close calls Closing. Under mu.
func (e *Engine) close(k leasedb.Key, h *held) {
	h.phase, h.deadline = closing, e.renewer.clock()+e.cfg.CloseTimeout
	owner := e.roles[k.Role].Owner
	e.call(h, e.cfg.CloseTimeout, func(ctx context.Context) {
		owner.Closing(ctx, k.Slot)
		e.mu.Lock()
		defer e.mu.Unlock()
		h.active = false
		e.revoke(k, h)
	})
}

// revoke makes a lease invalid for good; the loop releases its row, or forgets it. Under mu.
func (e *Engine) revoke(k leasedb.Key, h *held) {
	e.grants[k].Store(nil)
	h.revoked = true
	if h.phase == closing && !h.active && !h.release && e.holds[k] == h {
		delete(e.holds, k)
	}
}

// releaseAll gives the rows away of the leases that are done with.
func (e *Engine) releaseAll(ctx context.Context) {
	type due struct {
		k     leasedb.Key
		h     *held
		epoch shard.Epoch
	}
	var todo []due
	e.mu.Lock()
	for k, h := range e.holds {
		if h.revoked && h.release {
			todo = append(todo, due{k, h, h.epoch})
		}
	}
	e.mu.Unlock()
	for _, d := range todo {
		if !e.release(ctx, d.k, d.epoch) {
			continue // the next step tries again
		}
		e.mu.Lock()
		d.h.release = false
		e.revoke(d.k, d.h)
		e.mu.Unlock()
	}
}

// release gives a row away, if it is still ours; false if that is not known.
func (e *Engine) release(ctx context.Context, k leasedb.Key, epoch shard.Epoch) bool {
	if e.conn == nil || e.conn.Closed() {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, e.timing.Valid/2)
	defer cancel()
	ok, err := e.conn.Release(ctx, k, e.renewer.Boot().String(), epoch)
	if err != nil {
		e.log.Warn("cannot release a lease", "lease", k.String(), "error", err)
		return false
	}
	if ok {
		e.log.Info("lease given away", "lease", k.String(), "epoch", int64(epoch))
		e.metrics.changes.WithLabelValues(k.Role, "given").Inc()
		e.tell()
	}
	return true
}

func (e *Engine) tell() {
	if e.cfg.Hint != nil {
		e.cfg.Hint.Tell()
	}
}
