package logdb

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

//go:embed sql/identity.sql
var identitySQL string

// identity is what changes when the history of a database does.
type identity struct {
	system   string
	database int64
	timeline int64
}

// epochOfNumbers is the second from which incarnations are numbered: a number is about the second in which it began, so that
// it is not used twice even if the table itself was restored. An int32 lasts until 2092.
const epochOfNumbers = 1_700_000_000

// History reads the incarnations, the oldest first.
func (d *DB) History(ctx context.Context) (shard.History, error) {
	h, _, err := readHistory(ctx, d.db.Primary)
	return h, err
}

func readHistory(ctx context.Context, db DBTX) (shard.History, identity, error) {
	rows, err := New(db).ListIncarnations(ctx)
	if err != nil {
		return nil, identity{}, fmt.Errorf("read incarnations: %w", err)
	}
	var last identity
	h := make(shard.History, len(rows))
	for i, r := range rows {
		began := make(shard.Vector, len(r.Began))
		for s, p := range r.Began {
			began[s] = shard.Pos(p)
		}
		h[i] = shard.Incarnation{Number: uint32(r.Number), Began: began, First: i == 0}
		last = identity{r.SystemIdentifier, r.DatabaseOid, r.Timeline}
	}
	return h, last, nil
}

func readIdentity(ctx context.Context, db DBTX) (identity, error) {
	var id identity
	var timeline string
	if err := db.QueryRow(ctx, identitySQL).Scan(&id.system, &id.database, &timeline); err != nil {
		return id, fmt.Errorf("read the identity of the database: %w", err)
	}
	var err error
	if id.timeline, err = strconv.ParseInt(timeline, 16, 64); err != nil {
		return id, fmt.Errorf("read the timeline of the database: %w", err)
	}
	return id, nil
}

// OpenIncarnation finds whether the history of the database is the one that was last written in, and opens a new incarnation if
// not. A writer does so with each new session, before it writes: then nothing can have been written in this history before.
func OpenIncarnation(ctx context.Context, conn *pgx.Conn, shards int) (shard.Incarnation, error) {
	id, err := readIdentity(ctx, conn)
	if err != nil {
		return shard.Incarnation{}, err
	}
	h, last, err := readHistory(ctx, conn)
	if err != nil {
		return shard.Incarnation{}, err
	}
	if now, ok := h.Current(); ok && last == id {
		return now, nil
	}
	var now shard.Incarnation
	err = pg.InTx(ctx, conn, func(tx pgx.Tx) error {
		q := New(tx)
		if err := q.LockIncarnations(ctx); err != nil {
			return fmt.Errorf("lock incarnations: %w", err)
		}
		h, last, err := readHistory(ctx, tx)
		if err != nil {
			return err
		}
		before, ok := h.Current()
		if ok && last == id {
			now = before // another writer was first
			return nil
		}
		heads, err := ReadHeads(ctx, tx, shards)
		if err != nil {
			return err
		}
		now = shard.Incarnation{
			Number: max(before.Number+1, uint32(time.Now().Unix()-epochOfNumbers)), First: !ok, Began: make(shard.Vector, shards),
		}
		began := make([]int64, shards)
		for s, p := range heads.Positions {
			now.Began[s], began[s] = p+1, int64(p+1)
		}
		if err := q.EnsureFloors(ctx, int32(shards-1)); err != nil {
			return fmt.Errorf("make floors: %w", err)
		}
		return q.InsertIncarnation(ctx, InsertIncarnationParams{
			Number: int32(now.Number), SystemIdentifier: id.system, DatabaseOid: id.database, Timeline: id.timeline, Began: began,
		})
	})
	if err != nil {
		return shard.Incarnation{}, fmt.Errorf("open incarnation: %w", err)
	}
	return now, nil
}
