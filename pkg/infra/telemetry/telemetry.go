// Package telemetry sets up what a process says about itself: logs, traces and
// metrics.
//
// Guarantees: a log line within a request carries its request id and trace id;
// trace context is taken in and passed on whether or not spans are exported;
// all metrics of one Telemetry are in its own registry, so that several
// workers can live in one process; metric names begin with "heddle_".
//
// Concurrency: everything is safe for use by any number of goroutines.
//
// Any package of layer 3 and up, and infra, may import it, though most need
// only a *slog.Logger, a trace.TracerProvider or a *Metrics, which they are
// given. It is the only importer of the OpenTelemetry SDK.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// LogConfig is the key "log".
type LogConfig struct {
	// Level: debug, info, warn or error. Default info.
	Level string `koanf:"level"`
	// Format: json or text. Default json.
	Format string `koanf:"format"`
}

// Validate reports the first mistake, naming the key below "log".
func (c LogConfig) Validate() error {
	var l slog.Level
	if c.Level != "" && l.UnmarshalText([]byte(c.Level)) != nil {
		return fmt.Errorf("level: %q is not debug, info, warn or error", c.Level)
	}
	switch c.Format {
	case "", "json", "text":
		return nil
	}
	return fmt.Errorf("format: %q is not json or text", c.Format)
}

// Config is the key "telemetry".
type Config struct {
	// OTLPEndpoint is the URL of an OpenTelemetry collector that takes OTLP over
	// HTTP, http://collector:4318. Empty: no spans are exported.
	OTLPEndpoint string `koanf:"otlp_endpoint"`
	// SampleRatio is the share of traces begun here that are recorded; those
	// begun elsewhere keep their sender's choice. Default 1.
	SampleRatio *float64 `koanf:"sample_ratio"`
}

// Validate reports the first mistake, naming the key below "telemetry".
func (c Config) Validate() error {
	if c.OTLPEndpoint != "" {
		u, err := url.Parse(c.OTLPEndpoint)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return errors.New("otlp_endpoint: must be an http or https URL")
		}
	}
	if r := c.SampleRatio; r != nil && (*r < 0 || *r > 1) {
		return errors.New("sample_ratio: must be between 0 and 1")
	}
	return nil
}

// Identity says which process speaks.
type Identity struct {
	Kind     string // master, synchrotron, …
	Instance string
	Version  string
}

// Telemetry is the set-up of one worker.
type Telemetry struct {
	Log     *slog.Logger
	Tracer  trace.TracerProvider
	Metrics *Metrics
	// Propagator takes trace context (W3C) and the request id from a carrier and puts them into one.
	Propagator propagation.TextMapPropagator

	shutdown func(context.Context) error
}

const shutdownTimeout = 5 * time.Second

// New sets everything up; out is where the log goes, standard error if nil.
// The caller owns the result and must Close it.
func New(ctx context.Context, id Identity, lc LogConfig, c Config, out io.Writer) (*Telemetry, error) {
	if err := lc.Validate(); err != nil {
		return nil, fmt.Errorf("log.%w", err)
	}
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("telemetry.%w", err)
	}
	if out == nil {
		out = os.Stderr
	}
	log := NewLogger(out, lc).With("kind", id.Kind, "instance", id.Instance)
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(collectors.MetricsScheduler)),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{Namespace: "heddle"}),
	)
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "heddle_build_info", Help: "1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"kind": id.Kind, "version": id.Version},
	})
	info.Set(1)
	reg.MustRegister(info)
	t := &Telemetry{
		Log: log, Metrics: NewMetrics(reg),
		Propagator: Propagator(),
	}
	if err := t.trace(ctx, id, c); err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	return t, nil
}

func (t *Telemetry) trace(ctx context.Context, id Identity, c Config) error {
	ratio := 1.0
	if c.SampleRatio != nil {
		ratio = *c.SampleRatio
	}
	sampler := sdktrace.ParentBased(sdktrace.TraceIDRatioBased(ratio))
	opts := []sdktrace.TracerProviderOption{sdktrace.WithResource(resource.NewSchemaless(
		attribute.String("service.name", "heddle-"+id.Kind),
		attribute.String("service.instance.id", id.Instance),
		attribute.String("service.version", id.Version),
	))}
	if c.OTLPEndpoint == "" {
		// Spans get ids, which logs and other workers see, and are not recorded.
		sampler = sdktrace.NeverSample()
	} else {
		exporter, err := otlptrace.New(ctx, newCollector(tracesURL(c.OTLPEndpoint)))
		if err != nil {
			return fmt.Errorf("otlp_endpoint: %w", err)
		}
		opts = append(opts, sdktrace.WithBatcher(exporter))
	}
	p := sdktrace.NewTracerProvider(append(opts, sdktrace.WithSampler(sampler))...)
	t.Tracer = p
	t.shutdown = p.Shutdown
	return nil
}

// tracesURL adds the usual path to an endpoint that has none.
func tracesURL(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil || strings.Trim(u.Path, "/") != "" {
		return endpoint
	}
	return u.JoinPath("v1", "traces").String()
}

// Close sends the spans that are left. It is idempotent.
func (t *Telemetry) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, shutdownTimeout)
	defer cancel()
	if err := t.shutdown(ctx); err != nil {
		return fmt.Errorf("close telemetry: %w", err)
	}
	return nil
}

// Propagator carries trace context (W3C) and the request id.
func Propagator() propagation.TextMapPropagator {
	return propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}, requestIDs{})
}
