// Package rpc carries requests for a shard to its writer, wherever that is and while it moves.
//
// A request goes as a NATS request on rpc.<shard>.<method>, to which only the holder of the shard's lease subscribes.
// When NATS is down, nobody responds or no answer comes, the same request goes by HTTP to the address on the lease row. Whatever is
// answered "not the owner" or "try again" is asked again, under the same idempotency key, until the caller's deadline: a
// hand-over shows as a slower request and not as an error.
//
// It promises: a caller gets the writer's answer, the writer's refusal (an *mxerr.Error as the writer made it), or an error
// that wraps [ErrUnavailable], after which the effect may have happened or not, and repeating with the same key is safe.
// The caller's deadline and trace context are the handler's. A server bounds the size of requests and how many run at a
// time, and takes none over HTTP that is not signed with the cluster's secret.
//
// All types are safe for concurrent use. It is imported by service/room/roomrpc and the composition root.
package rpc
