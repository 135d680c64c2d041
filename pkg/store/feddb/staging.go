package feddb

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// StagedPDU is an event on its way into a room.
type StagedPDU struct {
	Shard   shard.ID // of the room
	Seq     int64
	RoomID  string
	EventID string
	Origin  string
	JSON    []byte
	Tries   int
	// Ready: it is not postponed.
	Ready bool
}

// StagedEDU is what must not be lost of the rest of a transaction.
type StagedEDU struct {
	Seq     int64
	Origin  string
	Type    string
	Content []byte
}

// TxnTaken tells whether a transaction was staged before.
func (d *DB) TxnTaken(ctx context.Context, s shard.ID, origin, txn string) (bool, error) {
	taken, err := d.q.TxnTaken(ctx, TxnTakenParams{Shard: int16(s), Origin: origin, TxnID: txn})
	if err != nil {
		return false, fmt.Errorf("read transaction: %w", err)
	}
	return taken, nil
}

// Stage stores a transaction of another server, all or nothing, and tells whether it was new. s is the origin's shard. Events
// that are staged already are left alone.
func (d *DB) Stage(ctx context.Context, s shard.ID, origin, txn string, pdus []StagedPDU, edus []StagedEDU) (fresh bool, err error) {
	// Two servers that bring the same events in another order wait for each other: one of them does it again.
	err = pg.InTxRetry(ctx, d.db.Primary, pgx.TxOptions{}, 3, func(tx pgx.Tx) error {
		fresh = false
		q := New(tx)
		n, err := q.InsertTxn(ctx, InsertTxnParams{Shard: int16(s), Origin: origin, TxnID: txn})
		if err != nil || n == 0 {
			return err
		}
		fresh = true
		return stage(ctx, q, s, origin, pdus, edus)
	})
	if err != nil {
		return false, fmt.Errorf("stage transaction: %w", err)
	}
	return fresh, nil
}

func stage(ctx context.Context, q *Queries, s shard.ID, origin string, pdus []StagedPDU, edus []StagedEDU) error {
	if len(pdus) > 0 {
		p := StagePDUsParams{Origin: origin}
		for i := range pdus {
			p.Shards, p.RoomIds = append(p.Shards, int16(pdus[i].Shard)), append(p.RoomIds, pdus[i].RoomID)
			p.EventIds, p.Jsons = append(p.EventIds, pdus[i].EventID), append(p.Jsons, pdus[i].JSON)
		}
		if err := q.StagePDUs(ctx, p); err != nil {
			return err
		}
	}
	if len(edus) > 0 {
		p := StageEDUsParams{Shard: int16(s), Origin: origin}
		for i := range edus {
			p.Types, p.Contents = append(p.Types, edus[i].Type), append(p.Contents, edus[i].Content)
		}
		return q.StageEDUs(ctx, p)
	}
	return nil
}

// DueRooms gives rooms of a shard that have staged events to be worked on now, those that wait for longest first.
func (d *DB) DueRooms(ctx context.Context, s shard.ID, most int) ([]string, error) {
	rows, err := d.q.DueRooms(ctx, DueRoomsParams{Shard: int16(s), Limit: int32(most)})
	if err != nil {
		return nil, fmt.Errorf("read staged rooms: %w", err)
	}
	rooms := make([]string, len(rows))
	for i, r := range rows {
		rooms[i] = r.RoomID
	}
	return rooms, nil
}

// Staged reads a room's staged events in the order in which they came.
func (d *DB) Staged(ctx context.Context, s shard.ID, room string, most int) ([]StagedPDU, error) {
	rows, err := d.q.StagedOfRoom(ctx, StagedOfRoomParams{Shard: int16(s), RoomID: room, Most: int32(most)})
	if err != nil {
		return nil, fmt.Errorf("read staged events: %w", err)
	}
	out := make([]StagedPDU, len(rows))
	for i, r := range rows {
		out[i] = StagedPDU{Shard: s, Seq: r.Seq, RoomID: r.RoomID, EventID: r.EventID, Origin: r.Origin, JSON: r.Json, Tries: int(r.Tries), Ready: r.Ready}
	}
	return out, nil
}

// Park keeps staged events from being due for a while: somebody works on them, or will. It is no try.
func (d *DB) Park(ctx context.Context, s shard.ID, seqs []int64, by time.Duration) error {
	if err := d.q.ParkStaged(ctx, ParkStagedParams{Shard: int16(s), Seqs: seqs, Seconds: by.Seconds()}); err != nil {
		return fmt.Errorf("park staged events: %w", err)
	}
	return nil
}

