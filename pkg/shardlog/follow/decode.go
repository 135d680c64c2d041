package follow

import (
	"errors"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// errMalformed says that a message is no batch.
var errMalformed = errors.New("message is no batch")

// header is a wire.Batch without its entries.
type header struct {
	incarnation uint32
	shard       uint32
	prev, last  shard.Pos
}

// parseHeader reads a message's own fields and steps over its entries. It does not allocate.
func parseHeader(b []byte) (header, error) {
	var h header
	for len(b) > 0 {
		field, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return h, errMalformed
		}
		b = b[n:]
		if typ != protowire.VarintType {
			n = protowire.ConsumeFieldValue(field, typ, b)
			if n < 0 {
				return h, errMalformed
			}
			b = b[n:]
			continue
		}
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return h, errMalformed
		}
		b = b[n:]
		switch field {
		case 1:
			h.incarnation = uint32(v)
		case 2:
			h.shard = uint32(v)
		case 4:
			h.prev = shard.Pos(v)
		case 5:
			h.last = shard.Pos(v)
		}
	}
	if h.prev < 0 || h.last < h.prev {
		return h, errMalformed
	}
	return h, nil
}

// nextEntry gives the first entry of a message and what follows it; nil at the end.
func nextEntry(b []byte) (ent, rest []byte, err error) {
	for len(b) > 0 {
		field, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, nil, errMalformed
		}
		b = b[n:]
		if field == 6 && typ == protowire.BytesType {
			v, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return nil, nil, errMalformed
			}
			return v, b[n:], nil
		}
		n = protowire.ConsumeFieldValue(field, typ, b)
		if n < 0 {
			return nil, nil, errMalformed
		}
		b = b[n:]
	}
	return nil, nil, nil
}

// raw is a wire.Entry whose bytes are the message's.
type raw struct {
	pos        shard.Pos
	kind       uint64
	room       shard.Nid
	event      shard.Nid
	subject    []byte
	body, json []byte
}

// parseEntry reads an entry. It does not allocate.
func parseEntry(b []byte) (raw, error) {
	var e raw
	for len(b) > 0 {
		field, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return e, errMalformed
		}
		b = b[n:]
		switch typ {
		case protowire.VarintType:
			v, n := protowire.ConsumeVarint(b)
			if n < 0 {
				return e, errMalformed
			}
			b = b[n:]
			switch field {
			case 1:
				e.pos = shard.Pos(v)
			case 2:
				e.kind = v
			case 3:
				e.room = shard.Nid(v)
			case 5:
				e.event = shard.Nid(v)
			}
		case protowire.BytesType:
			v, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return e, errMalformed
			}
			b = b[n:]
			switch field {
			case 4:
				e.subject = v
			case 6:
				e.body = v
			case 7:
				e.json = v
			}
		default:
			n = protowire.ConsumeFieldValue(field, typ, b)
			if n < 0 {
				return e, errMalformed
			}
			b = b[n:]
		}
	}
	return e, nil
}

// entry copies what the message holds: a message is as large as its batch, and should not live as long as one entry.
func (e *raw) entry(s shard.ID) entry.At {
	buf := make([]byte, 0, len(e.body)+len(e.json))
	buf = append(buf, e.body...)
	buf = append(buf, e.json...)
	body, json := buf[:len(e.body):len(e.body)], buf[len(e.body):]
	return entry.At{Shard: s, Pos: e.pos, Entry: entry.Entry{
		Kind: entry.Kind(e.kind), Room: e.room, Subject: string(e.subject), Event: e.event, Body: body, JSON: json,
	}}
}
