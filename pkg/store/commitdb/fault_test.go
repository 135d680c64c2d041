package commitdb_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/shardlog/commit"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// cutter is a proxy before PostgreSQL that loses the connection at a COMMIT: before the server hears of it, or after it has been done
// and before the client does.
type cutter struct {
	t      testing.TB
	ln     net.Listener
	server func() (net.Conn, error)
	mode   atomic.Int32 // what to do at the next COMMIT
	cuts   atomic.Int32
	wg     sync.WaitGroup
}

const (
	cutNever int32 = iota
	cutBefore
	cutAfter
	// cutSilent forwards nothing more, and closes to the client only: the server's session stays, in its transaction.
	cutSilent
)

func newCutter(t testing.TB, cfg *pgx.ConnConfig) *cutter {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c := &cutter{t: t, ln: ln, server: func() (net.Conn, error) {
		if strings.HasPrefix(cfg.Host, "/") {
			return net.Dial("unix", cfg.Host+"/.s.PGSQL."+itoa(int(cfg.Port)))
		}
		return net.Dial("tcp", net.JoinHostPort(cfg.Host, itoa(int(cfg.Port))))
	}}
	c.wg.Go(func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			c.wg.Go(func() { c.serve(client) })
		}
	})
	return c
}

func itoa(n int) string {
	var b []byte
	for ; n > 0; n /= 10 {
		b = append([]byte{byte('0' + n%10)}, b...)
	}
	return string(b)
}

func (c *cutter) close() {
	_ = c.ln.Close()
	c.wg.Wait()
}

func (c *cutter) connect(cfg *pgx.ConnConfig) func(context.Context) (*pgx.Conn, error) {
	return func(ctx context.Context) (*pgx.Conn, error) {
		cfg := cfg.Copy()
		addr := c.ln.Addr().(*net.TCPAddr)
		cfg.Host, cfg.Port = addr.IP.String(), uint16(addr.Port)
		cfg.Fallbacks = nil
		return pgx.ConnectConfig(ctx, cfg)
	}
}

func (c *cutter) serve(client net.Conn) {
	defer client.Close()
	server, err := c.server()
	if err != nil {
		return
	}
	defer server.Close()
	var swallow atomic.Bool
	c.wg.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := server.Read(buf)
			if err != nil {
				_ = client.Close()
				return
			}
			if swallow.Load() {
				if bytes.Contains(buf[:n], []byte("COMMIT\x00")) { // it is done
					_ = client.Close()
					_ = server.Close()
					return
				}
				continue
			}
			if _, err := client.Write(buf[:n]); err != nil {
				return
			}
		}
	})
	buf := make([]byte, 256<<10)
	for {
		n, err := client.Read(buf)
		if err != nil {
			return
		}
		if bytes.Contains(buf[:n], []byte("COMMIT\x00")) && !swallow.Load() {
			switch mode := c.mode.Swap(cutNever); mode {
			case cutBefore:
				c.cuts.Add(1)
				return
			case cutAfter:
				c.cuts.Add(1)
				swallow.Store(true)
			case cutSilent:
				c.cuts.Add(1)
				_ = client.Close()
				_, _ = io.Copy(io.Discard, server) // until somebody ends the session
				return
			}
		}
		if _, err := server.Write(buf[:n]); err != nil {
			return
		}
	}
}

