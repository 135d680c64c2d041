package pg

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
)

// QueryCounter counts the statements sent through the pools that it is given
// to (Options.Counter): queries, each query of a batch, and COPY; BEGIN and
// COMMIT count too. With it a test asserts that no query was made.
type QueryCounter struct {
	n atomic.Int64

	mu   sync.Mutex // guards last
	last []string   // the latest statements, to show in a failing test
}

const keepStatements = 64

type tallyKey struct{}

// Tally counts the statements made with one context and those derived from it.
type Tally struct{ n, rows atomic.Int64 }

// Count is the number of statements so far.
func (t *Tally) Count() int64 { return t.n.Load() }

// Rows is the number of rows that the statements so far gave or changed.
func (t *Tally) Rows() int64 { return t.rows.Load() }

// NewQueryCounter returns a counter at zero.
func NewQueryCounter() *QueryCounter { return &QueryCounter{} }

// Count is the number of statements so far.
func (c *QueryCounter) Count() int64 { return c.n.Load() }

// Reset sets the count to zero and forgets the statements.
func (c *QueryCounter) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n.Store(0)
	c.last = nil
}

// Statements returns the latest statements, oldest first, at most 64.
func (c *QueryCounter) Statements() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.last...)
}

// WithTally returns a context whose statements are counted apart from those of
// the background work that goes on beside it. It needs a pool with a counter.
func WithTally(ctx context.Context) (context.Context, *Tally) {
	t := &Tally{}
	return context.WithValue(ctx, tallyKey{}, t), t
}

func (c *QueryCounter) count(ctx context.Context, sql string) {
	if t, ok := ctx.Value(tallyKey{}).(*Tally); ok {
		t.n.Add(1)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n.Add(1)
	if len(c.last) == keepStatements {
		c.last = append(c.last[:0], c.last[1:]...)
	}
	c.last = append(c.last, sql)
}

// TraceQueryStart implements pgx.QueryTracer.
func (c *QueryCounter) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	c.count(ctx, d.SQL)
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (c *QueryCounter) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryEndData) {
	if t, ok := ctx.Value(tallyKey{}).(*Tally); ok {
		t.rows.Add(d.CommandTag.RowsAffected())
	}
}

// TraceBatchStart implements pgx.BatchTracer.
func (c *QueryCounter) TraceBatchStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceBatchStartData) context.Context {
	for _, q := range d.Batch.QueuedQueries {
		c.count(ctx, q.SQL)
	}
	return ctx
}

// TraceBatchQuery implements pgx.BatchTracer.
func (c *QueryCounter) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

// TraceBatchEnd implements pgx.BatchTracer.
func (c *QueryCounter) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

// TraceCopyFromStart implements pgx.CopyFromTracer.
func (c *QueryCounter) TraceCopyFromStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceCopyFromStartData) context.Context {
	c.count(ctx, "copy "+d.TableName.Sanitize())
	return ctx
}

// TraceCopyFromEnd implements pgx.CopyFromTracer.
func (c *QueryCounter) TraceCopyFromEnd(context.Context, *pgx.Conn, pgx.TraceCopyFromEndData) {}
