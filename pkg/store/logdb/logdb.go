package logdb

import (
	"context"
	_ "embed"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

//go:embed sql/heads.sql
var headsSQL string

// pieceSize bounds how many entries are read at a time.
const pieceSize = 256

// DB reads the log of a homeserver. It implements follow.Source and follow.Cursors, and may be used by any number of goroutines.
type DB struct {
	db     *pg.DB
	shards int
}

// NewDB makes a DB for a homeserver of so many shards.
func NewDB(db *pg.DB, shards int) *DB { return &DB{db: db, shards: shards} }

// Shards gives the number of shards.
func (d *DB) Shards() int { return d.shards }

// Heads reads how far all logs reach.
func (d *DB) Heads(ctx context.Context) (shard.Heads, error) {
	return ReadHeads(ctx, d.db.Primary, d.shards)
}

// ReadHeads is DB.Heads on a connection or in a transaction.
func ReadHeads(ctx context.Context, db DBTX, shards int) (shard.Heads, error) {
	rows, err := db.Query(ctx, headsSQL, shards-1)
	if err != nil {
		return shard.Heads{}, fmt.Errorf("read heads: %w", err)
	}
	heads := shard.Heads{Positions: make(shard.Vector, 0, shards)}
	var pos int64
	var incarnation int32
	_, err = pgx.ForEachRow(rows, []any{&pos, &incarnation}, func() error {
		heads.Positions = append(heads.Positions, shard.Pos(pos))
		heads.Incarnation = uint32(incarnation)
		return nil
	})
	if err != nil {
		return shard.Heads{}, fmt.Errorf("read heads: %w", err)
	}
	return heads, nil
}

// Read reads everything after from, of all shards, from one snapshot.
func (d *DB) Read(
	ctx context.Context, from shard.Heads, piece func(s shard.ID, entries []entry.At) error,
) (heads shard.Heads, err error) {
	err = pg.InSnapshot(ctx, d.db.Primary, func(tx pgx.Tx) error {
		heads, err = ReadHeads(ctx, tx, d.shards)
		if err != nil {
			return err
		}
		if heads.Incarnation != from.Incarnation {
			return fmt.Errorf("read from incarnation %d in %d: %w", from.Incarnation, heads.Incarnation, shard.ErrIncarnation)
		}
		floors, err := New(tx).Floors(ctx)
		if err != nil {
			return fmt.Errorf("read floors: %w", err)
		}
		for _, f := range floors {
			if int(f.Shard) < len(from.Positions) && shard.Pos(f.Pos) > from.Positions[f.Shard] {
				return fmt.Errorf("read shard %d from %d: %w", f.Shard, from.Positions[f.Shard], shard.ErrTrimmed)
			}
		}
		for s := range heads.Positions {
			if err := readShard(ctx, tx, shard.ID(s), from.Positions[s], heads.Positions[s], piece); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return shard.Heads{}, fmt.Errorf("read log: %w", err)
	}
	return heads, nil
}

func readShard(
	ctx context.Context, db DBTX, s shard.ID, from, to shard.Pos, piece func(shard.ID, []entry.At) error,
) error {
	for from < to {
		entries, err := ReadRange(ctx, db, s, from, to, pieceSize)
		if err != nil {
			return err
		}
		if len(entries) == 0 {
			return nil
		}
		if err := piece(s, entries); err != nil {
			return err
		}
		from = entries[len(entries)-1].Pos
	}
	return nil
}

// ReadRange reads at most limit entries of a shard, after from and up to to, with the events' JSON.
func ReadRange(ctx context.Context, db DBTX, s shard.ID, from, to shard.Pos, limit int) ([]entry.At, error) {
	rows, err := New(db).ReadEntries(ctx, ReadEntriesParams{
		Shard: int16(s), Pos: int64(from), Pos_2: int64(to), Limit: int32(limit),
	})
	if err != nil {
		return nil, fmt.Errorf("read entries of shard %s: %w", s, err)
	}
	entries := make([]entry.At, len(rows))
	for i, r := range rows {
		entries[i] = entry.At{Shard: s, Pos: shard.Pos(r.Pos), Entry: entry.Entry{
			Kind: entry.Kind(r.Kind), Room: shard.Nid(r.RoomNid), Subject: r.Subject, Event: shard.Nid(r.EventNid),
			Body: r.Body, JSON: r.Json,
		}}
	}
	return entries, nil
}

// Rows are rows of the log, a column each.
type Rows struct {
	shards, kinds     []int16
	positions, epochs []int64
	rooms, events     []int64
	subjects          []string
	bodies            [][]byte
}

// Add adds a row.
func (r *Rows) Add(s shard.ID, pos shard.Pos, e shard.Epoch, ent *entry.Entry) {
	body := ent.Body
	if body == nil {
		body = []byte{}
	}
	r.shards = append(r.shards, int16(s))
	r.positions = append(r.positions, int64(pos))
	r.epochs = append(r.epochs, int64(e))
	r.kinds = append(r.kinds, int16(ent.Kind))
	r.rooms = append(r.rooms, int64(ent.Room))
	r.subjects = append(r.subjects, ent.Subject)
	r.events = append(r.events, int64(ent.Event))
	r.bodies = append(r.bodies, body)
}

// Queue queues the statement that writes the rows, if there are any.
func (r *Rows) Queue(b *pgx.Batch) {
	if len(r.shards) > 0 {
		b.Queue(insertLog, r.shards, r.positions, r.epochs, r.kinds, r.rooms, r.subjects, r.events, r.bodies)
	}
}

// Done are commands that are done by a transaction, a column each.
type Done struct {
	shards  []int16
	keys    [][]byte
	results [][]byte
}

// Add adds a command.
func (d *Done) Add(s shard.ID, key, result []byte) {
	if result == nil {
		result = []byte{}
	}
	d.shards, d.keys, d.results = append(d.shards, int16(s)), append(d.keys, key), append(d.results, result)
}

// Len gives how many commands there are.
func (d *Done) Len() int { return len(d.keys) }

// Queue queues the statement that notes the commands, if there are any. fresh is set to how many had not been done before.
func (d *Done) Queue(b *pgx.Batch, fresh *int) {
	if len(d.keys) == 0 {
		return
	}
	b.Queue(insertDone, d.shards, d.keys, d.results).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			*fresh++
		}
		return rows.Err()
	})
}

// DoneKey names a command.
type DoneKey struct {
	Shard shard.ID
	Key   string
}

// Find reads the results of those of the commands that had been done before.
func (d *Done) Find(ctx context.Context, db DBTX) (map[DoneKey][]byte, error) {
	rows, err := New(db).FindDone(ctx, FindDoneParams{Shard: d.shards, Key: d.keys})
	if err != nil {
		return nil, fmt.Errorf("find commands that are done: %w", err)
	}
	found := make(map[DoneKey][]byte, len(rows))
	for _, r := range rows {
		found[DoneKey{shard.ID(r.Shard), string(r.Key)}] = r.Result
	}
	return found, nil
}
