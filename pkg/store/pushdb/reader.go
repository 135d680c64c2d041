package pushdb

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// Reader reads the rows of this package. It works on whatever it is given: a pool of the primary or of a replica, or a
// transaction. It is safe for concurrent use if what it was given is.
type Reader struct{ q *Queries }

// NewReader makes a Reader over a pool, connection or transaction.
func NewReader(db DBTX) *Reader { return &Reader{q: New(db)} }

func failed(what string, err error) error { return fmt.Errorf("read %s: %w", what, err) }

// Audience reads the users of this server who are joined to a room, and how many are joined of all servers.
func (r *Reader) Audience(ctx context.Context, room shard.Nid) (local []string, joined int, err error) {
	if local, err = r.q.ListAudience(ctx, int64(room)); err != nil {
		return nil, 0, failed("members", err)
	}
	n, err := r.q.CountJoined(ctx, int64(room))
	if err != nil {
		return nil, 0, failed("members", err)
	}
	return local, int(n), nil
}

// Classes reads the classes of those in a room who were ever of another than the first.
func (r *Reader) Classes(ctx context.Context, room shard.Nid) (map[string]Class, error) {
	rows, err := r.q.ListClasses(ctx, int64(room))
	if err != nil {
		return nil, failed("classes", err)
	}
	out := make(map[string]Class, len(rows))
	for _, g := range rows {
		out[g.UserID] = Class(g.Class)
	}
	return out, nil
}

// Last reads the running counts of a thread as they are now.
func (r *Reader) Last(ctx context.Context, room shard.Nid, thread string) (Running, error) {
	g, err := r.q.LastTally(ctx, LastTallyParams{RoomNid: int64(room), Thread: thread})
	if errors.Is(err, pgx.ErrNoRows) {
		return Running{}, nil
	}
	if err != nil {
		return Running{}, failed("running counts", err)
	}
	return Running{Count{g.AllNotify, g.AllHighlight}, Count{g.SomeNotify, g.SomeHighlight}}, nil
}

// Counted is what an event counts for.
type Counted struct {
	Thread     string
	Flags      Flags
	Exceptions map[string]Count
}

// Counted reads what an event at a place counts for, one that may be of one of the threads; ok is false if it is nothing, or was taken back.
func (r *Reader) Counted(ctx context.Context, room shard.Nid, ord int64, thread string) (c Counted, ok bool, err error) {
	gone, err := r.q.IsCorrected(ctx, IsCorrectedParams{RoomNid: int64(room), Ord: ord})
	if err != nil {
		return c, false, failed("correction", err)
	}
	if gone {
		return c, false, nil
	}
	rows, err := r.q.ListExceptionsAt(ctx, ListExceptionsAtParams{RoomNid: int64(room), Ord: ord})
	if err != nil {
		return c, false, failed("exceptions", err)
	}
	c.Thread = thread
	for _, g := range rows {
		if c.Exceptions == nil {
			c.Exceptions = make(map[string]Count, len(rows))
		}
		c.Thread = g.Thread
		c.Exceptions[g.UserID] = Count{int64(g.Notify), int64(g.Highlight)}
	}
	flags, err := r.q.GetTallyAt(ctx, GetTallyAtParams{RoomNid: int64(room), Thread: c.Thread, Ord: ord})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
	case err != nil:
		return c, false, failed("count", err)
	}
	c.Flags = Flags(flags)
	return c, c.Flags != 0 || len(c.Exceptions) > 0, nil
}
