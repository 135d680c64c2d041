// Package web is the pages for people: where they log in for a client that uses OAuth 2.0, answer for a device without a browser, and
// look after their account; and beside them the endpoints of OAuth 2.0, which clients ask (spec: client-server API, "OAuth 2.0 API").
//
// The pages need no script and no cookie. What a person was asked, and that it was this person who logged in, is in the page itself,
// signed by [oauth.Provider]; so nobody can have a form sent that nobody looked at. A page may not be shown in a frame, and loads
// nothing from elsewhere.
//
// The package is imported by app.
package web
