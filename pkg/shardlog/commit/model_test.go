package commit_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/heddle-im/heddle/pkg/shardlog/commit"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/shardlog/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// model is the database, the stream and the leases of a small world in which all goes wrong at some rate.
type model struct {
	mu    sync.Mutex
	rnd   *rand.Rand
	rates rates

	epoch   map[shard.ID]shard.Epoch
	ours    map[shard.ID]bool
	log     map[shard.ID][]placed
	done    map[string][]byte // key → result
	there   map[string]time.Time
	lost    *[]commit.Batch // of an unknown outcome
	invalid time.Time       // no lease is valid before

	published map[shard.ID]shard.Pos
	acked     map[string]bool // operations whose message is in the stream
	wrong     []string
	committer *commit.Committer
	moved     map[shard.ID]shard.Epoch
}

// rates are in percent.
type rates struct{ unavailable, unknown, steal, lapse, noAck, settleFails int }

type placed struct {
	pos shard.Pos
	op  string
}

func newModel(seed uint64, r rates) *model {
	m := &model{
		rnd: rand.New(rand.NewPCG(seed, 1)), rates: r,
		epoch: map[shard.ID]shard.Epoch{}, ours: map[shard.ID]bool{}, log: map[shard.ID][]placed{},
		done: map[string][]byte{}, there: map[string]time.Time{}, published: map[shard.ID]shard.Pos{}, acked: map[string]bool{},
		moved: map[shard.ID]shard.Epoch{},
	}
	for s := range shard.ID(modelShards) {
		m.epoch[s], m.ours[s] = 1, true
	}
	return m
}

const modelShards = 3

func (m *model) complain(format string, args ...any) {
	m.wrong = append(m.wrong, fmt.Sprintf(format, args...))
}

func (m *model) odds(percent int) bool { return m.rnd.IntN(100) < percent }

func (m *model) head(s shard.ID) shard.Pos {
	if l := m.log[s]; len(l) > 0 {
		return l[len(l)-1].pos
	}
	return 0
}

func (m *model) Open(_ context.Context, s shard.ID, e shard.Epoch) (commit.Head, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.epoch[s] != e || !m.ours[s] {
		return commit.Head{}, commit.ErrFenced
	}
	h := m.head(s)
	return commit.Head{Incarnation: 1, Last: h, Next: h + 1}, nil
}

var errBad = errors.New("bad row")

// op is what an entry's body says: its own name, what it is built on, and whether it is refused.
func op(p *entry.Proposal) (name, on string, bad bool) {
	_, err := fmt.Sscanf(string(p.Entries[0].Body), "%s on %s bad %t", &name, &on, &bad)
	if err != nil {
		panic(err)
	}
	return name, on, bad
}

func (m *model) Commit(_ context.Context, batches []commit.Batch) error {
	pass(time.Duration(m.rndN(3)) * time.Millisecond)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lost != nil {
		m.complain("a transaction was begun before the outcome of another was known")
	}
	if m.odds(m.rates.unavailable) {
		return commit.ErrUnavailable
	}
	fenced := &commit.FencedError{}
	repeated := &commit.RepeatedError{Results: map[*entry.Proposal][]byte{}}
	bad := false
	last := -1
	for _, b := range batches {
		if int(b.Shard) <= last {
			m.complain("shards are not in ascending order")
		}
		last = int(b.Shard)
		if m.epoch[b.Shard] != b.Epoch || !m.ours[b.Shard] {
			fenced.Shards = append(fenced.Shards, b.Shard)
			continue
		}
		for _, p := range b.Proposals {
			if result, ok := m.done[string(p.Key)]; ok {
				repeated.Results[p.Proposal] = result
			}
			_, _, isBad := op(p.Proposal)
			bad = bad || isBad
		}
	}
	switch {
	case len(fenced.Shards) > 0:
		return fenced
	case len(repeated.Results) > 0:
		return repeated
	case bad:
		return errBad
	}
	if m.odds(m.rates.unknown) {
		c := append([]commit.Batch(nil), batches...)
		m.lost = &c
		if m.odds(50) {
			m.store(batches)
		}
		return fmt.Errorf("cut: %w", commit.ErrUnknownOutcome)
	}
	m.store(batches)
	return nil
}

func (m *model) rndN(n int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rnd.IntN(n)
}

