// Package leasedb is the SQL of leases: the rows that say who owns a shard or a slot of a role, the fence that commits put
// on them, and the counter by which a worker shows that it lives.
//
// It promises: a worker's counter is moved by one start of the instance only, the latest; a lease row changes only for
// whoever names its epoch, and each change of owner raises the epoch; [Fence] holds a lease where it is until the
// transaction ends. No statement compares a clock with anything. The package takes no decisions: they are fleet/lease's.
//
// It is imported by fleet/lease, commitdb and the composition root. The queries are in queries.sql, checked against
// the schema when the code is generated. A [DB] is safe for concurrent use, a [Conn] is not.
package leasedb
