package leasedb

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// DB reaches the rows through the primary.
type DB struct{ pg *pg.DB }

// NewDB makes a DB.
func NewDB(db *pg.DB) *DB { return &DB{pg: db} }

// Owner reads who writes a shard, and where it can be reached. The instance is empty when nobody does.
func (d *DB) Owner(ctx context.Context, s shard.ID) (instance, address string, epoch shard.Epoch, err error) {
	r, err := New(d.pg.Primary).GetShardLease(ctx, int16(s))
	if errors.Is(err, pgx.ErrNoRows) {
		return "", "", 0, nil
	}
	if err != nil {
		return "", "", 0, fmt.Errorf("read the lease of shard %s: %w", s, err)
	}
	return InstanceOf(r.Holder), r.Address, shard.Epoch(r.Epoch), nil
}

// Lease reads a lease; ok tells whether there is one of that key.
func (d *DB) Lease(ctx context.Context, k Key) (r Row, ok bool, err error) {
	return readLease(ctx, d.pg.Primary, k)
}

func readLease(ctx context.Context, db DBTX, k Key) (Row, bool, error) {
	var g GetRoleLeaseRow
	var err error
	if k.Role == Writer {
		var s GetShardLeaseRow
		s, err = New(db).GetShardLease(ctx, int16(k.Slot))
		g = GetRoleLeaseRow(s)
	} else {
		g, err = New(db).GetRoleLease(ctx, GetRoleLeaseParams{Role: k.Role, Slot: int16(k.Slot)})
	}
	if errors.Is(err, pgx.ErrNoRows) {
		return Row{}, false, nil
	}
	if err != nil {
		return Row{}, false, fmt.Errorf("read lease %s: %w", k, err)
	}
	return Row{
		Key: k, Epoch: shard.Epoch(g.Epoch), Holder: g.Holder, Session: session(g.HolderPid, g.HolderStarted), Address: g.Address,
	}, true, nil
}

// SessionOf names the session of a connection: what a writer gives as its own, so that a claimant can end it.
func SessionOf(ctx context.Context, db DBTX) (Session, error) {
	var s Session
	err := db.QueryRow(ctx, "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()").Scan(&s.PID, &s.Started)
	if err != nil {
		return Session{}, fmt.Errorf("name the session: %w", err)
	}
	return s, nil
}

// Fence holds the shards of a transaction: it returns, in ascending order, those that are held under the epoch named, and
// until the transaction ends nobody can take these. epochs[i] belongs to shards[i].
func Fence(ctx context.Context, tx pgx.Tx, shards []shard.ID, epochs []shard.Epoch) ([]shard.ID, error) {
	p := FenceShardsParams{Shards: make([]int16, len(shards)), Epochs: make([]int64, len(epochs))}
	for i, s := range shards {
		p.Shards[i], p.Epochs[i] = int16(s), int64(epochs[i])
	}
	got, err := New(tx).FenceShards(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("fence: %w", err)
	}
	held := make([]shard.ID, len(got))
	for i, s := range got {
		held[i] = shard.ID(s)
	}
	return held, nil
}

// FenceSlot is [Fence] for one slot of a role other than [Writer]. It fails with [ErrNotHolder].
func FenceSlot(ctx context.Context, tx pgx.Tx, k Key, epoch shard.Epoch) error {
	got, err := New(tx).FenceRole(ctx, FenceRoleParams{Role: k.Role, Slot: int16(k.Slot), Epoch: int64(epoch)})
	switch {
	case err != nil:
		return fmt.Errorf("fence %s: %w", k, err)
	case len(got) == 0:
		return fmt.Errorf("fence %s: %w", k, ErrNotHolder)
	}
	return nil
}

// terminateWait bounds how long a claim waits for a session to end; if it has not, the next attempt finds it again.
const terminateWait = "300"

// terminate ends a session of somebody else, if it is still that one. pid and start must both match: the pid alone may by
// now be anybody's.
func terminate(ctx context.Context, db DBTX, s Session) error {
	if s.PID == 0 {
		return nil
	}
	_, err := db.Exec(ctx, `SELECT pg_terminate_backend(pid, `+terminateWait+`) FROM pg_stat_activity
		WHERE pid = $1 AND backend_start = $2 AND pid <> pg_backend_pid()`, s.PID, timestamptz(s.Started))
	if err != nil {
		return fmt.Errorf("end the session of the holder: %w", err)
	}
	return nil
}
