// Package roomdb reads and writes what belongs to rooms: the rooms themselves, events, state, members, receipts, aliases and
// the public directory.
//
// Readers run on any connection. Rows are written by store/commitdb only, under the fence of the room's shard; their
// types are here, with a writer of many rows at once for each. The package takes no decisions. It is imported by the services that own
// these things, by commitdb and by the composition root. The statements are in the .sql files, checked against the schema
// when the code is generated.
package roomdb
