// Package forward passes a request on to a worker of the kind that serves it, so that any worker answers any request
// correctly wherever a balancer sends it.
//
// Guarantees: bodies stream both ways and long polls wait as long as they do at their own worker; the request keeps
// its raw path, Host and X-Forwarded-For; a request is passed on once only, which a header that clients cannot forge
// sees to; another worker is tried only if the connection to the first was never made, so that nothing is done twice;
// without a worker of the kind the answer is 503 M_UNKNOWN with Retry-After that names the kind.
//
// A Forwarder is safe for concurrent use. It may be imported by api/ and app.
package forward

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/propagation"

	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/fleet/members"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/route"
	"github.com/heddle-im/heddle/pkg/shardlog/token"
)

// guardHeader marks a request that was passed on by a worker: the MAC of its method and URI under a key of the cluster.
const guardHeader = "X-Heddle-Forwarded"

// replayable is the size up to which a body is kept, so that it can be sent again on a new connection when an idle one
// turns out to be dead before anything was written.
const replayable = 256 << 10

// attempts is how many workers are tried; more would make a client wait for a fleet that is not there.
const attempts = 3

// Members picks workers; *members.Register is one.
type Members interface {
	Rank(kind route.Kind, key string) []members.Worker
}

// Options are what a Forwarder is made of.
type Options struct {
	Members Members
	// Self is this worker's instance: it is never passed to.
	Self string
	// Secret is the cluster's, from the database.
	Secret []byte
	// Propagator, if not nil, carries the trace on.
	Propagator propagation.TextMapPropagator
	Registerer prometheus.Registerer
	Log        *slog.Logger
}

// Forwarder passes requests on.
type Forwarder struct {
	opts      Options
	key       []byte
	transport *http.Transport
	total     *prometheus.CounterVec
}

// New makes a Forwarder. The caller must Close it.
func New(o Options) (*Forwarder, error) {
	if len(o.Secret) < 16 {
		return nil, errors.New("forward: the cluster's secret is too short")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	mac := hmac.New(sha256.New, o.Secret)
	mac.Write([]byte("heddle forward guard 1"))
	f := &Forwarder{
		opts: o, key: mac.Sum(nil),
		transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: 2 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
			MaxIdleConnsPerHost: 256,
			IdleConnTimeout:     time.Minute,
			DisableCompression:  true, // what the client accepts is the client's and the worker's affair
		},
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "heddle_forward_requests_total", Help: "Requests passed on to workers of another kind, by how it went.",
		}, []string{"kind", "result"}),
	}
	if o.Registerer != nil {
		if err := o.Registerer.Register(f.total); err != nil {
			return nil, fmt.Errorf("register forward metrics: %w", err)
		}
	}
	return f, nil
}

// Close closes the idle connections.
func (f *Forwarder) Close() { f.transport.CloseIdleConnections() }

func (f *Forwarder) guard(r *http.Request) string {
	mac := hmac.New(sha256.New, f.key)
	fmt.Fprintf(mac, "%s\n%s", r.Method, r.URL.RequestURI())
	return hex.EncodeToString(mac.Sum(nil))
}

// Internal says whether another worker of this cluster passed the request on.
func (f *Forwarder) Internal(r *http.Request) bool {
	h := r.Header.Get(guardHeader)
	return h != "" && hmac.Equal([]byte(h), []byte(f.guard(r)))
}

// Forward implements httpx.Forwarder.
func (f *Forwarder) Forward(w http.ResponseWriter, r *http.Request, row *route.Row) error {
	if f.Internal(r) {
		f.count(row, "loop")
		return mxerr.Unavailable("This request was passed on to a worker that is not a "+string(row.Kind), 1000)
	}
	targets := f.targets(r, row, 0)
	if len(targets) == 0 {
		f.count(row, "no_worker")
		return mxerr.Unavailable("No worker of kind "+string(row.Kind)+" is available", 5000)
	}
	return f.pass(w, r, row, targets)
}

// LaterRelease implements httpx.Options.Elsewhere: a request of this worker's own kind with a token that a later release made is answered
// by a worker of that release, if there is one and the request did not come from another worker.
func (f *Forwarder) LaterRelease(row *route.Row, err error) httpx.Handler {
	var newer *token.UnknownVersionError
	if !errors.As(err, &newer) {
		return nil
	}
	return func(w http.ResponseWriter, r *http.Request) error {
		if f.Internal(r) {
			return err
		}
		targets := f.targets(r, row, int32(newer.Version)) //nolint:gosec // five bits
		if len(targets) == 0 {
			return err
		}
		return f.pass(w, r, row, targets)
	}
}

// targets are the workers to try for a request, of those that read a feature level.
func (f *Forwarder) targets(r *http.Request, row *route.Row, level int32) (targets []members.Worker) {
	for _, t := range f.opts.Members.Rank(row.Kind, Key(row, r)) {
		if t.Instance != f.opts.Self && t.ProtocolMax >= level && len(targets) < attempts {
			targets = append(targets, t)
		}
	}
	return targets
}

func (f *Forwarder) pass(w http.ResponseWriter, r *http.Request, row *route.Row, targets []members.Worker) error {
	out, err := newReplay(r)
	if err != nil {
		return err
	}
	var failed error
	proxy := httputil.ReverseProxy{
		Rewrite:       func(pr *httputil.ProxyRequest) { f.rewrite(pr, w) },
		Transport:     roundTripper{f, targets, out},
		FlushInterval: -1,
		// What the other worker says stands for what this one would have said.
		ModifyResponse: func(resp *http.Response) error {
			for k := range resp.Header {
				w.Header().Del(k)
			}
			return nil
		},
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) { failed = err },
	}
	proxy.ServeHTTP(w, r)
	return f.result(r, row, failed)
}

