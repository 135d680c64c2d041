package pgtest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/store/schema"
)

// OwnServer is a PostgreSQL server for one test that kills it. What was
// committed survives Kill.
type OwnServer struct {
	// DSN reaches the database, migrated, across restarts.
	DSN string
	// Dir is the data directory, for tests that back it up and restore it while the server is stopped.
	Dir string

	t        testing.TB
	launcher *pg.Launcher
}

// Server starts a server with a migrated database, stopped when the test ends.
func Server(t testing.TB, opts ...Option) *OwnServer {
	t.Helper()
	o := options{schema: schema.FS}
	for _, f := range opts {
		f(&o)
	}
	dir := filepath.Join(t.TempDir(), "data")
	l, err := pg.NewLauncher(pg.LauncherConfig{DataDir: dir, Mode: pg.Crashable})
	require.NoError(t, err)
	s := &OwnServer{t: t, launcher: l, Dir: dir}
	t.Cleanup(s.Stop)
	s.Start()
	s.DSN = l.DSN("")
	if o.schema != nil {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		m, err := pg.NewMigrator(pg.Config{DSN: s.DSN}, o.schema, pg.SchemaRange{Min: 0, Max: 1 << 60}, nil)
		require.NoError(t, err)
		_, err = m.Up(ctx)
		require.NoError(t, err)
	}
	return s
}

// Open returns pools on the server, closed when the test ends.
func (s *OwnServer) Open() *DB {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	db := open(s.t, ctx, s.DSN)
	s.t.Cleanup(db.DB.Close)
	return db
}

// Start starts the server again after Kill or Stop, and waits until it has
// recovered.
func (s *OwnServer) Start() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	require.NoError(s.t, s.launcher.Start(ctx))
}

// Stop shuts the server down in order.
func (s *OwnServer) Stop() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	require.NoError(s.t, s.launcher.Stop(ctx))
}

// Kill ends the server with SIGKILL.
func (s *OwnServer) Kill() { s.launcher.Kill() }

// Restart is Kill and Start.
func (s *OwnServer) Restart() {
	s.t.Helper()
	s.Kill()
	s.Start()
}

// Pause stops the acceptance of new connections without refusing them: they
// hang, as on a machine that has gone away. Resume undoes it.
func (s *OwnServer) Pause() { s.launcher.Pause() }

// Resume undoes Pause.
func (s *OwnServer) Resume() { s.launcher.Resume() }

// Backup copies the data of the server, which must be stopped, and gives where the copy is.
func (s *OwnServer) Backup() string {
	s.t.Helper()
	backup := filepath.Join(filepath.Dir(s.Dir), "backup"+strconv.FormatInt(time.Now().UnixNano(), 36))
	s.run("cp", "-a", s.Dir, backup)
	return backup
}

// Restore has the server, which must be stopped, begin again at a backup, as a recovery to a point in time would: on a timeline of its
// own. It starts the server and waits until that takes writes.
func (s *OwnServer) Restore(backup string) {
	s.t.Helper()
	s.run("rm", "-rf", s.Dir)
	s.run("cp", "-a", backup, s.Dir)
	signal := filepath.Join(s.Dir, "recovery.signal")
	require.NoError(s.t, os.WriteFile(signal, nil, 0o600))
	conf := filepath.Join(s.Dir, "postgresql.auto.conf")
	b, err := os.ReadFile(conf)
	require.NoError(s.t, err)
	require.NoError(s.t, os.WriteFile(conf, append(b, "restore_command = 'false'\n"...), 0o600))
	s.run("chown", "--reference="+s.Dir, signal, conf)
	s.Start()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	require.Eventually(s.t, func() bool {
		conn, err := pgx.Connect(ctx, s.DSN)
		if err != nil {
			return false
		}
		defer func() { _ = conn.Close(ctx) }()
		var recovering bool
		return conn.QueryRow(ctx, `SELECT pg_is_in_recovery()`).Scan(&recovering) == nil && !recovering
	}, timeout, 20*time.Millisecond)
}

// Standby starts a server that follows this one by streaming replication. This one is stopped for a moment: nobody may be connected yet.
func (s *OwnServer) Standby() *OwnServer {
	s.t.Helper()
	s.Stop()
	dir := s.Backup()
	s.Start()
	signal, conf := filepath.Join(dir, "standby.signal"), filepath.Join(dir, "postgresql.auto.conf")
	require.NoError(s.t, os.WriteFile(signal, nil, 0o600))
	b, err := os.ReadFile(conf)
	require.NoError(s.t, err)
	from := strings.ReplaceAll(s.launcher.DSN("replication"), "'", "''")
	require.NoError(s.t, os.WriteFile(conf, append(b, "primary_conninfo = '"+from+"'\n"...), 0o600))
	s.run("chown", "--reference="+dir, signal, conf)
	l, err := pg.NewLauncher(pg.LauncherConfig{DataDir: dir, Mode: pg.Crashable})
	require.NoError(s.t, err)
	x := &OwnServer{t: s.t, launcher: l, Dir: dir}
	s.t.Cleanup(x.Stop)
	x.Start()
	x.DSN = l.DSN("")
	return x
}

func (s *OwnServer) run(name string, args ...string) {
	s.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	require.NoError(s.t, err, "%s", out)
}
