package pg_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

var errBoom = errors.New("boom")

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// newTable returns a database with a table t(x unique).
func newTable(t *testing.T) *pgtest.DB {
	db := pgtest.New(t, pgtest.Empty())
	_, err := db.Pool.Exec(testContext(t), "CREATE TABLE t (x int CONSTRAINT t_x UNIQUE DEFERRABLE)")
	require.NoError(t, err)
	return db
}

func count(t *testing.T, db *pgtest.DB) (n int) {
	t.Helper()
	require.NoError(t, db.Pool.QueryRow(testContext(t), "SELECT count(*) FROM t").Scan(&n))
	return n
}

func insert(ctx context.Context, tx pgx.Tx, x int) error {
	_, err := tx.Exec(ctx, "INSERT INTO t VALUES ($1)", x)
	return err
}

func TestInTx(t *testing.T) {
	ctx := testContext(t)
	db := newTable(t)
	require.NoError(t, pg.InTx(ctx, db.Pool, func(tx pgx.Tx) error { return insert(ctx, tx, 1) }))
	require.ErrorIs(t, pg.InTx(ctx, db.Pool, func(tx pgx.Tx) error {
		require.NoError(t, insert(ctx, tx, 2))
		return errBoom
	}), errBoom)
	require.Panics(t, func() {
		_ = pg.InTx(ctx, db.Pool, func(tx pgx.Tx) error {
			require.NoError(t, insert(ctx, tx, 3))
			panic("oh")
		})
	})
	canceled, cancel := context.WithCancel(ctx)
	err := pg.InTx(canceled, db.Pool, func(tx pgx.Tx) error {
		defer cancel()
		return insert(ctx, tx, 4)
	})
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, pg.ErrUnknownOutcome)
	require.Equal(t, 1, count(t, db))
	require.EqualValues(t, 0, db.Pool.Stat().AcquiredConns(), "nothing is left open")
}

func TestCommitThatFailsForCertain(t *testing.T) {
	ctx := testContext(t)
	db := newTable(t)
	err := pg.InTx(ctx, db.Pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "SET CONSTRAINTS ALL DEFERRED")
		require.NoError(t, err)
		return errors.Join(insert(ctx, tx, 1), insert(ctx, tx, 1))
	})
	require.True(t, pg.IsUniqueViolation(err))
	require.True(t, pg.IsUniqueViolation(err, "other", "t_x"))
	require.False(t, pg.IsUniqueViolation(err, "other"))
	require.NotErrorIs(t, err, pg.ErrUnknownOutcome)
	require.False(t, pg.IsConnection(err))

	err = pg.InTx(ctx, db.Pool, func(tx pgx.Tx) error {
		_ = insert(ctx, tx, 1)
		_, _ = tx.Exec(ctx, "SELECT nonsense") // and goes on as if nothing were
		return nil
	})
	require.ErrorIs(t, err, pgx.ErrTxCommitRollback)
	require.NotErrorIs(t, err, pg.ErrUnknownOutcome)
	require.Zero(t, count(t, db))
}

// cutConn loses the connection when COMMIT is sent: before the server has it,
// or after.
type cutConn struct {
	net.Conn
	after bool
	cut   *atomic.Bool
}

func (c cutConn) Write(b []byte) (int, error) {
	if !bytes.Contains(bytes.ToLower(b), []byte("commit")) {
		return c.Conn.Write(b)
	}
	c.cut.Store(true)
	if c.after {
		if _, err := c.Conn.Write(b); err != nil {
			return 0, err
		}
		one := make([]byte, 1)
		_, _ = c.Conn.Read(one) // the server has answered, so it has committed
	}
	_ = c.Conn.Close()
	return len(b), nil
}

func TestUnknownOutcome(t *testing.T) {
	for name, after := range map[string]bool{"lost before": false, "lost after": true} {
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t)
			db := newTable(t)
			cfg, err := pgx.ParseConfig(db.DSN)
			require.NoError(t, err)
			var cut atomic.Bool
			cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
				c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
				return cutConn{c, after, &cut}, err
			}
			conn, err := pgx.ConnectConfig(ctx, cfg)
			require.NoError(t, err)
			err = pg.InTx(ctx, conn, func(tx pgx.Tx) error { return insert(ctx, tx, 1) })
			require.True(t, cut.Load())
			require.ErrorIs(t, err, pg.ErrUnknownOutcome)
			want := 0
			if after {
				want = 1
			}
			require.Equal(t, want, count(t, db))
			// What fails before the COMMIT is never unknown.
			err = pg.InTx(ctx, conn, func(pgx.Tx) error { return nil })
			require.Error(t, err)
			require.NotErrorIs(t, err, pg.ErrUnknownOutcome)
			require.True(t, pg.IsConnection(err), err)
		})
	}
}

