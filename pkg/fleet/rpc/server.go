package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/protobuf/proto"

	"github.com/heddle-im/heddle/pkg/infra/bus"
	"github.com/heddle-im/heddle/pkg/infra/telemetry"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/shardlog/wire"
)

// ServerConfig is what a Server needs.
type ServerConfig struct {
	Bus *bus.Bus
	// Secret is the cluster's.
	Secret []byte
	// Handlers are the methods, by name.
	Handlers map[string]Handler
	// MaxConcurrent is how many requests run at a time; more are told to try again. Default 1024.
	MaxConcurrent int
	// MaxBytes bounds a request and an answer. Default DefaultMaxBytes.
	MaxBytes int
	// Logger, Tracer, Propagator and Metrics may be nil.
	Logger     *slog.Logger
	Tracer     trace.TracerProvider
	Propagator propagation.TextMapPropagator
	Metrics    *telemetry.Metrics
}

// Server answers the requests for the shards that are open here. It is an http.Handler, to be mounted at Path.
type Server struct {
	bus      *bus.Bus
	signer   signer
	handlers map[string]Handler
	slots    chan struct{}
	maxBytes int
	log      *slog.Logger
	tel      instruments
	answered *prometheus.CounterVec

	mu   sync.Mutex // guards open; not held while a shard is opened or closed
	open map[shard.ID]*served
}

// served is a shard that is open.
type served struct {
	ctx    context.Context // of its handlers
	cancel context.CancelFunc
	sub    *bus.Subscription
	wg     sync.WaitGroup // of its handlers; Add only under Server.mu while the shard is in Server.open
}

// instruments are what both ends use for traces.
type instruments struct {
	tracer     trace.Tracer
	propagator propagation.TextMapPropagator
}

const tracerName = "github.com/heddle-im/heddle/pkg/fleet/rpc"

func newInstruments(tp trace.TracerProvider, p propagation.TextMapPropagator) instruments {
	if tp == nil {
		tp = noop.NewTracerProvider()
	}
	if p == nil {
		p = telemetry.Propagator()
	}
	return instruments{tracer: tp.Tracer(tracerName), propagator: p}
}

// NewServer makes a Server that serves no shard yet.
func NewServer(cfg ServerConfig) *Server {
	if cfg.MaxConcurrent == 0 {
		cfg.MaxConcurrent = 1024
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = DefaultMaxBytes
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Server{
		bus: cfg.Bus, signer: newSigner(cfg.Secret), handlers: cfg.Handlers, slots: make(chan struct{}, cfg.MaxConcurrent),
		maxBytes: cfg.MaxBytes, log: cfg.Logger, tel: newInstruments(cfg.Tracer, cfg.Propagator),
		answered: cfg.Metrics.CounterVec("rpc_answered_total", "Requests of other workers that were answered, by way and status.",
			"via", "status"),
		open: map[shard.ID]*served{},
	}
}

// Open begins to serve a shard: from now on this process owns it. It is called when the lease was taken and what the
// handlers need is loaded.
func (s *Server) Open(ctx context.Context, id shard.ID) error {
	sv := &served{}
	sv.ctx, sv.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.mu.Lock()
	if s.open[id] != nil {
		s.mu.Unlock()
		sv.cancel()
		return fmt.Errorf("serve shard %s: it is open already", id)
	}
	s.open[id] = sv // before the subscription, so that its first request finds it
	s.mu.Unlock()
	if s.bus == nil {
		return nil
	}
	sub, err := s.bus.Subscribe(ctx, subject(id, ">"), func(in *bus.Incoming) { s.incoming(id, in) })
	if err != nil {
		s.forget(id)
		sv.cancel()
		return fmt.Errorf("serve shard %s: %w", id, err)
	}
	sv.sub = sub
	return nil
}

func (s *Server) forget(id shard.ID) *served {
	s.mu.Lock()
	defer s.mu.Unlock()
	sv := s.open[id]
	delete(s.open, id)
	return sv
}

// Close ends serving a shard: no further request is taken, and those that run are waited for; when ctx ends they are
// told to end. It does nothing if the shard is not open. Open and Close of one shard must not overlap.
func (s *Server) Close(ctx context.Context, id shard.ID) {
	sv := s.forget(id)
	if sv == nil {
		return
	}
	defer sv.cancel()
	stop := context.AfterFunc(ctx, sv.cancel)
	defer stop()
	if sv.sub != nil {
		sv.sub.Stop()
	}
	sv.wg.Wait()
}

// Serves tells whether a shard is open here.
func (s *Server) Serves(id shard.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open[id] != nil
}

// enter registers a request with its shard; leave must be called after it.
func (s *Server) enter(id shard.ID) (sv *served, leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sv = s.open[id]; sv == nil {
		return nil, nil, ErrNotOwner
	}
	select {
	case s.slots <- struct{}{}:
	default:
		return nil, nil, fmt.Errorf("too many requests are under way: %w", ErrRetry)
	}
	sv.wg.Add(1)
	return sv, func() { <-s.slots; sv.wg.Done() }, nil
}

// Do runs a request here. ErrNotOwner says that the shard is not open.
func (s *Server) Do(ctx context.Context, r Request) (payload []byte, err error) {
	sv, leave, err := s.enter(r.Shard)
	if err != nil {
		return nil, err
	}
	defer leave()
	return s.handle(ctx, sv, r)
}

func (s *Server) handle(ctx context.Context, sv *served, r Request) (payload []byte, err error) {
	h := s.handlers[r.Method]
	if h == nil {
		return nil, fmt.Errorf("method %q is not known here", r.Method)
	}
	ctx, cancel := context.WithTimeout(ctx, maxTimeout)
	defer cancel()
	stop := context.AfterFunc(sv.ctx, cancel)
	defer stop()
	defer func() {
		if p := recover(); p != nil {
			s.log.ErrorContext(ctx, "rpc handler panicked", "method", r.Method, "panic", p)
			payload, err = nil, fmt.Errorf("handler of %s panicked: %v", r.Method, p)
		}
	}()
	payload, err = h(ctx, r)
	if err != nil && !final(err) && sv.ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", ErrNotOwner, err) // cut short because the shard is leaving
	}
	return payload, err
}

