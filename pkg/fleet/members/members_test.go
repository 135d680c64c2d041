package members

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/heddle-im/heddle/pkg/route"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/fleetdb"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

func TestTracker(t *testing.T) {
	tr := tracker{deadAfter: 5 * time.Second, forgetAfter: time.Minute, seen: map[string]*seen{}}
	start := time.Now()
	at := func(sec int, counters ...int64) (live []string, forget int) {
		var rows []fleetdb.WorkersRow
		for i, c := range counters {
			if c >= 0 {
				rows = append(rows, fleetdb.WorkersRow{Instance: fmt.Sprintf("w%d", i), Counter: c, Status: []byte("{}")})
			}
		}
		ws, f := tr.observe(rows, start.Add(time.Duration(sec)*time.Second))
		for _, w := range ws {
			live = append(live, w.Instance)
		}
		return live, len(f)
	}
	expect := func(sec int, want []string, counters ...int64) {
		t.Helper()
		got, _ := at(sec, counters...)
		require.Equal(t, want, got)
	}
	expect(0, []string{"w0", "w1"}, 1, 1) // unknown ones count as alive
	expect(3, []string{"w0", "w1"}, 2, 1)
	expect(5, []string{"w0"}, 3, 1) // w1 stood still for 5 s
	expect(6, []string{"w0", "w1"}, 4, 2)
	expect(7, []string{"w0"}, 5, -1) // w1 withdrew
	tr.interrupted()
	expect(60, []string{"w0"}, 5) // nobody could write meanwhile
	expect(64, []string{"w0"}, 5)
	expect(65, nil, 5)
	_, forget := at(119, 5)
	require.Zero(t, forget)
	_, forget = at(120, 5)
	require.Equal(t, 1, forget)
	expect(121, []string{"w0"}, 1) // the same name begins again from 1
}

func register(n int) *Register {
	r := New(nil, Options{})
	var live []Worker
	for i := range n {
		live = append(live, Worker{Instance: fmt.Sprintf("s-%d", i), Kind: route.Synchrotron})
	}
	r.view.Store(newView(live))
	return r
}

// TestRendezvous: when a worker goes, only its keys move.
func TestRendezvous(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 8).Draw(t, "workers")
		key := rapid.StringMatching(`.{1,20}`).Draw(t, "key")
		all := register(n).Rank(route.Synchrotron, key)
		require.Len(t, all, n)
		less := register(n-1).Rank(route.Synchrotron, key)
		want := []string{}
		for _, w := range all {
			if w.Instance != fmt.Sprintf("s-%d", n-1) {
				want = append(want, w.Instance)
			}
		}
		got := []string{}
		for _, w := range less {
			got = append(got, w.Instance)
		}
		require.Equal(t, want, got, "the order of the others stays")
	})
	r, count := register(4), map[string]int{}
	for i := range 4000 {
		w, ok := r.Pick(route.Synchrotron, fmt.Sprintf("user%d", i))
		require.True(t, ok)
		count[w.Instance]++
	}
	for _, n := range count {
		require.InDelta(t, 1000, n, 150)
	}
	seen := map[string]bool{}
	for range 200 {
		w, _ := r.Pick(route.Synchrotron, "")
		seen[w.Instance] = true
	}
	require.Len(t, seen, 4, "an empty key goes anywhere")
	_, ok := r.Pick(route.Master, "x")
	require.False(t, ok)
}

func TestWhoServes(t *testing.T) {
	r := New(nil, Options{})
	r.view.Store(newView([]Worker{
		{Instance: "m", Kind: route.Master, Roles: []string{"writer", "client"}},
		{Instance: "m-sender", Kind: route.Master, Roles: []string{"federation-sender"}},
		{Instance: "s", Kind: route.Synchrotron},
		{Instance: "s-draining", Kind: route.Synchrotron, Status: Status{Draining: true}},
		{Instance: "f-starting", Kind: route.FederationReader, Status: Status{NotReady: true}},
	}))
	names := func(k route.Kind) (out []string) {
		for _, w := range r.Rank(k, "") {
			out = append(out, w.Instance)
		}
		return out
	}
	require.Equal(t, []string{"m"}, names(route.Master))
	require.Equal(t, []string{"s"}, names(route.Synchrotron))
	require.Equal(t, []string{"f-starting"}, names(route.FederationReader), "better than none")
	r.view.Store(newView([]Worker{{Instance: "all", Kind: AllInOne}}))
	for _, k := range route.Kinds() {
		require.Equal(t, []string{"all"}, names(k))
	}
}

type hint chan struct{}

func (h hint) Changed() <-chan struct{} { return h }

// set writes a worker's row as its renewer does, with its counter moved.
func set(t *testing.T, db *pgtest.DB, instance string, kind route.Kind, status string) {
	t.Helper()
	_, err := db.Pool.Exec(t.Context(), `INSERT INTO worker AS w
		(instance, kind, address, version, protocol_min, protocol_max, roles, status) VALUES ($1, $2, '10.0.0.1:8008', 'v1', 1, 2, '{client}', $3)
		ON CONFLICT (instance) DO UPDATE SET counter = w.counter + 1, status = excluded.status`, instance, string(kind), status)
	require.NoError(t, err)
}

