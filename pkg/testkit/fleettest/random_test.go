package fleettest_test

import (
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/testkit/fleettest"
)

// linked is the deployment whose processes can be kept apart.
func linked() fleettest.Spec {
	s := fleettest.Split()
	s.Links = true
	return s
}

// Each two processes are kept apart for a while: silently, so that nobody is told, and with connections that break.
func TestPartitionOfEachTwo(t *testing.T) {
	partitions(t, []string{"master-1>postgres", "synchrotron-1>nats", "nginx>master-2", "synchrotron-2>postgres", "workers>master-1"}, 4*time.Second)
}

// TestRobustnessPartitionOfEachTwo is the long form: all of them, for longer than a lease.
func TestRobustnessPartitionOfEachTwo(t *testing.T) {
	long(t)
	partitions(t, nil, 12*time.Second)
}

func partitions(t *testing.T, names []string, lasting time.Duration) {
	f := fleettest.Start(t, binaries(t), nats, linked())
	l := startLoad(t, f.URL)
	took := stalls{}
	for _, link := range f.Links() {
		if names != nil && !slices.Contains(names, link.Name) {
			continue
		}
		for how, apart := range map[string]func(){"silent": link.Silence, "broken": link.Refuse} {
			what := link.Name + ", " + how
			l.stall()
			writes, arrivals := l.writes.Load(), l.arrived.Load()
			apart()
			pause(lasting)
			writes, arrivals = l.writes.Load()-writes, l.arrived.Load()-arrivals
			link.Heal()
			l.recovered(what)
			pause(time.Second)
			l.recovered(what)
			took[what] = append(took[what], l.stall())
			t.Logf("%s for %s: %d sends and %d arrivals meanwhile", what, lasting, writes, arrivals)
			require.False(t, t.Failed())
		}
	}
	l.finish(l.joined(f.URL))
	took.log(t)
}

// Faults at random, more than one at a time.
func TestRandomFaults(t *testing.T) { randomFaults(t, 5) }

// TestRobustnessRandomFaults is the long form.
func TestRobustnessRandomFaults(t *testing.T) {
	long(t)
	randomFaults(t, number(t, "HEDDLE_TEST_ROUNDS", 20))
}

func number(t testing.TB, name string, otherwise int) int {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		return otherwise
	}
	n, err := strconv.Atoi(v)
	require.NoError(t, err, name)
	return n
}

// injection is a fault that has begun; end undoes it.
type injection struct {
	what string
	end  func()
}

func randomFaults(t *testing.T, rounds int) {
	seed := number(t, "HEDDLE_TEST_SEED", int(rand.Uint32()))
	t.Logf("HEDDLE_TEST_SEED=%d", seed)
	rng := rand.New(rand.NewPCG(uint64(seed), 0))
	f := fleettest.Start(t, binaries(t), nats, linked())
	l := startLoad(t, f.URL)
	for round := range rounds {
		l.stall()
		var now []injection
		struck := map[string]bool{}
		for range 1 + rng.IntN(3) {
			if in, ok := inject(t, f, rng, struck); ok {
				now = append(now, in)
				pause(time.Duration(rng.IntN(1500)) * time.Millisecond)
			}
		}
		pause(time.Duration(rng.IntN(5000)) * time.Millisecond)
		rng.Shuffle(len(now), func(i, j int) { now[i], now[j] = now[j], now[i] })
		var names []string
		for _, in := range now {
			names = append(names, in.what)
			in.end()
			pause(time.Duration(rng.IntN(500)) * time.Millisecond)
		}
		for _, p := range f.Processes() { // a worker that finds no database when it starts ends, and says so
			p.Revive()
		}
		what := strings.Join(names, "; ")
		l.recovered(what)
		t.Logf("round %d: %s; the longest send took %d ms", round+1, what, l.stall().Milliseconds())
		require.False(t, t.Failed())
	}
	l.finish(l.joined(f.URL))
}

// inject does one thing at random to something that is whole.
func inject(t *testing.T, f *fleettest.Fleet, rng *rand.Rand, struck map[string]bool) (injection, bool) {
	t.Helper()
	if rng.IntN(3) == 0 {
		links := f.Links()
		link := links[rng.IntN(len(links))]
		if struck[link.Name] {
			return injection{}, false
		}
		struck[link.Name] = true
		if rng.IntN(2) == 0 {
			link.Silence()
			return injection{link.Name + " silent", link.Heal}, true
		}
		link.Refuse()
		return injection{link.Name + " broken", link.Heal}, true
	}
	all := victims()
	v := all[rng.IntN(len(all))]
	if struck[v] {
		return injection{}, false
	}
	struck[v] = true
	switch how := rng.IntN(3); {
	case v == "postgres" && how == 0:
		f.Database.Pause()
		return injection{v + " paused", f.Database.Resume}, true
	case v == "postgres" && how == 1:
		f.Database.Stop()
		return injection{v + " stopped", f.Database.Start}, true
	case v == "postgres":
		f.Database.Kill()
		return injection{v + " killed", f.Database.Start}, true
	case v == "redis" && how == 0:
		f.Redis.Pause()
		return injection{v + " paused", f.Redis.Resume}, true
	case v == "redis":
		f.Redis.Stop()
		return injection{v + " killed", f.Redis.Start}, true
	case how == 0:
		f.Process(v).Pause()
		return injection{v + " paused", f.Process(v).Resume}, true
	case how == 1 && v != "nats" && v != "nginx": // those two have no order to stop in
		done := make(chan struct{})
		go func() { // waited for by end
			defer close(done)
			f.Process(v).Stop()
		}()
		return injection{v + " stopped", func() { <-done; f.Process(v).Begin() }}, true
	default:
		f.Process(v).Kill()
		return injection{v + " killed", f.Process(v).Begin}, true
	}
}

// A database that restarts in order, and one that is killed, under load.
func TestPostgreSQLRestartsUnderLoad(t *testing.T) {
	f := fleettest.Start(t, binaries(t), nats, fleettest.Split())
	l := startLoad(t, f.URL)
	took := stalls{}
	for i := range number(t, "HEDDLE_TEST_ROUNDS", 2) {
		for how, end := range map[string]func(){"stopped": f.Database.Stop, "killed": f.Database.Kill} {
			l.stall()
			end()
			pause(time.Duration(i) * time.Second)
			f.Database.Start()
			l.recovered("PostgreSQL was " + how)
			pause(time.Second)
			took["PostgreSQL "+how] = append(took["PostgreSQL "+how], l.stall())
		}
	}
	l.finish(l.joined(f.URL))
	took.log(t)
	for _, w := range f.Workers() {
		w.AwaitReady()
		require.False(t, w.Ended(), "%s lives through it", w.Name)
	}
}
