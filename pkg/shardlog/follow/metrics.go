package follow

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics gives a collector of the follower's position and lag. consumer names it among the followers of one process.
func (f *Follower) Metrics(consumer string) prometheus.Collector {
	labels := prometheus.Labels{"consumer": consumer}
	return &collector{
		f: f,
		position: prometheus.NewDesc("heddle_log_position", "Position up to which a consumer has been told a shard's log.",
			[]string{"shard"}, labels),
		lag: prometheus.NewDesc("heddle_log_lag_positions", "Positions by which a consumer is behind the newest heads known.",
			nil, labels),
		silence: prometheus.NewDesc("heddle_log_heads_age_seconds", "Time since the heads of the log were last read.",
			nil, labels),
		fills: prometheus.NewDesc("heddle_log_gap_fills_total", "Times that a gap in the stream was filled from the database.",
			nil, labels),
	}
}

// Metrics gives a collector of the consumer's position and lag, after Start.
func (d *Durable) Metrics() prometheus.Collector { return d.follower.Metrics(d.o.Name) }

type collector struct {
	f                             *Follower
	position, lag, silence, fills *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.position
	ch <- c.lag
	ch <- c.silence
	ch <- c.fills
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	for s, pos := range c.f.Positions().Positions {
		ch <- prometheus.MustNewConstMetric(c.position, prometheus.GaugeValue, float64(pos), strconv.Itoa(s))
	}
	lag, silence := c.f.Lag()
	ch <- prometheus.MustNewConstMetric(c.lag, prometheus.GaugeValue, float64(lag))
	ch <- prometheus.MustNewConstMetric(c.silence, prometheus.GaugeValue, silence.Seconds())
	ch <- prometheus.MustNewConstMetric(c.fills, prometheus.CounterValue, float64(c.f.fills.Load()))
}