func TestRegister(t *testing.T) {
	ctx := t.Context()
	db := pgtest.New(t)
	set(t, db, "m-1", route.Master, `{"not_ready":true,"nats":true}`)
	h := make(hint, 1)
	// The interval is beyond the test's time: what is learned is learned by the hint.
	r := New(fleetdb.New(db.Pool), Options{Interval: time.Hour, Hint: h})
	require.NoError(t, r.Start(ctx))
	defer func() { require.NoError(t, r.Stop(ctx)) }()
	require.Len(t, r.Live(), 1, "known when Start returns")

	set(t, db, "m-1", route.Master, `{"draining":false,"nats":true,"memory_bytes":7,"lag":5,"positions":[1,2],"of_a_later_release":1}`)
	set(t, db, "s-1", route.Synchrotron, `{}`)
	h <- struct{}{}
	require.Eventually(t, func() bool { return len(r.Live()) == 2 }, 20*time.Second, time.Millisecond)
	got, ok := r.Pick(route.Master, "x")
	require.True(t, ok)
	require.Equal(t, Worker{
		Instance: "m-1", Kind: route.Master, Address: "10.0.0.1:8008", Version: "v1", ProtocolMin: 1, ProtocolMax: 2,
		Roles: []string{"client"}, Status: Status{NATS: true, Memory: 7, Lag: 5, Positions: shard.Vector{1, 2}},
	}, got)
	_, err := db.Pool.Exec(ctx, "DELETE FROM worker WHERE instance = 'm-1'")
	require.NoError(t, err)
	h <- struct{}{}
	require.Eventually(t, func() bool { return len(r.Live()) == 1 }, 20*time.Second, time.Millisecond)
	require.NoError(t, r.Stop(ctx))
	require.NoError(t, r.Stop(ctx), "idempotent")
}

// A status that cannot be read is an error and not an empty one: its worker is asked only when nobody else is there.
func TestStatusThatCannotBeRead(t *testing.T) {
	ctx := t.Context()
	db := pgtest.New(t)
	for i, bad := range []string{`[]`, `null`, `"x"`, `{"draining":"yes"}`, `{"positions":{}}`, `{"nats":true,"memory_bytes":"7"}`} {
		set(t, db, fmt.Sprintf("bad-%d", i), route.Synchrotron, bad)
	}
	var said bytes.Buffer
	r := New(fleetdb.New(db.Pool), Options{Log: slog.New(slog.NewTextHandler(&said, nil))})
	require.NoError(t, r.Refresh(ctx))
	require.Len(t, r.Live(), 6)
	for _, w := range r.Live() {
		require.ErrorContains(t, w.StatusError, "read a worker's status", w.Instance)
		require.Equal(t, Status{NotReady: true}, w.Status)
	}
	require.Len(t, r.Rank(route.Synchrotron, "x"), 6)
	require.Equal(t, 6, strings.Count(said.String(), "a worker's status cannot be read"))

	set(t, db, "good", route.Synchrotron, `{"nats":true}`)
	require.NoError(t, r.Refresh(ctx))
	require.Len(t, r.Rank(route.Synchrotron, "x"), 1)
	require.Equal(t, 6, strings.Count(said.String(), "a worker's status cannot be read"), "once")
}

func TestPickMakesNoQuery(t *testing.T) {
	db := pgtest.New(t)
	set(t, db, "x", AllInOne, `{}`)
	r := New(fleetdb.New(db.Pool), Options{})
	require.NoError(t, r.Refresh(t.Context()))
	db.NoQueries(t, func() {
		_, ok := r.Pick(route.Master, "key")
		require.True(t, ok)
	})
}

func TestDeadWorkersAreLeftOutAndForgotten(t *testing.T) {
	ctx := t.Context()
	db := pgtest.New(t)
	store := fleetdb.New(db.Pool)
	set(t, db, "dead", route.Master, `{}`)
	r := New(store, Options{})
	age := func(d time.Duration) {
		t.Helper()
		r.track.seen["dead"].since = time.Now().Add(-d)
		require.NoError(t, r.Refresh(ctx))
	}
	require.NoError(t, r.Refresh(ctx))
	require.Len(t, r.Live(), 1)
	age(6 * time.Second)
	require.Empty(t, r.Live())
	set(t, db, "dead", route.Master, `{}`) // it was only slow
	require.NoError(t, r.Refresh(ctx))
	require.Len(t, r.Live(), 1)
	n, err := store.Forget(ctx, fleetdb.ForgetParams{Instance: "dead", Counter: 0})
	require.NoError(t, err)
	require.Zero(t, n, "a row that moved on is not removed")
	age(11 * time.Minute)
	require.Empty(t, r.Live())
	rows, err := store.Workers(ctx)
	require.NoError(t, err)
	require.Empty(t, rows)
}

func TestRegisterStaysInForceWithoutTheDatabase(t *testing.T) {
	ctx := t.Context()
	db := pgtest.New(t)
	set(t, db, "x", route.Synchrotron, `{}`)
	r := New(fleetdb.New(db.Pool), Options{})
	require.NoError(t, r.Refresh(ctx))
	gone, cancel := context.WithCancel(ctx)
	cancel()
	require.Error(t, r.Refresh(gone))
	require.Len(t, r.Live(), 1)
	require.True(t, r.track.broken)
}

func TestClusterSecret(t *testing.T) {
	ctx := t.Context()
	db := pgtest.New(t)
	_, err := db.Pool.Exec(ctx, "INSERT INTO cluster (server_name, shards, secret) VALUES ('x', 16, 'abc')")
	require.NoError(t, err)
	s, err := fleetdb.New(db.Pool).ClusterSecret(ctx)
	require.NoError(t, err)
	require.Equal(t, []byte("abc"), s)
}

func BenchmarkPick(b *testing.B) {
	r := register(8)
	b.ReportAllocs()
	for b.Loop() {
		r.Pick(route.Synchrotron, "hed_YWxpY2U")
	}
}
