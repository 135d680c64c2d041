package app

import (
	"github.com/heddle-im/heddle/pkg/api/read"
	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/route"
	"github.com/heddle-im/heddle/pkg/service/account"
)

// buildSynchrotron builds what only reads: sync, and every client endpoint that changes nothing.
func buildSynchrotron(s *shared, _ *lifecycle.Group) (part, error) {
	p := part{kind: route.Synchrotron}
	p.handlers = read.NewAccounts(read.AccountsOptions{
		Server: s.base.server, Accounts: account.NewReader(s.shards, s.accounts), BaseURL: s.baseURL(),
	}).Handlers()
	return p, nil
}
