// Package presence knows who is online.
//
// Presence is soft: nothing of it is in PostgreSQL, and all of it may be lost. A [Hub] is what one process knows: the users who
// sync here, by device, and what was heard of all others. Where a user syncs, it is decided what the user's presence is (the
// highest of the devices', with time-outs), and an [Announcer] tells the other workers, with the rooms that the user is in, so that
// nobody has to ask a database who must hear of it. What changed within a tenth of a second goes out as one message. A worker
// that begins asks the others for all that they know; what is not said again for a while is forgotten; so a worker that was killed
// leaves nobody online for ever. Last states are kept in the soft store, for those who ask when nobody knows any more.
//
// A user whose requests go to several workers in turn is told by the one who said something last; another claims the user
// now and then while it is asked, and lets go without a word when it is not.
//
// When nobody is online nothing runs. Everything is safe for concurrent use; methods of a Hub never wait for the network, but for
// [Hub.Sync] of a user who is new here, [Hub.Set] and [Hub.Get], which ask the soft store. The package is imported by api/ and the
// composition root.
package presence
