package pg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Mode says what a private server may lose.
type Mode int

const (
	// Durable is PostgreSQL as it should be: nothing committed is lost.
	Durable Mode = iota
	// Crashable survives SIGKILL of the server but not of the machine: it
	// writes at each commit and never syncs. For tests that kill the server.
	Crashable
	// Disposable may lose anything when it is killed. For tests.
	Disposable
)

// LauncherConfig describes a private server.
type LauncherConfig struct {
	// DataDir is created and initialised if it is absent or empty. Required.
	DataDir string
	// BinDir holds initdb and postgres. Empty: the system's are looked for.
	BinDir string
	// Database is created if it does not exist. Default "heddle".
	Database string
	// Mode: see there.
	Mode Mode
	// Settings are further server settings.
	Settings map[string]string
	// StartTimeout bounds initialisation, recovery and start. Default 60s.
	StartTimeout time.Duration
	// Logger gets the server's log: warnings and worse as warnings, the rest at
	// debug level. May be nil.
	Logger *slog.Logger
}

// launcherUser is the superuser and owner of the database.
const launcherUser = "heddle"

// Launcher runs a PostgreSQL server for this process alone: on a unix socket
// that only its owner can reach, as an unprivileged user if this process is
// root, and never longer than this process lives.
//
// It has the shape of a lifecycle.Service. After Stop, Kill or the server's own
// end, Start may be called again.
type Launcher struct {
	cfg   LauncherConfig
	log   *slog.Logger
	owner owner

	mu        sync.Mutex // guards what follows; held by Start and Stop throughout
	proc      *serverProcess
	socketDir string // of the latest start
}

// NewLauncher checks the configuration; it starts nothing.
func NewLauncher(cfg LauncherConfig) (*Launcher, error) {
	if cfg.DataDir == "" {
		return nil, errors.New("private PostgreSQL: data directory must be set")
	}
	dir, err := filepath.Abs(cfg.DataDir)
	if err != nil {
		return nil, fmt.Errorf("private PostgreSQL: data directory: %w", err)
	}
	cfg.DataDir = dir
	setDefault(&cfg.Database, "heddle")
	setDefault(&cfg.StartTimeout, time.Minute)
	own, err := serverOwner()
	if err != nil {
		return nil, fmt.Errorf("private PostgreSQL: %w", err)
	}
	l := &Launcher{cfg: cfg, log: cfg.Logger, owner: own}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	return l, nil
}

// Start initialises the data directory if need be, starts the server and
// returns when the database can be used.
func (l *Launcher) Start(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.proc != nil && !l.proc.exited() {
		return errors.New("private PostgreSQL: already started")
	}
	ctx, cancel := context.WithTimeout(ctx, l.cfg.StartTimeout)
	defer cancel()
	if err := l.start(ctx); err != nil {
		return fmt.Errorf("private PostgreSQL in %s: %w", l.cfg.DataDir, err)
	}
	return nil
}

func (l *Launcher) start(ctx context.Context) error {
	bin, err := findServer(ctx, l.cfg.BinDir, l.cfg.DataDir)
	if err != nil {
		return err
	}
	if err := l.prepareDataDir(ctx, bin); err != nil {
		return err
	}
	if err := clearStale(ctx, l.cfg.DataDir, l.log); err != nil {
		return err
	}
	for {
		proc, err := l.spawn(bin)
		if err != nil {
			return err
		}
		err = l.awaitReady(ctx, proc)
		if err == nil {
			l.proc = proc
			return nil
		}
		proc.stop(syscall.SIGQUIT)
		// Backends of a killed server end on their own, a little after it.
		if ctx.Err() == nil && strings.Contains(proc.tail.String(), "pre-existing shared memory block") {
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
				continue
			}
		}
		if tail := proc.tail.String(); tail != "" {
			return fmt.Errorf("%w; its log ends:\n%s", err, tail)
		}
		return err
	}
}

// Stop shuts the server down (fast: open transactions are rolled back) and
// waits for it. When ctx ends first it is stopped the hard way, to recover at
// the next start. Stop is idempotent.
func (l *Launcher) Stop(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.proc == nil {
		return nil
	}
	p := l.proc
	l.proc = nil
	p.signal(syscall.SIGINT)
	select {
	case <-p.done:
		p.cleanup()
		return nil
	case <-ctx.Done():
		p.stop(syscall.SIGQUIT)
		return fmt.Errorf("stop private PostgreSQL: %w", ctx.Err())
	}
}

