package app

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/config"
)

// idp is an OpenID Connect provider, at which whoever is asked for is logged in.
type idp struct {
	t   *testing.T
	key *rsa.PrivateKey
	*httptest.Server
	mu     sync.Mutex                // guards what follows
	claims map[string]map[string]any // by code
	asked  map[string]url.Values     // by code
}

func newIDP(t *testing.T) *idp {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	p := &idp{t: t, key: key, claims: map[string]map[string]any{}, asked: map[string]url.Values{}}
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{
			"issuer": p.URL, "authorization_endpoint": p.URL + "/authorize", "token_endpoint": p.URL + "/token", "jwks_uri": p.URL + "/keys",
			"id_token_signing_alg_values_supported": []string{"RS256"}, "response_types_supported": []string{"code"},
		})
	})
	enc := base64.RawURLEncoding
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"keys": []any{map[string]any{
			"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "1", "n": enc.EncodeToString(key.N.Bytes()), "e": "AQAB",
		}}})
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		user, password, _ := r.BasicAuth()
		p.mu.Lock()
		claims, asked := p.claims[r.Form.Get("code")], p.asked[r.Form.Get("code")]
		delete(p.claims, r.Form.Get("code"))
		p.mu.Unlock()
		sum := sha256.Sum256([]byte(r.Form.Get("code_verifier")))
		if claims == nil || user != "heddle" || password != "secret" || enc.EncodeToString(sum[:]) != asked.Get("code_challenge") ||
			r.Form.Get("redirect_uri") != asked.Get("redirect_uri") {
			w.WriteHeader(http.StatusBadRequest)
			answer(w, map[string]any{"error": "invalid_grant"})
			return
		}
		answer(w, map[string]any{"access_token": "x", "token_type": "Bearer", "id_token": p.sign(claims)})
	})
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

func (p *idp) sign(claims map[string]any) string {
	enc := base64.RawURLEncoding
	body, err := json.Marshal(claims)
	require.NoError(p.t, err)
	head := enc.EncodeToString([]byte(`{"alg":"RS256","kid":"1"}`)) + "." + enc.EncodeToString(body)
	sum := sha256.Sum256([]byte(head))
	sig, err := rsa.SignPKCS1v15(rand.Reader, p.key, crypto.SHA256, sum[:])
	require.NoError(p.t, err)
	return head + "." + enc.EncodeToString(sig)
}

// login has somebody log in who was sent to a URL: where the browser comes back to. change changes what the provider says.
func (p *idp) login(at, subject, name string, change map[string]any) string {
	p.t.Helper()
	u, err := url.Parse(at)
	require.NoError(p.t, err)
	q := u.Query()
	require.Equal(p.t, p.URL+"/authorize", "http://"+u.Host+u.Path)
	require.Equal(p.t, "code", q.Get("response_type"))
	require.Equal(p.t, "S256", q.Get("code_challenge_method"))
	require.Equal(p.t, "https://matrix.example.org/_matrix/sso/callback", q.Get("redirect_uri"))
	require.NotEmpty(p.t, q.Get("nonce"))
	claims := map[string]any{
		"iss": p.URL, "aud": "heddle", "sub": subject, "nonce": q.Get("nonce"), "exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix(),
		"preferred_username": name, "name": strings.ToUpper(name), "email": name + "@example.org", "email_verified": true,
	}
	for k, v := range change {
		claims[k] = v
	}
	code := rand.Text()
	p.mu.Lock()
	p.claims[code], p.asked[code] = claims, q
	p.mu.Unlock()
	return "/_matrix/sso/callback?" + url.Values{"state": {q.Get("state")}, "code": {code}}.Encode()
}

// jar is a browser with cookies.
type jar struct {
	t       *testing.T
	at      *worker
	cookies map[string]*http.Cookie
}

func (j *jar) visit(path string, form url.Values) (status int, page, location string) {
	j.t.Helper()
	method, sent := http.MethodGet, ""
	if form != nil {
		method, sent = http.MethodPost, form.Encode()
	}
	req, err := http.NewRequestWithContext(j.t.Context(), method, j.at.URL()+path, strings.NewReader(sent))
	require.NoError(j.t, err)
	req.Header.Set("Accept", "text/html")
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, c := range j.cookies {
		if strings.HasPrefix(path, c.Path) {
			req.AddCookie(&http.Cookie{Name: c.Name, Value: c.Value})
		}
	}
	c := &http.Client{
		Timeout: patient, Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	res, err := c.Do(req)
	require.NoError(j.t, err)
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	require.NoError(j.t, err)
	for _, c := range res.Cookies() {
		require.True(j.t, c.HttpOnly && c.Secure && c.SameSite == http.SameSiteLaxMode)
		require.Equal(j.t, "/_matrix/sso/", c.Path)
		if c.MaxAge < 0 {
			delete(j.cookies, c.Name)
		} else {
			j.cookies[c.Name] = c
		}
	}
	return res.StatusCode, string(raw), res.Header.Get("Location")
}

var formFields = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)"`)

