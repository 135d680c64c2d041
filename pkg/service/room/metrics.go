package room

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/heddle-im/heddle/pkg/infra/telemetry"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/stateres"
	"github.com/heddle-im/heddle/pkg/shardlog/command"
)

type hostMetrics struct {
	commands *prometheus.CounterVec
	loads    prometheus.Counter
	redone   prometheus.Counter
	resolves prometheus.Counter
	steps    prometheus.Counter
}

func newHostMetrics(m *telemetry.Metrics) hostMetrics {
	return hostMetrics{
		commands: m.CounterVec("room_commands_total", "Commands on rooms, by method and outcome.", "method", "outcome"),
		loads:    m.Counter("room_loads_total", "Rooms loaded from the database."),
		redone:   m.Counter("room_commands_redone_total", "Commands decided again because what they were built on failed."),
		resolves: m.Counter("room_state_resolutions_total", "Resolutions of the states of forks, over all rooms."),
		steps:    m.Counter("room_state_resolution_steps_total", "Steps that these took: visits to events and to what they are authorised by."),
	}
}

func (m *hostMetrics) resolved(res *stateres.Result) {
	m.resolves.Inc()
	m.steps.Add(float64(res.Steps))
}

func (m *hostMetrics) done(cmd Command, err error) {
	outcome := "done"
	var refused *mxerr.Error
	switch {
	case err == nil:
	case errors.As(err, &refused):
		outcome = "refused"
	case errors.Is(err, command.ErrNotOwner):
		outcome = "not_owner"
	default:
		outcome = "failed"
	}
	m.commands.WithLabelValues(cmd.Method(), outcome).Inc()
}
