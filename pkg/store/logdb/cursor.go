package logdb

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// LoadCursor reads the places of a durable consumer. One that has none begins where the log does, and from now on the log
// is kept for it.
func (d *DB) LoadCursor(ctx context.Context, consumer string) (shard.Heads, error) {
	at := shard.Heads{Positions: make(shard.Vector, d.shards)}
	err := pg.InTx(ctx, d.db.Primary, func(tx pgx.Tx) error {
		q := New(tx)
		if err := q.LockFloors(ctx); err != nil { // against trimming between the floor's reading and the cursor's writing
			return err
		}
		if err := q.InitCursor(ctx, InitCursorParams{Consumer: consumer, LastShard: int32(d.shards - 1)}); err != nil {
			return err
		}
		rows, err := q.LoadCursor(ctx, consumer)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if int(r.Shard) < d.shards {
				at.Positions[r.Shard] = shard.Pos(r.Pos)
			}
		}
		// The places are restored with the database, so they are of its history.
		heads, err := ReadHeads(ctx, tx, d.shards)
		at.Incarnation = heads.Incarnation
		return err
	})
	if err != nil {
		return shard.Heads{}, fmt.Errorf("load cursor of %s: %w", consumer, err)
	}
	return at, nil
}

// SaveCursor stores places of a durable consumer, if the role is held under the epoch; else held is false. A place never goes back.
func (d *DB) SaveCursor(ctx context.Context, consumer string, role shard.Role, at shard.Vector) (held bool, err error) {
	err = pg.InTx(ctx, d.db.Primary, func(tx pgx.Tx) error {
		q := New(tx)
		held, err = roleHeld(ctx, q, role)
		if err != nil || !held {
			return err
		}
		p := SaveCursorParams{Consumer: consumer, Shard: make([]int16, len(at)), Pos: make([]int64, len(at))}
		for s, pos := range at {
			p.Shard[s], p.Pos[s] = int16(s), int64(pos)
		}
		return q.SaveCursor(ctx, p)
	})
	if err != nil {
		return false, fmt.Errorf("save cursor of %s: %w", consumer, err)
	}
	return held, nil
}

// DropCursor forgets a durable consumer, so that the log is no longer kept for it.
func (d *DB) DropCursor(ctx context.Context, consumer string) error {
	if err := New(d.db.Primary).DropCursor(ctx, consumer); err != nil {
		return fmt.Errorf("drop cursor of %s: %w", consumer, err)
	}
	return nil
}

func roleHeld(ctx context.Context, q *Queries, role shard.Role) (bool, error) {
	rows, err := q.FenceRole(ctx, FenceRoleParams{Role: role.Name, Slot: role.Slot, Epoch: int64(role.Epoch)})
	if err != nil {
		return false, fmt.Errorf("fence role %s: %w", role.Name, err)
	}
	return len(rows) == 1, nil
}

// Trim removes entries, a bounded number (most), from the front of a shard's log, none that a durable consumer has not passed, and none
// of the newest keep positions, which followers may still ask for. It tells how many were removed; held is false, and nothing
// was, if the role is not held under the epoch.
func (d *DB) Trim(ctx context.Context, role shard.Role, s shard.ID, keep int64, most int) (removed int64, held bool, err error) {
	err = pg.InTx(ctx, d.db.Primary, func(tx pgx.Tx) error {
		q := New(tx)
		held, err = roleHeld(ctx, q, role)
		if err != nil || !held {
			return err
		}
		floor, err := q.LockFloor(ctx, int16(s))
		if err != nil {
			return err
		}
		heads, err := ReadHeads(ctx, tx, d.shards)
		if err != nil {
			return err
		}
		bound := int64(heads.Positions[s]) - keep
		slowest, err := q.SlowestCursor(ctx, int16(s))
		switch {
		case pg.IsNoRows(err):
		case err != nil:
			return err
		default:
			bound = min(bound, slowest)
		}
		if bound <= floor {
			return nil
		}
		upTo, err := q.TrimPiece(ctx, TrimPieceParams{Shard: int16(s), Pos: bound, Limit: int32(most)})
		if err != nil || upTo == 0 {
			return err
		}
		if removed, err = q.TrimLog(ctx, TrimLogParams{Shard: int16(s), Pos: upTo}); err != nil {
			return err
		}
		return q.RaiseFloor(ctx, RaiseFloorParams{Shard: int16(s), Pos: upTo})
	})
	if err != nil {
		return 0, false, fmt.Errorf("trim log of shard %s: %w", s, err)
	}
	return removed, held, nil
}

// SweepDone forgets commands, a bounded number (most), that were done longer ago than age, which must be longer than any command is
// tried again.
func (d *DB) SweepDone(ctx context.Context, age time.Duration, most int) (int64, error) {
	n, err := New(d.db.Primary).SweepDone(ctx, SweepDoneParams{AgeSeconds: age.Seconds(), Most: int32(most)})
	if err != nil {
		return 0, fmt.Errorf("sweep done commands: %w", err)
	}
	return n, nil
}
