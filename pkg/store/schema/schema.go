// Package schema holds the database's migrations: numbered, forward only, expand then contract.
//
// A release widens the schema first (new tables, new nullable columns), and narrows it only in a later release, so that
// two adjacent releases run side by side on one database. [Min] and [Max] are the range of versions that this binary can
// work with; a process whose range does not hold the database's version refuses to start, unless the newer release that
// brought the database there has left [Oldest] at its own [Max] or below.
//
// The package may be imported by the composition root, the command line and the test kit. It imports nothing.
package schema

import "embed"

// FS holds the migrations, named NNNN_subject.sql, in goose's format.
//
//go:embed *.sql
var FS embed.FS

// The versions of the schema that this binary can work with, both included. Max is the newest migration of [FS].
const (
	Min = 1
	Max = 39
)

// Oldest is the [Max] of the oldest binary that works with the schema as this one has it: it goes up with a migration that takes away
// what releases before it use.
const Oldest = 1
