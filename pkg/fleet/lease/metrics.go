package lease

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/heddle-im/heddle/pkg/infra/telemetry"
)

// metrics of one Engine.
type metrics struct {
	changes *prometheus.CounterVec
	held    *prometheus.GaugeVec
}

func newMetrics(e *Engine, m *telemetry.Metrics) *metrics {
	m.GaugeFunc("lease_renewal_age_seconds", "Time since the last successful renewal was sent.", func() float64 {
		return (e.renewer.clock() - e.renewer.term.Load().sent).Seconds()
	})
	return &metrics{
		changes: m.CounterVec("lease_changes_total", "Leases taken, given away, lost, and refused by their owner, by role.",
			"role", "change"),
		held: m.GaugeVec("leases_held", "Leases that this process holds, by role.", "role"),
	}
}
