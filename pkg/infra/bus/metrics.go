package bus

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	disconnects prometheus.Counter
	errors      prometheus.Counter
	restarts    prometheus.Counter
	unregister  func()
}

func newMetrics(b *Bus, reg prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "heddle", Subsystem: "bus", Name: name, Help: help})
	}
	m := &metrics{
		disconnects: counter("disconnects_total", "Times the connection to NATS was lost."),
		errors:      counter("errors_total", "Errors outside any call: slow consumers, permissions."),
		restarts:    counter("consumer_restarts_total", "Times a stream consumer may have missed something and began anew."),
		unregister:  func() {},
	}
	if reg == nil {
		return m, nil
	}
	connected := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "heddle", Subsystem: "bus", Name: "connected", Help: "1 while connected to NATS.",
	}, func() float64 {
		if up, _ := b.Connected(); up {
			return 1
		}
		return 0
	})
	all := []prometheus.Collector{m.disconnects, m.errors, m.restarts, connected}
	for i, c := range all {
		if err := reg.Register(c); err != nil {
			for _, d := range all[:i] {
				reg.Unregister(d)
			}
			return nil, fmt.Errorf("register bus metrics: %w", err)
		}
	}
	m.unregister = func() {
		for _, c := range all {
			reg.Unregister(c)
		}
	}
	return m, nil
}
