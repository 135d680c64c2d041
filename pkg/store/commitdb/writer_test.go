package commitdb_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/shardlog/commit"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

func TestCommitWritesRowsAndLogAtTheirPositions(t *testing.T) {
	h := newHouse(t)
	c := h.committer(h.writer("m1", nil), &leases{}, 1)
	var tickets []*commit.Ticket
	for n := range int64(20) {
		tickets = append(tickets, c.Submit(message(shard.ID(n%2), 1, n+10, fmt.Sprintf("key %d", n))))
	}
	for i, tk := range tickets {
		out, err := wait(t, tk)
		require.NoError(t, err)
		require.Equal(t, shard.Pos(i/2+1), out.First)
		var ord int64
		h.one(&ord, `SELECT ord FROM event WHERE nid = $1`, int64(shard.MakeNid(shard.ID(i%2), int64(i)+10)))
		require.Equal(t, int64(out.First), ord)
	}
	heads, err := h.log().Heads(context.Background())
	require.NoError(t, err)
	require.Equal(t, shard.Vector{10, 10, 0, 0}, heads.Positions)
	require.NotZero(t, heads.Incarnation)
}

func TestRepeatedCommandIsAnsweredWithItsResult(t *testing.T) {
	h := newHouse(t)
	c := h.committer(h.writer("m1", nil), &leases{}, 1)
	first, err := wait(t, c.Submit(message(1, 1, 10, "key")))
	require.NoError(t, err)
	require.False(t, first.Repeated)
	chain := &entry.Chain{}
	again := message(1, 1, 11, "key")
	again.Chain = chain
	after := message(1, 1, 12, "other")
	after.Chain = chain
	t1, t2, t3 := c.Submit(again), c.Submit(after), c.Submit(message(1, 1, 13, ""))
	out, err := wait(t, t1)
	require.NoError(t, err)
	require.True(t, out.Repeated)
	require.Equal(t, "$10", string(out.Result))
	_, err = wait(t, t2)
	require.ErrorIs(t, err, commit.ErrChain, "it was built on something that is not there")
	out, err = wait(t, t3)
	require.NoError(t, err)
	require.Equal(t, shard.Pos(2), out.First)
	require.True(t, chain.Broken())
}

func TestSameCommandTwiceAtOnce(t *testing.T) {
	h := newHouse(t)
	c := h.committer(h.writer("m1", nil), &leases{}, 1)
	t1, t2 := c.Submit(message(1, 1, 10, "key")), c.Submit(message(1, 1, 11, "key"))
	o1, err := wait(t, t1)
	require.NoError(t, err)
	o2, err := wait(t, t2)
	require.NoError(t, err)
	require.False(t, o1.Repeated)
	require.True(t, o2.Repeated)
	require.Equal(t, o1.Result, o2.Result)
}

func TestOneBadRowOfAFullBatchFailsAlone(t *testing.T) {
	h := newHouse(t)
	c := h.committer(h.writer("m1", nil), &leases{}, 1)
	bad := func(p *entry.Proposal, break_ func(*roomdb.Event)) *entry.Proposal {
		break_(p.Rows[0].(*roomdb.Event))
		return p
	}
	_, err := wait(t, c.Submit(message(0, 1, 1000, "")))
	require.NoError(t, err)
	// The writer's lock keeps the batch together: nothing is taken while a lease row is locked.
	tx := h.db.Tx(t)
	_, err = tx.Exec(context.Background(), `SELECT 1 FROM shard_lease FOR UPDATE`)
	require.NoError(t, err)
	blocked := c.Submit(message(0, 1, 1001, ""))
	var tickets []*commit.Ticket
	for n := range int64(64) {
		p := message(shard.ID(n%shards), 1, 2000+n, "")
		switch n {
		case 13:
			p = bad(p, func(e *roomdb.Event) { e.EventID = "nul \x00 byte" })
		case 40:
			p = bad(p, func(e *roomdb.Event) { e.Nid = shard.MakeNid(0, 1000) })
		}
		tickets = append(tickets, c.Submit(p))
	}
	require.NoError(t, tx.Rollback(context.Background()))
	_, err = wait(t, blocked)
	require.NoError(t, err)
	for n, tk := range tickets {
		_, err := wait(t, tk)
		switch n {
		case 13:
			require.Error(t, err)
		case 40:
			require.ErrorIs(t, err, commit.ErrConflict)
		default:
			require.NoError(t, err, n)
		}
	}
	var n, dense int64
	h.one(&n, `SELECT count(*) FROM log`)
	require.Equal(t, int64(64), n)
	h.one(&dense, `SELECT count(*) FROM (SELECT pos - row_number() OVER (PARTITION BY shard ORDER BY pos) AS d FROM log) x WHERE d <> 0`)
	require.Zero(t, dense, "positions have no holes")
}

func TestLostShardDoesNotHoldUpTheOthers(t *testing.T) {
	h := newHouse(t)
	l := &leases{}
	c := h.committer(h.writer("m1", nil), l, 1)
	h.exec(`UPDATE shard_lease SET epoch = 2, holder = 'm2' WHERE shard = 2`)
	var tickets []*commit.Ticket
	for s := range shards {
		tickets = append(tickets, c.Submit(message(shard.ID(s), 1, 10, "")))
	}
	for s, tk := range tickets {
		_, err := wait(t, tk)
		if s == 2 {
			require.ErrorIs(t, err, commit.ErrFenced)
			continue
		}
		require.NoError(t, err)
	}
	require.True(t, l.lost[2])
	_, err := wait(t, c.Submit(message(2, 1, 11, "")))
	require.ErrorIs(t, err, commit.ErrFenced)
	require.ErrorIs(t, c.Open(context.Background(), 2, 1), commit.ErrFenced)
}