// incoming takes a request off NATS. It must not block: it runs on the subscription's goroutine.
func (s *Server) incoming(id shard.ID, in *bus.Incoming) {
	if !in.WantsReply() {
		return
	}
	begun := time.Now()
	sv, leave, err := s.enter(id)
	if err != nil {
		s.reply(in, toWire(nil, err))
		return
	}
	go func() { // Close waits for it
		defer leave()
		ctx := s.tel.propagator.Extract(sv.ctx, in.Header)
		var w wire.Request
		if err := s.decode(in.Data, &w); err != nil {
			s.reply(in, toWire(nil, err))
			return
		}
		s.reply(in, s.serve(ctx, sv, id, &w, begun))
	}()
}

func (s *Server) reply(in *bus.Incoming, resp *wire.Response) {
	s.answered.WithLabelValues("nats", resp.GetStatus().String()).Inc()
	b, err := s.marshal(resp)
	if err == nil {
		err = in.Respond(b, nil)
	}
	if err != nil { // the caller asks again, and finds what was done by its key
		s.log.Debug("rpc answer was not sent", "error", err)
	}
}

func (s *Server) marshal(resp *wire.Response) ([]byte, error) {
	b, err := proto.Marshal(resp)
	if err == nil && len(b) > s.maxBytes {
		err = fmt.Errorf("answer of %d bytes: %w", len(b), ErrTooLarge)
		b, _ = proto.Marshal(refused(mxerr.Internal(err)))
		s.log.Error("rpc answer cannot be carried", "error", err)
		return b, nil
	}
	return b, err
}

// serve runs a request that came from another worker at the time given.
func (s *Server) serve(ctx context.Context, sv *served, id shard.ID, w *wire.Request, begun time.Time) *wire.Response {
	if w.GetShard() != uint32(id) {
		return toWire(nil, ErrNotOwner)
	}
	left := time.Duration(w.GetTimeoutMs())*time.Millisecond - time.Since(begun)
	if left <= 0 {
		return toWire(nil, fmt.Errorf("the caller waits no longer: %w", ErrRetry))
	}
	ctx, cancel := context.WithTimeout(ctx, min(left, maxTimeout))
	defer cancel()
	ctx, span := s.tel.tracer.Start(ctx, "rpc "+w.GetMethod(), trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(attribute.Int("heddle.shard", int(id))))
	defer span.End()
	payload, err := s.handle(ctx, sv, Request{Shard: id, Method: w.GetMethod(), Key: w.GetKey(), Payload: w.GetPayload()})
	if err != nil && !final(err) {
		span.SetStatus(codes.Error, err.Error())
		if !errors.Is(err, ErrNotOwner) && !errors.Is(err, ErrRetry) && ctx.Err() == nil {
			s.log.ErrorContext(ctx, "rpc failed", "method", w.GetMethod(), "shard", int(id), "error", err)
		}
	}
	return toWire(payload, err)
}

func (s *Server) decode(data []byte, w *wire.Request) error {
	if len(data) > s.maxBytes {
		return mxerr.Internal(ErrTooLarge)
	}
	if err := proto.Unmarshal(data, w); err != nil {
		return fmt.Errorf("read a request: %w", err)
	}
	return nil
}

// ServeHTTP takes a request of another worker. Nothing is read from one that is not signed beyond what the
// signature covers, and nothing is done for it.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begun := time.Now()
	if r.Method != http.MethodPost {
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(s.maxBytes)))
	if err != nil {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		return
	}
	nonce := r.Header.Get(nonceHeader)
	if !s.signer.verify(asks, nonce, body, r.Header.Get(authHeader)) {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	resp := s.serveHTTP(r, body, begun)
	s.answered.WithLabelValues("http", resp.GetStatus().String()).Inc()
	b, err := s.marshal(resp)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	w.Header().Set(authHeader, s.signer.sign(answers, nonce, b))
	_, _ = w.Write(b) // if it does not arrive the caller asks again
}

func (s *Server) serveHTTP(r *http.Request, body []byte, begun time.Time) *wire.Response {
	var w wire.Request
	if err := s.decode(body, &w); err != nil {
		return toWire(nil, err)
	}
	if w.GetShard() > 255 {
		return toWire(nil, ErrNotOwner)
	}
	id := shard.ID(w.GetShard())
	sv, leave, err := s.enter(id)
	if err != nil {
		return toWire(nil, err)
	}
	defer leave()
	ctx := s.tel.propagator.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	return s.serve(ctx, sv, id, &w, begun)
}
