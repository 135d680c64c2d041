package logdb

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// Replica decides which reads a replica answers: those for which it is known to have replayed the log as far as they ask for. The tables that say
// how far the log reaches are written with what they count, so a replica on which they say so has the rest, too. What it has once it keeps,
// so it is asked again only for what is newer. Everything else, and whatever fails there, is read from the primary. It is safe for concurrent use.
type Replica struct {
	db     *pg.DB
	shards int
	now    func(ctx context.Context) (shard.Heads, error)
	log    *slog.Logger

	mu      sync.Mutex // guards what follows; never held across I/O
	at      shard.Heads
	looking chan struct{} // closed when the look under way has ended; nil: none is
	failed  time.Time     // when the replica could last not be asked
}

// How long a replica is given.
const (
	catchUp    = 50 * time.Millisecond // to replay what was just written
	lookEvery  = 5 * time.Millisecond
	lookWithin = time.Second
	leftAlone  = 2 * time.Second // when it could not be asked
)

// NewReplica makes a Replica, also where no replica is configured: then everything is read from the primary. now tells how far the log reaches on
// the primary.
func NewReplica(db *pg.DB, shards int, now func(ctx context.Context) (shard.Heads, error), log *slog.Logger) *Replica {
	return &Replica{db: db, shards: shards, now: now, log: log}
}

// Read has read called with a context whose statements go to the replica if that has the log up to there. If that fails, read is called again, for
// the primary: it must do nothing but read.
func (r *Replica) Read(ctx context.Context, upto shard.Heads, read func(ctx context.Context) error) error {
	if !r.db.HasReplica() || !r.has(ctx, upto) {
		return read(ctx)
	}
	err := read(pg.OnReplica(ctx))
	var refusal *mxerr.Error
	if err == nil || errors.As(err, &refusal) || ctx.Err() != nil {
		return err
	}
	r.log.Debug("a read failed on the replica and is done on the primary", "error", err)
	return read(ctx)
}

// ReadNow is Read for what is committed when it is called.
func (r *Replica) ReadNow(ctx context.Context, read func(ctx context.Context) error) error {
	if !r.db.HasReplica() {
		return read(ctx)
	}
	upto, err := r.now(ctx)
	if err != nil {
		return err
	}
	return r.Read(ctx, upto, read)
}

// Away tells whether what is read with a context is read from the replica.
func (r *Replica) Away(ctx context.Context) bool { return pg.IsOnReplica(ctx) }

// has tells whether the replica has the log up to there, or has it very soon.
func (r *Replica) has(ctx context.Context, upto shard.Heads) bool {
	for end := time.Now().Add(catchUp); ; {
		covered, left := r.known(upto)
		switch {
		case covered:
			return true
		case left:
			return false
		}
		if !r.look(ctx) {
			return false
		}
		if covered, left = r.known(upto); covered || left || !time.Now().Before(end) {
			return covered
		}
		select {
		case <-time.After(lookEvery):
		case <-ctx.Done():
			return false
		}
	}
}

// known tells whether the replica is known to have the log up to there, and whether it is left alone.
func (r *Replica) known(upto shard.Heads) (covered, left bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	covered = r.at.Incarnation == upto.Incarnation && len(r.at.Positions) == len(upto.Positions) && r.at.Positions.AtLeast(upto.Positions)
	return covered, time.Since(r.failed) < leftAlone
}

// look reads how far the replica is, once for all who want to know. It tells whether ctx goes on.
func (r *Replica) look(ctx context.Context) bool {
	r.mu.Lock()
	if looking := r.looking; looking != nil {
		r.mu.Unlock()
		select {
		case <-looking:
			return true
		case <-ctx.Done():
			return false
		}
	}
	done := make(chan struct{})
	r.looking = done
	r.mu.Unlock()
	query, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookWithin) // others wait for it, too
	defer cancel()
	heads, err := ReadHeads(query, r.db.Reader, r.shards)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.failed = time.Now()
		r.log.Warn("the replica cannot be asked how far it is", "error", err)
	} else {
		r.at = heads
	}
	r.looking = nil
	close(done)
	return ctx.Err() == nil
}
