package sender

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/senderdb"
)

// begin starts to serve a destination. Under mu.
func (s *Sender) begin(d *destination) {
	d.state = working
	d.slot.working++
	if !d.slot.tasks.Go(func(ctx context.Context) { s.work(ctx, d) }) {
		s.rest(d, idle)
	}
}

// rest ends the serving of a destination. Under mu.
func (s *Sender) rest(d *destination, st state) {
	if d.state = st; st == idle && !d.slot.closing {
		d.busySince, d.failingSince = time.Time{}, time.Time{}
	}
	if d.release != nil {
		d.release()
		d.release = nil
	}
	sl := d.slot
	if sl.working--; sl.working == 0 && sl.closing {
		close(sl.idle)
	}
}

// work serves a destination until there is nothing to send or it fails.
func (s *Sender) work(ctx context.Context, d *destination) {
	defer s.settle()
	for {
		s.mu.Lock()
		switch {
		case ctx.Err() != nil || d.slot.closing && !d.drains():
			s.unplan(d)
			s.rest(d, idle)
			s.mu.Unlock()
			return
		case len(d.owed) > 0:
			d.planned, d.owed = d.owed, nil
		case d.parcel == nil && !d.stored && len(d.queue)+len(d.edus) == 0:
			s.rest(d, idle)
			s.mu.Unlock()
			return
		}
		catchUp := len(d.planned) > 0
		s.mu.Unlock()
		var err error
		if catchUp {
			err = s.catchUp(ctx, d)
		} else {
			err = s.next(ctx, d)
		}
		if err != nil && s.failed(ctx, d, err) {
			return
		}
	}
}

// drains tells whether a destination whose slot is being given away is still sent what is queued for it. Nothing is queued any more by then, and
// one cursor serves the whole slot: who is ahead of another would be told again what it knows, in other transactions. Under mu.
func (d *destination) drains() bool {
	return d.failingSince.IsZero() && len(d.owed)+len(d.planned) == 0 && len(d.queue)+len(d.edus) > 0
}

// unplan makes what was being caught up with owed again. Under mu.
func (s *Sender) unplan(d *destination) {
	for sh, pos := range d.planned {
		d.owed = owe(d.owed, sh, pos)
	}
	d.planned = nil
	if len(d.owed) > 0 {
		s.fallBehind(d) // what is queued is found again with the rest
	}
}

// keepFor is how long a transaction that failed is tried again as it was. Later it is made anew, without what has become stale.
const keepFor = time.Minute

// next sends a destination the next transaction of what is queued.
func (s *Sender) next(ctx context.Context, d *destination) error {
	s.mu.Lock()
	p, stored := d.parcel, d.stored
	if p != nil && s.o.Now().Sub(p.made) > keepFor {
		s.keep(d, nil)
		p = nil
	}
	s.mu.Unlock()
	if p != nil {
		return s.deliver(ctx, d, p)
	}
	rows, err := s.readStored(ctx, d, stored)
	if err != nil {
		return err
	}
	s.mu.Lock()
	p = s.gather(d, rows, nil, nil, mostFor(d))
	s.mu.Unlock()
	if p.parts() == 0 {
		return nil
	}
	return s.deliver(ctx, d, p)
}

// mostFor is how large a transaction to a destination may become. Under mu.
func mostFor(d *destination) int {
	if d.proven {
		return maxBody
	}
	return maxFirst
}

// readStored reads EDUs that the database has for a destination.
func (s *Sender) readStored(ctx context.Context, d *destination, there bool) ([]senderdb.EDU, error) {
	if !there {
		return nil, nil
	}
	s.mu.Lock()
	d.stored = false // what is queued from now on sets it again
	s.mu.Unlock()
	rows, err := s.o.DB.EDUs(ctx, shard.ID(d.slot.role.Slot), string(d.name), maxOut)
	if err != nil || len(rows) == maxOut {
		s.mu.Lock()
		d.stored = true
		s.mu.Unlock()
	}
	return rows, err
}

// errLost says that the slot is not ours any more.
var errLost = errors.New("slot is not held any more")

