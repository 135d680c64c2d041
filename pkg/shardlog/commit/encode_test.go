package commit

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/shardlog/wire"
)

// The messages of a batch read back, by protobuf's own decoder, as its entries; none is too long, and they follow each other.
func TestEncodeReadsBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const most = 2000
		b := &Batch{
			Shard: shard.ID(rapid.IntRange(0, 255).Draw(t, "shard")), Epoch: shard.Epoch(rapid.Int64Range(1, 1<<40).Draw(t, "epoch")),
			Incarnation: rapid.Uint32().Draw(t, "incarnation"), Prev: shard.Pos(rapid.Int64Range(0, 1<<50).Draw(t, "prev")),
		}
		b.Last = b.Prev
		var want []entry.Entry
		for range rapid.IntRange(0, 12).Draw(t, "proposals") {
			p := &entry.Proposal{}
			for range rapid.IntRange(0, 3).Draw(t, "entries") {
				p.Entries = append(p.Entries, entry.Entry{
					Kind: entry.Kind(rapid.IntRange(1, 5).Draw(t, "kind")), Room: shard.Nid(rapid.Int64Range(0, 1<<60).Draw(t, "room")),
					Subject: rapid.StringN(0, 20, 60).Draw(t, "subject"), Event: shard.Nid(rapid.Int64Range(0, 1<<60).Draw(t, "event")),
					Body: bytes.Repeat([]byte{1}, rapid.IntRange(0, 900).Draw(t, "body")),
					JSON: bytes.Repeat([]byte{2}, rapid.SampledFrom([]int{0, 10, 500, 3000}).Draw(t, "json")),
				})
			}
			place := entry.Place{First: b.Last + 1, Last: b.Last + shard.Pos(len(p.Entries))}
			b.Last = place.Last
			want = append(want, p.Entries...)
			b.Proposals = append(b.Proposals, Placed{Proposal: p, Place: place})
		}
		at := b.Prev
		for _, m := range encode(b, most) {
			require.LessOrEqual(t, len(m), most)
			var got wire.Batch
			require.NoError(t, proto.Unmarshal(m, &got))
			require.Equal(t, b.Incarnation, got.GetIncarnation())
			require.Equal(t, uint32(b.Shard), got.GetShard())
			require.Equal(t, int64(b.Epoch), got.GetEpoch())
			require.Equal(t, int64(at), got.GetPrev())
			if len(got.GetEntries()) == 0 { // a reference
				require.Equal(t, int64(at+1), got.GetLast())
				require.Greater(t, want[at-b.Prev].Size()+60, most)
			}
			for _, e := range got.GetEntries() {
				at++
				w := want[at-b.Prev-1]
				require.Equal(t, int64(at), e.GetPos())
				require.Equal(t, uint32(w.Kind), e.GetKind())
				require.Equal(t, int64(w.Room), e.GetRoomNid())
				require.Equal(t, int64(w.Event), e.GetEventNid())
				require.Equal(t, w.Subject, e.GetSubject())
				require.True(t, bytes.Equal(w.Body, e.GetBody()))
				require.True(t, bytes.Equal(w.JSON, e.GetJson()))
			}
			at = shard.Pos(got.GetLast())
		}
		require.Equal(t, b.Last, at)
	})
}

func BenchmarkEncode(b *testing.B) {
	batch := &Batch{Shard: 1, Epoch: 1, Incarnation: 1, Last: 32}
	for i := range 32 {
		p := &entry.Proposal{Entries: []entry.Entry{{
			Kind: entry.KindEvent, Room: 1, Event: 2, Body: make([]byte, 200), JSON: make([]byte, 900),
		}}}
		pos := shard.Pos(i + 1)
		batch.Proposals = append(batch.Proposals, Placed{Proposal: p, Place: entry.Place{First: pos, Last: pos}})
	}
	b.ReportAllocs()
	for b.Loop() {
		encode(batch, 512<<10)
	}
}