func TestConnectionCutDuringCommit(t *testing.T) {
	for name, mode := range map[string]int32{"not committed": cutBefore, "committed": cutAfter, "session hangs": cutSilent} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			cfg := h.db.Pool.Config().ConnConfig
			cut := newCutter(t, cfg)
			defer cut.close()
			w := h.writer("m1", cut.connect(cfg))
			defer w.Close()
			l := &leases{}
			c := h.committer(w, l, 1)
			_, err := wait(t, c.Submit(message(0, 1, 10, "")))
			require.NoError(t, err)

			cut.mode.Store(mode)
			chain := &entry.Chain{}
			p := message(1, 1, 11, "the key")
			p.Chain = chain
			tk := c.Submit(p)
			out, err := wait(t, tk)
			require.Equal(t, int32(1), cut.cuts.Load())
			if mode == cutAfter {
				require.NoError(t, err)
				require.Equal(t, shard.Pos(1), out.First)
			} else {
				require.ErrorIs(t, err, commit.ErrFenced)
				require.True(t, chain.Broken())
			}
			require.Eventually(t, func() bool {
				l.mu.Lock()
				defer l.mu.Unlock()
				return l.moved[1] == 2
			}, timeout, tick, "the owner is told of the new epoch")
			var epoch int64
			h.one(&epoch, `SELECT epoch FROM shard_lease WHERE shard = 1`)
			require.Equal(t, int64(2), epoch)

			// The old epoch writes no more; the command, asked again under the new one, has its effect once.
			_, err = wait(t, c.Submit(message(1, 1, 12, "")))
			require.ErrorIs(t, err, commit.ErrFenced)
			out, err = wait(t, c.Submit(message(1, 2, 13, "the key")))
			require.NoError(t, err)
			require.Equal(t, mode == cutAfter, out.Repeated)
			var n int
			h.one(&n, `SELECT count(*) FROM log WHERE shard = 1`)
			require.Equal(t, 1, n)
			// Shards that were not in the batch keep their epoch.
			_, err = wait(t, c.Submit(message(0, 1, 14, "")))
			require.NoError(t, err)
			var pid int32
			h.one(&pid, `SELECT holder_pid FROM shard_lease WHERE shard = 0`)
			s, err := w.Session(context.Background())
			require.NoError(t, err)
			require.Equal(t, s.PID, pid, "the new session stands on the lease rows")
		})
	}
}

// A batch without a log row is told from one that is not there by its transaction's id.
func TestConnectionCutDuringCommitOfRowsOnly(t *testing.T) {
	for _, mode := range []int32{cutBefore, cutAfter} {
		h := newHouse(t)
		cfg := h.db.Pool.Config().ConnConfig
		cut := newCutter(t, cfg)
		w := h.writer("m1", cut.connect(cfg))
		c := h.committer(w, &leases{}, 1)
		_, err := wait(t, c.Submit(message(0, 1, 10, "")))
		require.NoError(t, err)
		cut.mode.Store(mode)
		p := message(1, 1, 11, "")
		p.Entries = nil
		_, err = wait(t, c.Submit(p))
		if mode == cutAfter {
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, commit.ErrFenced)
		}
		w.Close()
		cut.close()
	}
}

// Another takes the shard while its writer does not know what became of its transaction.
func TestShardTakenWhileOutcomeIsUnknown(t *testing.T) {
	h := newHouse(t)
	cfg := h.db.Pool.Config().ConnConfig
	cut := newCutter(t, cfg)
	defer cut.close()
	var down atomic.Bool
	connect := cut.connect(cfg)
	w := h.writer("m1", func(ctx context.Context) (*pgx.Conn, error) {
		if down.Load() {
			return nil, io.ErrUnexpectedEOF
		}
		return connect(ctx)
	})
	defer w.Close()
	l := &leases{}
	c := h.committer(w, l, 1)
	down.Store(true)
	cut.mode.Store(cutAfter)
	tk := c.Submit(message(1, 1, 11, "the key"))
	require.Eventually(t, func() bool { return cut.cuts.Load() == 1 }, timeout, tick)
	h.exec(`UPDATE shard_lease SET epoch = epoch + 1, holder = 'm2' WHERE shard = 1`)
	down.Store(false)
	_, err := wait(t, tk)
	require.ErrorIs(t, err, commit.ErrUnknownOutcome, "it is there, but not ours to tell")
	require.Eventually(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.lost[1]
	}, timeout, tick)
}

func TestDatabaseGoneForAWhile(t *testing.T) {
	h := newHouse(t)
	var down atomic.Bool
	w := h.writer("m1", func(ctx context.Context) (*pgx.Conn, error) {
		if down.Load() {
			return nil, io.ErrUnexpectedEOF
		}
		return h.db.DB.Connect(ctx)
	})
	c := h.committer(w, &leases{}, 1)
	down.Store(true)
	s, err := w.Session(context.Background())
	require.NoError(t, err)
	h.exec(`SELECT pg_terminate_backend($1, 5000)`, s.PID)
	tk := c.Submit(message(1, 1, 11, ""))
	down.Store(false)
	out, err := wait(t, tk)
	require.NoError(t, err)
	require.Equal(t, shard.Pos(1), out.First)
}
