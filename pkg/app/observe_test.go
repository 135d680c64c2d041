package app

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/heddle-im/heddle/pkg/service/farewell"
	"github.com/heddle-im/heddle/pkg/service/profile"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// spans takes what workers export.
type spans struct {
	*httptest.Server
	mu  sync.Mutex // guards all
	all []span
}

type span struct {
	*tracepb.Span
	instance string
}

func (s span) trace() string { return fmt.Sprintf("%x", s.TraceId) }

func (s span) String() string { return s.instance + ": " + s.Name }

func collectSpans(t *testing.T) *spans {
	s := &spans{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		var req tracepb.TracesData // which is encoded as the request is
		if err == nil {
			err = proto.Unmarshal(b, &req)
		}
		if err != nil {
			t.Error(err)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, res := range req.ResourceSpans {
			instance := ""
			for _, a := range res.Resource.Attributes {
				if a.Key == "service.instance.id" {
					instance = a.Value.GetStringValue()
				}
			}
			for _, scope := range res.ScopeSpans {
				for _, sp := range scope.Spans {
					s.all = append(s.all, span{sp, instance})
				}
			}
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// tree gives the spans of the trace in which a worker serves what is named; each but the first has a parent among them.
func (s *spans) tree(t *testing.T, instance, name string) (out []span) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	id := ""
	for _, sp := range s.all {
		if sp.instance == instance && sp.Name == name && sp.Kind == tracepb.Span_SPAN_KIND_SERVER {
			id = sp.trace()
		}
	}
	require.NotEmpty(t, id, "no span %s: %v", name, s.all)
	ids := map[string]bool{}
	for _, sp := range s.all {
		if sp.trace() == id {
			out = append(out, sp)
			ids[string(sp.SpanId)] = true
		}
	}
	roots := 0
	for _, sp := range out {
		if len(sp.ParentSpanId) == 0 {
			roots++
		} else {
			require.True(t, ids[string(sp.ParentSpanId)], "%s has lost its parent", sp)
		}
	}
	require.Equal(t, 1, roots, "one trace: %v", out)
	return out
}

func has(spans []span, instance, name string) bool {
	return slices.ContainsFunc(spans, func(sp span) bool { return sp.instance == instance && sp.Name == name })
}

// userOf gives a user whose shard is written by the master named.
func (f *fleet) userOf(owners []string, master string) string {
	shards := shard.NewMap(f.cfg.ServerName, f.cfg.Shards)
	for i := 0; ; i++ {
		name := fmt.Sprintf("user%d", i)
		if owners[shards.OfUser("@"+name+":"+f.cfg.ServerName)] == master {
			return name
		}
	}
}

const register = "/_matrix/client/v3/register"

func registration(name string) string {
	return `{"username":"` + name + `","password":"correct horse","auth":{"type":"m.login.dummy"}}`
}

// A request that one master takes and another does is one trace from HTTP over the request between them to the statements in
// the database, and so is one that is passed on to a worker of another kind; and the logs of all workers name it.
func TestARequestIsOneTrace(t *testing.T) {
	t.Parallel()
	f, got := newFleet(t), collectSpans(t)
	f.cfg.Telemetry.OTLPEndpoint = got.URL
	a, b := f.start(t, Master, "a"), f.start(t, Master, "b")
	c := f.start(t, Synchrotron, "c")
	owners := f.owns(t, "a", "b")

	name := f.userOf(owners, "b")
	status, user, header := a.call(t, "POST", register, "", registration(name))
	require.Equal(t, http.StatusOK, status, user)
	require.Eventually(t, func() bool { // until a knows that c serves reading
		status, _, _ = a.call(t, "GET", "/_matrix/client/v3/profile/@"+name+":example.org", "", "")
		return status == http.StatusOK
	}, patient, patient/100)
	for _, w := range []*worker{a, b, c} {
		w.stop(t) // which sends what is left
	}

	written := got.tree(t, "a", "POST register")
	require.True(t, has(written, "a", "POST register"), "%v", written)
	require.True(t, has(written, "b", "commit"), "%v", written)
	require.True(t, has(written, "b", "COMMIT"), "%v", written)
	require.True(t, has(written, "b", "rpc account.register"), "%v", written)

	read := got.tree(t, "c", "GET getUserProfile")
	require.True(t, has(read, "a", "GET getUserProfile"), "%v", read)
	require.True(t, has(read, "c", "GET getUserProfile"), "%v", read)
	require.True(t, has(read, "c", "SELECT"), "%v", read)

	lines := a.lines(t, written[0].trace())
	require.NotEmpty(t, lines)
	for _, line := range lines {
		require.Equal(t, header.Get("X-Request-Id"), line["request_id"], line)
	}
	require.NotEmpty(t, c.lines(t, read[0].trace()))
}

// What an operator must be able to see is among the metrics, and all names are ours.
func TestMetricsOfAWorker(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	w := f.start(t, AllInOne, "one")
	f.owns(t, "one")
	status, user, _ := w.call(t, "POST", register, "", registration("alice"))
	require.Equal(t, http.StatusOK, status, user)

	var families map[string]*dto.MetricFamily
	require.Eventually(t, func() bool { // until the background role is taken up
		families = w.metrics(t)
		told := map[string]bool{}
		for _, m := range families["heddle_log_lag_positions"].GetMetric() {
			for _, l := range m.GetLabel() {
				told[l.GetValue()] = true
			}
		}
		return told["worker"] && told[profile.Consumer] && told[farewell.Consumer]
	}, patient, patient/1000)
	for name := range families {
		if !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "promhttp_") {
			require.True(t, strings.HasPrefix(name, "heddle_"), name)
		}
	}
	for _, name := range []string{
		"heddle_build_info", "heddle_http_requests_total", "heddle_http_request_duration_seconds", "heddle_log_position",
		"heddle_log_lag_positions", "heddle_commit_batch_proposals", "heddle_commit_seconds", "heddle_leases_held",
		"heddle_memory_budget_used_bytes", "heddle_memory_budget_limit_bytes", "heddle_process_resident_memory_bytes",
		"heddle_pg_pool_connections", "heddle_bus_connected", "heddle_memory_budget_account_bytes", "heddle_cache_misses_total",
	} {
		require.NotNil(t, families[name], name)
	}
	followers := map[string]int{}
	for _, m := range families["heddle_log_position"].Metric {
		for _, l := range m.Label {
			if l.GetName() == "consumer" {
				followers[l.GetValue()]++
			}
		}
	}
	for _, consumer := range []string{"worker", profile.Consumer, farewell.Consumer} {
		require.Contains(t, followers, consumer)
	}
	for consumer, shards := range followers {
		require.Equal(t, f.cfg.Shards, shards, consumer)
	}
	require.Equal(t, uint64(1), families["heddle_commit_batch_proposals"].Metric[0].Histogram.GetSampleCount())
}

func (w *worker) metrics(t *testing.T) map[string]*dto.MetricFamily {
	t.Helper()
	res, err := http.Get("http://" + w.base.cfg.Listen.Ops + "/metrics")
	require.NoError(t, err)
	defer res.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(res.Body)
	require.NoError(t, err)
	return families
}
