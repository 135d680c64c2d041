// Package httpx is the HTTP edge that all handlers share: a router made from the route table, and the reading of
// requests and writing of answers as the Matrix specification words them.
//
// Guarantees: a path that is not in the table is 404 M_UNRECOGNIZED and a known path with another method 405
// M_UNRECOGNIZED, on every worker alike; a body larger than its row's limit is 413 M_TOO_LARGE; a panic or an error
// that is not a mxerr.Error is 500 M_UNKNOWN with its cause in the log only; every answer carries the CORS headers and
// a request id; metrics and traces carry the route's name and pattern, never a raw path.
//
// A Router is immutable once built and safe for concurrent use.
//
// It may be imported by api/ and app. It imports route and matrix/mxerr of ours; it knows no service and no storage.
package httpx

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/heddle-im/heddle/pkg/infra/cache"
	"github.com/heddle-im/heddle/pkg/infra/telemetry"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/route"
)

// Handler answers one endpoint. If it returns an error it has written nothing; the router writes the error.
type Handler func(w http.ResponseWriter, r *http.Request) error

// Handlers are the handlers that a worker has, by the names of their rows.
type Handlers map[string]Handler

// Forwarder passes a request on to a worker of the row's kind. It answers in every case.
type Forwarder interface {
	Forward(w http.ResponseWriter, r *http.Request, row *route.Row) error
}

// Options are what a router is built from.
type Options struct {
	// Rows is the route table, route.Table() by default.
	Rows []route.Row
	// Kinds are the kinds of worker that this process is.
	Kinds []route.Kind
	// Handlers must be of rows of these kinds.
	Handlers Handlers
	// Wrap, if not nil, is put around each handler: authentication and rate limits by the row.
	Wrap func(row *route.Row, h Handler) Handler
	// Forwarder gets requests for rows of other kinds; it must be there unless Kinds are all kinds.
	Forwarder Forwarder
	// Elsewhere, if not nil, is asked when a handler fails before it has answered: it may know a handler that answers in its place, by
	// asking another worker.
	Elsewhere func(row *route.Row, err error) Handler
	// Internal says whether a request was passed on by another worker: only such a request may continue a trace.
	Internal func(r *http.Request) bool
	// Parking, if not nil, keeps the connections of those who wait; the server must serve its Listener.
	Parking *Parking
	// Gate, if not nil, bounds what answers to GET requests take that are being made at a time.
	Gate *cache.Gate
	// Passing, if not nil, tells of a failure that it will pass, as when the database is not to be had: it is answered 503, and not 500.
	Passing func(err error) bool
	// Pressure, if not nil, turns requests away while memory is short.
	Pressure *cache.Pressure
	// MaxUpload is the body limit of media uploads in bytes.
	MaxUpload int64
	// BodyTime is how long a client may take to send a body, or, for streams, to send something; 1 minute by default.
	BodyTime time.Duration

	Log *slog.Logger
	// Registerer gets the metrics; nil for none.
	Registerer prometheus.Registerer
	// TracerProvider gets a span for each request; nil for none.
	TracerProvider trace.TracerProvider
	Propagator     propagation.TextMapPropagator
}

// Router routes requests by the table.
type Router struct {
	index         *route.Index
	mux           *mux.Router
	handler       http.Handler
	endpoints     map[*route.Row]http.Handler
	unimplemented []string
	opts          Options
	metrics       *metrics
	tracing       *tracing // nil: there are no spans
	wrongMethod   http.Handler
}

