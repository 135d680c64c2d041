package entry

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// FlagRelay, of an event body, says that another server gave us the event for us to send it on to the rest of the room.
const FlagRelay int32 = 1

// FlagPassedOn, of an event body, says that another server has been given this event of ours and sends it on to the rest of the room.
const FlagPassedOn int32 = 2

// FlagNoEffect, of an event body, says that it is a state event that the room's state does not have: another one of its key has prevailed
// over it when forks were resolved.
const FlagNoEffect int32 = 4

// FlagGap, of an event body, says that events before it were missing: what a timeline shows before it does not lead up to it.
const FlagGap int32 = 8

// Event makes the entry of an event that takes its place in a room's timeline. json is the PDU, canonical. An event that
// changes a membership concerns, besides the room's members, the user whose it is: that user is the entry's subject.
func Event(room, event shard.Nid, body *EventBody, json []byte) (Entry, error) {
	b, err := proto.Marshal(body)
	if err != nil {
		return Entry{}, fmt.Errorf("encode event entry: %w", err)
	}
	e := Entry{Kind: KindEvent, Room: room, Event: event, Body: b, JSON: json}
	if body.Membership != "" {
		e.Subject = body.GetStateKey()
	}
	return e, nil
}

// DecodeEvent gives the body of an event entry. The body's strings and bytes are copies: the entry's bytes can be let go.
func DecodeEvent(e *Entry) (*EventBody, error) {
	b := new(EventBody)
	return b, decode(e, KindEvent, b)
}

func decode(e *Entry, k Kind, m proto.Message) error {
	if e.Kind != k {
		return fmt.Errorf("decode entry of kind %d as %d: %w", e.Kind, k, ErrWrongKind)
	}
	if err := proto.Unmarshal(e.Body, m); err != nil {
		return fmt.Errorf("decode entry of kind %d: %w", k, err)
	}
	return nil
}
