package sender

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/heddle-im/heddle/pkg/infra/telemetry"
)

type metrics struct {
	transactions *prometheus.CounterVec
	dropped      *prometheus.CounterVec
	pdus, edus   prometheus.Counter
	disputed     prometheus.Counter
	behind       prometheus.Counter
	loads        prometheus.Counter
	took         prometheus.Histogram
}

func newMetrics(s *Sender, m *telemetry.Metrics) metrics {
	m.GaugeFunc("federation_destinations_waiting", "Other servers that failed and are left alone for a while.", func() float64 {
		n, _ := s.waitingNow()
		return float64(n)
	})
	m.GaugeFunc("federation_destinations_behind", "Other servers that are owed more than is kept in memory for them.", func() float64 {
		_, n := s.waitingNow()
		return float64(n)
	})
	return metrics{
		transactions: m.CounterVec("federation_sent_transactions_total", "Transactions sent to other servers, by outcome.", "outcome"),
		dropped: m.CounterVec("federation_dropped_total", "Parts of transactions that were not sent: refused by the other server, or too many soft ones.",
			"reason"),
		pdus:     m.Counter("federation_sent_pdus_total", "Events that other servers have acknowledged, once for each server."),
		edus:     m.Counter("federation_sent_edus_total", "EDUs, or parts of one, that other servers have acknowledged."),
		disputed: m.Counter("federation_disputed_pdus_total", "Events that other servers had something against."),
		behind:   m.Counter("federation_fell_behind_total", "Times that another server fell behind and is to catch up."),
		loads:    m.Counter("federation_room_loads_total", "Readings of which servers are in rooms."),
		took: m.Histogram("federation_send_seconds", "How long other servers took to answer a transaction.",
			[]float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}),
	}
}
