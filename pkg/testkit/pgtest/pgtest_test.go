package pgtest_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

func TestDatabasesAreApart(t *testing.T) {
	ctx := context.Background()
	a, b := pgtest.New(t), pgtest.New(t)
	_, err := a.Pool.Exec(ctx, "CREATE TABLE only_a (x int)")
	require.NoError(t, err)
	_, err = b.Pool.Exec(ctx, "SELECT * FROM only_a")
	require.Error(t, err)
	for _, db := range []*pgtest.DB{a, b} {
		var n int
		require.NoError(t, db.Pool.QueryRow(ctx, "SELECT count(*) FROM cluster").Scan(&n), "the schema is there")
	}
}

func TestEmpty(t *testing.T) {
	db := pgtest.New(t, pgtest.Empty())
	var n int
	require.NoError(t, db.Pool.QueryRow(context.Background(),
		"SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").Scan(&n))
	require.Zero(t, n)
}

func TestParallel(t *testing.T) {
	for range 8 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			require.NoError(t, db.Pool.Ping(context.Background()))
		})
	}
}

func TestTxLeavesNothing(t *testing.T) {
	ctx := context.Background()
	db := pgtest.New(t, pgtest.Empty())
	t.Run("writes", func(t *testing.T) {
		_, err := db.Tx(t).Exec(ctx, "CREATE TABLE t ()")
		require.NoError(t, err)
	})
	_, err := db.Pool.Exec(ctx, "CREATE TABLE t ()")
	require.NoError(t, err)
}

// recorder is a TB whose failures are seen and not suffered.
type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Helper()               {}
func (r *recorder) Errorf(string, ...any) { r.failed = true }
func (r *recorder) FailNow()              { r.failed = true }

func TestNoQueries(t *testing.T) {
	db := pgtest.New(t, pgtest.Empty())
	db.NoQueries(t, func() {})
	r := &recorder{TB: t}
	db.NoQueries(r, func() { _, _ = db.Pool.Exec(context.Background(), "SELECT 1") })
	require.True(t, r.failed)
}

func TestServerKeepsWhatWasCommitted(t *testing.T) {
	ctx := context.Background()
	s := pgtest.Server(t)
	db := s.Open()
	_, err := db.Pool.Exec(ctx, "CREATE TABLE kept AS SELECT 7 AS x")
	require.NoError(t, err)
	dsn := s.DSN
	s.Restart()
	require.Equal(t, dsn, s.DSN)
	var x int
	require.Eventually(t, func() bool { // the pool's first connections are dead
		return db.Pool.QueryRow(ctx, "SELECT x FROM kept").Scan(&x) == nil
	}, 10*time.Second, 10*time.Millisecond)
	require.Equal(t, 7, x)
}
