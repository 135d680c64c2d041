package room

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/heddle-im/heddle/pkg/infra/telemetry"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
)

type hostMetrics struct {
	commands *prometheus.CounterVec
	loads    prometheus.Counter
	redone   prometheus.Counter
}

func newHostMetrics(m *telemetry.Metrics) hostMetrics {
	return hostMetrics{
		commands: m.CounterVec("room_commands_total", "Commands on rooms, by method and outcome.", "method", "outcome"),
		loads:    m.Counter("room_loads_total", "Rooms loaded from the database."),
		redone:   m.Counter("room_commands_redone_total", "Commands decided again because what they were built on failed."),
	}
}

func (m *hostMetrics) done(cmd Command, err error) {
	outcome := "done"
	var refused *mxerr.Error
	switch {
	case err == nil:
	case errors.As(err, &refused):
		outcome = "refused"
	case errors.Is(err, ErrNotOwner):
		outcome = "not_owner"
	default:
		outcome = "failed"
	}
	m.commands.WithLabelValues(cmd.Method(), outcome).Inc()
}
