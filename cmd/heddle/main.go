// Command heddle is all kinds of worker in one process, and the operator's command line.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/alecthomas/kong"

	"github.com/heddle-im/heddle/cmd/internal/cli"
	"github.com/heddle-im/heddle/pkg/app/buildinfo"
	"github.com/heddle-im/heddle/pkg/config"
)

func main() {
	os.Exit(execute(cli.OS(), "heddle", "A Matrix homeserver: everything in one process, and its operator's tools.", &commands{}))
}

// global are the flags of every command.
type global struct {
	Config  string           `short:"c" placeholder:"FILE" help:"Read the configuration from FILE (or HEDDLE_CONFIG)."`
	Version kong.VersionFlag `help:"Say what was built, and exit."`
}

// load reads the configuration that the flags and the environment name.
func (g global) load(p cli.Process, embedded bool) (config.Config, error) {
	return p.Load(g.Config, embedded)
}

// welcome says where the server is and how to go on.
func (g global) welcome(p cli.Process, server, url string) {
	file := ""
	if g.Config != "" {
		file = " -c " + g.Config
	}
	_, _ = fmt.Fprintf(p.Stdout, "\nHeddle serves %s at %s\nMake an account, from another shell:  %s user create%s NAME\n\n",
		server, url, p.Program, file)
}

// execute parses the command line into commands, which is a pointer to a struct that embeds global, runs the command that
// was chosen, and returns the exit code.
func execute(p cli.Process, name, description string, commands any) int {
	exited := -1
	parser, err := kong.New(commands, kong.Name(name), kong.Description(description), kong.UsageOnError(),
		kong.Writers(p.Stdout, p.Stderr), kong.Vars{"version": buildinfo.Read().String()},
		kong.Bind(p), kong.Exit(func(code int) {
			exited = code
			panic(errExit)
		}))
	if err != nil {
		return p.Report(name, err)
	}
	code := cli.ExitOK
	func() {
		defer func() { // kong ends the process in the middle of parsing, for --help and --version
			if r := recover(); r == errExit { //nolint:errorlint // the very value
				code = exited
			} else if r != nil {
				panic(r)
			}
		}()
		run, err := parser.Parse(p.Args)
		if err != nil {
			code = p.Report(name, &cli.UsageError{Err: err})
			return
		}
		code = p.Report(name, run.Run())
	}()
	return code
}

var errExit = errors.New("exit")
