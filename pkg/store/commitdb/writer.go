package commitdb

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/shardlog/commit"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/leasedb"
	"github.com/heddle-im/heddle/pkg/store/logdb"
)

var (
	//go:embed sql/fence.sql
	fenceSQL string
	//go:embed sql/end_session.sql
	endSessionSQL string
	//go:embed sql/transaction_status.sql
	transactionStatusSQL string
)

// The writer's session gives up sooner than others: while it hangs, its shards hang with it.
const (
	statementTimeout = 10 * time.Second
	idleTimeout      = 5 * time.Second
	// clientTimeout bounds a round trip from this side, where the server's own timeouts cannot be heard.
	clientTimeout = 12 * time.Second
	closeTimeout  = time.Second
)

// Options are what a Writer needs. Log may be nil.
type Options struct {
	// Connect opens a session of its own on the primary, not through a pooler.
	Connect func(ctx context.Context) (*pgx.Conn, error)
	Shards  int
	// Holder gives what stands as holder on the lease rows that are ours.
	Holder func() string
	Log    *slog.Logger
}

// Writer is the writing session of a master. It implements commit.Store.
type Writer struct {
	o Options

	mu          sync.Mutex // guards what follows; held while a transaction runs
	conn        *pgx.Conn
	session     leasedb.Session // of conn, or of the one before
	incarnation shard.Incarnation
	tables      *tables
	// settling is the transaction whose outcome is unknown: its id, and which of its shards have their new epoch already.
	settling *settlement
	xid      string
}

type settlement struct {
	xid    string
	raised map[shard.ID]shard.Epoch
}

// NewWriter makes a writer. It connects when it is first used.
func NewWriter(o Options) *Writer {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Writer{o: o, tables: newTables()}
}

// Close ends the session.
func (w *Writer) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.disconnect()
}

// Session gives the session that writes, connecting if there is none: what a lease row must name before a shard is written.
func (w *Writer) Session(ctx context.Context) (leasedb.Session, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.connect(ctx); err != nil {
		return leasedb.Session{}, err
	}
	return w.session, nil
}

func (w *Writer) disconnect() {
	if w.conn == nil {
		return
	}
	//nolint:forbidigo // saying good-bye has to be tried whatever became of the caller
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = w.conn.Close(ctx) // the server ends the session by itself too
	w.conn = nil
}

// connect makes sure of a session that stands on the lease rows, in a history that has its incarnation.
func (w *Writer) connect(ctx context.Context) error {
	if w.conn != nil && !w.conn.IsClosed() {
		return nil
	}
	w.conn = nil
	conn, err := w.o.Connect(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", commit.ErrUnavailable, err)
	}
	w.conn = conn
	if err := w.prepare(ctx); err != nil {
		w.disconnect()
		return fmt.Errorf("%w: prepare the writer's session: %w", commit.ErrUnavailable, err)
	}
	w.o.Log.Info("writer's session", "pid", w.session.PID, "incarnation", w.incarnation.Number)
	return nil
}

func (w *Writer) prepare(ctx context.Context) error {
	_, err := w.conn.Exec(ctx, fmt.Sprintf("SET statement_timeout = %d; SET idle_in_transaction_session_timeout = %d",
		statementTimeout.Milliseconds(), idleTimeout.Milliseconds()), pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return err
	}
	// What the session before left behind holds fences, for which all that follows would wait.
	if w.session.PID != 0 {
		if _, err := w.conn.Exec(ctx, endSessionSQL, w.session.PID, timestamptz(w.session.Started)); err != nil {
			return fmt.Errorf("end the session before: %w", err)
		}
	}
	session, err := leasedb.SessionOf(ctx, w.conn)
	if err != nil {
		return err
	}
	w.session = session
	incarnation, err := logdb.OpenIncarnation(ctx, w.conn, w.o.Shards)
	if err != nil {
		return err
	}
	w.incarnation = incarnation
	return w.bind(ctx)
}

func (w *Writer) bind(ctx context.Context) error {
	err := leasedb.New(w.conn).BindShards(ctx, leasedb.BindShardsParams{
		Pid: w.session.PID, Started: timestamptz(w.session.Started), Holder: w.o.Holder(),
	})
	if err != nil {
		return fmt.Errorf("put the session on the lease rows: %w", err)
	}
	return nil
}