func (m *model) store(batches []commit.Batch) {
	for _, b := range batches {
		if b.Prev != m.head(b.Shard) {
			m.complain("shard %d: batch begins after %d, head is %d", b.Shard, b.Prev, m.head(b.Shard))
		}
		for _, p := range b.Proposals {
			name, on, _ := op(p.Proposal)
			if on != "-" {
				if _, ok := m.there[on]; !ok {
					m.complain("%s is committed, which was built on %s, which is not", name, on)
				}
			}
			if _, ok := m.there[name]; ok {
				m.complain("%s is committed twice", name)
			}
			m.there[name] = time.Now()
			m.done[string(p.Key)] = p.Result
			for i := range p.Entries {
				pos := p.Place.Pos(i)
				if pos != m.head(b.Shard)+1 {
					m.complain("shard %d: position %d after %d", b.Shard, pos, m.head(b.Shard))
				}
				m.log[b.Shard] = append(m.log[b.Shard], placed{pos, name})
			}
		}
		if b.Last != m.head(b.Shard) {
			m.complain("shard %d: batch says %d, ends at %d", b.Shard, b.Last, m.head(b.Shard))
		}
	}
}

func (m *model) Settle(_ context.Context, batches []commit.Batch) ([]commit.Verdict, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lost == nil {
		m.complain("settled what was not unknown")
		return nil, nil
	}
	if m.odds(m.rates.settleFails) {
		return nil, errors.New("no connection")
	}
	var vs []commit.Verdict
	for _, b := range batches {
		v := commit.Verdict{Shard: b.Shard, Held: m.ours[b.Shard] && m.epoch[b.Shard] == b.Epoch}
		name, _, _ := op(b.Proposals[0].Proposal)
		_, v.Committed = m.there[name]
		if v.Held {
			m.epoch[b.Shard]++
			v.Epoch = m.epoch[b.Shard]
		}
		vs = append(vs, v)
	}
	m.lost = nil
	return vs, nil
}

// Publish implements Publisher: what is not acknowledged may be in the stream or not.
func (m *model) Publish(s shard.ID, message []byte, acked func(error)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b wire.Batch
	if err := proto.Unmarshal(message, &b); err != nil || b.GetShard() != uint32(s) {
		m.complain("message is no batch: %v", err)
		return
	}
	if shard.Pos(b.GetPrev()) < m.published[s] {
		m.complain("shard %d: message after %d came after one up to %d", s, b.GetPrev(), m.published[s])
	}
	m.published[s] = shard.Pos(b.GetLast())
	if m.odds(m.rates.noAck) {
		if m.odds(50) {
			acked(errors.New("no stream"))
		}
		return
	}
	delay := time.Duration(m.rnd.IntN(130)) * time.Millisecond
	time.AfterFunc(delay, func() {
		m.mu.Lock()
		for _, e := range b.GetEntries() {
			name, _, _ := op(&entry.Proposal{Entries: []entry.Entry{{Body: e.GetBody()}}})
			m.acked[name] = true
		}
		m.mu.Unlock()
		acked(nil)
	})
}

func (m *model) Valid(s shard.ID, e shard.Epoch) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !time.Now().Before(m.invalid) && m.ours[s] && m.epoch[s] == e
}

func (m *model) Moved(s shard.ID, _, to shard.Epoch) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.moved[s] = to
}

func (m *model) Lost(shard.ID, shard.Epoch) {}

// chaos takes shards away, gives them back, and lets leases lapse, until stop.
func (m *model) chaos(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(5 * time.Millisecond):
		}
		m.mu.Lock()
		s := shard.ID(m.rnd.IntN(modelShards))
		steal, lapse := m.odds(m.rates.steal), m.odds(m.rates.lapse)
		if lapse {
			m.invalid = time.Now().Add(time.Duration(m.rnd.IntN(100)) * time.Millisecond)
		}
		if steal {
			m.epoch[s]++
			m.ours[s] = false
		}
		m.mu.Unlock()
		if !steal {
			continue
		}
		pass(10 * time.Millisecond)
		m.mu.Lock()
		m.epoch[s]++
		m.ours[s] = true
		e := m.epoch[s]
		m.mu.Unlock()
		m.committer.Drop(s)
		if err := m.committer.Open(context.Background(), s, e); err != nil && !errors.Is(err, commit.ErrFenced) {
			m.mu.Lock()
			m.complain("open: %v", err)
			m.mu.Unlock()
		}
	}
}

func (m *model) epochOf(s shard.ID) shard.Epoch {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.epoch[s]
}

