// Package fedclient calls other homeservers: it finds them, signs what it asks, and bounds what they can do to this one.
//
// Every request has a deadline and a limit on the size of its answer; connections are reused and speak HTTP/2 where the other side
// does; certificates are verified against the name that discovery demands; no connection is made to a network that the guard
// denies, whatever a name resolves to. A server that does not answer is left alone for a time that doubles, and that all
// workers share as long as there is a Redis; it ends early when the server is heard of ([Client.Heard]).
//
// A [Client] is safe for concurrent use. It may be imported by remote/keyring, api/auth and the composition root; services declare
// what they need of it.
package fedclient

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/outhttp"
	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
)

// Why a request failed; match with errors.Is. A refusal by the other server is a *[RefusedError].
var (
	ErrUnreachable = errors.New("server cannot be reached")
	ErrBackoff     = errors.New("server did not answer lately and is left alone")
	ErrTooLarge    = errors.New("answer is too large")
	ErrMalformed   = errors.New("answer is not what was asked for")
	ErrSelf        = errors.New("that is this server")
	ErrDisabled    = errors.New("federation is not enabled")
)

// RefusedError is an answer of another server that is not 2xx.
type RefusedError struct {
	Server id.ServerName
	Status int
	// Err is the Matrix error of the answer, nil if it had none.
	Err *mxerr.Error
}

// Error implements error.
func (e *RefusedError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s answered %d %s: %.200s", e.Server, e.Status, e.Err.Code, e.Err.Message)
	}
	return fmt.Sprintf("%s answered %d", e.Server, e.Status)
}

// Unwrap gives the Matrix error of the answer, if it had one.
func (e *RefusedError) Unwrap() error {
	if e.Err == nil {
		return nil
	}
	return e.Err
}

// StatusCode is for services, which do not know this package.
func (e *RefusedError) StatusCode() int { return e.Status }

// Cache keeps what may be lost. It is *soft.Store.
type Cache interface {
	Get(ctx context.Context, key string) (value []byte, ok bool, err error)
	Set(ctx context.Context, key string, value []byte, ttl time.Duration) error
	Delete(ctx context.Context, keys ...string) error
}

// Options are what a Client needs.
type Options struct {
	Enabled bool
	Server  id.ServerName
	Key     signing.Key
	Guard   *outhttp.Guard
	Cache   Cache
	// Roots are the authorities to trust; nil: the system's.
	Roots *x509.CertPool
	// UserAgent names this server's software.
	UserAgent string
	// Resolver looks names up; nil: the system's.
	Resolver *net.Resolver
	Now      func() time.Time
}

const (
	dialTimeout    = 10 * time.Second
	defaultTimeout = 30 * time.Second
	// DefaultLimit bounds an answer whose request says nothing of it.
	DefaultLimit = 8 << 20
	errorLimit   = 64 << 10
)

// Client calls other homeservers.
type Client struct {
	o         Options
	resolver  *resolver
	http      *http.Client
	wellKnown *http.Client
	pauses    *pauses
}

