package app

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/config"
)

// browser is a person at the server's pages, and an app beside it.
type browser struct {
	t  *testing.T
	at *worker
}

// visit asks for a page, or sends a form, and follows nothing.
func (b *browser) visit(path string, form url.Values) (status int, body string, location string) {
	b.t.Helper()
	method, sent := http.MethodGet, ""
	if form != nil {
		method, sent = http.MethodPost, form.Encode()
	}
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.at.URL()+path, strings.NewReader(sent))
	require.NoError(b.t, err)
	req.Header.Set("Accept", "text/html,application/xhtml+xml")
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	c := &http.Client{
		Timeout: patient, Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	res, err := c.Do(req)
	require.NoError(b.t, err)
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	require.NoError(b.t, err)
	if strings.HasPrefix(res.Header.Get("Content-Type"), "text/html") {
		require.Equal(b.t, "DENY", res.Header.Get("X-Frame-Options"))
		require.Contains(b.t, res.Header.Get("Content-Security-Policy"), "default-src 'none'")
		require.Equal(b.t, "no-store", res.Header.Get("Cache-Control"))
	}
	return res.StatusCode, string(raw), res.Header.Get("Location")
}

var hiddenField = regexp.MustCompile(`name="(request|ticket)" value="([^"]*)"`)

// hidden gives what a page carries to the next.
func (b *browser) hidden(page string) string {
	b.t.Helper()
	m := hiddenField.FindStringSubmatch(page)
	require.NotNil(b.t, m, page)
	return html.UnescapeString(m[2])
}

// ask is what an app asks.
func (b *browser) ask(path string, form url.Values) (int, map[string]any) {
	b.t.Helper()
	res, err := http.PostForm(b.at.URL()+path, form)
	require.NoError(b.t, err)
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	require.NoError(b.t, err)
	out := map[string]any{}
	require.NoError(b.t, json.Unmarshal(raw, &out), "%s", raw)
	return res.StatusCode, out
}

func (b *browser) register(meta string) string {
	b.t.Helper()
	status, out, _ := b.at.call(b.t, "POST", "/_matrix/oauth2/register", "", meta)
	require.Equal(b.t, http.StatusCreated, status, out)
	return out["client_id"].(string)
}

func verifier() (v, challenge string) {
	var raw [32]byte
	_, _ = rand.Read(raw[:])
	v = base64.RawURLEncoding.EncodeToString(raw[:])
	sum := sha256.Sum256([]byte(v))
	return v, base64.RawURLEncoding.EncodeToString(sum[:])
}

const appMeta = `{"client_uri":"https://app.example.com/","client_name":"An <app>","redirect_uris":["https://app.example.com/cb"],
	"grant_types":["authorization_code","refresh_token","urn:ietf:params:oauth:grant-type:device_code"],"token_endpoint_auth_method":"none"}`

func deviceScope(d string) string { return "urn:matrix:client:api:* urn:matrix:client:device:" + d }

func authorizeURL(client, challenge, scope string, more ...string) string {
	q := url.Values{
		"client_id": {client}, "response_type": {"code"}, "redirect_uri": {"https://app.example.com/cb"}, "state": {"here"}, "response_mode": {"fragment"},
		"scope": {scope}, "code_challenge": {challenge}, "code_challenge_method": {"S256"},
	}
	for i := 0; i+1 < len(more); i += 2 {
		q.Set(more[i], more[i+1])
	}
	return "/_matrix/oauth2/authorize?" + q.Encode()
}

// answer reads what the browser brings back to the app.
func (b *browser) answer(location string) url.Values {
	b.t.Helper()
	rest, ok := strings.CutPrefix(location, "https://app.example.com/cb#")
	require.True(b.t, ok, location)
	v, err := url.ParseQuery(rest)
	require.NoError(b.t, err)
	require.Equal(b.t, "here", v.Get("state"))
	return v
}

func ownOAuth(t *testing.T) (*browser, *fleet) {
	f := newFleet(t)
	f.cfg.PublicBaseurl = "https://matrix.example.org"
	f.cfg.OAuth.Provide = true
	f.cfg.RateLimits.Enabled = false
	w := f.start(t, AllInOne, "one")
	f.owns(t, "one")
	status, _, _ := w.call(t, "POST", "/_matrix/client/v3/register", "", `{"username":"alice","password":"correct horse","inhibit_login":true,"auth":{"type":"m.login.dummy"}}`)
	require.Equal(t, 200, status)
	return &browser{t, w}, f
}

