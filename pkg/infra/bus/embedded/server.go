// Package embedded is a NATS server inside the process, for the all-in-one and for tests. It is apart from package bus so that the
// workers, which are given a NATS server, do not carry one: it is a tenth of a program's size, and so of an idle worker's memory.
//
// A Server may be used by several goroutines. Only the programs that embed it and the test kit may import it.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// Config describes a NATS server inside this process.
type Config struct {
	// Listen is host:port for other processes, port 0 for any. Empty: only this
	// process can connect.
	Listen string
	// StoreDir holds file streams. Empty: Scratch; memory streams need no more.
	StoreDir string
	// Scratch is a directory for what the server writes and nobody needs again:
	// made anew by Start, removed on Stop. Nobody else may use it. Empty: a
	// temporary directory, which stays behind if the process is killed.
	Scratch string
	// MaxMemory and MaxStore bound JetStream. Default 256 MiB and 1 GiB.
	MaxMemory, MaxStore int64
	// Logger gets the server's warnings and errors. May be nil.
	Logger *slog.Logger
}

// MaxPayload is the largest message that the embedded server takes, as NATS's
// own default.
const MaxPayload = 1 << 20

// Server is a NATS server inside this process. It has the shape of a
// lifecycle.Service, and can be started again after Stop.
type Server struct {
	cfg Config

	mu      sync.Mutex // guards what follows; held throughout Start and Stop
	srv     *natsserver.Server
	tempDir string
	addr    string // where it listened first, to listen there again
}

// NewServer returns a server that is not started.
func NewServer(cfg Config) *Server {
	if cfg.MaxMemory == 0 {
		cfg.MaxMemory = 256 << 20
	}
	if cfg.MaxStore == 0 {
		cfg.MaxStore = 1 << 30
	}
	return &Server{cfg: cfg, addr: cfg.Listen}
}

// Start starts the server and returns when it takes connections.
func (s *Server) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.srv != nil {
		return errors.New("embedded NATS: already started")
	}
	if err := s.start(ctx); err != nil {
		return fmt.Errorf("embedded NATS: %w", err)
	}
	return nil
}

func (s *Server) start(ctx context.Context) (err error) {
	opts := &natsserver.Options{
		ServerName: "heddle-embedded",
		DontListen: s.addr == "",
		NoSigs:     true,
		JetStream:  true,
		MaxPayload: MaxPayload,
		StoreDir:   s.cfg.StoreDir,

		JetStreamMaxMemory: s.cfg.MaxMemory,
		JetStreamMaxStore:  s.cfg.MaxStore,
		NoSystemAccount:    true,
	}
	if s.addr != "" {
		host, port, err := net.SplitHostPort(s.addr)
		if err != nil {
			return fmt.Errorf("listen address: %w", err)
		}
		if opts.Port, err = strconv.Atoi(port); err != nil {
			return fmt.Errorf("listen address: %w", err)
		}
		if opts.Port == 0 {
			opts.Port = natsserver.RANDOM_PORT
		}
		opts.Host = host
	}
	if opts.StoreDir == "" {
		if err := s.makeTemp(); err != nil {
			return err
		}
		opts.StoreDir = s.tempDir
	}
	srv, err := natsserver.NewServer(opts)
	if err != nil {
		return errors.Join(err, s.removeTemp())
	}
	if s.cfg.Logger != nil {
		srv.SetLogger(serverLog{s.cfg.Logger}, false, false)
	}
	srv.Start()
	wait := 10 * time.Second
	if d, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(d))
	}
	if !srv.ReadyForConnections(wait) || !srv.JetStreamEnabled() {
		srv.Shutdown()
		srv.WaitForShutdown()
		return errors.Join(errors.New("did not become ready (is its address in use?)"), s.removeTemp())
	}
	if a, ok := srv.Addr().(*net.TCPAddr); ok {
		s.addr = net.JoinHostPort(opts.Host, strconv.Itoa(a.Port))
	}
	s.srv = srv
	return nil
}

// Stop shuts the server down and waits for it. It is idempotent.
func (s *Server) Stop(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.srv == nil {
		return nil
	}
	s.srv.Shutdown()
	s.srv.WaitForShutdown()
	s.srv = nil
	return s.removeTemp()
}

// makeTemp makes the directory of memory streams.
func (s *Server) makeTemp() (err error) {
	if s.cfg.Scratch == "" {
		s.tempDir, err = os.MkdirTemp("", "heddle-nats-")
		return err
	}
	if err := os.RemoveAll(s.cfg.Scratch); err != nil { // of a process that was killed
		return err
	}
	s.tempDir = s.cfg.Scratch
	return os.MkdirAll(s.tempDir, 0o700)
}

func (s *Server) removeTemp() error {
	if s.tempDir == "" {
		return nil
	}
	dir := s.tempDir
	s.tempDir = ""
	return os.RemoveAll(dir)
}

// URL is where other processes connect; empty if it does not listen.
func (s *Server) URL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.addr == "" {
		return ""
	}
	return "nats://" + s.addr
}

// InProcessConn lets a Bus of this process connect. Between Stop and Start it
// fails, as dialling would.
func (s *Server) InProcessConn() (net.Conn, error) {
	s.mu.Lock()
	srv := s.srv
	s.mu.Unlock()
	if srv == nil {
		return nil, errors.New("embedded NATS is not running")
	}
	return srv.InProcessConn()
}

// serverLog passes the server's log on.
type serverLog struct{ log *slog.Logger }

func (l serverLog) Noticef(f string, v ...any) { l.log.Debug("nats: " + fmt.Sprintf(f, v...)) }
func (l serverLog) Warnf(f string, v ...any)   { l.log.Warn("nats: " + fmt.Sprintf(f, v...)) }
func (l serverLog) Fatalf(f string, v ...any)  { l.log.Error("nats: " + fmt.Sprintf(f, v...)) }
func (l serverLog) Errorf(f string, v ...any)  { l.log.Error("nats: " + fmt.Sprintf(f, v...)) }
func (l serverLog) Debugf(string, ...any)      {}
func (l serverLog) Tracef(string, ...any)      {}
