package main

import (
	"fmt"
	"path/filepath"

	"github.com/heddle-im/heddle/cmd/internal/cli"
	"github.com/heddle-im/heddle/pkg/app"
)

// commands is the command line, for kong.
type commands struct {
	cli.Global

	Run    runCmd    `cmd:"" help:"Run everything in one process. Needs no configuration."`
	Keygen keygenCmd `cmd:"" help:"Make this homeserver's signing key, unless there is one."`
	Config struct {
		Check configCheckCmd `cmd:"" help:"Read the configuration and say what is wrong with it."`
	} `cmd:"" help:"About the configuration."`
}

type runCmd struct{}

func (runCmd) Run(p cli.Process, c *commands) error { return c.Serve(p, app.AllInOne) }

type keygenCmd struct {
	Out string `placeholder:"FILE" help:"Write it to FILE and not where the configuration says."`
}

func (k keygenCmd) Run(p cli.Process, c *commands) error {
	path := k.Out
	if path == "" {
		cfg, err := c.Load(p, true)
		if err != nil {
			return err
		}
		path = cfg.SigningKeyPath
	}
	created, err := app.CreateSigningKey(path)
	if err != nil {
		return err
	}
	keys, err := app.LoadSigningKeys(path)
	if err != nil {
		return err
	}
	did := "made"
	if !created {
		did = "there already"
	}
	_, err = fmt.Fprintf(p.Stdout, "%s: %s, signing with %s\n", filepath.Clean(path), did, keys[0].ID())
	return err
}

type configCheckCmd struct {
	Worker bool `help:"As a worker of its own reads it, which must be told where the database and NATS are."`
}

func (k configCheckCmd) Run(p cli.Process, c *commands) error {
	cfg, err := c.Load(p, !k.Worker)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.Stdout, "the configuration of %s is good\n", cfg.ServerName)
	return err
}