// opaque demands that nothing can be read in what was sealed: the tokens inside are good elsewhere without a verifier.
func opaque(t *testing.T, sealed string) {
	t.Helper()
	for part := range strings.SplitSeq(sealed, ".") {
		raw, err := base64.RawURLEncoding.DecodeString(part)
		require.NoError(t, err)
		require.NotContains(t, string(raw), "hel_")
		require.NotContains(t, string(raw), "her_")
	}
}

// An app gets tokens for a person who logs in on the server's page, refreshes them, and gives them back.
func TestOwnOAuth(t *testing.T) {
	t.Parallel()
	b, _ := ownOAuth(t)
	status, meta, _ := b.at.call(t, "GET", "/_matrix/client/v1/auth_metadata", "", "")
	require.Equal(t, 200, status)
	const at = "https://matrix.example.org/_matrix/oauth2/"
	require.Equal(t, map[string]any{
		"issuer": "https://matrix.example.org/", "authorization_endpoint": at + "authorize", "token_endpoint": at + "token",
		"revocation_endpoint": at + "revoke", "registration_endpoint": at + "register", "device_authorization_endpoint": at + "device",
		"response_types_supported": []any{"code"}, "response_modes_supported": []any{"query", "fragment"},
		"grant_types_supported":            []any{"authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"},
		"code_challenge_methods_supported": []any{"S256"}, "prompt_values_supported": []any{"create"},
		"token_endpoint_auth_methods_supported": []any{"none"},
		"account_management_uri":                at + "account",
		"account_management_actions_supported": []any{
			"org.matrix.profile", "org.matrix.devices_list", "org.matrix.device_view", "org.matrix.device_delete", "org.matrix.account_deactivate",
			"org.matrix.cross_signing_reset",
		},
	}, meta)
	_, known, _ := b.at.call(t, "GET", "/.well-known/matrix/client", "", "")
	require.Contains(t, known, "org.matrix.msc2965.authentication")

	client := b.register(appMeta)
	v, challenge := verifier()
	status, page, _ := b.visit(authorizeURL(client, challenge, deviceScope("PHONE12345")), nil)
	require.Equal(t, 200, status)
	require.Contains(t, page, "An &lt;app&gt;")
	require.Contains(t, page, "app.example.com")
	request := b.hidden(page)

	status, page, _ = b.visit("/_matrix/oauth2/authorize", url.Values{"request": {request}, "do": {"login"}, "username": {"alice"}, "password": {"wrong"}})
	require.Equal(t, 403, status)
	require.Contains(t, page, "Invalid username or password")
	require.NotContains(t, page, "wrong")
	status, _, location := b.visit("/_matrix/oauth2/authorize", url.Values{"request": {request}, "do": {"deny"}})
	require.Equal(t, 303, status)
	require.Equal(t, "access_denied", b.answer(location).Get("error"))
	enter := func() string {
		_, page, _ := b.visit(authorizeURL(client, challenge, deviceScope("PHONE12345")), nil)
		form := url.Values{"request": {b.hidden(page)}, "do": {"login"}, "username": {"Alice"}, "password": {"correct horse"}}
		status, _, location := b.visit("/_matrix/oauth2/authorize", form)
		require.Equal(t, 303, status)
		return b.answer(location).Get("code")
	}
	code := enter()
	opaque(t, code)

	exchange := func(change ...string) (int, map[string]any) {
		form := url.Values{
			"grant_type": {"authorization_code"}, "code": {code}, "client_id": {client}, "redirect_uri": {"https://app.example.com/cb"}, "code_verifier": {v},
		}
		for i := 0; i+1 < len(change); i += 2 {
			form.Set(change[i], change[i+1])
		}
		return b.ask("/_matrix/oauth2/token", form)
	}
	other := b.register(strings.Replace(appMeta, "An <app>", "Another", 1))
	for _, c := range []struct {
		want   int
		code   string
		change []string
	}{
		{400, "invalid_grant", []string{"code_verifier", strings.Repeat("x", 43)}},
		{400, "invalid_grant", []string{"code_verifier", ""}},
		{400, "invalid_grant", []string{"redirect_uri", "https://app.example.com/cb2"}},
		{400, "invalid_grant", []string{"client_id", other}},
		{401, "invalid_client", []string{"client_id", "nobody"}},
		{400, "invalid_grant", []string{"code", code + "x"}},
		{400, "unsupported_grant_type", []string{"grant_type", "password"}},
		{400, "invalid_request", []string{"grant_type", ""}},
	} {
		status, out := exchange(c.change...)
		require.Equal(t, c.want, status, c.change)
		require.Equal(t, c.code, out["error"], c.change)
	}
	status, tokens := exchange()
	require.Equal(t, 200, status, tokens)
	require.Equal(t, "Bearer", tokens["token_type"])
	require.Equal(t, deviceScope("PHONE12345"), tokens["scope"])
	opaque(t, tokens["refresh_token"].(string))
	require.Positive(t, tokens["expires_in"])
	status, out := exchange()
	require.Equal(t, 400, status, "a code is good once")
	require.Equal(t, "invalid_grant", out["error"])

	whoami := func(token string) (int, map[string]any) {
		status, out, _ := b.at.call(t, "GET", "/_matrix/client/v3/account/whoami", token, "")
		return status, out
	}
	status, who := whoami(tokens["access_token"].(string))
	require.Equal(t, 200, status)
	require.Equal(t, "@alice:example.org", who["user_id"])
	require.Equal(t, "PHONE12345", who["device_id"])

	refresh := func(token, client string) (int, map[string]any) {
		return b.ask("/_matrix/oauth2/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}, "client_id": {client}})
	}
	status, out = refresh(tokens["refresh_token"].(string), other)
	require.Equal(t, 400, status, "another client's token")
	require.Equal(t, "invalid_grant", out["error"])
	status, lost := refresh(tokens["refresh_token"].(string), client)
	require.Equal(t, 200, status, "an answer that is lost can be asked for again")
	status, next := refresh(tokens["refresh_token"].(string), client)
	require.Equal(t, 200, status, lost)
	status, _ = whoami(next["access_token"].(string))
	require.Equal(t, 200, status)
	status, latest := refresh(next["refresh_token"].(string), client)
	require.Equal(t, 200, status, latest)
	status, _ = whoami(latest["access_token"].(string))
	require.Equal(t, 200, status)
	status, out = refresh(tokens["refresh_token"].(string), client)
	require.Equal(t, 400, status, "once the new one is used, the old one is gone")
	require.Equal(t, "invalid_grant", out["error"])
	status, _ = whoami(latest["access_token"].(string))
	require.Equal(t, 401, status, "and whoever shows it ends the session: it is in two hands")
	status, _ = refresh(latest["refresh_token"].(string), client)
	require.Equal(t, 400, status)

	code = enter()
	status, next = exchange()
	require.Equal(t, 200, status, next)
	status, _ = whoami(next["access_token"].(string))
	require.Equal(t, 200, status)
	status, _ = b.ask("/_matrix/oauth2/revoke", url.Values{"token": {next["refresh_token"].(string)}})
	require.Equal(t, 200, status)
	status, _ = whoami(next["access_token"].(string))
	require.Equal(t, 401, status)
	for _, token := range []string{next["refresh_token"].(string), next["access_token"].(string), "nonsense"} {
		status, _ = b.ask("/_matrix/oauth2/revoke", url.Values{"token": {token}, "client_id": {client}})
		require.Equal(t, 200, status)
	}
	status, _ = b.ask("/_matrix/oauth2/revoke", url.Values{})
	require.Equal(t, 400, status)
}

// What is wrong with a request is shown to the person, or told to the app, and nobody is sent to an address that is not the app's.
func TestOwnOAuthRefusals(t *testing.T) {
	t.Parallel()
	b, _ := ownOAuth(t)
	client := b.register(appMeta)
	_, challenge := verifier()
	for _, more := range [][]string{{"redirect_uri", "https://evil.example.org/"}, {"client_id", "nobody"}} {
		status, page, location := b.visit(authorizeURL(client, challenge, deviceScope("D"), more...), nil)
		require.GreaterOrEqual(t, status, 400, more)
		require.Empty(t, location)
		require.Contains(t, page, "This cannot go on")
	}
	status, _, location := b.visit(authorizeURL(client, challenge, "openid"), nil)
	require.Equal(t, 303, status)
	require.Equal(t, "invalid_scope", b.answer(location).Get("error"))
	status, page, _ := b.visit("/_matrix/oauth2/authorize", url.Values{"request": {"forged.forged"}, "do": {"login"}})
	require.Equal(t, 400, status)
	require.Contains(t, page, "begin again")
	status, _, _ = b.at.call(t, "POST", "/_matrix/oauth2/register", "", `{"client_uri":"https://a.example/","redirect_uris":["https://b.example/"]}`)
	require.Equal(t, 400, status)
}

// An account is made on the page.
func TestOwnOAuthRegistration(t *testing.T) {
	t.Parallel()
	b, _ := ownOAuth(t)
	client := b.register(appMeta)
	v, challenge := verifier()
	_, page, _ := b.visit(authorizeURL(client, challenge, deviceScope("NEW1234567"), "prompt", "create"), nil)
	require.Contains(t, page, "Create an account")
	form := url.Values{"request": {b.hidden(page)}, "do": {"register"}, "username": {"alice"}, "password": {"battery staple"}}
	status, page, _ := b.visit("/_matrix/oauth2/authorize", form)
	require.Equal(t, 400, status)
	require.Contains(t, page, "already taken")
	form.Set("username", "bob")
	status, _, location := b.visit("/_matrix/oauth2/authorize", form)
	require.Equal(t, 303, status)
	status, tokens := b.ask("/_matrix/oauth2/token", url.Values{
		"grant_type": {"authorization_code"}, "code": {b.answer(location).Get("code")}, "client_id": {client},
		"redirect_uri": {"https://app.example.com/cb"}, "code_verifier": {v},
	})
	require.Equal(t, 200, status, tokens)
	_, who, _ := b.at.call(t, "GET", "/_matrix/client/v3/account/whoami", tokens["access_token"].(string), "")
	require.Equal(t, "@bob:example.org", who["user_id"])
}

// A device without a browser is let in by a code that its person enters elsewhere.
func TestOwnOAuthDevices(t *testing.T) {
	t.Parallel()
	b, _ := ownOAuth(t)
	client := b.register(appMeta)
	begin := func() map[string]any {
		status, d := b.ask("/_matrix/oauth2/device", url.Values{"client_id": {client}, "scope": {deviceScope("TV12345678")}})
		require.Equal(t, 200, status, d)
		return d
	}
	poll := func(d map[string]any) (int, map[string]any) {
		return b.ask("/_matrix/oauth2/token", url.Values{
			"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {d["device_code"].(string)}, "client_id": {client},
		})
	}
	d := begin()
	require.Regexp(t, `^[B-Z]{4}-[B-Z]{4}$`, d["user_code"])
	status, out := poll(d)
	require.Equal(t, 400, status)
	require.Equal(t, "authorization_pending", out["error"])

	status, page, _ := b.visit("/_matrix/oauth2/link?code=BBBB-BBBB", nil)
	require.Equal(t, 400, status)
	require.Contains(t, page, "No device waits")
	status, page, _ = b.visit("/_matrix/oauth2/link?code="+strings.ToLower(d["user_code"].(string)), nil)
	require.Equal(t, 200, status, page)
	form := url.Values{"request": {b.hidden(page)}, "do": {"login"}, "username": {"alice"}, "password": {"correct horse"}}
	status, page, _ = b.visit("/_matrix/oauth2/link", form)
	require.Equal(t, 200, status, page)
	require.Contains(t, page, "logged in")
	status, _, _ = b.visit("/_matrix/oauth2/link", form)
	require.Equal(t, 400, status, "it has its answer")
	status, tokens := poll(d)
	require.Equal(t, 200, status, tokens)
	_, who, _ := b.at.call(t, "GET", "/_matrix/client/v3/account/whoami", tokens["access_token"].(string), "")
	require.Equal(t, "TV12345678", who["device_id"])
	status, out = poll(d)
	require.Equal(t, 400, status)
	require.Equal(t, "slow_down", out["error"])

	refused := begin()
	_, page, _ = b.visit("/_matrix/oauth2/link?code="+refused["user_code"].(string), nil)
	_, _, _ = b.visit("/_matrix/oauth2/link", url.Values{"request": {b.hidden(page)}, "do": {"deny"}})
	status, out = poll(refused)
	require.Equal(t, 400, status)
	require.Equal(t, "access_denied", out["error"])
}

// On the pages of the account devices are logged out, the name is changed, and a new identity for encryption is let pass.
func TestOwnOAuthAccountPages(t *testing.T) {
	t.Parallel()
	b, _ := ownOAuth(t)
	status, session, _ := b.at.call(t, "POST", "/_matrix/client/v3/login", "", `{"type":"m.login.password","user":"alice","password":"correct horse","device_id":"OLD"}`)
	require.Equal(t, 200, status)
	token := session["access_token"].(string)
	login := url.Values{"username": {"alice"}, "password": {"correct horse"}}
	status, page, _ := b.visit("/_matrix/oauth2/account?action=org.matrix.device_delete&device_id=OLD", nil)
	require.Equal(t, 200, status)
	require.Contains(t, page, `value="OLD"`)
	status, page, _ = b.visit("/_matrix/oauth2/account", url.Values{"username": {"alice"}, "password": {"no"}, "action": {"org.matrix.device_delete"}, "device_id": {"OLD"}})
	require.Equal(t, 403, status)
	require.Contains(t, page, "Invalid username or password")

	// The identity: asked for by an app that knows no password.
	keys := func(key string) (int, map[string]any) {
		body := `{"master_key":{"user_id":"@alice:example.org","usage":["master"],"keys":{"ed25519:` + key + `":"` + key + `"}}}`
		status, out, _ := b.at.call(t, "POST", "/_matrix/client/v3/keys/device_signing/upload", token, body)
		return status, out
	}
	one, two := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("1", 32))), base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("2", 32)))
	status, out := keys(one)
	require.Equal(t, 200, status, out)
	status, out = keys(two)
	require.Equal(t, 401, status)
	require.Equal(t, "https://matrix.example.org/_matrix/oauth2/account?action=org.matrix.cross_signing_reset", out["params"].(map[string]any)["m.oauth"].(map[string]any)["url"])
	status, page, _ = b.visit("/_matrix/oauth2/account", login)
	require.Equal(t, 200, status)
	ticket := b.hidden(page)
	status, page, _ = b.visit("/_matrix/oauth2/account", url.Values{"ticket": {ticket}, "action": {"org.matrix.cross_signing_reset"}})
	require.Equal(t, 200, status, page)
	require.Eventually(t, func() bool { status, out = keys(two); return status == 200 }, patient, 50*time.Millisecond, out)

	status, page, _ = b.visit("/_matrix/oauth2/account", url.Values{"ticket": {ticket}, "action": {"org.matrix.profile"}, "displayname": {"Alice <3"}})
	require.Equal(t, 200, status, page)
	require.Contains(t, page, "Alice &lt;3")
	status, page, _ = b.visit("/_matrix/oauth2/account", url.Values{"ticket": {ticket}, "action": {"org.matrix.account_deactivate"}})
	require.Equal(t, 200, status)
	require.Contains(t, page, `name="password"`, "the end of an account takes the password")
	status, page, _ = b.visit("/_matrix/oauth2/account", url.Values{"ticket": {ticket}, "action": {"org.matrix.device_delete"}, "device_id": {"OLD"}})
	require.Equal(t, 200, status)
	require.NotContains(t, page, `value="OLD"`)
	status, _, _ = b.at.call(t, "GET", "/_matrix/client/v3/account/whoami", token, "")
	require.Equal(t, 401, status)
	status, _, _ = b.visit("/_matrix/oauth2/account", url.Values{"ticket": {"x.y"}, "action": {"org.matrix.device_delete"}})
	require.Equal(t, 400, status)

	login.Set("action", "org.matrix.account_deactivate")
	status, page, _ = b.visit("/_matrix/oauth2/account", login)
	require.Equal(t, 200, status, page)
	status, _, _ = b.at.call(t, "POST", "/_matrix/client/v3/login", "", `{"type":"m.login.password","user":"alice","password":"correct horse"}`)
	require.Equal(t, 403, status)
}

