// Package shard says which shard anything belongs to, and holds the numbers that travel with a shard: epochs,
// positions and nids.
//
// A shard is one of S hash slots, S being fixed when the database is created. Every room, every local user and every
// remote server belongs to exactly one: a room and a local user to the hash of their own full id, a remote user to
// that of its server's name, any other key to the hash of itself. The hash never changes; a test holds its values.
//
// The package is pure. It may be imported by every package above layer 2.
package shard

import (
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// ID is a shard, from 0 to Count-1.
type ID uint8

// String gives the shard's number in decimal, as it stands in subjects and logs.
func (s ID) String() string { return strconv.Itoa(int(s)) }

// Epoch counts the changes of a shard's owner. It is the fencing token of every write: a commit names the epoch under
// which it was prepared, and a commit with another epoch than the shard's does not happen.
type Epoch int64

// Pos is a place in one shard's log. Positions of one shard only grow; those of two shards cannot be compared.
type Pos int64

// Nid stands for a long name inside the database: its low 8 bits are its shard, the rest counts up within the shard.
// Zero is no nid.
type Nid int64

// MakeNid puts together the n-th nid of a shard; n begins at 1.
func MakeNid(s ID, n int64) Nid { return Nid(n<<8 | int64(s)) }

// Shard gives the shard that the nid implies.
func (n Nid) Shard() ID { return ID(n & 0xff) }

// Seq gives the nid's number within its shard.
func (n Nid) Seq() int64 { return int64(n) >> 8 }

// Map assigns keys to the S shards of one homeserver. The zero Map is not usable; see [NewMap]. It is immutable.
type Map struct {
	count      int
	serverName string
}

// NewMap makes the map for a homeserver of the given name and number of shards (1 to 256).
func NewMap(serverName string, count int) Map {
	if count < 1 || count > 256 {
		panic("shard: count out of range: " + strconv.Itoa(count))
	}
	return Map{count: count, serverName: serverName}
}

// Count gives S.
func (m Map) Count() int { return m.count }

// Of gives the shard of a key that stands for itself: a room id, an alias, a server name, a registration token.
func (m Map) Of(key string) ID { return ID(xxhash.Sum64String(key) % uint64(m.count)) }

// OfUser gives a user's shard: of the full id for a user of this server, of the server's name for any other.
func (m Map) OfUser(userID string) ID {
	if i := strings.IndexByte(userID, ':'); i >= 0 && userID[i+1:] != m.serverName {
		return m.Of(userID[i+1:])
	}
	return m.Of(userID)
}

// Local tells whether a user id is of this server.
func (m Map) Local(userID string) bool {
	i := strings.IndexByte(userID, ':')
	return i >= 0 && userID[i+1:] == m.serverName
}
