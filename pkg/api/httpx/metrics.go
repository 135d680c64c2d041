package httpx

import (
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count by the route's name: a bounded set, whatever is asked for.
type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	inFlight *prometheus.GaugeVec
	received *prometheus.CounterVec
	sent     *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	byRoute := []string{"route"}
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "heddle_http_requests_total", Help: "Requests answered, by route and status.",
		}, []string{"route", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "heddle_http_request_duration_seconds", Help: "Time to answer a request, its waiting included.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 30, 120},
		}, byRoute),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "heddle_http_requests_in_flight", Help: "Requests being answered.",
		}, byRoute),
		received: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "heddle_http_received_bytes_total", Help: "Bytes of request bodies read.",
		}, byRoute),
		sent: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "heddle_http_sent_bytes_total", Help: "Bytes of response bodies written.",
		}, byRoute),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.requests, m.duration, m.inFlight, m.received, m.sent} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register HTTP metrics: %w", err)
		}
	}
	return m, nil
}

// meter is the metrics of one route. They are made when the route is first asked for: an idle worker shows nothing.
type meter struct {
	get func() *series
}

type series struct {
	requests       *prometheus.CounterVec
	ok             prometheus.Counter
	duration       prometheus.Observer
	inFlight       prometheus.Gauge
	received, sent prometheus.Counter
}

func (m *metrics) of(name string) meter {
	return meter{sync.OnceValue(func() *series {
		requests := m.requests.MustCurryWith(prometheus.Labels{"route": name})
		return &series{
			requests: requests, ok: requests.WithLabelValues("200"),
			duration: m.duration.WithLabelValues(name), inFlight: m.inFlight.WithLabelValues(name),
			received: m.received.WithLabelValues(name), sent: m.sent.WithLabelValues(name),
		}
	})}
}

func (m *series) done(status int, took time.Duration, received, sent int64) {
	switch status {
	case 0, 200: // net/http answers 200 for a handler that wrote nothing
		m.ok.Inc()
	default:
		m.requests.WithLabelValues(strconv.Itoa(status)).Inc()
	}
	m.duration.Observe(took.Seconds())
	m.received.Add(float64(received))
	m.sent.Add(float64(sent))
}
