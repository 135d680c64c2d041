package follow

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/shardlog/wire"
)

func sample(n int) []byte {
	b := &wire.Batch{Incarnation: 1, Shard: 0, Epoch: 1, Prev: 0, Last: int64(n)}
	for i := range n {
		b.Entries = append(b.Entries, &wire.Entry{
			Pos: int64(i + 1), Kind: uint32(entry.KindEvent), RoomNid: int64(i)<<8 + 1, EventNid: 5,
			Subject: fmt.Sprintf("@user%d:example.org", i), Body: make([]byte, 200), Json: make([]byte, 900),
		})
	}
	data, err := proto.Marshal(b)
	if err != nil {
		panic(err)
	}
	return data
}

// Whatever the bytes, decoding agrees with protobuf's own decoder on what it takes, and never panics.
func FuzzDecode(f *testing.F) {
	f.Add(sample(3))
	f.Add([]byte{})
	f.Add([]byte{0x32, 0x00})
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := parseHeader(data)
		var want wire.Batch
		if perr := proto.Unmarshal(data, &want); perr != nil || err != nil {
			return
		}
		require.Equal(t, want.GetPrev(), int64(h.prev))
		require.Equal(t, want.GetLast(), int64(h.last))
		require.Equal(t, want.GetShard(), h.shard)
		for _, w := range want.GetEntries() {
			ent, rest, err := nextEntry(data)
			require.NoError(t, err)
			data = rest
			e, err := parseEntry(ent)
			require.NoError(t, err)
			require.Equal(t, w.GetPos(), int64(e.pos))
			require.Equal(t, w.GetKind(), uint32(e.kind))
			require.Equal(t, w.GetSubject(), string(e.subject))
			require.Equal(t, string(w.GetBody()), string(e.body))
			require.Equal(t, string(w.GetJson()), string(e.json))
		}
		ent, rest, err := nextEntry(data)
		require.NoError(t, err)
		require.Nil(t, ent)
		require.Nil(t, rest)
	})
}

type nothing struct{}

func (nothing) Apply(context.Context, Batch) error { return nil }

// What following costs a worker that serves little: each entry is turned down.
func BenchmarkSkip(b *testing.B) {
	benchmark(b, func(entry.Kind, shard.Nid, []byte) bool { return false })
}

// What following costs a worker that wants everything.
func BenchmarkTake(b *testing.B) { benchmark(b, nil) }

func benchmark(b *testing.B, filter Filter) {
	f := New(Config{}, Options{Consumer: nothing{}, Filter: filter})
	f.at = shard.Heads{Incarnation: 1, Positions: make(shard.Vector, 16)}
	f.heads = make(shard.Vector, 16)
	const n = 32
	data := sample(n)
	b.ReportAllocs()
	for b.Loop() {
		f.at.Positions[0] = 0
		f.nextSeq = 0
		if err := f.onMessage(b.Context(), Message{Seq: 1, Data: data}); err != nil {
			b.Fatal(err)
		}
	}
	if f.at.Positions[0] != n {
		b.Fatal("not applied")
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/entry")
}
