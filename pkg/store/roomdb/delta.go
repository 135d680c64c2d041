package roomdb

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/heddle-im/heddle/pkg/matrix/stateres"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// deltaVersion is the first byte of a delta. Another form gets another number.
const deltaVersion = 1

// maxSeq is the largest number that a nid has room for.
const maxSeq = 1<<55 - 1

// ErrDelta is the error of reading a delta that is malformed.
var ErrDelta = errors.New("state delta is malformed")

// AppendDelta appends changes of a room's state as a snapshot stores them: the number of changes, and for each the distance
// of its type, state key and event from those of the change before, as variable-length integers. Nids are
// written without their shard, which is the snapshot's. An event of 0 removes the entry. The changes must be in
// ascending order of key, as stateres gives them.
func AppendDelta(dst []byte, changes []stateres.Pair) []byte {
	dst = append(dst, deltaVersion)
	dst = binary.AppendUvarint(dst, uint64(len(changes)))
	var typ, key, event int64
	for _, c := range changes {
		t, k, e := shard.Nid(c.Type).Seq(), shard.Nid(c.StateKey).Seq(), shard.Nid(c.Event).Seq()
		dst = binary.AppendUvarint(dst, uint64(t-typ))
		dst = binary.AppendVarint(dst, k-key)
		dst = binary.AppendVarint(dst, e-event)
		typ, key = t, k
		if e != 0 {
			event = e
		}
	}
	return dst
}

// DecodeDelta reads what [AppendDelta] wrote, for a snapshot of a shard.
func DecodeDelta(s shard.ID, b []byte) ([]stateres.Pair, error) {
	if len(b) == 0 || b[0] != deltaVersion {
		return nil, fmt.Errorf("%w: unknown form", ErrDelta)
	}
	b = b[1:]
	n, used := binary.Uvarint(b)
	if used <= 0 || n > uint64(len(b)) {
		return nil, fmt.Errorf("%w: bad count", ErrDelta)
	}
	b = b[used:]
	changes := make([]stateres.Pair, 0, n)
	var typ, key, event int64
	for range n {
		dt, a := binary.Uvarint(b)
		if a <= 0 {
			return nil, fmt.Errorf("%w: bad type", ErrDelta)
		}
		dk, c := binary.Varint(b[a:])
		if c <= 0 {
			return nil, fmt.Errorf("%w: bad state key", ErrDelta)
		}
		de, d := binary.Varint(b[a+c:])
		if d <= 0 {
			return nil, fmt.Errorf("%w: bad event", ErrDelta)
		}
		b = b[a+c+d:]
		typ, key = typ+int64(dt), key+dk
		e := event + de
		if typ < 0 || key < 0 || e < 0 || max(typ, key, e) > maxSeq {
			return nil, fmt.Errorf("%w: no such nid", ErrDelta)
		}
		p := stateres.Pair{Key: stateres.Key{Type: nid(s, typ), StateKey: nid(s, key)}}
		if e != 0 {
			p.Event = nid(s, e)
			event = e
		}
		changes = append(changes, p)
	}
	if len(b) != 0 {
		return nil, fmt.Errorf("%w: trailing bytes", ErrDelta)
	}
	return changes, nil
}

func nid(s shard.ID, seq int64) int64 { return int64(shard.MakeNid(s, seq)) }
