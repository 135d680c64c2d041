// Package identity asks identity servers (spec: Identity Service API, v2): whose an address is, to keep an invitation for an address that is
// nobody's yet, and to bind an address to a user and unbind it.
//
// Guarantees: a server is spoken to over HTTPS alone, at the host and port that its name says; no redirect is followed; a connection goes only where
// the guard lets it go; an answer is bounded in size and time; an address is looked up by its hash and never sent as it is, but to
// have a letter written to it; what a server refuses is told in a form that says nothing about the client's session here. A [Client] is safe for
// concurrent use.
//
// It may be imported by service/account/contact, api/write and app.
package identity

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/outhttp"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
)

// Limits of what is asked.
const (
	timeout     = 10 * time.Second
	dialTimeout = 5 * time.Second
	maxAnswer   = 64 << 10
	perServer   = 8
)

// Base is below which the endpoints are.
const base = "/_matrix/identity/v2"

// ErrUnsupported says that a server does not do what it was asked for: its refusal is no error of Matrix's.
var ErrUnsupported = errors.New("the identity server does not support this")

// Authorize signs a request as this homeserver: it gives the value of the header Authorization.
type Authorize func(to id.ServerName, method, uri string, body []byte) (string, error)

// Options are what a Client needs.
type Options struct {
	Guard *outhttp.Guard
	// Roots are the authorities to trust; nil: the system's.
	Roots     *x509.CertPool
	UserAgent string
	Authorize Authorize
}

// Client asks identity servers.
type Client struct {
	o    Options
	http *http.Client
}

