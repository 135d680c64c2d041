package commit

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	reg            prometheus.Registerer
	all            []prometheus.Collector
	batchProposals prometheus.Histogram
	commitSeconds  prometheus.Histogram
	publishSeconds prometheus.Histogram
	answerSeconds  prometheus.Histogram
	failures       *prometheus.CounterVec
	committed      prometheus.Counter
	unacknowledged prometheus.Counter
	unpublished    prometheus.Counter
	queue          prometheus.Gauge
	openShards     prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	seconds := prometheus.ExponentialBuckets(0.0005, 2, 14)
	m := &metrics{
		reg: reg,
		batchProposals: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "heddle_commit_batch_proposals", Help: "Proposals in a transaction.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 12),
		}),
		commitSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "heddle_commit_seconds", Help: "Duration of a transaction, committed or not.", Buckets: seconds,
		}),
		publishSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "heddle_commit_publish_seconds", Help: "From commit to the acknowledgement by the stream.", Buckets: seconds,
		}),
		answerSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "heddle_commit_answer_seconds", Help: "From submission to the answer.", Buckets: seconds,
		}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "heddle_commit_failures_total", Help: "Transactions that failed, by reason.",
		}, []string{"reason"}),
		committed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "heddle_commit_proposals_total", Help: "Proposals committed.",
		}),
		unacknowledged: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "heddle_commit_unacknowledged_total", Help: "Batches whose publication was not acknowledged in time.",
		}),
		unpublished: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "heddle_commit_unpublished_total", Help: "Batches that were not published because the stream did not take them.",
		}),
		queue: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "heddle_commit_queue", Help: "Proposals that wait for a transaction.",
		}),
		openShards: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "heddle_commit_open_shards", Help: "Shards that this process writes.",
		}),
	}
	m.all = []prometheus.Collector{
		m.batchProposals, m.commitSeconds, m.publishSeconds, m.answerSeconds, m.failures, m.committed, m.unacknowledged,
		m.unpublished, m.queue, m.openShards,
	}
	if reg != nil {
		reg.MustRegister(m.all...)
	}
	return m
}

func (m *metrics) unregister() {
	if m.reg == nil {
		return
	}
	for _, c := range m.all {
		m.reg.Unregister(c)
	}
}
