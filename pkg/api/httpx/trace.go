package httpx

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/heddle-im/heddle/pkg/route"
)

// tracing gives each request a span, by OpenTelemetry's conventions for HTTP servers but for the raw path, which names rooms and
// users. The library that does so for any server, otelhttp, wraps request and response, and works out attributes and metrics whether
// anybody records them or not: 35 allocations of each request's 67, and a twentieth of a master's processor time.
type tracing struct {
	tracer     trace.Tracer
	propagator propagation.TextMapPropagator
	internal   func(*http.Request) bool
	own, trust []trace.SpanStartOption
}

func newTracing(o *Options) *tracing {
	if o.TracerProvider == nil {
		return nil
	}
	t := &tracing{
		tracer: o.TracerProvider.Tracer("github.com/heddle-im/heddle/pkg/api/httpx"), propagator: o.Propagator, internal: o.Internal,
		trust: []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer)},
	}
	t.own = append([]trace.SpanStartOption{trace.WithNewRoot()}, t.trust...)
	return t
}

// start begins the span of a request: the trace of the worker that passed it on is continued, that of a stranger is linked to.
func (t *tracing) start(ctx context.Context, r *http.Request) (context.Context, trace.Span) {
	opts := t.trust
	switch {
	case t.internal == nil || !t.internal(r):
		opts = t.own
		if r.Header["Traceparent"] != nil && t.propagator != nil {
			theirs := trace.SpanContextFromContext(t.propagator.Extract(r.Context(), propagation.HeaderCarrier(r.Header)))
			if theirs.IsValid() {
				opts = append(opts[:len(opts):len(opts)], trace.WithLinks(trace.Link{SpanContext: theirs}))
			}
		}
	case t.propagator != nil:
		ctx = t.propagator.Extract(ctx, propagation.HeaderCarrier(r.Header))
	}
	ctx, span := t.tracer.Start(ctx, r.Method, opts...)
	if span.IsRecording() {
		span.SetAttributes(
			attribute.String("http.request.method", r.Method),
			attribute.String("network.protocol.version", r.Proto[min(len("HTTP/"), len(r.Proto)):]),
			attribute.String("user_agent.original", r.UserAgent()),
		)
	}
	return ctx, span
}

// name says in the request's span which endpoint it came to.
func (t *tracing) name(r *http.Request, row *route.Row) {
	if t == nil {
		return
	}
	if span := trace.SpanFromContext(r.Context()); span.IsRecording() {
		span.SetName(r.Method + " " + row.Name)
		span.SetAttributes(attribute.String("http.route", row.Paths[0]), attribute.String("heddle.route", row.Name))
	}
}

// answered says in the request's span how it was answered; 0 if that is still to come.
func (t *tracing) answered(r *http.Request, status int) {
	if t == nil || status == 0 {
		return
	}
	if span := trace.SpanFromContext(r.Context()); span.IsRecording() {
		span.SetAttributes(attribute.Int("http.response.status_code", status))
		if status >= http.StatusInternalServerError {
			span.SetStatus(codes.Error, "")
		}
	}
}
