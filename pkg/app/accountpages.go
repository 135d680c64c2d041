package app

import (
	"context"
	"maps"

	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/api/web"
	"github.com/heddle-im/heddle/pkg/api/write"
	"github.com/heddle-im/heddle/pkg/config"
	"github.com/heddle-im/heddle/pkg/infra/mail"
	"github.com/heddle-im/heddle/pkg/infra/outhttp"
	"github.com/heddle-im/heddle/pkg/infra/soft"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/remote/identity"
	"github.com/heddle-im/heddle/pkg/remote/oidc"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/account/contact"
	"github.com/heddle-im/heddle/pkg/service/account/letter"
	"github.com/heddle-im/heddle/pkg/service/account/oauth"
	"github.com/heddle-im/heddle/pkg/service/account/sso"
	"github.com/heddle-im/heddle/pkg/service/rendezvous"
)

// accountConfig is how accounts are made and entered, by the configuration.
func (s *shared) accountConfig() account.Config {
	r := s.cfg.Registration
	c := account.Config{
		Enabled: r.Enabled, SharedSecret: r.SharedSecret, RequireToken: r.RequireToken, Guests: r.Guests,
		Email: s.cfg.Email.SMTP.Host != "", RequireEmail: r.RequireEmail, Reserved: s.cfg.ServerNotices.Localpart,
		Lifetimes: account.Lifetimes{
			Access: s.cfg.Sessions.AccessTokenLifetime, Refreshable: s.cfg.Sessions.RefreshableAccessTokenLifetime,
			Refresh: s.cfg.Sessions.RefreshTokenLifetime, Login: s.cfg.Sessions.LoginTokenLifetime,
		},
	}
	for _, p := range r.Terms {
		policy := account.Policy{ID: p.ID, Version: p.Version}
		for _, d := range p.Documents {
			policy.Documents = append(policy.Documents, account.Document(d))
		}
		c.Terms = append(c.Terms, policy)
	}
	return c
}

// accountHandlersOf makes the endpoints of accounts: the older ones, and what the configuration adds to them.
func accountHandlersOf(s *shared, front *account.Front, desk *contact.Desk) (*write.Accounts, httpx.Handlers, error) {
	o := write.AccountsOptions{Front: front, Delegated: s.delegated(front, desk), Services: s.services, Contacts: desk}
	pages := httpx.Handlers{}
	office, err := s.letters(front)
	if err != nil {
		return nil, nil, err
	}
	if s.cfg.OAuth.Provide {
		provider := oauth.NewProvider(oauth.Options{Secret: s.secret, Accounts: front, Soft: s.soft, BaseURL: s.baseURL(), Now: s.now})
		h := web.New(web.Options{
			Server: s.base.server, Provider: provider, Front: front, Accounts: account.NewReader(s.shards, s.accounts), Letters: office, Contacts: desk,
		})
		o.ResetPage = provider.AccountURL(oauth.ActionReset)
		maps.Copy(pages, h.Handlers())
	}
	if office != nil {
		o.Letters = office
		maps.Copy(pages, web.NewLetters(s.base.server, office).Handlers())
	}
	var outside *web.SSO
	back := ""
	if logins := s.logins(front); logins != nil {
		o.SSO, back = logins.Providers(), s.baseURL()
		outside = web.NewSSO(s.base.server, logins, front, back)
		maps.Copy(pages, outside.Handlers())
	}
	if o.Delegated == nil {
		maps.Copy(pages, web.NewStages(s.base.server, front, outside, office).Handlers())
		maps.Copy(pages, web.NewLoginPage(s.base.server, front, back).Handlers())
	}
	users := write.NewAccounts(o)
	all := users.Handlers()
	maps.Copy(all, pages)
	return users, all, nil
}

// agreements has the endpoints of a map refuse users who have not agreed to the terms, and adds the page where they do, if that is configured.
func (s *shared) agreements(front *account.Front, all httpx.Handlers) {
	if !s.cfg.Registration.EnforceTerms {
		return
	}
	a := account.NewAgreements(front, s.baseURL(), s.budget, s.tel.Metrics)
	write.Consenting(a, all)
	maps.Copy(all, web.NewConsent(s.base.server, a, front).Handlers())
}

// contacts makes what deals with identity servers.
func (s *shared) contacts(front *account.Front) (*contact.Desk, error) {
	c := s.cfg.Identity
	roots, err := rootsOf(c.CAFile)
	if err != nil {
		return nil, &config.Error{Key: "identity.ca_file", Problem: err.Error()}
	}
	servers := identity.New(identity.Options{
		Guard: outhttp.NewGuard(c.AllowNetworks, s.cfg.Federation.DenyNetworks), Roots: roots, UserAgent: "Heddle/" + s.opts.Build.Version,
		Authorize: s.remote.Authorization,
	})
	s.onClose(servers.Close)
	var trusted []id.ServerName
	for _, name := range c.Servers {
		trusted = append(trusted, id.ServerName(name))
	}
	return contact.New(contact.Options{Enabled: c.Enabled, Trusted: trusted, Servers: servers, Accounts: front, Log: s.log}), nil
}

// letters makes what confirms addresses; nil if there is no e-mail.
func (s *shared) letters(front *account.Front) (*letter.Office, error) {
	c := s.cfg.Email
	if c.SMTP.Host == "" {
		return nil, nil
	}
	sender, err := mail.New(c.SMTP, c.From, s.cfg.PublicHost())
	if err != nil {
		return nil, &config.Error{Key: "email.smtp", Problem: err.Error()}
	}
	paced := func(r config.Rate) soft.Rate {
		if !s.cfg.RateLimits.Enabled || !r.Limited() {
			return soft.Rate{}
		}
		return soft.Rate{PerSecond: r.PerSecond(), Burst: r.Burst}
	}
	return letter.New(letter.Options{
		Server: s.base.server, Front: front, Post: sender, Pace: s.soft, Rate: paced(c.PerAddress),
		ClientRate: paced(s.cfg.RateLimits.Threepid), BaseURL: s.baseURL(), NextLinks: c.NextLinks, Now: s.now,
	}), nil
}

// identities is a provider as the service of logins sees it.
type identities struct{ *oidc.Provider }

// Exchange implements sso.Provider.
func (i identities) Exchange(ctx context.Context, code, nonce, verifier string) (sso.Identity, error) {
	who, err := i.Provider.Exchange(ctx, code, nonce, verifier)
	return sso.Identity(who), err
}

// logins makes what lets people log in at outside providers; nil if there are none.
func (s *shared) logins(front *account.Front) *sso.Logins {
	if len(s.cfg.SSO.Providers) == 0 {
		return nil
	}
	var all []sso.Choice
	for _, p := range s.cfg.SSO.Providers {
		provider := oidc.New(oidc.Config{
			Issuer: p.Issuer, ClientID: p.ClientID, ClientSecret: p.ClientSecret, RedirectURL: s.baseURL() + web.SSOCallback, Scopes: p.Scopes,
			LocalpartClaim: p.LocalpartClaim, DisplayNameClaim: p.DisplayNameClaim, EmailClaim: p.EmailClaim, Now: s.now,
		})
		s.onClose(provider.Close)
		all = append(all, sso.Choice{
			ID: p.ID, Name: p.Name, Icon: p.Icon, Brand: p.Brand, LinkExisting: p.LinkExisting, ExistingOnly: p.ExistingOnly,
			Provider: identities{provider},
		})
	}
	return sso.New(sso.Options{
		Server: s.base.server, Secret: s.secret, Front: front, Providers: all, Redirects: s.cfg.SSO.Redirects, Now: s.now,
	})
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
