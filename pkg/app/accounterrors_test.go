package app

import (
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every refusal that the specification lists for accounts, in its words.
func TestRefusalsOfAccounts(t *testing.T) {
	f := newFleet(t)
	f.cfg.RateLimits.Enabled = false
	f.cfg.Registration.SharedSecret = "shared"
	w := f.start(t, AllInOne, "one")
	f.owns(t, "one")
	alice, bob := f.person(t, w, "alice"), f.person(t, w, "bob")
	root := f.person(t, w, "root")
	_, err := f.db.Pool.Exec(t.Context(), `UPDATE account SET admin = true WHERE user_id = '@root:example.org'`)
	require.NoError(t, err)
	// A session is looked up once and kept, so the administrator logs in again.
	in := root.expect(200, "", "POST", "/v3/login", login("root", "correct horse"))
	root.token, root.device = in["access_token"].(string), in["device_id"].(string)
	nobody := &person{worker: w, t: t}
	for name, f := range map[string]func(t *testing.T){
		"login": func(t *testing.T) { nobody.t = t; refusedLogins(nobody) },
		"registration": func(t *testing.T) {
			nobody.t = t
			refusedRegistrations(nobody)
		},
		"administration": func(t *testing.T) {
			alice.t, root.t = t, t
			refusedAdministration(alice, root)
		},
		"addresses": func(t *testing.T) { alice.t, nobody.t = t, t; refusedAddresses(alice, nobody) },
		"openid": func(t *testing.T) {
			alice.t, nobody.t = t, t
			const path = "/openid/request_token"
			own := "/v3/user/" + url.PathEscape(alice.user)
			nobody.expect(401, "M_MISSING_TOKEN", "POST", own+path, "{}")
			alice.expect(403, "M_FORBIDDEN", "POST", "/v3/user/"+url.PathEscape(bob.user)+path, "{}")
			alice.expect(400, "M_INVALID_PARAM", "POST", "/v3/user/alice"+path, "{}")
			alice.expect(400, "M_NOT_JSON", "POST", own+path, "{")
			alice.expect(400, "M_BAD_JSON", "POST", own+path, "[]")
			alice.expect(200, "", "POST", own+path, "{}")
		},
	} {
		t.Run(name, f)
	}
	// What ends sessions comes last.
	t.Run("password", func(t *testing.T) { alice.t, nobody.t = t, t; refusedPasswords(alice, nobody) })
	t.Run("deactivation", func(t *testing.T) { bob.t, nobody.t, root.t = t, t, t; refusedDeactivation(bob, nobody, root) })
}

func login(user, password string) map[string]any {
	return map[string]any{"type": "m.login.password", "identifier": map[string]string{"type": "m.id.user", "user": user}, "password": password}
}

func refusedLogins(p *person) {
	const path = "/v3/login"
	identified := func(i string) string { return `{"type":"m.login.password","password":"x","identifier":` + i + `}` }
	for body, want := range map[string]struct {
		status int
		code   string
	}{
		`{`:                                    {400, "M_NOT_JSON"},
		`[]`:                                   {400, "M_BAD_JSON"},
		`{}`:                                   {400, "M_UNKNOWN"},
		`{"type":"m.login.none"}`:              {400, "M_UNKNOWN"},
		`{"type":"m.login.password"}`:          {400, "M_MISSING_PARAM"},
		`{"type":"m.login.token"}`:             {400, "M_MISSING_PARAM"},
		`{"type":"m.login.token","token":7}`:   {400, "M_BAD_JSON"},
		`{"type":"m.login.token","token":"x"}`: {403, "M_FORBIDDEN"},
		identified(`{"type":"m.id.none"}`):     {400, "M_UNKNOWN"},
		identified(`{"type":"m.id.user"}`):     {400, "M_MISSING_PARAM"},
		identified(`{"type":"m.id.user","user":"alice"}`):                                                                                        {403, "M_FORBIDDEN"},
		identified(`{"type":"m.id.user","user":"nobody"}`):                                                                                       {403, "M_FORBIDDEN"},
		identified(`{"type":"m.id.user","user":"@alice:elsewhere.test"}`):                                                                        {403, "M_FORBIDDEN"},
		identified(`{"type":"m.id.user","user":"@"}`):                                                                                            {403, "M_FORBIDDEN"},
		identified(`{"type":"m.id.thirdparty","medium":"email","address":"n@example.org"}`):                                                      {403, "M_FORBIDDEN"},
		identified(`{"type":"m.id.thirdparty","medium":"email","address":"n"}`):                                                                  {400, "M_INVALID_PARAM"},
		identified(`{"type":"m.id.thirdparty","medium":"pigeon","address":"n"}`):                                                                 {400, "M_THREEPID_MEDIUM_NOT_SUPPORTED"},
		identified(`{"type":"m.id.thirdparty","medium":"email"}`):                                                                                {400, "M_MISSING_PARAM"},
		`{"type":"m.login.password","user":"alice","password":"correct horse","device_id":"a\u0000"}`:                                            {400, "M_INVALID_PARAM"},
		`{"type":"m.login.password","user":"alice","password":"correct horse","initial_device_display_name":"` + strings.Repeat("x", 999) + `"}`: {413, "M_TOO_LARGE"},
	} {
		p.expect(want.status, want.code, "POST", path, body)
	}
	p.expect(400, "M_MISSING_PARAM", "POST", "/v3/refresh", "{}")
	a := p.expect(401, "M_UNKNOWN_TOKEN", "POST", "/v3/refresh", `{"refresh_token":"x"}`)
	require.Equal(p.t, false, a["soft_logout"], "nobody knows it")
	p.expect(401, "M_MISSING_TOKEN", "POST", "/v3/logout", "{}")
	p.expect(401, "M_MISSING_TOKEN", "POST", "/v3/logout/all", "{}")
	p.expect(401, "M_MISSING_TOKEN", "POST", "/v1/login/get_token", "{}")
	stranger := &person{worker: p.worker, t: p.t, token: "hed_YQ.AAAA.AAAA"}
	a = stranger.expect(401, "M_UNKNOWN_TOKEN", "GET", "/v3/account/whoami", "")
	require.NotEqual(p.t, true, a["soft_logout"])
}

func refusedRegistrations(p *person) {
	const available, path = "/v3/register/available", "/v3/register"
	p.expect(400, "M_MISSING_PARAM", "GET", available, "")
	dummy := map[string]string{"type": "m.login.dummy"}
	for name, code := range map[string]string{
		"alice": "M_USER_IN_USE", "ALICE": "M_USER_IN_USE", "a b": "M_INVALID_USERNAME", "ä": "M_INVALID_USERNAME", "a:b": "M_INVALID_USERNAME",
		strings.Repeat("x", 256): "M_INVALID_USERNAME", "@alice:example.org": "M_INVALID_USERNAME",
	} {
		p.expect(400, code, "GET", available+"?username="+url.QueryEscape(name), "")
		// It is said at once, before the stages, and again with them.
		p.expect(400, code, "POST", path, map[string]any{"username": name, "password": "x"})
		p.expect(400, code, "POST", path, map[string]any{"username": name, "password": "x", "auth": dummy})
	}
	require.Equal(p.t, true, p.expect(200, "", "GET", available+"?username=newcomer", "")["available"])
	p.expect(400, "M_UNKNOWN", "POST", path+"?kind=none", "{}")
	p.expect(403, "M_GUEST_ACCESS_FORBIDDEN", "POST", path+"?kind=guest", "{}")
	p.expect(400, "M_MISSING_PARAM", "POST", path, map[string]any{"username": "newcomer", "auth": dummy})
	p.expect(400, "M_INVALID_PARAM", "POST", path, map[string]any{"username": "newcomer", "password": strings.Repeat("x", 2000), "auth": dummy})
	p.expect(400, "M_INVALID_PARAM", "POST", path, map[string]any{"username": "newcomer", "password": "x", "device_id": "\x00", "auth": dummy})
	p.expect(400, "M_UNRECOGNIZED", "POST", path, map[string]any{"username": "newcomer", "password": "x", "auth": map[string]string{"type": "m.login.none"}})
	p.expect(400, "M_UNKNOWN", "POST", path, map[string]any{"username": "newcomer", "password": "x", "auth": map[string]string{"type": "m.login.dummy", "session": "x"}})
	require.Equal(p.t, true, p.expect(200, "", "GET", available+"?username=newcomer", "")["available"], "nothing of that made an account")

	const validity = "/v1/register/m.login.registration_token/validity"
	p.expect(400, "M_MISSING_PARAM", "GET", validity, "")
	require.Equal(p.t, false, p.expect(200, "", "GET", validity+"?token=none", "")["valid"])
}

func refusedAdministration(user, root *person) {
	at := func(path, u string) string { return path + url.PathEscape(u) }
	const whois = "/v3/admin/whois/"
	a := user.expect(200, "", "GET", at(whois, user.user), "")
	require.Equal(user.t, user.user, a["user_id"])
	sessions := a["devices"].(map[string]any)[user.device].(map[string]any)["sessions"].([]any)
	require.NotEmpty(user.t, sessions[0].(map[string]any)["connections"].([]any)[0].(map[string]any)["ip"])
	user.expect(403, "M_FORBIDDEN", "GET", at(whois, root.user), "")
	user.expect(400, "M_INVALID_PARAM", "GET", at(whois, "alice"), "")
	root.expect(200, "", "GET", at(whois, user.user), "")
	root.expect(400, "M_INVALID_PARAM", "GET", at(whois, "@x:elsewhere.test"), "")
	for path, field := range map[string]string{"/v1/admin/lock/": "locked", "/v1/admin/suspend/": "suspended"} {
		body := `{"` + field + `":true}`
		for _, method := range []string{"GET", "PUT"} {
			sent := map[string]string{"GET": "", "PUT": body}[method]
			(&person{worker: user.worker, t: user.t}).expect(401, "M_MISSING_TOKEN", method, at(path, user.user), sent)
			user.expect(403, "M_FORBIDDEN", method, at(path, root.user), sent)
			user.expect(403, "M_FORBIDDEN", method, at(path, user.user), sent)
			root.expect(404, "M_NOT_FOUND", method, at(path, "@nobody:example.org"), sent)
			root.expect(400, "M_INVALID_PARAM", method, at(path, "@alice:elsewhere.test"), sent)
			root.expect(400, "M_INVALID_PARAM", method, at(path, "alice"), sent)
		}
		root.expect(403, "M_FORBIDDEN", "PUT", at(path, root.user), body) // nobody locks the own account, nor another administrator's
		for sent, code := range map[string]string{"{": "M_NOT_JSON", "{}": "M_BAD_JSON", `{"` + field + `":"yes"}`: "M_BAD_JSON", `{"` + field + `":null}`: "M_BAD_JSON"} {
			root.expect(400, code, "PUT", at(path, user.user), sent)
		}
		require.Equal(user.t, map[string]any{field: false}, root.expect(200, "", "GET", at(path, user.user), ""))
	}
	root.expect(200, "", "PUT", at("/v1/admin/lock/", user.user), `{"locked":true}`)
	for _, e := range [][2]string{{"GET", "/v3/account/whoami"}, {"GET", "/v3/sync"}, {"POST", "/v3/createRoom"}, {"POST", "/v3/keys/query"}} {
		a := user.expect(401, "M_USER_LOCKED", e[0], e[1], "{}")
		require.Equal(user.t, true, a["soft_logout"])
	}
	a = user.expect(401, "M_USER_LOCKED", "POST", "/v3/login", login("alice", "correct horse"))
	require.Equal(user.t, true, a["soft_logout"])
	user.expect(403, "M_FORBIDDEN", "POST", "/v3/login", login("alice", "wrong")) // who does not know the password is not told
	root.expect(200, "", "PUT", at("/v1/admin/lock/", user.user), `{"locked":false}`)
	user.expect(200, "", "GET", "/v3/account/whoami", "")
}

func refusedAddresses(p, nobody *person) {
	for _, of := range []string{"/v3/register", "/v3/account/password", "/v3/account/3pid"} {
		letter := `{"client_secret":"x","email":"a@example.org","send_attempt":1}`
		nobody.expect(400, "M_MISSING_PARAM", "POST", of+"/email/requestToken", "{}")
		nobody.expect(400, "M_THREEPID_MEDIUM_NOT_SUPPORTED", "POST", of+"/email/requestToken", letter) // no mail is set up
		nobody.expect(400, "M_THREEPID_MEDIUM_NOT_SUPPORTED", "POST", of+"/msisdn/requestToken", "{}")
		nobody.expect(400, "M_NOT_JSON", "POST", of+"/msisdn/requestToken", "{")
	}
	require.Empty(p.t, p.expect(200, "", "GET", "/v3/account/3pid", "")["threepids"])
	for path, cases := range map[string]map[string]string{
		"/v3/account/3pid/add": {"{": "M_NOT_JSON", "{}": "M_MISSING_PARAM", `{"sid":"x","client_secret":"x"}`: "M_THREEPID_MEDIUM_NOT_SUPPORTED"},
		"/v3/account/3pid":     {"{": "M_NOT_JSON", "{}": "M_MISSING_PARAM", `{"three_pid_creds":{}}`: "M_MISSING_PARAM", `{"three_pid_creds":7}`: "M_BAD_JSON"},
		"/v3/account/3pid/bind": {
			"{": "M_NOT_JSON", "{}": "M_MISSING_PARAM",
			`{"sid":"x","client_secret":"x","id_access_token":"x","id_server":"a b"}`: "M_INVALID_PARAM",
		},
		"/v3/account/3pid/unbind": {
			"{": "M_NOT_JSON", "{}": "M_MISSING_PARAM", `{"medium":"pigeon","address":"x"}`: "M_THREEPID_MEDIUM_NOT_SUPPORTED",
			`{"medium":"email","address":"x"}`:                       "M_INVALID_PARAM",
			`{"medium":"email","address":"a@b.c","id_server":"a/b"}`: "M_INVALID_PARAM",
		},
		"/v3/account/3pid/delete": {
			"{": "M_NOT_JSON", "{}": "M_MISSING_PARAM", `{"medium":"email"}`: "M_MISSING_PARAM", `{"medium":"msisdn","address":"+1"}`: "M_INVALID_PARAM",
		},
	} {
		nobody.expect(401, "M_MISSING_TOKEN", "POST", path, "{}")
		for body, code := range cases {
			p.expect(400, code, "POST", path, body)
		}
	}
	a := p.expect(200, "", "POST", "/v3/account/3pid/delete", `{"medium":"email","address":"not@mine.org"}`)
	require.Equal(p.t, "no-support", a["id_server_unbind_result"], "nobody knows where it could be bound")
}

func refusedPasswords(p, nobody *person) {
	const path = "/v3/account/password"
	nobody.expect(401, "M_MISSING_TOKEN", "POST", path, `{"new_password":"x"}`) // without mail nobody can show who they are otherwise
	p.expect(400, "M_NOT_JSON", "POST", path, "{")
	a := p.expect(401, "", "POST", path, `{"new_password":"battery staple"}`)
	require.Empty(p.t, a["errcode"])
	auth := func(password string) map[string]any {
		return map[string]any{"type": "m.login.password", "session": a["session"], "password": password, "identifier": map[string]string{"type": "m.id.user", "user": p.user}}
	}
	change := func(to string, more map[string]any) map[string]any {
		body := map[string]any{"new_password": to, "auth": auth("correct horse")}
		for k, v := range more {
			body[k] = v
		}
		return body
	}
	p.expect(401, "M_FORBIDDEN", "POST", path, change("battery staple", map[string]any{"auth": auth("wrong")}))
	somebody := auth("correct horse")
	somebody["identifier"] = map[string]string{"type": "m.id.user", "user": "bob"}
	p.expect(403, "M_FORBIDDEN", "POST", path, change("battery staple", map[string]any{"auth": somebody}))
	p.expect(400, "M_WEAK_PASSWORD", "POST", path, change("", nil))
	p.expect(400, "M_INVALID_PARAM", "POST", path, change(strings.Repeat("x", 2000), nil))
	p.expect(400, "M_BAD_JSON", "POST", path, change("x", map[string]any{"logout_devices": "no"}))

	second := &person{worker: p.worker, t: p.t, user: p.user}
	enter := func(password string) {
		second.token = p.expect(200, "", "POST", "/v3/login", login("alice", password))["access_token"].(string)
	}
	enter("correct horse")
	p.expect(200, "", "POST", path, change("correct horse", map[string]any{"logout_devices": false}))
	second.expect(200, "", "GET", "/v3/account/whoami", "")
	p.expect(200, "", "POST", path, change("battery staple", nil))
	second.expect(401, "M_UNKNOWN_TOKEN", "GET", "/v3/account/whoami", "")
	p.expect(200, "", "GET", "/v3/account/whoami", "") // who changed it stays
	p.expect(403, "M_FORBIDDEN", "POST", "/v3/login", login("alice", "correct horse"))
	enter("battery staple")
}

func refusedDeactivation(p, nobody, root *person) {
	const path = "/v3/account/deactivate"
	nobody.expect(401, "M_MISSING_TOKEN", "POST", path, "{}")
	p.expect(400, "M_NOT_JSON", "POST", path, "{")
	p.expect(400, "M_BAD_JSON", "POST", path, `{"erase":"yes"}`)
	a := p.expect(401, "", "POST", path, "{}")
	auth := func(password string) map[string]any {
		return map[string]any{"auth": map[string]any{"type": "m.login.password", "session": a["session"], "password": password}}
	}
	p.expect(401, "M_FORBIDDEN", "POST", path, auth("wrong"))
	done := p.expect(200, "", "POST", path, auth("correct horse"))
	require.Equal(p.t, "success", done["id_server_unbind_result"])
	p.expect(401, "M_UNKNOWN_TOKEN", "GET", "/v3/account/whoami", "")
	p.expect(403, "M_FORBIDDEN", "POST", "/v3/login", login("bob", "correct horse"))
	p.expect(400, "M_USER_IN_USE", "GET", "/v3/register/available?username=bob", "")
	for _, what := range []string{"lock", "suspend"} {
		root.expect(404, "M_NOT_FOUND", "GET", "/v1/admin/"+what+"/"+url.PathEscape(p.user), "")
		root.expect(404, "M_NOT_FOUND", "PUT", "/v1/admin/"+what+"/"+url.PathEscape(p.user), `{"`+what+`ed":true}`)
	}
}
