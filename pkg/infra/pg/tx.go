package pg

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Beginner is what transactions begin on: a pool or a connection.
type Beginner interface {
	BeginTx(ctx context.Context, opts pgx.TxOptions) (pgx.Tx, error)
}

// rollbackTimeout bounds the ROLLBACK that follows a failure, which must be
// tried even if the caller's context has ended.
const rollbackTimeout = 5 * time.Second

// InTx runs fn in a read-committed transaction and commits it if fn returns
// nil. If fn fails or panics the transaction is rolled back. The error wraps
// ErrUnknownOutcome if, and only if, the transaction may have been committed
// nevertheless.
func InTx(ctx context.Context, db Beginner, fn func(tx pgx.Tx) error) error {
	return InTxWith(ctx, db, pgx.TxOptions{}, fn)
}

// InSnapshot runs fn in a read-only transaction all of whose statements see
// the same snapshot. On a replica too.
func InSnapshot(ctx context.Context, db Beginner, fn func(tx pgx.Tx) error) error {
	return InTxWith(ctx, db, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, fn)
}

// InTxWith is InTx with the options given.
func InTxWith(ctx context.Context, db Beginner, opts pgx.TxOptions, fn func(tx pgx.Tx) error) (err error) {
	tx, err := db.BeginTx(ctx, opts)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	committing := false
	defer func() {
		if committing {
			return // Commit has closed the transaction, whatever came of it
		}
		rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
		defer cancel()
		// The failure of a rollback adds nothing: pgx then closes the connection.
		_ = tx.Rollback(rctx)
	}()
	if err := fn(tx); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err // known not to be committed, which a canceled COMMIT would not be
	}
	if tx.Conn().IsClosed() {
		return fmt.Errorf("commit: %w", pgconn.ErrConnClosed) // nor is this: nothing can be sent
	}
	committing = true
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("commit: %w", commitError(err))
	}
	return nil
}

// InTxRetry is InTx that runs fn again, in a new transaction, when it lost
// against another one (IsSerialization), at most attempts times in all. fn must
// have no effect outside the transaction.
func InTxRetry(ctx context.Context, db Beginner, opts pgx.TxOptions, attempts int, fn func(tx pgx.Tx) error) error {
	var err error
	for n := range attempts {
		err = InTxWith(ctx, db, opts, fn)
		if err == nil || !IsSerialization(err) || errors.Is(err, ErrUnknownOutcome) {
			return err
		}
		// Losers that begin again at once would meet again.
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(time.Duration(n+1) * 5 * time.Millisecond):
		}
	}
	return fmt.Errorf("gave up after %d attempts: %w", attempts, err)
}
