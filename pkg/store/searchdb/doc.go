// Package searchdb keeps what is searched for by words: messages, names and topics of rooms, and the people of the directory.
//
// Texts become words here ([Words]), and not in PostgreSQL, so that all languages are treated alike and an index does not depend on the
// locale of a database: folded letters and digits, and pairs of neighbours where a script has no spaces. The rows are written by
// consumers of the log that one worker runs at a time, and only by them: an [Indexer] stores what a batch of the log says together with
// the consumer's place, in one transaction, so a reader can tell whether what it is to find has been indexed ([Reader.Reach]). What
// is written is read from the rows of rooms and accounts in that transaction: to be told twice does no harm.
//
// The package is imported by services and the composition root.
package searchdb

// The consumers that write here, under whose names their places are kept.
const (
	EventsConsumer = "search"
	PeopleConsumer = "people"
)
