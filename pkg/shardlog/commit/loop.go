package commit

import (
	"bytes"
	"cmp"
	"errors"
	"runtime"
	"slices"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// How long to wait before a batch is tried again, and before an unknown outcome is looked into again.
const (
	retryFirst = 20 * time.Millisecond
	retryMost  = time.Second
)

// commitLoop is the one goroutine that commits.
func (c *Committer) commitLoop() {
	defer close(c.outgoing)
	for {
		runtime.Gosched() // those who are about to submit come with this transaction
		group, stopped := c.take()
		if len(group) > 0 {
			c.commit(group)
			continue
		}
		if stopped {
			return
		}
		<-c.wake
	}
}

// take takes what fits into a transaction from the front of the queue.
func (c *Committer) take() (group []*pending, stopped bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	type key struct {
		shard shard.ID
		key   string
	}
	var keys map[key]bool
	rows, cost, n := 0, 0, 0
	for _, w := range c.queue {
		if w.decided {
			n++
			continue
		}
		p := w.proposal
		r := len(p.Rows) + len(p.Entries) + 1
		if len(group) > 0 && (rows+r > c.cfg.MaxRows || cost+w.cost > c.cfg.MaxBytes) {
			break
		}
		if p.Key != nil {
			// The same command twice: the second waits for the next transaction, where it finds the first one done.
			k := key{p.Shard, string(p.Key)}
			if keys[k] {
				break
			}
			if keys == nil {
				keys = map[key]bool{}
			}
			keys[k] = true
		}
		group = append(group, w)
		rows, cost, n = rows+r, cost+w.cost, n+1
	}
	c.queue = slices.Delete(c.queue, 0, n)
	c.metrics.queue.Set(float64(len(c.queue)))
	c.inFlight = group
	return group, c.stopped && len(c.queue) == 0
}

// commit commits a group, in parts if need be, until each of its proposals is decided.
func (c *Committer) commit(group []*pending) {
	began := time.Now()
	pause := retryFirst
	ctx, span := c.trace(group)
	defer span.End()
	for {
		var batches []Batch
		group, batches = c.build(group)
		if len(group) == 0 {
			return
		}
		at := time.Now()
		err := c.store.Commit(ctx, batches)
		c.metrics.commitSeconds.Observe(time.Since(at).Seconds())
		var fenced *FencedError
		var repeated *RepeatedError
		switch {
		case err == nil:
			c.metrics.batchProposals.Observe(float64(len(group)))
			c.committed(group, batches)
			return
		case errors.As(err, &fenced):
			c.metrics.failures.WithLabelValues("fenced").Inc()
			if !c.lose(group, batches, fenced.Shards) {
				c.fail(group, err) // a fence that names none of ours would be tried for ever
				return
			}
		case errors.As(err, &repeated):
			c.metrics.failures.WithLabelValues("repeated").Inc()
			if !c.repeat(group, repeated) {
				c.fail(group, err)
				return
			}
		case errors.Is(err, ErrUnknownOutcome):
			c.metrics.failures.WithLabelValues("unknown_outcome").Inc()
			c.log.Warn("outcome of a commit is unknown", "proposals", len(group), "error", err)
			c.settle(group, batches)
			return
		case errors.Is(err, ErrUnavailable):
			c.metrics.failures.WithLabelValues("unavailable").Inc()
			if time.Since(began) > c.cfg.Patience || !c.pause(&pause) {
				c.log.Error("giving up a batch", "proposals", len(group), "error", err)
				c.fail(group, err)
				return
			}
		case len(group) == 1:
			c.metrics.failures.WithLabelValues("proposal").Inc()
			c.log.Warn("a proposal failed", "shard", group[0].proposal.Shard, "error", err)
			c.fail(group, err)
			return
		default:
			c.metrics.failures.WithLabelValues("halved").Inc()
			half := len(group) / 2
			c.commit(group[:half])
			group = group[half:]
		}
	}
}

// pause waits before another attempt; false when the committer gives up.
func (c *Committer) pause(d *time.Duration) bool {
	now := *d
	*d = min(2*now, retryMost)
	return lifecycle.Sleep(c.ctx, now) == nil
}

// build leaves out what was decided meanwhile, and gives the rest places behind their shards' heads.
func (c *Committer) build(group []*pending) ([]*pending, []Batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var stale []*pending // whose shard was given up, or has a new epoch, since they were queued
	for _, w := range group {
		if c.shards[w.state.id] != w.state || w.state.epoch != w.proposal.Epoch {
			stale = append(stale, w)
		}
	}
	c.refuse(stale, ErrFenced)
	living := make([]*pending, 0, len(group))
	for _, w := range group {
		if !w.decided {
			living = append(living, w)
		}
	}
	var batches []Batch
	index := map[shard.ID]int{}
	for _, w := range living {
		i, ok := index[w.proposal.Shard]
		if !ok {
			st := w.state
			i = len(batches)
			index[st.id] = i
			batches = append(batches, Batch{
				Shard: st.id, Epoch: st.epoch, Incarnation: st.head.Incarnation, Prev: st.head.Last, Last: st.head.Last,
			})
		}
		b := &batches[i]
		first := b.Last + 1
		if b.Last == b.Prev {
			first = w.state.head.Next
		}
		first += shard.Pos(w.proposal.Room)
		place := entry.Place{Shard: b.Shard, First: first, Last: first + shard.Pos(len(w.proposal.Entries)) - 1}
		if len(w.proposal.Entries) == 0 {
			place.First, place.Last = b.Last+1, b.Last
		}
		b.Last = place.Last
		b.Proposals = append(b.Proposals, Placed{Proposal: w.proposal, Place: place})
	}
	slices.SortFunc(batches, func(a, b Batch) int { return cmp.Compare(a.Shard, b.Shard) })
	return living, batches
}

// committed moves the heads on and sends each shard's batch on its way to the stream and the callers.
func (c *Committer) committed(group []*pending, batches []Batch) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range batches {
		c.launch(group, &batches[i], now)
	}
	c.metrics.committed.Add(float64(len(group)))
}

