package config

import (
	"errors"
	"fmt"
	netmail "net/mail"
	"net/url"
	"strings"

	"github.com/heddle-im/heddle/pkg/infra/mail"
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

// name holds the rule for names of policies, providers and brands.
func name(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_-.") == ""
}
