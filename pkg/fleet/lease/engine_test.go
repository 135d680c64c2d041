package lease_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/fleet/lease"
	"github.com/heddle-im/heddle/pkg/infra/bus"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/leasedb"
	"github.com/heddle-im/heddle/pkg/testkit/bustest"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
)

func TestMain(m *testing.M) {
	if dsn := os.Getenv(childDSN); dsn != "" {
		os.Exit(child(dsn))
	}
	os.Exit(pgtest.Run(m))
}

const (
	shards  = 8
	patient = 40 * time.Second // for what must happen some time, on a busy machine
)

// owner records what it is told, and what it should not have been.
type owner struct {
	mu       sync.Mutex
	open     map[int]shard.Epoch
	busy     map[int]bool
	closing  int
	most     int // closings at a time
	faults   []string
	refuse   error
	onOpen   func(slot int, epoch shard.Epoch)
	closings int
}

func newOwner() *owner { return &owner{open: map[int]shard.Epoch{}, busy: map[int]bool{}} }

func (o *owner) begin(slot int, what string) {
	if o.busy[slot] {
		o.faults = append(o.faults, fmt.Sprintf("%s of %d beside another call", what, slot))
	}
	o.busy[slot] = true
}

func (o *owner) Opened(_ context.Context, slot int, epoch shard.Epoch) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.begin(slot, "opened")
	defer func() { o.busy[slot] = false }()
	if o.refuse != nil {
		return o.refuse
	}
	if _, ok := o.open[slot]; ok {
		o.faults = append(o.faults, fmt.Sprintf("%d opened twice", slot))
	}
	o.open[slot] = epoch
	if o.onOpen != nil {
		o.onOpen(slot, epoch)
	}
	return nil
}

func (o *owner) Closing(_ context.Context, slot int) {
	o.mu.Lock()
	o.begin(slot, "closing")
	if _, ok := o.open[slot]; !ok {
		o.faults = append(o.faults, fmt.Sprintf("%d closed but not open", slot))
	}
	delete(o.open, slot)
	o.closing++
	o.closings++
	o.most = max(o.most, o.closing)
	o.mu.Unlock()
	time.Sleep(time.Millisecond) //nolint:forbidigo // stands for a batch in flight
	o.mu.Lock()
	o.closing--
	o.busy[slot] = false
	o.mu.Unlock()
}

func (o *owner) slots() map[int]shard.Epoch {
	o.mu.Lock()
	defer o.mu.Unlock()
	m := make(map[int]shard.Epoch, len(o.open))
	for k, v := range o.open {
		m[k] = v
	}
	return m
}

type master struct {
	*lease.Engine
	renewer *lease.Renewer
	owner   *owner
}

// hint carries hints over NATS, as a worker's does.
type hint struct {
	bus  *bus.Bus
	told chan struct{}
}

func newHint(t *testing.T, b *bus.Bus) *hint {
	h := &hint{bus: b, told: make(chan struct{}, 1)}
	sub, err := b.Subscribe(context.Background(), "fleet.lease", func(*bus.Incoming) {
		select {
		case h.told <- struct{}{}:
		default:
		}
	})
	require.NoError(t, err)
	t.Cleanup(sub.Stop)
	return h
}

func (h *hint) Tell()                 { _ = h.bus.Publish(bus.Message{Subject: "fleet.lease"}) }
func (h *hint) Told() <-chan struct{} { return h.told }

type options struct {
	roles  []lease.Role
	status func() leasedb.Status
	nats   *bustest.Server
	owner  *owner
}