// New builds a router. It fails if a handler has no row, or a row of a kind that is not served here.
func New(opts Options) (*Router, error) {
	if opts.Rows == nil {
		opts.Rows = route.Table()
	}
	if opts.BodyTime == 0 {
		opts.BodyTime = time.Minute
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	index, err := route.NewIndex(opts.Rows)
	if err != nil {
		return nil, fmt.Errorf("route table: %w", err)
	}
	m, err := newMetrics(opts.Registerer)
	if err != nil {
		return nil, err
	}
	rt := &Router{
		index: index, opts: opts, metrics: m, tracing: newTracing(&opts),
		endpoints: make(map[*route.Row]http.Handler),
	}
	if err := rt.addRows(); err != nil {
		return nil, err
	}
	rt.addMux()
	rt.handler = rt.outermost(rt.mux)
	return rt, nil
}

func (rt *Router) addRows() error {
	known := make(map[string]bool)
	for i := range rt.index.Rows() {
		row := &rt.index.Rows()[i]
		h := rt.opts.Handlers[row.Name]
		known[row.Name] = true
		switch own := slices.Contains(rt.opts.Kinds, row.Kind); {
		case !own && h != nil:
			return fmt.Errorf("handler %q is of kind %s, which is not served here", row.Name, row.Kind)
		case !own && rt.opts.Forwarder == nil:
			return fmt.Errorf("no forwarder for kind %s", row.Kind)
		case !own:
			f := rt.opts.Forwarder
			rt.endpoints[row] = rt.endpoint(row, func(w http.ResponseWriter, r *http.Request) error {
				return f.Forward(w, r, row)
			}, true)
		case h == nil:
			rt.unimplemented = append(rt.unimplemented, row.Name)
			rt.endpoints[row] = rt.endpoint(row, func(http.ResponseWriter, *http.Request) error {
				return mxerr.New(mxerr.Unrecognized, "Unrecognized request")
			}, false)
		default:
			if rt.opts.Wrap != nil {
				h = rt.opts.Wrap(row, h)
			}
			rt.endpoints[row] = rt.endpoint(row, h, false)
		}
	}
	for name := range rt.opts.Handlers {
		if !known[name] {
			return fmt.Errorf("handler %q has no row in the route table", name)
		}
	}
	slices.Sort(rt.unimplemented)
	return nil
}

// addMux puts the table into mux as one route, whose matcher looks into the index (0.3 µs). Mux's own matching tries one route after the
// other (77 µs for the last of 250, measured), and the regular expressions of all of them take 4 MB of each worker.
func (rt *Router) addMux() {
	rt.mux = mux.NewRouter().UseEncodedPath().SkipClean(true)
	rt.mux.NewRoute().MatcherFunc(rt.match)
	rt.wrongMethod = rt.refusal("wrong_method", mxerr.New(mxerr.Unrecognized, "Method not allowed").WithStatus(http.StatusMethodNotAllowed))
	rt.mux.NotFoundHandler = rt.refusal("unknown", mxerr.New(mxerr.Unrecognized, "Unrecognized request"))
}

func (rt *Router) match(r *http.Request, m *mux.RouteMatch) bool {
	found := rt.index.Lookup(r.Method, r.URL.EscapedPath())
	if found.Row == nil {
		if len(found.Allowed) == 0 {
			return false
		}
		allow := strings.Join(append(found.Allowed, http.MethodOptions), ", ")
		m.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", allow)
			rt.wrongMethod.ServeHTTP(w, r)
		})
		return true
	}
	m.Handler = rt.endpoints[found.Row]
	m.Vars = make(map[string]string, len(found.Params))
	for _, p := range found.Params {
		v, err := url.PathUnescape(p.Value)
		if err != nil || !storable(v) {
			m.Handler = rt.refusal(found.Row.Name, mxerr.New(mxerr.InvalidParam, "Bad encoding of "+p.Name+" in the path"))
			return true
		}
		m.Vars[p.Name] = v
	}
	return true
}

// storable tells whether a text of a client can be: valid UTF-8 without U+0000, which PostgreSQL's texts cannot hold.
func storable(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// Unimplemented lists the names of the rows of this worker's kinds that have no handler, sorted.
func (rt *Router) Unimplemented() []string { return slices.Clone(rt.unimplemented) }

// ServeHTTP implements http.Handler.
func (rt *Router) ServeHTTP(w http.ResponseWriter, r *http.Request) { rt.handler.ServeHTTP(w, r) }

// outermost is what every request passes, whatever its path.
func (rt *Router) outermost(next http.Handler) http.Handler {
	cors := corsHeaders() // shared by all answers: a header is set, and not changed in place
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		maps.Copy(w.Header(), cors)
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		id := r.Header.Get(requestIDHeader)
		if !telemetry.ValidRequestID(id) {
			id = newRequestID()
		}
		w.Header().Set(requestIDHeader, id)
		ctx := r.Context()
		if rt.tracing != nil {
			var span trace.Span
			ctx, span = rt.tracing.start(ctx, r)
			defer span.End()
		}
		next.ServeHTTP(w, r.WithContext(telemetry.WithRequestID(ctx, id)))
	})
}

