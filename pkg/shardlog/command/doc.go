// Package command has commands done by the worker that holds their shard: decided by what is stored there, committed together with the
// entries of the log that tell of them, and answered. A command that is sent again under its key finds its first answer and changes nothing.
//
// What a command is, and how it is decided, is its service's. Rooms are held in memory and decided one event after the other: they have a host
// of their own (service/room).
package command