func start(t *testing.T, db *leasedb.DB, name string, o options) *master {
	t.Helper()
	m := &master{owner: o.owner}
	if m.owner == nil {
		m.owner = newOwner()
	}
	if o.roles == nil {
		o.roles = []lease.Role{{Name: leasedb.Writer, Slots: shards, Address: name + ":1"}}
	}
	w := leasedb.Worker{Instance: name, Kind: "master", Address: name + ":1"}
	for i := range o.roles {
		w.Roles = append(w.Roles, o.roles[i].Name)
		if o.roles[i].Owner == nil {
			o.roles[i].Owner = m.owner
		}
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil)).With("master", name)
	m.renewer = lease.NewRenewer(db, lease.RenewerConfig{Worker: w, Status: o.status, Logger: log})
	cfg := lease.Config{Roles: o.roles, Logger: log}
	if o.nats != nil {
		cfg.Hint = newHint(t, o.nats.Connect())
	}
	m.Engine = lease.NewEngine(db, m.renewer, cfg)
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	require.NoError(t, m.renewer.Start(ctx))
	require.NoError(t, m.Start(ctx))
	t.Cleanup(func() {
		m.stop(t)
		require.Empty(t, m.owner.faults)
		require.Empty(t, m.owner.slots())
	})
	return m
}

func (m *master) stop(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	require.NoError(t, m.Stop(ctx))
	require.NoError(t, m.renewer.Stop(ctx))
}

func (m *master) await(t *testing.T, n int) {
	t.Helper()
	require.Eventually(t, func() bool { return len(m.owner.slots()) == n && len(m.Holds()) == n }, patient, 5*time.Millisecond,
		"has %v", m.Holds())
}

// valid lists the shards that exactly one master believes in, and fails if two do.
func valid(t *testing.T, masters ...*master) int {
	n := 0
	for s := range shards {
		var by []int
		for i, m := range masters {
			if _, ok := m.Epoch(shard.ID(s)); ok {
				by = append(by, i)
			}
		}
		require.LessOrEqual(t, len(by), 1, "shard %d is valid for %v", s, by)
		n += len(by)
	}
	return n
}

func TestMastersShareTheShardsEvenly(t *testing.T) {
	t.Parallel()
	db := leasedb.NewDB(pgtest.New(t).DB)
	nats := bustest.New(t)
	a := start(t, db, "a", options{nats: nats})
	a.await(t, shards) // at once: nobody held them
	for s, epoch := range a.owner.slots() {
		require.Equal(t, shard.Epoch(1), epoch)
		require.True(t, a.Valid(shard.ID(s), 1))
		require.False(t, a.Valid(shard.ID(s), 2))
		instance, address, _, err := db.Owner(context.Background(), shard.ID(s))
		require.NoError(t, err)
		require.Equal(t, "a", instance)
		require.Equal(t, "a:1", address)
	}

	b := start(t, db, "b", options{nats: nats})
	b.await(t, shards/2)
	a.await(t, shards/2)
	require.Equal(t, 1, a.owner.most, "handed over one at a time")
	require.Equal(t, shards/2, a.owner.closings, "and no more than needed")
	require.Equal(t, shards, valid(t, a, b))
	for _, epoch := range b.owner.slots() {
		require.Equal(t, shard.Epoch(3), epoch, "given away and taken")
	}

	c := start(t, db, "c", options{nats: nats})
	require.Eventually(t, func() bool {
		n := []int{len(a.Holds()), len(b.Holds()), len(c.Holds())}
		return n[0]+n[1]+n[2] == shards && slices.Max(n)-slices.Min(n) <= 1
	}, patient, 5*time.Millisecond)
	require.Equal(t, shards, valid(t, a, b, c))

	b.stop(t)
	require.Empty(t, b.Holds())
	require.Eventually(t, func() bool { return len(a.Holds()) == 4 && len(c.Holds()) == 4 }, patient, 5*time.Millisecond)
	c.stop(t)
	a.await(t, shards)
	require.Empty(t, b.owner.slots())
}

func TestRolesAreLeasesToo(t *testing.T) {
	t.Parallel()
	db := leasedb.NewDB(pgtest.New(t).DB)
	own := newOwner()
	a := start(t, db, "reader", options{owner: own, roles: []lease.Role{{Name: "prepare", Slots: 3}}})
	a.await(t, 3)
	k := leasedb.Key{Role: "prepare", Slot: 2}
	epoch := a.Holds()[k]
	require.True(t, a.ValidSlot(k, epoch))
	require.False(t, a.Valid(2, epoch), "a slot is no shard")
	row, ok, err := db.Lease(context.Background(), k)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, "reader", leasedb.InstanceOf(row.Holder))
	require.Equal(t, epoch, row.Epoch)
}

