// Package pg is the PostgreSQL driver layer: connection pools, transactions,
// error classification, schema migration, and a launcher for a private server.
//
// Guarantees: Open returns pools that were reached at least once; InTx never
// leaves a transaction open and reports a commit whose result cannot be known
// as ErrUnknownOutcome, and only such a commit; a Migrator applies each
// migration once however many processes start together; a Launcher's server
// dies with the process that started it.
//
// Concurrency: DB, QueryCounter, Migrator and Launcher are safe for use by any
// number of goroutines.
//
// It knows no Matrix and nothing of Heddle's tables. Only store/, config, app
// and testkit may import it; with store/ it is the only importer of pgx.
package pg
