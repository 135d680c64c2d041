package e2ee

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/matrix/id"
)

const (
	// seenEvery is how long a worker says nothing more of a device that it has told of: what is shown of a device is no older than that.
	seenEvery = 5 * time.Minute
	// seenPause is how long what was seen is gathered, so that many devices share a transaction.
	seenPause = 15 * time.Second
	// seenParting is how long a worker that stops tries to tell what it has seen.
	seenParting = 500 * time.Millisecond
	// maxSeen is of how many devices a worker remembers that it has told. Of further ones it tells when it has forgotten some.
	maxSeen = 50_000
	// maxAgent bounds what is kept of how a client calls itself.
	maxAgent = 512
)

// LastSeen gathers when and from where devices are used, and has it stored in batches, off the path of requests. What it holds may be
// lost: the next request of the device says it again. It is safe for concurrent use.
type LastSeen struct {
	store func(ctx context.Context, list []Seen) error
	now   func() time.Time
	log   *slog.Logger
	pause time.Duration
	tasks *lifecycle.Tasks

	mu      sync.Mutex
	told    map[deviceName]int64 // when a device was noted last, in ms; guarded by mu
	waiting []Seen               // guarded by mu
}

type deviceName struct{ user, device string }

// NewLastSeen makes a LastSeen that tells by f. It is a service: it tells from Start to Stop, or until ctx ends.
func NewLastSeen(ctx context.Context, f *Front, now func() time.Time, log *slog.Logger) *LastSeen {
	return &LastSeen{
		store: f.NoteSeen, now: now, log: log, pause: seenPause, told: make(map[deviceName]int64),
		tasks: lifecycle.NewTasks(ctx),
	}
}

// Note takes in that a device was used now.
func (l *LastSeen) Note(user id.UserID, device id.DeviceID, addr netip.Addr, agent string) {
	if device == "" {
		return
	}
	k, at := deviceName{string(user), string(device)}, l.now().UnixMilli()
	l.mu.Lock()
	defer l.mu.Unlock()
	last, ok := l.told[k]
	if ok && at < last+seenEvery.Milliseconds() || !ok && len(l.told) >= maxSeen {
		return
	}
	l.told[k] = at
	ip := ""
	if addr.IsValid() {
		ip = addr.WithZone("").String()
	}
	agent = strings.ReplaceAll(strings.ToValidUTF8(agent[:min(len(agent), maxAgent)], "\uFFFD"), "\x00", "\uFFFD")
	l.waiting = append(l.waiting, Seen{UserID: k.user, DeviceID: k.device, IP: ip, UserAgent: agent, At: at})
}

// Start implements lifecycle.Service.
func (l *LastSeen) Start(context.Context) error {
	l.tasks.Every(l.pause, l.tell)
	return nil
}

// Stop implements lifecycle.Service. What waits is told, if it goes quickly.
func (l *LastSeen) Stop(ctx context.Context) error {
	err := l.tasks.StopWithin(ctx)
	short, cancel := context.WithTimeout(ctx, seenParting)
	defer cancel()
	l.tell(short)
	return err
}

// tell has stored what waits, and forgets of which devices it was told long ago.
func (l *LastSeen) tell(ctx context.Context) {
	old := l.now().Add(-seenEvery).UnixMilli()
	l.mu.Lock()
	list := l.waiting
	l.waiting = nil
	for k, at := range l.told {
		if at <= old {
			delete(l.told, k)
		}
	}
	l.mu.Unlock()
	if len(list) == 0 {
		return
	}
	if err := l.store(ctx, list); err != nil {
		l.log.Debug("when devices were last seen is not stored", "devices", len(list), "error", err)
		l.mu.Lock()
		for _, s := range list { // their next requests say it again
			delete(l.told, deviceName{s.UserID, s.DeviceID})
		}
		l.mu.Unlock()
	}
}

// NoteSeen stores when devices were last used.
func (f *Front) NoteSeen(ctx context.Context, list []Seen) error {
	return doInPieces(ctx, f, list, func(s *Seen) string { return s.UserID }, func(piece []Seen) Command { return &NoteSeen{Seen: piece} })
}