func (f *Forwarder) result(r *http.Request, row *route.Row, failed error) error {
	var tooLarge *http.MaxBytesError
	switch {
	case failed == nil:
		f.count(row, "ok")
		return nil
	case r.Context().Err() != nil:
		f.count(row, "client_gone")
		return r.Context().Err()
	case errors.As(failed, &tooLarge):
		f.count(row, "too_large")
		return failed
	case notConnected(failed):
		f.count(row, "unreachable")
		return mxerr.Unavailable("No worker of kind "+string(row.Kind)+" can be reached", 1000).WithCause(failed)
	default:
		f.count(row, "lost")
		return mxerr.New(mxerr.Unknown, "The worker of kind "+string(row.Kind)+" broke off").
			WithStatus(http.StatusBadGateway).WithCause(failed)
	}
}

func (f *Forwarder) count(row *route.Row, result string) {
	f.total.WithLabelValues(string(row.Kind), result).Inc()
}

func (f *Forwarder) rewrite(pr *httputil.ProxyRequest, w http.ResponseWriter) {
	in, out := pr.In, pr.Out
	out.URL.Scheme = "http"
	out.URL.Host = "worker"            // the round tripper puts the address in
	out.URL.RawQuery = in.URL.RawQuery // unparsable parameters are left out otherwise
	for _, k := range []string{"Forwarded", "X-Forwarded-Proto", "X-Forwarded-Host"} {
		if v := in.Header[k]; v != nil {
			out.Header[k] = v
		}
	}
	host, _, err := net.SplitHostPort(in.RemoteAddr)
	if err == nil {
		chain := append(slices.Clone(in.Header["X-Forwarded-For"]), host)
		out.Header.Set("X-Forwarded-For", strings.Join(chain, ", "))
	}
	if id := httpx.RequestID(w); id != "" {
		out.Header.Set("X-Request-Id", id)
	}
	out.Header.Set(guardHeader, f.guard(out))
	if f.opts.Propagator != nil {
		f.opts.Propagator.Inject(in.Context(), propagation.HeaderCarrier(out.Header))
	}
}

// roundTripper sends one request to the first of its targets that takes a connection.
type roundTripper struct {
	f       *Forwarder
	targets []members.Worker
	replay  *replay
}

func (t roundTripper) RoundTrip(r *http.Request) (*http.Response, error) {
	var err error
	for _, target := range t.targets {
		out := r.Clone(r.Context())
		out.URL.Host = target.Address
		t.replay.give(out)
		var resp *http.Response
		resp, err = t.f.transport.RoundTrip(out)
		if err == nil {
			return resp, nil
		}
		if !notConnected(err) || r.Context().Err() != nil || !t.replay.possible() {
			return nil, err
		}
		t.f.opts.Log.WarnContext(r.Context(), "worker cannot be reached", "instance", target.Instance,
			"address", target.Address, "error", err)
	}
	return nil, err
}

// notConnected says that nothing was sent, since there was no connection to send it on.
func notConnected(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// replay is a request's body, that can be given to more than one attempt as long as nothing of it is lost.
type replay struct {
	kept   []byte
	stream io.ReadCloser
	read   bool
	none   bool
}

func newReplay(r *http.Request) (*replay, error) {
	switch {
	case r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0:
		return &replay{none: true}, nil
	case r.ContentLength > 0 && r.ContentLength <= replayable:
		b, err := httpx.ReadBody(r)
		if err != nil {
			return nil, err
		}
		return &replay{kept: b}, nil
	default:
		return &replay{stream: r.Body}, nil
	}
}

func (p *replay) possible() bool { return p.stream == nil || !p.read }

func (p *replay) give(out *http.Request) {
	switch {
	case p.none:
		out.Body, out.ContentLength = nil, 0
	case p.stream != nil:
		out.Body = p // its Close does nothing: the server closes the real one
	default:
		out.ContentLength = int64(len(p.kept))
		out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(p.kept)), nil }
		out.Body, _ = out.GetBody()
	}
}

func (p *replay) Read(b []byte) (int, error) {
	p.read = true
	return p.stream.Read(b)
}

func (p *replay) Close() error { return nil }

// Key is what the request's row hashes, empty if it hashes nothing or the request has nothing to hash.
func Key(row *route.Row, r *http.Request) string {
	switch row.Sticky {
	case route.ByRoom:
		if id := httpx.Var(r, "roomId"); id != "" {
			return id
		}
		return httpx.Var(r, "roomIdOrAlias")
	case route.ByUser:
		return userKey(r)
	case route.ByOrigin:
		return originKey(r.Header.Get("Authorization"))
	default:
		return ""
	}
}

// userKey is the part of an access token that names its user, the same for all devices of a user; of another's token,
// such as an appservice's, all of it, with the user that it acts for.
func userKey(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		token = r.URL.Query().Get("access_token")
	}
	if strings.HasPrefix(token, "hed_") {
		user, _, _ := strings.Cut(token, ".")
		return user
	}
	if token == "" {
		return ""
	}
	return token + r.URL.Query().Get("user_id")
}

// originKey finds the origin that an X-Matrix header claims. It is not verified here: it only spreads load.
func originKey(header string) string {
	scheme, params, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "X-Matrix") {
		return ""
	}
	for p := range strings.SplitSeq(params, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		if strings.EqualFold(name, "origin") {
			return strings.Trim(value, `"`)
		}
	}
	return ""
}

var _ httpx.Forwarder = (*Forwarder)(nil)

var _ Members = (*members.Register)(nil)
