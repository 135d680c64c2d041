package telemetry

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// collector sends spans to an OpenTelemetry collector: OTLP over HTTP, in protobuf. The SDK's own client would do, but for its imports:
// gRPC, which is never called, and with it a package whose templates call methods by name, so that the linker keeps every method of
// every package; a third of each worker's program was that (docs/adr/0016).
type collector struct {
	url    string
	client *http.Client
	pause  time.Duration // before the first repetition
}

func newCollector(url string) *collector {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute}
	return &collector{url: url, client: &http.Client{Transport: transport}, pause: time.Second}
}

// Start does nothing: a connection is made when there is something to send.
func (c *collector) Start(context.Context) error { return nil }

// Stop closes the connections.
func (c *collector) Stop(context.Context) error {
	c.client.CloseIdleConnections()
	return nil
}

// UploadTraces sends spans, and sends them again while the collector asks for that (OTLP 1.x, "OTLP/HTTP Response") and ctx allows it.
func (c *collector) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	// ExportTraceServiceRequest has the one field that TracesData has, and is defined beside the stubs for gRPC.
	body, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: spans})
	if err != nil {
		return fmt.Errorf("encode the spans: %w", err)
	}
	for pause := c.pause; ; pause = min(2*pause, 30*time.Second) {
		again, err := c.post(ctx, body)
		if err == nil || again < 0 {
			return err
		}
		timer := time.NewTimer(max(again, pause))
		select {
		case <-ctx.Done():
			timer.Stop()
			return err
		case <-timer.C:
		}
	}
}

// post sends a body once. If it fails, again says how long the collector wants to be left alone, and is negative if it should not be
// sent again.
func (c *collector) post(ctx context.Context, body []byte) (again time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return -1, err
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	resp, err := c.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection is used again
	switch {
	case resp.StatusCode/100 == 2:
		return 0, nil
	case resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode == http.StatusBadGateway,
		resp.StatusCode == http.StatusServiceUnavailable, resp.StatusCode == http.StatusGatewayTimeout:
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		return time.Duration(min(max(seconds, 0), 60)) * time.Second, fmt.Errorf("the collector answers %s", resp.Status)
	}
	return -1, fmt.Errorf("the collector answers %s", resp.Status)
}
