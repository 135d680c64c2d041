package pg_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/infra/pg"
)

func newLauncher(t *testing.T, cfg pg.LauncherConfig) *pg.Launcher {
	l, err := pg.NewLauncher(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Stop(context.Background())) })
	return l
}

func queryOne[T any](t *testing.T, dsn, sql string) (v T) {
	t.Helper()
	ctx := testContext(t)
	conn, err := pgx.Connect(ctx, dsn)
	require.NoError(t, err)
	defer conn.Close(ctx)
	require.NoError(t, conn.QueryRow(ctx, sql).Scan(&v))
	return v
}

func makeTable(t *testing.T, dsn string) {
	t.Helper()
	ctx := testContext(t)
	conn, err := pgx.Connect(ctx, dsn)
	require.NoError(t, err)
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, "CREATE TABLE kept AS SELECT 1")
	require.NoError(t, err)
}

func TestLauncherDurable(t *testing.T) {
	ctx := testContext(t)
	dir := filepath.Join(t.TempDir(), "deep", "data")
	l := newLauncher(t, pg.LauncherConfig{DataDir: dir})
	require.Empty(t, l.DSN(""))
	require.NoError(t, l.Start(ctx))
	require.ErrorContains(t, l.Start(ctx), "already started")
	dsn := l.DSN("")
	for sql, want := range map[string]string{
		"SHOW fsync": "on", "SHOW synchronous_commit": "on", "SHOW server_encoding": "UTF8", "SHOW lc_collate": "C",
		"SHOW listen_addresses": "", "SHOW data_checksums": "on", "SELECT current_database()::text": "heddle",
	} {
		require.Equal(t, want, queryOne[string](t, dsn, sql), sql)
	}
	socket := strings.TrimPrefix(strings.Fields(dsn)[0], "host=")
	info, err := os.Stat(socket)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	makeTable(t, dsn)

	done := l.Done()
	require.NoError(t, l.Stop(ctx))
	require.NoError(t, l.Stop(ctx))
	<-done
	require.NoDirExists(t, socket)
	require.NoError(t, l.Start(ctx))
	require.Equal(t, dsn, l.DSN(""))
	require.Equal(t, int64(1), queryOne[int64](t, dsn, "SELECT count(*) FROM kept"))
}

func TestLauncherRecovers(t *testing.T) {
	ctx := testContext(t)
	dir := filepath.Join(t.TempDir(), "data")
	first := newLauncher(t, pg.LauncherConfig{DataDir: dir, Mode: pg.Crashable})
	require.NoError(t, first.Start(ctx))
	makeTable(t, first.DSN(""))
	first.Kill()
	pidFile := filepath.Join(dir, "postmaster.pid")
	require.FileExists(t, pidFile, "the killed server left its lock")
	// Another process has its pid now: PostgreSQL would refuse to start.
	b, err := os.ReadFile(pidFile)
	require.NoError(t, err)
	other := exec.Command("sleep", "60")
	require.NoError(t, other.Start())
	defer func() { _ = other.Process.Kill(); _ = other.Wait() }()
	_, rest, _ := strings.Cut(string(b), "\n")
	require.NoError(t, os.WriteFile(pidFile, []byte(strconv.Itoa(other.Process.Pid)+"\n"+rest), 0o600))

	second := newLauncher(t, pg.LauncherConfig{DataDir: dir, Mode: pg.Crashable})
	require.NoError(t, second.Start(ctx))
	require.Equal(t, int64(1), queryOne[int64](t, second.DSN(""), "SELECT count(*) FROM kept"))

	// A directory that a server runs on is not taken.
	third := newLauncher(t, pg.LauncherConfig{DataDir: dir, Mode: pg.Crashable, StartTimeout: 300 * time.Millisecond})
	require.ErrorContains(t, third.Start(ctx), "already runs on it")
}

func TestLauncherMistakes(t *testing.T) {
	ctx := testContext(t)
	_, err := pg.NewLauncher(pg.LauncherConfig{})
	require.Error(t, err)

	l := newLauncher(t, pg.LauncherConfig{DataDir: filepath.Join(t.TempDir(), "d"), BinDir: t.TempDir()})
	err = l.Start(ctx)
	require.ErrorIs(t, err, pg.ErrNoServer)
	require.ErrorContains(t, err, "apt install postgresql")

	full := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(full, "file"), nil, 0o600))
	require.ErrorContains(t, newLauncher(t, pg.LauncherConfig{DataDir: full}).Start(ctx), "not a PostgreSQL data directory")

	wrong := newLauncher(t, pg.LauncherConfig{
		DataDir: filepath.Join(t.TempDir(), "d"), Mode: pg.Disposable, Settings: map[string]string{"work_mem": "nonsense"},
	})
	err = wrong.Start(ctx)
	require.ErrorContains(t, err, "its log ends")
	require.ErrorContains(t, err, "work_mem")

	old := filepath.Join(t.TempDir(), "d")
	require.NoError(t, os.Mkdir(old, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(old, "PG_VERSION"), []byte("9\n"), 0o600))
	require.ErrorContains(t, newLauncher(t, pg.LauncherConfig{DataDir: old}).Start(ctx), "made by PostgreSQL 9")
}

// TestLauncherDiesWithItsOwner runs itself as a process that is killed.
func TestLauncherDiesWithItsOwner(t *testing.T) {
	const variable = "HEDDLE_TEST_LAUNCHER_DIR"
	if dir := os.Getenv(variable); dir != "" {
		l, err := pg.NewLauncher(pg.LauncherConfig{DataDir: dir, Mode: pg.Disposable})
		require.NoError(t, err)
		require.NoError(t, l.Start(context.Background()))
		require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGKILL))
		select {}
	}
	dir := filepath.Join(t.TempDir(), "data")
	cmd := exec.Command(os.Args[0], "-test.run=^TestLauncherDiesWithItsOwner$")
	cmd.Env = append(os.Environ(), variable+"="+dir)
	require.Error(t, cmd.Run())
	// A server that still ran would make this one wait in vain.
	l := newLauncher(t, pg.LauncherConfig{DataDir: dir, Mode: pg.Disposable})
	require.NoError(t, l.Start(testContext(t)))
}
