package pg_test

import (
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
)

func migrations(sql ...string) fstest.MapFS {
	m := fstest.MapFS{}
	for i, s := range sql {
		m["000"+string(rune('1'+i))+"_m.sql"] = &fstest.MapFile{Data: []byte("-- +goose Up\n" + s + "\n")}
	}
	return m
}

func newMigrator(t *testing.T, db *pgtest.DB, lowest, highest int64, sql ...string) *pg.Migrator {
	m, err := pg.NewMigrator(pg.Config{DSN: db.DSN}, migrations(sql...), pg.SchemaRange{Min: lowest, Max: highest}, nil)
	require.NoError(t, err)
	return m
}

func TestMigrate(t *testing.T) {
	ctx := testContext(t)
	db := pgtest.New(t, pgtest.Empty())
	one := newMigrator(t, db, 1, 1, "CREATE TABLE a ();")
	st, err := one.Check(ctx)
	require.ErrorIs(t, err, pg.ErrSchemaVersion)
	require.ErrorContains(t, err, "heddle migrate")
	require.Equal(t, pg.SchemaStatus{Version: 0, Target: 1, Pending: []int64{1}}, st)
	st, err = one.Check(ctx)
	require.ErrorIs(t, err, pg.ErrSchemaVersion, "a check changes nothing")
	require.Zero(t, st.Version)
	v, err := one.Up(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 1, v)

	two := newMigrator(t, db, 1, 2, "CREATE TABLE a ();", "CREATE TABLE b ();")
	st, err = two.Check(ctx)
	require.NoError(t, err, "the old schema is in its range")
	require.Equal(t, []int64{2}, st.Pending)
	v, err = two.Up(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 2, v)

	_, err = one.Check(ctx)
	require.ErrorIs(t, err, pg.ErrSchemaVersion)
	_, err = one.Up(ctx)
	require.ErrorContains(t, err, "run a newer release")
	// The predecessor of a release that only expanded runs on its schema.
	v, err = newMigrator(t, db, 1, 2, "CREATE TABLE a ();").Up(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 2, v)
}

// A release that was killed in the middle of a roll-out starts again beside its successor, which knows of it; what came before does not.
func TestPredecessorsStart(t *testing.T) {
	ctx := testContext(t)
	db := pgtest.New(t, pgtest.Empty())
	all := []string{"CREATE TABLE a ();", "CREATE TABLE b ();", "CREATE TABLE c ();", "DROP TABLE a;"}
	release := func(n, oldest int64) *pg.Migrator {
		m, err := pg.NewMigrator(pg.Config{DSN: db.DSN}, migrations(all[:n]...), pg.SchemaRange{Min: 1, Max: n, Oldest: oldest}, nil)
		require.NoError(t, err)
		return m
	}
	start := func(m *pg.Migrator, version int64) {
		t.Helper()
		v, err := m.Up(ctx)
		require.NoError(t, err)
		require.Equal(t, version, v)
		st, err := m.Check(ctx)
		require.NoError(t, err)
		require.Empty(t, st.Pending)
	}
	refused := func(m *pg.Migrator) {
		t.Helper()
		_, err := m.Up(ctx)
		require.ErrorIs(t, err, pg.ErrSchemaVersion)
		_, err = m.Check(ctx)
		require.ErrorIs(t, err, pg.ErrSchemaVersion)
	}
	start(release(1, 1), 1)
	start(release(3, 1), 3)
	start(release(1, 1), 3)
	start(release(2, 2), 3)
	start(release(4, 3), 4)
	start(release(3, 1), 4)
	refused(release(2, 2))
	refused(release(1, 1))
	start(release(4, 3), 4)
}

func TestMigrateTogether(t *testing.T) {
	ctx := testContext(t)
	db := pgtest.New(t, pgtest.Empty())
	// CREATE INDEX CONCURRENTLY would wait for ever for sessions that wait with a
	// snapshot.
	fs := migrations("CREATE TABLE a (x int); SELECT pg_sleep(0.2);")
	fs["0002_m.sql"] = &fstest.MapFile{Data: []byte("-- +goose NO TRANSACTION\n-- +goose Up\nCREATE INDEX CONCURRENTLY a_x ON a (x);\n")}
	var g errgroup.Group
	for range 8 {
		g.Go(func() error {
			m, err := pg.NewMigrator(pg.Config{DSN: db.DSN}, fs, pg.SchemaRange{Min: 2, Max: 2}, nil)
			if err != nil {
				return err
			}
			_, err = m.Up(ctx)
			return err
		})
	}
	require.NoError(t, g.Wait())
	var n int
	require.NoError(t, db.Pool.QueryRow(ctx, "SELECT count(*) FROM schema_version WHERE version_id > 0").Scan(&n))
	require.Equal(t, 2, n, "each once")
}

func TestMigrationThatFails(t *testing.T) {
	ctx := testContext(t)
	db := pgtest.New(t, pgtest.Empty())
	m := newMigrator(t, db, 1, 2, "CREATE TABLE a ();", "CREATE TABLE b (); SELECT nonsense;")
	v, err := m.Up(ctx)
	require.ErrorContains(t, err, "nonsense")
	require.Zero(t, v)
	st, err := m.Check(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 1, st.Version, "the first stays, the second left nothing")
	_, err = db.Pool.Exec(ctx, "CREATE TABLE b ()")
	require.NoError(t, err)
}

func TestMigratorMistakes(t *testing.T) {
	cfg := pg.Config{DSN: "host=x"}
	_, err := pg.NewMigrator(cfg, fstest.MapFS{}, pg.SchemaRange{Max: 1}, nil)
	require.Error(t, err)
	_, err = pg.NewMigrator(cfg, migrations("SELECT 1;", "SELECT 1;"), pg.SchemaRange{Max: 1}, nil)
	require.ErrorContains(t, err, "outside the supported range")
}
