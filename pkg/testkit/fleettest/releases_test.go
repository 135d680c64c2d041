package fleettest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/testkit/fleettest"
)

// older builds the programs of the release before this one, or of the commit that HEDDLE_TEST_OLDER names.
func older(t *testing.T) string {
	t.Helper()
	ref := os.Getenv("HEDDLE_TEST_OLDER")
	if ref == "" {
		out, err := exec.Command("git", "describe", "--tags", "--abbrev=0", "--match", "v*", "HEAD^").Output()
		if err != nil {
			t.Skip("there is no earlier release; HEDDLE_TEST_OLDER=<commit> names another")
		}
		ref = strings.TrimSpace(string(out))
	}
	src, bin := t.TempDir(), t.TempDir()
	root, err := exec.Command("git", "rev-parse", "--show-toplevel").Output()
	require.NoError(t, err)
	archive := filepath.Join(bin, "source.tar")
	for _, args := range [][]string{
		{"git", "-C", strings.TrimSpace(string(root)), "archive", "-o", archive, ref},
		{"tar", "-x", "-C", src, "-f", archive},
		{"go", "build", "-C", src, "-buildvcs=false", "-o", bin + "/", "./cmd/..."},
	} {
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		require.NoError(t, err, "%v: %s", args, out)
	}
	t.Logf("the older release is %s", ref)
	return bin
}

// A roll-out under load, worker by worker, and the whole way back: nobody loses, misses or repeats anything while workers of two releases run
// side by side. In the middle of both, workers of the older release are killed, and start again beside the newer one.
func TestTwoReleasesSideBySide(t *testing.T) {
	before, now := older(t), binaries(t)
	f := fleettest.Start(t, before, nats, fleettest.Split())
	l := startLoad(t, f.URL)
	workers := []string{"synchrotron-1", "master-1", "federation-reader-1", "synchrotron-2", "master-2"}
	to := func(bin, name string) {
		f.Use(bin)
		f.Process(name).Stop()
		f.Process(name).Restart()
		l.recovered(name)
	}
	for i, name := range workers {
		to(now, name)
		if i == 1 {
			for _, old := range []string{"master-2", "synchrotron-2"} {
				f.Use(before)
				f.Process(old).Kill()
				f.Process(old).Restart()
				l.recovered(old)
			}
		}
		require.False(t, t.Failed())
	}
	for _, name := range workers {
		to(before, name)
		require.False(t, t.Failed())
	}
	l.finish(l.joined(f.URL))
}
