package pg

import (
	"context"
	"fmt"

	"github.com/exaring/otelpgx"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/multitracer"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
)

// Options are what Open needs beside the configuration. Every field may be nil.
type Options struct {
	// TracerProvider gets a span for each statement.
	TracerProvider trace.TracerProvider
	// Counter counts the statements of all pools, for tests.
	Counter *QueryCounter
	// Registerer gets the pools' metrics until Close.
	Registerer prometheus.Registerer
}

// DB is the pools of one process. Reader is the same pool as Primary when no
// replica is configured.
type DB struct {
	Primary *pgxpool.Pool
	Reader  *pgxpool.Pool

	unregister func()
}

// Open connects to the primary and, if configured, the replica. The caller
// owns the result and must Close it.
func Open(ctx context.Context, cfg Config, opts Options) (*DB, error) {
	cfg = cfg.WithDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	primary, err := open(ctx, cfg, cfg.DSN, opts, true)
	if err != nil {
		return nil, fmt.Errorf("database.dsn: %w", err)
	}
	db := &DB{Primary: primary, Reader: primary, unregister: func() {}}
	if cfg.ReadDSN != "" {
		db.Reader, err = open(ctx, cfg, cfg.ReadDSN, opts, false)
		if err != nil {
			primary.Close()
			return nil, fmt.Errorf("database.read_dsn: %w", err)
		}
	}
	if opts.Registerer != nil {
		c := newPoolCollector(db)
		if err := opts.Registerer.Register(c); err != nil {
			db.Close()
			return nil, fmt.Errorf("register pool metrics: %w", err)
		}
		db.unregister = func() { opts.Registerer.Unregister(c) }
	}
	return db, nil
}

func open(ctx context.Context, cfg Config, dsn string, opts Options, primary bool) (*pgxpool.Pool, error) {
	pc, err := cfg.poolConfig(dsn)
	if err != nil {
		return nil, err
	}
	if primary && pc.ConnConfig.ValidateConnect == nil {
		// After a failover an old primary, now a standby, must not be used:
		// with several hosts the next one is tried.
		pc.ConnConfig.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	pc.ConnConfig.Tracer = opts.tracer()
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, err
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, reached(err)
	}
	return pool, nil
}

func (o Options) tracer() pgx.QueryTracer {
	var ts []pgx.QueryTracer
	if o.TracerProvider != nil {
		ts = append(ts, otelpgx.NewTracer(
			otelpgx.WithTracerProvider(o.TracerProvider),
			otelpgx.WithDisableAcquireTracer(),
		))
	}
	if o.Counter != nil {
		ts = append(ts, o.Counter)
	}
	switch len(ts) {
	case 0:
		return nil
	case 1:
		return ts[0]
	}
	return multitracer.New(ts...)
}

// Connect opens a connection to the primary outside the pool, for work that
// needs a session of its own: a lease holder, or a fence after a lost commit.
// The caller closes it.
func (db *DB) Connect(ctx context.Context) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, db.Primary.Config().ConnConfig)
	if err != nil {
		return nil, fmt.Errorf("connect to the primary: %w", err)
	}
	return conn, nil
}

// HasReplica says whether Reader is a pool of its own.
func (db *DB) HasReplica() bool { return db.Reader != db.Primary }

// Close closes the pools after their connections were given back. It is
// idempotent.
func (db *DB) Close() {
	db.unregister()
	if db.Reader != nil && db.HasReplica() {
		db.Reader.Close()
	}
	db.Primary.Close()
}
