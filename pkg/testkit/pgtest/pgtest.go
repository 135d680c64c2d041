// Package pgtest gives each test a real PostgreSQL database of its own.
//
// New makes a database from a template that holds the migrated schema, in a
// server that the test process starts when it is first asked and that dies
// with it. Server starts one for a single test, to be killed and restarted.
// Nothing is mocked, and nothing outside the machine is needed: only the
// PostgreSQL server binaries, without which a test fails and says what to
// install. It works as root and as an ordinary user.
//
// Packages that use it should have
//
//	func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }
//
// which stops the server and removes its data at the end, and then looks for
// leaked goroutines. Without it the server ends with the process all the same,
// and the next run removes the data.
//
// All functions are safe for parallel tests. Only _test files and other
// packages of the test kit may import it.
package pgtest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/store/schema"
)

const (
	timeout   = time.Minute
	dirPrefix = "heddle-pgtest-"
)

// DB is a database for one test.
type DB struct {
	// DSN reaches it, for workers that are started on it.
	DSN string
	// DB is pools on it; Pool is its primary pool.
	DB   *pg.DB
	Pool *pgxpool.Pool
	// Counter counts the statements made through DB.
	Counter *pg.QueryCounter
}

type options struct {
	schema fs.FS
}

// Option changes what New makes.
type Option func(*options)

// WithSchema uses these migrations in place of Heddle's.
func WithSchema(fsys fs.FS) Option { return func(o *options) { o.schema = fsys } }

// Empty makes a database without a schema.
func Empty() Option { return func(o *options) { o.schema = nil } }

// New makes a database with Heddle's schema, dropped when the test ends.
func New(t testing.TB, opts ...Option) *DB {
	t.Helper()
	o := options{schema: schema.FS}
	for _, f := range opts {
		f(&o)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	c, err := shared.start(ctx)
	require.NoError(t, err)
	template, err := c.template(ctx, o.schema)
	require.NoError(t, err)
	name := fmt.Sprintf("t%d", c.serial.Add(1))
	require.NoError(t, c.create(ctx, name, template))
	db := open(t, ctx, c.launcher.DSN(name))
	t.Cleanup(func() {
		db.DB.Close()
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		// FORCE, for workers under test may still be connected.
		_, err := c.admin.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)")
		require.NoError(t, err)
	})
	return db
}

func open(t testing.TB, ctx context.Context, dsn string) *DB {
	t.Helper()
	counter := pg.NewQueryCounter()
	db, err := pg.Open(ctx, pg.Config{DSN: dsn, MaxConns: 10}, pg.Options{Counter: counter})
	require.NoError(t, err)
	return &DB{DSN: dsn, DB: db, Pool: db.Primary, Counter: counter}
}

// Tx returns a transaction on a new connection of db's pool that is rolled
// back when the test ends, for tests that need not see a commit.
func (db *DB) Tx(t testing.TB) pgx.Tx {
	t.Helper()
	tx, err := db.Pool.Begin(context.Background())
	require.NoError(t, err)
	t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	return tx
}

// NoQueries fails the test if fn makes a statement through db's pools.
func (db *DB) NoQueries(t testing.TB, fn func()) {
	t.Helper()
	before := db.Counter.Count()
	fn()
	if n := db.Counter.Count() - before; n != 0 {
		made := db.Counter.Statements()
		require.Zero(t, n, "statements were made: %q", made[max(0, len(made)-int(n)):])
	}
}

// Run runs the tests, stops the shared server, and then fails if a goroutine
// was leaked. Its result is for os.Exit.
func Run(m *testing.M, opts ...goleak.Option) int {
	code := m.Run()
	if err := shared.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "pgtest: "+err.Error())
		code = max(code, 1)
	}
	if code == 0 {
		if err := goleak.Find(opts...); err != nil {
			fmt.Fprintln(os.Stderr, "goleak: "+err.Error())
			code = 1
		}
	}
	return code
}

// shared is the one server of this test process. It is a global because tests
// have nothing else in common that could hold it.
var shared process

type process struct {
	mu sync.Mutex // guards c; held while the server starts and stops
	c  *cluster
}

func (p *process) start(ctx context.Context) (*cluster, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.c != nil {
		return p.c, nil
	}
	c, err := startCluster(ctx)
	if err == nil {
		p.c = c
	}
	return c, err
}

