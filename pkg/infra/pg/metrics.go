package pg

import (
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// poolCollector reads the pools' own counters when it is scraped.
type poolCollector struct {
	pools    map[string]*pgxpool.Pool
	conns    *prometheus.Desc
	max      *prometheus.Desc
	acquires *prometheus.Desc
	waits    *prometheus.Desc
	waited   *prometheus.Desc
	canceled *prometheus.Desc
}

func newPoolCollector(db *DB) *poolCollector {
	pools := map[string]*pgxpool.Pool{"primary": db.Primary}
	if db.HasReplica() {
		pools["reader"] = db.Reader
	}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("heddle_pg_pool_"+name, help, append([]string{"pool"}, labels...), nil)
	}
	return &poolCollector{
		pools:    pools,
		conns:    desc("connections", "Connections by state.", "state"),
		max:      desc("connections_max", "Most connections the pool may open."),
		acquires: desc("acquires_total", "Connections taken from the pool."),
		waits:    desc("waits_total", "Acquisitions that found no idle connection."),
		waited:   desc("wait_seconds_total", "Time spent taking connections from the pool."),
		canceled: desc("acquires_canceled_total", "Acquisitions given up by their caller."),
	}
}

func (c *poolCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.conns, c.max, c.acquires, c.waits, c.waited, c.canceled} {
		ch <- d
	}
}

func (c *poolCollector) Collect(ch chan<- prometheus.Metric) {
	for name, pool := range c.pools {
		s := pool.Stat()
		gauge := func(d *prometheus.Desc, v float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, append([]string{name}, labels...)...)
		}
		counter := func(d *prometheus.Desc, v float64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, name)
		}
		gauge(c.conns, float64(s.AcquiredConns()), "acquired")
		gauge(c.conns, float64(s.IdleConns()), "idle")
		gauge(c.conns, float64(s.ConstructingConns()), "connecting")
		gauge(c.max, float64(s.MaxConns()))
		counter(c.acquires, float64(s.AcquireCount()))
		counter(c.waits, float64(s.EmptyAcquireCount()))
		counter(c.waited, s.AcquireDuration().Seconds())
		counter(c.canceled, float64(s.CanceledAcquireCount()))
	}
}
