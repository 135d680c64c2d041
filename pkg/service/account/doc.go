// Package account keeps the accounts of this server's users: registration, login, devices, access tokens, passwords, profiles,
// account data, filters and registration tokens.
//
// What changes something is a command on the user's shard, done by [Host] on the worker that holds that shard: it reads what it
// needs, decides, and commits one proposal. Commands of one user are done one after another, so that a decision never rests on
// what another command is changing. Commands carry hashes of passwords and tokens, never the secrets. What only reads is
// [Reader], on any worker. Everything is safe for concurrent use.
//
// It is imported by api/ and the composition root; it knows no HTTP and no other service.
package account
