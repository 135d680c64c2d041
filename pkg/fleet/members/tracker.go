package members

import (
	"time"

	"github.com/heddle-im/heddle/pkg/route"
	"github.com/heddle-im/heddle/pkg/store/fleetdb"
)

// tracker decides who is alive from successive readings of the table. It is pure: time is an argument.
//
// A worker that is seen for the first time counts as alive until its counter has stood still for deadAfter. After a
// reading that failed all waits begin anew, since the others may not have been able to write either.
type tracker struct {
	deadAfter, forgetAfter time.Duration
	seen                   map[string]*seen
	broken                 bool
}

type seen struct {
	counter    int64
	since      time.Time
	complained bool // of a status that cannot be read
}

func (t *tracker) interrupted() { t.broken = true }

// observe takes one reading and gives the live workers, and the rows that have been dead for long.
func (t *tracker) observe(rows []fleetdb.WorkersRow, now time.Time) (live []Worker, forget []fleetdb.ForgetParams) {
	present := make(map[string]bool, len(rows))
	for _, row := range rows {
		present[row.Instance] = true
		s := t.seen[row.Instance]
		switch {
		case s == nil:
			s = &seen{counter: row.Counter, since: now}
			t.seen[row.Instance] = s
		case s.counter != row.Counter || t.broken:
			s.counter, s.since = row.Counter, now
		}
		switch still := now.Sub(s.since); {
		case still < t.deadAfter:
			live = append(live, worker(row))
		case still >= t.forgetAfter:
			forget = append(forget, fleetdb.ForgetParams{Instance: row.Instance, Counter: row.Counter})
		}
	}
	for instance := range t.seen {
		if !present[instance] {
			delete(t.seen, instance)
		}
	}
	t.broken = false
	return live, forget
}

func worker(row fleetdb.WorkersRow) Worker {
	w := Worker{
		Instance: row.Instance, Kind: route.Kind(row.Kind), Address: row.Address, Version: row.Version,
		ProtocolMin: row.ProtocolMin, ProtocolMax: row.ProtocolMax, Roles: row.Roles,
	}
	w.Status, w.StatusError = ParseStatus(row.Status)
	return w
}
