package app

import (
	"context"
	"errors"

	"github.com/heddle-im/heddle/pkg/app/buildinfo"
	"github.com/heddle-im/heddle/pkg/config"
)

// Kind is a kind of process.
type Kind string

// The kinds of process.
const (
	Master           Kind = "master"
	Synchrotron      Kind = "synchrotron"
	FederationReader Kind = "federation-reader"
	AllInOne         Kind = "heddle"
)

// Options are what New needs beside the configuration.
type Options struct {
	Kind  Kind
	Build buildinfo.Info
}

// App is one worker, or all kinds in one process.
type App struct{}

// ErrNotBuilt is returned for what this build cannot do yet.
var ErrNotBuilt = errors.New("this build cannot do that yet")

// New builds a worker. What it opened is closed again if it fails.
func New(_ context.Context, _ config.Config, _ Options) (*App, error) { return nil, ErrNotBuilt }

// Run serves until ctx ends, the process is told to stop, or a part fails.
func (a *App) Run(_ context.Context) error { return ErrNotBuilt }
