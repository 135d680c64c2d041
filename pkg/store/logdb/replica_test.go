package logdb_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/logdb"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

// What a replica has not replayed is read from the primary, and what it has is read there: never is less read than was asked for.
func TestReplicaIsReadWhereItHasThePosition(t *testing.T) {
	const shards = 2
	primary := pgtest.Server(t)
	standby := primary.Standby()
	db, err := pg.Open(t.Context(), pg.Config{DSN: primary.DSN, ReadDSN: standby.DSN, MaxConns: 3}, pg.Options{})
	require.NoError(t, err)
	t.Cleanup(db.Close)
	log := logdb.NewDB(db, shards)
	replica := logdb.NewReplica(db, shards, log.Heads, slog.New(slog.DiscardHandler))
	there, err := pgx.Connect(t.Context(), standby.DSN)
	require.NoError(t, err)
	t.Cleanup(func() { _ = there.Close(context.Background()) })

	var written int64
	write := func() shard.Heads {
		written++
		_, err := db.Primary.Exec(t.Context(), `INSERT INTO log (shard, pos, epoch, kind, body) VALUES (1, $1, 1, 1, '')`, written)
		require.NoError(t, err)
		heads, err := log.Heads(t.Context())
		require.NoError(t, err)
		return heads
	}
	var away bool
	read := func(ctx context.Context) error {
		require.NoError(t, db.Reads().QueryRow(ctx, `SELECT pg_is_in_recovery()`).Scan(&away))
		require.Equal(t, away, replica.Away(ctx))
		var n int64
		require.NoError(t, db.Reads().QueryRow(ctx, `SELECT count(*) FROM log WHERE shard = 1`).Scan(&n))
		require.Equal(t, written, n)
		return nil
	}
	replayed := func(heads shard.Heads) {
		t.Helper()
		require.Eventually(t, func() bool {
			at, err := logdb.ReadHeads(t.Context(), db.Reader, shards)
			require.NoError(t, err)
			return at.Positions.AtLeast(heads.Positions)
		}, time.Minute, 5*time.Millisecond)
	}

	old := write()
	replayed(old)
	require.NoError(t, replica.Read(t.Context(), old, read))
	require.True(t, away)
	require.NoError(t, replica.ReadNow(t.Context(), read))
	require.True(t, away)

	_, err = there.Exec(t.Context(), `SELECT pg_wal_replay_pause()`)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		var state string
		require.NoError(t, there.QueryRow(t.Context(), `SELECT pg_get_wal_replay_pause_state()`).Scan(&state))
		return state == "paused"
	}, time.Minute, 5*time.Millisecond)
	now := write()
	require.NoError(t, replica.Read(t.Context(), now, read))
	require.False(t, away, "the replica does not have it")
	require.NoError(t, replica.ReadNow(t.Context(), read))
	require.False(t, away)
	err = replica.Read(t.Context(), old, func(ctx context.Context) error {
		return db.Reads().QueryRow(ctx, `SELECT pg_is_in_recovery()`).Scan(&away)
	})
	require.NoError(t, err)
	require.True(t, away, "what is old is there")
	require.NoError(t, replica.Read(t.Context(), shard.Heads{Incarnation: 9, Positions: old.Positions}, read))
	require.False(t, away, "of another history")

	_, err = there.Exec(t.Context(), `SELECT pg_wal_replay_resume()`)
	require.NoError(t, err)
	replayed(now)
	require.NoError(t, replica.Read(t.Context(), now, read))
	require.True(t, away)

	// What fails there is done again on the primary, unless it is refused.
	var tries []bool
	failing := func(with error) func(context.Context) error {
		tries = nil
		return func(ctx context.Context) error {
			tries = append(tries, replica.Away(ctx))
			if replica.Away(ctx) {
				return with
			}
			return nil
		}
	}
	require.NoError(t, replica.Read(t.Context(), now, failing(errors.New("canceled for recovery's sake"))))
	require.Equal(t, []bool{true, false}, tries)
	require.Error(t, replica.Read(t.Context(), now, failing(mxerr.New(mxerr.NotFound, "Not found"))))
	require.Equal(t, []bool{true}, tries)

	standby.Kill()
	require.NoError(t, replica.Read(t.Context(), write(), read))
	require.False(t, away, "the replica is gone")
}

func TestWithoutAReplicaThePrimaryIsRead(t *testing.T) {
	db := pgtest.New(t)
	require.Same(t, db.Pool, db.DB.Reads())
	replica := logdb.NewReplica(db.DB, 1, nil, nil)
	calls := 0
	read := func(ctx context.Context) error {
		calls++
		require.False(t, replica.Away(ctx))
		return nil
	}
	db.NoQueries(t, func() {
		require.NoError(t, replica.ReadNow(t.Context(), read))
		require.NoError(t, replica.Read(t.Context(), shard.Heads{}, read))
	})
	require.Equal(t, 2, calls)
}
