package lease

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/leasedb"
)

// The model: a database, and processes that send it renewals, looks, claims and releases, each in three steps that may come
// at any time after one another (sent, has its effect, answer arrives). The decisions are those of term.go, watch.go and plan.go.

type message struct {
	on       bool
	effected bool
	sent     time.Duration // on the sender's clock
	snap     leasedb.Snapshot
	row      leasedb.Row
	gen      uint64
	ok       bool
	epoch    shard.Epoch
}

type modelHold struct {
	hold
	gen     uint64
	granted bool
}

type proc struct {
	life   leasedb.Life
	id     string
	dead   bool
	drain  bool
	offset time.Duration // of its clock
	slow   int           // its clock runs slow by so many per cent
	term   term
	watch  *watch
	holds  map[leasedb.Key]modelHold

	renew, look, claim, release message
	todo, leave                 []leasedb.Row
	raised                      shard.Epoch // how often, since it last looked
}

type world struct {
	timing    Timing
	now       time.Duration
	leases    []leasedb.Row
	procs     []*proc
	keepGrant bool // a planted fault: a lapse does not end the grants
	changes   int  // of the leases
}

const modelRole = "r"

func newWorld(procs, slots int, timing Timing) *world {
	w := &world{timing: timing}
	for i := range slots {
		w.leases = append(w.leases, leasedb.Row{Key: leasedb.Key{Role: modelRole, Slot: i}})
	}
	for range procs {
		w.join()
	}
	return w
}

func (w *world) join() {
	boot := leasedb.Boot{Instance: fmt.Sprintf("m%d", len(w.procs)), Started: time.UnixMicro(int64(len(w.procs)))}
	p := &proc{
		life: leasedb.Life{Boot: boot, Roles: []string{modelRole}, NATS: true}, id: boot.String(),
		offset: time.Duration(len(w.procs)) * time.Hour, watch: newWatch(), holds: map[leasedb.Key]modelHold{},
		term: term{valid: w.timing.Valid},
	}
	w.procs = append(w.procs, p)
	p.term = p.term.renewed(w.clock(p), w.clock(p)) // registering is the first renewal
}

func (w *world) clock(p *proc) time.Duration {
	return p.offset + w.now*time.Duration(100-p.slow)/100
}

func (w *world) snapshot() leasedb.Snapshot {
	s := leasedb.Snapshot{Leases: slices.Clone(w.leases)}
	for _, p := range w.procs {
		if !p.dead || p.life.Counter >= 0 {
			s.Workers = append(s.Workers, p.life)
		}
	}
	return s
}

func (w *world) valid(p *proc, k leasedb.Key) (shard.Epoch, bool) {
	h, ok := p.holds[k]
	live := p.term.live(w.clock(p)) && (h.gen == p.term.gen || w.keepGrant)
	return h.epoch, ok && h.granted && live && !p.dead
}

// safe is the promise: whoever is valid is the one that the row names, so there are never two; and under the epoch of the row,
// but for those that it has itself raised a moment ago.
func (w *world) safe() error {
	for _, l := range w.leases {
		for _, p := range w.procs {
			if epoch, ok := w.valid(p, l.Key); ok && (l.Holder != p.id || l.Epoch < epoch || l.Epoch > epoch+p.raised) {
				return fmt.Errorf("%s believes in %s under epoch %d; the row says %q, %d", p.id, l.Key, epoch, l.Holder, l.Epoch)
			}
		}
	}
	return nil
}

// What can happen to a process; each returns false if it cannot happen now.

func (w *world) renewSend(p *proc) bool {
	if p.renew.on {
		return false
	}
	p.renew = message{on: true, sent: w.clock(p)}
	return true
}

func (w *world) renewEffect(p *proc) bool {
	if !p.renew.on || p.renew.effected {
		return false
	}
	p.life.Counter++
	p.renew.effected = true
	return true
}

