package commitdb

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/shardlog/commit"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/leasedb"
	"github.com/heddle-im/heddle/pkg/store/logdb"
)

// Settle implements commit.Store. On a new session, which has ended the one that was lost, it raises the epoch of each shard that is still ours, which
// waits until the old transaction holds its fence no more, and then looks whether the batches are there. It may be called again when
// it failed.
func (w *Writer) Settle(ctx context.Context, batches []commit.Batch) ([]commit.Verdict, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.settling == nil {
		return nil, fmt.Errorf("no outcome is unknown")
	}
	ctx, cancel := context.WithTimeout(ctx, clientTimeout)
	defer cancel()
	if err := w.connect(ctx); err != nil {
		return nil, err
	}
	verdicts, err := w.settle(ctx, batches)
	if err != nil {
		w.disconnect()
		return nil, fmt.Errorf("settle: %w", err)
	}
	w.settling = nil
	return verdicts, nil
}

func (w *Writer) settle(ctx context.Context, batches []commit.Batch) ([]commit.Verdict, error) {
	verdicts := make([]commit.Verdict, len(batches))
	for i := range batches { // in ascending order, as all who lock lease rows do
		s := batches[i].Shard
		epoch, held, err := w.raise(ctx, s, batches[i].Epoch)
		if err != nil {
			return nil, err
		}
		verdicts[i] = commit.Verdict{Shard: s, Held: held, Epoch: epoch}
	}
	committed, err := w.present(ctx, batches)
	if err != nil {
		return nil, err
	}
	for i := range verdicts {
		verdicts[i].Committed = committed
		// In another history the shard must be opened anew, whoever holds it.
		verdicts[i].Held = verdicts[i].Held && batches[i].Incarnation == w.incarnation.Number
	}
	return verdicts, nil
}

// raise gives a shard that is ours its next epoch. An attempt whose own outcome was lost is recognised the next time.
func (w *Writer) raise(ctx context.Context, s shard.ID, from shard.Epoch) (shard.Epoch, bool, error) {
	_, tried := w.settling.raised[s]
	w.settling.raised[s] = from + 1
	q := leasedb.New(w.conn)
	epoch, err := q.RaiseShard(ctx, leasedb.RaiseShardParams{
		Slot: int16(s), Epoch: int64(from), Holder: w.o.Holder(), Pid: w.session.PID, Started: timestamptz(w.session.Started),
	})
	if err == nil {
		return shard.Epoch(epoch), true, nil
	}
	if !pg.IsNoRows(err) {
		return 0, false, fmt.Errorf("raise the epoch of shard %s: %w", s, err)
	}
	lease, err := q.GetShardLease(ctx, int16(s))
	if err != nil && !pg.IsNoRows(err) {
		return 0, false, fmt.Errorf("read lease of shard %s: %w", s, err)
	}
	ours := err == nil && tried && shard.Epoch(lease.Epoch) == from+1 && lease.Holder == w.o.Holder()
	return shard.Epoch(lease.Epoch), ours, nil
}

// present tells whether the transaction was committed: its shards' batches are there together or not at all.
func (w *Writer) present(ctx context.Context, batches []commit.Batch) (there bool, err error) {
	err = pg.InTx(ctx, w.conn, func(tx pgx.Tx) error {
		ids := make([]int16, len(batches))
		for i := range batches {
			ids[i] = int16(batches[i].Shard)
		}
		// Of shards that another has taken, the old transaction's end must be waited for too.
		if err := New(tx).LockShards(ctx, ids); err != nil {
			return fmt.Errorf("wait for the old transaction: %w", err)
		}
		for i := range batches {
			b := &batches[i]
			if b.Last > b.Prev {
				there, err = logdb.New(tx).HasEntry(ctx, logdb.HasEntryParams{
					Shard: int16(b.Shard), Pos: int64(b.Last), Epoch: int64(b.Epoch),
				})
				return err
			}
		}
		var status string // nothing of it is in the log
		if err := tx.QueryRow(ctx, transactionStatusSQL, w.settling.xid).Scan(&status); err != nil {
			return fmt.Errorf("ask for the transaction: %w", err)
		}
		there = status == "committed"
		return nil
	})
	return there, err
}
