package leasedb_test

import (
	"context"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/leasedb"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

func connect(t *testing.T, db *leasedb.DB) *leasedb.Conn {
	t.Helper()
	c, err := db.Connect(context.Background())
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// No clock takes part in a decision: the database's only names a boot, and is never compared with another.
func TestNoStatementComparesAClock(t *testing.T) {
	t.Parallel()
	sql, err := os.ReadFile("queries.sql")
	require.NoError(t, err)
	clocks := regexp.MustCompile(`(?i)\b(now\(\)|clock_timestamp|statement_timestamp|transaction_timestamp|current_timestamp|age\()`)
	require.Len(t, clocks.FindAllString(string(sql), -1), 1, "but for the one in Register")
}

func TestACounterBelongsToOneBoot(t *testing.T) {
	t.Parallel()
	pgdb := pgtest.New(t)
	ctx := context.Background()
	c := connect(t, leasedb.NewDB(pgdb.DB))
	w := leasedb.Worker{Instance: "a#b", Kind: "master", Roles: []string{"writer"}}
	first, err := c.Register(ctx, w, leasedb.Status{NATS: true})
	require.NoError(t, err)
	require.Equal(t, "a#b", leasedb.InstanceOf(first.String()))
	lives := func() leasedb.Life {
		s, err := c.Observe(ctx, nil)
		require.NoError(t, err)
		require.Len(t, s.Workers, 1)
		return s.Workers[0]
	}
	before := lives()
	require.Equal(t, first.String(), before.Boot.String())
	require.True(t, before.NATS)
	require.NoError(t, c.Renew(ctx, w, first, leasedb.Status{}, false))
	require.Equal(t, before.Counter+1, lives().Counter)
	require.True(t, lives().NATS, "the status stays as it was")
	require.NoError(t, c.Renew(ctx, w, first, leasedb.Status{Draining: true, Detail: []byte(`{"x":1}`)}, true))
	require.True(t, lives().Draining)
	require.False(t, lives().NATS)

	_, err = pgdb.Pool.Exec(ctx, "DELETE FROM worker")
	require.NoError(t, err)
	require.NoError(t, c.Renew(ctx, w, first, leasedb.Status{NATS: true}, false), "taken for dead, it comes back")
	require.Equal(t, first.String(), lives().Boot.String())

	second, err := c.Register(ctx, w, leasedb.Status{})
	require.NoError(t, err)
	require.NotEqual(t, first.String(), second.String())
	require.ErrorIs(t, c.Renew(ctx, w, first, leasedb.Status{}, false), leasedb.ErrSuperseded)
	require.NoError(t, c.Withdraw(ctx, first))
	require.Equal(t, second.String(), lives().Boot.String(), "it withdraws only itself")

	// Even a clock that goes backward gives another name.
	_, err = pgdb.Pool.Exec(ctx, "UPDATE worker SET started = now() + interval '1 day'")
	require.NoError(t, err)
	ahead := lives().Boot
	third, err := c.Register(ctx, w, leasedb.Status{})
	require.NoError(t, err)
	require.True(t, third.Started.After(ahead.Started))
}

func TestALeaseChangesForWhoeverNamesItsEpoch(t *testing.T) {
	t.Parallel()
	for _, role := range []string{leasedb.Writer, "prepare"} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			pgdb := pgtest.New(t)
			ctx := context.Background()
			c := connect(t, leasedb.NewDB(pgdb.DB))
			require.NoError(t, c.Ensure(ctx, role, 2))
			require.NoError(t, c.Ensure(ctx, role, 3), "again, and more")
			row := func() leasedb.Row {
				s, err := c.Observe(ctx, []string{role})
				require.NoError(t, err)
				require.Len(t, s.Leases, 3)
				return s.Leases[1]
			}
			free := row()
			require.Equal(t, leasedb.Row{Key: leasedb.Key{Role: role, Slot: 1}}, free)
			epoch, ok, err := c.Claim(ctx, free, "a#1", leasedb.Session{}, "a:1")
			require.NoError(t, err)
			require.True(t, ok)
			require.Equal(t, shard.Epoch(1), epoch)
			require.Equal(t, "a#1", row().Holder)
			require.Equal(t, "a:1", row().Address)
			_, ok, err = c.Claim(ctx, free, "b#1", leasedb.Session{}, "b:1")
			require.NoError(t, err)
			require.False(t, ok, "who comes second finds another epoch")
			ok, err = c.Release(ctx, free.Key, "b#1", 1)
			require.NoError(t, err)
			require.False(t, ok, "not its own")
			ok, err = c.Release(ctx, free.Key, "a#1", 1)
			require.NoError(t, err)
			require.True(t, ok)
			require.Equal(t, leasedb.Row{Key: free.Key, Epoch: 2}, row())
		})
	}
}

// A claim ends the session that the row names, and no other that has its pid; and it waits for nobody for long.
func TestAClaimAndTheFence(t *testing.T) {
	t.Parallel()
	pgdb := pgtest.New(t)
	ctx := context.Background()
	c := connect(t, leasedb.NewDB(pgdb.DB))
	require.NoError(t, c.Ensure(ctx, leasedb.Writer, 1))
	writer, err := pgdb.DB.Connect(ctx)
	require.NoError(t, err)
	defer func() { _ = writer.Close(ctx) }()
	session, err := leasedb.SessionOf(ctx, writer)
	require.NoError(t, err)
	stranger := leasedb.Session{PID: session.PID, Started: session.Started.Add(-time.Second)}
	row := leasedb.Row{Key: leasedb.ShardKey(0)}
	row.Epoch, _, err = c.Claim(ctx, row, "a#1", stranger, "")
	require.NoError(t, err)
	row.Session = stranger

	tx, err := writer.Begin(ctx)
	require.NoError(t, err)
	held, err := leasedb.Fence(ctx, tx, []shard.ID{0}, []shard.Epoch{row.Epoch})
	require.NoError(t, err)
	require.Len(t, held, 1)
	_, ok, err := c.Claim(ctx, row, "b#1", leasedb.Session{}, "")
	require.NoError(t, err)
	require.False(t, ok, "the fence holds it, and its session is not the one on the row")
	require.False(t, c.Closed(), "the claimant goes on")

	row.Session = session
	epoch, ok, err := c.Claim(ctx, row, "b#1", leasedb.Session{}, "")
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, row.Epoch+1, epoch)
	require.Error(t, tx.Commit(ctx))
}

func TestFenceSlot(t *testing.T) {
	t.Parallel()
	pgdb := pgtest.New(t)
	ctx := context.Background()
	c := connect(t, leasedb.NewDB(pgdb.DB))
	require.NoError(t, c.Ensure(ctx, "sender", 1))
	k := leasedb.Key{Role: "sender", Slot: 0}
	epoch, _, err := c.Claim(ctx, leasedb.Row{Key: k}, "a#1", leasedb.Session{}, "")
	require.NoError(t, err)
	tx := pgdb.Tx(t)
	require.NoError(t, leasedb.FenceSlot(ctx, tx, k, epoch))
	require.ErrorIs(t, leasedb.FenceSlot(ctx, tx, k, epoch-1), leasedb.ErrNotHolder)
}
