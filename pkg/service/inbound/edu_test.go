package inbound_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/inbound"
	"github.com/heddle-im/heddle/pkg/service/room"
)

// doorman admits everybody to one room alone.
type doorman id.RoomID

// Admits implements inbound.Rooms.
func (d doorman) Admits(_ context.Context, r id.RoomID, _ id.ServerName) (*roomver.Rules, error) {
	if r != id.RoomID(d) {
		return nil, mxerr.New(mxerr.Forbidden, "no")
	}
	return roomver.MustGet("12"), nil
}

// noter notes the commands that it is given.
type noter struct {
	done  []room.Command
	early int // how many receipts it has no event for yet
}

// Do implements room.Writer.
func (n *noter) Do(_ context.Context, _ []byte, c room.Command) (room.Answer, error) {
	if n.early > 0 {
		n.early--
		return room.Answer{}, mxerr.New(mxerr.NotFound, "not yet")
	}
	n.done = append(n.done, c)
	return room.Answer{}, nil
}

// Typing and receipts of a server count where the room admits it, and only of its own users.
func TestTypingAndReceipts(t *testing.T) {
	n := &noter{}
	s := inbound.NewSink(n, doorman("!open:x"), nil, nil, nil)
	take := func(typ, content string) []room.Command {
		n.done = nil
		_ = s.Durable(t.Context(), "far.test", typ, []byte(content)) // refusals are nobody's business
		return n.done
	}
	typing := func(r, u string) string { return fmt.Sprintf(`{"room_id":%q,"user_id":%q,"typing":true}`, r, u) }
	require.Len(t, take(inbound.EDUTyping, typing("!open:x", "@a:far.test")), 1)
	require.Empty(t, take(inbound.EDUTyping, typing("!shut:x", "@a:far.test")))
	require.Empty(t, take(inbound.EDUTyping, typing("!open:x", "@a:other.test")))
	got := take(inbound.EDUReceipt, `{
		"!open:x":{"m.read":{"@a:far.test":{"data":{"ts":5,"thread_id":"main"},"event_ids":["$e"]},"@b:other.test":{"data":{"ts":5},"event_ids":["$e"]}},
			"m.read.private":{"@a:far.test":{"data":{"ts":5},"event_ids":["$e"]}}},
		"!shut:x":{"m.read":{"@a:far.test":{"data":{"ts":5},"event_ids":["$e"]}}}}`)
	require.Equal(t, []room.Command{&room.Receipt{Room: "!open:x", User: "@a:far.test", Kind: room.ReceiptRead, Thread: "main", Event: "$e", TS: 5}}, got)

	// A receipt that is earlier than its event waits for it.
	n.early = 2
	got = take(inbound.EDUReceipt, `{"!open:x":{"m.read":{"@a:far.test":{"data":{"ts":5},"event_ids":["$late"]}}}}`)
	require.Len(t, got, 1)
}