func corsHeaders() http.Header {
	return http.Header{
		"Access-Control-Allow-Origin":   {"*"},
		"Access-Control-Allow-Methods":  {"GET, HEAD, POST, PUT, DELETE, OPTIONS"},
		"Access-Control-Allow-Headers":  {"X-Requested-With, Content-Type, Authorization, Date, If-Match, If-None-Match"},
		"Access-Control-Expose-Headers": {"ETag, Location, X-Max-Bytes, Retry-After, " + requestIDHeader},
	}
}

// endpoint makes the http.Handler of a row.
func (rt *Router) endpoint(row *route.Row, h Handler, forwarded bool) http.Handler {
	meter := rt.metrics.of(row.Name)
	limit := row.MaxBody
	if limit == route.BodyUpload {
		limit = rt.opts.MaxUpload
	}
	h = rt.gated(row, h, forwarded)
	timeLimit := row.Timeout.Limit()
	if forwarded {
		timeLimit = 0 // its worker keeps it
	}
	return http.HandlerFunc(func(hw http.ResponseWriter, r *http.Request) {
		start := time.Now()
		w := &response{ResponseWriter: hw, parking: rt.opts.Parking}
		body := &body{
			ReadCloser: http.MaxBytesReader(hw, r.Body, limit), deadline: http.NewResponseController(hw).SetReadDeadline,
			time: rt.opts.BodyTime, stream: row.Timeout == route.Stream,
		}
		length := r.ContentLength
		r.Body = body
		meter := meter.get()
		meter.inFlight.Inc()
		if row.Timeout == route.LongPoll && w.parking != nil {
			w.later = rt.answeredLater(row, meter, start)
		} else {
			w.parking = nil
		}
		defer func() {
			if w.parked {
				return
			}
			body.finish(length)
			rt.tracing.answered(r, w.status)
			meter.inFlight.Dec()
			took := time.Since(start)
			meter.done(w.status, took, body.read, w.written)
			if ctx := r.Context(); rt.opts.Log.Enabled(ctx, slog.LevelDebug) {
				rt.opts.Log.DebugContext(ctx, "request", "route", row.Name, "status", w.status, "took", took)
			}
		}()
		defer rt.recover(w, r, row)
		rt.tracing.name(r, row)
		if timeLimit > 0 {
			ctx, cancel := context.WithTimeout(r.Context(), timeLimit)
			defer cancel()
			r = r.WithContext(ctx)
		}
		if r.ContentLength > limit {
			rt.fail(w, r, row.Name, mxerr.New(mxerr.TooLarge, "The request is too large"))
			return
		}
		if !forwarded { // its worker decides
			if err := rt.opts.Pressure.Enter(); err != nil {
				rt.fail(w, r, row.Name, err)
				return
			}
			w.pressure = rt.opts.Pressure
			defer w.leave()
		}
		err := h(w, r)
		if err != nil && !forwarded && w.status == 0 && rt.opts.Elsewhere != nil {
			if other := rt.opts.Elsewhere(row, err); other != nil {
				r.Body = body.again()
				err = other(w, r)
			}
		}
		if err != nil {
			rt.fail(w, r, row.Name, err)
		}
	})
}

// gated has a handler wait until there is memory for its answer. Who waits for something to happen passes a gate of his own when it
// has; what is streamed or passed on is never held as a whole.
func (rt *Router) gated(row *route.Row, h Handler, forwarded bool) Handler {
	if forwarded || rt.opts.Gate == nil || row.Timeout == route.LongPoll || row.Timeout == route.Stream || !slices.Contains(row.Methods, http.MethodGet) {
		return h
	}
	weight := new(cache.Weight)
	return func(w http.ResponseWriter, r *http.Request) error {
		if r.Method != http.MethodGet {
			return h(w, r)
		}
		leave, err := rt.opts.Gate.Enter(r.Context(), weight)
		if err != nil {
			return err
		}
		length := int64(-1)
		defer func() { leave(length) }()
		err = h(w, r)
		if rw, ok := w.(*response); ok && err == nil {
			length = rw.written
		}
		return err
	}
}