func timestamptz(t time.Time) pgtype.Timestamptz { return pgtype.Timestamptz{Time: t, Valid: true} }

// Open implements commit.Store.
func (w *Writer) Open(ctx context.Context, s shard.ID, e shard.Epoch) (commit.Head, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.connect(ctx); err != nil {
		return commit.Head{}, err
	}
	// The lease may have been claimed with the name of an earlier session.
	if err := w.bind(ctx); err != nil {
		return commit.Head{}, err
	}
	lease, err := leasedb.New(w.conn).GetShardLease(ctx, int16(s))
	switch {
	case pg.IsNoRows(err):
		return commit.Head{}, commit.ErrFenced
	case err != nil:
		return commit.Head{}, fmt.Errorf("read lease: %w", err)
	case shard.Epoch(lease.Epoch) != e || lease.Holder != w.o.Holder():
		return commit.Head{}, commit.ErrFenced
	}
	heads, err := logdb.ReadHeads(ctx, w.conn, w.o.Shards)
	if err != nil {
		return commit.Head{}, err
	}
	if int(s) >= len(heads.Positions) {
		return commit.Head{}, fmt.Errorf("shard %s of %d", s, w.o.Shards)
	}
	last := heads.Positions[s]
	return commit.Head{
		Incarnation: w.incarnation.Number, Last: last, Next: max(last, w.incarnation.Start(s)) + 1,
	}, nil
}

// Commit implements commit.Store.
func (w *Writer) Commit(ctx context.Context, batches []commit.Batch) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, clientTimeout)
	defer cancel()
	if err := w.connect(ctx); err != nil {
		return err
	}
	if lost := w.otherHistory(batches); len(lost) > 0 {
		return &commit.FencedError{Shards: lost}
	}
	var done logdb.Done
	held, err := w.send(ctx, batches, &done)
	if err != nil {
		w.rollback(ctx)
		if pg.IsUniqueViolation(err, "log_pkey") {
			// The log has gone on without us, which the fence makes impossible in one history: begin anew.
			w.o.Log.Error("a log is longer than its writer knows", "error", err)
			return &commit.FencedError{Shards: missing(batches, nil)}
		}
		if done.Len() > 0 && pg.IsUniqueViolation(err) {
			// A repeated command also repeats the rows that have to be new.
			var repeated *commit.RepeatedError
			if rerr := w.repeated(ctx, batches, &done); errors.As(rerr, &repeated) && len(repeated.Results) > 0 {
				return rerr
			}
		}
		return classify(w.conn, err)
	}
	if len(held.shards) != len(batches) {
		w.rollback(ctx)
		return &commit.FencedError{Shards: missing(batches, held.shards)}
	}
	if held.fresh != done.Len() {
		w.rollback(ctx)
		return w.repeated(ctx, batches, &done)
	}
	w.xid = held.xid
	tag, err := w.conn.Exec(ctx, "COMMIT", pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return w.commitFailed(ctx, err)
	}
	if tag.String() != "COMMIT" {
		return fmt.Errorf("COMMIT was answered %q", tag.String())
	}
	return nil
}

// otherHistory gives the shards that were opened in another incarnation than the session's: they must be opened anew.
func (w *Writer) otherHistory(batches []commit.Batch) []shard.ID {
	var lost []shard.ID
	for i := range batches {
		if batches[i].Incarnation != w.incarnation.Number {
			lost = append(lost, batches[i].Shard)
		}
	}
	return lost
}

// fenced is what the first round trip answered.
type fenced struct {
	shards []shard.ID
	xid    string
	fresh  int // commands that had not been done before
}

