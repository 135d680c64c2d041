package telemetry

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// A collector that has no time is asked again, one that does not like what it is sent is not.
func TestCollectorIsAskedAgain(t *testing.T) {
	spans := []*tracepb.ResourceSpans{{SchemaUrl: "s"}}
	for _, tc := range []struct {
		name    string
		answers []int
		ok      bool
	}{
		{"at once", []int{200}, true},
		{"after a while", []int{503, 429, 502, 504, 202}, true},
		{"refused", []int{400}, false},
		{"another", []int{500}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var asked atomic.Int64
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				var got tracepb.TracesData
				b, err := io.ReadAll(r.Body)
				if err != nil || proto.Unmarshal(b, &got) != nil || len(got.ResourceSpans) != 1 || got.ResourceSpans[0].SchemaUrl != "s" ||
					r.Header.Get("Content-Type") != "application/x-protobuf" {
					t.Errorf("bad request: %q %v", b, err)
				}
				w.WriteHeader(tc.answers[asked.Add(1)-1])
			}))
			defer srv.Close()
			c := newCollector(srv.URL)
			c.pause = time.Millisecond
			err := c.UploadTraces(t.Context(), spans)
			require.Equal(t, tc.ok, err == nil, err)
			require.EqualValues(t, len(tc.answers), asked.Load())
			require.NoError(t, c.Stop(t.Context()))
		})
	}
}

// Nobody waits longer for a collector that is away than the context allows.
func TestCollectorIsAway(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	srv.Close()
	c := newCollector(srv.URL)
	c.pause = time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	require.Error(t, c.UploadTraces(ctx, []*tracepb.ResourceSpans{{}}))
	require.Error(t, ctx.Err(), "it was tried until then")
}
