// Package authservice talks to an outside OAuth 2.0 service that keeps a deployment's accounts: it reads the service's metadata and asks it
// whom an access token speaks for (RFC 8414, RFC 7662; specification: client-server API, "OAuth 2.0 API").
//
// The service is the operator's own, named in the configuration, so requests to it may go to private networks; they follow no redirect,
// wait a bounded time and read a bounded answer. A [Service] is safe for concurrent use. Only the composition root imports the
// package.
package authservice

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/outhttp"
)

// Config names the service.
type Config struct {
	// Endpoint is the base URL under which this server reaches the service.
	Endpoint string
	// Secret is what both sides know, by which each proves to the other who it is.
	Secret string
}

// Errors of a Service. ErrUnavailable: the service did not answer as it should, so nothing is known.
var (
	ErrUnavailable = errors.New("the authentication service does not answer as it should")
	ErrInactive    = errors.New("the authentication service does not know the token, or no longer")
)

const (
	timeout        = 10 * time.Second
	maxAnswer      = 256 << 10
	metadataFresh  = 5 * time.Minute
	metadataPause  = 5 * time.Second // between attempts while the service fails
	clientScope    = "urn:matrix:client:api:*"
	deviceScope    = "urn:matrix:client:device:"
	adminScope     = "urn:synapse:admin:*"
	oldClientScope = "urn:matrix:org.matrix.msc2967.client:api:*"
	oldDeviceScope = "urn:matrix:org.matrix.msc2967.client:device:"
	maxDeviceID    = 255
)

// Service is the outside service.
type Service struct {
	endpoint *url.URL
	secret   string
	client   *http.Client
	now      func() time.Time

	mu       sync.Mutex // guards the rest
	metadata Metadata
	got      time.Time
	tried    time.Time
}

// New makes a Service.
func New(cfg Config, now func() time.Time) (*Service, error) {
	u, err := url.Parse(cfg.Endpoint)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" {
		return nil, fmt.Errorf("%q is not the URL of an authentication service", cfg.Endpoint)
	}
	if cfg.Secret == "" {
		return nil, errors.New("the authentication service needs a secret")
	}
	if !strings.HasSuffix(u.Path, "/") {
		u.Path += "/"
	}
	return &Service{
		endpoint: u, secret: cfg.Secret, now: now,
		client: &http.Client{
			Timeout:       timeout,
			Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// Close lets idle connections go.
func (s *Service) Close() { s.client.CloseIdleConnections() }

// Metadata is what the service says of itself.
type Metadata struct {
	// JSON is the whole document, for clients.
	JSON   json.RawMessage
	Issuer string
	// AccountManagementURI is where users manage their account; it may be empty.
	AccountManagementURI string
}

// Metadata gives the service's metadata: a copy a few minutes old at most, or older if the service does not answer now. The error is
// ErrUnavailable.
func (s *Service) Metadata(ctx context.Context) (Metadata, error) {
	s.mu.Lock()
	m, now := s.metadata, s.now()
	fresh := !s.got.IsZero() && now.Sub(s.got) < metadataFresh
	paused := !s.got.IsZero() && now.Sub(s.tried) < metadataPause
	if !fresh && !paused {
		s.tried = now
	}
	s.mu.Unlock()
	if fresh || paused {
		return m, nil
	}
	body, err := s.do(ctx, http.MethodGet, ".well-known/openid-configuration", nil)
	if err == nil {
		var doc struct {
			Issuer  string `json:"issuer"`
			Account string `json:"account_management_uri"`
		}
		if err = json.Unmarshal(body, &doc); err == nil && doc.Issuer == "" {
			err = errors.New("its metadata name no issuer")
		}
		m = Metadata{JSON: body, Issuer: doc.Issuer, AccountManagementURI: doc.Account}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		s.metadata, s.got = m, now
		return m, nil
	case !s.got.IsZero():
		return s.metadata, nil
	default:
		return Metadata{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
}

// Token is what the service says of an access token.
type Token struct {
	Localpart string
	// DeviceID is empty if the token is of no device.
	DeviceID string
	// API tells that the token is for the client-server API, Admin that it is for the operator's.
	API, Admin bool
	// ExpiresIn is 0 if the token does not end by itself.
	ExpiresIn time.Duration
}

// Introspect asks whom a token speaks for. The error is ErrInactive or ErrUnavailable, with the cause.
func (s *Service) Introspect(ctx context.Context, token string) (Token, error) {
	body, err := s.do(ctx, http.MethodPost, "oauth2/introspect", url.Values{"token": {token}, "token_type_hint": {"access_token"}})
	if err != nil {
		return Token{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	var a struct {
		Active    bool   `json:"active"`
		Scope     string `json:"scope"`
		Username  string `json:"username"`
		DeviceID  string `json:"device_id"`
		ExpiresIn int64  `json:"expires_in"`
		Expires   int64  `json:"exp"` // s
	}
	if err := json.Unmarshal(body, &a); err != nil {
		return Token{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if !a.Active {
		return Token{}, ErrInactive
	}
	scopes := strings.Fields(a.Scope)
	t := Token{
		Localpart: a.Username, DeviceID: a.DeviceID, ExpiresIn: time.Duration(a.ExpiresIn) * time.Second,
		API:   slices.Contains(scopes, clientScope) || slices.Contains(scopes, oldClientScope),
		Admin: slices.Contains(scopes, adminScope),
	}
	if t.ExpiresIn == 0 && a.Expires > 0 {
		if t.ExpiresIn = time.Unix(a.Expires, 0).Sub(s.now()); t.ExpiresIn <= 0 {
			return Token{}, ErrInactive
		}
	}
	if t.DeviceID == "" {
		if t.DeviceID, err = device(scopes); err != nil {
			return Token{}, fmt.Errorf("%w: %w", ErrInactive, err)
		}
	}
	switch {
	case t.Localpart == "":
		return Token{}, fmt.Errorf("%w: it names no user", ErrInactive)
	case len(t.DeviceID) > maxDeviceID:
		return Token{}, fmt.Errorf("%w: its device id is too long", ErrInactive)
	}
	return t, nil
}

// device gives the device that scopes name, if any.
func device(scopes []string) (string, error) {
	found := ""
	for _, s := range scopes {
		d, ok := strings.CutPrefix(s, deviceScope)
		if !ok {
			if d, ok = strings.CutPrefix(s, oldDeviceScope); !ok {
				continue
			}
		}
		if found != "" && found != d {
			return "", errors.New("it is of two devices")
		}
		found = d
	}
	return found, nil
}

// do makes a request, with the secret, and gives the body of an answer of status 200.
func (s *Service) do(ctx context.Context, method, path string, form url.Values) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, s.endpoint.JoinPath(path).String(), strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Authorization", "Bearer "+s.secret)
		// The device comes as a member of the answer then, and need not be guessed from scopes.
		req.Header.Set("X-Mas-Supports-Device-Id", "1")
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := outhttp.ReadAll(resp.Body, maxAnswer)
	switch {
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("it answered %s with status %d", path, resp.StatusCode)
	case err != nil:
		return nil, fmt.Errorf("read its answer to %s: %w", path, err)
	}
	return body, nil
}
