// Package pushdb holds what is counted of notifications: the rows, their multi-row writers, and the reading of unread counts.
//
// There are no rows per member and message. The users of this server fall into a few classes ([Class]); an event that counts for a class
// has one row with the running counts of its thread. A user's count is the difference of two such rows, at the place up to which the
// user has read and at the end, with the exceptions of that user and the corrections of the room in between. A user whose rules change is
// of another class from an event on.
//
// It decides nothing: what an event counts for is the business of whoever writes. It may be imported by services, store/commitdb
// and app.
package pushdb
