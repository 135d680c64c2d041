package config

import (
	"errors"
	"fmt"
	netmail "net/mail"
	"net/netip"
	"net/url"
	"strings"

	"github.com/heddle-im/heddle/pkg/infra/mail"
	"github.com/heddle-im/heddle/pkg/matrix/id"
)

// Email is how this server writes to people.
type Email struct {
	// SMTP is the server that takes the mails.
	SMTP mail.Config `koanf:"smtp"`
	// From is the address on the mails, with a name if it should have one: `Example <noreply@example.org>`.
	From string `koanf:"from"`
	// NextLinks are beginnings of URLs (`https://app.example.org/`) to which a browser is sent on after the link of a mail without asking. To
	// others that an app names it goes only if the person presses a button which says where it leads.
	NextLinks []string `koanf:"next_links"`
	// PerAddress is how many mails one address may get, whoever asks for them.
	PerAddress Rate `koanf:"per_address"`
}

// Validate implements the check of a section.
func (e Email) Validate() error {
	if e.SMTP.Host == "" {
		return nil
	}
	if _, err := netmail.ParseAddress(e.From); err != nil {
		return errors.New("from: must be an e-mail address if email.smtp.host is set")
	}
	return checkStarts("next_links", e.NextLinks)
}

// checkStarts checks beginnings of URLs.
func checkStarts(key string, list []string) error {
	for _, s := range list {
		u, err := url.Parse(s)
		if err != nil || u.Scheme == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" && u.Host == "" {
			return fmt.Errorf("%s: %q is no beginning of a URL", key, s)
		}
		if (u.Scheme == "https" || u.Scheme == "http") && u.Host == "" {
			return fmt.Errorf("%s: %q names no host", key, s)
		}
	}
	return nil
}

// Identity says which identity servers are dealt with.
type Identity struct {
	// Enabled lets identity servers be asked. Each time it is a client that names the server, with a token which its user has there.
	Enabled bool `koanf:"enabled"`
	// Servers are the identity servers that may be named: `identity.example.org`, with a port where it has one. Empty: any on the public Internet. This
	// server then opens a connection, over TLS alone, to whatever host its users name outside of `federation.deny_networks`: name the servers
	// where they should reach no others.
	Servers []string `koanf:"servers"`
	// AllowNetworks are networks in which identity servers may be although `federation.deny_networks` names them.
	AllowNetworks []netip.Prefix `koanf:"allow_networks"`
	// CAFile has certificates to trust beside the system's, in PEM.
	CAFile string `koanf:"ca_file"`
}

// Validate implements the check of a section.
func (i Identity) Validate() error {
	for _, s := range i.Servers {
		if _, err := id.ParseServerName(s); err != nil {
			return fmt.Errorf("servers: %q is no host name, with a port where it has one", s)
		}
	}
	return nil
}

// Policy is a document that people must agree to who make an account.
type Policy struct {
	// ID names the policy: `terms_of_service`.
	ID string `koanf:"id"`
	// Version of it. What version somebody agreed to is kept.
	Version string `koanf:"version"`
	// Documents are the policy in one or more languages.
	Documents []Document `koanf:"documents"`
}

// Document is a policy in one language.
type Document struct {
	// Lang is the language: `en`.
	Lang string `koanf:"lang"`
	// Name is what people see.
	Name string `koanf:"name"`
	// URL is where people read it.
	URL string `koanf:"url"`
}

// Validate implements the check of a section.
func (r Registration) Validate() error {
	seen := map[string]bool{}
	for i, p := range r.Terms {
		at := fmt.Sprintf("terms: item %d:", i+1)
		switch {
		case !name(p.ID):
			return fmt.Errorf("%s id must be of the characters a-z, 0-9 and _-.: %q", at, p.ID)
		case seen[p.ID]:
			return fmt.Errorf("%s %q is named twice", at, p.ID)
		case p.Version == "":
			return fmt.Errorf("%s version must be set", at)
		case len(p.Documents) == 0:
			return fmt.Errorf("%s documents must name at least one", at)
		}
		seen[p.ID] = true
		for _, d := range p.Documents {
			if d.Lang == "" || d.Lang == "version" || d.Name == "" {
				return fmt.Errorf("%s each document needs lang, name and url", at)
			}
			if err := checkURL(d.URL, "http", "https"); err != nil {
				return fmt.Errorf("%s url: %w", at, err)
			}
		}
	}
	return nil
}

