// Package fedtest runs several homeservers in one process that federate with each other over real TLS, and a server that lies to
// them. The tests of federation live here.
//
// Each [Homeserver] has a database and a NATS server of its own and is reached through a link that can be broken. All of it ends with
// its test. Only _test files may import the package.
package fedtest

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/app"
	"github.com/heddle-im/heddle/pkg/app/buildinfo"
	"github.com/heddle-im/heddle/pkg/config"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/testkit/bustest"
	"github.com/heddle-im/heddle/pkg/testkit/certtest"
	"github.com/heddle-im/heddle/pkg/testkit/fleettest"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
)

// patience is how long anything may take.
const patience = 60 * time.Second

// Homeserver is a homeserver of one worker or several.
type Homeserver struct {
	Name id.ServerName
	// Link is what other servers reach it by.
	Link *fleettest.Link
	// Config is what its workers are started with.
	Config config.Config
	DB     *pgtest.DB
	NATS   *bustest.Server
	// URL is where its clients reach it: the worker that was started last, unless Front said otherwise.
	URL string

	t       testing.TB
	mu      sync.Mutex // guards all below
	front   string
	workers []*Worker
}

// Worker is a worker of a homeserver.
type Worker struct {
	*app.App
	Kind app.Kind
	// TLS is where it listens for other servers, Ops where it tells how it is.
	TLS, Ops string

	t    testing.TB
	once sync.Once
	mu   sync.Mutex // guards said
	said bytes.Buffer
}

// NewHomeserver makes a homeserver that no worker serves yet. Its name is host, which must be a way to call this machine, with a port.
func NewHomeserver(t testing.TB, ca *certtest.Authority, host string) *Homeserver {
	t.Helper()
	h := &Homeserver{t: t, DB: pgtest.New(t), NATS: bustest.Listen(t)}
	h.Link = fleettest.NewLink(t, host, func() (net.Conn, error) {
		h.mu.Lock()
		to := h.front
		h.mu.Unlock()
		return net.DialTimeout("tcp", to, patience)
	})
	_, port, err := net.SplitHostPort(h.Link.Addr)
	require.NoError(t, err)
	h.Name = id.ServerName(net.JoinHostPort(host, port))

	dir := t.TempDir()
	c := config.Default(false)
	c.ServerName, c.DataDir, c.Media.Path = string(h.Name), dir, filepath.Join(dir, "media")
	c.Database.DSN, c.Nats.URL, c.Shards = h.DB.DSN, h.NATS.URL(), 4
	c.Registration.Enabled, c.RateLimits.Enabled = true, false
	c.Listen.TLS.Cert, c.Listen.TLS.Key = ca.Certificate(host)
	c.Federation.CAFile = ca.File
	c.Federation.AllowNetworks = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	c.SigningKeyPath = filepath.Join(dir, "signing.key")
	_, err = app.CreateSigningKey(c.SigningKeyPath)
	require.NoError(t, err)
	h.Config = c
	return h
}

// Run makes a homeserver that is one process.
func Run(t testing.TB, ca *certtest.Authority, host string) *Homeserver {
	t.Helper()
	h := NewHomeserver(t, ca, host)
	h.Start(app.AllInOne, "one")
	return h
}

// Start starts a worker, which other servers and clients reach from now on.
func (h *Homeserver) Start(kind app.Kind, name string) *Worker {
	h.t.Helper()
	cfg := h.Config
	cfg.Instance = name
	cfg.Listen.HTTP, cfg.Listen.Ops, cfg.Listen.TLS.Address = fleettest.FreeAddr(h.t), fleettest.FreeAddr(h.t), fleettest.FreeAddr(h.t)
	w := &Worker{t: h.t, Kind: kind, TLS: cfg.Listen.TLS.Address, Ops: cfg.Listen.Ops}
	var err error
	w.App, err = app.New(h.t.Context(), cfg, app.Options{Kind: kind, Build: buildinfo.Info{Version: "v1"}, LogTo: w})
	require.NoError(h.t, err)
	require.NoError(h.t, w.App.Start(h.t.Context()))
	h.t.Cleanup(func() {
		w.Stop()
		if h.t.Failed() {
			h.t.Logf("--- %s %s\n%s", h.Name, name, w.Said(40))
		}
	})
	h.mu.Lock()
	h.workers = append(h.workers, w)
	h.mu.Unlock()
	h.Front(w)
	w.awaitReady()
	return w
}

// Front has other servers and clients reach a worker.
func (h *Homeserver) Front(w *Worker) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.front, h.URL = w.TLS, w.App.URL()
}

func (w *Worker) awaitReady() {
	w.t.Helper()
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	require.Eventually(w.t, func() bool {
		resp, err := client.Get("http://" + w.Ops + "/readyz")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}, patience, 20*time.Millisecond)
}

// Stop stops the worker in order.
func (w *Worker) Stop() {
	w.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := w.App.Stop(ctx); err != nil {
			w.t.Errorf("stop: %v", err)
		}
	})
}

// Write takes what the worker logs.
func (w *Worker) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.said.Write(b)
}

// Said gives the last lines of the worker's log.
func (w *Worker) Said(lines int) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := strings.Split(strings.TrimRight(w.said.String(), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// Staged counts the events that wait to be brought to their rooms.
func (h *Homeserver) Staged(t testing.TB) (n int) {
	t.Helper()
	require.NoError(t, h.DB.Pool.QueryRow(t.Context(), "SELECT count(*) FROM staged_pdu").Scan(&n))
	return n
}
