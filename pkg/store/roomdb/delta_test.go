package roomdb

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/heddle-im/heddle/pkg/matrix/stateres"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

func TestDeltaRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := shard.ID(rapid.Byte().Draw(t, "shard"))
		seq := rapid.Int64Range(1, 1<<50)
		set := map[stateres.Key]int64{}
		for range rapid.IntRange(0, 50).Draw(t, "n") {
			k := stateres.Key{Type: nid(s, seq.Draw(t, "type")), StateKey: nid(s, seq.Draw(t, "key"))}
			set[k] = 0
			if rapid.IntRange(0, 3).Draw(t, "gone") > 0 {
				set[k] = nid(s, seq.Draw(t, "event"))
			}
		}
		changes := make([]stateres.Pair, 0, len(set))
		for k, e := range set {
			changes = append(changes, stateres.Pair{Key: k, Event: e})
		}
		slices.SortFunc(changes, func(a, b stateres.Pair) int { return a.Compare(b.Key) })
		got, err := DecodeDelta(s, AppendDelta(nil, changes))
		require.NoError(t, err)
		require.Equal(t, changes, got)
	})
}

func FuzzDecodeDelta(f *testing.F) {
	f.Add([]byte{1, 0})
	f.Add(AppendDelta(nil, []stateres.Pair{{Key: stateres.Key{Type: 257, StateKey: 513}, Event: 1025}}))
	f.Add([]byte{1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		changes, err := DecodeDelta(1, b)
		if err != nil {
			return
		}
		if len(changes) > len(b) {
			t.Fatal("more changes than bytes")
		}
		if !slices.IsSortedFunc(changes, func(a, b stateres.Pair) int { return a.Compare(b.Key) }) {
			return
		}
		again, err := DecodeDelta(1, AppendDelta(nil, changes))
		if err != nil || !slices.Equal(again, changes) {
			t.Fatalf("%v is read as %v: %v", changes, again, err)
		}
	})
}
