// Package lease decides and keeps who owns what: a shard's writing, or a slot of another role. A lease is a row; whoever
// holds it shows that it lives by a counter in a row of its own.
//
// It promises:
//   - Never two: [Engine.Valid] is true for one process at a time, and no clock is compared between processes. A claimant takes a lease after
//     it has seen its epoch and its holder's counter unchanged for [Timing.Wait] of its own monotonic clock over one unbroken
//     session on the primary; a holder stops when [Timing.Valid] of its own have passed since it sent its last successful
//     renewal, and what has stopped once never becomes valid again without a new epoch.
//   - Every lease is owned within bounded time, as long as one worker of its role lives; the leases of a role are spread evenly (the
//     counts differ by one at most), one is handed over at a time, and nothing moves without a reason.
//   - [Owner.Opened] and [Owner.Closing] of one lease are called in turn, never at the same time.
//
// What is decided is apart from what is done: term.go (is my own lease valid), watch.go (whom have I seen alive) and plan.go
// (what to claim and to give) are pure, with the clock as an argument, and are checked against a model; renewer.go and
// engine.go do the I/O. The monotonic clock is that of the operating system, which does not run while a machine is suspended:
// commits are protected from that too, by the fence, answers are not.
//
// All exported methods are safe for concurrent use. It is imported by the composition root; services see an interface.
package lease