// fields gives what a page brings along, with more.
func fields(page string, more ...string) url.Values {
	v := url.Values{}
	for _, m := range formFields.FindAllStringSubmatch(page, -1) {
		v.Set(m[1], m[2])
	}
	for i := 0; i+1 < len(more); i += 2 {
		v.Set(more[i], more[i+1])
	}
	return v
}

type ssoStack struct {
	*fleet
	t   *testing.T
	at  *worker
	idp *idp
}

func newSSO(t *testing.T, change func(*config.Config)) *ssoStack {
	t.Helper()
	p := newIDP(t)
	f := newFleet(t)
	f.cfg.PublicBaseurl = "https://matrix.example.org"
	f.cfg.RateLimits.Enabled = false
	f.cfg.SSO.Redirects = []string{"https://app.example.org/"}
	f.cfg.SSO.Providers = []config.Provider{{
		ID: "corp", Name: "The company", Brand: "corp", Icon: "mxc://example.org/abc", Issuer: p.URL, ClientID: "heddle", ClientSecret: "secret",
		Scopes: []string{"profile"}, LocalpartClaim: "preferred_username", DisplayNameClaim: "name", EmailClaim: "email",
	}}
	if change != nil {
		change(&f.cfg)
	}
	s := &ssoStack{f, t, f.start(t, AllInOne, "one"), p}
	f.owns(t, "one")
	return s
}

func (s *ssoStack) browser() *jar { return &jar{s.t, s.at, map[string]*http.Cookie{}} }

// begin has an app send a browser to the provider.
func (s *ssoStack) begin(b *jar, redirect string) string {
	s.t.Helper()
	status, page, to := b.visit("/_matrix/client/v3/login/sso/redirect/corp?redirectUrl="+url.QueryEscape(redirect), nil)
	require.Equal(s.t, http.StatusSeeOther, status, page)
	return to
}

// use logs an app in with the token that it was brought.
func (s *ssoStack) use(location string) (int, map[string]any) {
	s.t.Helper()
	u, err := url.Parse(location)
	require.NoError(s.t, err)
	require.Len(s.t, u.Query()["loginToken"], 1)
	status, out, _ := s.at.call(s.t, "POST", "/_matrix/client/v3/login", "", `{"type":"m.login.token","token":"`+u.Query().Get("loginToken")+`"}`)
	return status, out
}