func TestAWorkerWithoutNATSGivesWayToOneThatHasIt(t *testing.T) {
	t.Parallel()
	db := leasedb.NewDB(pgtest.New(t).DB)
	var mu sync.Mutex
	nats := false
	status := func() leasedb.Status { mu.Lock(); defer mu.Unlock(); return leasedb.Status{NATS: nats} }
	a := start(t, db, "a", options{status: status})
	a.await(t, shards) // nobody has it: no reason to give anything away
	b := start(t, db, "b", options{})
	b.await(t, shards)
	a.await(t, 0)
	mu.Lock()
	nats = true
	mu.Unlock()
	a.renewer.Kick()
	a.await(t, shards/2)
	b.await(t, shards/2)
}

func TestALeaseThatCannotBeOpenedGoesToAnother(t *testing.T) {
	t.Parallel()
	db := leasedb.NewDB(pgtest.New(t).DB)
	bad := newOwner()
	bad.refuse = errors.New("cannot load")
	start(t, db, "a", options{owner: bad})
	b := start(t, db, "b", options{})
	b.await(t, shards)
}

// A renewal that does not come through in time ends the leases, and what ended comes back only under a new epoch.
func TestALapseIsForGood(t *testing.T) {
	t.Parallel()
	pgdb := pgtest.New(t)
	db := leasedb.NewDB(pgdb.DB)
	a := start(t, db, "a", options{})
	a.await(t, shards)
	tx, err := pgdb.Pool.Begin(context.Background())
	require.NoError(t, err)
	_, err = tx.Exec(context.Background(), "SELECT FROM worker FOR UPDATE") // the renewals wait
	require.NoError(t, err)
	require.Eventually(t, func() bool { return valid(t, a) == 0 }, patient, 5*time.Millisecond)
	require.Error(t, a.Check(context.Background()))
	require.Eventually(t, func() bool { return len(a.owner.slots()) == 0 }, patient, 5*time.Millisecond)
	require.NoError(t, tx.Rollback(context.Background()))
	a.await(t, shards)
	for s, epoch := range a.owner.slots() {
		require.Greater(t, epoch, shard.Epoch(1))
		require.False(t, a.Valid(shard.ID(s), 1))
		require.True(t, a.Valid(shard.ID(s), epoch))
	}
	require.NoError(t, a.Check(context.Background()))
}

// ghost makes a worker that holds everything and never renews.
func ghost(t *testing.T, pgdb *pgtest.DB) {
	_, err := pgdb.Pool.Exec(context.Background(), `INSERT INTO worker (instance, kind, address, version, protocol_min, protocol_max, roles, started)
		VALUES ('ghost', 'master', '', '', 1, 1, '{writer}', 'epoch')`)
	require.NoError(t, err)
	_, err = pgdb.Pool.Exec(context.Background(), `INSERT INTO shard_lease (shard, epoch, holder) SELECT generate_series(0, $1::int - 1), 7, 'ghost#0'`, shards)
	require.NoError(t, err)
}

func TestALostConnectionRestartsTheWait(t *testing.T) {
	t.Parallel()
	pgdb := pgtest.New(t)
	db := leasedb.NewDB(pgdb.DB)
	ghost(t, pgdb)
	taken := make(chan time.Time, shards)
	own := newOwner()
	own.onOpen = func(int, shard.Epoch) { taken <- time.Now() }
	begun := time.Now()
	start(t, db, "a", options{owner: own})
	var cut time.Time
	for range 3 { // each time before the wait is over
		time.Sleep(lease.DefaultTiming().Wait / 2) //nolint:forbidigo // that time passes is what is tested
		cut = time.Now()
		_, err := pgdb.Pool.Exec(context.Background(), `SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid()`)
		_ = err // the pool's other sessions go too
	}
	at := <-taken
	require.GreaterOrEqual(t, at.Sub(cut), lease.DefaultTiming().Wait)
	t.Logf("taken %s after the start, %s after the last cut", at.Sub(begun), at.Sub(cut))
}