func TestCommitOnALostConnection(t *testing.T) {
	ctx := testContext(t)
	db := newTable(t)
	err := pg.InTx(ctx, db.Pool, func(tx pgx.Tx) error {
		require.NoError(t, insert(ctx, tx, 1))
		return tx.Conn().Close(ctx)
	})
	require.True(t, pg.IsConnection(err), err)
	require.NotErrorIs(t, err, pg.ErrUnknownOutcome, "nothing was sent")
	require.Zero(t, count(t, db))
}

func TestCanceledCommit(t *testing.T) {
	base := testContext(t)
	db := newTable(t)
	// The commit waits for a lock that a deferred trigger takes.
	_, err := db.Pool.Exec(base, `CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$;
		CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()`)
	require.NoError(t, err)
	lock, err := db.Pool.Begin(base)
	require.NoError(t, err)
	_, err = lock.Exec(base, "SELECT pg_advisory_xact_lock(1)")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(base)
	result := make(chan error, 1)
	go func() {
		result <- pg.InTx(ctx, db.Pool, func(tx pgx.Tx) error { return insert(ctx, tx, 1) })
	}()
	require.Eventually(t, func() bool {
		var waits bool
		err := db.Pool.QueryRow(base, "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)").Scan(&waits)
		return err == nil && waits
	}, 20*time.Second, 5*time.Millisecond)
	cancel()
	require.ErrorIs(t, <-result, pg.ErrUnknownOutcome)
	require.NoError(t, lock.Rollback(base))
}

func TestTerminatedSession(t *testing.T) {
	ctx := testContext(t)
	db := newTable(t)
	err := pg.InTx(ctx, db.Pool, func(tx pgx.Tx) error {
		var pid int
		require.NoError(t, tx.QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&pid))
		_, err := db.Pool.Exec(ctx, "SELECT pg_terminate_backend($1, 10000)", pid)
		require.NoError(t, err)
		return insert(ctx, tx, 1)
	})
	require.True(t, pg.IsConnection(err), err)
	require.NotErrorIs(t, err, pg.ErrUnknownOutcome)
	require.Zero(t, count(t, db))
}

func TestInSnapshot(t *testing.T) {
	ctx := testContext(t)
	db := newTable(t)
	require.NoError(t, pg.InSnapshot(ctx, db.Pool, func(tx pgx.Tx) error {
		var n int
		require.NoError(t, tx.QueryRow(ctx, "SELECT count(*) FROM t").Scan(&n))
		_, err := db.Pool.Exec(ctx, "INSERT INTO t VALUES (1)")
		require.NoError(t, err)
		require.NoError(t, tx.QueryRow(ctx, "SELECT count(*) FROM t").Scan(&n))
		require.Zero(t, n)
		return nil
	}))
	err := pg.InSnapshot(ctx, db.Pool, func(tx pgx.Tx) error { return insert(ctx, tx, 2) })
	require.True(t, pg.IsReadOnly(err), err)
}

func TestInTxRetry(t *testing.T) {
	ctx := testContext(t)
	db := newTable(t)
	_, err := db.Pool.Exec(ctx, "INSERT INTO t VALUES (1)")
	require.NoError(t, err)
	opts := pgx.TxOptions{IsoLevel: pgx.RepeatableRead}
	runs := 0
	collide := func(tx pgx.Tx) error {
		runs++
		var x int
		require.NoError(t, tx.QueryRow(ctx, "SELECT x FROM t").Scan(&x))
		if runs == 1 {
			_, err := db.Pool.Exec(ctx, "UPDATE t SET x = x + 1")
			require.NoError(t, err)
		}
		_, err := tx.Exec(ctx, "UPDATE t SET x = $1", x+1)
		return err
	}
	require.NoError(t, pg.InTxRetry(ctx, db.Pool, opts, 3, collide))
	require.Equal(t, 2, runs)
	runs = 0
	err = pg.InTxRetry(ctx, db.Pool, opts, 1, collide)
	require.True(t, pg.IsSerialization(err), err)
	runs = 0
	require.ErrorIs(t, pg.InTxRetry(ctx, db.Pool, opts, 3, func(pgx.Tx) error { runs++; return errBoom }), errBoom)
	require.Equal(t, 1, runs)
}

