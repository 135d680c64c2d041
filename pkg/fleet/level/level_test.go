package level_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/fleet/level"
	"github.com/heddle-im/heddle/pkg/store/fleetdb"
	"github.com/heddle-im/heddle/pkg/store/leasedb"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
)

const patient = 30 * time.Second

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

// cluster is a database with a homeserver in it.
func cluster(t *testing.T) *pgtest.DB {
	t.Helper()
	db := pgtest.New(t)
	require.NoError(t, fleetdb.New(db.Pool).FoundCluster(t.Context(), fleetdb.FoundClusterParams{ServerName: "x", Shards: 4, Secret: []byte{1}}))
	return db
}

func register(ctx context.Context, c *leasedb.Conn, name string, reads int) (leasedb.Boot, error) {
	return c.Register(ctx, leasedb.Worker{Instance: name, Kind: "master", ProtocolMin: 1, ProtocolMax: reads}, leasedb.Status{})
}

func session(t *testing.T, db *pgtest.DB) *leasedb.Conn {
	t.Helper()
	c, err := leasedb.NewDB(db.DB).Connect(t.Context())
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func start(t *testing.T, db *pgtest.DB, reads int32) *level.Level {
	t.Helper()
	l := level.New(fleetdb.NewDB(db.DB), level.Options{Reads: reads, Interval: time.Millisecond})
	require.NoError(t, l.Start(t.Context()))
	t.Cleanup(func() { require.NoError(t, l.Stop(context.WithoutCancel(t.Context()))) })
	return l
}

// A roll-out from a release that reads level 1 to one that reads 3, and what comes after.
func TestTheLevelIsRaisedWhenNobodyIsOlder(t *testing.T) {
	t.Parallel()
	db, ctx := cluster(t), t.Context()
	c := session(t, db)
	older, err := register(ctx, c, "older", 1)
	require.NoError(t, err)
	l1 := start(t, db, 1)
	require.True(t, l1.Allows(1))
	require.False(t, l1.Allows(2))

	_, err = register(ctx, c, "newer", 3)
	require.NoError(t, err)
	l3 := start(t, db, 3)
	v, err := fleetdb.NewDB(db.DB).Raise(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 1, v, "the older lives")
	require.False(t, l3.Allows(2))

	between, err := register(ctx, c, "between", 2)
	require.NoError(t, err)
	require.NoError(t, c.Withdraw(ctx, older))
	require.Eventually(t, func() bool { return l3.Allows(2) }, patient, time.Millisecond)
	require.False(t, l3.Allows(3))
	require.NoError(t, c.Withdraw(ctx, between))
	require.Eventually(t, func() bool { return l3.Allows(3) }, patient, time.Millisecond)
	require.NoError(t, l3.Check(ctx))

	// The point of no return: one that still runs is not ready any more, and none can start.
	var old *level.TooOldError
	require.Eventually(t, func() bool { return errors.As(l1.Check(ctx), &old) }, patient, time.Millisecond)
	_, err = register(ctx, c, "older", 1)
	require.ErrorIs(t, err, leasedb.ErrTooOld)
	require.ErrorIs(t, c.Renew(ctx, leasedb.Worker{Instance: "older", ProtocolMax: 1}, older, leasedb.Status{}, true), leasedb.ErrSuperseded,
		"nor can one that was taken for dead come back")
	again := level.New(fleetdb.NewDB(db.DB), level.Options{Reads: 2})
	require.ErrorAs(t, again.Start(ctx), &old)
	require.Equal(t, level.TooOldError{Reads: 2, Cluster: 3}, *old)

	// Nobody lowers it.
	_, err = db.Pool.Exec(ctx, "DELETE FROM worker")
	require.NoError(t, err)
	v, err = fleetdb.NewDB(db.DB).Raise(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 3, v)
}

// However registering and raising meet: a worker either has a row, and then the level is not beyond it, or is told that it is too old.
func TestRegisteringAndRaisingAtTheSameTime(t *testing.T) {
	t.Parallel()
	db, ctx := cluster(t), t.Context()
	c := session(t, db)
	refused, registered := 0, 0
	for i := range 60 {
		_, err := db.Pool.Exec(ctx, "DELETE FROM worker")
		require.NoError(t, err)
		_, err = db.Pool.Exec(ctx, "UPDATE cluster SET feature_level = 1")
		require.NoError(t, err)
		_, err = register(ctx, c, "newer", 2)
		require.NoError(t, err)
		var both sync.WaitGroup
		var raised atomic.Int32
		both.Go(func() {
			if i%2 == 0 {
				time.Sleep(time.Duration(i*20) * time.Microsecond) //nolint:forbidigo // so that they meet in many ways
			}
			v, err := fleetdb.NewDB(db.DB).Raise(ctx)
			if err != nil {
				t.Error(err)
			}
			raised.Store(v)
		})
		_, err = register(ctx, c, fmt.Sprintf("older-%d", i), 1)
		both.Wait()
		if err != nil {
			require.ErrorIs(t, err, leasedb.ErrTooOld)
			require.EqualValues(t, 2, raised.Load())
			refused++
		} else {
			require.EqualValues(t, 1, raised.Load())
			registered++
		}
	}
	t.Logf("%d refused, %d registered", refused, registered)
}