// deliver sends a transaction, and takes note that it was acknowledged. A part that the other server refuses even alone is left out.
func (s *Sender) deliver(ctx context.Context, d *destination, p *parcel) error {
	if p.body == nil {
		if err := s.encode(p); err != nil {
			return err
		}
	}
	if !s.o.Valid(int(d.slot.role.Slot), d.slot.role.Epoch) {
		return errLost
	}
	leave, err := s.lane(ctx, d, len(p.body))
	if err != nil {
		return err
	}
	began := time.Now()
	answer, err := s.o.Transport.Send(ctx, d.name, p.txn, p.body)
	s.metrics.took.Observe(time.Since(began).Seconds())
	leave()
	var refusal *RefusedError
	if errors.As(err, &refusal) && refusal.Matrix && (refusal.Status == 400 || refusal.Status == 413) {
		s.metrics.transactions.WithLabelValues("refused").Inc()
		return s.narrow(ctx, d, p, err)
	}
	if err != nil {
		s.metrics.transactions.WithLabelValues("failed").Inc()
		s.mu.Lock()
		if p.events == nil && ctx.Err() == nil {
			s.keep(d, p)
		}
		d.stored = d.stored || len(p.stored) > 0 || p.more
		s.mu.Unlock()
		return err
	}
	s.metrics.transactions.WithLabelValues("done").Inc()
	s.metrics.pdus.Add(float64(len(p.queued) + len(p.events)))
	s.metrics.edus.Add(float64(len(p.stored) + len(p.edus)))
	s.lookAt(d, answer)
	if err := s.dropStored(ctx, d, p); err != nil {
		return err
	}
	s.acknowledged(d, p)
	return nil
}