// Waiting counts the events of a server that were tried in vain and wait to be tried again.
func (d *DB) Waiting(ctx context.Context, s shard.ID, room, origin string) (int, error) {
	n, err := d.q.CountWaiting(ctx, CountWaitingParams{Shard: int16(s), RoomID: room, Origin: origin})
	if err != nil {
		return 0, fmt.Errorf("count staged events: %w", err)
	}
	return int(n), nil
}

// Postpone notes why staged events could not be worked on, and that they are not to be for a while.
func (d *DB) Postpone(ctx context.Context, s shard.ID, seqs []int64, why string, by time.Duration) error {
	err := d.q.PostponeStaged(ctx, PostponeStagedParams{Shard: int16(s), Seqs: seqs, Error: why, Seconds: by.Seconds()})
	if err != nil {
		return fmt.Errorf("postpone staged events: %w", err)
	}
	return nil
}

// DropStaged deletes staged events of which nothing will come.
func (d *DB) DropStaged(ctx context.Context, s shard.ID, seqs []int64) error {
	if err := d.q.DropStaged(ctx, DropStagedParams{Shard: int16(s), Seqs: seqs}); err != nil {
		return fmt.Errorf("drop staged events: %w", err)
	}
	return nil
}

// StagedEDUs reads what is staged of a shard's servers besides events, in the order in which it came.
func (d *DB) StagedEDUs(ctx context.Context, s shard.ID, most int) ([]StagedEDU, error) {
	rows, err := d.q.ListStagedEDUs(ctx, ListStagedEDUsParams{Shard: int16(s), Limit: int32(most)})
	if err != nil {
		return nil, fmt.Errorf("read staged EDUs: %w", err)
	}
	out := make([]StagedEDU, len(rows))
	for i, r := range rows {
		out[i] = StagedEDU(r)
	}
	return out, nil
}

// DropStagedEDUs deletes what was worked on.
func (d *DB) DropStagedEDUs(ctx context.Context, s shard.ID, seqs []int64) error {
	if err := d.q.DropStagedEDUs(ctx, DropStagedEDUsParams{Shard: int16(s), Seqs: seqs}); err != nil {
		return fmt.Errorf("drop staged EDUs: %w", err)
	}
	return nil
}

// SweepTxns forgets no more than most transactions that were staged longer ago than age: nobody sends them again.
func (d *DB) SweepTxns(ctx context.Context, age time.Duration, most int) (int64, error) {
	n, err := d.q.SweepTxns(ctx, SweepTxnsParams{AgeSeconds: age.Seconds(), Most: int32(most)})
	if err != nil {
		return 0, fmt.Errorf("sweep transactions: %w", err)
	}
	return n, nil
}

// SetEvent is an event of a set.
type SetEvent struct {
	EventID string
	// State: it is part of the state, and not only of its auth chains.
	State bool
	JSON  []byte
}

// setPiece is how many events of a set are written or read at a time.
const setPiece = 1000

