// Package profile carries a changed display name or avatar into the member events of the rooms that the user is in.
//
// It learns of changes from the log and from nowhere else: a [Spreader] is a consumer for follow.Durable, under a role that one
// worker holds at a time. So what was begun is gone on with after a restart, and by another worker. It is told at least
// once; a room whose member event is right already is left alone. A user's rooms and profile are read after the entry came, so that
// many changes of one profile cost one event a room where they come together.
//
// What it may take is bounded: so many rooms at once, and so many a second. A room that fails is tried again, and given up,
// with a log line, after [Config.GiveUp], so that one broken room does not hold up everybody's profiles.
//
// Its methods are called from the follower's goroutine. The package is imported by the composition root; it knows no other
// service and no HTTP.
package profile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/heddle-im/heddle/pkg/infra/telemetry"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// Consumer is the name under which the places in the log are kept.
const Consumer = "profile"

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

// Profiles tells what is shown of a user of this server. It is *account.Reader.
type Profiles interface {
	Shown(ctx context.Context, user id.UserID) (displayName, avatarURL string, err error)
}

// Memberships reads the rooms of a user. It is *roomdb.Reader.
type Memberships interface {
	Memberships(ctx context.Context, userID string) ([]roomdb.MembershipRow, error)
}

// SetProfile brings a profile into a room's member event, as room.SetProfile says.
type SetProfile func(ctx context.Context, room id.RoomID, user id.UserID, displayName, avatarURL string) error

// Options are what a Spreader needs. Metrics and Log may be nil.
type Options struct {
	Profiles Profiles
	Rooms    Memberships
	Set      SetProfile
	Metrics  *telemetry.Metrics
	Log      *slog.Logger
}

// Spreader is the consumer. It implements follow.Consumer.
type Spreader struct {
	cfg   Config
	o     Options
	pace  *rate.Limiter
	rooms *prometheus.CounterVec
}

// New makes a Spreader.
func New(cfg Config, o Options) *Spreader {
	cfg = cfg.withDefaults()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Spreader{
		cfg: cfg, o: o, pace: rate.NewLimiter(rate.Limit(cfg.PerSecond), cfg.Parallel),
		rooms: o.Metrics.CounterVec("profile_rooms_total", "Rooms to which a changed profile was carried.", "outcome"),
	}
}

// Filter says which entries are wanted. It is a follow.Filter.
func Filter(k entry.Kind, _ shard.Nid, _ []byte) bool { return k == entry.KindProfile }

// Apply implements follow.Consumer. It returns when the rooms of all users whose profile changed are done, and fails if the
// database cannot be read, or ctx ends.
func (s *Spreader) Apply(ctx context.Context, b follow.Batch) error {
	var users []id.UserID
	seen := map[string]bool{}
	for i := range b.Entries {
		e := &b.Entries[i]
		if e.Kind != entry.KindProfile || seen[e.Subject] {
			continue
		}
		body, err := entry.DecodeProfile(&e.Entry)
		if err != nil {
			return fmt.Errorf("spread profile: %w", err)
		}
		if body.Field == "displayname" || body.Field == "avatar_url" {
			seen[e.Subject] = true
			users = append(users, id.UserID(e.Subject))
		}
	}
	for _, u := range users {
		if err := s.spread(ctx, u); err != nil {
			return fmt.Errorf("spread profile of %s: %w", u, err)
		}
	}
	return nil
}

// job is one user's profile on its way.
type job struct {
	user                   id.UserID
	displayName, avatarURL string
}

func (s *Spreader) spread(ctx context.Context, user id.UserID) error {
	j := job{user: user}
	var err error
	if j.displayName, j.avatarURL, err = s.o.Profiles.Shown(ctx, user); err != nil {
		return err
	}
	rows, err := s.o.Rooms.Memberships(ctx, string(user))
	if err != nil {
		return err
	}
	var left []id.RoomID
	for i := range rows {
		if rows[i].Membership == roomdb.MembershipJoin {
			left = append(left, id.RoomID(rows[i].RoomID))
		}
	}
	pause, began := s.cfg.Retry, time.Now()
	for {
		if left, err = s.round(ctx, &j, left); err != nil || len(left) == 0 {
			return err
		}
		if time.Since(began) > s.cfg.GiveUp {
			s.rooms.WithLabelValues("given_up").Add(float64(len(left)))
			s.o.Log.Error("profile was not carried to some rooms", "user", user, "rooms", len(left), "first", left[0])
			return nil
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, 16*s.cfg.Retry)
	}
}

// round tries each room once, and gives those that are to be tried again.
func (s *Spreader) round(ctx context.Context, j *job, rooms []id.RoomID) ([]id.RoomID, error) {
	var (
		mu    sync.Mutex // guards again
		again []id.RoomID
		wg    sync.WaitGroup
	)
	slots := make(chan struct{}, s.cfg.Parallel)
	for _, r := range rooms {
		slots <- struct{}{} // comes free within Timeout
		if s.pace.Wait(ctx) != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			if !s.set(ctx, j, r) {
				mu.Lock()
				defer mu.Unlock()
				again = append(again, r)
			}
		})
	}
	wg.Wait()
	return again, ctx.Err()
}

// set brings the profile into one room; done is false if it is worth another try.
func (s *Spreader) set(ctx context.Context, j *job, r id.RoomID) (done bool) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	err := s.o.Set(ctx, r, j.user, j.displayName, j.avatarURL)
	var refused *mxerr.Error
	switch {
	case err == nil:
		s.rooms.WithLabelValues("done").Inc()
	case errors.As(err, &refused) && refused.HTTPStatus < 500:
		s.rooms.WithLabelValues("refused").Inc() // the room does not let its member speak: that is its right
		s.o.Log.Debug("room refuses a profile", "user", j.user, "room", r, "error", err)
	default:
		s.rooms.WithLabelValues("failed").Inc()
		s.o.Log.Warn("profile was not carried to a room yet", "user", j.user, "room", r, "error", err)
		return false
	}
	return true
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