func TestLoginAtAProvider(t *testing.T) {
	s := newSSO(t, nil)
	_, flows, _ := s.at.call(t, "GET", "/_matrix/client/v3/login", "", "")
	require.Contains(t, flows["flows"], map[string]any{"type": "m.login.sso", "identity_providers": []any{
		map[string]any{"id": "corp", "name": "The company", "brand": "corp", "icon": "mxc://example.org/abc"},
	}})
	b := s.browser()
	back := s.idp.login(s.begin(b, "https://app.example.org/?x=1&loginToken=old#there"), "s-1", "Alice Smith", nil)

	status, page, _ := s.browser().visit(back, nil)
	require.Equal(t, http.StatusForbidden, status, "another browser")
	require.Contains(t, page, "not begun in this browser")
	status, page, to := b.visit(back, nil)
	require.Equal(t, http.StatusSeeOther, status, page)
	require.True(t, strings.HasPrefix(to, "https://app.example.org/?x=1&loginToken="), to)
	require.True(t, strings.HasSuffix(to, "#there"))
	require.Empty(t, b.cookies)
	status, in := s.use(to)
	require.Equal(t, http.StatusOK, status, in)
	require.Equal(t, "@alice=20smith:example.org", in["user_id"])
	status, _ = s.use(to)
	require.Equal(t, http.StatusForbidden, status, "a token is good once")
	token := in["access_token"].(string)
	_, profile, _ := s.at.call(t, "GET", "/_matrix/client/v3/profile/@alice=20smith:example.org", token, "")
	require.Equal(t, "ALICE SMITH", profile["displayname"])
	status, _, _ = b.visit(back, nil)
	require.Equal(t, http.StatusForbidden, status, "and so is a return")

	// It is the subject that counts, and not the name.
	status, page, to = b.visit(s.idp.login(s.begin(b, "https://app.example.org/"), "s-1", "renamed", nil), nil)
	require.Equal(t, http.StatusSeeOther, status, page)
	_, in = s.use(to)
	require.Equal(t, "@alice=20smith:example.org", in["user_id"])
	status, page, _ = b.visit(s.idp.login(s.begin(b, "https://app.example.org/"), "s-2", "alice smith", nil), nil)
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, page, "You have no account here yet")
	form := fields(page, "username", "alice=20smith", "do", "create")
	status, page, _ = b.visit("/_matrix/sso/continue", form)
	require.Equal(t, http.StatusBadRequest, status)
	require.Contains(t, page, "already taken")
	status, _, _ = s.browser().visit("/_matrix/sso/continue", fields(page, "username", "bob", "do", "create"))
	require.Equal(t, http.StatusForbidden, status, "another browser")
	status, page, to = b.visit("/_matrix/sso/continue", fields(page, "username", "bob", "do", "create"))
	require.Equal(t, http.StatusSeeOther, status, page)
	_, in = s.use(to)
	require.Equal(t, "@bob:example.org", in["user_id"])

	// An app that is not trusted is named first.
	for _, redirect := range []string{"https://app.example.org.evil.org/", "https://other.example/?y=2", "org.example.app:/cb"} {
		status, page, _ = b.visit(s.idp.login(s.begin(b, redirect), "s-2", "bob", nil), nil)
		require.Equal(t, http.StatusOK, status, page)
		require.Contains(t, page, "You are about to log in as @bob:example.org")
		require.NotContains(t, page, "hel_")
		status, _, to = b.visit("/_matrix/sso/continue", fields(page, "do", "go"))
		require.Equal(t, http.StatusSeeOther, status)
		require.True(t, strings.HasPrefix(to, redirect), to)
		status, _ = s.use(to)
		require.Equal(t, http.StatusOK, status)
	}
	for _, redirect := range []string{"javascript:alert(1)", "data:text/html,x", "/relative", "https://u@evil.org/", "https:"} {
		status, _, _ = b.visit("/_matrix/client/v3/login/sso/redirect/corp?redirectUrl="+url.QueryEscape(redirect), nil)
		require.Equal(t, http.StatusBadRequest, status, redirect)
	}
	status, _, _ = b.visit("/_matrix/client/v3/login/sso/redirect/nobody?redirectUrl=https://app.example.org/", nil)
	require.Equal(t, http.StatusNotFound, status)

	// What a provider did not say for this login is not believed.
	for name, change := range map[string]map[string]any{
		"nonce": {"nonce": "other"}, "audience": {"aud": "somebody"}, "issuer": {"iss": "https://evil.example"}, "old": {"exp": time.Now().Add(-time.Hour).Unix()},
		"subject": {"sub": ""},
	} {
		status, page, _ = b.visit(s.idp.login(s.begin(b, "https://app.example.org/"), "s-1", "alice", change), nil)
		require.Equal(t, http.StatusForbidden, status, "%s: %s", name, page)
	}
	to = s.begin(b, "https://app.example.org/")
	u, err := url.Parse(to)
	require.NoError(t, err)
	status, page, _ = b.visit("/_matrix/sso/callback?error=access_denied&state="+u.Query().Get("state"), nil)
	require.Equal(t, http.StatusForbidden, status)
	require.Contains(t, page, "did not let you in")
}