// PutSet stores a set of events, each after those that it names, for a room's writer to take. They are numbered without holes, which SetPiece
// relies on.
func (d *DB) PutSet(ctx context.Context, set []byte, events []SetEvent) error {
	err := pg.InTx(ctx, d.db.Primary, func(tx pgx.Tx) error {
		q := New(tx)
		if err := q.InsertSet(ctx, set); err != nil {
			return err
		}
		for from := 0; from < len(events); from += setPiece {
			p := StageEventsParams{SetID: set}
			for i := from; i < min(from+setPiece, len(events)); i++ {
				p.Seqs, p.States = append(p.Seqs, int32(i)), append(p.States, events[i].State)
				p.EventIds, p.Jsons = append(p.EventIds, events[i].EventID), append(p.Jsons, events[i].JSON)
			}
			if err := q.StageEvents(ctx, p); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("stage events: %w", err)
	}
	return nil
}

// Set reads a set in its order.
func (d *DB) Set(ctx context.Context, set []byte) ([]SetEvent, error) {
	var out []SetEvent
	for {
		piece, err := d.SetPiece(ctx, set, len(out), setPiece)
		if err != nil {
			return nil, err
		}
		out = append(out, piece...)
		if len(piece) < setPiece {
			return out, nil
		}
	}
}

// DropSet deletes sets.
func (d *DB) DropSet(ctx context.Context, sets ...[]byte) error {
	if err := d.q.DropSet(ctx, sets); err != nil {
		return fmt.Errorf("drop staged events: %w", err)
	}
	return nil
}

// SweepSets deletes no more than most sets that nobody took for longer than age: who staged them was killed before they were taken.
func (d *DB) SweepSets(ctx context.Context, age time.Duration, most int) (int64, error) {
	n, err := d.q.SweepSets(ctx, SweepSetsParams{AgeSeconds: age.Seconds(), Most: int32(most)})
	if err != nil {
		return 0, fmt.Errorf("sweep staged events: %w", err)
	}
	return n, nil
}

// StagedGone deletes staged events of the proposal's shard, with what was made of them.
type StagedGone struct{ Seqs []int64 }

// Cost implements entry.Row.
func (r *StagedGone) Cost() int { return 32 + 16*len(r.Seqs) }

// QueueStagedGone deletes staged events.
func QueueStagedGone(b *pgx.Batch, rows []entry.Placed[*StagedGone]) {
	var shards []int16
	var seqs []int64
	for _, r := range rows {
		for _, seq := range r.Row.Seqs {
			shards, seqs = append(shards, int16(r.Shard)), append(seqs, seq)
		}
	}
	b.Queue(deleteStaged, shards, seqs)
}

// Stripped is what another server told a user of this one of a room whose state is not known here: a JSON array.
type Stripped struct {
	Room   shard.Nid
	UserID string
	Events []byte
}

// Cost implements entry.Row.
func (r *Stripped) Cost() int { return 64 + len(r.UserID) + len(r.Events) }

// QueueStripped writes stripped states.
func QueueStripped(b *pgx.Batch, rows []entry.Placed[*Stripped]) {
	type placed = *entry.Placed[*Stripped]
	type key struct {
		room shard.Nid
		user string
	}
	rows = entry.LastByKey(rows, func(p entry.Placed[*Stripped]) key { return key{p.Row.Room, p.Row.UserID} })
	b.Queue(upsertStripped,
		entry.Column(rows, func(p placed) int64 { return int64(p.Row.Room) }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }),
		entry.Column(rows, func(p placed) []byte { return p.Row.Events }))
}

// StrippedGone deletes what a user was told of a room: the user is neither invited nor knocking any more.
type StrippedGone struct {
	Room   shard.Nid
	UserID string
}

// Cost implements entry.Row.
func (r *StrippedGone) Cost() int { return 48 + len(r.UserID) }

// QueueStrippedGone deletes stripped states.
func QueueStrippedGone(b *pgx.Batch, rows []entry.Placed[*StrippedGone]) {
	type placed = *entry.Placed[*StrippedGone]
	b.Queue(deleteStripped,
		entry.Column(rows, func(p placed) int64 { return int64(p.Row.Room) }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }))
}

// EDU is what a destination must be sent besides events, as long as it takes.
type EDU struct {
	Destination string
	Type        string
	Content     []byte
}

// Cost implements entry.Row.
func (r *EDU) Cost() int { return 96 + len(r.Destination) + len(r.Content) }

// QueueEDUs writes EDUs for destinations, in their order.
func QueueEDUs(b *pgx.Batch, rows []entry.Placed[*EDU]) {
	type placed = *entry.Placed[*EDU]
	b.Queue(insertEDUs,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) string { return p.Row.Destination }),
		entry.Column(rows, func(p placed) string { return p.Row.Type }),
		entry.Column(rows, func(p placed) []byte { return p.Row.Content }))
}

// SetPiece reads part of a set in its order.
func (d *DB) SetPiece(ctx context.Context, set []byte, from, count int) ([]SetEvent, error) {
	rows, err := d.q.ListStagedEvents(ctx, ListStagedEventsParams{SetID: set, First: int32(from), Below: int32(from + count)})
	if err != nil {
		return nil, fmt.Errorf("read staged events: %w", err)
	}
	out := make([]SetEvent, len(rows))
	for i, r := range rows {
		out[i] = SetEvent{EventID: r.EventID, State: r.State, JSON: r.Json}
	}
	return out, nil
}

// SetState gives the ids of the events of a set that are the state, without what they say.
func (d *DB) SetState(ctx context.Context, set []byte) ([]string, error) {
	ids, err := d.q.StateOfSet(ctx, set)
	if err != nil {
		return nil, fmt.Errorf("read staged state: %w", err)
	}
	return ids, nil
}
