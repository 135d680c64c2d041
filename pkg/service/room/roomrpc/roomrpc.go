// Package roomrpc carries commands on rooms to the worker that writes the room's shard: [Client] is a room.Writer at the one end, and
// [Handlers] puts a room.Writer, the Host, at the other.
//
// It promises what room.Writer promises: a command is sent again, under the same key, while the shard moves, and has its effect
// once; refusals arrive as they were made. Everything is safe for concurrent use. It is imported by api/ and the composition
// root; with shardlog/ and fleet/rpc it is the only package that knows protobuf.
package roomrpc

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/heddle-im/heddle/pkg/fleet/rpc"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/shardlog/command"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/shardlog/wire"
)

// Caller asks the writer of a shard. It is *rpc.Client or *rpc.Router.
type Caller interface {
	Call(ctx context.Context, r rpc.Request) ([]byte, error)
}

// Client has commands done by whoever holds the room's shard.
type Client struct {
	caller Caller
	shards shard.Map
}

// NewClient makes a Client.
func NewClient(c Caller, shards shard.Map) *Client { return &Client{caller: c, shards: shards} }

// Do implements room.Writer.
func (c *Client) Do(ctx context.Context, key []byte, cmd room.Command) (room.Answer, error) {
	m, err := encode(cmd)
	if err != nil {
		return room.Answer{}, err
	}
	payload, err := proto.Marshal(m)
	if err != nil {
		// Strings that are not UTF-8 cannot be carried, and no identifier or type is such a string.
		return room.Answer{}, fmt.Errorf("%w: %w", mxerr.New(mxerr.InvalidParam, "request is not valid UTF-8"), err)
	}
	if key == nil {
		key = room.KeyOf(cmd)
	}
	b, err := c.caller.Call(ctx, rpc.Request{Shard: room.ShardOf(c.shards, cmd), Method: cmd.Method(), Key: key, Payload: payload})
	switch {
	case errors.Is(err, rpc.ErrTooLarge):
		return room.Answer{}, fmt.Errorf("%w: %w", mxerr.New(mxerr.TooLarge, "request is too large"), err)
	case errors.Is(err, rpc.ErrUnavailable) && ctx.Err() == nil:
		return room.Answer{}, fmt.Errorf("%w: %w", mxerr.Unavailable("the room cannot be written to now", 1000), err)
	case err != nil:
		return room.Answer{}, fmt.Errorf("%s: %w", cmd.Method(), err)
	}
	var a wire.RoomAnswer
	if err := proto.Unmarshal(b, &a); err != nil {
		return room.Answer{}, fmt.Errorf("%s: read answer: %w", cmd.Method(), err)
	}
	return room.Answer{Event: id.EventID(a.Event), Room: id.RoomID(a.Room), Unchanged: a.Unchanged, Data: a.Data, Sign: a.Sign}, nil
}

// Handlers are the methods of an rpc.Server that has commands done by w.
func Handlers(w room.Writer) map[string]rpc.Handler {
	handlers := map[string]rpc.Handler{}
	for method, decode := range decoders() {
		handlers[method] = func(ctx context.Context, r rpc.Request) ([]byte, error) {
			cmd, err := decode(r.Payload)
			if err != nil {
				return nil, fmt.Errorf("%s: read request: %w", method, err)
			}
			a, err := w.Do(ctx, r.Key, cmd)
			if errors.Is(err, command.ErrNotOwner) {
				err = fmt.Errorf("%w: %w", rpc.ErrNotOwner, err)
			}
			if err != nil {
				return nil, err
			}
			b, err := proto.Marshal(&wire.RoomAnswer{
				Event: string(a.Event), Room: string(a.Room), Unchanged: a.Unchanged, Data: a.Data, Sign: a.Sign,
			})
			if err != nil {
				return nil, fmt.Errorf("%s: encode answer: %w", method, err)
			}
			return b, nil
		}
	}
	return handlers
}