// answeredLater is what becomes of a request that is answered after its handler has returned.
func (rt *Router) answeredLater(row *route.Row, meter *series, start time.Time) *later {
	return &later{
		fail: func(ctx context.Context, w http.ResponseWriter, err error) {
			e := rt.classify(err)
			rt.logFailure(ctx, row.Name, e, err)
			WriteError(w, e)
		},
		done: func(ctx context.Context, status int, written int64) {
			meter.inFlight.Dec()
			took := time.Since(start)
			meter.done(status, took, 0, written)
			if rt.opts.Log.Enabled(ctx, slog.LevelDebug) {
				rt.opts.Log.DebugContext(ctx, "request", "route", row.Name, "status", status, "took", took)
			}
		},
	}
}

// refusal answers a request that reaches no endpoint.
func (rt *Router) refusal(name string, e *mxerr.Error) http.Handler {
	meter := rt.metrics.of(name)
	return http.HandlerFunc(func(hw http.ResponseWriter, _ *http.Request) {
		w := &response{ResponseWriter: hw}
		WriteError(w, e)
		meter.get().done(w.status, 0, 0, w.written)
	})
}

// recover turns a panic into an answer. Its text is for the log alone.
func (rt *Router) recover(w *response, r *http.Request, row *route.Row) {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler { //nolint:errorlint // net/http compares so too
		panic(p) //nolint:forbidigo // net/http's way to break a connection off
	}
	rt.opts.Log.ErrorContext(r.Context(), "panic in handler", "route", row.Name,
		"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	if w.status != 0 {
		panic(http.ErrAbortHandler) //nolint:forbidigo // too late for an answer: the client must see that it is cut short
	}
	WriteError(w, mxerr.Internal(nil))
}

// fail writes the error that a handler returned.
func (rt *Router) fail(w *response, r *http.Request, name string, err error) {
	if w.status != 0 {
		if r.Context().Err() == nil && !errors.Is(err, errNotTaken) { // else the client has gone
			rt.opts.Log.ErrorContext(r.Context(), "handler failed after it had begun to answer", "route", name, "error", err)
		}
		panic(http.ErrAbortHandler) //nolint:forbidigo // as after a panic
	}
	if errors.Is(err, context.Canceled) && errors.Is(r.Context().Err(), context.Canceled) {
		w.status = statusClientGone // nobody is there to read an answer
		return
	}
	if errors.Is(err, cache.ErrBusy) {
		w.Header().Set("Connection", "close") // else it keeps more memory than a sync that waits
	}
	e := rt.classify(err)
	rt.logFailure(r.Context(), name, e, err)
	WriteError(w, e)
}

// logFailure logs what is our failure. Who is turned away is counted: a worker that has too much to do does not write a line for each.
func (rt *Router) logFailure(ctx context.Context, name string, e *mxerr.Error, err error) {
	if e.HTTPStatus >= 500 && !errors.Is(err, cache.ErrBusy) {
		rt.opts.Log.ErrorContext(ctx, "request failed", "route", name, "status", e.HTTPStatus, "error", err)
	}
}

// classify is classify, and says what is of a failure that will pass.
func (rt *Router) classify(err error) *mxerr.Error {
	e := classify(err)
	if e != nil && e.HTTPStatus == http.StatusInternalServerError && rt.opts.Passing != nil && rt.opts.Passing(err) {
		return mxerr.New(mxerr.Unknown, "The server cannot do this now").WithStatus(http.StatusServiceUnavailable).WithCause(err)
	}
	return e
}

// statusClientGone is for the metrics only.
const statusClientGone = 499

// Var gives a variable of the path, decoded. It is valid UTF-8 without U+0000, and else unchecked.
func Var(r *http.Request, name string) string { return mux.Vars(r)[name] }
