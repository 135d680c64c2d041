// Package room is the writing side of rooms: it takes commands on a room, decides by the room's state, makes events and has
// them committed.
//
// A [Writer] does a command, wherever the room's shard is written: [Host] in the process that holds the shard, package
// roomrpc's client for a shard held elsewhere, and a router over the two in the composition root. What they promise: a
// command that was answered without error is committed; a command that is repeated with the same key has its effect once
// and is given the first answer, also by another writer and after a restart; a refusal rests on committed state only.
//
// In a Host each room that is in use is an actor. Commands on one room are decided one after another, on the state in memory, each
// on what the one before it made, without waiting for the commit of that; the answers wait. If a proposal fails, what was built
// on it fails too, the room is loaded anew, and the commands are decided again. A warm message send makes no query.
//
// Each verb has a file with a decide function that computes: from the room's state and the command to the events to be made. The actor
// only sequences. Everything exported is safe for concurrent use. The package is imported by roomrpc, by api/ and by the
// composition root; it knows no HTTP, no protobuf and no other service.
package room
