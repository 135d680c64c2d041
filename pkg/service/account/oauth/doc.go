// Package oauth is the authorisation server of a deployment that keeps its accounts itself: clients register, people log in on its
// pages, and clients get tokens (spec: client-server API, "OAuth 2.0 API"; RFC 6749, 7009, 7591, 7636, 8628).
//
// It stores nothing of its own. What a client registers is its client id, signed with the cluster's secret; a request that a person looks at, and
// the code that comes of it, are signed too, and a code is spent once because a login token is in it ([account.Front.LoginToken]). Only
// the grants for devices without a browser wait in the soft store, and may be lost with it. Tokens are sessions like any other.
//
// A [Provider] is safe for concurrent use by any number of workers. It is imported by api/web and app.
package oauth