// A worker that starts while the database does not answer begins when it does.
func TestAStartWaitsForTheDatabase(t *testing.T) {
	t.Parallel()
	server := pgtest.Server(t)
	db := leasedb.NewDB(server.Open().DB)
	own := newOwner()
	roles := []lease.Role{{Name: leasedb.Writer, Slots: shards, Address: "a:1", Owner: own}}
	m := &master{owner: own, renewer: lease.NewRenewer(db, lease.RenewerConfig{
		Worker: leasedb.Worker{Instance: "a", Kind: "master", Address: "a:1", Roles: []string{leasedb.Writer}},
	})}
	m.Engine = lease.NewEngine(db, m.renewer, lease.Config{Roles: roles})
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	require.NoError(t, m.renewer.Start(ctx))
	server.Kill()
	started := make(chan error, 1)
	go func() { started <- m.Start(ctx) }()
	server.Start()
	require.NoError(t, <-started)
	m.await(t, shards)
	m.stop(t)
}

func TestALaterStartUnderTheSameNameEndsTheEarlier(t *testing.T) {
	t.Parallel()
	db := leasedb.NewDB(pgtest.New(t).DB)
	a := start(t, db, "same", options{})
	a.await(t, shards)
	b := start(t, db, "same", options{})
	require.ErrorIs(t, <-a.renewer.Failed(), leasedb.ErrSuperseded)
	require.Eventually(t, func() bool { return valid(t, a) == 0 }, patient, 5*time.Millisecond)
	for len(b.owner.slots()) < shards {
		valid(t, a, b)               // never both
		time.Sleep(time.Millisecond) //nolint:forbidigo // looks again and again
	}
}

// The committer raises the epoch of its own shard, on a session of its own; the engine is told, or sees it.
func TestAnEpochThatWeRaisedOurselvesIsNoLoss(t *testing.T) {
	t.Parallel()
	pgdb := pgtest.New(t)
	db := leasedb.NewDB(pgdb.DB)
	ctx := context.Background()
	session := leasedb.Session{}
	a := start(t, db, "a", options{roles: []lease.Role{{
		Name: leasedb.Writer, Slots: shards, Session: func() leasedb.Session { return session },
	}}})
	a.await(t, shards)
	raise := func(s shard.ID) {
		epoch, err := leasedb.New(pgdb.Pool).RaiseShard(ctx, leasedb.RaiseShardParams{
			Slot: int16(s), Epoch: 1, Holder: a.renewer.Boot().String(), Pid: 1, Started: pgtype.Timestamptz{Time: time.Now(), Valid: true},
		})
		require.NoError(t, err)
		require.EqualValues(t, 2, epoch)
	}
	raise(3)
	a.Moved(3, 1, 2)
	require.True(t, a.Valid(3, 2))
	require.False(t, a.Valid(3, 1))
	require.True(t, a.Valid(1, 1))
	raise(4) // and says nothing
	require.Eventually(t, func() bool { return a.Valid(4, 2) }, patient, time.Millisecond)
	require.False(t, a.Valid(4, 1))
	a.Moved(4, 1, 2) // late
	require.True(t, a.Valid(4, 2))

	tx, err := pgdb.Pool.Begin(ctx)
	require.NoError(t, err)
	held, err := leasedb.Fence(ctx, tx, []shard.ID{3, 1}, []shard.Epoch{1, 1})
	require.NoError(t, err)
	require.Equal(t, []shard.ID{1}, held, "an earlier epoch holds nothing")
	require.NoError(t, tx.Rollback(ctx))
	require.Zero(t, a.owner.closings)

	// What a fence found lost is closed, and opened anew under another epoch.
	a.Lost(5, 1)
	require.False(t, a.Valid(5, 1))
	require.Eventually(t, func() bool { return a.Valid(5, 2) }, patient, time.Millisecond)
	a.await(t, shards)
	require.Equal(t, 1, a.owner.closings)
	require.Equal(t, shard.Epoch(2), a.owner.slots()[5])
}
