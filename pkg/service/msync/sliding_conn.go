package msync

import (
	"context"
	"encoding/binary"
	"hash/fnv"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/cache"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/shardlog/token"
)

// What a client of sliding sync has been told is, for the most part, in its token: up to there it knows of every room that it was last
// told of. What is not, which rooms these are, and since when it has heard nothing of the others, is the state of its connection. It has
// a number, which the token carries. It changes only when rooms come into the window or go out of it, or what is wanted of them
// changes; most answers tell of rooms that are in it already, and leave it as it is.
//
// A state does not change once it is made: a client that repeats a token finds the state of that token, and so the same answer. Of a
// connection the two latest states are kept, which is as much as a client that obeys the MSC can need, and of a device the states of a few
// connections: that is what bounds them. They are kept in this process and, if there is one, in the store that all workers see.
//
// Whoever's state is lost all the same is not sent away: the token says what it has heard of all else, and its rooms are told anew, as
// initial.

// ConnectionStore keeps the states of connections for all workers. What it keeps may be lost at any time.
type ConnectionStore interface {
	Get(ctx context.Context, key string) (value []byte, ok bool, err error)
	Set(ctx context.Context, key string, value []byte, ttl time.Duration) error
}

const (
	connectionSlots  = 16             // connections of a device whose states are kept
	connectionTTL    = 24 * time.Hour // after the last change
	maxConnection    = 1 << 20        // bytes of a state that is kept outside of this process
	maxConfigs       = 4096           // different configs that a state remembers
	manyConfigs      = 64             // from so many on it is looked whether they are all used
	connectionFormat = 1
)

// sent is what a client has been told of a room.
type sent struct {
	// upto is the position in the room's shard up to which it has been told; 0 is the token's, for rooms that it is told of.
	upto   shard.Pos
	config uint16
	flags  sentFlags
}

type sentFlags uint8

const (
	sentDM       sentFlags = 1 << iota // it was told that the room is one between few
	sentReceipts                       // it has heard of receipts as far as of all else
	sentData                           // the same of the room's account data
	sentGone                           // it was told that the user is not in the room any more
	sentTyping                         // it has heard of who types as far as of all else
)

// connection is the state of a connection. The zero connection is that of one that was told nothing.
type connection struct {
	number  shard.Pos // 0: it is nowhere kept
	half    byte      // which of the two places it is kept in
	conn    string
	global  bool // it has heard of global account data as far as of all else
	threads bool // the same of the threads that the user wants to hear of
	configs []config
	rooms   map[shard.Nid]sent
	// lost says that this is in place of one that is not to be found.
	lost bool
	// vague says that one before it was lost: the client may have been told of rooms that are not in it.
	vague bool
}

func (c *connection) config(s sent) config {
	if int(s.config) < len(c.configs) {
		return c.configs[s.config]
	}
	return config{}
}

// same tells whether two states say the same.
func (c *connection) same(o *connection) bool {
	return c.global == o.global && c.vague == o.vague && c.threads == o.threads && maps.Equal(c.rooms, o.rooms) && slices.EqualFunc(c.configs, o.configs, config.equal)
}

// use gives the number of a config in a state that is being made. A state that knows too many of them begins anew, with
// the first, which asks for nothing: what refers to it is told again what it wants.
func (c *connection) use(x config) uint16 {
	if len(c.configs) == 0 {
		c.configs = []config{{}}
	}
	i := slices.IndexFunc(c.configs, x.equal)
	if i < 0 {
		if len(c.configs) >= maxConfigs {
			return 0
		}
		i, c.configs = len(c.configs), append(c.configs, x)
	}
	return uint16(i) //nolint:gosec // at most maxConfigs
}

// compact drops the configs that no room has.
func (c *connection) compact() {
	if len(c.configs) < manyConfigs {
		return
	}
	old := c.configs
	c.configs = nil
	for _, nid := range slices.Sorted(maps.Keys(c.rooms)) {
		s := c.rooms[nid]
		s.config = c.use(old[s.config])
		c.rooms[nid] = s
	}
}

func (c *connection) size() int64 {
	n := int64(128 + 48*len(c.rooms))
	for _, x := range c.configs {
		n += int64(64 + 64*len(x.wishes))
	}
	return n
}

func newConnections(b *cache.Budget) *cache.Cache[string, *connection] {
	return cache.New("sliding_connections", b, nil, func(k string, c *connection) int64 { return int64(len(k)) + c.size() })
}

// connectionKey is where a state is kept: beside that which it came from, in place of the one before that.
func connectionKey(user, device, conn string, half byte) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(conn))
	slot := strconv.Itoa(int(h.Sum32() % connectionSlots))
	return "sliding\x00" + user + "\x00" + device + "\x00" + slot + "\x00" + string('0'+rune(half))
}