func (w *world) renewArrive(p *proc) bool {
	if !p.renew.on || !p.renew.effected {
		return false
	}
	p.term = p.term.renewed(p.renew.sent, w.clock(p))
	p.renew = message{}
	return true
}

func (w *world) lookSend(p *proc) bool {
	if p.look.on || p.claim.on || p.release.on || len(p.todo) > 0 || len(p.leave) > 0 {
		return false
	}
	p.look = message{on: true, sent: w.clock(p)}
	return true
}

func (w *world) lookEffect(p *proc) bool {
	if !p.look.on || p.look.effected {
		return false
	}
	p.look.snap, p.look.effected = w.snapshot(), true
	return true
}

func (w *world) lookArrive(p *proc) bool {
	if !p.look.on || !p.look.effected {
		return false
	}
	p.watch.look(p.look.snap, p.look.sent, w.clock(p))
	p.look = message{}
	s := state{
		me: p.id, role: modelRole, timing: w.timing, watch: p.watch, live: p.term.live(w.clock(p)), drain: p.drain,
		holds: map[leasedb.Key]hold{},
	}
	for k, h := range p.holds {
		if h.gen != p.term.gen && !w.keepGrant {
			h.lapsed = true
		}
		s.holds[k] = h.hold
	}
	plan := decide(s)
	for _, k := range plan.lost {
		p.raised = 0
		delete(p.holds, k)
	}
	for _, r := range plan.moved {
		h := p.holds[r.Key]
		p.raised -= r.Epoch - h.epoch
		h.epoch = r.Epoch
		p.holds[r.Key] = h
	}
	for _, k := range plan.give {
		h := p.holds[k]
		h.phase = closing
		p.holds[k] = h
	}
	p.todo, p.leave = plan.claim, plan.leave
	return true
}

func (w *world) claimSend(p *proc) bool {
	if p.claim.on || len(p.todo) == 0 {
		return false
	}
	row := p.todo[0]
	p.todo = p.todo[1:]
	if p.term.live(w.clock(p)) {
		p.claim = message{on: true, row: row, gen: p.term.gen}
	}
	return true
}

func (w *world) claimEffect(p *proc) bool {
	if !p.claim.on || p.claim.effected {
		return false
	}
	p.claim.effected = true
	if l := &w.leases[p.claim.row.Slot]; l.Epoch == p.claim.row.Epoch {
		l.Epoch, l.Holder = l.Epoch+1, p.id
		p.claim.ok, p.claim.epoch = true, l.Epoch
		w.changes++
	}
	return true
}

func (w *world) claimArrive(p *proc) bool {
	if !p.claim.on || !p.claim.effected {
		return false
	}
	if m := p.claim; m.ok {
		p.holds[m.row.Key] = modelHold{hold: hold{epoch: m.epoch, phase: open}, gen: m.gen, granted: true}
	}
	p.claim = message{}
	return true
}

// releaseSend is the end of Closing: the grant goes first, then the row.
func (w *world) releaseSend(p *proc) bool {
	if p.release.on {
		return false
	}
	if len(p.leave) > 0 {
		p.release = message{on: true, row: p.leave[0], epoch: p.leave[0].Epoch}
		p.leave = p.leave[1:]
		return true
	}
	for _, k := range slices.SortedFunc(maps.Keys(p.holds), func(a, b leasedb.Key) int { return a.Slot - b.Slot }) {
		if h := p.holds[k]; h.phase == closing {
			h.granted = false
			p.holds[k] = h
			p.release = message{on: true, row: leasedb.Row{Key: k}, epoch: h.epoch}
			return true
		}
	}
	return false
}

func (w *world) releaseEffect(p *proc) bool {
	if !p.release.on || p.release.effected {
		return false
	}
	p.release.effected = true
	if l := &w.leases[p.release.row.Slot]; l.Epoch == p.release.epoch && l.Holder == p.id {
		l.Epoch, l.Holder = l.Epoch+1, ""
		w.changes++
	}
	return true
}

