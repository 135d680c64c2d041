package app

import (
	"context"
	"encoding/json"
	"runtime/metrics"
	"sync"
	"syscall"
	"time"

	"github.com/heddle-im/heddle/pkg/fleet/members"
	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/store/leasedb"
)

// status gathers what a worker says of itself with each renewal. Readiness is looked at by a goroutine of its own, since a
// check may wait and a renewal may not.
type status struct {
	b *base

	mu       sync.Mutex // guards what follows
	notReady bool
	log      *follow.Follower // nil until there is one
}

func newStatus(b *base) *status { return &status{b: b, notReady: true} }

// follow makes the status tell how far the log was followed.
func (s *status) follow(f *follow.Follower) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = f
}

// watch looks at the readiness until ctx ends.
func (s *status) watch(ctx context.Context) {
	t := time.NewTicker(500 * time.Millisecond)
	defer t.Stop()
	for {
		check, cancel := context.WithTimeout(ctx, 2*time.Second)
		bad := len(s.b.ready.Ready(check)) > 0
		cancel()
		s.mu.Lock()
		changed := s.notReady != bad
		s.notReady = bad
		s.mu.Unlock()
		if changed {
			s.b.renewer.Kick()
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// now is asked by the renewer and does not block.
func (s *status) now() leasedb.Status {
	up, _ := s.b.bus.Connected()
	d := members.Status{Memory: memory(), CPU: cpu()}
	s.mu.Lock()
	d.NotReady = s.notReady
	if s.log != nil {
		d.Positions = s.log.Positions().Positions
		d.Lag, _ = s.log.Lag()
	}
	s.mu.Unlock()
	detail, err := json.Marshal(d)
	if err != nil { // the renewal then fails with it, and the worker becomes unready
		detail = json.RawMessage(`"not encoded"`)
		s.b.log.Error("this worker's status was not encoded", "error", err)
	}
	return leasedb.Status{NATS: up, Detail: detail}
}

// memory is what the runtime holds from the system, in bytes.
func memory() int64 {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64()) - int64(s[1].Value.Uint64())
}

// cpu is the time that the process has used, in seconds.
func cpu() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
}
