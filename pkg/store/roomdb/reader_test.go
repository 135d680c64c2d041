package roomdb_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/feddb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

// What is read by name costs what was asked for, and not what there is, also of a room that came since the database last counted its rows.
func TestLooksUpByNameInWhatHasJustCome(t *testing.T) {
	const stored, asked = 5000, 200
	db := pgtest.New(t)
	room := shard.MakeNid(0, 1)
	require.NoError(t, pg.InTx(t.Context(), db.DB.Primary, func(tx pgx.Tx) error {
		exec := func(sql string, args ...any) {
			_, err := tx.Exec(t.Context(), sql, args...)
			require.NoError(t, err)
		}
		touched := func() (n int64) {
			require.NoError(t, tx.QueryRow(t.Context(), `SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_xact_user_tables
				WHERE relname IN ('atom', 'event', 'staged_event')`).Scan(&n))
			return n
		}
		// As with a database that has been in use: there are rows, and they have been counted.
		exec(`INSERT INTO atom (nid, shard, name) SELECT g << 8, 0, 'n' || g FROM generate_series(1, 100) g`)
		exec(`INSERT INTO event (nid, room_nid, event_id, type, sender, depth, ts, state_before, state_after, json)
			SELECT g << 8, (1000 + g % 10) << 8, '$o' || g, 256, 512, 1, 1, 0, 0, '{}' FROM generate_series(100000, 100500) g`)
		exec(`ANALYZE atom, event`)
		exec(`INSERT INTO atom (nid, shard, name) SELECT g << 8, 0, 'n' || g FROM generate_series(101, 100 + $1::bigint) g`, stored)
		exec(`INSERT INTO event (nid, room_nid, event_id, type, sender, depth, ts, state_before, state_after, json)
			SELECT g << 8, $2::bigint, '$e' || g, 256, 512, 1, 1, 0, 0, '{}' FROM generate_series(1, $1::bigint) g`, stored, int64(room))
		exec(`INSERT INTO staged_event (set_id, seq, state, event_id, json) SELECT 'set', g, true, '$e' || g, '{}' FROM generate_series(0, $1::integer - 1) g`, stored)
		var names, ids []string
		for i := range asked {
			names, ids = append(names, fmt.Sprint("n", 101+i)), append(ids, fmt.Sprint("$e", 1+i))
		}
		names, ids = append(names, "none", names[0]), append(ids, "$none", ids[0])
		r, staging := roomdb.NewReader(tx), feddb.New(tx)
		for range 10 { // the plan of a prepared statement changes after some times
			before := touched()
			atoms, err := r.AtomsByName(t.Context(), 0, names)
			require.NoError(t, err)
			require.Len(t, atoms, asked)
			events, err := r.EventsByID(t.Context(), room, ids)
			require.NoError(t, err)
			require.Len(t, events, asked)
			known, err := staging.KnownEvents(t.Context(), feddb.KnownEventsParams{RoomNid: int64(room), EventIds: ids})
			require.NoError(t, err)
			require.Len(t, known, asked)
			piece, err := staging.ListStagedEvents(t.Context(), feddb.ListStagedEventsParams{SetID: []byte("set"), First: asked, Below: 2 * asked})
			require.NoError(t, err)
			require.Len(t, piece, asked)
			require.LessOrEqual(t, touched()-before, int64(4*asked))
		}
		return nil
	}))
}