func (p *process) stop() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.c == nil {
		return nil
	}
	c := p.c
	p.c = nil
	return c.stop()
}

type cluster struct {
	launcher *pg.Launcher
	admin    *pgxpool.Pool
	dir      string
	lock     *os.File
	serial   atomic.Int64

	mu        sync.Mutex // guards templates; held while a template is made
	templates map[string]string

	// CREATE DATABASE locks its template against connections and, with other
	// kinds of template users, against itself; one at a time is also fastest.
	creating sync.Mutex
}

func startCluster(ctx context.Context) (_ *cluster, err error) {
	sweep()
	dir, lock, err := makeDir()
	if err != nil {
		return nil, err
	}
	c := &cluster{dir: dir, lock: lock, templates: map[string]string{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.stop())
		}
	}()
	c.launcher, err = pg.NewLauncher(pg.LauncherConfig{DataDir: filepath.Join(dir, "data"), Mode: pg.Disposable})
	if err != nil {
		return nil, err
	}
	if err := c.launcher.Start(ctx); err != nil {
		return nil, err
	}
	cfg, err := pgxpool.ParseConfig(c.launcher.DSN("postgres"))
	if err != nil {
		return nil, err
	}
	cfg.MaxConns = 4
	c.admin, err = pgxpool.NewWithConfig(ctx, cfg)
	return c, err
}

func (c *cluster) stop() error {
	var err error
	if c.admin != nil {
		c.admin.Close()
	}
	if c.launcher != nil {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		err = c.launcher.Stop(ctx)
	}
	return errors.Join(err, os.RemoveAll(c.dir), c.lock.Close())
}

// template returns the database that holds the schema, made on first use.
func (c *cluster) template(ctx context.Context, fsys fs.FS) (string, error) {
	if fsys == nil {
		return "template0", nil
	}
	key, err := hashFS(fsys)
	if err != nil {
		return "", err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if name, ok := c.templates[key]; ok {
		return name, nil
	}
	name := "template_" + key
	if err := c.create(ctx, name, "template0"); err != nil {
		return "", err
	}
	m, err := pg.NewMigrator(pg.Config{DSN: c.launcher.DSN(name)}, fsys, pg.SchemaRange{Min: 0, Max: 1 << 60}, nil)
	if err != nil {
		return "", err
	}
	if _, err := m.Up(ctx); err != nil {
		return "", err
	}
	// A session of the migrator that is still ending would block the copies.
	_, err = c.admin.Exec(ctx, "ALTER DATABASE "+name+" ALLOW_CONNECTIONS false")
	if err == nil {
		_, err = c.admin.Exec(ctx, "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1", name)
	}
	if err != nil {
		return "", fmt.Errorf("close the template: %w", err)
	}
	c.templates[key] = name
	return name, nil
}

func (c *cluster) create(ctx context.Context, name, template string) error {
	c.creating.Lock()
	defer c.creating.Unlock()
	if _, err := c.admin.Exec(ctx, "CREATE DATABASE "+name+" TEMPLATE "+template); err != nil {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	return nil
}

func hashFS(fsys fs.FS) (string, error) {
	h := sha256.New()
	err := fs.WalkDir(fsys, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(fsys, path)
		fmt.Fprintf(h, "%q %d\n%s", path, len(b), b)
		return err
	})
	return hex.EncodeToString(h.Sum(nil)[:8]), err
}

// makeDir makes a directory for a server, and holds a lock in it for as long
// as this process lives.
func makeDir() (string, *os.File, error) {
	dir, err := os.MkdirTemp("", dirPrefix)
	if err != nil {
		return "", nil, err
	}
	lock, err := os.Create(filepath.Join(dir, "lock"))
	if err != nil {
		return "", nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return "", nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return dir, lock, nil
}

// sweep removes what test processes that were killed left behind: the
// directories whose lock nobody holds. What fails is left to the next sweep.
func sweep() {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"*"))
	for _, dir := range dirs {
		f, err := os.Open(filepath.Join(dir, "lock"))
		if err != nil {
			continue // being made, or another user's
		}
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			_ = os.RemoveAll(dir)
		}
		_ = f.Close()
	}
}
