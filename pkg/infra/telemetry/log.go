package telemetry

import (
	"context"
	"io"
	"log/slog"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

type requestIDKey struct{}

// WithRequestID returns a context whose log lines carry the request id.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestIDKey{}, id)
}

// RequestID returns the request id of ctx, empty if it has none.
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}

// RequestIDHeader carries a request's id, from proxies and between workers.
const RequestIDHeader = "X-Request-Id"

// ValidRequestID tells whether an id that came from outside may go into logs: 1 to 64 letters, digits, - and _.
func ValidRequestID(id string) bool {
	if id == "" || len(id) > 64 {
		return false
	}
	for i := range len(id) {
		c := id[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// requestIDs carries the request id wherever trace context goes, so that it is in the log lines of every worker that has a part in
// a request.
type requestIDs struct{}

func (requestIDs) Inject(ctx context.Context, c propagation.TextMapCarrier) {
	if id := RequestID(ctx); id != "" {
		c.Set(RequestIDHeader, id)
	}
}

func (requestIDs) Extract(ctx context.Context, c propagation.TextMapCarrier) context.Context {
	if id := c.Get(RequestIDHeader); ValidRequestID(id) {
		return WithRequestID(ctx, id)
	}
	return ctx
}

func (requestIDs) Fields() []string { return []string{RequestIDHeader} }

// NewLogger returns a logger on out. c must be valid.
func NewLogger(out io.Writer, c LogConfig) *slog.Logger {
	level := slog.LevelInfo
	if c.Level != "" {
		_ = level.UnmarshalText([]byte(c.Level)) // Validate has parsed it
	}
	opts := &slog.HandlerOptions{Level: level}
	var h slog.Handler = slog.NewJSONHandler(out, opts)
	if c.Format == "text" {
		h = slog.NewTextHandler(out, opts)
	}
	return slog.New(contextHandler{h})
}

// contextHandler adds what the context knows to each line.
type contextHandler struct{ slog.Handler }

func (h contextHandler) Handle(ctx context.Context, r slog.Record) error {
	if id := RequestID(ctx); id != "" {
		r.AddAttrs(slog.String("request_id", id))
	}
	if sc := trace.SpanContextFromContext(ctx); sc.HasTraceID() {
		r.AddAttrs(slog.String("trace_id", sc.TraceID().String()))
	}
	return h.Handler.Handle(ctx, r)
}

func (h contextHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return contextHandler{h.Handler.WithAttrs(attrs)}
}

func (h contextHandler) WithGroup(name string) slog.Handler {
	return contextHandler{h.Handler.WithGroup(name)}
}
