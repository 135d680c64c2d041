package lease

import (
	"time"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/leasedb"
)

// watch remembers what was seen over one unbroken session, and since when it has not changed. The time of a change is when the
// answer that showed it had arrived, and the time of a look is when its question was sent: so what a watch calls
// unchanged for some time was unchanged for at least that time.
type watch struct {
	leases map[leasedb.Key]*seenLease
	boots  map[string]*seenBoot
	now    time.Duration // when the latest look was sent
	snap   leasedb.Snapshot
}

type seenLease struct {
	epoch  shard.Epoch
	holder string
	since  time.Duration
}

type seenBoot struct {
	counter int64
	since   time.Duration
	born    time.Duration // when it was first seen
	used    bool          // in the latest snapshot
}

func newWatch() *watch {
	return &watch{leases: map[leasedb.Key]*seenLease{}, boots: map[string]*seenBoot{}}
}

// look takes in a snapshot.
func (w *watch) look(s leasedb.Snapshot, sent, arrived time.Duration) {
	w.now, w.snap = sent, s
	for _, b := range w.boots {
		b.used = false
	}
	for _, l := range s.Workers {
		id := l.Boot.String()
		b := w.boots[id]
		if b == nil {
			b = &seenBoot{counter: l.Counter, since: arrived, born: arrived}
			w.boots[id] = b
		} else if b.counter != l.Counter {
			b.counter, b.since = l.Counter, arrived
		}
		b.used = true
	}
	for _, r := range s.Leases {
		l := w.leases[r.Key]
		if l == nil {
			l = &seenLease{epoch: r.Epoch, holder: r.Holder, since: arrived}
			w.leases[r.Key] = l
		} else if l.epoch != r.Epoch || l.holder != r.Holder {
			l.epoch, l.holder, l.since = r.Epoch, r.Holder, arrived
		}
		if r.Holder == "" {
			continue
		}
		// A holder without a row (superseded by a new start under its name, or removed) cannot renew: its counter stands still
		// from when it was last seen to move, or is first missed.
		b := w.boots[r.Holder]
		if b == nil {
			b = &seenBoot{counter: -1, since: arrived, born: arrived}
			w.boots[r.Holder] = b
		}
		b.used = true
	}
	for id, b := range w.boots {
		if !b.used {
			delete(w.boots, id)
		}
	}
}

// silent tells whether a boot's counter has stood still for at least d.
func (w *watch) silent(boot string, d time.Duration) bool {
	b := w.boots[boot]
	return b != nil && w.now-b.since >= d
}

// young tells whether a boot came less than d ago, so that it cannot itself have seen anybody be silent for d.
func (w *watch) young(boot string, d time.Duration) bool {
	b := w.boots[boot]
	return b == nil || w.now-b.born < d
}

// still tells for how long a lease's row has not changed.
func (w *watch) still(k leasedb.Key) time.Duration {
	l := w.leases[k]
	if l == nil {
		return 0
	}
	return w.now - l.since
}

// idle tells for how long a lease could have been taken: since it was given away, or since its holder's silence was
// long enough.
func (w *watch) idle(r leasedb.Row, wait time.Duration) time.Duration {
	still := w.still(r.Key)
	if r.Holder == "" {
		return still
	}
	if b := w.boots[r.Holder]; b != nil {
		still = min(still, w.now-b.since)
	}
	return still - wait
}
