// Package lifecycle starts and stops the parts of a process in order, and owns
// their goroutines.
//
// Guarantees: a Group starts its services one after the other, stops those that
// started in reverse when one fails or the group stops, and stops each exactly
// once; Run ends a process on SIGTERM or SIGINT within its grace period and at
// once on a second signal; a Tasks waits for every goroutine that it started.
//
// Concurrency: everything is safe for use by any number of goroutines.
//
// Any package of layer 3 and up, and infra, may import it. It imports nothing
// of Heddle.
package lifecycle
