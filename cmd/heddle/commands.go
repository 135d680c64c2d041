package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/heddle-im/heddle/cmd/internal/cli"
	"github.com/heddle-im/heddle/pkg/app"
	"github.com/heddle-im/heddle/pkg/infra/bus/embedded"
)

// commands is the command line, for kong.
type commands struct {
	global

	Run    runCmd    `cmd:"" help:"Run everything in one process. Needs no configuration."`
	Keygen keygenCmd `cmd:"" help:"Make this homeserver's signing key, unless there is one."`
	Config struct {
		Check configCheckCmd `cmd:"" help:"Read the configuration and say what is wrong with it."`
	} `cmd:"" help:"About the configuration."`
	Routes  routesCmd  `cmd:"" help:"Write the route table, or a proxy's configuration made from it."`
	Migrate migrateCmd `cmd:"" help:"Bring the database's schema to what this release needs."`
	Status  statusCmd  `cmd:"" help:"Say how the homeserver is: workers, shards, the log, the database."`
	User    struct {
		Create userCreateCmd `cmd:"" help:"Make an account."`
	} `cmd:"" help:"About accounts."`
}

type runCmd struct{}

func (runCmd) Run(p cli.Process, c *commands) error {
	cfg, err := c.load(p, true)
	if err != nil {
		return err
	}
	return p.Serve(cfg, app.Options{
		Kind:    app.AllInOne,
		Started: func(url string) { c.welcome(p, cfg.ServerName, url) },
		NATS: func(dir string, log *slog.Logger) app.NATSServer {
			return embedded.NewServer(embedded.Config{Scratch: dir, Logger: log})
		},
	})
}

type keygenCmd struct {
	Out string `placeholder:"FILE" help:"Write it to FILE and not where the configuration says."`
}

func (k keygenCmd) Run(p cli.Process, c *commands) error {
	path := k.Out
	if path == "" {
		cfg, err := c.load(p, true)
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
	cfg, err := c.load(p, !k.Worker)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.Stdout, "the configuration of %s is good\n", cfg.ServerName)
	return err
}

type migrateCmd struct {
	Check bool `help:"Change nothing; fail if this release could not run on the database as it is."`
}

func (k migrateCmd) Run(p cli.Process, c *commands) error {
	cfg, err := c.load(p, true)
	if err != nil {
		return err
	}
	return app.Migrate(context.Background(), cfg, k.Check, p.Stdout)
}

type statusCmd struct {
	JSON bool `name:"json" help:"For programs."`
}

func (k statusCmd) Run(p cli.Process, c *commands) error {
	cfg, err := c.load(p, true)
	if err != nil {
		return err
	}
	v, err := app.ReadOverview(context.Background(), cfg)
	if err != nil {
		return err
	}
	if k.JSON {
		enc := json.NewEncoder(p.Stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	return v.Print(p.Stdout)
}

type userCreateCmd struct {
	Name          string `arg:"" help:"The part of the user id before the colon."`
	Admin         bool   `help:"Make it a server administrator."`
	PasswordStdin bool   `help:"Read the password from the first line of standard input. Else one is made up and printed."`
}

func (k userCreateCmd) Run(p cli.Process, c *commands) error {
	cfg, err := c.load(p, true)
	if err != nil {
		return err
	}
	user := app.NewUser{Localpart: k.Name, Admin: k.Admin, Password: rand.Text()}
	if k.PasswordStdin {
		line, err := bufio.NewReader(p.Stdin).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read the password: %w", err)
		}
		if user.Password = strings.TrimRight(line, "\r\n"); user.Password == "" {
			return errors.New("read the password: there is none on standard input")
		}
	}
	userID, err := app.CreateUser(context.Background(), cfg, user)
	if err != nil {
		return err
	}
	if !k.PasswordStdin {
		userID += " " + user.Password
	}
	_, err = fmt.Fprintln(p.Stdout, userID)
	return err
}
