package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/heddle-im/heddle/pkg/fleet/rpc"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/shardlog/commit"
	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// caller has a request done by a shard's writer; *rpc.Router and *rpc.Client are callers.
type caller interface {
	Call(ctx context.Context, r rpc.Request) ([]byte, error)
}

// accountDoer has commands on accounts done by whoever holds their shard.
type accountDoer struct {
	to     caller
	shards shard.Map
	// everywhere may be nil: then nobody is waited for.
	everywhere *follow.Everywhere
}

// Do implements account.Doer.
func (d accountDoer) Do(ctx context.Context, key []byte, cmd account.Command) (account.Answer, error) {
	var a account.Answer
	payload, err := account.Encode(cmd)
	if err != nil {
		return a, fmt.Errorf("encode %s: %w", cmd.Method(), err)
	}
	b, err := d.to.Call(ctx, rpc.Request{Shard: account.ShardOf(d.shards, cmd), Method: cmd.Method(), Key: key, Payload: payload})
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return a, fmt.Errorf("decode the answer to %s: %w", cmd.Method(), err)
	}
	if d.everywhere != nil && account.Everywhere(cmd, &a) {
		d.everywhere.Await(ctx, account.ShardOf(d.shards, cmd))
	}
	return a, nil
}

// passing tells whether a commit failed in a way that may pass, so that the command may be tried again with its key.
func passing(err error) bool {
	return errors.Is(err, commit.ErrUnavailable) || errors.Is(err, commit.ErrUnknownOutcome) || errors.Is(err, commit.ErrClosed)
}

// accountHandlers are the other end: the commands done by a host.
func accountHandlers(h *account.Host) map[string]rpc.Handler {
	m := make(map[string]rpc.Handler)
	for _, method := range account.Methods() {
		m[method] = func(ctx context.Context, r rpc.Request) ([]byte, error) {
			cmd, err := account.Decode(r.Method, r.Payload)
			if err != nil {
				return nil, err
			}
			a, err := h.Do(ctx, r.Key, cmd)
			switch {
			case errors.Is(err, account.ErrNotOwner):
				return nil, rpc.ErrNotOwner
			case passing(err):
				return nil, fmt.Errorf("%w: %w", rpc.ErrRetry, err)
			case err != nil:
				return nil, err
			}
			return json.Marshal(a)
		}
	}
	return m
}