func (w *world) releaseArrive(p *proc) bool {
	if !p.release.on || !p.release.effected {
		return false
	}
	delete(p.holds, p.release.row.Key)
	p.release = message{}
	return true
}

// raise is what the committer does after a COMMIT of unknown outcome, without telling.
func (w *world) raise(p *proc) bool {
	for i := range w.leases {
		l := &w.leases[i]
		if h, ok := p.holds[l.Key]; ok && h.phase == open && l.Holder == p.id && p.raised == 0 && l.Epoch == h.epoch {
			l.Epoch++
			p.raised++
			return true
		}
	}
	return false
}

// cut loses the session: what is under way has its effect or not, and is never answered.
func (w *world) cut(p *proc) bool {
	if p.claim.on && !p.claim.effected {
		w.claimEffect(p) // the worse of the two
	}
	if p.release.on {
		w.releaseEffect(p)
		delete(p.holds, p.release.row.Key)
	}
	p.look, p.claim, p.release, p.todo = message{}, message{}, message{}, nil
	p.leave = nil
	p.watch = newWatch()
	return true
}

func (w *world) loseRenewal(p *proc) bool {
	if !p.renew.on {
		return false
	}
	p.renew = message{}
	return true
}

var steps = []struct {
	name string
	do   func(*world, *proc) bool
}{
	{"renewSend", (*world).renewSend},
	{"renewEffect", (*world).renewEffect},
	{"renewArrive", (*world).renewArrive},
	{"lookSend", (*world).lookSend},
	{"lookEffect", (*world).lookEffect},
	{"lookArrive", (*world).lookArrive},
	{"claimSend", (*world).claimSend},
	{"claimEffect", (*world).claimEffect},
	{"claimArrive", (*world).claimArrive},
	{"releaseSend", (*world).releaseSend},
	{"releaseEffect", (*world).releaseEffect},
	{"releaseArrive", (*world).releaseArrive},
	{"cut", (*world).cut},
	{"loseRenewal", (*world).loseRenewal},
	{"raise", (*world).raise},
}

// calm lets everybody who lives run as it should for some time.
func (w *world) calm(d time.Duration) error {
	const tick = 50 * time.Millisecond
	for end := w.now + d; w.now < end; w.now += tick {
		for i, p := range w.procs {
			if p.dead {
				continue
			}
			phase := w.now + time.Duration(i)*tick
			if phase%w.timing.Renew < tick {
				_ = w.renewSend(p)
				w.renewEffect(p)
				w.renewArrive(p)
			}
			if phase%w.timing.Poll < tick {
				_ = w.lookSend(p)
				w.lookEffect(p)
				w.lookArrive(p)
			}
			for w.claimSend(p) || w.claimEffect(p) || w.claimArrive(p) || w.releaseSend(p) || w.releaseEffect(p) || w.releaseArrive(p) {
				if err := w.safe(); err != nil {
					return err
				}
			}
		}
		if err := w.safe(); err != nil {
			return err
		}
	}
	return nil
}

// settled tells what is missing from: every lease owned by one that lives, and evenly.
func (w *world) settled() error {
	counts := map[string]int{}
	for _, p := range w.procs {
		if !p.dead && !p.drain {
			counts[p.id] = 0
		}
	}
	if len(counts) == 0 {
		return nil
	}
	for _, l := range w.leases {
		if _, ok := counts[l.Holder]; !ok {
			return fmt.Errorf("%s is held by %q", l.Key, l.Holder)
		}
		counts[l.Holder]++
		for _, p := range w.procs {
			if _, ok := w.valid(p, l.Key); ok != (p.id == l.Holder) {
				return fmt.Errorf("%s is held by %q, but valid for %q: %v", l.Key, l.Holder, p.id, ok)
			}
		}
	}
	n := slices.Collect(maps.Values(counts))
	if slices.Max(n)-slices.Min(n) > 1 {
		return fmt.Errorf("uneven: %v", counts)
	}
	return nil
}

