package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/cmd/internal/cli"
)

type testCommands struct {
	global
	Fail  failCmd  `cmd:""`
	Check checkCmd `cmd:""`
}

type failCmd struct{}

func (failCmd) Run(cli.Process) error { return errors.New("one line\nand another") }

type checkCmd struct{}

func (checkCmd) Run(p cli.Process, c *testCommands) error {
	cfg, err := c.load(p, true)
	if err == nil {
		_, err = p.Stdout.Write([]byte(cfg.ServerName))
	}
	return err
}

func TestMainsExitCodes(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	good, bad := file("good.yml", "server_name: a.org"), file("bad.yml", "server_nam: a.org")
	for _, tc := range []struct {
		name           string
		args, environ  []string
		code           int
		stdout, stderr string
	}{
		{"help", []string{"--help"}, nil, cli.ExitOK, "Usage: t", ""},
		{"help of a command", []string{"check", "--help"}, nil, cli.ExitOK, "Usage: t check", ""},
		{"version", []string{"--version"}, nil, cli.ExitOK, "heddle ", ""},
		{"default", []string{"check"}, nil, cli.ExitOK, "localhost", ""},
		{"file", []string{"check", "-c", good}, nil, cli.ExitOK, "a.org", ""},
		{"file before the command", []string{"--config", good, "check"}, nil, cli.ExitOK, "a.org", ""},
		{"file of the environment", []string{"check"}, []string{"HEDDLE_CONFIG=" + good}, cli.ExitOK, "a.org", ""},
		{"the flag goes first", []string{"check", "-c", good}, []string{"HEDDLE_CONFIG=" + bad}, cli.ExitOK, "a.org", ""},
		{"bad file", []string{"check", "-c", bad}, nil, cli.ExitConfig, "", "t: " + bad + ":1: server_nam: unknown key\n"},
		{"bad variable", []string{"check"}, []string{"HEDDLE_SHARDS=x"}, cli.ExitConfig, "", "t: HEDDLE_SHARDS: shards: want a whole number"},
		{"unknown flag", []string{"check", "--nope"}, nil, cli.ExitConfig, "", "t: unknown flag --nope\n"},
		{"no command", nil, nil, cli.ExitConfig, "", "t: expected one of"},
		{"failure", []string{"fail"}, nil, cli.ExitRuntime, "", "t: one line; and another\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			p := cli.Process{Args: tc.args, Environ: tc.environ, Stdout: &stdout, Stderr: &stderr}
			code := execute(p, "t", "A test.", &testCommands{})
			require.Equal(t, tc.code, code, stderr.String())
			require.True(t, strings.HasPrefix(stdout.String(), tc.stdout), stdout.String())
			require.True(t, strings.HasPrefix(stderr.String(), tc.stderr), stderr.String())
			if tc.stderr == "" {
				require.Empty(t, stderr.String())
			} else {
				require.Equal(t, 1, strings.Count(stderr.String(), "\n"), "one line")
			}
		})
	}
}
