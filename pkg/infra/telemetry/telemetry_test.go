package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/heddle-im/heddle/pkg/infra/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func setup(t *testing.T, lc telemetry.LogConfig, c telemetry.Config) (*telemetry.Telemetry, *bytes.Buffer) {
	var out bytes.Buffer
	tel, err := telemetry.New(context.Background(), telemetry.Identity{Kind: "master", Instance: "m1", Version: "v1"}, lc, c, &out)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, tel.Close(context.Background())) })
	return tel, &out
}

func TestLogCarriesTheRequest(t *testing.T) {
	tel, out := setup(t, telemetry.LogConfig{}, telemetry.Config{})
	ctx := telemetry.WithRequestID(context.Background(), "r1")
	ctx, span := tel.Tracer.Tracer("t").Start(ctx, "s")
	defer span.End()
	tel.Log.DebugContext(ctx, "hidden")
	tel.Log.With("a", 1).InfoContext(ctx, "shown")
	var line map[string]any
	require.NoError(t, json.Unmarshal(out.Bytes(), &line))
	require.Equal(t, "shown", line["msg"])
	require.Equal(t, "r1", line["request_id"])
	require.Equal(t, span.SpanContext().TraceID().String(), line["trace_id"])
	require.Equal(t, "m1", line["instance"])
	require.EqualValues(t, 1, line["a"])
}

func TestLogFormatAndLevel(t *testing.T) {
	tel, out := setup(t, telemetry.LogConfig{Level: "debug", Format: "text"}, telemetry.Config{})
	tel.Log.Debug("shown")
	require.Contains(t, out.String(), "level=DEBUG msg=shown")
	require.NotContains(t, out.String(), "trace_id")
}

func TestPropagationWithoutExport(t *testing.T) {
	tel, _ := setup(t, telemetry.LogConfig{}, telemetry.Config{})
	in := propagation.MapCarrier{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
	ctx := tel.Propagator.Extract(context.Background(), in)
	ctx, span := tel.Tracer.Tracer("t").Start(ctx, "s")
	defer span.End()
	require.False(t, span.IsRecording())
	out := propagation.MapCarrier{}
	tel.Propagator.Inject(ctx, out)
	require.Contains(t, out["traceparent"], "0af7651916cd43dd8448eb211c80319c")
	require.Equal(t, span.SpanContext().TraceID(), trace.SpanContextFromContext(ctx).TraceID())
}

func TestRequestIDsArePropagated(t *testing.T) {
	tel, _ := setup(t, telemetry.LogConfig{}, telemetry.Config{})
	out := propagation.MapCarrier{}
	tel.Propagator.Inject(telemetry.WithRequestID(context.Background(), "a-1"), out)
	require.Equal(t, "a-1", telemetry.RequestID(tel.Propagator.Extract(context.Background(), out)))
	for _, bad := range []string{"", "a b", "a\nb", "é", strings.Repeat("a", 65)} {
		ctx := tel.Propagator.Extract(context.Background(), propagation.MapCarrier{telemetry.RequestIDHeader: bad})
		require.Empty(t, telemetry.RequestID(ctx), bad)
	}
	out = propagation.MapCarrier{}
	tel.Propagator.Inject(context.Background(), out)
	require.Empty(t, out)
}

func TestSpansAreExported(t *testing.T) {
	got := make(chan string, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case got <- r.URL.Path:
		default:
		}
	}))
	defer srv.Close()
	tel, _ := setup(t, telemetry.LogConfig{}, telemetry.Config{OTLPEndpoint: srv.URL})
	_, span := tel.Tracer.Tracer("t").Start(context.Background(), "s")
	require.True(t, span.IsRecording())
	span.End()
	require.NoError(t, tel.Close(context.Background()))
	require.Equal(t, "/v1/traces", <-got)
}

func TestConfigMistakes(t *testing.T) {
	two := 2.0
	for _, tc := range []struct {
		log  telemetry.LogConfig
		c    telemetry.Config
		want string
	}{
		{telemetry.LogConfig{Level: "loud"}, telemetry.Config{}, "log.level"},
		{telemetry.LogConfig{Format: "xml"}, telemetry.Config{}, "log.format"},
		{telemetry.LogConfig{}, telemetry.Config{OTLPEndpoint: "collector:4318"}, "telemetry.otlp_endpoint"},
		{telemetry.LogConfig{}, telemetry.Config{SampleRatio: &two}, "telemetry.sample_ratio"},
	} {
		_, err := telemetry.New(context.Background(), telemetry.Identity{}, tc.log, tc.c, nil)
		require.ErrorContains(t, err, tc.want)
	}
}

func TestMetricsRules(t *testing.T) {
	m := telemetry.NewMetrics(prometheus.NewRegistry())
	for _, f := range []func(){
		func() { m.Counter("heddle_x_total", "h") },
		func() { m.Counter("x", "h") },
		func() { m.Gauge("x_total", "h") },
		func() { m.Histogram("x_milliseconds", "h", nil) },
	} {
		require.Panics(t, f)
	}
	m.Counter("x_total", "h").Inc()
	m.Counter("x_total", "h").Inc()
	m.CounterVec("y_total", "h", "kind").WithLabelValues("a").Inc()
	m.Gauge("g", "h").Set(3)
	m.Histogram("h_seconds", "h", telemetry.LatencyBuckets()).Observe(1)
	m.GaugeFunc("f", "h", func() float64 { return 4 })

	rec := httptest.NewRecorder()
	m.Handler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, want := range []string{"heddle_x_total 2", `heddle_y_total{kind="a"} 1`, "heddle_g 3", "heddle_f 4", "heddle_h_seconds_count 1"} {
		require.Contains(t, rec.Body.String(), want)
	}

	var none *telemetry.Metrics
	none.Counter("x_total", "h").Inc()
	require.Nil(t, none.Registerer())
}

func TestAllOwnNamesHaveThePrefix(t *testing.T) {
	tel, _ := setup(t, telemetry.LogConfig{}, telemetry.Config{})
	families, err := tel.Metrics.Gatherer().Gather()
	require.NoError(t, err)
	for _, f := range families {
		// Dashboards for Go programs know the runtime's metrics by these names.
		if !strings.HasPrefix(f.GetName(), "go_") {
			require.True(t, strings.HasPrefix(f.GetName(), "heddle_"), f.GetName())
		}
	}
}
