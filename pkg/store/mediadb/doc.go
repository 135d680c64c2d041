// Package mediadb keeps what mxc URIs stand for, which contents there are and where, their thumbnails, and previews of URLs.
//
// No shard's writer owns these rows: whichever worker has a file writes what it is called by, once (docs/adr/0034-media-rows.md). Equal
// contents are stored once; a row counts who refers to one, and its lock keeps apart who takes hold of it and who lets go. A blob is in the
// store only while a row names it: a loose one while it is written and until it is removed, so that what a worker that died left behind is found.
//
// A [DB] is safe for concurrent use, and takes no decisions. It may be imported by service/media and the composition root.
package mediadb
