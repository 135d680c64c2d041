// Package janitor removes in the background what has served its time: entries from the front of the log that every durable
// consumer has passed, the answers of commands that nobody asks for again, the oldest of what waits for other servers beyond bounds, and what
// other servers sent that nobody will ask for or take any more.
//
// Guarantees: it works in bounded pieces with pauses between them, so that it holds no lock for long; an entry that a durable
// consumer still needs stays, and so do the newest of each shard; only the holder of the role removes. What is due later in a round
// is not kept back by what fails earlier.
//
// One goroutine calls Run at a time. It may be imported by app. It knows the log by a small interface and no database.
package janitor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/infra/telemetry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// ErrNotHeld says that another holds the role now.
var ErrNotHeld = errors.New("the role is not held any more")

// Log is what is kept in order; *logdb.DB is one.
type Log interface {
	// Trim removes no more than most entries from the front of a shard's log, none of the newest keep.
	Trim(ctx context.Context, role shard.Role, s shard.ID, keep int64, most int) (removed int64, held bool, err error)
	// SweepDone forgets no more than most commands that were done longer ago than age.
	SweepDone(ctx context.Context, age time.Duration, most int) (int64, error)
}

// EDUs are what waits for other servers; *senderdb.DB is one.
type EDUs interface {
	// TrimEDUs deletes no more than most of what waits, in a shard, for servers for which more than keep wait, the oldest of it.
	TrimEDUs(ctx context.Context, s shard.ID, keep int64, most int) (int64, error)
}

// Staging is what other servers sent; *feddb.DB is one.
type Staging interface {
	// SweepTxns forgets no more than most transactions that were taken longer ago than age.
	SweepTxns(ctx context.Context, age time.Duration, most int) (int64, error)
	// SweepSets deletes no more than most sets of events, each as a whole, that nobody took for longer than age.
	SweepSets(ctx context.Context, age time.Duration, most int) (int64, error)
}

// Config says when what has served its time.
type Config struct {
	// Every is the time between rounds. Default 1 min.
	Every time.Duration
	// KeepEntries are the newest positions of each shard that stay although nobody needs them for sure: a follower that was cut off for
	// longer forgets all it knows, where it otherwise catches up. Default 50,000, which takes some 10 MB of each shard.
	KeepEntries int64
	// KeepCommands is how long a command's answer can be asked for. A client sends an unanswered message again when it is next online: that
	// it then is not there twice is worth a day. Default 24 h.
	KeepCommands time.Duration
	// KeepEDUs is how much waits for another server: one that is away for so long, or for good, is not owed more. Default 10,000.
	KeepEDUs int64
	// KeepTxns is for how long a transaction of another server is known when it comes again. What of it is most costly to take twice, its
	// events, is known by other means. Default 72 h.
	KeepTxns time.Duration
	// KeepSets is for how long events that were fetched may wait to be brought into their room. That takes seconds, but where who fetched them
	// was killed nobody ever does. Default 24 h.
	KeepSets time.Duration
	// EDURounds is in how many rounds that is looked at once: all that waits is counted. Default 30.
	EDURounds int
	// Piece is how many rows are removed by one statement. Default 2,000.
	Piece int
	// SetPiece is how many sets are removed by one statement; each may have as many events as a room's state. Default 10.
	SetPiece int
	// Pause is between two pieces. Default 20 ms.
	Pause time.Duration
}

func (c Config) withDefaults() Config {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.Every, time.Minute)
	def(&c.KeepCommands, 24*time.Hour)
	def(&c.KeepTxns, 72*time.Hour)
	def(&c.KeepSets, 24*time.Hour)
	def(&c.Pause, 20*time.Millisecond)
	if c.KeepEntries == 0 {
		c.KeepEntries = 50_000
	}
	if c.KeepEDUs == 0 {
		c.KeepEDUs = 10_000
	}
	if c.EDURounds == 0 {
		c.EDURounds = 30
	}
	if c.Piece == 0 {
		c.Piece = 2000
	}
	if c.SetPiece == 0 {
		c.SetPiece = 10
	}
	return c
}

// Janitor removes.
type Janitor struct {
	cfg     Config
	log     Log
	edus    EDUs
	staging Staging
	rounds  int
	shards  int
	removed *prometheus.CounterVec
	slog    *slog.Logger
}

// Options are what a Janitor needs. EDUs, Staging, Metrics and Log may be nil.
type Options struct {
	Store   Log
	EDUs    EDUs
	Staging Staging
	Shards  int
	Metrics *telemetry.Metrics
	Log     *slog.Logger
}

// New makes a Janitor.
func New(cfg Config, o Options) *Janitor {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Janitor{
		cfg: cfg.withDefaults(), log: o.Store, edus: o.EDUs, staging: o.Staging, shards: o.Shards, slog: o.Log,
		removed: o.Metrics.CounterVec("janitor_removed_rows_total", "Rows that had served their time and were removed.", "of"),
	}
}

// Run works until ctx ends or the role is lost.
func (j *Janitor) Run(ctx context.Context, role shard.Role) {
	for lifecycle.Sleep(ctx, j.cfg.Every) == nil {
		err := j.Round(ctx, role)
		switch {
		case err == nil, ctx.Err() != nil:
		case errors.Is(err, ErrNotHeld):
			return
		default:
			j.slog.Warn("janitor did not get everything done; the next round does", "error", err)
		}
	}
}

// Round removes everything that is due now.
func (j *Janitor) Round(ctx context.Context, role shard.Role) error {
	var errs []error
	for s := range j.shards {
		err := j.pieces(ctx, "log", j.cfg.Piece, func() (int64, error) {
			n, held, err := j.log.Trim(ctx, role, shard.ID(s), j.cfg.KeepEntries, j.cfg.Piece)
			if err == nil && !held {
				err = ErrNotHeld
			}
			return n, err
		})
		if errors.Is(err, ErrNotHeld) || ctx.Err() != nil {
			return err
		}
		errs = append(errs, err)
	}
	errs = append(errs, j.pieces(ctx, "done", j.cfg.Piece, func() (int64, error) {
		return j.log.SweepDone(ctx, j.cfg.KeepCommands, j.cfg.Piece)
	}))
	if j.edus != nil && j.rounds%j.cfg.EDURounds == 0 {
		for s := range j.shards {
			errs = append(errs, j.pieces(ctx, "fed_edu", j.cfg.Piece, func() (int64, error) {
				return j.edus.TrimEDUs(ctx, shard.ID(s), j.cfg.KeepEDUs, j.cfg.Piece)
			}))
		}
	}
	if j.staging != nil {
		errs = append(errs, j.pieces(ctx, "fed_txn", j.cfg.Piece, func() (int64, error) {
			return j.staging.SweepTxns(ctx, j.cfg.KeepTxns, j.cfg.Piece)
		}), j.pieces(ctx, "staged_set", j.cfg.SetPiece, func() (int64, error) {
			return j.staging.SweepSets(ctx, j.cfg.KeepSets, j.cfg.SetPiece)
		}))
	}
	j.rounds++
	return errors.Join(errs...)
}

// pieces removes one piece after the other until one was not full.
func (j *Janitor) pieces(ctx context.Context, of string, full int, remove func() (int64, error)) error {
	for {
		n, err := remove()
		if err != nil {
			return fmt.Errorf("remove rows of %s: %w", of, err)
		}
		j.removed.WithLabelValues(of).Add(float64(n))
		if n < int64(full) {
			return nil
		}
		if err := lifecycle.Sleep(ctx, j.cfg.Pause); err != nil {
			return err
		}
	}
}