// New makes a Client. Close it in the end.
func New(o Options) *Client {
	if o.Resolver == nil {
		o.Resolver = &net.Resolver{PreferGo: true}
	}
	if o.UserAgent == "" {
		o.UserAgent = "Heddle"
	}
	c := &Client{o: o, pauses: newPauses(o.Cache, o.Now)}
	c.resolver = &resolver{o: &c.o, known: map[id.ServerName]knownTarget{}}
	plain := c.o.Guard.Dialer(dialTimeout)
	plain.Resolver = o.Resolver
	c.wellKnown = &http.Client{Transport: c.transport(plain.DialContext), CheckRedirect: noLoop}
	c.resolver.http = c.wellKnown
	c.http = &http.Client{
		Transport:     c.transport(c.resolver.dial),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

func (c *Client) transport(dial func(context.Context, string, string) (net.Conn, error)) *http.Transport {
	return &http.Transport{
		DialContext: dial, ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: c.o.Roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: dialTimeout, MaxIdleConns: 1000, MaxIdleConnsPerHost: 4, MaxConnsPerHost: 32,
		IdleConnTimeout: 3 * time.Minute, MaxResponseHeaderBytes: 64 << 10, ExpectContinueTimeout: time.Second,
	}
}

// Close lets go of connections that are not in use.
func (c *Client) Close() {
	c.http.CloseIdleConnections()
	c.wellKnown.CloseIdleConnections()
}

// Request is what is asked of another server.
type Request struct {
	Method string
	// Path begins with a slash; its segments are escaped: see [Path].
	Path  string
	Query url.Values
	// Body is a JSON value, nil for none.
	Body []byte
	// Timeout bounds it all, the last byte of the answer included. Default 30 s.
	Timeout time.Duration
	// Limit bounds the answer's size. Default [DefaultLimit].
	Limit int64
	// Unsigned leaves the signature out.
	Unsigned bool
	// Insist asks a server that is being left alone too: for somebody who waits for the answer.
	Insist bool
	// Strict has a server left alone for a while that answers anything but 2xx, or 400 or 413 as a Matrix error: for what is sent again and
	// again until it is taken.
	Strict bool
}

// Path joins segments, escaped, after a prefix.
func Path(prefix string, segments ...string) string {
	var b strings.Builder
	b.WriteString(prefix)
	for _, s := range segments {
		b.WriteByte('/')
		b.WriteString(strings.ReplaceAll(url.QueryEscape(s), "+", "%20"))
	}
	return b.String()
}

// Do asks, and gives the answer's body. What type the answer says that it is of is not looked at: servers have to say JSON, and some that do not
// answer well all the same, while what is no JSON, or is not signed, is refused by whoever reads it, whatever it is called.
func (c *Client) Do(ctx context.Context, to id.ServerName, r Request) ([]byte, error) {
	if r.Timeout == 0 {
		r.Timeout = defaultTimeout
	}
	if r.Limit == 0 {
		r.Limit = DefaultLimit
	}
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	resp, err := c.Open(ctx, to, r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.ContentLength > r.Limit {
		return nil, fmt.Errorf("%s: %w", to, ErrTooLarge)
	}
	body, err := outhttp.ReadAll(resp.Body, r.Limit)
	switch {
	case errors.Is(err, outhttp.ErrTooLong):
		return nil, fmt.Errorf("%s: %w", to, ErrTooLarge)
	case err != nil:
		return nil, fmt.Errorf("%w: %s: read answer: %w", ErrUnreachable, to, err)
	}
	return body, nil
}

// Open asks, and gives an answer with a status of 2xx whose body the caller reads, bounds and closes; ctx bounds all of it. Limit and
// Timeout of the request are not looked at.
func (c *Client) Open(ctx context.Context, to id.ServerName, r Request) (*http.Response, error) {
	switch {
	case !c.o.Enabled:
		return nil, ErrDisabled
	case to == c.o.Server:
		return nil, ErrSelf
	}
	if !r.Insist {
		if err := c.pauses.check(ctx, to); err != nil {
			return nil, err
		}
	}
	resp, err := c.send(ctx, to, r)
	if err != nil {
		// Who gave up waiting says nothing of the other server; a deadline that was the request's own does.
		if !errors.Is(err, context.Canceled) {
			c.pauses.failed(context.WithoutCancel(ctx), to)
		}
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, to, err)
	}
	if resp.StatusCode/100 == 2 {
		c.pauses.answered(ctx, to)
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, errorLimit))
	refused := &RefusedError{Server: to, Status: resp.StatusCode}
	if e, ok := mxerr.Parse(resp.StatusCode, body); ok {
		refused.Err = harmless(e)
	}
	judged := refused.Err != nil && (resp.StatusCode == http.StatusBadRequest || resp.StatusCode == http.StatusRequestEntityTooLarge)
	if resp.StatusCode >= 500 && refused.Err == nil || resp.StatusCode == http.StatusTooManyRequests || r.Strict && !judged {
		c.pauses.failed(context.WithoutCancel(ctx), to)
	} else {
		c.pauses.answered(ctx, to)
	}
	return nil, refused
}

// harmless gives an error of another server as it may reach a client of this one. What would tell the client about its own session, or that this
// server is broken, is not for a stranger to say.
func harmless(e *mxerr.Error) *mxerr.Error {
	out := *e
	switch e.Code {
	case mxerr.Forbidden, mxerr.NotFound, mxerr.BadState, mxerr.BadJSON, mxerr.NotJSON, mxerr.InvalidParam, mxerr.MissingParam, mxerr.TooLarge,
		mxerr.IncompatibleRoomVersion, mxerr.UnsupportedRoomVersion, mxerr.UnableToAuthoriseJoin, mxerr.UnableToGrantJoin, mxerr.InviteBlocked,
		mxerr.LimitExceeded, mxerr.Unrecognized, mxerr.NotYetUploaded, mxerr.GuestAccessForbidden, mxerr.Unknown:
	default:
		out.Code = mxerr.Unknown
	}
	if out.HTTPStatus == http.StatusUnauthorized || out.HTTPStatus >= http.StatusInternalServerError || out.HTTPStatus < http.StatusBadRequest {
		out.HTTPStatus = http.StatusBadGateway
	}
	return &out
}

func (c *Client) send(ctx context.Context, to id.ServerName, r Request) (*http.Response, error) {
	at, err := c.resolver.resolve(ctx, to)
	if err != nil {
		return nil, err
	}
	uri := r.Path
	if len(r.Query) > 0 {
		uri += "?" + r.Query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, "https://"+at.dialed()+uri, bytes.NewReader(r.Body))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	req.Host = at.Host
	req.Header.Set("User-Agent", c.o.UserAgent)
	if r.Body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if !r.Unsigned {
		auth, err := c.Authorization(to, r.Method, uri, r.Body)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", auth)
	}
	return c.http.Do(req)
}

// Authorization signs a request: it gives the value of the header of that name.
func (c *Client) Authorization(to id.ServerName, method, uri string, body []byte) (string, error) {
	object, err := RequestObject(c.o.Server, to, method, uri, body)
	if err != nil {
		return "", err
	}
	sig := base64.RawStdEncoding.EncodeToString(c.o.Key.Sign(object))
	return fmt.Sprintf(`X-Matrix origin="%s",destination="%s",key="%s",sig="%s"`, c.o.Server, to, c.o.Key.ID(), sig), nil
}

// RequestObject gives what the signature of a request covers: a JSON object in canonical form, in which numbers may be whatever events of old
// rooms have in them. An empty destination is left out, as it
// is in requests of old servers.
func RequestObject(origin, destination id.ServerName, method, uri string, body []byte) ([]byte, error) {
	b := []byte(`{`)
	if len(body) > 0 {
		b = append(append(append(b, `"content":`...), body...), ',')
	}
	if destination != "" {
		b = append(canonjson.AppendString(append(b, `"destination":`...), string(destination)), ',')
	}
	b = append(canonjson.AppendString(append(b, `"method":`...), method), ',')
	b = append(canonjson.AppendString(append(b, `"origin":`...), string(origin)), ',')
	b = append(canonjson.AppendString(append(b, `"uri":`...), uri), '}')
	object, err := canonjson.Canonical(b, canonjson.Options{Mode: canonjson.Lax, MaxSize: len(b) + 1})
	if err != nil {
		return nil, fmt.Errorf("request's body: %w", err)
	}
	return object, nil
}

// Heard tells that a server has shown that it is there: it is asked again at once. It says whether the server was being left alone.
func (c *Client) Heard(ctx context.Context, server id.ServerName) (news bool) {
	return c.pauses.answered(ctx, server)
}

// HeardElsewhere tells that another worker has heard of a server: what is remembered here of its failures is not believed any more.
func (c *Client) HeardElsewhere(server id.ServerName) { c.pauses.forget(server) }

// Backoff gives how long a server is still left alone, 0 if it is not.
func (c *Client) Backoff(ctx context.Context, server id.ServerName) time.Duration {
	return c.pauses.left(ctx, server)
}

// Ask is [Client.Do] in the form in which services ask for it: limit and wait of 0 are the defaults, insist is for somebody who waits for
// the answer.
func (c *Client) Ask(ctx context.Context, to id.ServerName, method, path string, query url.Values, body []byte, limit int64, wait time.Duration, insist bool) ([]byte, error) {
	return c.Do(ctx, to, Request{Method: method, Path: path, Query: query, Body: body, Limit: limit, Timeout: wait, Insist: insist})
}
