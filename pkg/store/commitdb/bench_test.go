package commitdb_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/shardlog/commit"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// The commit path alone: 900-byte events with their keys through the committer into PostgreSQL, so many at a time in flight. The
// test kit's server does not flush to disk (fsync off).
func BenchmarkCommit(b *testing.B) {
	for _, inFlight := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("inflight=%d", inFlight), func(b *testing.B) {
			h := newHouse(b)
			c := h.committer(h.writer("m1", nil), &leases{}, 1)
			_, err := wait(b, c.Submit(message(0, 1, 1, "")))
			require.NoError(b, err)
			var n atomic.Int64
			n.Store(100)
			before := h.db.Counter.Count()
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			var left atomic.Int64
			left.Store(int64(b.N))
			for range inFlight {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						i := n.Add(1)
						s := shard.ID(i % shards)
						if _, err := c.Submit(message(s, 1, i, fmt.Sprint(i))).Wait(context.Background()); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
			// BEGIN, fence, keys, events, log, COMMIT
			b.ReportMetric(float64(b.N)/(float64(h.db.Counter.Count()-before)/6), "events/tx")
		})
	}
}

// A long snapshot, such as a dump takes, open beside the load: nothing that every commit updates piles up behind it.
func TestLongSnapshotBesideTheLoad(t *testing.T) {
	h := newHouse(t)
	w := h.writer("m1", nil)
	c := h.committer(w, &leases{}, 1)
	ctx := context.Background()
	snapshot, err := h.db.Pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	require.NoError(t, err)
	defer func() { _ = snapshot.Rollback(ctx) }()
	_, err = snapshot.Exec(ctx, `SET LOCAL idle_in_transaction_session_timeout = 0`)
	require.NoError(t, err)
	var before int
	require.NoError(t, snapshot.QueryRow(ctx, `SELECT count(*) FROM log`).Scan(&before))
	var tickets []*commit.Ticket
	for n := range int64(2000) {
		tickets = append(tickets, c.Submit(message(shard.ID(n%shards), 1, n+10, fmt.Sprint(n))))
		if n%20 == 19 { // many transactions, not one
			_, err := wait(t, tickets[len(tickets)-1])
			require.NoError(t, err)
		}
	}
	for _, tk := range tickets {
		_, err := wait(t, tk)
		require.NoError(t, err)
	}
	require.NoError(t, c.Stop(ctx))
	w.Close() // a session that ends tells its statistics
	require.Eventually(t, func() bool {
		var inserted int
		h.one(&inserted, `SELECT coalesce(sum(n_tup_ins), 0) FROM pg_stat_user_tables WHERE relname = 'log'`)
		return inserted >= 2000
	}, timeout, 50*tick, "statistics arrive")
	rows, err := h.db.Pool.Query(ctx, `SELECT relname::text, n_tup_upd, n_tup_del FROM pg_stat_user_tables
		WHERE n_tup_upd + n_tup_del > 0 ORDER BY 1`)
	require.NoError(t, err)
	var name string
	var updated, deleted int
	_, err = pgx.ForEachRow(rows, []any{&name, &updated, &deleted}, func() error {
		// The leases name the writer's session once.
		require.Equal(t, "shard_lease", name, "%d updates, %d deletions", updated, deleted)
		require.LessOrEqual(t, updated, 2*shards)
		return nil
	})
	require.NoError(t, err)
	var pages int
	h.one(&pages, `SELECT pg_relation_size('shard_lease') / 8192`)
	require.Equal(t, 1, pages)
	var after int
	require.NoError(t, snapshot.QueryRow(ctx, `SELECT count(*) FROM log`).Scan(&after))
	require.Equal(t, before, after)
}