// lane waits for a place among the transactions in flight. Those to servers that have not answered lately do not take the places of others. A large
// transaction that finds too many of its like waits for one of these, which none that is small does.
func (s *Sender) lane(ctx context.Context, d *destination, size int) (leave func(), err error) {
	s.mu.Lock()
	lanes := s.fresh
	if d.proven {
		lanes = s.lanes
	}
	s.mu.Unlock()
	take := func(c chan struct{}) error {
		select {
		case c <- struct{}{}:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if size <= 2*maxFirst {
		if err := take(lanes); err != nil {
			return nil, err
		}
		return func() { <-lanes }, nil
	}
	if err := take(s.big); err != nil {
		return nil, err
	}
	if err := take(lanes); err != nil {
		<-s.big
		return nil, err
	}
	return func() { <-lanes; <-s.big }, nil
}

// dropStored deletes what was acknowledged and is stored.
func (s *Sender) dropStored(ctx context.Context, d *destination, p *parcel) error {
	if len(p.stored) == 0 {
		return nil
	}
	seqs := make([]int64, len(p.stored))
	for i, e := range p.stored {
		seqs[i] = e.Seq
	}
	held, err := s.o.DB.DropEDUs(context.WithoutCancel(ctx), d.slot.role, string(d.name), seqs)
	switch {
	case err != nil:
		s.mu.Lock()
		d.stored = true
		s.mu.Unlock()
		return err
	case !held:
		return errLost
	}
	return nil
}

// acknowledged takes note that a destination has what is in a transaction.
func (s *Sender) acknowledged(d *destination, p *parcel) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keep(d, nil)
	s.unqueueParcel(d, p)
	d.stored = d.stored || p.more
	d.failingSince, d.proven = time.Time{}, true
	if d.busySince = s.o.Now(); d.limit > 0 {
		if d.limit *= 2; d.limit > maxPDUs+maxOut {
			d.limit = 0
		}
	}
	if d.release != nil {
		d.release()
		d.release = nil
	}
}

// unqueueParcel takes what is in a transaction from the queues, as far as it is still there. Under mu.
func (s *Sender) unqueueParcel(d *destination, p *parcel) {
	if n := len(p.queued); n > 0 && len(d.queue) >= n && d.queue[0] == p.queued[0] {
		s.unqueue(d, n)
	}
	if len(p.edus) == 0 {
		return
	}
	sent := make(map[*edu]bool, len(p.edus))
	for _, e := range p.edus {
		sent[e] = true
	}
	rest := d.edus[:0]
	for _, e := range d.edus {
		if sent[e] {
			s.bytes -= e.size()
		} else {
			rest = append(rest, e)
		}
	}
	clear(d.edus[len(rest):])
	d.edus = rest
}

// errNarrowed says that a destination refused a transaction, and that the next is to be smaller. It is no failure.
var errNarrowed = errors.New("transaction was refused")

// narrow finds out what of a transaction it is that a destination refuses: half as much is sent next. What it refuses alone is not sent
// again, for it would be refused for ever, and everything after it with it.
func (s *Sender) narrow(ctx context.Context, d *destination, p *parcel, why error) error {
	s.mu.Lock()
	s.keep(d, nil)
	d.stored = d.stored || len(p.stored) > 0 || p.more
	n := p.parts()
	if n > 1 {
		d.limit = n / 2
		s.mu.Unlock()
		return s.narrowed(p)
	}
	s.unqueueParcel(d, p)
	d.limit = 1
	s.mu.Unlock()
	s.metrics.dropped.WithLabelValues("refused").Inc()
	s.log.Warn("a server refuses what it is sent, and is not sent it again", "destination", string(d.name), "events", len(p.queued)+len(p.events),
		"error", why)
	if len(p.stored) > 0 {
		return s.dropStored(ctx, d, p)
	}
	return nil
}

func (s *Sender) narrowed(p *parcel) error {
	if p.events != nil {
		return errNarrowed // for whom catches up
	}
	return nil
}

// lookAt counts the events of a transaction that the other server had something against.
func (s *Sender) lookAt(d *destination, answer []byte) {
	if !bytes.Contains(answer, []byte(`"error"`)) {
		return
	}
	var a struct {
		PDUs map[string]struct {
			Error string `json:"error"`
		} `json:"pdus"`
	}
	if json.Unmarshal(answer, &a) != nil {
		return
	}
	for e, r := range a.PDUs {
		if r.Error != "" {
			s.metrics.disputed.Inc()
			s.log.Debug("a server did not take an event", "destination", string(d.name), "event", e, "reason", r.Error)
		}
	}
}

// failed has a destination wait; false if its worker ends anyway.
func (s *Sender) failed(ctx context.Context, d *destination, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	pause := max(4*s.cfg.Tick, s.o.Transport.Backoff(ctx, d.name))
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.o.Now()
	if d.failingSince.IsZero() {
		d.failingSince = now
		s.log.Debug("a server is not reached", "destination", string(d.name), "error", err)
	}
	d.proven = false
	rest := d.edus[:0]
	for _, e := range d.edus {
		if e.volatile() {
			s.bytes -= e.size()
		} else {
			rest = append(rest, e)
		}
	}
	clear(d.edus[len(rest):])
	d.edus = rest
	s.unplan(d)
	s.giveUp(d, now)
	s.rest(d, waiting)
	if !d.slot.closing {
		d.slot.wait(d, now.Add(min(pause, s.cfg.Recheck)))
	}
	return true
}

// schedule starts to serve those who are due.
func (s *Sender) schedule(ctx context.Context) {
	tick := time.NewTicker(s.cfg.Tick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-s.kick:
		}
		s.startDue()
	}
}

func (s *Sender) startDue() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.o.Now()
	for _, sl := range s.slots {
		if sl.closing {
			continue
		}
		for d := range sl.waiting {
			if d.due.After(now) {
				continue
			}
			select {
			case s.retries <- struct{}{}:
			default:
				return
			}
			delete(sl.waiting, d)
			d.state, d.release = working, func() { <-s.retries }
			sl.working++
			if !sl.tasks.Go(func(ctx context.Context) { s.retry(ctx, d) }) {
				s.rest(d, idle)
			}
		}
	}
}

