package sender

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/senderdb"
)

// item is an event on its way. All destinations that it goes to share it.
type item struct {
	shard shard.ID
	pos   shard.Pos
	json  []byte
	refs  int // queues that hold it; guarded by Sender.mu
	// alone is the transaction that holds nothing else: mostly all destinations are sent the same.
	alone atomic.Pointer[encoded]
}

// encoded is a transaction as it is sent.
type encoded struct {
	txn  string
	body []byte
}

// kind is a kind of EDU.
type kind uint8

const (
	kindTyping kind = iota
	kindPresence
	kindReceipt
	kindDevice
	kindKeys
)

// edu is an EDU on its way, or a part of one. All destinations that it goes to share it; one with the same key takes the place of an earlier one.
type edu struct {
	kind  kind
	key   string
	shard shard.ID
	pos   shard.Pos // 0: it has no place in the log
	// durable says that it is owed also to who falls behind.
	durable  bool
	typ      string
	content  []byte // but of receipts and presence
	receipt  *receipt
	presence *presence
}

// volatile says that it is of no use later.
func (e *edu) volatile() bool { return e.kind == kindTyping || e.kind == kindPresence }

func (e *edu) size() int64 { return int64(len(e.key)+len(e.content)) + 128 }

const itemOverhead = 64

// state is what a destination does; see the package comment.
type state uint8

const (
	idle state = iota
	working
	waiting
)

// destination is a server that is told things. Its fields but name and slot are guarded by Sender.mu, unless it says otherwise.
type destination struct {
	name id.ServerName
	slot *slot

	state state
	queue []*item
	edus  []*edu
	// stored says that EDUs may be queued for it in the database.
	stored bool
	// owed is after which positions it is owed what is not queued, and planned the same of what is being caught up with.
	owed, planned map[shard.ID]shard.Pos
	// parcel is a transaction that failed, to be tried again as it was.
	parcel *parcel

	busySince    time.Time // since when it has had something to acknowledge; zero when idle
	failingSince time.Time // zero unless the last attempt failed
	due          time.Time // when it is tried again
	proven       bool      // the last attempt succeeded
	limit        int       // parts of a transaction while it refuses some; 0: as many as there may be
	release      func()    // gives its place among the retries back; nil if it has none

	saved map[shard.ID]shard.Pos // as it is stored
	// done is how far rooms have been caught up with; of the worker alone.
	done map[shard.Nid]shard.Pos
}

// dest gives a destination of the slot, made if there is none. Under Sender.mu, or before the slot is known.
func (sl *slot) dest(name id.ServerName) *destination {
	d := sl.dests[name]
	if d == nil {
		d = &destination{name: name, slot: sl}
		sl.dests[name] = d
	}
	return d
}

// wait has a destination wait until it is due. Under Sender.mu, or before the slot is known.
func (sl *slot) wait(d *destination, due time.Time) {
	d.state, d.due = waiting, due
	sl.waiting[d] = struct{}{}
}

// owe notes that a destination is owed what is after a position.
func owe(m map[shard.ID]shard.Pos, s shard.ID, pos shard.Pos) map[shard.ID]shard.Pos {
	if m == nil {
		m = map[shard.ID]shard.Pos{}
	}
	if at, ok := m[s]; !ok || pos < at {
		m[s] = pos
	}
	return m
}

// push queues an event for a destination. Under mu.
func (s *Sender) push(d *destination, it *item) {
	if len(d.owed) > 0 {
		owe(d.owed, it.shard, it.pos-1)
		return
	}
	if len(d.queue) >= s.cfg.MaxQueue {
		s.fallBehind(d)
		d.owed = owe(d.owed, it.shard, it.pos-1)
		return
	}
	if it.refs++; it.refs == 1 {
		s.bytes += int64(len(it.json)) + itemOverhead
	}
	d.queue = append(d.queue, it)
	s.bytes += 8
	s.wake(d)
}

// maxEDUs bounds the EDUs that wait for a destination.
const maxEDUs = 500

// pushEDU queues an EDU for a destination. Under mu.
func (s *Sender) pushEDU(d *destination, e *edu) {
	switch {
	case len(d.owed) > 0:
		if e.durable {
			owe(d.owed, e.shard, e.pos-1)
		}
		return
	case !d.failingSince.IsZero() && e.volatile():
		return
	}
	i := slices.IndexFunc(d.edus, func(o *edu) bool { return o.kind == e.kind && o.key == e.key })
	switch {
	case i >= 0:
		old := d.edus[i]
		if old.durable && old.pos > 0 { // what it is owed begins with the earlier
			c := *e
			c.durable, c.shard, c.pos = true, old.shard, old.pos
			e = &c
		}
		s.bytes += e.size() - old.size()
		d.edus[i] = e
	case len(d.edus) < maxEDUs:
		d.edus = append(d.edus, e)
		s.bytes += e.size()
	case e.durable:
		s.fallBehind(d)
		d.owed = owe(d.owed, e.shard, e.pos-1)
		return
	default:
		s.metrics.dropped.WithLabelValues("full").Inc()
		return
	}
	s.wake(d)
}

// wake has a destination served that is idle. Under mu.
func (s *Sender) wake(d *destination) {
	if d.busySince.IsZero() {
		d.busySince = s.o.Now()
	}
	if d.state == idle && !d.slot.closing {
		s.begin(d)
	}
}

