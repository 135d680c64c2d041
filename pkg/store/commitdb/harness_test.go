package commitdb_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/shardlog/commit"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/commitdb"
	"github.com/heddle-im/heddle/pkg/store/logdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
)

const shards = 4

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

// house is a database with leases, and one master that holds them all.
type house struct {
	t  testing.TB
	db *pgtest.DB
}

func newHouse(t testing.TB) *house {
	db := pgtest.New(t)
	for s := range shards {
		_, err := db.Pool.Exec(context.Background(),
			`INSERT INTO shard_lease (shard, epoch, holder) VALUES ($1, 1, 'm1')`, s)
		require.NoError(t, err)
	}
	return &house{t, db}
}

func (h *house) exec(sql string, args ...any) {
	h.t.Helper()
	_, err := h.db.Pool.Exec(context.Background(), sql, args...)
	require.NoError(h.t, err)
}

func (h *house) one(dst any, sql string, args ...any) {
	h.t.Helper()
	require.NoError(h.t, h.db.Pool.QueryRow(context.Background(), sql, args...).Scan(dst))
}

func (h *house) writer(holder string, connect func(context.Context) (*pgx.Conn, error)) *commitdb.Writer {
	if connect == nil {
		connect = h.db.DB.Connect
	}
	w := commitdb.NewWriter(commitdb.Options{Connect: connect, Shards: shards, Holder: func() string { return holder }})
	h.t.Cleanup(w.Close)
	return w
}

func (h *house) log() *logdb.DB { return logdb.NewDB(h.db.DB, shards) }

// leases are ours until told otherwise.
type leases struct {
	mu    sync.Mutex
	moved map[shard.ID]shard.Epoch
	lost  map[shard.ID]bool
	valid func(shard.ID, shard.Epoch) bool
}

func (l *leases) Valid(s shard.ID, e shard.Epoch) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.lost[s] && (l.valid == nil || l.valid(s, e))
}

func (l *leases) Moved(s shard.ID, _, to shard.Epoch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.moved == nil {
		l.moved = map[shard.ID]shard.Epoch{}
	}
	l.moved[s] = to
}

func (l *leases) Lost(s shard.ID, _ shard.Epoch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost == nil {
		l.lost = map[shard.ID]bool{}
	}
	l.lost[s] = true
}

type acker struct{}

func (acker) Publish(_ shard.ID, _ []byte, acked func(error)) { acked(nil) }

// committer starts a committer with all shards open under epoch.
func (h *house) committer(w *commitdb.Writer, l *leases, epoch shard.Epoch) *commit.Committer {
	h.t.Helper()
	c := commit.New(commit.Config{}, commit.Options{Store: w, Publisher: acker{}, Leases: l})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	require.NoError(h.t, c.Start(ctx))
	h.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = c.Stop(ctx)
	})
	for s := range shards {
		require.NoError(h.t, c.Open(ctx, shard.ID(s), epoch))
	}
	return c
}

// message is a proposal of an event with its row.
func message(s shard.ID, epoch shard.Epoch, n int64, key string) *entry.Proposal {
	nid, room := shard.MakeNid(s, n), shard.MakeNid(s, 1)
	json := []byte(fmt.Sprintf(`{"n":%d,"pad":"%0850d"}`, n, 0))
	p := &entry.Proposal{
		Shard: s, Epoch: epoch, Result: []byte(fmt.Sprintf("$%d", n)),
		Entries: []entry.Entry{{Kind: entry.KindEvent, Room: room, Event: nid, Body: []byte("body"), JSON: json}},
		Rows: []entry.Row{&roomdb.Event{
			Nid: nid, Room: room, Order: roomdb.Live(0), EventID: fmt.Sprintf("$%d", n), Type: shard.MakeNid(s, 7),
			Sender: shard.MakeNid(s, 8), TS: n, JSON: json,
		}},
	}
	if key != "" {
		p.Key = []byte(key)
	}
	return p
}

func wait(t testing.TB, tk *commit.Ticket) (commit.Outcome, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	out, err := tk.Wait(ctx)
	require.NoError(t, ctx.Err(), "no answer")
	return out, err
}

const (
	timeout = 20 * time.Second
	tick    = 5 * time.Millisecond
)