func run(t *rapid.T, w *world, p *proc, name string, do func(*world, *proc) bool) {
	if p.dead {
		return
	}
	if do(w, p) {
		if err := w.safe(); err != nil {
			t.Fatalf("after %s of %s at %s: %v", name, p.id, w.now, err)
		}
	}
}

func TestModelAnythingGoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(rapid.IntRange(1, 4).Draw(t, "procs"), rapid.IntRange(1, 6).Draw(t, "slots"), DefaultTiming())
		for _, p := range w.procs {
			p.slow = rapid.IntRange(-10, 10).Draw(t, "slow")
		}
		for range rapid.IntRange(0, 150).Draw(t, "steps") {
			p := w.procs[rapid.IntRange(0, len(w.procs)-1).Draw(t, "proc")]
			switch n := rapid.IntRange(0, len(steps)+9).Draw(t, "step"); {
			case n < len(steps):
				run(t, w, p, steps[n].name, steps[n].do)
			case n == len(steps): // is killed; one stays
				if rapid.IntRange(0, 4).Draw(t, "kill") == 0 && p != w.procs[0] {
					p.dead = true
				}
			case n == len(steps)+1:
				if rapid.IntRange(0, 4).Draw(t, "drain") == 0 && p != w.procs[0] {
					p.drain, p.life.Draining = true, true
				}
			case n == len(steps)+2:
				if len(w.procs) < 6 {
					w.join()
				}
			case n == len(steps)+3: // a burst in order, so that more than noise happens
				for range 8 {
					for _, s := range steps[:12] {
						run(t, w, p, s.name, s.do)
					}
				}
			default:
				w.now += time.Duration(rapid.IntRange(1, 1200).Draw(t, "ms")) * time.Millisecond
				if err := w.safe(); err != nil {
					t.Fatalf("after waiting: %v", err)
				}
			}
		}
		// Whatever it was, it ends well within bounded time, and then nothing moves.
		bound := w.timing.Wait*11/10 + w.timing.Patience + w.timing.Valid + time.Duration(6+4*len(w.leases))*w.timing.Poll
		if err := w.calm(bound); err != nil {
			t.Fatal(err)
		}
		if err := w.settled(); err != nil {
			t.Fatal(err)
		}
		before := w.changes
		if err := w.calm(5 * time.Second); err != nil {
			t.Fatal(err)
		}
		if w.changes != before {
			t.Fatalf("%d leases changed although nothing happened", w.changes-before)
		}
	})
}

func TestModelMovesNoMoreThanNeeded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, slots := rapid.IntRange(1, 5).Draw(t, "procs"), rapid.IntRange(1, 24).Draw(t, "slots")
		w := newWorld(n, slots, DefaultTiming())
		require.NoError(t, w.calm(2*time.Second))
		require.NoError(t, w.settled())
		require.Equal(t, slots, w.changes, "each lease is taken once")
		// One joins: it gets its share, each by one release and one claim, and no other moves.
		w.join()
		require.NoError(t, w.calm(time.Duration(slots+2)*time.Second))
		require.NoError(t, w.settled())
		share := slots / (n + 1)
		require.LessOrEqual(t, w.changes-slots, 2*(share+1))
		require.GreaterOrEqual(t, w.changes-slots, 2*share)
		// It is killed: what it held is taken once, after the wait and soon.
		before, gone := w.changes, w.procs[n]
		held := 0
		for _, l := range w.leases {
			if l.Holder == gone.id {
				held++
			}
		}
		gone.dead = true
		require.NoError(t, w.calm(w.timing.Wait+2*w.timing.Renew+2*w.timing.Poll))
		for _, l := range w.leases {
			require.NotEqual(t, gone.id, l.Holder)
		}
		require.NoError(t, w.settled())
		require.Equal(t, held, w.changes-before)
	})
}

