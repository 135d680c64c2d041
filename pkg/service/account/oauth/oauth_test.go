package oauth

import (
	"encoding/base64"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func provider(now *time.Time) *Provider {
	return NewProvider(Options{Secret: []byte("the cluster's"), BaseURL: "https://matrix.example.org/", Now: func() time.Time { return *now }})
}

func web(redirects ...string) Client {
	return Client{ClientURI: "https://example.com/", Name: "An app", RedirectURIs: redirects}
}

func native(redirects ...string) Client {
	c := web(redirects...)
	c.Type = "native"
	return c
}

func refused(t *testing.T, want Code, err error, what string) {
	t.Helper()
	var e *Error
	require.ErrorAs(t, err, &e, what)
	require.Equal(t, want, e.Code, what)
	require.NotEmpty(t, e.Description)
}

// The examples of the specification ("Redirect URI validation"), and their neighbours.
func TestRedirectURIs(t *testing.T) {
	now := time.UnixMilli(1)
	p := provider(&now)
	for uri, ok := range map[string][2]bool{ // web, native
		"https://example.com/callback":                    {true, true},
		"https://app.example.com/callback":                {true, true},
		"https://example.com:5173/?query=value":           {true, true},
		"https://EXAMPLE.com/callback":                    {true, true},
		"https://example.com/callback#fragment":           {},
		"https://example.com/callback#":                   {},
		"http://example.com/callback":                     {},
		"https://notexample.com/":                         {},
		"https://example.com.evil.org/":                   {},
		"https://user@example.com/":                       {},
		"https://user:pass@example.com/":                  {},
		"https:example.com":                               {},
		"https:///callback":                               {},
		"https://example.com/a b":                         {},
		"https://example.com\\@evil.org/":                 {},
		"https://example.com/\u00e9":                      {},
		"http://localhost/callback":                       {false, true},
		"http://127.0.0.1/callback":                       {false, true},
		"http://[::1]/callback":                           {false, true},
		"http://localhost:1234/callback":                  {},
		"http://localhost:/callback":                      {},
		"http://localhost.evil.org/":                      {},
		"https://localhost/callback":                      {},
		"com.example.app:/callback":                       {false, true},
		"com.example:/":                                   {false, true},
		"com.example:callback":                            {false, true},
		"example:/callback":                               {},
		"com.example.app://callback":                      {},
		"com.examples:/callback":                          {},
		"javascript:alert(1)":                             {},
		"data:text/html,x":                                {},
		"":                                                {},
		"/callback":                                       {},
		"https://example.com/" + strings.Repeat("x", 600): {},
	} {
		for i, c := range []Client{web(uri), native(uri)} {
			_, err := p.Register(c)
			if ok[i] {
				require.NoError(t, err, "%s of a %s client", uri, c.Type)
			} else {
				refused(t, InvalidRedirectURI, err, uri)
			}
		}
	}
}

func TestRegistration(t *testing.T) {
	now := time.UnixMilli(1)
	p := provider(&now)
	r, err := p.Register(Client{
		ClientURI: "https://example.com/", Name: "Äpp", LogoURI: "https://cdn.example.com/l.png", TermsURI: "https://example.com/tos",
		RedirectURIs: []string{"https://example.com/cb"}, Grants: []string{grantRefresh, "implicit", grantCode, grantCode}, Responses: []string{"token", "code"},
	})
	require.NoError(t, err)
	require.Equal(t, Client{
		ClientURI: "https://example.com/", Name: "Äpp", LogoURI: "https://cdn.example.com/l.png", TermsURI: "https://example.com/tos",
		RedirectURIs: []string{"https://example.com/cb"}, Grants: []string{grantCode, grantRefresh}, Responses: []string{"code"},
		AuthMethod: "none", Type: "web",
	}, r.Client)
	again, err := p.Register(r.Client)
	require.NoError(t, err)
	require.Equal(t, r.ID, again.ID, "who says the same is the same client")
	c, err := p.Client(r.ID)
	require.NoError(t, err)
	require.Equal(t, r.Client, c)

	for name, change := range map[string]func(*Client){
		"no client_uri":   func(c *Client) { c.ClientURI = "" },
		"http client_uri": func(c *Client) { c.ClientURI = "http://example.com/" },
		"user":            func(c *Client) { c.ClientURI = "https://a@example.com/" },
		"logo elsewhere":  func(c *Client) { c.LogoURI = "https://example.org/l.png" },
		"script as terms": func(c *Client) { c.TermsURI = "javascript:alert(1)" },
		"http policy":     func(c *Client) { c.PolicyURI = "http://example.com/" },
		"confidential":    func(c *Client) { c.AuthMethod = "client_secret_basic" },
		"type":            func(c *Client) { c.Type = "server" },
		"long name":       func(c *Client) { c.Name = strings.Repeat("x", 101) },
		"control in name": func(c *Client) { c.Name = "a\u0000b" },
		"too large by far": func(c *Client) {
			c.RedirectURIs = nil
			c.Grants = []string{grantDevice}
			for range 10 {
				c.RedirectURIs = append(c.RedirectURIs, "https://example.com/"+strings.Repeat("y", 490))
			}
		},
	} {
		c := web("https://example.com/cb")
		change(&c)
		_, err := p.Register(c)
		refused(t, InvalidClientMetadata, err, name)
	}
	_, err = p.Register(web())
	refused(t, InvalidRedirectURI, err, "no redirects")
	_, err = p.Register(Client{ClientURI: "https://example.com/", Grants: []string{grantDevice}})
	require.NoError(t, err, "a device needs none")
}

// Whatever is changed of what was sealed, or sealed as something else, or by another deployment, is not read.
func TestSeals(t *testing.T) {
	now := time.UnixMilli(1)
	p := provider(&now)
	r, err := p.Register(web("https://example.com/cb"))
	require.NoError(t, err)
	for i := range len(r.ID) {
		changed := []byte(r.ID)
		changed[i] ^= 1
		_, err := p.Client(string(changed))
		refused(t, InvalidClient, err, string(changed))
	}
	_, _, err = p.Open(r.ID)
	refused(t, InvalidRequest, err, "a client as a request")
	_, err = p.Holder(r.ID)
	refused(t, AccessDenied, err, "a client as a ticket")
	other := NewProvider(Options{Secret: []byte("another"), Now: time.Now})
	_, err = other.Client(r.ID)
	refused(t, InvalidClient, err, "another deployment's")

	ticket, err := p.Ticket("@a:b")
	require.NoError(t, err)
	u, err := p.Holder(ticket)
	require.NoError(t, err)
	require.EqualValues(t, "@a:b", u)
	now = now.Add(ticketLifetime + time.Millisecond)
	_, err = p.Holder(ticket)
	refused(t, AccessDenied, err, "old")
}

func good(id string) url.Values {
	return url.Values{
		"client_id": {id}, "response_type": {"code"}, "redirect_uri": {"https://example.com/cb"}, "state": {"s&t"}, "response_mode": {"fragment"},
		"scope": {"openid " + scopeAPI + " " + scopeDevice + "ABCDEFGHIJ"}, "code_challenge": {base64.RawURLEncoding.EncodeToString(hashOf("v"))},
		"code_challenge_method": {"S256"},
	}
}

func TestAuthorize(t *testing.T) {
	now := time.UnixMilli(1)
	p := provider(&now)
	reg, err := p.Register(web("https://example.com/cb", "https://example.com/cb?x=1"))
	require.NoError(t, err)
	_, r, redirect, err := p.Authorize(good(reg.ID))
	require.NoError(t, err)
	require.Empty(t, redirect)
	require.Equal(t, "ABCDEFGHIJ", r.Device)
	require.Equal(t, scopeAPI+" "+scopeDevice+"ABCDEFGHIJ", r.Scope)
	require.Equal(t, "https://example.com/cb#error=access_denied&error_description=the+person+refused&state=s%26t", r.Deny())

	sealed, err := p.Seal(&r)
	require.NoError(t, err)
	_, same, err := p.Open(sealed)
	require.NoError(t, err)
	require.Equal(t, r, same)
	now = now.Add(requestLifetime + time.Millisecond)
	_, _, err = p.Open(sealed)
	refused(t, InvalidRequest, err, "old")

	// Where the address is not surely the client's, nobody is sent there.
	for name, change := range map[string]func(url.Values){
		"unknown client": func(v url.Values) { v.Set("client_id", "x") },
		"other redirect": func(v url.Values) { v.Set("redirect_uri", "https://example.com/other") },
		"suffix":         func(v url.Values) { v.Set("redirect_uri", "https://example.com/cb/") },
		"no redirect":    func(v url.Values) { v.Del("redirect_uri") },
	} {
		v := good(reg.ID)
		change(v)
		_, _, redirect, err := p.Authorize(v)
		require.Error(t, err, name)
		require.Empty(t, redirect, name)
	}
	// Other refusals are the client's to hear.
	for want, changes := range map[Code][]func(url.Values){
		UnsupportedResponse: {func(v url.Values) { v.Set("response_type", "token") }, func(v url.Values) { v.Del("response_type") }},
		InvalidRequest: {
			func(v url.Values) { v.Del("code_challenge") }, func(v url.Values) { v.Set("code_challenge", "short") },
			func(v url.Values) { v.Set("code_challenge_method", "plain") }, func(v url.Values) { v.Del("code_challenge_method") },
			func(v url.Values) { v.Set("response_mode", "form_post") }, func(v url.Values) { v.Set("state", strings.Repeat("x", 2000)) },
		},
		InvalidScope: {
			func(v url.Values) { v.Del("scope") }, func(v url.Values) { v.Set("scope", scopeAPI) }, func(v url.Values) { v.Set("scope", scopeDevice+"ABC") },
			func(v url.Values) { v.Set("scope", scopeAPI+" "+scopeDevice+"A "+scopeDevice+"B") },
			func(v url.Values) { v.Set("scope", scopeAPI+" "+scopeDevice) },
			func(v url.Values) { v.Set("scope", scopeAPI+" "+scopeDevice+`a"b`) },
		},
	} {
		for _, change := range changes {
			v := good(reg.ID)
			change(v)
			_, _, redirect, err := p.Authorize(v)
			refused(t, want, err, v.Encode())
			u, err := url.Parse(redirect)
			require.NoError(t, err)
			require.Equal(t, "example.com/cb", u.Host+u.Path)
			require.Contains(t, u.Fragment+u.RawQuery, "error="+string(want))
		}
	}
	v := good(reg.ID)
	v.Set("redirect_uri", "https://example.com/cb?x=1")
	v.Del("response_mode")
	_, r, _, err = p.Authorize(v)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(r.Deny(), "https://example.com/cb?x=1&error=access_denied&"))
}

