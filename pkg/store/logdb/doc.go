// Package logdb reads and writes the log's own tables: entries, heads, cursors of durable consumers, what has been done, and the
// incarnations of the database.
//
// Readers run on any connection of the primary. Entries and done commands are written by store/commitdb only, under the fence of
// their shard, with the functions that are here; cursors and trimming are written by whoever holds the role's lease,
// under its epoch. The package takes no decisions. It is imported by commitdb and the composition root, and is what shardlog/follow sees as its
// Source and Cursors. The statements are in queries.sql, checked against the schema when the code is generated.
package logdb
