package lease

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of one Engine.
type metrics struct {
	reg     prometheus.Registerer
	changes *prometheus.CounterVec
	held    *prometheus.GaugeVec
	age     prometheus.GaugeFunc
}

func newMetrics(e *Engine, reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		reg: reg,
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "heddle_lease_changes_total", Help: "Leases taken, given away, lost, and that could not be opened, by role.",
		}, []string{"role", "change"}),
		held: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "heddle_leases_held", Help: "Leases that this process holds, by role.",
		}, []string{"role"}),
		age: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "heddle_lease_renewal_age_seconds", Help: "Time since the last successful renewal was sent.",
		}, func() float64 { return (e.renewer.clock() - e.renewer.term.Load().sent).Seconds() }),
	}
	if reg == nil {
		return m, nil
	}
	for i, c := range m.all() {
		if err := reg.Register(c); err != nil {
			for _, c := range m.all()[:i] {
				reg.Unregister(c)
			}
			return nil, fmt.Errorf("register lease metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.changes, m.held, m.age}
}

func (m *metrics) unregister() {
	if m.reg == nil {
		return
	}
	for _, c := range m.all() {
		m.reg.Unregister(c)
	}
}
