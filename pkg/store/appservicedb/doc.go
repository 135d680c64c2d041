// Package appservicedb reads and writes what application services are sent: the transaction that each has under way, where each is in the log,
// and which rooms they list for their networks.
//
// These rows belong to no shard: the former are written under the fence of the role whose holder sends, the latter by any worker, each in one
// statement. The package makes no decision. A [DB] is safe for concurrent use. It is imported by service/appservice and the composition root.
package appservicedb