func TestModelAWorkerThatDoesNotTakeItsShareHoldsNothingUp(t *testing.T) {
	w := newWorld(2, 4, DefaultTiming())
	idle := w.procs[1]
	// It renews, and never looks.
	idle.look = message{on: true, effected: false}
	for range 200 {
		w.now += 50 * time.Millisecond
		idle.life.Counter++
		idle.dead = true // for calm only
		require.NoError(t, w.calm(50*time.Millisecond))
	}
	for _, l := range w.leases {
		require.Equal(t, w.procs[0].id, l.Holder)
	}
}

// ---- every order of steps, for a world that is small enough

// key says what a state is, but for what cannot make a difference: absolute times, counters and epochs.
func (w *world) key() string {
	var b strings.Builder
	ago := func(p *proc, t time.Duration) int {
		return int(min(w.clock(p)-t, 5*time.Second) / time.Second)
	}
	for _, l := range w.leases {
		fmt.Fprintf(&b, "L%s;", l.Holder)
	}
	rel := func(r leasedb.Row) shard.Epoch { return w.leases[r.Slot].Epoch - r.Epoch }
	snap := func(s leasedb.Snapshot) {
		for _, r := range s.Leases {
			fmt.Fprintf(&b, "%d%s,", min(rel(r), 3), r.Holder)
		}
		for i, l := range s.Workers {
			fmt.Fprintf(&b, "%d,", min(w.procs[i].life.Counter-l.Counter, 2))
		}
	}
	for _, p := range w.procs {
		fmt.Fprintf(&b, "\nT%d,%v,%d;", min(ago(p, p.term.sent), 3), p.term.gen == 0, p.raised)
		for _, m := range []message{p.renew, p.look, p.claim, p.release} {
			fmt.Fprintf(&b, "%v%v", m.on, m.effected)
			if m.on {
				fmt.Fprintf(&b, "%d,%v,%v,%d,%d;", ago(p, m.sent), m.gen == p.term.gen, m.ok,
					min(rel(m.row), 3), min(w.leases[0].Epoch-m.epoch, 3))
				snap(m.snap)
			}
		}
		for _, r := range p.todo {
			fmt.Fprintf(&b, "C%d%s;", min(rel(r), 3), r.Holder)
		}
		for _, r := range p.leave {
			fmt.Fprintf(&b, "R%d;", min(rel(r), 3))
		}
		for _, k := range slices.SortedFunc(maps.Keys(p.holds), func(a, b leasedb.Key) int { return a.Slot - b.Slot }) {
			h := p.holds[k]
			fmt.Fprintf(&b, "H%d,%d,%v,%v;", min(w.leases[k.Slot].Epoch-h.epoch, 3), h.phase, h.gen == p.term.gen, h.granted)
		}
		snap(p.watch.snap)
		for _, l := range w.leases {
			if s := p.watch.leases[l.Key]; s != nil {
				fmt.Fprintf(&b, "W%d,%d,%s;", ago(p, s.since), min(l.Epoch-s.epoch, 3), s.holder)
			}
		}
		for _, o := range w.procs {
			if s := p.watch.boots[o.id]; s != nil {
				fmt.Fprintf(&b, "B%d,%d;", ago(p, s.since), min(o.life.Counter-s.counter, 2))
			}
		}
	}
	return b.String()
}

func (w *world) clone() *world {
	c := *w
	c.leases = slices.Clone(w.leases)
	c.procs = make([]*proc, len(w.procs))
	for i, p := range w.procs {
		q := *p
		q.holds, q.todo = maps.Clone(p.holds), slices.Clone(p.todo)
		q.leave = slices.Clone(p.leave)
		q.watch = &watch{leases: map[leasedb.Key]*seenLease{}, boots: map[string]*seenBoot{}, now: p.watch.now, snap: p.watch.snap}
		for k, v := range p.watch.leases {
			l := *v
			q.watch.leases[k] = &l
		}
		for k, v := range p.watch.boots {
			s := *v
			q.watch.boots[k] = &s
		}
		c.procs[i] = &q
	}
	return &c
}

