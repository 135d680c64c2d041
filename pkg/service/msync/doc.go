// Package msync answers /sync, from memory as far as it can.
//
// An [Engine] hears the log. For each user that it serves, and each room such a user is in, it keeps the recent entries and the
// position since which they are complete. A sync from there on takes no query: what happened is put together from what is held,
// and events are spliced from their stored bytes. A sync from before, and the first of a user or a room, reads the database for
// just these; what a room tells everybody, once for all who come at about the same time.
//
// What is held of a room is fixed in this order: the room is wanted first, so that the log's filter lets its entries through; the
// batch that was on its way then is awaited; from its end on the room is complete. A user's memberships are read after
// that, and the log is followed up to the moment of the reading before anything is answered: so nothing is skipped between
// the two, and what is seen twice is known by its position.
//
// All sections of an answer have the same upper token. Whoever waits is registered before what has happened is looked at, and is
// woken only by entries that concern a room or the account of that user. Everything is safe for concurrent use. The
// package is imported by api/ and the composition root.
package msync
