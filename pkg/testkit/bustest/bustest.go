// Package bustest gives tests real NATS servers.
//
// New runs one inside the test process that nothing else can reach; Listen one
// on a port of its own that can be stopped and started again there, to lose
// the connection. Both keep streams in memory, so that a stop loses them, and
// end with the test.
//
// All functions are safe for parallel tests. Only _test files and other
// packages of the test kit may import it.
package bustest

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/infra/bus"
	"github.com/heddle-im/heddle/pkg/infra/bus/embedded"
)

const timeout = 20 * time.Second

// Server is a NATS server for one test.
type Server struct {
	*embedded.Server
	t testing.TB
}

// New starts a server that only this process can reach.
func New(t testing.TB) *Server {
	t.Helper()
	return start(t, embedded.Config{})
}

// Listen starts a server on a loopback port.
func Listen(t testing.TB) *Server {
	t.Helper()
	return start(t, embedded.Config{Listen: "127.0.0.1:0"})
}

func start(t testing.TB, cfg embedded.Config) *Server {
	t.Helper()
	cfg.Scratch = filepath.Join(t.TempDir(), "nats")
	s := &Server{Server: embedded.NewServer(cfg), t: t}
	s.Start()
	t.Cleanup(s.Stop)
	return s
}

// Start starts the server again, where it was, after Stop.
func (s *Server) Start() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	require.NoError(s.t, s.Server.Start(ctx))
}

// Stop stops the server, which loses its streams.
func (s *Server) Stop() {
	s.t.Helper()
	require.NoError(s.t, s.Server.Stop(context.Background()))
}

// Connect returns a Bus on the server, closed when the test ends.
func (s *Server) Connect(streams ...bus.Stream) *bus.Bus {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	opts := bus.Options{Streams: streams}
	if s.URL() == "" {
		opts.Server = s.Server
	}
	b, err := bus.Connect(ctx, bus.Config{URL: s.URL()}, opts)
	require.NoError(s.t, err)
	s.t.Cleanup(b.Close)
	return b
}