// explore visits every state that can be reached, or limit of them, nearest first, and returns the first
// fault; whole tells that there are no more.
func explore(w *world, limit int, may func(proc int, step string) bool) (states int, whole bool, fault error) {
	seen := map[string]bool{w.key(): true}
	queue := []*world{w}
	visit := func(n *world) error {
		if err := n.safe(); err != nil {
			return err
		}
		if k := n.key(); !seen[k] {
			seen[k] = true
			queue = append(queue, n)
		}
		return nil
	}
	for len(queue) > 0 && len(seen) < limit {
		w := queue[0]
		queue = queue[1:]
		n := w.clone()
		n.now += time.Second
		if err := visit(n); err != nil {
			return len(seen), false, err
		}
		for i := range w.procs {
			for _, s := range steps {
				if !may(i, s.name) {
					continue
				}
				n := w.clone()
				if s.do(n, n.procs[i]) {
					if err := visit(n); err != nil {
						return len(seen), false, fmt.Errorf("%s of %d: %w", s.name, i, err)
					}
				}
			}
		}
	}
	return len(seen), len(queue) == 0, nil
}

// coarse counts in whole seconds, so that the states are few.
func coarse() Timing {
	return Timing{Renew: time.Second, Poll: time.Second, Valid: 2 * time.Second, Wait: 3 * time.Second, Patience: time.Second}
}

// owned is a world in which the first of two holds the one lease, as the second knows.
func owned(timing Timing) *world {
	w := newWorld(2, 1, timing)
	p := w.procs[0]
	w.leases[0].Epoch, w.leases[0].Holder = 1, p.id
	p.holds[w.leases[0].Key] = modelHold{hold: hold{epoch: 1, phase: open}, gen: p.term.gen, granted: true}
	return w
}

// tireless lets the second, which only claims, live without renewals.
func tireless(w *world) *world {
	w.procs[1].term.valid = 1000 * time.Hour
	return w
}

const exploreStates = 60_000

func anything(int, string) bool { return true }

// duel lets the holder do nothing but renew, and the other nothing but look and claim: the heart of the matter, small enough to
// visit all of it.
func duel(proc int, step string) bool {
	if proc == 0 {
		return strings.HasPrefix(step, "renew") || step == "loseRenewal"
	}
	return strings.HasPrefix(step, "look") || strings.HasPrefix(step, "claim")
}

func TestModelEveryOrder(t *testing.T) {
	if testing.Short() {
		t.Skip("visits some hundred thousand states")
	}
	t.Parallel()
	n, whole, err := explore(tireless(owned(coarse())), 10*exploreStates, duel)
	require.NoError(t, err)
	require.True(t, whole, "%d states are not all", n)
	t.Logf("all %d states", n)
}

func TestModelAnyOrder(t *testing.T) {
	limit := exploreStates
	if testing.Short() {
		limit /= 10
	}
	n, _, err := explore(owned(coarse()), limit, anything)
	t.Logf("%d states", n)
	require.NoError(t, err)
}

// The search must be able to find what it looks for.
func TestModelFindsPlantedFaults(t *testing.T) {
	hasty := coarse()
	hasty.Wait = time.Second
	n, _, err := explore(tireless(owned(hasty)), exploreStates, duel)
	require.Error(t, err, "a claimant that does not wait long enough; %d states", n)

	w := tireless(owned(coarse()))
	w.keepGrant = true
	n, _, err = explore(w, 10*exploreStates, duel)
	require.Error(t, err, "a late renewal that revives what has lapsed; %d states", n)
}
