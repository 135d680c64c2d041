package app

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/app/buildinfo"
	"github.com/heddle-im/heddle/pkg/config"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/store/leasedb"
	"github.com/heddle-im/heddle/pkg/testkit/bustest"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
)

const patient = 30 * time.Second

// fleet is what workers of one homeserver stand on.
type fleet struct {
	cfg config.Config
	db  *pgtest.DB
	// reads is the feature level that the workers to be started read; 0: this release's.
	reads int32
	// passwords is what a password's hash costs the workers to be started; none: what it does elsewhere.
	passwords account.Argon2Params
	// hears is called with what the workers to be started hear of the log.
	hears func(follow.Batch)
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{cfg: config.Default(false), db: pgtest.New(t)}
	f.cfg.ServerName, f.cfg.Media.Path = "example.org", filepath.Join(t.TempDir(), "media")
	f.cfg.Database.DSN = f.db.DSN
	f.cfg.Nats.URL = bustest.Listen(t).URL()
	f.cfg.Shards = 4
	f.cfg.Registration.Enabled = true
	f.cfg.Log.Level = "debug"
	f.cfg.SigningKeyPath = filepath.Join(t.TempDir(), "signing.key")
	_, err := CreateSigningKey(f.cfg.SigningKeyPath)
	require.NoError(t, err)
	return f
}

// worker is a worker of a fleet, and what it wrote in its log.
type worker struct {
	*App
	mu   sync.Mutex // guards said
	said bytes.Buffer
	once sync.Once
}

func (w *worker) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.said.Write(b)
}

// lines gives the log's lines of a trace.
func (w *worker) lines(t *testing.T, trace string) (out []map[string]any) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for line := range strings.Lines(w.said.String()) {
		var m map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &m))
		if m["trace_id"] == trace {
			out = append(out, m)
		}
	}
	return out
}

// start starts a worker, which is stopped when the test ends if not before.
func (f *fleet) start(t *testing.T, kind Kind, name string) *worker {
	t.Helper()
	cfg := f.cfg
	cfg.Instance = name
	cfg.Listen.HTTP, cfg.Listen.Ops = freePort(t), freePort(t)
	w := &worker{}
	var err error
	w.App, err = New(t.Context(), cfg, Options{
		Kind: kind, Build: buildinfo.Info{Version: "v1"}, LogTo: w, Reads: f.reads, Hears: f.hears, Passwords: f.passwords,
	})
	require.NoError(t, err)
	require.NoError(t, w.Start(t.Context()))
	t.Cleanup(func() { w.stop(t) })
	return w
}

func (w *worker) stop(t *testing.T) {
	t.Helper()
	w.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patient)
		defer cancel()
		require.NoError(t, w.Stop(ctx))
	})
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return l.Addr().String()
}

// owns waits until each of the masters writes some shard and none is free, and returns who writes which.
func (f *fleet) owns(t *testing.T, masters ...string) (owners []string) {
	t.Helper()
	require.Eventually(t, func() bool {
		owners = nil
		has := map[string]bool{}
		rows, err := leasedb.New(f.db.Pool).AllLeases(t.Context())
		require.NoError(t, err)
		for _, r := range rows {
			if r.Role == leasedb.Writer {
				owners = append(owners, leasedb.InstanceOf(r.Holder))
				has[leasedb.InstanceOf(r.Holder)] = true
			}
		}
		return len(owners) == f.cfg.Shards && len(has) == len(masters) && !has[""]
	}, patient, 20*time.Millisecond)
	return owners
}

// call makes a request and returns the status, the answer and its headers.
func (w *worker) call(t *testing.T, method, path, token, body string) (int, map[string]any, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, w.URL()+path, strings.NewReader(body))
	require.NoError(t, err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patient}
	res, err := client.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	var out map[string]any
	if res.StatusCode != http.StatusNoContent {
		require.NoError(t, json.Unmarshal(b, &out), string(b))
	}
	return res.StatusCode, out, res.Header
}
