package entry

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/heddle-im/heddle/pkg/shardlog/wire"
)

// PresenceBatch says who is online. Like typing it is no entry: it takes no position and is not stored.
type PresenceBatch = wire.PresenceBatch

// PresenceState is one user's part of it.
type PresenceState = wire.PresenceState

// PresenceValue is what a user's presence can be.
type PresenceValue = wire.PresenceState_Presence

// What a user's presence can be. The zero value says nothing.
const (
	PresenceOnline      = wire.PresenceState_PRESENCE_ONLINE
	PresenceUnavailable = wire.PresenceState_PRESENCE_UNAVAILABLE
	PresenceOffline     = wire.PresenceState_PRESENCE_OFFLINE
)

// PresenceSubject is where presence goes, of all shards: who is online is told by where they sync, not by their writers.
const PresenceSubject = "presence"

// EncodePresence gives the message.
func EncodePresence(b *PresenceBatch) ([]byte, error) {
	out, err := proto.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("encode presence: %w", err)
	}
	return out, nil
}

// DecodePresence reads a message.
func DecodePresence(b []byte) (*PresenceBatch, error) {
	p := new(PresenceBatch)
	if err := proto.Unmarshal(b, p); err != nil {
		return nil, fmt.Errorf("decode presence: %w", err)
	}
	return p, nil
}

// EncodePresenceState gives one user's state, as it is kept where it may be lost.
func EncodePresenceState(s *PresenceState) ([]byte, error) {
	out, err := proto.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode presence: %w", err)
	}
	return out, nil
}

// DecodePresenceState reads it.
func DecodePresenceState(b []byte) (*PresenceState, error) {
	s := new(PresenceState)
	if err := proto.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("decode presence: %w", err)
	}
	return s, nil
}