// send makes the first round trip: everything but the COMMIT.
func (w *Writer) send(ctx context.Context, batches []commit.Batch, done *logdb.Done) (*fenced, error) {
	b := &pgx.Batch{}
	held := &fenced{}
	b.Queue("BEGIN")
	shards, epochs := make([]int16, len(batches)), make([]int64, len(batches))
	for i := range batches {
		shards[i], epochs[i] = int16(batches[i].Shard), int64(batches[i].Epoch)
	}
	b.Queue(fenceSQL, shards, epochs).Query(func(rows pgx.Rows) error {
		var s int16
		_, err := pgx.ForEachRow(rows, []any{&s, &held.xid}, func() error {
			held.shards = append(held.shards, shard.ID(s))
			return nil
		})
		return err
	})
	var log logdb.Rows
	var rest pgx.Batch
	for i := range batches {
		bt := &batches[i]
		for _, p := range bt.Proposals {
			if p.Key != nil {
				done.Add(bt.Shard, p.Key, p.Result)
			}
			for j := range p.Entries {
				log.Add(bt.Shard, p.Place.Pos(j), bt.Epoch, &p.Entries[j])
			}
			for _, r := range p.Rows {
				if err := w.tables.add(&rest, r, p.Place); err != nil {
					w.tables.reset()
					return nil, err
				}
			}
		}
	}
	done.Queue(b, &held.fresh)
	w.tables.queue(&rest)
	b.QueuedQueries = append(b.QueuedQueries, rest.QueuedQueries...)
	log.Queue(b)
	if err := w.conn.SendBatch(ctx, b).Close(); err != nil {
		return nil, err
	}
	return held, nil
}

// rollback ends the transaction, or the session if that cannot be done.
func (w *Writer) rollback(ctx context.Context) {
	if w.conn.IsClosed() || w.conn.PgConn().TxStatus() == 'I' {
		return
	}
	if _, err := w.conn.Exec(ctx, "ROLLBACK", pgx.QueryExecModeSimpleProtocol); err != nil {
		w.disconnect()
	}
}

func missing(batches []commit.Batch, held []shard.ID) []shard.ID {
	var lost []shard.ID
	for i := range batches {
		if !slices.Contains(held, batches[i].Shard) {
			lost = append(lost, batches[i].Shard)
		}
	}
	return lost
}

// repeated reads the results of the commands that had been done before. Nothing can have removed them since.
func (w *Writer) repeated(ctx context.Context, batches []commit.Batch, done *logdb.Done) error {
	if w.conn == nil || w.conn.IsClosed() {
		return fmt.Errorf("%w: connection lost", commit.ErrUnavailable)
	}
	found, err := done.Find(ctx, w.conn)
	if err != nil {
		return classify(w.conn, err)
	}
	e := &commit.RepeatedError{Results: map[*entry.Proposal][]byte{}}
	for i := range batches {
		for _, p := range batches[i].Proposals {
			if result, ok := found[logdb.DoneKey{Shard: batches[i].Shard, Key: string(p.Key)}]; ok && p.Key != nil {
				e.Results[p.Proposal] = result
			}
		}
	}
	return e
}

// commitFailed tells what a failed COMMIT means. pgconn.SafeToRetry says of a connection that is lost while the answer is awaited
// that nothing was sent, which is not so.
func (w *Writer) commitFailed(ctx context.Context, err error) error {
	var pe *pgconn.PgError
	if errors.As(err, &pe) && !pg.IsConnection(err) {
		w.rollback(ctx)
		return classify(w.conn, err) // the server says that it did not commit
	}
	w.settling = &settlement{xid: w.xid, raised: map[shard.ID]shard.Epoch{}}
	w.disconnect()
	return fmt.Errorf("%w: %w", commit.ErrUnknownOutcome, err)
}

// classify tells failures of the database, after which the same can be tried again, from those of a proposal. Nothing was committed.
func classify(conn *pgx.Conn, err error) error {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		if conn == nil || conn.IsClosed() || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			return fmt.Errorf("%w: %w", commit.ErrUnavailable, err)
		}
		return err // the proposal could not be encoded
	}
	switch {
	case pg.IsUniqueViolation(err):
		return fmt.Errorf("%w: %w", commit.ErrConflict, err)
	case pg.IsConnection(err), pg.IsSerialization(err), pg.IsTimeout(err), pg.IsReadOnly(err), pe.Code[:2] == "53", pe.Code[:2] == "25":
		return fmt.Errorf("%w: %w", commit.ErrUnavailable, err)
	}
	return err
}
