package pg

import (
	"os"
	"path/filepath"
	"strings"
)

// RunningDSN is how another process reaches the server that a Launcher runs on a data directory; ok is false if none
// seems to run there. Only root and the server's own user can enter its socket's directory.
func RunningDSN(dataDir, database string) (dsn string, ok bool) {
	b, err := os.ReadFile(filepath.Join(dataDir, "postmaster.pid"))
	if err != nil {
		return "", false
	}
	lines := strings.Split(string(b), "\n")
	const socketLine = 4 // pid, data directory, start time, port, socket directory
	if len(lines) <= socketLine || !strings.HasPrefix(filepath.Base(lines[socketLine]), socketDirPrefix) {
		return "", false
	}
	p := serverProcess{socketDir: lines[socketLine]}
	return p.dsn(database), true
}
