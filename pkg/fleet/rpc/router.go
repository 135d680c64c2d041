package rpc

import (
	"context"
	"errors"
)

// Router takes the short cut: a request for a shard that is served in this process does not leave it.
type Router struct {
	local  *Server
	remote *Client
}

// NewRouter makes a Router. Without a local server, or when the short cut is off, every request goes over the wire, also
// to this process itself: tests do so, lest the short cut hide a broken wire.
func NewRouter(local *Server, remote *Client, shortCut bool) *Router {
	if !shortCut {
		local = nil
	}
	return &Router{local: local, remote: remote}
}

// Local tells whether a request for the shard would be answered in this process.
func (r *Router) Local(req Request) bool { return r.local != nil && r.local.Serves(req.Shard) }

// Call is Client.Call, or the handler itself. A shard that moves away meanwhile is followed.
func (r *Router) Call(ctx context.Context, req Request) ([]byte, error) {
	if r.local == nil {
		return r.remote.Call(ctx, req)
	}
	payload, err := r.local.Do(ctx, req)
	switch {
	case final(err):
		return payload, err
	case errors.Is(err, ErrNotOwner), errors.Is(err, ErrRetry):
		return r.remote.Call(ctx, req) // under the same key
	case ctx.Err() != nil:
		return nil, errors.Join(ErrUnavailable, err)
	}
	return nil, err
}
