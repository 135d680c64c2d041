package oauth

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/soft"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/account"
)

// Accounts makes and ends sessions. It is [account.Front].
type Accounts interface {
	LoginToken(ctx context.Context, u id.UserID) (token string, expiresIn time.Duration, err error)
	LoginByToken(ctx context.Context, token string, d account.NewDevice) (account.LoggedIn, error)
	Refresh(ctx context.Context, token string) (account.LoggedIn, error)
	LogoutToken(ctx context.Context, token string) error
}

// Options are what a Provider needs.
type Options struct {
	// Secret is the cluster's.
	Secret   []byte
	Accounts Accounts
	Soft     *soft.Store
	// BaseURL is where people and clients reach the server, without a slash at its end.
	BaseURL string
	Now     func() time.Time
}

// Provider is the authorisation server.
type Provider struct {
	o   Options
	key []byte
	box *account.Box
}

// NewProvider makes a Provider.
func NewProvider(o Options) *Provider {
	mac := hmac.New(sha256.New, o.Secret)
	_, _ = mac.Write([]byte("oauth 2.0 provider"))
	o.BaseURL = strings.TrimSuffix(o.BaseURL, "/")
	return &Provider{o: o, key: mac.Sum(nil), box: account.NewBox(o.Secret, "oauth")}
}

// Where the endpoints are, below the base URL.
const (
	PathAuthorize = "/_matrix/oauth2/authorize"
	PathToken     = "/_matrix/oauth2/token"
	PathRevoke    = "/_matrix/oauth2/revoke"
	PathRegister  = "/_matrix/oauth2/register"
	PathDevice    = "/_matrix/oauth2/device"
	PathLink      = "/_matrix/oauth2/link"
	PathAccount   = "/_matrix/oauth2/account"
)

// The pages of the account (spec: "Account management URL actions").
const (
	ActionProfile    = "org.matrix.profile"
	ActionDevices    = "org.matrix.devices_list"
	ActionDevice     = "org.matrix.device_view"
	ActionDelete     = "org.matrix.device_delete"
	ActionDeactivate = "org.matrix.account_deactivate"
	ActionReset      = "org.matrix.cross_signing_reset"
)

// Metadata is what the server says of itself (RFC 8414).
type Metadata struct {
	Issuer        string   `json:"issuer"`
	Authorization string   `json:"authorization_endpoint"`
	Token         string   `json:"token_endpoint"`
	Revocation    string   `json:"revocation_endpoint"`
	Registration  string   `json:"registration_endpoint"`
	Device        string   `json:"device_authorization_endpoint"`
	Responses     []string `json:"response_types_supported"`
	Grants        []string `json:"grant_types_supported"`
	Modes         []string `json:"response_modes_supported"`
	Challenges    []string `json:"code_challenge_methods_supported"`
	AuthMethods   []string `json:"token_endpoint_auth_methods_supported"`
	Prompts       []string `json:"prompt_values_supported,omitempty"`
	Account       string   `json:"account_management_uri"`
	Actions       []string `json:"account_management_actions_supported"`
}

// Metadata gives what the server says of itself; registers: anybody may register.
func (p *Provider) Metadata(registers bool) Metadata {
	at := p.o.BaseURL
	m := Metadata{
		Issuer: p.Issuer(), Authorization: at + PathAuthorize, Token: at + PathToken, Revocation: at + PathRevoke,
		Registration: at + PathRegister, Device: at + PathDevice, Responses: []string{"code"},
		Grants: []string{grantCode, grantRefresh, grantDevice}, Modes: []string{"query", "fragment"}, Challenges: []string{"S256"},
		AuthMethods: []string{"none"}, Account: p.AccountURL(""),
		Actions: []string{ActionProfile, ActionDevices, ActionDevice, ActionDelete, ActionDeactivate, ActionReset},
	}
	if registers {
		m.Prompts = []string{promptCreate}
	}
	return m
}

// Issuer names the authorisation server.
func (p *Provider) Issuer() string { return p.o.BaseURL + "/" }

// AccountURL is where people look after their accounts; action may be empty.
func (p *Provider) AccountURL(action string) string {
	if action == "" {
		return p.o.BaseURL + PathAccount
	}
	return p.o.BaseURL + PathAccount + "?action=" + url.QueryEscape(action)
}

// code is what a client gets for its person's word, sealed.
type code struct {
	Login     string `json:"l"` // the login token, which is good once
	Client    []byte `json:"c"` // the hash of the client's id
	Redirect  string `json:"r"`
	Challenge string `json:"p"`
	Device    string `json:"d"`
	Scope     string `json:"s"`
}

func hashOf(s string) []byte {
	h := sha256.Sum256([]byte(s))
	return h[:]
}

// Grant answers a request with a code for a user, who has been asked: where the browser goes.
func (p *Provider) Grant(ctx context.Context, r *Request, u id.UserID) (string, error) {
	login, _, err := p.o.Accounts.LoginToken(ctx, u)
	if err != nil {
		return "", err
	}
	c, err := p.seal(sealCode, &code{
		Login: login, Client: hashOf(r.Client), Redirect: r.Redirect, Challenge: r.Challenge, Device: r.Device, Scope: r.Scope,
	})
	if err != nil {
		return "", err
	}
	return r.back(url.Values{"code": {c}}), nil
}

// Tokens are what a client gets (RFC 6749, section 5.1).
type Tokens struct {
	Access    string `json:"access_token"`
	Type      string `json:"token_type"`
	ExpiresIn int64  `json:"expires_in,omitzero"` // seconds
	Refresh   string `json:"refresh_token"`
	Scope     string `json:"scope,omitempty"`
}