// retry serves a destination that is due, if it is not to be left alone longer.
func (s *Sender) retry(ctx context.Context, d *destination) {
	left := s.o.Transport.Backoff(ctx, d.name)
	if left <= 0 {
		s.work(ctx, d)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.o.Now()
	if d.failingSince.IsZero() {
		d.failingSince = now
	}
	s.giveUp(d, now)
	s.rest(d, waiting)
	if !d.slot.closing {
		d.slot.wait(d, now.Add(min(left, s.cfg.Recheck)))
	}
}

// giveUp lets a destination fall behind that has failed for long. Under mu.
func (s *Sender) giveUp(d *destination, now time.Time) {
	if now.Sub(d.failingSince) > s.cfg.GiveUp && len(d.owed) == 0 && len(d.queue)+len(d.edus) > 0 {
		s.fallBehind(d)
	}
}

// catchUp sends a destination that was behind what matters of what it missed: how its users were made to go, the latest of each room that it
// is in, and whose devices changed.
func (s *Sender) catchUp(ctx context.Context, d *destination) error {
	s.mu.Lock()
	planned := maps.Clone(d.planned)
	s.mu.Unlock()
	if d.done == nil {
		d.done = map[shard.Nid]shard.Pos{}
	}
	server, host := string(s.o.Server), string(d.name)
	gone, err := s.o.DB.Departures(ctx, server, host, planned, maxDepartures)
	if err != nil {
		return err
	}
	rooms, err := s.o.DB.RoomsOf(ctx, host)
	if err != nil {
		return err
	}
	if err := s.sendAll(ctx, d, gone, nil); err != nil {
		return err
	}
	var list []shard.Nid
	var above []shard.Pos
	for _, r := range rooms {
		if pos, ok := planned[r.Shard()]; ok {
			list, above = append(list, r), append(above, max(pos, d.done[r]))
		}
	}
	for from := 0; from < len(list); from += maxPDUs {
		to := min(from+maxPDUs, len(list))
		events, err := s.o.DB.Latest(ctx, server, list[from:to], above[from:to])
		if err != nil {
			return err
		}
		if err := s.sendAll(ctx, d, s.others(d, events), nil); err != nil {
			return err
		}
		for _, e := range events {
			d.done[e.Room] = max(d.done[e.Room], e.Pos)
		}
	}
	if err := s.catchUpDevices(ctx, d, planned); err != nil {
		return err
	}
	d.done = nil
	s.mu.Lock()
	defer s.mu.Unlock()
	d.planned = nil
	return nil
}

// maxDepartures bounds the events of users that were made to go which a server is sent when it is back.
const maxDepartures = 1000

// others leaves out the events of a destination itself.
func (s *Sender) others(d *destination, list []senderdb.Event) []senderdb.Event {
	out := make([]senderdb.Event, 0, len(list))
	for _, e := range list {
		if serverOf(e.Sender) != d.name {
			out = append(out, e)
		}
	}
	return out
}

func (s *Sender) catchUpDevices(ctx context.Context, d *destination, planned map[shard.ID]shard.Pos) error {
	changed, err := s.o.DB.ListsChanged(ctx, string(s.o.Server), string(d.name), planned)
	if err != nil {
		return err
	}
	var list []*edu
	for i, c := range changed {
		edus, err := s.updates(ctx, c.User, 0, c.Pos, nil, false)
		if err != nil {
			return err
		}
		if list = append(list, edus...); len(list) >= maxOut/2 || i == len(changed)-1 {
			if err := s.sendAll(ctx, d, nil, list); err != nil {
				return err
			}
			list = nil
		}
	}
	return nil
}

// sendAll sends events and EDUs that are not queued.
func (s *Sender) sendAll(ctx context.Context, d *destination, events []senderdb.Event, edus []*edu) error {
	for len(events)+len(edus) > 0 {
		s.mu.Lock()
		stored := d.stored
		s.mu.Unlock()
		rows, err := s.readStored(ctx, d, stored)
		if err != nil {
			return err
		}
		s.mu.Lock()
		p := s.gather(d, rows, append([]senderdb.Event{}, events...), append([]*edu{}, edus...), mostFor(d))
		s.mu.Unlock()
		if p.events == nil {
			p.events = []senderdb.Event{} // not from the queue
		}
		if p.parts() == 0 {
			return fmt.Errorf("catch up with %s: nothing fits", d.name)
		}
		switch err := s.deliver(ctx, d, p); {
		case errors.Is(err, errNarrowed):
			continue
		case err != nil:
			return err
		}
		events, edus = events[len(p.events):], edus[len(p.edus):]
	}
	return nil
}
