// Package senderdb reads what other servers are to be sent, and keeps how far each of them has acknowledged it.
//
// No row is written for an event and a destination: a destination has one for each shard in which it is behind the sender's place in the log,
// and none while it keeps up. Places are written under the fence of the sender's slot, in one transaction with the slot's cursor, so
// that the two never disagree; messages to devices, which shards' writers queue, are deleted under the same fence once they were acknowledged.
//
// A [DB] is safe for concurrent use. It takes no decisions, and is imported by service/sender and the composition root.
package senderdb
