package pg

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

// ErrSchemaVersion is wrapped by every refusal of a database whose schema
// version the binary does not support.
var ErrSchemaVersion = errors.New("schema version not supported")

const (
	versionTable = "schema_version"
	oldestTable  = "schema_oldest"
	// migrationLock is the key of the advisory lock; any constant that nothing
	// else in the database uses.
	migrationLock int64 = 0x68656464_6c650001
	lockPoll            = 50 * time.Millisecond
)

// SchemaRange is the schema versions that a binary works with.
//
// A binary cannot know the migrations of its successors, and must start beside
// them all the same, if only because it was killed in the middle of a
// roll-out. So the newer one says in the database which binaries it leaves a
// schema that they work with: those whose Max is at least Oldest. Since
// migrations expand first, Oldest stays behind by at least a release.
type SchemaRange struct {
	Min, Max int64
	Oldest   int64 // 0: no older binary
}

// SchemaStatus is what Check finds.
type SchemaStatus struct {
	Version int64   // of the database, 0 if it is empty
	Target  int64   // the newest migration of this binary
	Pending []int64 // what Up would apply
}

// Migrator brings a database's schema to what the binary needs.
type Migrator struct {
	conn  *pgx.ConnConfig
	fsys  fs.FS
	rng   SchemaRange
	log   *slog.Logger
	known []int64
}

