// Package delaydb keeps the events that clients want sent later.
//
// An event waits until one caller claims it, and nobody else gets it then, but for one who finds that it was claimed long ago and
// never settled. What was settled is kept for a while, so that who asks for the same again is answered the same.
//
// A [DB] is safe for concurrent use; each of its methods is one statement. It takes no decisions, and is imported by service/delay,
// the read API and the composition root.
package delaydb
