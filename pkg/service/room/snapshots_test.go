package room

import (
	"math/bits"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/heddle-im/heddle/pkg/matrix/stateres"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// Whatever changes, each stored state is found again through its chain, the chains stay short, and what is written stays in
// proportion to the changes.
func TestSnapshotsAreReadAsTheyWere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type stored struct {
			row   *roomdb.StateSnapshot
			state stateres.State
		}
		rows := map[shard.Nid]stored{}
		var s snapshots
		var state stateres.State
		keys := rapid.IntRange(1, 400).Draw(t, "keys")
		changes := rapid.IntRange(1, 600).Draw(t, "changes")
		written := 0
		for n := range changes {
			k := stateres.Key{
				Type:     int64(shard.MakeNid(5, rapid.Int64Range(1, 3).Draw(t, "type"))),
				StateKey: int64(shard.MakeNid(5, rapid.Int64Range(1, int64(keys)).Draw(t, "key"))),
			}
			if _, ok := state.Get(k); ok && rapid.IntRange(0, 9).Draw(t, "delete") == 0 {
				state = state.Delete(k)
			} else {
				state = state.Set(k, int64(shard.MakeNid(5, int64(10_000+n))))
			}
			nid := shard.MakeNid(5, int64(n+1))
			var row *roomdb.StateSnapshot
			before := s
			s, row = s.push(nid, 1, state)
			rows[nid] = stored{row, state}
			if len(before) > 0 {
				require.Equal(t, before.nid(), before[len(before)-1].Nid, "an older chain was changed")
			}
			require.Len(t, row.Chain, bits.OnesCount32(uint32(row.Step)))
			d, err := roomdb.DecodeDelta(5, row.Delta)
			require.NoError(t, err)
			written += len(d)
		}
		for nid, x := range rows {
			var got stateres.State
			for _, link := range append(x.row.Chain, nid) {
				d, err := roomdb.DecodeDelta(5, rows[link].row.Delta)
				require.NoError(t, err)
				got = got.Apply(d)
			}
			n := 0
			stateres.Diff(got, x.state, func(stateres.Key, int64, int64) { n++ })
			require.Zero(t, n, "state %d", nid)
			require.EqualValues(t, got.Len(), x.row.Entries)
		}
		require.LessOrEqual(t, written, 30*changes+64)
	})
}
