package janitor_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/service/janitor"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/feddb"
	"github.com/heddle-im/heddle/pkg/store/logdb"
	"github.com/heddle-im/heddle/pkg/store/senderdb"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

const shards = 3

// house is a database whose shards have 25 entries each, and 30 commands: ten done two days ago and twenty just now.
func house(t *testing.T) (*pgtest.DB, *logdb.DB, shard.Role) {
	t.Helper()
	db := pgtest.New(t)
	exec := func(sql string, args ...any) {
		_, err := db.Pool.Exec(t.Context(), sql, args...)
		require.NoError(t, err)
	}
	exec(`INSERT INTO role_lease (role, slot, epoch, holder) VALUES ('background', 0, 4, 'm1')`)
	exec(`INSERT INTO log_floor (shard) SELECT generate_series(0, $1 - 1) ON CONFLICT DO NOTHING`, shards)
	exec(`INSERT INTO log (shard, pos, epoch, kind, body) SELECT s, p, 1, 1, '' FROM generate_series(0, $1 - 1) s, generate_series(1, 25) p`, shards)
	exec(`INSERT INTO done (shard, key, result, at) SELECT 0, decode(lpad(to_hex(i), 4, '0'), 'hex'), '',
		CASE WHEN i < 10 THEN now() - interval '2 days' ELSE now() END FROM generate_series(0, 29) i`)
	return db, logdb.NewDB(db.DB, shards), shard.Role{Name: "background", Epoch: 4}
}

func count(t *testing.T, db *pgtest.DB, table string) (n int) {
	t.Helper()
	require.NoError(t, db.Pool.QueryRow(t.Context(), `SELECT count(*) FROM `+table).Scan(&n))
	return n
}

func small() janitor.Config {
	return janitor.Config{Every: time.Millisecond, KeepEntries: 5, KeepCommands: 24 * time.Hour, Piece: 3, Pause: time.Millisecond}
}

func TestRoundRemovesWhatIsDueAndNothingElse(t *testing.T) {
	db, log, role := house(t)
	// A durable consumer that has not begun holds shard 2 back.
	_, err := db.Pool.Exec(t.Context(), `INSERT INTO cursor (consumer, shard, pos) VALUES ('slow', 2, 7)`)
	require.NoError(t, err)
	j := janitor.New(small(), janitor.Options{Store: log, Shards: shards})
	require.NoError(t, j.Round(t.Context(), role))
	require.Equal(t, 5+5+18, count(t, db, "log"))
	require.Equal(t, 20, count(t, db, "done"))
	heads, err := log.Heads(t.Context())
	require.NoError(t, err)
	require.Equal(t, shard.Vector{25, 25, 25}, heads.Positions)

	require.NoError(t, j.Round(t.Context(), role), "with nothing to do")
	require.Equal(t, 5+5+18, count(t, db, "log"))
}

func TestWhoHasNotTheRoleRemovesNoEntries(t *testing.T) {
	db, log, role := house(t)
	role.Epoch--
	j := janitor.New(small(), janitor.Options{Store: log, Shards: shards})
	require.ErrorIs(t, j.Round(t.Context(), role), janitor.ErrNotHeld)
	require.Equal(t, 25*shards, count(t, db, "log"))
	j.Run(t.Context(), role) // ends by itself
}

func TestRunEndsWithItsContext(t *testing.T) {
	db, log, role := house(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		janitor.New(small(), janitor.Options{Store: log, Shards: shards}).Run(ctx, role)
	}()
	require.Eventually(t, func() bool { return count(t, db, "log") == 5*shards && count(t, db, "done") == 20 }, 10*time.Second, 5*time.Millisecond)
	cancel()
	<-done
}

// What waits for a server that does not come back is kept in bounds: the oldest goes, and nothing of what waits for others.
func TestWhatWaitsForServersIsBounded(t *testing.T) {
	db, log, role := house(t)
	for _, q := range []string{
		`INSERT INTO fed_edu (shard, destination, type, content) SELECT 1, 'dead.test', 'm.direct_to_device', convert_to(i::text, 'UTF8') FROM generate_series(1, 25) i`,
		`INSERT INTO fed_edu (shard, destination, type, content) SELECT 1, 'slow.test', 'm.direct_to_device', '' FROM generate_series(1, 10) i`,
		`INSERT INTO fed_edu (shard, destination, type, content) SELECT 2, 'dead.test', 'm.direct_to_device', '' FROM generate_series(1, 5) i`,
	} {
		_, err := db.Pool.Exec(t.Context(), q)
		require.NoError(t, err)
	}
	cfg := small()
	cfg.KeepEDUs, cfg.EDURounds = 10, 2
	j := janitor.New(cfg, janitor.Options{Store: log, EDUs: senderdb.NewDB(db.DB), Shards: shards})
	require.NoError(t, j.Round(t.Context(), role))
	require.Equal(t, 10+10+5, count(t, db, "fed_edu"))
	var least int
	require.NoError(t, db.Pool.QueryRow(t.Context(),
		`SELECT min(convert_from(content, 'UTF8')::int) FROM fed_edu WHERE destination = 'dead.test' AND shard = 1`).Scan(&least))
	require.Equal(t, 16, least)
	_, err := db.Pool.Exec(t.Context(), `INSERT INTO fed_edu (shard, destination, type, content) VALUES (1, 'slow.test', 'm.direct_to_device', '')`)
	require.NoError(t, err)
	require.NoError(t, j.Round(t.Context(), role))
	require.Equal(t, 26, count(t, db, "fed_edu"), "not each round")
	require.NoError(t, j.Round(t.Context(), role))
	require.Equal(t, 25, count(t, db, "fed_edu"))
}

// What other servers sent is forgotten when nobody asks for it or takes it any more, in pieces, and not before.
func TestWhatServersSentIsForgotten(t *testing.T) {
	db, log, role := house(t)
	for _, q := range []string{
		`INSERT INTO fed_txn (shard, origin, txn_id, at) SELECT i % 3, 'one.test', i::text, now() - i * interval '1 hour' + interval '1 minute' FROM generate_series(1, 20) i`,
		`INSERT INTO staged_set (set_id, at) SELECT convert_to(i::text, 'UTF8'), now() - i * interval '1 hour' + interval '1 minute' FROM generate_series(1, 20) i`,
		`INSERT INTO staged_event (set_id, seq, state, event_id, json) SELECT set_id, n, true, '', '' FROM staged_set, generate_series(0, 3) n`,
	} {
		_, err := db.Pool.Exec(t.Context(), q)
		require.NoError(t, err)
	}
	cfg := small()
	cfg.KeepTxns, cfg.KeepSets, cfg.SetPiece = 12*time.Hour, 5*time.Hour, 2
	j := janitor.New(cfg, janitor.Options{Store: log, Staging: feddb.NewDB(db.DB), Shards: shards})
	for range 2 {
		require.NoError(t, j.Round(t.Context(), role))
		require.Equal(t, 12, count(t, db, "fed_txn"))
		require.Equal(t, 5, count(t, db, "staged_set"))
		require.Equal(t, 5*4, count(t, db, "staged_event"))
	}
}
