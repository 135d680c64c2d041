package commit

import (
	"sync"
	"time"
)

// recheckEvery is how often answers that wait for their lease are looked at.
const recheckEvery = 20 * time.Millisecond

// flight is a committed batch of one shard on its way to the stream, and the callers who wait for it.
type flight struct {
	committer *Committer
	batch     Batch
	committed time.Time
	answers   []*pending
	timer     *time.Timer
	once      sync.Once

	mu    sync.Mutex // guards left
	left  int        // messages not acknowledged
	wrong bool       // one was refused
}

// acked is told of the acknowledgement of one message.
func (f *flight) acked(err error) {
	f.mu.Lock()
	f.left--
	f.wrong = f.wrong || err != nil
	all := f.left == 0 && !f.wrong
	f.mu.Unlock()
	took := time.Since(f.committed)
	if all && took <= f.committer.cfg.AckTimeout {
		f.committer.metrics.publishSeconds.Observe(took.Seconds())
		f.land()
	}
}

// polled is called one poll interval after the commit.
func (f *flight) polled() {
	f.once.Do(func() {
		f.committer.metrics.unacknowledged.Inc()
		f.answerAll()
	})
}

// land answers once.
func (f *flight) land() {
	f.once.Do(func() {
		f.timer.Stop()
		f.answerAll()
	})
}

func (f *flight) answerAll() {
	c := f.committer
	c.mu.Lock()
	c.answer(f.answers)
	c.mu.Unlock()
	c.flights.Done()
}

// publishLoop hands committed batches to the stream, in order.
func (c *Committer) publishLoop() {
	for f := range c.outgoing {
		messages := encode(&f.batch, c.cfg.MaxMessage)
		f.mu.Lock()
		f.left = len(messages)
		f.mu.Unlock()
		for _, m := range messages {
			c.pub.Publish(f.batch.Shard, m, f.acked)
		}
	}
}

// answer tells outcomes that are committed, those whose shard's lease is valid; the others wait. mu is held.
func (c *Committer) answer(list []*pending) {
	for _, w := range list {
		switch {
		case c.leases.Valid(w.state.id, w.state.epoch):
			c.metrics.answerSeconds.Observe(time.Since(w.submitted).Seconds())
			c.tell(w)
		case c.shards[w.state.id] != w.state || c.ctx.Err() != nil:
			// The shard is lost, and perhaps another has written since: it may not be answered from here.
			w.ticket.outcome, w.ticket.err = Outcome{}, ErrUnknownOutcome
			c.tell(w)
		default:
			c.held = append(c.held, w)
		}
	}
	if len(c.held) > 0 && c.recheck == nil {
		c.flights.Add(1)
		c.recheck = time.AfterFunc(recheckEvery, c.recheckHeld)
	}
}

func (c *Committer) recheckHeld() {
	defer c.flights.Done()
	c.mu.Lock()
	defer c.mu.Unlock()
	held := c.held
	c.held, c.recheck = nil, nil
	c.answer(held)
}

// abandonHeld gives up the answers that wait for a lease when the committer ends.
func (c *Committer) abandonHeld() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.held {
		w.ticket.outcome, w.ticket.err = Outcome{}, ErrUnknownOutcome
		c.tell(w)
	}
	c.held = nil
}

// tell closes a ticket. mu is held.
func (c *Committer) tell(w *pending) {
	if w.told {
		return
	}
	w.told = true
	close(w.ticket.done)
	w.state.outstanding--
	c.checkDrained(w.state)
}
