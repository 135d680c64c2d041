package lease_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/fleet/lease"
	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/leasedb"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
)

// childDSN makes this test binary a master of its own, see child.
const childDSN = "HEDDLE_LEASE_TEST_CHILD"

// child is a master process. It takes the shards, opens a fenced transaction on shard 0, says so, and waits for a line. Then it
// goes on as a master does that has slept: it finishes its transaction, tries another, and says what came of it.
func child(dsn string) int {
	if err := runChild(dsn); err != nil {
		fmt.Println("failed:", err)
		return 1
	}
	return 0
}

func runChild(dsn string) error {
	ctx := context.Background()
	db, err := pg.Open(ctx, pg.Config{DSN: dsn, IdleInTransactionTimeout: time.Hour}, pg.Options{})
	if err != nil {
		return err
	}
	conn, err := db.Connect(ctx)
	if err != nil {
		return err
	}
	session, err := leasedb.SessionOf(ctx, conn)
	if err != nil {
		return err
	}
	leases := leasedb.NewDB(db)
	w := leasedb.Worker{Instance: "child", Kind: "master", Roles: []string{leasedb.Writer}}
	renewer := lease.NewRenewer(leases, lease.RenewerConfig{Worker: w})
	own := newOwner()
	e := lease.NewEngine(leases, renewer, lease.Config{Roles: []lease.Role{{
		Name: leasedb.Writer, Slots: shards, Owner: own, Session: func() leasedb.Session { return session },
	}}})
	if err := renewer.Start(ctx); err != nil {
		return err
	}
	if err := e.Start(ctx); err != nil {
		return err
	}
	for len(own.slots()) < shards {
		time.Sleep(time.Millisecond) //nolint:forbidigo // the child polls its own state
	}
	epoch, _ := e.Epoch(0)
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	held, err := leasedb.Fence(ctx, tx, []shard.ID{0}, []shard.Epoch{epoch})
	if err != nil || len(held) != 1 {
		return fmt.Errorf("fence: %v, %w", held, err)
	}
	if _, err := tx.Exec(ctx, "INSERT INTO written VALUES ('child')"); err != nil {
		return err
	}
	fmt.Println("in transaction", e.Valid(0, epoch))
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	fmt.Println("valid", e.Valid(0, epoch))
	fmt.Println("committed", tx.Commit(ctx) == nil)
	again, err := db.Primary.Begin(ctx)
	if err != nil {
		return err
	}
	held, err = leasedb.Fence(ctx, again, []shard.ID{0}, []shard.Epoch{epoch})
	if err != nil {
		return err
	}
	fmt.Println("fenced", len(held) == 0)
	return nil
}

type process struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner
	in    interface{ Write([]byte) (int, error) }
}

func startChild(t *testing.T, dsn string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDSN+"="+dsn)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	p := &process{cmd: cmd, lines: bufio.NewScanner(out), in: in}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	require.Equal(t, "in transaction true", p.line(t))
	return p
}

func (p *process) line(t *testing.T) string {
	t.Helper()
	require.True(t, p.lines.Scan(), "the child has ended")
	return strings.TrimSpace(p.lines.Text())
}

func writable(t *testing.T) *pgtest.DB {
	pgdb := pgtest.New(t)
	_, err := pgdb.Pool.Exec(context.Background(), "CREATE TABLE written (by text)")
	require.NoError(t, err)
	return pgdb
}

// write commits as the holder of shard 0.
func write(t *testing.T, pgdb *pgtest.DB, m *master) {
	t.Helper()
	ctx := context.Background()
	epoch, ok := m.Epoch(0)
	require.True(t, ok)
	tx, err := pgdb.Pool.Begin(ctx)
	require.NoError(t, err)
	held, err := leasedb.Fence(ctx, tx, []shard.ID{0}, []shard.Epoch{epoch})
	require.NoError(t, err)
	require.Len(t, held, 1)
	_, err = tx.Exec(ctx, "INSERT INTO written VALUES ($1)", m.renewer.Boot().Instance)
	require.NoError(t, err)
	require.NoError(t, tx.Commit(ctx))
}

func written(t *testing.T, pgdb *pgtest.DB) (by []string) {
	t.Helper()
	require.NoError(t, pgdb.Pool.QueryRow(context.Background(), "SELECT coalesce(array_agg(by), '{}') FROM written").Scan(&by))
	return by
}

// A master is paused in the middle of a transaction that holds the fence, past its lease; another takes its shards, and
// writes; when the first wakes nothing of its own is committed.
func TestAPausedMasterCommitsNothing(t *testing.T) {
	t.Parallel()
	pgdb := writable(t)
	p := startChild(t, pgdb.DSN)
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGSTOP))
	paused := time.Now()
	m := start(t, leasedb.NewDB(pgdb.DB), "parent", options{})
	m.await(t, shards)
	t.Logf("taken over %s after the pause", time.Since(paused))
	write(t, pgdb, m)
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGCONT))
	_, err := p.in.Write([]byte("go on\n"))
	require.NoError(t, err)
	require.Equal(t, "valid false", p.line(t))
	require.Equal(t, "committed false", p.line(t))
	require.Equal(t, "fenced true", p.line(t))
	require.Equal(t, []string{"parent"}, written(t, pgdb))
}

func TestAKilledMasterIsReplaced(t *testing.T) {
	t.Parallel()
	pgdb := writable(t)
	p := startChild(t, pgdb.DSN)
	m := start(t, leasedb.NewDB(pgdb.DB), "parent", options{})
	m.await(t, shards/2)
	require.NoError(t, p.cmd.Process.Kill())
	killed := time.Now()
	m.await(t, shards)
	t.Logf("taken over %s after the kill", time.Since(killed))
	write(t, pgdb, m)
	require.Equal(t, []string{"parent"}, written(t, pgdb))
}
