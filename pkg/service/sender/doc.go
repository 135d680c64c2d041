// Package sender tells other homeservers what happens here: the events that this server made, and the EDUs that go with them.
//
// It promises, for each destination by itself:
//   - An event of this server reaches every server that is in the room at that event, at least once, over restarts and hand-overs between
//     masters; the sender's place goes on only after the destination has said 200. So do messages to devices and changes of device
//     lists. Typing, presence and receipts may be lost.
//   - One transaction is in flight; events go in the order in which they were committed, at most 50 to a transaction, with at most 100 EDUs. A
//     transaction that is tried again is the same, with the same id, which is made of what it holds.
//   - A destination that fails is left alone for a time that grows (remote/fedclient keeps it, for all workers), and asked again early when it is
//     heard of. What it is owed waits in memory for a while; then it falls behind, and is owed what is after a position. When it is
//     back it is sent the latest event of each room, from which it finds the others, and then follows again.
//   - It delays nobody else. What waits in memory is bounded, for each destination and for all.
//
// What is stored is a cursor for each slot, and a position for each destination and shard in which the destination is behind the cursor: nothing for an
// event and a destination (see store/senderdb).
//
// Destinations are divided into as many slots as there are shards, by their shard. A slot is a lease of the role federation-sender; [Sender] is
// the lease's owner. One follower of the log serves all slots of a process. A destination's states:
//
//	idle ── something to send ──▶ working ── nothing left ──▶ idle
//	                               │  ▲
//	                          fails│  │due, or heard of
//	                               ▼  │
//	                              waiting
//
// In each of them it may be behind: owed is then not empty, nothing is queued, and what comes only is noted in owed. A working destination
// takes owed over as planned, and from then on queues what comes, until it has caught up.
//
// A [Sender] is safe for concurrent use. It is imported by the composition root. It knows no HTTP: how a transaction is carried is its
// [Transport]'s business.
package sender