// Who has no password proves who it is at the provider.
func TestConfirmAtAProvider(t *testing.T) {
	s := newSSO(t, nil)
	b := s.browser()
	_, _, to := b.visit(s.idp.login(s.begin(b, "https://app.example.org/"), "s-1", "alice", nil), nil)
	_, in := s.use(to)
	alice, device := in["access_token"].(string), in["device_id"].(string)
	_, _, to = b.visit(s.idp.login(s.begin(b, "https://app.example.org/"), "s-2", "bob", nil), nil)
	_, in = s.use(to)
	require.Equal(t, "@bob:example.org", in["user_id"])

	remove := func(auth string) (int, map[string]any) {
		status, out, _ := s.at.call(t, "DELETE", "/_matrix/client/v3/devices/"+device, alice, auth)
		return status, out
	}
	status, out := remove(`{}`)
	require.Equal(t, http.StatusUnauthorized, status)
	require.Equal(t, [][]string{{"m.login.sso"}}, stages(t, out))
	session := out["session"].(string)
	again := `{"auth":{"session":"` + session + `"}}`
	fallback := "/_matrix/client/v3/auth/m.login.sso/fallback/web"
	confirm := func(subject, name string) (int, string) {
		status, page, _ := b.visit(fallback+"?session="+session, nil)
		require.Equal(t, http.StatusOK, status, page)
		require.Contains(t, page, "Confirm with The company")
		status, page, to := b.visit(fallback, fields(page))
		require.Equal(t, http.StatusSeeOther, status, page)
		require.Contains(t, to, "prompt=login")
		status, page, _ = b.visit(s.idp.login(to, subject, name, nil), nil)
		return status, page
	}
	status, _ = remove(again)
	require.Equal(t, http.StatusUnauthorized, status)
	status, out = remove(`{"auth":{"type":"m.login.sso","session":"` + session + `"}}`)
	require.Equal(t, http.StatusUnauthorized, status)
	require.Equal(t, "M_FORBIDDEN", out["errcode"])

	status, page := confirm("s-2", "bob")
	require.Equal(t, http.StatusOK, status, page)
	status, _ = remove(again)
	require.Equal(t, http.StatusUnauthorized, status, "somebody else's login")
	status, _ = confirm("s-3", "nobody")
	require.Equal(t, http.StatusForbidden, status, "no account is made by a confirmation")
	status, page = confirm("s-1", "alice")
	require.Equal(t, http.StatusOK, status, page)
	require.Contains(t, page, `postMessage("authDone","*")`)
	status, out = remove(again)
	require.Equal(t, http.StatusOK, status, out)
}

func TestProvidersWithRules(t *testing.T) {
	s := newSSO(t, func(c *config.Config) {
		c.Registration.Terms = []config.Policy{{ID: "privacy", Version: "1", Documents: []config.Document{{Lang: "en", Name: "Privacy", URL: "https://example.org/p"}}}}
		second := c.SSO.Providers[0]
		c.SSO.Providers[0].LinkExisting = true
		second.ID, second.Name, second.ExistingOnly = "strict", "Strict & Co", true
		c.SSO.Providers = append(c.SSO.Providers, second)
	})
	b := s.browser()
	status, page, _ := b.visit("/_matrix/client/v3/login/sso/redirect?redirectUrl="+url.QueryEscape("https://app.example.org/?a=b&c"), nil)
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, page, "Log in with Strict &amp; Co")
	require.Contains(t, page, `href="/_matrix/client/v3/login/sso/redirect/corp?redirectUrl=https%3A%2F%2Fapp.example.org%2F%3Fa%3Db%26c"`)

	_, out, _ := s.at.call(t, "POST", "/_matrix/client/v3/register", "", `{"username":"carol","password":"secret-1"}`)
	status, out, _ = s.at.call(t, "POST", "/_matrix/client/v3/register", "", `{"username":"carol","password":"secret-1","auth":{"type":"m.login.terms","session":"`+out["session"].(string)+`"}}`)
	require.Equal(t, http.StatusOK, status, out)
	_, page, to := b.visit(s.idp.login(s.begin(b, "https://app.example.org/"), "s-1", "carol", nil), nil)
	require.NotEmpty(t, to, page)
	_, in := s.use(to)
	require.Equal(t, "@carol:example.org", in["user_id"], "the configuration says that names are the same")

	status, page, _ = b.visit(s.idp.login(s.begin(b, "https://app.example.org/"), "s-2", "dave", nil), nil)
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, page, "https://example.org/p")
	status, page, _ = b.visit("/_matrix/sso/continue", fields(page, "username", "dave", "do", "create"))
	require.Equal(t, http.StatusForbidden, status)
	require.Contains(t, page, "agree to the terms")
	status, page, _ = b.visit("/_matrix/sso/continue", fields(page, "username", "dave", "do", "create", "agree", "yes"))
	require.Equal(t, http.StatusSeeOther, status, page)

	_, _, to = b.visit("/_matrix/client/v3/login/sso/redirect/strict?redirectUrl=https://app.example.org/", nil)
	status, page, _ = b.visit(s.idp.login(to, "s-9", "erin", nil), nil)
	require.Equal(t, http.StatusForbidden, status)
	require.Contains(t, page, "No account here")
}