// Kill ends the server with SIGKILL and waits for it, for tests of a crash.
func (l *Launcher) Kill() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.proc != nil {
		l.proc.stop(syscall.SIGKILL)
		l.proc = nil
	}
}

// Pause stops (SIGSTOP) the server's first process, which accepts connections,
// for tests; Resume continues it. Sessions that exist go on.
func (l *Launcher) Pause() { l.signal(syscall.SIGSTOP) }

// Resume undoes Pause.
func (l *Launcher) Resume() { l.signal(syscall.SIGCONT) }

func (l *Launcher) signal(sig syscall.Signal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.proc != nil {
		l.proc.signal(sig)
	}
}

// Done is closed when the running server has ended, whoever ended it. It is
// nil when none runs.
func (l *Launcher) Done() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.proc == nil {
		return nil
	}
	return l.proc.done
}

// DSN is how to connect to database of the running server; empty means the
// configured one. It stays the same across restarts by this Launcher.
func (l *Launcher) DSN(database string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.proc == nil {
		return ""
	}
	if database == "" {
		database = l.cfg.Database
	}
	return l.proc.dsn(database)
}

// serverProcess is one run of postgres.
type serverProcess struct {
	cmd       *exec.Cmd
	socketDir string
	tail      *logTail
	done      chan struct{} // closed when the process was waited for
}

func (p *serverProcess) dsn(database string) string {
	return "host=" + p.socketDir + " port=5432 user=" + launcherUser + " dbname=" + database + " sslmode=disable"
}

func (p *serverProcess) exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *serverProcess) signal(sig syscall.Signal) {
	if !p.exited() {
		_ = p.cmd.Process.Signal(sig) // it may have ended meanwhile: that is what is wanted
	}
}

func (p *serverProcess) stop(sig syscall.Signal) {
	p.signal(sig)
	<-p.done
	p.cleanup()
}

func (p *serverProcess) cleanup() { _ = os.RemoveAll(p.socketDir) }

func (l *Launcher) spawn(bin string) (*serverProcess, error) {
	socketDir, err := l.makeSocketDir()
	if err != nil {
		return nil, err
	}
	args := []string{
		"-k", socketDir,
		"-c", "listen_addresses=", "-c", "port=5432", "-c", "unix_socket_permissions=0700",
		"-c", "logging_collector=off", "-c", "log_destination=stderr",
	}
	for k, v := range l.settings() {
		args = append(args, "-c", k+"="+v)
	}
	cmd, release, err := l.command(l.cfg.DataDir, bin, "postgres", args...)
	if err != nil {
		return nil, err
	}
	defer release()
	p := &serverProcess{
		cmd: cmd, socketDir: socketDir, done: make(chan struct{}),
		tail: &logTail{log: l.log},
	}
	cmd.Stderr = p.tail
	// Backends hold the pipe open for as long as they outlive a killed server.
	cmd.WaitDelay = 2 * time.Second
	started := make(chan error)
	go func() {
		// The kernel sends the parent-death signal when the *thread* that forked
		// ends, so one is kept for as long as the server runs.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in its log
		}
	}()
	if err := <-started; err != nil {
		<-p.done
		p.cleanup()
		return nil, fmt.Errorf("start postgres: %w", err)
	}
	return p, nil
}

func (l *Launcher) settings() map[string]string {
	s := map[string]string{"max_connections": "200"}
	switch l.cfg.Mode {
	case Durable:
		s["fsync"], s["synchronous_commit"], s["full_page_writes"] = "on", "on", "on"
	case Disposable, Crashable:
		s["fsync"], s["full_page_writes"] = "off", "off"
		s["synchronous_commit"] = "on"
		if l.cfg.Mode == Disposable {
			s["synchronous_commit"] = "off"
		}
		s["max_wal_size"] = "256MB"
		s["shared_buffers"] = "64MB"
		s["autovacuum_naptime"] = "10min"
		s["max_connections"] = "300"
	}
	for k, v := range l.cfg.Settings {
		s[k] = v
	}
	return s
}

