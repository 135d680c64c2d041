package commit

import (
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// batchHeader is more than a message's own fields take.
const batchHeader = 64

// encode gives the messages of a batch, wire.Batch in protobuf, none longer than most. An entry that is larger than a message
// stands as a message without entries: a reference to the database. The fields are written by hand because
// this is done for every event, and each entry's bytes are copied once only.
func encode(b *Batch, most int) [][]byte {
	var out [][]byte
	var body []byte
	prev, last := b.Prev, b.Prev
	flush := func() {
		if last == prev {
			return
		}
		out = append(out, appendBatch(make([]byte, 0, len(body)+batchHeader), b, prev, last, body))
		body, prev = body[:0], last
	}
	for _, p := range b.Proposals {
		for i := range p.Entries {
			e := &p.Entries[i]
			pos := p.Place.Pos(i)
			size := sizeEntry(pos, e)
			framed := 1 + protowire.SizeBytes(size)
			if len(body) > 0 && len(body)+framed+batchHeader > most {
				flush()
			}
			if framed+batchHeader > most {
				last = pos
				flush()
				continue
			}
			if body == nil {
				body = make([]byte, 0, min(most, estimate(b)))
			}
			body = protowire.AppendTag(body, 6, protowire.BytesType)
			body = protowire.AppendVarint(body, uint64(size))
			body = appendEntry(body, pos, e)
			last = pos
		}
	}
	flush()
	return out
}

func estimate(b *Batch) int {
	n := 0
	for _, p := range b.Proposals {
		for i := range p.Entries {
			n += p.Entries[i].Size() + 16
		}
	}
	return n
}

func appendBatch(dst []byte, b *Batch, prev, last shard.Pos, entries []byte) []byte {
	dst = appendVarint(dst, 1, uint64(b.Incarnation))
	dst = appendVarint(dst, 2, uint64(b.Shard))
	dst = appendVarint(dst, 3, uint64(b.Epoch))
	dst = appendVarint(dst, 4, uint64(prev))
	dst = appendVarint(dst, 5, uint64(last))
	return append(dst, entries...)
}

func appendEntry(dst []byte, pos shard.Pos, e *entry.Entry) []byte {
	dst = appendVarint(dst, 1, uint64(pos))
	dst = appendVarint(dst, 2, uint64(e.Kind))
	dst = appendVarint(dst, 3, uint64(e.Room))
	if e.Subject != "" {
		dst = protowire.AppendTag(dst, 4, protowire.BytesType)
		dst = protowire.AppendString(dst, e.Subject)
	}
	dst = appendVarint(dst, 5, uint64(e.Event))
	dst = appendBytes(dst, 6, e.Body)
	return appendBytes(dst, 7, e.JSON)
}

func sizeEntry(pos shard.Pos, e *entry.Entry) int {
	n := sizeVarint(uint64(pos)) + sizeVarint(uint64(e.Kind)) + sizeVarint(uint64(e.Room)) + sizeVarint(uint64(e.Event))
	for _, l := range [...]int{len(e.Subject), len(e.Body), len(e.JSON)} {
		if l > 0 {
			n += 1 + protowire.SizeBytes(l)
		}
	}
	return n
}

func sizeVarint(v uint64) int {
	if v == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(v)
}

func appendVarint(dst []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return dst
	}
	dst = protowire.AppendTag(dst, field, protowire.VarintType)
	return protowire.AppendVarint(dst, v)
}

func appendBytes(dst []byte, field protowire.Number, v []byte) []byte {
	if len(v) == 0 {
		return dst
	}
	dst = protowire.AppendTag(dst, field, protowire.BytesType)
	return protowire.AppendBytes(dst, v)
}