// room does operations one on the other, several ahead of what is committed; what fails is done again from there.
func (m *model) room(name string, s shard.ID, ops int, badAt int) {
	type flying struct {
		n  int
		tk *commit.Ticket
	}
	var out []flying
	chain := &entry.Chain{}
	next, on := 0, "-"
	committed := -1 // the last operation known to be there
	refused := map[int]bool{}
	for deadline := time.Now().Add(10 * time.Minute); committed < ops-1; {
		if time.Now().After(deadline) {
			m.mu.Lock()
			m.complain("%s makes no progress after %d of %d", name, committed+1, ops)
			m.mu.Unlock()
			return
		}
		for len(out) < 4 && next < ops && !chain.Broken() {
			id := fmt.Sprintf("%s/%d", name, next)
			bad := next == badAt && !refused[next]
			p := &entry.Proposal{
				Shard: s, Epoch: m.epochOf(s), Chain: chain, Key: []byte(id), Result: []byte("result of " + id),
				Entries: []entry.Entry{{Kind: entry.KindEvent, Body: fmt.Appendf(nil, "%s on %s bad %t", id, on, bad)}},
			}
			out = append(out, flying{next, m.committer.Submit(p)})
			next, on = next+1, id
		}
		if len(out) == 0 { // the chain broke before anything could be submitted
			next = committed + 1
			chain, on = &entry.Chain{}, before(name, committed)
			pass(3 * time.Millisecond)
			continue
		}
		f := out[0]
		out = out[1:]
		got, err := f.tk.Wait(context.Background())
		m.answered(name, f.n, got, err)
		if errors.Is(err, errBad) {
			refused[f.n] = true
		}
		if err == nil && f.n == committed+1 {
			committed = f.n
		}
		if err != nil || got.Repeated {
			for _, rest := range out { // whatever became of them, they were built on it
				o, err := rest.tk.Wait(context.Background())
				m.answered(name, rest.n, o, err)
			}
			out = nil
			chain.Break()
		}
	}
}

func before(name string, committed int) string {
	if committed < 0 {
		return "-"
	}
	return fmt.Sprintf("%s/%d", name, committed)
}

func (m *model) answered(name string, n int, got commit.Outcome, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	id := fmt.Sprintf("%s/%d", name, n)
	at, there := m.there[id]
	switch {
	case err == nil && !there:
		m.complain("%s is answered and not there", id)
	case err == nil && string(got.Result) != "result of "+id:
		m.complain("%s is answered %q", id, got.Result)
	case err == nil && !got.Repeated && !m.acked[id] && time.Since(at) < time.Second:
		m.complain("%s is answered %s after its commit, without being in the stream", id, time.Since(at))
	case errors.Is(err, errBad) && there:
		m.complain("%s failed and is there", id)
	}
}

func TestCommitterAgainstModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := rates{
			unavailable: rapid.SampledFrom([]int{0, 0, 10, 40}).Draw(rt, "unavailable"),
			unknown:     rapid.SampledFrom([]int{0, 0, 10, 30}).Draw(rt, "unknown"),
			steal:       rapid.SampledFrom([]int{0, 0, 5, 20}).Draw(rt, "steal"),
			lapse:       rapid.SampledFrom([]int{0, 0, 10}).Draw(rt, "lapse"),
			noAck:       rapid.SampledFrom([]int{0, 10, 100}).Draw(rt, "noAck"),
			settleFails: rapid.SampledFrom([]int{0, 50}).Draw(rt, "settleFails"),
		}
		m := newModel(rapid.Uint64().Draw(rt, "seed"), r)
		rooms := rapid.IntRange(1, 8).Draw(rt, "rooms")
		maxRows := rapid.SampledFrom([]int{2, 5, 1000}).Draw(rt, "maxRows")
		badAt := make([]int, rooms)
		for i := range badAt {
			badAt[i] = rapid.IntRange(-1, 11).Draw(rt, "badAt")
		}
		synctest.Test(t, func(t *testing.T) {
			m.committer = commit.New(commit.Config{MaxRows: maxRows}, commit.Options{Store: m, Publisher: m, Leases: m})
			ctx := context.Background()
			require.NoError(t, m.committer.Start(ctx))
			for s := range shard.ID(modelShards) {
				require.NoError(t, m.committer.Open(ctx, s, 1))
			}
			stop := make(chan struct{})
			var chaos, wg sync.WaitGroup
			chaos.Go(func() { m.chaos(stop) })
			for i := range rooms {
				wg.Go(func() { m.room(fmt.Sprintf("room%d", i), shard.ID(i%modelShards), 12, badAt[i]) })
			}
			wg.Wait()
			close(stop)
			chaos.Wait()
			require.NoError(t, m.committer.Stop(ctx))
			synctest.Wait()
			pass(time.Second) // acknowledgements that nobody waits for
		})
		for i := range rooms {
			for n := range 12 {
				if _, ok := m.there[fmt.Sprintf("room%d/%d", i, n)]; !ok {
					m.complain("room%d/%d is not there", i, n)
				}
			}
		}
		if len(m.wrong) > 0 {
			rt.Fatalf("%d complaints, first: %s", len(m.wrong), m.wrong[0])
		}
	})
}
