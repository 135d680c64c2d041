package push

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/heddle-im/heddle/pkg/infra/telemetry"
)

type metrics struct {
	sent     *prometheus.CounterVec
	rejected prometheus.Counter
	behind   prometheus.Counter
	took     prometheus.Histogram
}

func newMetrics(s *Sender, m *telemetry.Metrics) metrics {
	m.GaugeFunc("push_pushers_behind", "Pushers that are owed notifications, which their gateway did not take.", func() float64 {
		s.mu.Lock()
		t := s.term
		s.mu.Unlock()
		if t == nil {
			return 0
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		return float64(len(t.owed))
	})
	return metrics{
		sent:     m.CounterVec("push_requests_total", "Requests to push gateways, by outcome.", "outcome"),
		rejected: m.Counter("push_rejected_pushers_total", "Pushers that were removed because their gateway did not know their key any more."),
		behind:   m.Counter("push_fell_behind_total", "Times that a pusher fell behind and is to catch up."),
		took: m.Histogram("push_request_seconds", "How long push gateways took to answer.",
			[]float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20}),
	}
}
