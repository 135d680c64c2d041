// Package cli is what the mains have in common: flags, the configuration, and exit codes.
//
// Errors are one line on standard error; the exit code is 2 for the configuration and the command line, 1 for the rest.
// It keeps no state. Only cmd/ may import it.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/heddle-im/heddle/pkg/app"
	"github.com/heddle-im/heddle/pkg/app/buildinfo"
	"github.com/heddle-im/heddle/pkg/config"
)

// Exit codes.
const (
	ExitOK      = 0
	ExitRuntime = 1
	ExitConfig  = 2
)

// Process is what a command finds around it.
type Process struct {
	Program string
	Args    []string
	Environ []string
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
}

// OS is the process itself.
func OS() Process {
	return Process{Program: os.Args[0], Args: os.Args[1:], Environ: os.Environ(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
}

// Global are the flags of every command.
type Global struct {
	Config  string           `short:"c" placeholder:"FILE" help:"Read the configuration from FILE (or HEDDLE_CONFIG)."`
	Version kong.VersionFlag `help:"Say what was built, and exit."`
}

// Load reads the configuration that the flags and the environment name.
func (g Global) Load(p Process, embedded bool) (config.Config, error) {
	file := g.Config
	for _, kv := range p.Environ {
		if v, ok := strings.CutPrefix(kv, "HEDDLE_CONFIG="); ok && file == "" {
			file = v
		}
	}
	return config.Load(config.Source{File: file, Environ: p.Environ, Embedded: embedded})
}

// Serve starts the process that opts describes and serves until it is told to stop.
func (g Global) Serve(p Process, opts app.Options) error {
	cfg, err := g.Load(p, opts.Kind == app.AllInOne)
	if err != nil {
		return err
	}
	ctx := context.Background()
	opts.Build, opts.OwnsProcess, opts.LogTo = buildinfo.Read(), true, p.Stderr
	if opts.Kind == app.AllInOne {
		opts.Started = func(url string) { g.welcome(p, cfg.ServerName, url) }
	}
	a, err := app.New(ctx, cfg, opts)
	if err != nil {
		return err
	}
	return a.Run(ctx)
}

// welcome says where the server is and how to go on.
func (g Global) welcome(p Process, server, url string) {
	file := ""
	if g.Config != "" {
		file = " -c " + g.Config
	}
	_, _ = fmt.Fprintf(p.Stdout, "\nHeddle serves %s at %s\nMake an account, from another shell:  %s user create%s NAME\n\n",
		server, url, p.Program, file)
}

// Main parses the command line into commands, which is a pointer to a struct that embeds Global, runs the command that
// was chosen, and returns the exit code.
func Main(p Process, name, description string, commands any) int {
	exited := -1
	parser, err := kong.New(commands, kong.Name(name), kong.Description(description), kong.UsageOnError(),
		kong.Writers(p.Stdout, p.Stderr), kong.Vars{"version": buildinfo.Read().String()},
		kong.Bind(p), kong.Exit(func(code int) {
			exited = code
			panic(errExit)
		}))
	if err != nil {
		return report(p, name, err)
	}
	code := ExitOK
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
			code = report(p, name, &usageError{err})
			return
		}
		code = report(p, name, run.Run())
	}()
	return code
}

var errExit = errors.New("exit")

type usageError struct{ error }

// report writes an error as one line and chooses the exit code.
func report(p Process, name string, err error) int {
	if err == nil {
		return ExitOK
	}
	_, _ = fmt.Fprintf(p.Stderr, "%s: %s\n", name, strings.ReplaceAll(err.Error(), "\n", "; "))
	var bad *config.Error
	var usage *usageError
	if errors.As(err, &bad) || errors.As(err, &usage) {
		return ExitConfig
	}
	return ExitRuntime
}

// Worker is the main of a kind of worker that has nothing else to offer.
func Worker(p Process, kind app.Kind, description string) int {
	return Main(p, string(kind), description, &worker{kind: kind})
}

type worker struct {
	Global
	kind app.Kind
}

// Run is called by kong.
func (w *worker) Run(p Process) error { return w.Serve(p, app.Options{Kind: w.kind}) }