// refreshToken ties a session's refresh token to the client that got it.
type refreshToken struct {
	Token  string `json:"t"`
	Client []byte `json:"c"`
	Scope  string `json:"s"`
}

func (p *Provider) tokens(in account.LoggedIn, clientID, scope string) (Tokens, error) {
	refresh, err := p.seal(sealRefresh, &refreshToken{in.RefreshToken, hashOf(clientID), scope})
	return Tokens{
		Access: in.AccessToken, Type: "Bearer", ExpiresIn: int64(in.ExpiresIn.Seconds()), Refresh: refresh, Scope: scope,
	}, err
}

// Seen is from where a client asks.
type Seen struct{ IP, UserAgent string }

// Token answers the token endpoint. The error is an *Error where the client is at fault.
func (p *Provider) Token(ctx context.Context, form url.Values, from Seen) (Tokens, error) {
	clientID := form.Get("client_id")
	c, err := p.Client(clientID)
	if err != nil {
		return Tokens{}, err
	}
	grant := form.Get("grant_type")
	switch grant {
	case grantCode, grantRefresh, grantDevice:
	case "":
		return Tokens{}, refuse(InvalidRequest, "grant_type is missing")
	default:
		return Tokens{}, refuse(UnsupportedGrantType, "this grant is not known here")
	}
	if !c.Allows(grant) && grant != grantRefresh { // each grant gives a refresh token, so each client may use it
		return Tokens{}, refuse(UnauthorizedClient, "the client did not register for this grant")
	}
	switch grant {
	case grantRefresh:
		return p.refresh(ctx, form, clientID)
	case grantDevice:
		return p.byDevice(ctx, form, &c, from)
	}
	return p.byCode(ctx, form, &c, from)
}

func (p *Provider) byCode(ctx context.Context, form url.Values, c *Client, from Seen) (Tokens, error) {
	var got code
	clientID := form.Get("client_id")
	if !p.open(sealCode, form.Get("code"), &got) || !hmac.Equal(got.Client, hashOf(clientID)) {
		return Tokens{}, refuse(InvalidGrant, "the code is not good")
	}
	if got.Redirect != form.Get("redirect_uri") {
		return Tokens{}, refuse(InvalidGrant, "redirect_uri is not that of the request")
	}
	verifier := form.Get("code_verifier")
	challenge := base64.RawURLEncoding.EncodeToString(hashOf(verifier))
	if len(verifier) < 43 || len(verifier) > 128 || !hmac.Equal([]byte(challenge), []byte(got.Challenge)) {
		return Tokens{}, refuse(InvalidGrant, "code_verifier does not fit the request")
	}
	return p.login(ctx, got.Login, got.Device, got.Scope, clientID, c, from)
}

func (p *Provider) login(ctx context.Context, token, device, scope, clientID string, c *Client, from Seen) (Tokens, error) {
	in, err := p.o.Accounts.LoginByToken(ctx, token, account.NewDevice{
		DeviceID: device, DisplayName: clip(c.Title()), IP: from.IP, UserAgent: from.UserAgent, Refresh: true,
	})
	if err != nil {
		return Tokens{}, asGrant(err)
	}
	return p.tokens(in, clientID, scope)
}

func (p *Provider) refresh(ctx context.Context, form url.Values, clientID string) (Tokens, error) {
	var t refreshToken
	if !p.open(sealRefresh, form.Get("refresh_token"), &t) || !hmac.Equal(t.Client, hashOf(clientID)) {
		return Tokens{}, refuse(InvalidGrant, "the refresh token is not good")
	}
	in, err := p.o.Accounts.Refresh(ctx, t.Token)
	if err != nil {
		return Tokens{}, asGrant(err)
	}
	return p.tokens(in, clientID, t.Scope)
}

// asGrant makes of a refusal what clients of OAuth 2.0 know; other errors stay what they are.
func asGrant(err error) error {
	var m *mxerr.Error
	if errors.As(err, &m) && m.HTTPStatus < 500 && m.Code != mxerr.LimitExceeded {
		return errors.Join(refuse(InvalidGrant, m.Message), err)
	}
	return err
}

// Revoke ends the session of an access or refresh token (RFC 7009). What is no token of ours is ended already.
func (p *Provider) Revoke(ctx context.Context, token string) error {
	var t refreshToken
	if p.open(sealRefresh, token, &t) {
		token = t.Token
	}
	err := p.o.Accounts.LogoutToken(ctx, token)
	var m *mxerr.Error
	if errors.As(err, &m) && m.HTTPStatus < 500 && m.Code != mxerr.LimitExceeded {
		return nil
	}
	return err
}

// ticketLifetime is how long the page of an account can be used.
const ticketLifetime = 10 * time.Minute

type ticket struct {
	User id.UserID `json:"u"`
	Ends int64     `json:"e"` // ms
}

// Ticket proves for a while that a user has logged in on a page.
func (p *Provider) Ticket(u id.UserID) (string, error) {
	return p.seal(sealTicket, &ticket{u, p.o.Now().Add(ticketLifetime).UnixMilli()})
}

// Holder tells whose ticket it is. Refused with access_denied.
func (p *Provider) Holder(sealed string) (id.UserID, error) {
	var t ticket
	if !p.open(sealTicket, sealed, &t) || t.Ends < p.o.Now().UnixMilli() {
		return "", refuse(AccessDenied, "the page is too old; log in again")
	}
	return t.User, nil
}
