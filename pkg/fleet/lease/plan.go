package lease

import (
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/leasedb"
)

// phase is where a lease stands in this process.
//
//	(none) --claim--> opening --Opened--> open --give or lost--> closing --Closing, release--> (none)
//	                     \--refused or lost---------------------------^
type phase int

const (
	opening phase = iota + 1
	open
	closing
)

// hold is what this process knows of a lease that it has to do with.
type hold struct {
	epoch shard.Epoch
	phase phase
	// lapsed: the term under which it was taken has ended; it is ours no more, whatever the row says.
	lapsed bool
}

// state is all that a plan rests on.
type state struct {
	me     string // our boot
	role   string
	timing Timing
	watch  *watch
	live   bool // our own term runs
	drain  bool // we want none
	holds  map[leasedb.Key]hold
	// blocked leases could not be opened here a moment ago: somebody else may try.
	blocked map[leasedb.Key]bool
	// shunned workers live but did not take what was left for them.
	shunned map[string]bool
}

// plan is what to do about the leases of one role.
type plan struct {
	lost  []leasedb.Key // held no longer: stop at once
	moved []leasedb.Row // ours under a new epoch, which the committer raised
	give  []leasedb.Key // close and release
	// leave are rows that name us without our knowing of it (the answer to a claim was lost, or they lapsed) and that we do
	// not want: release.
	leave []leasedb.Row
	claim []leasedb.Row
	// late are workers that left a lease of their share lying until somebody else had to take it.
	late []string
}

// decide is the whole policy. It is a function of its argument.
//
// The leases that can be taken (given away, or of a silent holder) are dealt out in slot order, each to the worker of the role that
// has fewest; workers that see the same rows deal alike, and each takes only its own part. When nothing is left to be
// dealt, and the fullest worker has at least two more than the emptiest, the fullest (one of them, by rank) gives one away:
// it lands on the emptiest, so the counts draw together with each move, and stop moving when they differ by one at most.
func decide(s state) plan {
	var p plan
	rows := s.rows()
	for _, r := range rows {
		h, ok := s.holds[r.Key]
		if !ok || h.phase == closing {
			continue
		}
		switch {
		case h.lapsed, !s.live, r.Holder != s.me && r.Epoch >= h.epoch:
			p.lost = append(p.lost, r.Key)
		case r.Holder == s.me && r.Epoch > h.epoch:
			p.moved = append(p.moved, r) // nobody but ourselves can have done that
		}
	}
	if !s.live {
		return p
	}
	workers := s.eligible()
	if !slices.Contains(workers, s.me) {
		for _, r := range rows {
			h, busy := s.holds[r.Key]
			switch {
			case busy && h.phase == open && !slices.Contains(p.lost, r.Key):
				p.give = append(p.give, r.Key)
			case !busy && r.Holder == s.me:
				p.leave = append(p.leave, r)
			}
		}
		return p
	}
	p.deal(s, rows, workers)
	if give, ok := s.surplus(rows, workers); ok && len(p.claim) == 0 && len(p.lost) == 0 {
		p.give = append(p.give, give)
	}
	return p
}

// rows are those of the role, by slot.
func (s state) rows() []leasedb.Row {
	var rows []leasedb.Row
	for _, r := range s.watch.snap.Leases {
		if r.Role == s.role {
			rows = append(rows, r)
		}
	}
	return rows
}

// eligible are the boots that leases of the role are spread over, by rank. Workers that have lost NATS are left out
// while any has it.
func (s state) eligible() []string {
	var with, without []string
	for _, w := range s.watch.snap.Workers {
		id := w.Boot.String()
		if !slices.Contains(w.Roles, s.role) || w.Draining || (id == s.me && s.drain) {
			continue
		}
		if id != s.me && s.watch.silent(id, s.timing.Wait) {
			continue
		}
		if w.NATS {
			with = append(with, id)
		} else {
			without = append(without, id)
		}
	}
	if len(with) == 0 {
		with = without
	}
	slices.SortFunc(with, func(a, b string) int {
		if ra, rb := rank(s.role, a), rank(s.role, b); ra != rb {
			if ra < rb {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	return with
}

// rank orders the workers of each role differently, so that roles with one slot do not all fall to one worker.
func rank(role, boot string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(role + "\x00" + boot))
	return h.Sum64()
}

// takeable tells whether anybody may take the lease now.
func (s state) takeable(r leasedb.Row) bool {
	return r.Holder == "" || (r.Holder != s.me && s.watch.idle(r, s.timing.Wait) >= 0)
}

// deal finds what to claim.
func (p *plan) deal(s state, rows []leasedb.Row, workers []string) {
	counts := s.counts(rows, workers)
	for _, r := range rows {
		_, busy := s.holds[r.Key]
		if r.Holder == s.me && !busy && !s.blocked[r.Key] {
			// Ours by the row but not by memory: it lapsed, or the answer to a claim was lost.
			p.claim = append(p.claim, r)
			continue
		}
		if !s.takeable(r) {
			continue
		}
		to := s.emptiest(s.able(r, workers), counts)
		counts[to]++
		if busy || s.blocked[r.Key] {
			continue
		}
		switch {
		case to == s.me:
			p.claim = append(p.claim, r)
		case s.watch.idle(r, s.timing.Wait) >= s.timing.Patience+s.turn(workers):
			p.claim = append(p.claim, r)
			p.late = append(p.late, to)
		}
	}
}

// able are those of the workers that may take the lease by now. One that has just started, perhaps in place of the very holder that was
// killed, has to watch it for the whole wait first: the lease goes to those who have, and is handed over later.
func (s state) able(r leasedb.Row, workers []string) []string {
	if r.Holder == "" {
		return workers
	}
	var old []string
	for _, w := range workers {
		if !s.watch.young(w, s.timing.Wait) {
			old = append(old, w)
		}
	}
	if len(old) == 0 {
		return workers
	}
	return old
}

// turn keeps the workers that lose patience from doing so at once.
func (s state) turn(workers []string) time.Duration {
	return time.Duration(slices.Index(workers, s.me)) * s.timing.Poll
}

// counts is how many leases each worker holds.
func (s state) counts(rows []leasedb.Row, workers []string) map[string]int {
	counts := make(map[string]int, len(workers))
	for _, w := range workers {
		counts[w] = 0
	}
	for _, r := range rows {
		if _, ok := counts[r.Holder]; ok && !s.takeable(r) {
			counts[r.Holder]++
		}
	}
	return counts
}

func (s state) emptiest(workers []string, counts map[string]int) string {
	best := ""
	for _, w := range workers {
		if s.shunned[w] {
			continue
		}
		if best == "" || counts[w] < counts[best] {
			best = w
		}
	}
	if best == "" {
		return s.me
	}
	return best
}

// surplus finds the lease to give away so that the spread becomes even, if it is our turn to.
func (s state) surplus(rows []leasedb.Row, workers []string) (leasedb.Key, bool) {
	counts := s.counts(rows, workers)
	var last leasedb.Key
	found := false
	for _, r := range rows {
		if _, ok := counts[r.Holder]; !ok {
			return last, false // free, or of one that is leaving: these come first
		}
		h, ours := s.holds[r.Key]
		if ours && h.phase != open {
			return last, false // one at a time
		}
		if ours && r.Holder == s.me {
			last, found = r.Key, true
		}
	}
	fullest := workers[0]
	for _, w := range workers {
		if counts[w] > counts[fullest] {
			fullest = w
		}
	}
	emptiest := s.emptiest(workers, counts)
	return last, found && fullest == s.me && counts[fullest]-counts[emptiest] >= 2
}
