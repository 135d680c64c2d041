// Package roomwalk does something in each room of a user, for what changed about the user and must be carried there: a profile, or
// that the user has gone.
//
// What it may take is bounded: so many rooms at once, and so many a second, for all walks of a [Walker] together. A room that fails
// is tried again, and given up, with a log line, after [Config.GiveUp], so that one broken room does not hold up everybody. A walk
// that was interrupted is begun anew by whoever asked for it; what is done in a room must bear to be done twice.
//
// A Walker is safe for concurrent use. The package is imported by the consumers of the log that walk, and by the composition root.
package roomwalk

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/infra/telemetry"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// Config sets the paces. The zero value of a field means its default.
type Config struct {
	// Parallel is how many rooms are written to at once. Default 8.
	Parallel int
	// PerSecond is how many rooms are written to a second. Default 100.
	PerSecond float64
	// Timeout bounds one attempt on one room. Default 10 s.
	Timeout time.Duration
	// Retry is the pause before the rooms that failed are tried again; it doubles up to 16 times this. Default 500 ms.
	Retry time.Duration
	// GiveUp is when a room that still fails is left behind. Default 15 min.
	GiveUp time.Duration
}

func (c Config) withDefaults() Config {
	if c.Parallel == 0 {
		c.Parallel = 8
	}
	if c.PerSecond == 0 {
		c.PerSecond = 100
	}
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	if c.Retry == 0 {
		c.Retry = 500 * time.Millisecond
	}
	if c.GiveUp == 0 {
		c.GiveUp = 15 * time.Minute
	}
	return c
}

// Memberships reads the rooms of a user. It is *roomdb.Reader.
type Memberships interface {
	Memberships(ctx context.Context, userID string) ([]roomdb.MembershipRow, error)
}

// Walker walks. See the package's comment.
type Walker struct {
	cfg    Config
	rooms  Memberships
	log    *slog.Logger
	pace   *rate.Limiter
	walked *prometheus.CounterVec
}

// New makes a Walker. m and log may be nil.
func New(cfg Config, rooms Memberships, m *telemetry.Metrics, log *slog.Logger) *Walker {
	cfg = cfg.withDefaults()
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Walker{
		cfg: cfg, rooms: rooms, log: log, pace: rate.NewLimiter(rate.Limit(cfg.PerSecond), cfg.Parallel),
		walked: m.CounterVec("rooms_walked_total", "Rooms to which something of a user was carried, by what it was.", "task", "outcome"),
	}
}

// Task is what is done in each room.
type Task struct {
	// Name is for metrics and the log: "profile", "farewell".
	Name string
	// Wants says in which of the user's rooms.
	Wants func(membership roomdb.Membership) bool
	// Do does it. A refusal, an *mxerr.Error below 500, is final.
	Do func(ctx context.Context, room id.RoomID) error
}

// Walk does the task in the rooms that the user has now. It returns when all are done or given up, and fails if the rooms cannot be
// read, or ctx ends.
func (w *Walker) Walk(ctx context.Context, user id.UserID, t Task) error {
	rows, err := w.rooms.Memberships(ctx, string(user))
	if err != nil {
		return err
	}
	var left []id.RoomID
	for i := range rows {
		if t.Wants(rows[i].Membership) {
			left = append(left, id.RoomID(rows[i].RoomID))
		}
	}
	pause, began := w.cfg.Retry, time.Now()
	for {
		if left, err = w.round(ctx, user, &t, left); err != nil || len(left) == 0 {
			return err
		}
		if time.Since(began) > w.cfg.GiveUp {
			w.walked.WithLabelValues(t.Name, "given_up").Add(float64(len(left)))
			w.log.Error("some rooms of a user are given up", "task", t.Name, "user", user, "rooms", len(left), "first", left[0])
			return nil
		}
		if err := lifecycle.Sleep(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, 16*w.cfg.Retry)
	}
}

// round tries each room once, and gives those that are to be tried again.
func (w *Walker) round(ctx context.Context, user id.UserID, t *Task, rooms []id.RoomID) ([]id.RoomID, error) {
	var (
		mu    sync.Mutex // guards again
		again []id.RoomID
		wg    sync.WaitGroup
	)
	slots := make(chan struct{}, w.cfg.Parallel)
	for _, r := range rooms {
		slots <- struct{}{} // comes free within Timeout
		if w.pace.Wait(ctx) != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			if !w.try(ctx, user, t, r) {
				mu.Lock()
				defer mu.Unlock()
				again = append(again, r)
			}
		})
	}
	wg.Wait()
	return again, ctx.Err()
}

// try does the task in one room; done is false if it is worth another try.
func (w *Walker) try(ctx context.Context, user id.UserID, t *Task, r id.RoomID) (done bool) {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.Timeout)
	defer cancel()
	err := t.Do(ctx, r)
	var refused *mxerr.Error
	switch {
	case err == nil:
		w.walked.WithLabelValues(t.Name, "done").Inc()
	case errors.As(err, &refused) && refused.HTTPStatus < 500:
		w.walked.WithLabelValues(t.Name, "refused").Inc() // the room does not let its member speak: that is its right
		w.log.Debug("room refuses", "task", t.Name, "user", user, "room", r, "error", err)
	default:
		w.walked.WithLabelValues(t.Name, "failed").Inc()
		w.log.Warn("room is to be tried again", "task", t.Name, "user", user, "room", r, "error", err)
		return false
	}
	return true
}
