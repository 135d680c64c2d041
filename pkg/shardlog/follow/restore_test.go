package follow_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/shardlog/commit"
	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/shardlog/token"
	"github.com/heddle-im/heddle/pkg/store/commitdb"
	"github.com/heddle-im/heddle/pkg/store/logdb"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
)

// A database is restored to an earlier moment while clients hold tokens of what came after it: PostgreSQL writes on, on another
// timeline, the writer opens an incarnation, and no token of the future is taken for one of the present.
func TestDatabaseRestoredToAnEarlierMoment(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*timeout)
	defer cancel()
	server := pgtest.Server(t)
	db := server.Open()
	exec1 := func(db *pgtest.DB, sql string) {
		_, err := db.Pool.Exec(ctx, sql)
		require.NoError(t, err)
	}
	exec1(db, `INSERT INTO shard_lease (shard, epoch, holder) SELECT generate_series(0, 3), 1, 'm1'`)

	before := master(t, db)
	for range 5 {
		before.write(ctx, 0)
	}
	src := logdb.NewDB(db.DB, shards)
	old := readToken(ctx, t, src) // a client that reads, and then sleeps
	before.stop()
	db.DB.Close()
	server.Stop()
	backup := server.Backup()

	server.Start()
	db = server.Open()
	lost := master(t, db)
	for range 7 {
		lost.write(ctx, 0)
	}
	src = logdb.NewDB(db.DB, shards)
	future := readToken(ctx, t, src) // one that has seen what will be lost
	require.Equal(t, old.Incarnation, future.Incarnation, "a restart is no new history")
	r := &record{t: t}
	follower := &switching{Source: src}
	f := follow.New(follow.Config{Poll: 50 * time.Millisecond}, follow.Options{Source: follower, Consumer: r})
	require.NoError(t, f.Start(ctx))
	defer func() { require.NoError(t, f.Stop(ctx)) }()
	lost.stop()
	follower.set(nil)
	db.DB.Close()
	server.Stop()

	server.Restore(backup)
	db = server.Open()

	src = logdb.NewDB(db.DB, shards)
	after := master(t, db)
	pos := after.write(ctx, 0)
	require.Greater(t, pos, shard.Step, "no position is used twice")
	require.Equal(t, pos+1, after.write(ctx, 0))
	history, err := src.History(ctx)
	require.NoError(t, err)
	require.Len(t, history, 2)
	now := readToken(ctx, t, src)
	require.NotEqual(t, old.Incarnation, now.Incarnation)
	for name, c := range map[string]struct {
		tok  *token.Sync
		good bool
	}{"before the restore": {old, true}, "of the lost future": {future, false}, "of now": {now, true}} {
		tok, err := token.DecodeSync(c.tok.Encode(), shards)
		require.NoError(t, err)
		require.Equal(t, c.good, history.Holds(tok.Incarnation, tok.Positions), name)
	}
	// The follower that had seen the lost future begins anew, and follows on.
	follower.set(src)
	heads, err := src.Heads(ctx)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return f.Positions().Incarnation == heads.Incarnation }, timeout, tick)
	after.write(ctx, 0)
	require.NoError(t, f.WaitFor(ctx, 0, pos+2))
	require.Len(t, r.resets, 2, "at the start, and when what it had was undone")
	after.stop()
	db.DB.Close()
}

func readToken(ctx context.Context, t *testing.T, src *logdb.DB) *token.Sync {
	t.Helper()
	heads, err := src.Heads(ctx)
	require.NoError(t, err)
	return &token.Sync{Incarnation: heads.Incarnation, Positions: heads.Positions}
}

type oneMaster struct {
	t *testing.T
	c *commit.Committer
	w *commitdb.Writer
}

func master(t *testing.T, db *pgtest.DB) *oneMaster {
	t.Helper()
	w := commitdb.NewWriter(commitdb.Options{Connect: db.DB.Connect, Shards: shards, Holder: func() string { return "m1" }})
	c := commit.New(commit.Config{}, commit.Options{Store: w, Publisher: nobody{}, Leases: always{}})
	ctx := context.Background()
	require.NoError(t, c.Start(ctx))
	for s := range shards {
		require.NoError(t, c.Open(ctx, shard.ID(s), 1))
	}
	return &oneMaster{t, c, w}
}

func (m *oneMaster) write(ctx context.Context, s shard.ID) shard.Pos {
	m.t.Helper()
	out, err := m.c.Submit(small(s)).Wait(ctx)
	require.NoError(m.t, err)
	return out.Last
}

func (m *oneMaster) stop() {
	require.NoError(m.t, m.c.Stop(context.Background()))
	m.w.Close()
}

// nobody listens to what is published.
type nobody struct{}

func (nobody) Publish(_ shard.ID, _ []byte, acked func(error)) { acked(nil) }