// launch is committed for one shard's batch.
func (c *Committer) launch(group []*pending, b *Batch, now time.Time) {
	f := &flight{committer: c, batch: *b, committed: now}
	next := 0
	for _, w := range group {
		if w.proposal.Shard != b.Shard {
			continue
		}
		place := b.Proposals[next].Place // in the order of the group
		next++
		w.state.head.Last = b.Last
		if b.Last > b.Prev {
			w.state.head.Next = b.Last + 1
		}
		out := Outcome{Result: w.proposal.Result}
		if len(w.proposal.Entries) > 0 {
			out.First, out.Last = place.First, place.Last
		}
		w.decided = true
		w.ticket.outcome = out
		f.answers = append(f.answers, w)
	}
	if b.Last == b.Prev { // nothing that followers could hear of
		c.answer(f.answers)
		return
	}
	c.flights.Add(1)
	f.timer = time.AfterFunc(c.cfg.PollInterval, f.polled)
	select {
	case c.outgoing <- f:
	default: // the stream is stuck; followers will read the database
		c.metrics.unpublished.Inc()
	}
}

// decide settles a proposal's fate without a commit.
func (c *Committer) decide(w *pending, out Outcome, err error) {
	w.decided = true
	w.ticket.outcome, w.ticket.err = out, err
	// Either way nothing was committed now, so nothing more may be built on it.
	breakChain(w.proposal)
	if err != nil {
		c.tell(w)
		return
	}
	c.answer([]*pending{w})
}

// fail fails the proposals of a group that are not decided, and what was built on them.
func (c *Committer) fail(group []*pending, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refuse(group, err)
}

// refuse fails proposals, and what was built on them. mu is held.
func (c *Committer) refuse(failed []*pending, err error) {
	var now []*pending
	for _, w := range failed {
		if !w.decided {
			c.decide(w, Outcome{}, err)
			now = append(now, w)
		}
	}
	c.breakAfter(now)
}