// command prepares a server program that runs as the owner on the data
// directory. release is to be called once the program has been started.
func (l *Launcher) command(dir, bin, name string, args ...string) (_ *exec.Cmd, release func(), _ error) {
	release = func() {}
	cmd := exec.Command(filepath.Join(bin, name)) //nolint:noctx // the server outlives the call; Stop ends it
	if l.owner.switchUser && runtime.GOOS == "linux" {
		// The owner may not be able to walk to the directory (/root is closed to
		// it on most systems), so it gets the open directory and not its path.
		f, err := os.Open(dir)
		if err != nil {
			return nil, nil, err
		}
		cmd.ExtraFiles = []*os.File{f}
		dir = "/proc/self/fd/3"
		release = func() { _ = f.Close() }
	}
	cmd.Args = append(cmd.Args, append([]string{"-D", dir}, args...)...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC", "PGTZ=UTC"}
	death := syscall.SIGINT
	if l.cfg.Mode != Durable {
		death = syscall.SIGQUIT
	}
	cmd.SysProcAttr = l.owner.sysProcAttr(death)
	return cmd, release, nil
}

// makeSocketDir makes a directory that only the owner can enter: the same at
// each start, if nobody took the name meanwhile, so that clients can connect
// again. A socket's path is limited to about 100 bytes, hence not inside the
// data directory, and not below a temporary directory that is long or that not
// everybody can enter.
func (l *Launcher) makeSocketDir() (string, error) {
	if l.socketDir == "" || os.Mkdir(l.socketDir, 0o700) != nil {
		base := os.TempDir()
		if len(base) > 60 || (l.owner.switchUser && !entered(base)) {
			base = "/tmp"
		}
		sweepSocketDirs(base)
		dir, err := os.MkdirTemp(base, socketDirPrefix) // mode 0700
		if err != nil {
			return "", fmt.Errorf("make socket directory: %w", err)
		}
		l.socketDir = dir
	}
	return l.socketDir, l.owner.chown(l.socketDir)
}

// entered tells whether everybody may pass through a directory and all above it: the server may run as another user.
func entered(dir string) bool {
	for {
		info, err := os.Stat(dir)
		if err != nil || info.Mode()&0o001 == 0 {
			return false
		}
		above := filepath.Dir(dir)
		if above == dir {
			return true
		}
		dir = above
	}
}

// awaitReady returns when the database can be used, the server has ended, or
// ctx has.
func (l *Launcher) awaitReady(ctx context.Context, p *serverProcess) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ensureDatabase(ctx, p.dsn("postgres"), l.cfg.Database)
		if err == nil {
			return nil
		}
		if !IsConnection(err) && ctx.Err() == nil {
			return err
		}
		select {
		case <-p.done:
			return errors.New("postgres ended while starting")
		case <-ctx.Done():
			return fmt.Errorf("not ready in time: %w", errors.Join(ctx.Err(), err))
		case <-tick.C:
		}
	}
}

func ensureDatabase(ctx context.Context, dsn, name string) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var exists bool
	err = conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name).Scan(&exists)
	if err != nil || exists {
		return err
	}
	_, err = conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize())
	if hasCode(err, "42P04") { // made by another process meanwhile
		err = nil
	}
	return err
}

// logTail passes the server's log on and keeps its end.
type logTail struct {
	log *slog.Logger

	mu      sync.Mutex // guards what follows
	partial []byte
	lines   []string
}

const tailLines = 20

var _ io.Writer = (*logTail)(nil)

func (t *logTail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.partial = append(t.partial, b...)
	for {
		line, rest, found := strings.Cut(string(t.partial), "\n")
		if !found {
			return len(b), nil
		}
		t.partial = []byte(rest)
		t.lines = append(t.lines, line)
		if len(t.lines) > tailLines {
			t.lines = t.lines[1:]
		}
		level := slog.LevelDebug
		switch {
		case strings.Contains(line, "FATAL:  the database system is starting up"): // we asked whether it is there
		case strings.Contains(line, "WARNING:"), strings.Contains(line, "FATAL:"), strings.Contains(line, "PANIC:"):
			level = slog.LevelWarn
		}
		t.log.Log(context.Background(), level, "postgres: "+line)
	}
}

func (t *logTail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.lines, "\n")
}
