// Package media keeps files that users upload, fetches those of other servers, makes thumbnails, and looks at URLs for previews.
//
// Guarantees: a URI stands for one content, for ever; a content is seen whole or not at all; nothing is held in memory as a whole, but pictures
// while they are made smaller, within one bound for the process; who wants the same from another server, or the same thumbnail, at the
// same time waits for one fetch or one making; what is asked of strangers is bounded in size and time, and never goes to a network that
// may not be reached.
//
// Any number of workers serve the same media: what they know stands in store/mediadb, and the contents in a blob.Store that they share. A
// [Service] is safe for concurrent use, and is a lifecycle.Service. It may be imported by api/, config and the composition root.
package media
