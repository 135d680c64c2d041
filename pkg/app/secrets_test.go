package app

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// secrets are what opens an account, by what it is.
type secrets map[string]string

func (s secrets) add(t *testing.T, name string, answer map[string]any, member string) string {
	t.Helper()
	v, _ := answer[member].(string)
	require.Greater(t, len(v), 20, "%s: %v", name, answer)
	s[name] = v
	return v
}

// parts are the pieces of a secret that would do as well as the whole, for whoever knows how it is put together.
func parts(secret string) []string {
	out := []string{secret}
	for _, p := range strings.FieldsFunc(secret, func(r rune) bool { return r == '.' }) {
		if len(p) >= 30 { // the random part; what is shorter is a name or a checksum
			out = append(out, p)
		}
	}
	return out
}

// Whoever reads the database, a backup of it or the log can log in as nobody: nothing that opens an account is in them as it is, and
// what does is different each time.
func TestNoSecretIsStored(t *testing.T) {
	f := newFleet(t)
	f.cfg.PublicBaseurl, f.cfg.OAuth.Provide = "https://matrix.example.org", true
	f.cfg.Registration.Guests = true
	f.cfg.RateLimits.Enabled = false
	w := f.start(t, AllInOne, "one")
	f.owns(t, "one")
	const v3 = "/_matrix/client/v3"
	must := func(method, path, token, body string) map[string]any {
		t.Helper()
		status, a, _ := w.call(t, method, path, token, body)
		require.Equal(t, http.StatusOK, status, "%s %s: %v", method, path, a)
		return a
	}
	s := secrets{"password": "a Correct h0rse", "another password": "the n3xt horse"}
	a := must("POST", v3+"/register", "", `{"username":"alice","password":"`+s["password"]+`","refresh_token":true,"auth":{"type":"m.login.dummy"}}`)
	s.add(t, "access token", a, "access_token")
	refreshed := must("POST", v3+"/refresh", "", `{"refresh_token":"`+s.add(t, "refresh token", a, "refresh_token")+`"}`)
	token := s.add(t, "refreshed access token", refreshed, "access_token")
	s.add(t, "second refresh token", refreshed, "refresh_token")
	user := url.PathEscape("@alice:example.org")

	confirmed := func(path, body string) map[string]any {
		t.Helper()
		status, a, _ := w.call(t, "POST", path, token, strings.TrimSuffix(body, "}")+"}")
		require.Equal(t, http.StatusUnauthorized, status, "%v", a)
		session := s.add(t, "authentication session of "+path, a, "session")
		auth := `"auth":{"type":"m.login.password","session":"` + session + `","identifier":{"type":"m.id.user","user":"alice"},"password":"` + s["password"] + `"}}`
		more := strings.TrimSuffix(body, "}")
		if more != "{" {
			more += ","
		}
		return must("POST", path, token, more+auth)
	}
	login := confirmed("/_matrix/client/v1/login/get_token", "{}")
	s.add(t, "login token", login, "login_token")
	other := must("POST", v3+"/login", "", `{"type":"m.login.token","token":"`+s["login token"]+`"}`)
	s.add(t, "access token by login token", other, "access_token")
	s.add(t, "unspent login token", confirmed("/_matrix/client/v1/login/get_token", "{}"), "login_token")
	s.add(t, "OpenID token", must("POST", v3+"/user/"+user+"/openid/request_token", token, "{}"), "access_token")
	confirmed(v3+"/account/password", `{"new_password":"`+s["another password"]+`","logout_devices":false}`)
	s.add(t, "guest's token", must("POST", v3+"/register?kind=guest", "", "{}"), "access_token")

	client := ask(t, "POST", w.URL()+"/_matrix/oauth2/register", `{"client_uri":"https://example.com/","client_name":"x",
		"grant_types":["urn:ietf:params:oauth:grant-type:device_code","refresh_token"],"token_endpoint_auth_method":"none"}`)
	require.Less(t, client.status, 300, client.body)
	form := url.Values{"client_id": {client.member(t, "client_id")}, "scope": {"urn:matrix:client:api:* urn:matrix:client:device:ABCDEFGHIJ"}}
	device := ask(t, "POST", w.URL()+"/_matrix/oauth2/device", form.Encode(), "Content-Type", "application/x-www-form-urlencoded")
	require.Equal(t, http.StatusOK, device.status, device.body)
	var grant map[string]any
	require.NoError(t, json.Unmarshal([]byte(device.body), &grant))
	s.add(t, "device code", grant, "device_code")
	meeting := ask(t, "POST", w.URL()+meetByJSON, `{"data":"the two of us"}`)
	s.add(t, "meeting of two devices", map[string]any{"id": meeting.member(t, "id")}, "id")

	// No two are alike, and each has 128 random bits at least.
	seen := map[string]string{}
	for name, secret := range s {
		if strings.Contains(name, "password") && !strings.Contains(name, "session") {
			continue
		}
		for _, p := range parts(secret)[1:] {
			require.Empty(t, seen[p], "%s has a part of another", name)
			seen[p] = name
		}
	}

	stored := everything(t, f)
	require.Contains(t, stored, "@alice:example.org")
	w.stop(t)
	said := w.log()
	require.Contains(t, said, "request")
	s.absent(t, stored, said)
}

// What a letter has that proves that it was read, and what the client keeps that asked for it, are not stored either: neither while the letter is
// on its way, nor when it has served.
func TestNoSecretOfALetterIsStored(t *testing.T) {
	m := newMailing(t, nil)
	const address, secret = "ann@example.com", "only-her-client-knows-this"
	m.letter("/register", address, secret, "1", "", true)
	link, err := url.Parse(m.link(address))
	require.NoError(t, err)
	s := secrets{"client's secret": secret}
	for name, values := range link.Query() {
		if len(values[0]) >= 20 {
			s[name+" of the link"] = values[0]
		}
	}
	require.Greater(t, len(s), 1, link)
	s.absent(t, everything(t, m.fleet), m.at.log())
	m.confirm(address)
	s.absent(t, everything(t, m.fleet), m.at.log())
}

// log gives what the worker has logged.
func (w *worker) log() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.said.String()
}

// absent demands that no secret, nor what would do for it, is in the database or in the log.
func (s secrets) absent(t *testing.T, stored, said string) {
	t.Helper()
	for name, secret := range s {
		for _, p := range parts(secret) {
			for _, form := range []string{p, fmt.Sprintf("%x", p)} { // bytea is read as hexadecimal
				require.NotContains(t, stored, form, "%s is in the database", name)
				require.NotContains(t, said, form, "%s is in the log", name)
			}
		}
	}
}

// everything gives all rows of the database as text.
func everything(t *testing.T, f *fleet) string {
	t.Helper()
	rows, err := f.db.Pool.Query(t.Context(), `SELECT quote_ident(c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p') AND n.nspname = current_schema()`)
	require.NoError(t, err)
	var tables []string
	for rows.Next() {
		var name string
		require.NoError(t, rows.Scan(&name))
		tables = append(tables, name)
	}
	require.NoError(t, rows.Err())
	require.Greater(t, len(tables), 30)
	var out strings.Builder
	for _, table := range tables {
		require.Regexp(t, `^[a-z_]+$`, table)
		var text *string
		require.NoError(t, f.db.Pool.QueryRow(t.Context(), `SELECT string_agg(x::text, E'\n') FROM `+table+` x`).Scan(&text))
		if text != nil {
			out.WriteString(table + "\n" + *text + "\n")
		}
	}
	return out.String()
}