// New makes a Client. Close it in the end.
func New(o Options) *Client {
	return &Client{o: o, http: &http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			DialContext: o.Guard.Dialer(dialTimeout).DialContext, ForceAttemptHTTP2: true,
			TLSClientConfig:     &tls.Config{RootCAs: o.Roots, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout: dialTimeout, MaxIdleConns: 100, MaxIdleConnsPerHost: 2, MaxConnsPerHost: perServer,
			IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Close lets go of connections that are not in use.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Server is an identity server, and the token that it gave the user for whom it is asked.
type Server struct {
	Name  id.ServerName
	Token string
}

// Address is an address of a medium.
type Address struct {
	Medium  string `json:"medium"`
	Address string `json:"address"`
}

// Invite is an invitation that an identity server keeps until somebody shows that the address is theirs. It writes to them in the words that
// come with it.
type Invite struct {
	Address

	Room          id.RoomID `json:"room_id"`
	Sender        id.UserID `json:"sender"`
	SenderName    string    `json:"sender_display_name,omitempty"`
	SenderAvatar  string    `json:"sender_avatar_url,omitempty"`
	RoomAlias     string    `json:"room_alias,omitempty"`
	RoomAvatar    string    `json:"room_avatar_url,omitempty"`
	RoomJoinRules string    `json:"room_join_rules,omitempty"`
	RoomName      string    `json:"room_name,omitempty"`
	RoomType      string    `json:"room_type,omitempty"`
}

// Key is one with which a claim of an invitation may be signed.
type Key struct {
	Key         string `json:"public_key"`
	ValidityURL string `json:"key_validity_url,omitempty"`
}

// Kept is an invitation that was kept.
type Kept struct {
	Token string `json:"token"`
	Keys  []Key  `json:"public_keys"`
	// Name calls the person something that does not give the address away.
	Name string `json:"display_name"`
}

// Lookup tells whose an address is, "" for nobody's.
func (c *Client) Lookup(ctx context.Context, s Server, a Address) (id.UserID, error) {
	for again := false; ; again = true {
		user, err := c.lookup(ctx, s, a)
		if mxerr.Is(err, mxerr.InvalidPepper) && !again {
			continue // it was changed between the two requests
		}
		return user, err
	}
}

func (c *Client) lookup(ctx context.Context, s Server, a Address) (id.UserID, error) {
	var d struct {
		Pepper     string   `json:"lookup_pepper"`
		Algorithms []string `json:"algorithms"`
	}
	if err := c.ask(ctx, s, http.MethodGet, "/hash_details", nil, &d); err != nil {
		return "", err
	}
	if !slices.Contains(d.Algorithms, "sha256") {
		return "", malformed(s, "it looks up no hashes")
	}
	sum := sha256.Sum256([]byte(a.Address + " " + a.Medium + " " + d.Pepper))
	hash := base64.RawURLEncoding.EncodeToString(sum[:])
	var found struct {
		Mappings map[string]id.UserID `json:"mappings"`
	}
	err := c.ask(ctx, s, http.MethodPost, "/lookup", map[string]any{
		"algorithm": "sha256", "pepper": d.Pepper, "addresses": []string{hash},
	}, &found)
	if err != nil {
		return "", err
	}
	user, ok := found.Mappings[hash]
	if !ok {
		return "", nil
	}
	if _, err := id.ParseUserID(string(user)); err != nil {
		return "", malformed(s, "the address is of somebody who cannot be").WithCause(err)
	}
	return user, nil
}

// maxKeys bounds the keys of an invitation. Two are usual.
const maxKeys = 8

// Keep has an invitation kept.
func (c *Client) Keep(ctx context.Context, s Server, i Invite) (Kept, error) {
	var k Kept
	if err := c.ask(ctx, s, http.MethodPost, "/store-invite", i, &k); err != nil {
		return Kept{}, err
	}
	if k.Token == "" || len(k.Token) > 255 || strings.ContainsFunc(k.Token, notOpaque) {
		return Kept{}, malformed(s, "the invitation has no token")
	}
	if len(k.Keys) == 0 || len(k.Keys) > maxKeys || len(k.Name) > 1024 {
		return Kept{}, malformed(s, "the invitation has no keys, or is too large")
	}
	for _, key := range k.Keys {
		if len(key.Key) == 0 || len(key.Key) > 128 || len(key.ValidityURL) > 2048 {
			return Kept{}, malformed(s, "the invitation has a key that is none")
		}
	}
	return k, nil
}

// notOpaque tells of a character that an opaque identifier cannot have.
func notOpaque(r rune) bool {
	return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && !strings.ContainsRune(".=_-", r)
}

// Session is how somebody has shown an identity server that an address is theirs.
type Session struct{ ID, Secret string }

// Bind binds the address of a session to a user.
func (c *Client) Bind(ctx context.Context, s Server, session Session, user id.UserID) (Address, error) {
	var bound struct {
		Address

		User id.UserID `json:"mxid"`
	}
	err := c.ask(ctx, s, http.MethodPost, "/3pid/bind", map[string]any{
		"sid": session.ID, "client_secret": session.Secret, "mxid": user,
	}, &bound)
	switch {
	case err != nil:
		return Address{}, err
	case bound.User != user:
		return Address{}, malformed(s, "the address was bound to somebody else")
	}
	return bound.Address, nil
}

// Unbind unbinds an address from a user. It is this homeserver that asks, for its user. It fails with [ErrUnsupported] where that is not done.
func (c *Client) Unbind(ctx context.Context, server id.ServerName, a Address, user id.UserID) error {
	body, err := json.Marshal(map[string]any{"mxid": user, "threepid": a})
	if err != nil {
		return err
	}
	authorization, err := c.o.Authorize(server, http.MethodPost, base+"/3pid/unbind", body)
	if err != nil {
		return fmt.Errorf("sign a request to %s: %w", server, err)
	}
	return c.do(ctx, server, http.MethodPost, "/3pid/unbind", authorization, body, nil)
}

func (c *Client) ask(ctx context.Context, s Server, method, path string, body, answer any) error {
	var raw []byte
	if body != nil {
		var err error
		if raw, err = json.Marshal(body); err != nil {
			return err
		}
	}
	return c.do(ctx, s.Name, method, path, "Bearer "+s.Token, raw, answer)
}

// do asks. What the server refuses, or that it cannot be reached, is an *mxerr.Error.
func (c *Client) do(ctx context.Context, server id.ServerName, method, path, authorization string, body []byte, answer any) error {
	if strings.ContainsFunc(authorization, func(r rune) bool { return r < ' ' || r > '~' }) {
		return mxerr.New(mxerr.InvalidParam, "id_access_token is malformed")
	}
	req, err := http.NewRequestWithContext(ctx, method, "https://"+string(server)+base+path, bytes.NewReader(body))
	if err != nil {
		return mxerr.New(mxerr.InvalidParam, "id_server is malformed").WithCause(err)
	}
	req.Header.Set("Authorization", authorization)
	req.Header.Set("User-Agent", c.o.UserAgent)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return unreachable(server, err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := outhttp.ReadAll(resp.Body, maxAnswer)
	switch {
	case err != nil:
		return unreachable(server, err)
	case resp.StatusCode != http.StatusOK:
		if e, ok := mxerr.Parse(resp.StatusCode, raw); ok {
			return harmless(e)
		}
		return fmt.Errorf("%w: %s %s: status %d", ErrUnsupported, server, path, resp.StatusCode)
	case answer == nil:
		return nil
	}
	if err := json.Unmarshal(raw, answer); err != nil {
		return unreachable(server, err)
	}
	return nil
}

func unreachable(server id.ServerName, cause error) *mxerr.Error {
	return mxerr.Newf(mxerr.ConnectionFailed, "The identity server %s cannot be reached", server).WithStatus(http.StatusBadGateway).WithCause(cause)
}

func malformed(s Server, why string) *mxerr.Error {
	return mxerr.Newf(mxerr.Unknown, "The identity server %s gives no sensible answer: %s", s.Name, why).WithStatus(http.StatusBadGateway)
}

// harmless gives a refusal as it may reach a client: what clients would take for a word on their session with this homeserver is said
// otherwise. That the user has to agree to the identity server's terms, or has proven nothing there, is what clients want to know.
func harmless(e *mxerr.Error) *mxerr.Error {
	out := mxerr.New(e.Code, e.Message).WithStatus(e.HTTPStatus)
	switch e.Code {
	case mxerr.UnknownToken, mxerr.MissingToken, mxerr.Unauthorized, mxerr.UserLocked, mxerr.UserDeactivated, mxerr.UserSuspended,
		mxerr.GuestAccessForbidden, mxerr.ConsentNotGiven:
		out = mxerr.New(mxerr.Forbidden, "The identity server refuses the id_access_token: "+e.Message)
	}
	switch {
	case out.HTTPStatus == http.StatusUnauthorized:
		out = out.WithStatus(http.StatusForbidden)
	case out.HTTPStatus >= http.StatusInternalServerError, out.HTTPStatus < http.StatusBadRequest:
		out = out.WithStatus(http.StatusBadGateway)
	}
	return out
}
