// Package accountdb reads and writes what belongs to the users of this server: accounts, devices, access tokens, registration
// tokens, profiles, account data and filters.
//
// Readers run on any connection. Rows are written by store/commitdb only, under the fence of the user's shard; their
// types are here. The package takes no decisions. It is imported by the services that own these things, by commitdb and by the
// composition root. The queries are in queries.sql, checked against the schema when the code is generated.
package accountdb
