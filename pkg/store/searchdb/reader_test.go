package searchdb_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/searchdb"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
)

// However often it is searched, no plan is made for all words alike.
func TestEachSearchIsPlanned(t *testing.T) {
	conn, err := pgtest.New(t).Pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	r := searchdb.NewReader(conn)
	words, ok := searchdb.ParseQuery("weft", 3)
	require.True(t, ok)
	q := searchdb.EventQuery{Query: words, Rooms: []shard.Nid{1 << 8}, Keys: []searchdb.Key{searchdb.KeyBody}}
	for range 10 {
		for _, q.ByRank = range []bool{false, true} {
			_, err := r.Events(t.Context(), q, 10)
			require.NoError(t, err)
		}
		_, err = r.CountEvents(t.Context(), q, 10)
		require.NoError(t, err)
		_, err = r.People(t.Context(), "@alice:example.org", "bob", 10)
		require.NoError(t, err)
	}
	var alike int64
	require.NoError(t, conn.QueryRow(t.Context(), `SELECT coalesce(sum(generic_plans), 0)::bigint FROM pg_prepared_statements
		WHERE (statement LIKE '%search_event%' OR statement LIKE '%directory_person%') AND statement NOT LIKE '%pg_prepared_statements%'`).Scan(&alike))
	require.Zero(t, alike)
}
