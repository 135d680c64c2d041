package app

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/heddle-im/heddle/pkg/config"
	"github.com/heddle-im/heddle/pkg/fleet/rpc"
	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
	"github.com/heddle-im/heddle/pkg/store/fleetdb"
	"github.com/heddle-im/heddle/pkg/store/leasedb"
)

// operator is the command line beside a homeserver that runs: it reads the database, and asks the shards' writers over HTTP for
// what changes something.
type operator struct {
	db     *pg.DB
	shards shard.Map
	secret []byte
	client *rpc.Client
}

// openOperator reaches a homeserver's database: the one that is configured, or that of an all-in-one which runs on the
// configured data directory.
func openOperator(ctx context.Context, cfg config.Config) (*operator, error) {
	if cfg.Database.DSN == "" {
		dsn, ok := pg.RunningDSN(filepath.Join(cfg.DataDir, "postgres"), "heddle")
		if !ok {
			return nil, fmt.Errorf("no server runs on %s: start it, or name its database in database.dsn", cfg.DataDir)
		}
		cfg.Database.DSN = dsn
	}
	db, err := pg.Open(ctx, cfg.Database, pg.Options{})
	if err != nil {
		return nil, err
	}
	c, err := fleetdb.New(db.Primary).GetCluster(ctx)
	if err != nil {
		db.Close()
		return nil, fmt.Errorf("read the cluster: %w", err)
	}
	if c.ServerName != cfg.ServerName {
		db.Close()
		return nil, &config.Error{Key: "server_name", Problem: fmt.Sprintf("the database is of %s, not of %s", c.ServerName, cfg.ServerName)}
	}
	return &operator{
		db: db, shards: shard.NewMap(c.ServerName, int(c.Shards)), secret: c.Secret,
		client: rpc.NewClient(rpc.ClientConfig{Owners: leasedb.NewDB(db), Secret: c.Secret}),
	}, nil
}

func (o *operator) close() {
	o.client.Close()
	o.db.Close()
}

// NewUser is an account to be made.
type NewUser struct {
	Localpart string
	Password  string
	Admin     bool
}

// CreateUser makes an account, through the writer of its shard, and returns the full user id.
func CreateUser(ctx context.Context, cfg config.Config, u NewUser) (string, error) {
	o, err := openOperator(ctx, cfg)
	if err != nil {
		return "", err
	}
	defer o.close()
	passwords, err := account.NewPasswords(account.DefaultArgon2(), 1)
	if err != nil {
		return "", err
	}
	front := account.NewFront(id.ServerName(cfg.ServerName), o.shards, account.Config{}, accountDoer{to: o.client, shards: o.shards},
		accountdb.NewReader(o.db.Primary), passwords, o.secret, nil)
	in, err := front.Register(ctx, account.NewUser{Localpart: u.Localpart, Password: u.Password, Admin: u.Admin, InhibitLogin: true})
	if errors.Is(err, rpc.ErrUnavailable) {
		return "", fmt.Errorf("no master answers: is the homeserver running? %w", err)
	}
	return in.UserID, err
}
