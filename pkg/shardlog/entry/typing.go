package entry

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/shardlog/wire"
)

// Typing says who types in a room, all of them. It is no entry: it takes no position and is not stored. It goes out on a subject of
// its own, and what has an older pair (epoch, n) than was seen is void; with a new epoch nobody types.
type Typing = wire.Typing

// EphemeralSubjects matches the subjects of all shards' ephemeral messages.
const EphemeralSubjects = "ephemeral.*"

// EphemeralSubject is where a shard's ephemeral messages go.
func EphemeralSubject(s shard.ID) string { return "ephemeral." + s.String() }

// EncodeTyping gives the message.
func EncodeTyping(t *Typing) ([]byte, error) {
	b, err := proto.Marshal(t)
	if err != nil {
		return nil, fmt.Errorf("encode typing: %w", err)
	}
	return b, nil
}

// DecodeTyping reads a message.
func DecodeTyping(b []byte) (*Typing, error) {
	t := new(Typing)
	if err := proto.Unmarshal(b, t); err != nil {
		return nil, fmt.Errorf("decode typing: %w", err)
	}
	return t, nil
}
