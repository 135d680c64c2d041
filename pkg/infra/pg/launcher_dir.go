package pg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// MinServerMajor is the oldest PostgreSQL that is supported.
	MinServerMajor  = 15
	socketDirPrefix = "heddle-pg-"
)

// ErrNoServer is wrapped when the machine has no PostgreSQL server binaries.
var ErrNoServer = errors.New("no PostgreSQL server found")

// findServer returns the directory with initdb and postgres: the one given,
// else the newest on the system, or the one of the version that initialised
// the data directory.
func findServer(ctx context.Context, binDir, dataDir string) (string, error) {
	want := 0
	if b, err := os.ReadFile(filepath.Join(dataDir, "PG_VERSION")); err == nil {
		want, _ = strconv.Atoi(strings.TrimSpace(string(b)))
	}
	dirs := serverDirs(ctx)
	if binDir != "" {
		dirs = []string{binDir}
	}
	best, bestMajor, found := "", 0, []string{}
	for _, d := range dirs {
		major := serverMajor(ctx, d)
		if major == 0 {
			continue
		}
		found = append(found, fmt.Sprintf("%s (%d)", d, major))
		if want != 0 && major == want {
			return d, nil
		}
		if major > bestMajor {
			best, bestMajor = d, major
		}
	}
	switch {
	case best == "":
		return "", fmt.Errorf("%w in %s: install it (Debian, Ubuntu: apt install postgresql; Fedora: dnf install postgresql-server)",
			ErrNoServer, strings.Join(dirs, ", "))
	case want != 0:
		return "", fmt.Errorf("the data was made by PostgreSQL %d, but only %s is installed: install postgresql-%d",
			want, strings.Join(found, ", "), want)
	case bestMajor < MinServerMajor:
		return "", fmt.Errorf("PostgreSQL %d or later is needed, but only %s is installed",
			MinServerMajor, strings.Join(found, ", "))
	}
	return best, nil
}

func serverDirs(ctx context.Context) []string {
	var dirs []string
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin", "/opt/homebrew/opt/postgresql*/bin"} {
		m, _ := filepath.Glob(pattern) // the patterns are well formed
		dirs = append(dirs, m...)
	}
	if p, err := exec.LookPath("postgres"); err == nil {
		if p, err = filepath.EvalSymlinks(p); err == nil {
			dirs = append(dirs, filepath.Dir(p))
		}
	}
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	if len(dirs) == 0 {
		dirs = append(dirs, "/usr/lib/postgresql/*/bin")
	}
	return dirs
}

// serverMajor is the major version of the server in dir, 0 if there is none.
func serverMajor(ctx context.Context, dir string) int {
	if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
		return 0
	}
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return 0
	}
	m := regexp.MustCompile(`\(PostgreSQL\) (\d+)`).FindSubmatch(out)
	if m == nil {
		return 0
	}
	major, _ := strconv.Atoi(string(m[1])) // digits, by the expression
	return major
}

// owner is the user that the server runs as.
type owner struct {
	uid, gid   int
	switchUser bool
}

// serverOwner: PostgreSQL refuses to run as root, so root hands it to postgres
// or, without such a user, to nobody.
func serverOwner() (owner, error) {
	if os.Geteuid() != 0 {
		return owner{uid: os.Geteuid(), gid: os.Getegid()}, nil
	}
	var lookup error
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			lookup = errors.Join(lookup, err)
			continue
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err := errors.Join(err1, err2); err != nil {
			return owner{}, fmt.Errorf("user %s: %w", name, err)
		}
		return owner{uid: uid, gid: gid, switchUser: true}, nil
	}
	return owner{}, fmt.Errorf("running as root, and there is no other user to run it as: %w", lookup)
}

func (o owner) chown(path string) error {
	if !o.switchUser {
		return nil
	}
	if err := os.Lchown(path, o.uid, o.gid); err != nil {
		return fmt.Errorf("give %s to the server's user: %w", path, err)
	}
	return nil
}

// prepareDataDir makes sure that the data directory is initialised and the
// owner's. An initialisation that was cut short leaves nothing behind that a
// later start would take for data.
func (l *Launcher) prepareDataDir(ctx context.Context, bin string) error {
	dir := l.cfg.DataDir
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "PG_VERSION")); err == nil {
		return l.fixOwner(dir)
	}
	if len(entries) > 0 {
		return errors.New("the directory is not empty, and not a PostgreSQL data directory")
	}
	return l.initdb(ctx, bin)
}