// fallBehind lets go of what is queued for a destination and notes after which positions it is owed it. Under mu.
func (s *Sender) fallBehind(d *destination) {
	if len(d.owed) == 0 {
		s.metrics.behind.Inc()
	}
	for _, it := range d.queue {
		d.owed = owe(d.owed, it.shard, it.pos-1)
	}
	for _, e := range d.edus {
		if e.durable {
			d.owed = owe(d.owed, e.shard, e.pos-1)
		}
	}
	s.forget(d)
}

// forget lets go of what is queued for a destination. Under mu.
func (s *Sender) forget(d *destination) {
	s.unqueue(d, len(d.queue))
	for _, e := range d.edus {
		s.bytes -= e.size()
	}
	d.queue, d.edus = nil, nil
	s.keep(d, nil)
}

// unqueue takes the first n events from a destination's queue. Under mu.
func (s *Sender) unqueue(d *destination, n int) {
	for _, it := range d.queue[:n] {
		if it.refs--; it.refs == 0 {
			s.bytes -= int64(len(it.json)) + itemOverhead
		}
	}
	s.bytes -= int64(8 * n)
	clear(d.queue[:n])
	if n == len(d.queue) {
		d.queue = d.queue[:0]
	} else {
		d.queue = d.queue[n:]
	}
}

// keep keeps a transaction that failed; nil: none. Under mu.
func (s *Sender) keep(d *destination, p *parcel) {
	if d.parcel != nil {
		s.bytes -= int64(len(d.parcel.body))
	}
	if d.parcel = p; p != nil {
		s.bytes += int64(len(p.body))
	}
}

// shed lets destinations fall behind while too much is queued: those first that wait, then those for which most is queued. Under mu.
func (s *Sender) shed() {
	if s.bytes <= s.cfg.MaxBytes {
		return
	}
	var list []*destination
	for _, sl := range s.slots {
		for _, d := range sl.dests {
			if len(d.queue)+len(d.edus) > 0 {
				list = append(list, d)
			}
		}
	}
	slices.SortFunc(list, func(a, b *destination) int {
		if w := b2i(b.state == waiting) - b2i(a.state == waiting); w != 0 {
			return w
		}
		return len(b.queue) - len(a.queue)
	})
	for _, d := range list {
		if s.bytes <= s.cfg.MaxBytes/4*3 {
			return
		}
		s.fallBehind(d)
		if len(d.owed) > 0 && d.state == idle {
			s.wake(d)
		}
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// settle tells the budget what is queued. Not under mu.
func (s *Sender) settle() {
	s.mu.Lock()
	s.shed()
	now := s.bytes
	s.mu.Unlock()
	switch more := now - s.charged.Swap(now); {
	case more > 0:
		s.account.Charge(more)
	case more < 0:
		s.account.Release(-more)
	}
}

// parcel is a transaction.
type parcel struct {
	queued []*item // the first of the queue; or
	events []senderdb.Event
	edus   []*edu
	stored []senderdb.EDU
	more   bool // there may be more stored EDUs

	made time.Time
	encoded
}

// parts is of how many parts it is.
func (p *parcel) parts() int { return len(p.queued) + len(p.events) + len(p.edus) + len(p.stored) }

// The bounds of a transaction.
const (
	maxPDUs = 50
	maxOut  = 100 // EDUs
	// maxBody is how large a transaction becomes, unless a single part is larger; for a server that has not answered lately it is maxFirst.
	maxBody, maxFirst = 1 << 20, 64 << 10
	maxBig            = 64 // transactions larger than twice maxFirst at the same time
)

// gather makes a transaction of what is to be sent to a destination: stored EDUs first, for they may be keys to what follows. Under mu.
func (s *Sender) gather(d *destination, stored []senderdb.EDU, events []senderdb.Event, own []*edu, most int) *parcel {
	p := &parcel{made: s.o.Now()}
	left := d.limit
	if left == 0 {
		left = maxPDUs + maxOut
	}
	size := 0
	fits := func(n int) bool {
		if left == 0 || size > 0 && size+n > most {
			return false
		}
		left, size = left-1, size+n
		return true
	}
	for _, e := range stored {
		if len(p.stored) == maxOut || !fits(len(e.Content)) {
			p.more = true
			break
		}
		p.stored = append(p.stored, e)
	}
	for _, e := range events {
		if len(p.events) == maxPDUs || !fits(len(e.JSON)) {
			break
		}
		p.events = append(p.events, e)
	}
	if events != nil || own != nil {
		s.gatherEDUs(p, own, fits)
		return p
	}
	for _, it := range d.queue {
		if len(p.queued) == maxPDUs || !fits(len(it.json)) {
			break
		}
		p.queued = append(p.queued, it)
	}
	s.gatherEDUs(p, d.edus, fits)
	return p
}

func (s *Sender) gatherEDUs(p *parcel, list []*edu, fits func(int) bool) {
	var merged [kindKeys + 1]bool
	n := len(p.stored)
	for _, e := range list {
		one := e.kind != kindPresence && e.kind != kindReceipt
		if (one || !merged[e.kind]) && n+1 > maxOut-maxReceiptEDUs || !fits(int(e.size())) {
			return
		}
		if one || !merged[e.kind] {
			n++
		}
		merged[e.kind] = true
		p.edus = append(p.edus, e)
	}
}
