// Package app is the composition root: the only place that knows concrete types. It builds each kind of worker from a
// configuration, by hand and in reading order, and runs it; and it does what the operator's commands ask for.
//
// There is no state at package level: one process may hold any number of workers, each with its own everything.
//
// Only cmd/ and testkit/fleettest may import it.
package app
