package fleettest_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/infra/bus/embedded"
	"github.com/heddle-im/heddle/pkg/testkit/fleettest"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
)

// natsListen has this binary be a NATS server at an address, so that there is one that can be killed.
const natsListen = "HEDDLE_TEST_NATS_LISTEN"

var (
	buildOnce sync.Once // one build for all tests
	built     string
)

func TestMain(m *testing.M) {
	if addr := os.Getenv(natsListen); addr != "" {
		s := embedded.NewServer(embedded.Config{Listen: addr})
		if err := s.Start(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		select {}
	}
	code := pgtest.Run(m)
	if built != "" {
		_ = os.RemoveAll(built)
	}
	os.Exit(code)
}

func nats(addr string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), natsListen+"="+addr)
	return cmd
}

// binaries builds the programs once.
func binaries(t testing.TB) string {
	t.Helper()
	buildOnce.Do(func() {
		sweepBinaries()
		dir, err := os.MkdirTemp("", fmt.Sprintf("%s%d-", binPrefix, os.Getpid())) //nolint:usetesting // it outlives the test
		require.NoError(t, err)
		built = dir
		build := exec.Command("go", "build", "-trimpath", "-o", dir+"/", "github.com/heddle-im/heddle/cmd/...")
		build.Env = append(os.Environ(), "CGO_ENABLED=0") // as make build does: what it has compiled is not compiled again
		out, err := build.CombinedOutput()
		require.NoError(t, err, "%s", out)
	})
	require.NotEmpty(t, built)
	return built
}

const binPrefix = "heddle-bin-"

// sweepBinaries removes the programs of test processes that were killed.
func sweepBinaries() {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), binPrefix+"*"))
	for _, dir := range dirs {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), binPrefix), "-")
		if _, err := os.Stat("/proc/" + pid); err != nil {
			_ = os.RemoveAll(dir)
		}
	}
}

// converse has a real client hold a conversation.
func converse(t *testing.T, url, state string, more ...string) {
	t.Helper()
	node(t, "conversation.mjs", append([]string{url, state}, more...)...)
}

// node runs one of the programs with a real client.
func node(t *testing.T, program string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	if _, err := os.Stat("js/node_modules"); err != nil {
		require.NotEmpty(t, os.Getenv("CI")+os.Getenv("HEDDLE_TEST_E2E"), "run `make test`, which installs the client first")
	}
	out, err := exec.CommandContext(ctx, "node", append([]string{"js/" + program}, args...)...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Logf("%s", out)
}

func TestConversationOnASplitDeployment(t *testing.T) {
	f := fleettest.Start(t, binaries(t), nats, fleettest.Split())
	for _, w := range f.Workers() { // one that has just begun may not have heard of a master yet, and says so to whoever asks for one
		require.Eventually(t, func() bool {
			_, err := fleettest.Register(t.Context(), "http://"+w.Addr, "first-"+w.Name)
			return err == nil
		}, patience, 50*time.Millisecond)
	}
	for name, url := range map[string]string{
		"through the generated proxy":        f.URL,
		"each request to a worker at random": f.AnyWorker(),
	} {
		t.Run(name, func(t *testing.T) {
			for _, how := range [][]string{nil, {"sliding"}} {
				state := filepath.Join(t.TempDir(), "state.json")
				converse(t, url, state, how...)
				converse(t, url, state, append(how, "again")...)
			}
		})
	}
}

// The all-in-one keeps everything over a stop in order, and over a kill.
func TestConversationWithTheAllInOne(t *testing.T) {
	bin, dir := binaries(t), t.TempDir()
	addr, ops := fleettest.FreeAddr(t), fleettest.FreeAddr(t)
	run := func() *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, "heddle"), "run")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "HEDDLE_LISTEN_HTTP="+addr, "HEDDLE_LISTEN_OPS="+ops)
		return cmd
	}
	p := fleettest.StartProcess(t, "heddle", ops, run)
	states := []string{filepath.Join(t.TempDir(), "1.json"), filepath.Join(t.TempDir(), "2.json")}
	converse(t, "http://"+addr, states[0])
	converse(t, "http://"+addr, states[1])
	p.Stop()
	p.Restart()
	converse(t, "http://"+addr, states[0], "again")
	p.Kill()
	p.Restart()
	converse(t, "http://"+addr, states[1], "again")
	p.Stop() // and its PostgreSQL with it, which outlives a killed one by the time that it needs to shut down
}