// connect gives the state that a token names; one that is lost, if it is not to be found.
func (e *Engine) connect(ctx context.Context, q *SlidingRequest, since *token.Sync) *connection {
	if since == nil {
		return &connection{conn: q.Conn}
	}
	number, ok := since.Place(token.SectionConnection)
	if !ok {
		return &connection{conn: q.Conn}
	}
	right := func(c *connection) bool { return c.number == number && c.conn == q.Conn }
	half := byte(number & 1)
	key := connectionKey(string(q.User), string(q.Device), q.Conn, half)
	if c, ok := e.connections.Get(key); ok && right(c) {
		return c
	}
	if e.Connections != nil {
		b, ok, err := e.Connections.Get(ctx, key)
		if err != nil {
			e.Log.Debug("a sliding sync connection could not be read", "error", err)
		}
		if ok && err == nil {
			if c, ok := decodeConnection(b); ok && right(c) {
				e.connections.Set(key, c)
				return c
			}
		}
	}
	return &connection{conn: q.Conn, half: half, lost: true, vague: true}
}

// keepConnection keeps a state that is new, and gives its number.
func (e *Engine) keepConnection(ctx context.Context, q *SlidingRequest, c *connection, after byte) shard.Pos {
	c.half = after ^ 1
	c.number = shard.Pos(rand.Int64N(1<<61)+1)<<1 | shard.Pos(c.half)
	key := connectionKey(string(q.User), string(q.Device), q.Conn, c.half)
	e.connections.Set(key, c)
	if e.Connections != nil {
		if b := c.encode(); len(b) <= maxConnection {
			if err := e.Connections.Set(ctx, key, b, connectionTTL); err != nil {
				e.Log.Debug("a sliding sync connection could not be kept for other workers", "error", err)
			}
		}
	}
	return c.number
}

func (c *connection) encode() []byte {
	b := []byte{connectionFormat}
	b = binary.AppendUvarint(b, uint64(c.number))
	text := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	text(c.conn)
	var bits byte
	if c.global {
		bits |= 1
	}
	if c.vague {
		bits |= 2
	}
	if c.threads {
		bits |= 4
	}
	b = append(b, bits)
	b = binary.AppendUvarint(b, uint64(len(c.configs)))
	for _, x := range c.configs {
		b = binary.AppendUvarint(b, uint64(x.limit))
		b = binary.AppendUvarint(b, uint64(len(x.wishes)))
		for _, w := range x.wishes {
			text(w.typ)
			text(w.key)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(c.rooms)))
	var last shard.Nid
	for _, nid := range slices.Sorted(maps.Keys(c.rooms)) {
		s := c.rooms[nid]
		b = binary.AppendUvarint(b, uint64(nid-last))
		b = binary.AppendUvarint(b, uint64(s.upto))
		b = binary.AppendUvarint(b, uint64(s.config))
		b = append(b, byte(s.flags))
		last = nid
	}
	return b
}

// decodeConnection reads what encode wrote; ok is false if it is anything else.
func decodeConnection(b []byte) (c *connection, ok bool) {
	if len(b) == 0 || b[0] != connectionFormat || len(b) > maxConnection {
		return nil, false
	}
	b, ok = b[1:], true
	number := func() int64 {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > math.MaxInt64 {
			b, ok = nil, false
			return 0
		}
		b = b[size:]
		return int64(n) //nolint:gosec // looked at above
	}
	count := func() int { // of things of at least a byte each
		n := number()
		if n > int64(len(b)) {
			ok = false
			return 0
		}
		return int(n)
	}
	text := func() string {
		n := count()
		s := string(b[:n])
		b = b[n:]
		return s
	}
	octet := func() byte {
		if len(b) == 0 {
			ok = false
			return 0
		}
		x := b[0]
		b = b[1:]
		return x
	}
	c = &connection{number: shard.Pos(number()), rooms: make(map[shard.Nid]sent)}
	c.half = byte(c.number & 1)
	c.conn = text()
	bits := octet()
	c.global, c.vague, c.threads = bits&1 != 0, bits&2 != 0, bits&4 != 0
	for range count() {
		x := config{limit: int(number())}
		for range count() {
			x.wishes = append(x.wishes, wish{text(), text()})
		}
		c.configs = append(c.configs, x)
	}
	var nid shard.Nid
	for range count() {
		nid += shard.Nid(number())
		s := sent{upto: shard.Pos(number())}
		if n := number(); n < int64(len(c.configs)) {
			s.config = uint16(n) //nolint:gosec // at most maxConfigs
		} else {
			ok = false
		}
		s.flags = sentFlags(octet())
		c.rooms[nid] = s
	}
	return c, ok && len(b) == 0 && len(c.configs) <= maxConfigs
}
