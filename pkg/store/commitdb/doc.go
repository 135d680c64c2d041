// Package commitdb is the fenced transaction over all of store/: the only code that writes rows which belong to shards.
//
// A [Writer] has one session of its own. It implements commit.Store: a transaction takes two round trips, one for everything
// from BEGIN to the last row, and one for COMMIT. The first holds the fence (a row lock on the lease of each shard, which
// must be held under the epoch named), the idempotency keys, one statement for each type of row, and the rows of the log.
// No row is updated for the transaction's own sake, so that a long snapshot elsewhere, such as a dump, costs nothing.
//
// The types of rows are a closed set, see tables.go. The session stands on the lease rows of the shards that it writes, so that whoever
// takes a shard can end it, and it gives up by itself soon: it has timeouts for statements, for being idle in a
// transaction and for a peer that does not answer. It does not go through a transaction pooler.
//
// A Writer may be used by any number of goroutines; its transactions run one at a time. It is imported by the composition root.
package commitdb