// SSO is login at outside providers that speak OpenID Connect.
type SSO struct {
	// Redirects are beginnings of the addresses (`https://app.example.org/`) of apps which people trust: to these a browser is sent with a
	// token for one login as soon as its user has logged in at the provider. For others the user is asked first, on a page that says where
	// the token would go.
	Redirects []string `koanf:"redirects"`
	// Providers are those that people can choose from. Each sends browsers back to `/_matrix/sso/callback` below `public_baseurl`, which must be
	// registered there.
	Providers []Provider `koanf:"providers"`
}

// Provider is one outside provider.
type Provider struct {
	// ID names the provider in addresses, and in the database: it must stay the same.
	ID string `koanf:"id"`
	// Name is what people see.
	Name string `koanf:"name"`
	// Icon is an `mxc://` URI of its picture.
	Icon string `koanf:"icon"`
	// Brand is by which apps know how its button should look: `github`.
	Brand string `koanf:"brand"`
	// Issuer is its URL, below which it says the rest at `/.well-known/openid-configuration`.
	Issuer string `koanf:"issuer"`
	// ClientID is as what this server is registered there.
	ClientID string `koanf:"client_id"`
	// ClientSecret is what it got when it was registered.
	ClientSecret string `koanf:"client_secret" secret:"true"`
	// Scopes are asked for beside `openid`.
	Scopes []string `koanf:"scopes"`
	// LocalpartClaim is the claim that becomes the name of a new account. Empty: people choose one. They also do if it is taken.
	LocalpartClaim string `koanf:"localpart_claim"`
	// DisplayNameClaim is the claim that becomes the display name of a new account.
	DisplayNameClaim string `koanf:"displayname_claim"`
	// EmailClaim is the claim that becomes the e-mail address of a new account, if the provider says that it was verified.
	EmailClaim string `koanf:"email_claim"`
	// LinkExisting lets whoever has an account's name at the provider into that account, though it was not made so. Only for a provider where
	// nobody can have a name but who has it here.
	LinkExisting bool `koanf:"link_existing"`
	// ExistingOnly makes no new accounts.
	ExistingOnly bool `koanf:"existing_only"`
}

// Validate implements the check of a section.
func (s SSO) Validate() error {
	if err := checkStarts("redirects", s.Redirects); err != nil {
		return err
	}
	seen := map[string]bool{}
	for i, p := range s.Providers {
		at := fmt.Sprintf("providers: item %d:", i+1)
		switch {
		case !name(p.ID):
			return fmt.Errorf("%s id must be of the characters a-z, 0-9 and _-.: %q", at, p.ID)
		case seen[p.ID]:
			return fmt.Errorf("%s %q is named twice", at, p.ID)
		case p.Name == "":
			return fmt.Errorf("%s name must be set", at)
		case p.ClientID == "":
			return fmt.Errorf("%s client_id must be set", at)
		case p.Icon != "" && !strings.HasPrefix(p.Icon, "mxc://"):
			return fmt.Errorf("%s icon must be an mxc:// URI", at)
		case p.Brand != "" && !name(p.Brand):
			return fmt.Errorf("%s brand must be of the characters a-z, 0-9 and _-.: %q", at, p.Brand)
		case p.LinkExisting && p.LocalpartClaim == "":
			return fmt.Errorf("%s link_existing needs localpart_claim", at)
		}
		seen[p.ID] = true
		if err := checkURL(p.Issuer, "http", "https"); err != nil {
			return fmt.Errorf("%s issuer: %w", at, err)
		}
	}
	return nil
}

// name holds the rule for names of policies, providers and brands.
func name(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_-.") == ""
}