// Wrong passwords are counted by account, wherever they come from; the right one does not count.
func TestGuessesOfPasswords(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.cfg.RateLimits.Enabled = true
	f.cfg.RateLimits.Login = config.Rate{Per: time.Hour, Count: 1, Burst: 5}
	w := f.start(t, AllInOne, "one")
	f.owns(t, "one")
	n := 0
	send := func(path, body string) int { // each from another address
		n++
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.URL()+"/_matrix/client/v3"+path, strings.NewReader(body))
		require.NoError(t, err)
		req.Header.Set("X-Forwarded-For", fmt.Sprintf("203.0.113.%d", n))
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		return res.StatusCode
	}
	login := func(user, password string) int {
		return send("/login", fmt.Sprintf(`{"type":"m.login.password","user":%q,"password":%q}`, user, password))
	}
	for _, user := range []string{"alice", "bob"} {
		require.Equal(t, 200, send("/register", fmt.Sprintf(`{"username":%q,"password":"correct horse","auth":{"type":"m.login.dummy"}}`, user)))
	}
	for range 8 {
		require.Equal(t, 200, login("alice", "correct horse"))
	}
	for range 5 {
		require.Equal(t, 403, login("alice", "wrong"))
	}
	require.Equal(t, 429, login("alice", "wrong"))
	require.Equal(t, 429, login("@alice:example.org", "correct horse"))
	require.Equal(t, 200, login("bob", "correct horse"))
	for range 5 {
		require.Equal(t, 403, login("nobody", "wrong"))
	}
	require.Equal(t, 429, login("nobody", "wrong"), "nothing tells who is there")
}
