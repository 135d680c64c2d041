// Package redistest gives a test a real Redis server of its own.
//
// New starts redis-server on a unix socket, without persistence; it ends with
// the test, or with the test process. Without the program a test fails and
// says what to install.
//
// All functions are safe for parallel tests. Only _test files and other
// packages of the test kit may import it.
package redistest

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Server is a Redis server for one test.
type Server struct {
	// URL reaches it, across restarts.
	URL string

	t      testing.TB
	dir    string
	socket string
	cmd    *exec.Cmd
	done   chan struct{}
}

// New starts a server, stopped when the test ends.
func New(t testing.TB) *Server {
	t.Helper()
	// Not t.TempDir: a socket's path is limited to about 100 bytes.
	dir, err := os.MkdirTemp("", "heddle-redis-") //nolint:usetesting // see above
	require.NoError(t, err)
	s := &Server{t: t, dir: dir, socket: filepath.Join(dir, "s")}
	s.URL = "unix://" + s.socket
	t.Cleanup(func() {
		s.Stop()
		require.NoError(t, os.RemoveAll(dir))
	})
	s.Start()
	return s
}

// Start starts the server again, empty, after Stop.
func (s *Server) Start() {
	s.t.Helper()
	program, err := exec.LookPath("redis-server")
	require.NoError(s.t, err, "install redis-server (Debian, Ubuntu: apt install redis-server)")
	cmd := exec.Command(program, "--port", "0", "--unixsocket", s.socket, "--save", "", "--appendonly", "no",
		"--dir", s.dir, "--databases", "1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	started, done := make(chan error), make(chan struct{})
	go func() {
		// The parent-death signal comes when the thread that forked ends, so
		// one is kept.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(done)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // killed, most likely
		}
	}()
	require.NoError(s.t, <-started)
	s.cmd, s.done = cmd, done
	deadline := time.After(20 * time.Second)
	for {
		if c, err := net.Dial("unix", s.socket); err == nil {
			require.NoError(s.t, c.Close())
			return
		}
		select {
		case <-done:
			require.FailNow(s.t, "redis-server ended", out.String())
		case <-deadline:
			require.FailNow(s.t, "redis-server is not ready")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Stop kills the server, which loses all it holds. It is idempotent.
func (s *Server) Stop() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	<-s.done
	s.cmd = nil
	_ = os.Remove(s.socket)
}

// Pause makes the server hang (SIGSTOP): connections stay, answers do not come.
func (s *Server) Pause() {
	s.t.Helper()
	require.NoError(s.t, s.cmd.Process.Signal(syscall.SIGSTOP))
}

// Resume undoes Pause.
func (s *Server) Resume() {
	s.t.Helper()
	require.NoError(s.t, s.cmd.Process.Signal(syscall.SIGCONT))
}
