package cli

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The programs themselves, as they are built: what is wrong with the configuration is one line on standard error that names
// the key, and an exit code that tells the configuration (2) from what happened (1).
func TestProgramsSayWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", dir, "github.com/heddle-im/heddle/cmd/...")
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	const alone = `
server_name: example.org
signing_key_path: signing.key
database: {dsn: "postgres://u@127.0.0.1:1/x"}
nats: {url: "nats://127.0.0.1:1"}
`
	good := file("good.yml", alone)
	unknown := file("unknown.yml", "server_name: example.org\ndatabse: {dsn: x}\n")
	wrong := file("wrong.yml", alone+"shards: many\n")
	const refused = "database.dsn: failed to connect to `user=u database=x`: 127.0.0.1:1 (127.0.0.1): dial error: " +
		"dial tcp 127.0.0.1:1: connect: connection refused"
	for _, program := range []string{"master", "synchrotron", "federation-reader", "heddle run", "heddle migrate", "heddle status"} {
		name, args, _ := strings.Cut(program, " ")
		for _, tc := range []struct {
			name    string
			file    string
			environ string
			code    int
			want    string
		}{
			{"unknown key", unknown, "", ExitConfig, unknown + ":2: databse: unknown key"},
			{"bad value", wrong, "", ExitConfig, wrong + ":6: shards: want a whole number, got \"many\""},
			{
				"bad variable", good, "HEDDLE_LOG_LEVEL=loud", ExitConfig,
				`HEDDLE_LOG_LEVEL: log.level: "loud" is not debug, info, warn or error`,
			},
			{
				"unknown variable", good, "HEDDLE_SHARD=1", ExitConfig,
				"HEDDLE_SHARD: unknown environment variable: no key has this name",
			},
			{
				"no file", filepath.Join(dir, "none.yml"), "", ExitConfig,
				"open " + filepath.Join(dir, "none.yml") + ": no such file or directory",
			},
			{"no database", good, "", ExitRuntime, refused},
		} {
			t.Run(program+" "+tc.name, func(t *testing.T) {
				cmd := exec.CommandContext(t.Context(), filepath.Join(dir, name), append(strings.Fields(args), "-c", tc.file)...)
				cmd.Env = []string{"HOME=" + dir}
				if tc.environ != "" {
					cmd.Env = append(cmd.Env, tc.environ)
				}
				var stdout, stderr bytes.Buffer
				cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
				var exit *exec.ExitError
				err := cmd.Run()
				require.ErrorAs(t, err, &exit)
				require.Equal(t, tc.code, exit.ExitCode())
				require.Equal(t, name+": "+tc.want+"\n", stderr.String())
				require.Empty(t, stdout.String())
			})
		}
	}
	for _, program := range []string{"master", "synchrotron", "federation-reader", "heddle"} {
		out, err := exec.CommandContext(t.Context(), filepath.Join(dir, program), "--version").Output()
		require.NoError(t, err)
		require.Equal(t, 1, strings.Count(string(out), "\n"))
	}
}