// A client on the same machine may listen on any port (RFC 8252, section 7.3).
func TestLoopbackPorts(t *testing.T) {
	now := time.UnixMilli(1)
	p := provider(&now)
	reg, err := p.Register(native("http://127.0.0.1/cb", "http://[::1]/cb", "com.example.app:/cb"))
	require.NoError(t, err)
	for uri, ok := range map[string]bool{
		"http://127.0.0.1/cb": true, "http://127.0.0.1:54321/cb": true, "http://[::1]:1/cb": true, "com.example.app:/cb": true,
		"http://127.0.0.1:54321/other": false, "http://localhost:54321/cb": false, "http://127.0.0.1:54321@evil.org/cb": false,
		"https://127.0.0.1:54321/cb": false, "http://127.0.0.2:54321/cb": false, "com.example.app:/cb2": false,
	} {
		require.Equal(t, ok, reg.redirects(uri), uri)
	}
}

func FuzzRedirects(f *testing.F) {
	for _, s := range []string{"https://example.com/cb", "http://127.0.0.1:1/cb", "com.example.app:/x", "https://example.com\\@x/"} {
		f.Add(s)
	}
	now := time.UnixMilli(1)
	p := provider(&now)
	f.Fuzz(func(t *testing.T, uri string) {
		reg, err := p.Register(native(uri))
		if err != nil {
			return
		}
		u, err := url.Parse(uri)
		require.NoError(t, err)
		require.Empty(t, u.Fragment)
		require.Nil(t, u.User)
		require.True(t, reg.redirects(uri))
		switch u.Scheme {
		case "https":
			require.True(t, u.Hostname() == "example.com" || strings.HasSuffix(strings.ToLower(u.Hostname()), "example.com"))
		case "http":
			require.Contains(t, []string{"localhost", "127.0.0.1", "::1"}, u.Hostname())
		default:
			require.True(t, strings.HasPrefix(u.Scheme, "com.example"))
			require.Empty(t, u.Host)
		}
	})
}

func FuzzOpen(f *testing.F) {
	now := time.UnixMilli(1)
	p := provider(&now)
	reg, _ := p.Register(web("https://example.com/cb"))
	f.Add(reg.ID)
	f.Fuzz(func(t *testing.T, sealed string) {
		if _, err := p.Client(sealed); err == nil {
			require.Equal(t, reg.ID, sealed)
		}
		_, _, err := p.Open(sealed)
		require.Error(t, err)
	})
}

func TestUserCodes(t *testing.T) {
	for range 1000 {
		c := newUserCode()
		require.Len(t, c, userLength)
		require.Equal(t, c, userCode(strings.ToLower(c[:4]+" - "+c[4:])))
	}
	require.Empty(t, userCode("aeiou 0123"))
}
