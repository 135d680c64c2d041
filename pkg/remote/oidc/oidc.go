// Package oidc asks outside providers that speak OpenID Connect who somebody is.
//
// Guarantees: a code is exchanged with PKCE; an identity is told only from an ID token that the provider signed for this server and for the nonce
// of this attempt; what a provider answers is bounded in size and time; a provider that cannot be reached when the server starts is asked again
// when somebody logs in. A [Provider] is safe for concurrent use.
//
// It may be imported by app.
package oidc

import (
	"context"
	"crypto/hmac"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	goidc "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"golang.org/x/sync/singleflight"
)

// Limits of what is read from a provider.
const (
	timeout = 10 * time.Second
	maxBody = 1 << 20
)

// ErrIdentity is the error of somebody whom the provider does not vouch for.
var ErrIdentity = errors.New("the provider does not vouch for this login")

// Config is a provider, and how its claims are read.
type Config struct {
	Issuer, ClientID, ClientSecret string
	// RedirectURL is where the provider sends browsers back.
	RedirectURL string
	Scopes      []string
	// The names of claims; empty: none is read.
	LocalpartClaim, DisplayNameClaim, EmailClaim string
	Now                                          func() time.Time
}

// Identity is whom a provider vouches for. What it does not say is empty.
type Identity struct {
	Subject, Localpart, DisplayName string
	// Email is one that the provider says it has verified.
	Email string
}

// Provider is one provider.
type Provider struct {
	cfg    Config
	client *http.Client
	known  atomic.Pointer[goidc.Provider]
	asking singleflight.Group
}

// New makes a Provider. It asks nothing yet.
func New(cfg Config) *Provider {
	to := &http.Transport{
		Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, MaxIdleConns: 4, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: timeout,
	}
	return &Provider{cfg: cfg, client: &http.Client{Timeout: timeout, Transport: limited{to}}}
}

// Close closes connections that nobody uses.
func (p *Provider) Close() { p.client.CloseIdleConnections() }

// limited cuts off answers that are too long.
type limited struct{ *http.Transport }

// RoundTrip implements http.RoundTripper.
func (l limited) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := l.Transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	res.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(res.Body, maxBody), res.Body}
	return res, nil
}

// provider learns what the provider says of itself, once.
func (p *Provider) provider(ctx context.Context) (*goidc.Provider, error) {
	if known := p.known.Load(); known != nil {
		return known, nil
	}
	// What is learnt outlives the request, and so does the fetching of keys later: the client's own timeout bounds them.
	ask := p.asking.DoChan("", func() (any, error) {
		known, err := goidc.NewProvider(goidc.ClientContext(context.WithoutCancel(ctx), p.client), p.cfg.Issuer)
		if err != nil {
			return nil, fmt.Errorf("ask %s about itself: %w", p.cfg.Issuer, err)
		}
		p.known.Store(known)
		return known, nil
	})
	select {
	case r := <-ask:
		known, _ := r.Val.(*goidc.Provider)
		return known, r.Err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *Provider) oauth(known *goidc.Provider) *oauth2.Config {
	scopes := []string{goidc.ScopeOpenID}
	for _, s := range p.cfg.Scopes {
		if !slices.Contains(scopes, s) {
			scopes = append(scopes, s)
		}
	}
	return &oauth2.Config{
		ClientID: p.cfg.ClientID, ClientSecret: p.cfg.ClientSecret, Endpoint: known.Endpoint(), RedirectURL: p.cfg.RedirectURL, Scopes: scopes,
	}
}

// AuthURL is where a browser goes to log in. fresh has the person prove anew who it is, although the provider may remember.
func (p *Provider) AuthURL(ctx context.Context, state, nonce, verifier string, fresh bool) (string, error) {
	known, err := p.provider(ctx)
	if err != nil {
		return "", err
	}
	o := []oauth2.AuthCodeOption{goidc.Nonce(nonce), oauth2.S256ChallengeOption(verifier)}
	if fresh {
		o = append(o, oauth2.SetAuthURLParam("prompt", "login"))
	}
	return p.oauth(known).AuthCodeURL(state, o...), nil
}

// Exchange tells whom the provider vouches for with a code.
func (p *Provider) Exchange(ctx context.Context, code, nonce, verifier string) (Identity, error) {
	known, err := p.provider(ctx)
	if err != nil {
		return Identity{}, err
	}
	ctx = goidc.ClientContext(ctx, p.client)
	token, err := p.oauth(known).Exchange(ctx, code, oauth2.VerifierOption(verifier))
	if err != nil {
		return Identity{}, fmt.Errorf("%w: exchange the code: %w", ErrIdentity, err)
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return Identity{}, fmt.Errorf("%w: no ID token", ErrIdentity)
	}
	id, err := known.VerifierContext(ctx, &goidc.Config{ClientID: p.cfg.ClientID, Now: p.cfg.Now}).Verify(ctx, raw)
	if err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	if !hmac.Equal([]byte(id.Nonce), []byte(nonce)) || nonce == "" {
		return Identity{}, fmt.Errorf("%w: the ID token is of another login", ErrIdentity)
	}
	if id.Subject == "" || len(id.Subject) > 255 {
		return Identity{}, fmt.Errorf("%w: no subject", ErrIdentity)
	}
	claims := map[string]any{}
	if err := id.Claims(&claims); err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	if p.lacks(claims) && known.UserInfoEndpoint() != "" {
		more, err := known.UserInfo(ctx, oauth2.StaticTokenSource(token))
		if err != nil {
			return Identity{}, fmt.Errorf("%w: ask about the user: %w", ErrIdentity, err)
		}
		if more.Subject != id.Subject {
			return Identity{}, fmt.Errorf("%w: told about another user", ErrIdentity)
		}
		rest := map[string]any{}
		if err := more.Claims(&rest); err != nil {
			return Identity{}, fmt.Errorf("%w: %w", ErrIdentity, err)
		}
		for k, v := range rest {
			if _, signed := claims[k]; !signed {
				claims[k] = v
			}
		}
	}
	return p.identity(id.Subject, claims), nil
}

// lacks tells whether a claim that is wanted is not in the ID token.
func (p *Provider) lacks(claims map[string]any) bool {
	for _, name := range []string{p.cfg.LocalpartClaim, p.cfg.DisplayNameClaim, p.cfg.EmailClaim} {
		if _, ok := claims[name]; name != "" && !ok {
			return true
		}
	}
	return false
}

func (p *Provider) identity(subject string, claims map[string]any) Identity {
	text := func(name string) string {
		s, _ := claims[name].(string)
		return s
	}
	i := Identity{Subject: subject}
	if p.cfg.LocalpartClaim != "" {
		i.Localpart = text(p.cfg.LocalpartClaim)
	}
	if p.cfg.DisplayNameClaim != "" {
		i.DisplayName = text(p.cfg.DisplayNameClaim)
	}
	if verified, _ := claims["email_verified"].(bool); verified && p.cfg.EmailClaim != "" {
		i.Email = text(p.cfg.EmailClaim)
	}
	return i
}
