package cli

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The programs themselves, as they are built.
func TestPrograms(t *testing.T) {
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", dir, "github.com/heddle-im/heddle/cmd/...")
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	t.Run("say what is wrong", func(t *testing.T) { sayWhatIsWrong(t, dir) })
	t.Run("have a version and a help", func(t *testing.T) { haveVersionAndHelp(t, dir) })
	t.Run("carry no dead code", func(t *testing.T) { carryNoDeadCode(t, dir) })
}

// What is wrong with the configuration is one line on standard error that names the key, and an exit code that tells the
// configuration (2) from what happened (1). So it is with the command line.
func sayWhatIsWrong(t *testing.T, dir string) {
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
	for args, want := range map[string]string{
		"--nope": "master: flag provided but not defined: -nope\n",
		"run":    "master: unexpected argument run\n",
		"-c":     "master: flag needs an argument: -c\n",
	} {
		out, err := exec.CommandContext(t.Context(), filepath.Join(dir, "master"), args).CombinedOutput()
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
		require.Equal(t, ExitConfig, exit.ExitCode())
		require.Equal(t, want, string(out))
	}
}

func haveVersionAndHelp(t *testing.T, dir string) {
	for _, program := range []string{"master", "synchrotron", "federation-reader", "heddle"} {
		out, err := exec.CommandContext(t.Context(), filepath.Join(dir, program), "--version").Output()
		require.NoError(t, err)
		require.Equal(t, 1, strings.Count(string(out), "\n"))
		out, err = exec.CommandContext(t.Context(), filepath.Join(dir, program), "--help").Output()
		require.NoError(t, err)
		require.Contains(t, string(out), "--config=FILE")
	}
}

// A worker's program holds what a worker may call, and no more: the linker leaves out methods that nobody calls, which it may do only if
// nothing in the program calls methods by name (docs/adr/0016). Of Redis's commands a worker uses a handful.
func carryNoDeadCode(t *testing.T, dir string) {
	for _, program := range []string{"master", "synchrotron", "federation-reader"} {
		f, err := elf.Open(filepath.Join(dir, program))
		require.NoError(t, err)
		symbols, err := f.Symbols()
		require.NoError(t, f.Close())
		require.NoError(t, err)
		commands := 0
		for _, s := range symbols {
			require.NotEqual(t, "text/template.(*state).evalField", s.Name, "%s: templates call methods by name", program)
			require.False(t, strings.HasPrefix(s.Name, "github.com/alecthomas/kong."), "%s: %s", program, s.Name)
			require.False(t, strings.HasPrefix(s.Name, "google.golang.org/grpc."), "%s: %s", program, s.Name)
			if strings.HasPrefix(s.Name, "github.com/redis/go-redis/v9.cmdable.") {
				commands++
			}
		}
		require.NotEmpty(t, symbols)
		require.Less(t, commands, 50, "%s has all of Redis's commands: something calls methods by name "+
			"(go build -ldflags=-dumpdep ./cmd/%s 2>&1 | grep ReflectMethod)", program, program)
	}
}