// NewMigrator returns a migrator for the primary of cfg. fsys holds goose SQL
// files, NNNNN_name.sql, at its root. log may be nil.
func NewMigrator(cfg Config, fsys fs.FS, rng SchemaRange, log *slog.Logger) (*Migrator, error) {
	cc, err := pgx.ParseConfig(cfg.DSN)
	if err != nil {
		return nil, fmt.Errorf("database.dsn: %w", err)
	}
	cc.ConnectTimeout = cfg.WithDefaults().ConnectTimeout
	// A migration may run for longer than any statement of a request.
	cc.RuntimeParams["statement_timeout"] = "0"
	cc.RuntimeParams["application_name"] = "heddle migrate"
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	m := &Migrator{conn: cc, fsys: fsys, rng: rng, log: log}
	err = m.withProvider(func(p *goose.Provider, _ *sql.DB) error {
		for _, s := range p.ListSources() {
			m.known = append(m.known, s.Version)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if t := m.Target(); rng.Min < 0 || t < rng.Min || t > rng.Max {
		return nil, fmt.Errorf("newest migration %d is outside the supported range %d to %d", t, rng.Min, rng.Max)
	}
	return m, nil
}

// Target is the newest migration that the binary carries.
func (m *Migrator) Target() int64 { return m.known[len(m.known)-1] }

// Range is the supported range.
func (m *Migrator) Range() SchemaRange { return m.rng }

// Check compares the database with the binary and changes nothing. Its error
// wraps ErrSchemaVersion if the binary could not run on the database as it is;
// the status is then filled in all the same.
func (m *Migrator) Check(ctx context.Context) (SchemaStatus, error) {
	conn, err := pgx.ConnectConfig(ctx, m.conn)
	if err != nil {
		return SchemaStatus{}, fmt.Errorf("database.dsn: %w", reached(err))
	}
	defer conn.Close(context.WithoutCancel(ctx))
	applied := map[int64]bool{}
	rows, err := conn.Query(ctx, "SELECT version_id FROM "+versionTable+" WHERE is_applied")
	if err == nil {
		var v int64
		_, err = pgx.ForEachRow(rows, []any{&v}, func() error { applied[v] = true; return nil })
	}
	if err != nil && !hasCode(err, codeUndefinedTable) {
		return SchemaStatus{}, fmt.Errorf("check schema: %w", err)
	}
	st := SchemaStatus{Target: m.Target()}
	for v := range applied {
		st.Version = max(st.Version, v)
	}
	for _, v := range m.known {
		if !applied[v] {
			st.Pending = append(st.Pending, v)
		}
	}
	var oldest int64
	err = conn.QueryRow(ctx, "SELECT oldest FROM "+oldestTable).Scan(&oldest)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) && !hasCode(err, codeUndefinedTable) {
		return SchemaStatus{}, fmt.Errorf("check schema: %w", err)
	}
	return st, m.supports(st.Version, oldest)
}

// supports tells whether the binary works with version v of the schema. oldest is what the binary that brought it there left, or 0.
func (m *Migrator) supports(v, oldest int64) error {
	switch {
	case v > m.rng.Max && (oldest == 0 || m.rng.Max < oldest):
		return fmt.Errorf("%w: the database is at version %d, this binary works with %d to %d: run a newer release",
			ErrSchemaVersion, v, m.rng.Min, m.rng.Max)
	case v < m.rng.Min:
		return fmt.Errorf("%w: the database is at version %d, this binary works with %d to %d: run `heddle migrate` first",
			ErrSchemaVersion, v, m.rng.Min, m.rng.Max)
	}
	return nil
}

// Up applies what is pending, once however many processes call it together:
// the others wait, and find nothing to do. It refuses a database that is
// newer than the binary supports, and returns the version it left.
func (m *Migrator) Up(ctx context.Context) (int64, error) {
	// Without the lock first: most starts find nothing to do, and then neither
	// wait for one another nor need the right to change the schema.
	st, err := m.Check(ctx)
	if err != nil && !errors.Is(err, ErrSchemaVersion) {
		return 0, err
	}
	if st.Version > m.rng.Max {
		return st.Version, err
	}
	if len(st.Pending) > 0 && st.Version < st.Target {
		if err := m.apply(ctx); err != nil {
			return st.Version, fmt.Errorf("migrate schema: %w", err)
		}
	}
	st, err = m.Check(ctx)
	return st.Version, err
}

func (m *Migrator) apply(ctx context.Context) error {
	return m.withProvider(func(p *goose.Provider, db *sql.DB) error {
		if err := m.leaveBehind(ctx, db); err != nil {
			return err
		}
		results, err := p.Up(ctx)
		for _, r := range results {
			m.log.InfoContext(ctx, "schema migrated", "version", r.Source.Version, "took", r.Duration)
		}
		return err
	}, goose.WithSessionLocker(advisoryLock{}))
}

// leaveBehind notes, before anything becomes narrower, which binaries start no more. Several may do so at once: the highest holds.
func (m *Migrator) leaveBehind(ctx context.Context, db *sql.DB) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	lock := advisoryLock{}
	if err := lock.SessionLock(ctx, conn); err != nil {
		return err
	}
	oldest := m.rng.Oldest
	if oldest == 0 {
		oldest = m.rng.Max
	}
	_, err = conn.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS "+oldestTable+
		" (one boolean PRIMARY KEY DEFAULT true CHECK (one), oldest bigint NOT NULL)")
	if err == nil {
		_, err = conn.ExecContext(ctx, "INSERT INTO "+oldestTable+" AS t (oldest) VALUES ($1)"+
			" ON CONFLICT (one) DO UPDATE SET oldest = greatest(t.oldest, excluded.oldest)", oldest)
	}
	return errors.Join(err, lock.SessionUnlock(context.WithoutCancel(ctx), conn))
}

func (m *Migrator) withProvider(fn func(*goose.Provider, *sql.DB) error, opts ...goose.ProviderOption) error {
	db := stdlib.OpenDB(*m.conn)
	defer db.Close()
	opts = append(opts, goose.WithTableName(versionTable), goose.WithDisableGlobalRegistry(true))
	p, err := goose.NewProvider(goose.DialectPostgres, db, m.fsys, opts...)
	if err != nil {
		return fmt.Errorf("load migrations: %w", err)
	}
	return fn(p, db)
}

// advisoryLock asks again and again rather than wait inside PostgreSQL: a
// waiting statement holds a snapshot, and CREATE INDEX CONCURRENTLY in the
// migration that it waits for would wait for that snapshot.
type advisoryLock struct{}

func (advisoryLock) SessionLock(ctx context.Context, conn *sql.Conn) error {
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for {
		var got bool
		if err := conn.QueryRowContext(ctx, "SELECT pg_try_advisory_lock($1)", migrationLock).Scan(&got); err != nil {
			return fmt.Errorf("take the migration lock: %w", err)
		}
		if got {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for another process to migrate: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

func (advisoryLock) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	_, err := conn.ExecContext(ctx, "SELECT pg_advisory_unlock($1)", migrationLock)
	return err
}
