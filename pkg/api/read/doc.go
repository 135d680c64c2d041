// Package read holds the handlers of the endpoints that only read: sync, what clients read of rooms and accounts, and what the
// server says of itself. Each decodes, calls one verb of a service, and encodes.
//
// It is imported by the composition root.
package read
