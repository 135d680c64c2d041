package fleetdb

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/heddle-im/heddle/pkg/infra/pg"
)

// Level is the feature level of the cluster, and the lowest of what the workers in the register read.
type Level = ReadLevelRow

// DB is the register with what takes a transaction.
type DB struct{ db *pg.DB }

// NewDB reads and raises the level in the primary.
func NewDB(db *pg.DB) *DB { return &DB{db} }

// Level reads the level.
func (d *DB) Level(ctx context.Context) (Level, error) { return New(d.db.Primary).ReadLevel(ctx) }

// Raise raises the cluster's level to what all workers in the register read, if that is more, and gives it. A worker that registers at
// the same time is either counted or told that it is too old.
func (d *DB) Raise(ctx context.Context) (level int32, err error) {
	err = pg.InTx(ctx, d.db.Primary, func(tx pgx.Tx) error {
		q := New(tx)
		if err := q.LockLevel(ctx); err != nil {
			return err
		}
		level, err = q.RaiseLevel(ctx)
		return err
	})
	return level, err
}
