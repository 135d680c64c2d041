// Package appservice is this server's side of application services: bridges and bots that act for many users and are told of what happens.
//
// A [Registry] holds what the operator has registered: whose tokens are whose, and which users, aliases and rooms belong to whom. It never
// changes and is safe for concurrent use; a nil one has nobody in it.
//
// A [Client] asks application services, and a [Sender] tells them what happens: it is a consumer of the log under a role that one worker holds
// at a time; see there for what it guarantees.
//
// It may be imported by api/, config and the composition root.
package appservice
