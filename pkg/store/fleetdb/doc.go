// Package fleetdb reads the register of workers and the facts of the cluster that all workers share.
//
// A worker's row is written by its own renewer (fleet/lease through leasedb); here it is read whole, and removed when
// somebody saw it unchanged for long. The package takes no decisions: who is alive is fleet/members' to say. It is
// imported by fleet/members, commitdb and the composition root. The queries are in queries.sql, checked against the
// schema when the code is generated.
package fleetdb