// repeat answers the proposals of a group whose commands had been done before.
func (c *Committer) repeat(group []*pending, e *RepeatedError) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	var now []*pending
	for _, w := range group {
		if result, ok := e.Results[w.proposal]; ok && !w.decided {
			c.decide(w, Outcome{Repeated: true, Result: bytes.Clone(result)}, nil)
			now = append(now, w)
		}
	}
	c.breakAfter(now)
	return len(now) > 0
}

// breakAfter fails what follows proposals in their chains, in flight or in the queue: it was built on something that was not
// committed.
func (c *Committer) breakAfter(gone []*pending) {
	var from map[*entry.Chain]uint64
	for _, w := range gone {
		chain := w.proposal.Chain
		if chain == nil {
			continue
		}
		if from == nil {
			from = map[*entry.Chain]uint64{}
		}
		if seq, ok := from[chain]; !ok || w.seq < seq {
			from[chain] = w.seq
		}
	}
	if from == nil {
		return
	}
	for _, list := range [][]*pending{c.inFlight, c.queue} {
		for _, w := range list {
			if w.decided || w.proposal.Chain == nil {
				continue
			}
			if seq, ok := from[w.proposal.Chain]; ok && w.seq > seq {
				c.decide(w, Outcome{}, ErrChain)
			}
		}
	}
}

// lose gives up shards of a batch that the fence did not find.
func (c *Committer) lose(group []*pending, batches []Batch, lost []shard.ID) bool {
	found := false
	for i := range batches {
		if !slices.Contains(lost, batches[i].Shard) {
			continue
		}
		found = true
		c.mu.Lock()
		if st := c.shards[batches[i].Shard]; st != nil && st.epoch == batches[i].Epoch {
			c.drop(st)
		}
		c.refuse(ofShard(group, batches[i].Shard), ErrFenced)
		c.mu.Unlock()
		c.log.Warn("a shard is held by another writer", "shard", batches[i].Shard, "epoch", batches[i].Epoch)
		c.leases.Lost(batches[i].Shard, batches[i].Epoch)
	}
	return found
}

func ofShard(group []*pending, s shard.ID) []*pending {
	var of []*pending
	for _, w := range group {
		if w.proposal.Shard == s {
			of = append(of, w)
		}
	}
	return of
}

// settle finds out what became of a group. Until it is known nothing else is committed.
func (c *Committer) settle(group []*pending, batches []Batch) {
	pause := retryFirst
	for {
		verdicts, err := c.store.Settle(c.ctx, batches)
		if err == nil && len(verdicts) == len(batches) {
			c.settled(group, batches, verdicts)
			return
		}
		c.log.Error("outcome of a commit is still unknown", "error", err)
		if !c.pause(&pause) {
			c.fail(group, ErrUnknownOutcome)
			return
		}
	}
}

func (c *Committer) settled(group []*pending, batches []Batch, verdicts []Verdict) {
	now := time.Now()
	for i, v := range verdicts {
		b := &batches[i]
		c.mu.Lock()
		st := c.shards[b.Shard]
		ours := st != nil && st.epoch == b.Epoch && v.Held
		if v.Committed && ours {
			c.launch(group, b, now)
		}
		err := ErrFenced
		if v.Committed {
			err = ErrUnknownOutcome // it is there, but no longer ours to tell
		}
		c.refuse(ofShard(group, b.Shard), err)
		if ours {
			c.adopt(st, v.Epoch)
		} else if st != nil && st.epoch == b.Epoch {
			c.drop(st)
		}
		c.mu.Unlock()
		if ours {
			c.leases.Moved(b.Shard, b.Epoch, v.Epoch)
		} else {
			c.leases.Lost(b.Shard, b.Epoch)
		}
	}
}

// adopt goes on with a shard under a new epoch: what was prepared under the old one fails.
func (c *Committer) adopt(st *shardState, e shard.Epoch) {
	st.epoch = e
	for _, w := range c.queue {
		if w.state == st && !w.decided {
			c.decide(w, Outcome{}, ErrFenced)
		}
	}
}
