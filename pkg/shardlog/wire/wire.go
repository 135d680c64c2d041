// Package wire holds the protobuf messages that travel between workers and rest in log rows: batches of the log, the
// bodies of its entries, and the envelope of requests.
//
// The .proto files are the contract: fields are only added, never reused; `make lint` checks that. Only shardlog/, fleet/rpc
// and the packages that put service commands on the wire (such as room/roomrpc) import it.
package wire
