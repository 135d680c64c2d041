// Package feddb reads and writes what a homeserver keeps of others: their signing keys, and what they sent and was not yet brought into
// rooms.
//
// Most of its rows are not the shards' writers': keys are copies that any worker may renew, staged rows are made by whoever serves
// a request. The row types that belong to proposals ([StagedGone], [Stripped],
// [EDU]) are written by store/commitdb. The package takes no decisions. It is imported by the services that own these
// things, by commitdb and by the composition root. A [DB] is safe for concurrent use.
package feddb
