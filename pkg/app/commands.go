package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/heddle-im/heddle/pkg/fleet/rpc"
	"github.com/heddle-im/heddle/pkg/shardlog/command"
	"github.com/heddle-im/heddle/pkg/shardlog/commit"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// caller has a request done by a shard's writer; *rpc.Router and *rpc.Client are callers.
type caller interface {
	Call(ctx context.Context, r rpc.Request) ([]byte, error)
}

// callFor has a command done by whoever holds its shard.
func callFor[A any](ctx context.Context, to caller, s shard.ID, key []byte, cmd command.Command) (a A, _ error) {
	payload, err := json.Marshal(cmd)
	if err != nil {
		return a, fmt.Errorf("encode %s: %w", cmd.Method(), err)
	}
	b, err := to.Call(ctx, rpc.Request{Shard: s, Method: cmd.Method(), Key: key, Payload: payload})
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return a, fmt.Errorf("decode the answer to %s: %w", cmd.Method(), err)
	}
	return a, nil
}

// host does a service's commands on the shards that this worker holds.
type host[C command.Command, A any] interface {
	Do(ctx context.Context, key []byte, cmd C) (A, error)
}

// commandHandlers are the other end: the commands done by a host.
func commandHandlers[C command.Command, A any](methods []string, decode func(method string, b []byte) (C, error), h host[C, A]) map[string]rpc.Handler {
	m := make(map[string]rpc.Handler, len(methods))
	for _, method := range methods {
		m[method] = func(ctx context.Context, r rpc.Request) ([]byte, error) {
			cmd, err := decode(r.Method, r.Payload)
			if err != nil {
				return nil, err
			}
			a, err := h.Do(ctx, r.Key, cmd)
			switch {
			case errors.Is(err, command.ErrNotOwner):
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

// passing tells whether a commit failed in a way that may pass, so that the command may be tried again with its key.
func passing(err error) bool {
	return errors.Is(err, commit.ErrUnavailable) || errors.Is(err, commit.ErrUnknownOutcome) || errors.Is(err, commit.ErrClosed)
}
