package telemetry

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics makes metrics in one registry. Names are given without the prefix
// "heddle_", in base units with the unit in the name ("commit_batch_seconds"),
// counters ending in "_total"; labels must have few values: never a user, a
// room or a remote server. Asking twice for the same metric gives the same
// one. A name that breaks the rules panics, for it is known at compile time
// and the first test finds it. A nil *Metrics makes metrics that nobody sees.
type Metrics struct {
	reg *prometheus.Registry
}

// NewMetrics returns a maker of metrics in reg.
func NewMetrics(reg *prometheus.Registry) *Metrics { return &Metrics{reg: reg} }

const namePrefix = "heddle_"

func (m *Metrics) name(name string, counter bool) string {
	switch {
	case strings.HasPrefix(name, namePrefix):
		panic("metric " + name + ": the prefix is added")
	case counter != strings.HasSuffix(name, "_total"):
		panic("metric " + name + ": counters, and only they, end in _total")
	case strings.HasSuffix(strings.TrimSuffix(name, "_total"), "_ms"), strings.HasSuffix(name, "_milliseconds"):
		panic("metric " + name + ": base units, so seconds")
	}
	return namePrefix + name
}

// register returns c, or the same metric that was registered before.
func register[C prometheus.Collector](m *Metrics, c C) C {
	if m == nil {
		return c
	}
	err := m.reg.Register(c)
	var before prometheus.AlreadyRegisteredError
	if errors.As(err, &before) {
		if c, ok := before.ExistingCollector.(C); ok {
			return c
		}
	}
	if err != nil {
		panic(fmt.Sprintf("register metric: %v", err))
	}
	return c
}

// Counter makes a counter.
func (m *Metrics) Counter(name, help string) prometheus.Counter {
	return register(m, prometheus.NewCounter(prometheus.CounterOpts{Name: m.name(name, true), Help: help}))
}

// CounterVec makes a counter with labels.
func (m *Metrics) CounterVec(name, help string, labels ...string) *prometheus.CounterVec {
	return register(m, prometheus.NewCounterVec(prometheus.CounterOpts{Name: m.name(name, true), Help: help}, labels))
}

// Gauge makes a gauge.
func (m *Metrics) Gauge(name, help string) prometheus.Gauge {
	return register(m, prometheus.NewGauge(prometheus.GaugeOpts{Name: m.name(name, false), Help: help}))
}

// GaugeVec makes a gauge with labels.
func (m *Metrics) GaugeVec(name, help string, labels ...string) *prometheus.GaugeVec {
	return register(m, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: m.name(name, false), Help: help}, labels))
}

// GaugeFunc makes a gauge that is read when it is scraped.
func (m *Metrics) GaugeFunc(name, help string, f func() float64) {
	register(m, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: m.name(name, false), Help: help}, f))
}

// Histogram makes a histogram; see LatencyBuckets and SizeBuckets.
func (m *Metrics) Histogram(name, help string, buckets []float64) prometheus.Histogram {
	return register(m, prometheus.NewHistogram(prometheus.HistogramOpts{Name: m.name(name, false), Help: help, Buckets: buckets}))
}

// HistogramVec makes a histogram with labels.
func (m *Metrics) HistogramVec(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return register(m, prometheus.NewHistogramVec(
		prometheus.HistogramOpts{Name: m.name(name, false), Help: help, Buckets: buckets}, labels))
}

// Registerer is for what registers its own collectors; nil of a nil *Metrics.
func (m *Metrics) Registerer() prometheus.Registerer {
	if m == nil {
		return nil
	}
	return m.reg
}

// Gatherer reads the metrics, for tests.
func (m *Metrics) Gatherer() prometheus.Gatherer { return m.reg }

// Handler serves the metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.reg, promhttp.HandlerOpts{Registry: m.reg})
}

// LatencyBuckets are for durations in seconds, from 0.5 ms to 30 s.
func LatencyBuckets() []float64 {
	return []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}
}

// SizeBuckets are for sizes in bytes, from 256 B to 64 MiB.
func SizeBuckets() []float64 { return prometheus.ExponentialBuckets(256, 4, 10) }

// CountBuckets are for numbers of things, from 1 to 4096.
func CountBuckets() []float64 { return prometheus.ExponentialBuckets(1, 2, 13) }
