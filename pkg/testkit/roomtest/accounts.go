package roomtest

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/shardlog/command"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
	"github.com/heddle-im/heddle/pkg/store/logdb"
)

// Epoch tells under which epoch the master holds its shards, all of them. It is what a host of accounts asks.
func (w *World) Epoch(shard.ID) (shard.Epoch, bool) { return shard.Epoch(w.epoch.Load()), true }

// commands is what a host of commands needs.
func (w *World) commands() command.Options {
	return command.Options{Owners: w, Committer: w.Committer, Done: w.Log()}
}

// Accounts gives the accounts of the same server, as an API worker sees them, with cheap passwords. After Restart it must be
// asked for again.
func (w *World) Accounts(cfg account.Config) *account.Front {
	w.T.Helper()
	return w.AccountsAt(cfg, account.Argon2Params{MemoryKiB: 64, Time: 1, Threads: 1})
}

// AccountsAt is Accounts with passwords of some cost.
func (w *World) AccountsAt(cfg account.Config, cost account.Argon2Params) *account.Front {
	w.T.Helper()
	db := accountdb.NewReader(w.DB.Pool)
	host := account.NewHost(w.Shards, w.commands(), db, time.Now)
	passwords, err := account.NewPasswords(cost, 2)
	require.NoError(w.T, err)
	return account.NewFront(Server, w.Shards, cfg, host, db, passwords, []byte("secret"), time.Now)
}

// Log reads the log.
func (w *World) Log() *logdb.DB { return logdb.NewDB(w.DB.DB, w.options.shards) }

// Register makes an account of this server and gives its access token.
func (w *World) Register(front *account.Front, user id.UserID) (token string) {
	w.T.Helper()
	in, err := front.Register(w.Ctx(), account.NewUser{Localpart: user.Localpart(), Password: "secret"})
	require.NoError(w.T, err)
	return in.AccessToken
}