func TestWarmCommitTakesTwoRoundTripsAndNoRead(t *testing.T) {
	h := newHouse(t)
	w := h.writer("m1", nil)
	c := h.committer(w, &leases{}, 1)
	_, err := wait(t, c.Submit(message(0, 1, 10, "warm")))
	require.NoError(t, err)
	before := h.db.Counter.Count()
	_, err = wait(t, c.Submit(message(0, 1, 11, "key")))
	require.NoError(t, err)
	made := h.db.Counter.Statements()
	t.Log(h.db.Counter.Count()-before, made[len(made)-int(h.db.Counter.Count()-before):])
	for _, sql := range made[len(made)-int(h.db.Counter.Count()-before):] {
		require.NotRegexp(t, `(?i)FROM (log|event|done|room)\b`, sql)
		require.NotRegexp(t, `(?i)^\W*update`, sql)
	}
}

// Stopped in mid-transaction while another takes its shard: the old session is ended by its name on the lease row, and commits nothing.
func TestMasterStoppedInMidTransaction(t *testing.T) {
	h := newHouse(t)
	ctx := context.Background()
	w1 := h.writer("m1", nil)
	s1, err := w1.Session(ctx)
	require.NoError(t, err)
	var pid int32
	h.one(&pid, `SELECT holder_pid FROM shard_lease WHERE shard = 1`)
	require.Equal(t, s1.PID, pid, "the session stands on the lease rows")

	// A transaction of the old master that holds the fence and goes no further.
	paused, err := h.db.DB.Connect(ctx)
	require.NoError(t, err)
	defer func() { _ = paused.Close(ctx) }()
	_, err = paused.Exec(ctx, `BEGIN; SELECT 1 FROM shard_lease WHERE shard = 1 FOR SHARE; INSERT INTO log (shard, pos, epoch, kind, body) VALUES (1, 1, 1, 1, '')`,
		pgx.QueryExecModeSimpleProtocol)
	require.NoError(t, err)
	var started time.Time
	h.one(&started, `SELECT backend_start FROM pg_stat_activity WHERE pid = $1`, int32(paused.PgConn().PID()))
	h.exec(`UPDATE shard_lease SET holder_pid = $1, holder_started = $2 WHERE shard = 0`, int32(paused.PgConn().PID()), started)

	// The claimant.
	h.exec(`SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2`, int32(paused.PgConn().PID()), started)
	h.exec(`UPDATE shard_lease SET epoch = epoch + 1, holder = 'm2' WHERE shard = 1`)
	c2 := commit.New(commit.Config{}, commit.Options{Store: h.writer("m2", nil), Publisher: acker{}, Leases: &leases{}})
	require.NoError(t, c2.Start(ctx))
	defer func() { require.NoError(t, c2.Stop(ctx)) }()
	require.NoError(t, c2.Open(ctx, 1, 2))
	out, err := wait(t, c2.Submit(message(1, 2, 10, "")))
	require.NoError(t, err)
	require.Equal(t, shard.Pos(1), out.First)
	_, err = paused.Exec(ctx, `COMMIT`)
	require.Error(t, err)
	var n int
	h.one(&n, `SELECT count(*) FROM log`)
	require.Equal(t, 1, n)
}

func TestRowsOfOneSetKeepTheirOrder(t *testing.T) {
	h := newHouse(t)
	c := h.committer(h.writer("m1", nil), &leases{}, 1)
	dev := func(entries ...entry.Row) *entry.Proposal { return &entry.Proposal{Shard: 0, Epoch: 1, Rows: entries} }
	device := &accountdb.Device{UserID: "@a:x", DeviceID: "D", Created: 1}
	gone := &accountdb.DeviceGone{UserID: "@a:x", DeviceID: "D"}
	token := func(b byte) *accountdb.AccessToken {
		return &accountdb.AccessToken{Hash: [32]byte{b}, UserID: "@a:x", DeviceID: "D", Created: 1}
	}
	// All in one transaction: in, out, in again, with another token.
	tx := h.db.Tx(t)
	_, err := tx.Exec(context.Background(), `SELECT 1 FROM shard_lease FOR UPDATE`)
	require.NoError(t, err)
	hold := c.Submit(message(3, 1, 1, ""))
	t1, t2, t3 := c.Submit(dev(device, token(1))), c.Submit(dev(gone)), c.Submit(dev(device, token(2)))
	require.NoError(t, tx.Rollback(context.Background()))
	for _, tk := range []*commit.Ticket{hold, t1, t2, t3} {
		_, err := wait(t, tk)
		require.NoError(t, err)
	}
	var hash []byte
	h.one(&hash, `SELECT hash FROM access_token`)
	require.Equal(t, byte(2), hash[0])
	var n int
	h.one(&n, `SELECT count(*) FROM device`)
	require.Equal(t, 1, n)
}
