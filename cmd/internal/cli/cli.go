// Package cli is what the mains have in common: what a process finds around it, the configuration, exit codes, and the command
// line of a worker, which has three flags.
//
// Errors are one line on standard error; the exit code is 2 for the configuration and the command line, 1 for the rest.
// It keeps no state. Only cmd/ may import it.
package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

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

// Load reads the configuration that file, if it is not empty, or the environment names.
func (p Process) Load(file string, embedded bool) (config.Config, error) {
	for _, kv := range p.Environ {
		if v, ok := strings.CutPrefix(kv, "HEDDLE_CONFIG="); ok && file == "" {
			file = v
		}
	}
	return config.Load(config.Source{File: file, Environ: p.Environ, Embedded: embedded})
}

// Serve starts the process that opts describes and serves until it is told to stop.
func (p Process) Serve(cfg config.Config, opts app.Options) error {
	ctx := context.Background()
	opts.Build, opts.OwnsProcess, opts.LogTo = buildinfo.Read(), true, p.Stderr
	a, err := app.New(ctx, cfg, opts)
	if err != nil {
		return err
	}
	return a.Run(ctx)
}

// Report writes an error as one line and gives the exit code.
func (p Process) Report(name string, err error) int {
	if err == nil {
		return ExitOK
	}
	_, _ = fmt.Fprintf(p.Stderr, "%s: %s\n", name, strings.ReplaceAll(err.Error(), "\n", "; "))
	var bad *config.Error
	var usage *UsageError
	if errors.As(err, &bad) || errors.As(err, &usage) {
		return ExitConfig
	}
	return ExitRuntime
}

// UsageError is a command line that says nothing.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }
func (e *UsageError) Unwrap() error { return e.Err }

const workerUsage = `Usage: %s [flags]

%s

Flags:
  -h, --help           Show this.
  -c, --config=FILE    Read the configuration from FILE (or HEDDLE_CONFIG).
      --version        Say what was built, and exit.
`

// Worker is the main of a worker of its own. Its flags are read by the standard library's parser, and not by the one of
// cmd/heddle, which calls methods by name: the linker must then keep every method of every package (docs/adr/0016).
func Worker(p Process, kind app.Kind, description string) int {
	name := string(kind)
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	var file string
	flags.StringVar(&file, "config", "", "")
	flags.StringVar(&file, "c", "", "")
	version := flags.Bool("version", false, "")
	err := flags.Parse(p.Args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		_, _ = fmt.Fprintf(p.Stdout, workerUsage, name, description)
		return ExitOK
	case err != nil:
		return p.Report(name, &UsageError{err})
	case *version:
		_, _ = fmt.Fprintln(p.Stdout, buildinfo.Read())
		return ExitOK
	case flags.NArg() > 0:
		return p.Report(name, &UsageError{fmt.Errorf("unexpected argument %s", flags.Arg(0))})
	}
	cfg, err := p.Load(file, false)
	if err == nil {
		err = p.Serve(cfg, app.Options{Kind: kind})
	}
	return p.Report(name, err)
}
