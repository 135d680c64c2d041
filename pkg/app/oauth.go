package app

import (
	"maps"

	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/api/web"
	"github.com/heddle-im/heddle/pkg/api/write"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/account/oauth"
	"github.com/heddle-im/heddle/pkg/service/rendezvous"
)

// provideOAuth adds the server's own OAuth 2.0 to the handlers, if the configuration wants it.
func provideOAuth(s *shared, front *account.Front, users *write.Accounts, handlers httpx.Handlers) {
	if !s.cfg.OAuth.Provide {
		return
	}
	provider := oauth.NewProvider(oauth.Options{Secret: s.secret, Accounts: front, Soft: s.soft, BaseURL: s.baseURL(), Now: s.now})
	pages := web.New(web.Options{
		Server: s.base.server, Provider: provider, Front: front, Accounts: account.NewReader(s.shards, s.accounts),
	})
	users.ResetOn(provider.AccountURL(oauth.ActionReset))
	maps.Copy(handlers, pages.Handlers())
}

// meeting lets devices meet for a login by QR code, where that works.
func meeting(s *shared) httpx.Handlers {
	if !s.meets() {
		return nil
	}
	return write.NewRendezvous(
		rendezvous.New("text", s.soft, s.now), rendezvous.New("json", s.soft, s.now), s.baseURL(), s.now,
	).Handlers()
}
