package oauth

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of what a client registers. All of it is in the client's id, which is in addresses.
const (
	maxRedirects  = 10
	maxURI        = 512
	maxClientName = 100 // bytes
	maxClient     = 3 << 10
)

// The grants that clients may use.
const (
	grantCode    = "authorization_code"
	grantRefresh = "refresh_token"
	grantDevice  = "urn:ietf:params:oauth:grant-type:device_code"
)

// Client is what a client says of itself (spec: "Client metadata").
type Client struct {
	ClientURI    string   `json:"client_uri"`
	Name         string   `json:"client_name,omitempty"`
	LogoURI      string   `json:"logo_uri,omitempty"`
	TermsURI     string   `json:"tos_uri,omitempty"`
	PolicyURI    string   `json:"policy_uri,omitempty"`
	RedirectURIs []string `json:"redirect_uris,omitempty"`
	Responses    []string `json:"response_types,omitempty"`
	Grants       []string `json:"grant_types,omitempty"`
	AuthMethod   string   `json:"token_endpoint_auth_method,omitempty"`
	Type         string   `json:"application_type,omitempty"`
}

// Registered is the answer to a registration.
type Registered struct {
	ID string `json:"client_id"`
	Client
}

// Register checks what a client says of itself, and gives it an id: the same as to everybody who says the same.
func (p *Provider) Register(c Client) (Registered, error) {
	if err := c.check(); err != nil {
		return Registered{}, err
	}
	id, err := p.seal(sealClient, &c)
	if err != nil {
		return Registered{}, err
	}
	if len(id) > maxClient {
		return Registered{}, refuse(InvalidClientMetadata, "the metadata is too large")
	}
	return Registered{id, c}, nil
}

// Client gives what the client of an id said of itself. Refused with invalid_client.
func (p *Provider) Client(id string) (Client, error) {
	var c Client
	if len(id) > maxClient || !p.open(sealClient, id, &c) {
		return Client{}, refuse(InvalidClient, "this client is not registered here")
	}
	return c, nil
}

// Host is the host whose word is the client's: what a person can judge it by.
func (c *Client) Host() string {
	u, err := url.Parse(c.ClientURI)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// Title is how the client is called.
func (c *Client) Title() string {
	if c.Name == "" {
		return c.Host()
	}
	return c.Name
}

// Allows tells whether the client registered for a grant.
func (c *Client) Allows(grant string) bool { return slices.Contains(c.Grants, grant) }

// check refuses what cannot be registered, and leaves out what is not understood (spec: "The server MUST ignore values that it
// does not understand").
func (c *Client) check() error {
	if c.Type == "" {
		c.Type = "web"
	}
	if c.Type != "web" && c.Type != "native" {
		return refuse(InvalidClientMetadata, "application_type must be web or native")
	}
	if c.AuthMethod == "" {
		c.AuthMethod = "none"
	}
	if c.AuthMethod != "none" {
		return refuse(InvalidClientMetadata, "token_endpoint_auth_method must be none")
	}
	if len(c.Name) > maxClientName || !utf8.ValidString(c.Name) || strings.ContainsFunc(c.Name, unicode.IsControl) {
		return refuse(InvalidClientMetadata, fmt.Sprintf("client_name must be at most %d bytes of text", maxClientName))
	}
	if len(c.Grants) == 0 {
		c.Grants = []string{grantCode} // RFC 7591, section 2
	}
	c.Grants = known(c.Grants, grantCode, grantRefresh, grantDevice)
	if len(c.Responses) == 0 {
		c.Responses = []string{"code"}
	}
	c.Responses = known(c.Responses, "code")
	base, err := url.Parse(c.ClientURI)
	if err != nil || !https(base, c.ClientURI) {
		return refuse(InvalidClientMetadata, "client_uri must be an https URL without a user")
	}
	for name, uri := range map[string]*string{"logo_uri": &c.LogoURI, "tos_uri": &c.TermsURI, "policy_uri": &c.PolicyURI} {
		if *uri == "" {
			continue
		}
		if u, err := url.Parse(*uri); err != nil || !https(u, *uri) || !under(u.Hostname(), base.Hostname()) {
			return refuse(InvalidClientMetadata, name+" must be an https URL under the host of client_uri")
		}
	}
	return c.checkRedirects(base.Hostname())
}

func (c *Client) checkRedirects(base string) error {
	if len(c.RedirectURIs) > maxRedirects {
		return refuse(InvalidRedirectURI, "too many redirect_uris")
	}
	if c.Allows(grantCode) && len(c.RedirectURIs) == 0 {
		return refuse(InvalidRedirectURI, "redirect_uris is empty")
	}
	for _, uri := range c.RedirectURIs {
		if !redirectable(uri, base, c.Type == "native") {
			return refuse(InvalidRedirectURI, fmt.Sprintf("%.100q is no redirect URI of a %s client of %s", uri, c.Type, base))
		}
	}
	return nil
}

// known keeps those of a list that are understood, each once.
func known(list []string, words ...string) []string {
	var out []string
	for _, w := range words {
		if slices.Contains(list, w) {
			out = append(out, w)
		}
	}
	return out
}

func printable(uri string) bool {
	return len(uri) <= maxURI && !strings.ContainsFunc(uri, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '\\' })
}

func https(u *url.URL, raw string) bool {
	return u.Scheme == "https" && u.Opaque == "" && u.User == nil && u.Hostname() != "" && printable(raw)
}

// under tells whether a host is another or below it.
func under(host, base string) bool {
	return strings.EqualFold(host, base) || strings.HasSuffix(strings.ToLower(host), "."+strings.ToLower(base))
}

// redirectable holds the rules of "Redirect URI validation".
func redirectable(uri, base string, native bool) bool {
	u, err := url.Parse(uri)
	if err != nil || u.Fragment != "" || strings.Contains(uri, "#") || !printable(uri) {
		return false
	}
	if https(u, uri) {
		return under(u.Hostname(), base)
	}
	if !native {
		return false
	}
	if u.Scheme == "http" {
		return loopback(u) && u.Port() == "" && !strings.HasSuffix(u.Host, ":")
	}
	labels := strings.Split(strings.ToLower(base), ".")
	slices.Reverse(labels)
	reversed := strings.Join(labels, ".")
	return len(labels) > 1 && (u.Scheme == reversed || strings.HasPrefix(u.Scheme, reversed+".")) &&
		u.Host == "" && u.User == nil && !strings.HasPrefix(uri[len(u.Scheme):], "://")
}

func loopback(u *url.URL) bool {
	switch u.Hostname() {
	case "localhost", "127.0.0.1", "::1":
		return u.User == nil && u.Scheme == "http"
	}
	return false
}

// redirects tells whether a request may be answered to a URI: one that was registered, letter by letter, but that a loopback address may
// have any port (RFC 8252, section 7.3).
func (c *Client) redirects(uri string) bool {
	if slices.Contains(c.RedirectURIs, uri) {
		return true
	}
	u, err := url.Parse(uri)
	if c.Type != "native" || err != nil || !loopback(u) || u.Port() == "" || !printable(uri) {
		return false
	}
	host := u.Hostname()
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	withPort := "http://" + host + ":" + u.Port()
	rest, ok := strings.CutPrefix(uri, withPort)
	return ok && slices.Contains(c.RedirectURIs, "http://"+host+rest)
}

// clip makes of a title what a device can be called.
func clip(s string) string { return strings.ToValidUTF8(s[:min(len(s), maxClientName)], "") }