func TestErrorsOfStatements(t *testing.T) {
	ctx := testContext(t)
	db := newTable(t)
	exec := func(sql string) error { _, err := db.Pool.Exec(ctx, sql); return err }
	require.True(t, pg.IsTimeout(exec("SET statement_timeout = 1; SELECT pg_sleep(10)")))
	require.NoError(t, exec("CREATE TABLE d (x int PRIMARY KEY)"))
	require.NoError(t, exec("CREATE TABLE c (x int CHECK (x > 0), y int REFERENCES d)"))
	require.True(t, pg.IsCheckViolation(exec("INSERT INTO c VALUES (0)")))
	require.True(t, pg.IsForeignKeyViolation(exec("INSERT INTO c VALUES (1, 1)")))
	var n int
	require.True(t, pg.IsNoRows(db.Pool.QueryRow(ctx, "SELECT x FROM d").Scan(&n)))
	require.False(t, pg.IsConnection(nil))
	require.False(t, pg.IsConnection(context.Canceled))
}

func TestQueryCounter(t *testing.T) {
	ctx := testContext(t)
	db := newTable(t)
	db.Counter.Reset()
	tctx, tally := pg.WithTally(ctx)
	_, err := db.Pool.Exec(tctx, "SELECT 1")
	require.NoError(t, err)
	b := &pgx.Batch{}
	b.Queue("SELECT 2")
	b.Queue("SELECT 3")
	require.NoError(t, db.Pool.SendBatch(ctx, b).Close())
	_, err = db.Pool.CopyFrom(ctx, pgx.Identifier{"t"}, []string{"x"}, pgx.CopyFromRows([][]any{{1}, {2}}))
	require.NoError(t, err)
	require.EqualValues(t, 4, db.Counter.Count())
	require.Equal(t, []string{"SELECT 1", "SELECT 2", "SELECT 3", `copy "t"`}, db.Counter.Statements())
	require.EqualValues(t, 1, tally.Count())
}

func TestOpen(t *testing.T) {
	ctx := testContext(t)
	base := pgtest.New(t, pgtest.Empty())
	spans := tracetest.NewInMemoryExporter()
	tp := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	reg := prometheus.NewRegistry()
	counter := pg.NewQueryCounter()
	db, err := pg.Open(ctx, pg.Config{DSN: base.DSN, ReadDSN: base.DSN, MaxConns: 3},
		pg.Options{TracerProvider: tp, Counter: counter, Registerer: reg})
	require.NoError(t, err)
	require.True(t, db.HasReplica())
	var timeout, jit string
	sctx, span := tp.Tracer("test").Start(ctx, "request") // without one, background work is not traced
	require.NoError(t, db.Primary.QueryRow(sctx, "SELECT current_setting('statement_timeout'), current_setting('jit')").Scan(&timeout, &jit))
	require.Equal(t, "30s", timeout)
	require.Equal(t, "off", jit)
	span.End()
	require.Greater(t, len(spans.GetSpans()), 1, "traced")
	require.EqualValues(t, 1, counter.Count(), "and counted")
	families, err := reg.Gather()
	require.NoError(t, err)
	require.NotEmpty(t, families)
	conn, err := db.Connect(ctx)
	require.NoError(t, err)
	require.NoError(t, conn.Close(ctx))
	db.Close()
	db.Close()
	families, err = reg.Gather()
	require.NoError(t, err)
	require.Empty(t, families)
	require.NoError(t, tp.Shutdown(ctx))
}

func TestOpenMistakes(t *testing.T) {
	ctx := testContext(t)
	for dsn, want := range map[string]string{
		"":                             "dsn: must be set",
		"postgres://u:secret@h:notnum": "dsn: ",
		"host=/nowhere/at/all user=u":  "database.dsn: failed to connect",
	} {
		_, err := pg.Open(ctx, pg.Config{DSN: dsn}, pg.Options{})
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "secret")
	}
	require.ErrorContains(t, pg.Config{DSN: "host=x", MaxConns: -1}.Validate(), "max_conns")
	require.ErrorContains(t, pg.Config{DSN: "host=x", StatementTimeout: -1}.Validate(), "statement_timeout")
}

func TestPrimaryMustTakeWrites(t *testing.T) {
	ctx := testContext(t)
	db := pgtest.New(t, pgtest.Empty())
	_, err := pg.Open(ctx, pg.Config{DSN: db.DSN + " default_transaction_read_only=on"}, pg.Options{})
	require.ErrorContains(t, err, "read only")
}
