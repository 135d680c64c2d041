package pg

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Querier is what statements are made on.
type Querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Reads gives what readers work on: the primary, but for statements whose context was made by [OnReplica].
func (db *DB) Reads() Querier {
	if !db.HasReplica() {
		return db.Primary
	}
	return chosen{db}
}

type replicaKey struct{}

// OnReplica has statements that are made on [DB.Reads] go to the replica. Whoever calls it knows that the replica has what they ask for.
func OnReplica(ctx context.Context) context.Context {
	return context.WithValue(ctx, replicaKey{}, struct{}{})
}

// IsOnReplica tells whether they do.
func IsOnReplica(ctx context.Context) bool { return ctx.Value(replicaKey{}) != nil }

// chosen chooses the pool by the context.
type chosen struct{ db *DB }

func (c chosen) pool(ctx context.Context) *pgxpool.Pool {
	if IsOnReplica(ctx) {
		return c.db.Reader
	}
	return c.db.Primary
}

// Exec implements Querier.
func (c chosen) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	return c.pool(ctx).Exec(ctx, sql, args...)
}

// Query implements Querier.
func (c chosen) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	return c.pool(ctx).Query(ctx, sql, args...)
}

// QueryRow implements Querier.
func (c chosen) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return c.pool(ctx).QueryRow(ctx, sql, args...)
}
