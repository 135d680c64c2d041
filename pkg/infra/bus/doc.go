// Package bus carries messages between workers over NATS, an external server
// or one inside this process.
//
// Nothing on it is durable for Heddle: whoever uses it must end in the same
// state if any message, or all, are lost, repeated or reordered, and if the
// server loses its memory. What it promises is to say so soon: a publish or a
// request while the connection is down fails at once with ErrNotConnected and
// is never queued for later; one whose connection is lost under way fails then;
// a consumer that may have missed something is told.
//
// Concurrency: a Bus is safe for use by any number of goroutines. Handlers of
// one subscription or consumer run one at a time, in order, on a goroutine
// that the Bus owns: they must not block for long.
//
// It is the only importer of nats.go. shardlog/follow, fleet/, config and app
// may import it.
package bus
