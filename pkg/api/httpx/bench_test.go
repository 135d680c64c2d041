package httpx

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/heddle-im/heddle/pkg/infra/telemetry"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/route"
)

// BenchmarkRequest is what the edge takes of a request, beside its handler and the server.
func BenchmarkRequest(b *testing.B) {
	tel, err := telemetry.New(b.Context(), telemetry.Identity{Kind: "master"}, telemetry.LogConfig{Level: "error"}, telemetry.Config{}, nil)
	if err != nil {
		b.Fatal(err)
	}
	rt, err := New(Options{
		Kinds: route.Kinds(), TracerProvider: tel.Tracer, Propagator: tel.Propagator, Registerer: tel.Metrics.Registerer(),
		Handlers: Handlers{"sendMessage": func(w http.ResponseWriter, r *http.Request) error {
			if Var(r, "eventType") == "" {
				return mxerr.New(mxerr.InvalidParam, "no type")
			}
			return WriteEmpty(w)
		}},
	})
	if err != nil {
		b.Fatal(err)
	}
	req := httptest.NewRequest(http.MethodPut, "/_matrix/client/v3/rooms/!a:example.org/send/m.room.message/1", nil)
	req.Header.Set("User-Agent", "bench")
	w := &nothing{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		rt.ServeHTTP(w, req)
	}
	if w.status != http.StatusOK {
		b.Fatal(w.status)
	}
}

// nothing is a response that nobody reads.
type nothing struct {
	header http.Header
	status int
}

func (n *nothing) Header() http.Header         { return n.header }
func (n *nothing) WriteHeader(status int)      { n.status = status }
func (n *nothing) Write(b []byte) (int, error) { return len(b), nil }
