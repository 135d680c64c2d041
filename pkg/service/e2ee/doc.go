// Package e2ee keeps what end-to-end encryption needs of the server: identity keys of devices, one-time and fallback keys,
// cross-signing keys and signatures, messages to devices, dehydrated devices, and key backups.
//
// What changes something is a command on the shard of the user concerned, done by [Host] on the worker that holds the shard. Commands
// that decide by what is stored take turns by user, so that a one-time key is handed out once, whoever claims it and wherever;
// what they decide is one proposal, with the log entries by which others hear of it. What belongs to a device is written only while
// there is the device. [Front] is what an API worker does before and after: it checks what a client sent, cuts it into commands of
// bounded size, and has them done. [Reader] answers what only reads, on any worker. The server does not look into what is encrypted.
//
// Everything is safe for concurrent use. It is imported by api/ and the composition root; it knows no HTTP and no other service.
package e2ee