func (l *Launcher) initdb(ctx context.Context, bin string) error {
	tmp := l.cfg.DataDir + ".init"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	if err := l.owner.chown(tmp); err != nil {
		return err
	}
	args := []string{
		"--username=" + launcherUser, "--encoding=UTF8", "--locale=C",
		"--auth=trust", // the socket's directory is the lock: only the owner and root can enter it
		"--no-instructions",
	}
	if l.cfg.Mode == Durable {
		args = append(args, "--data-checksums")
	} else {
		args = append(args, "--no-sync", "--wal-segsize=4")
	}
	cmd, release, err := l.command(tmp, bin, "initdb", args...)
	if err != nil {
		return err
	}
	defer release()
	// Not bound to a thread as the server is: a signal too many only costs a
	// start that is tried again.
	out, err := runUntil(ctx, cmd)
	if err != nil {
		return fmt.Errorf("initdb: %w; it said:\n%s", err, lastLines(out, tailLines))
	}
	if err := os.Remove(l.cfg.DataDir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // an empty directory that was given
	}
	return os.Rename(tmp, l.cfg.DataDir)
}

func runUntil(ctx context.Context, cmd *exec.Cmd) (string, error) {
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	err := cmd.Wait()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return out.String(), err
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// fixOwner gives a data directory that belongs to somebody else (it was made
// on another machine, or by another way of starting) to the server's user.
func (l *Launcher) fixOwner(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) == l.owner.uid {
		return nil
	}
	if !l.owner.switchUser {
		return fmt.Errorf("the directory belongs to another user: chown it to uid %d", l.owner.uid)
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return l.owner.chown(path)
	})
}

// sweepSocketDirs removes what processes that were killed left behind: empty
// directories that are too old to be one that a server is about to use. A
// running server's is not empty.
func sweepSocketDirs(base string) {
	dirs, _ := filepath.Glob(filepath.Join(base, socketDirPrefix+"*")) // the pattern is well formed
	for _, dir := range dirs {
		if info, err := os.Lstat(dir); err == nil && info.IsDir() && time.Since(info.ModTime()) > 10*time.Minute {
			_ = os.Remove(dir) // only litter; fails if it is in use
		}
	}
}

// clearStale deals with the lock file that a server leaves when it is killed.
// PostgreSQL does so too, except that it takes any process that has the old
// one's pid and its own user for a running server, and pids are soon used
// again in a container.
func clearStale(ctx context.Context, dir string, log *slog.Logger) error {
	path := filepath.Join(dir, "postmaster.pid")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	lines := strings.Split(string(b), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil || pid <= 0 {
		return fmt.Errorf("%s is damaged: remove it if no server runs", path)
	}
	if len(lines) > 4 && strings.HasPrefix(filepath.Base(lines[4]), socketDirPrefix) {
		defer func() {
			if err == nil {
				_ = os.RemoveAll(lines[4]) // left by the killed server; only litter
			}
		}()
	}
	// One that is ending, its owner having died, is waited for.
	for {
		switch serverState(pid, dir) {
		case stateGone:
			if err = os.Remove(path); errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
			return err
		case stateUnclear:
			return nil // PostgreSQL's own check decides
		}
		log.Debug("waiting for an earlier private PostgreSQL to end", "pid", pid)
		select {
		case <-ctx.Done():
			err = fmt.Errorf("a server (pid %d) already runs on it: %w", pid, ctx.Err())
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

const (
	stateGone = iota
	stateUnclear
	stateRuns
)

// serverState says whether pid is a server on dir. A server's working
// directory is its data directory; another process's is not.
func serverState(pid int, dir string) int {
	if _, err := os.Stat("/proc/self/cwd"); err != nil {
		return stateUnclear // not Linux
	}
	cwd, err := os.Stat(fmt.Sprintf("/proc/%d/cwd", pid))
	if errors.Is(err, fs.ErrNotExist) {
		return stateGone
	}
	data, err2 := os.Stat(dir)
	switch {
	case err != nil || err2 != nil:
		return stateUnclear
	case os.SameFile(cwd, data):
		return stateRuns
	}
	return stateGone
}
