package app

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/config"
	"github.com/heddle-im/heddle/pkg/route"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// Who has not agreed to the terms as they are now reads, and brings nothing into the world, until that is done on a page of the server.
func TestTermsAreEnforced(t *testing.T) {
	f := newFleet(t)
	f.cfg.RateLimits.Enabled = false
	f.cfg.PublicBaseurl = "https://matrix.example.org"
	w := f.start(t, AllInOne, "one")
	f.owns(t, "one")
	alice, bob := f.person(t, w, "alice"), f.person(t, w, "bob")
	room := alice.expect(200, "", "POST", "/v3/createRoom", `{"preset":"public_chat"}`)["room_id"].(string)
	bob.expect(200, "", "POST", "/v3/join/"+room, "{}")
	w.stop(t)

	f.cfg.Registration.EnforceTerms = true
	f.cfg.Registration.Terms = []config.Policy{{ID: "privacy", Version: "1", Documents: []config.Document{{Lang: "en", Name: "Privacy <1>", URL: "https://example.org/p1"}}}}
	restart := func(name string) {
		w = f.start(t, AllInOne, name)
		f.owns(t, name)
		alice.worker, bob.worker = w, w
	}
	restart("two")
	sent := 0
	send := func(p *person, status int, code string) map[string]any {
		t.Helper()
		sent++
		return p.expect(status, code, "PUT", fmt.Sprint("/v3/rooms/", room, "/send/m.room.message/", sent), `{"msgtype":"m.text","body":"x"}`)
	}
	refused := send(alice, 403, "M_CONSENT_NOT_GIVEN")
	link, ok := strings.CutPrefix(refused["consent_uri"].(string), "https://matrix.example.org")
	require.True(t, ok)

	// Which endpoints wait: whatever writes to rooms, and no other.
	waits := map[string]bool{}
	v := &victim{t: t, url: w.URL(), user: alice.user, token: alice.token, device: alice.device, room: room, event: "$x"}
	for _, row := range route.Table() {
		if row.Kind != route.Master || row.Auth != route.AuthUser && row.Auth != route.AuthGuest || strings.Contains(row.Name, "ogout") || row.Name == "leaveRoom" {
			continue
		}
		_, b := v.ask(row.Methods[0], v.path(row.Paths[0]), alice.token, "{}")
		waits[row.Name] = strings.Contains(string(b), "M_CONSENT_NOT_GIVEN")
		switch row.Rate {
		case route.RateMessage, route.RateJoin, route.RateInvite, route.RateCreateRoom:
			require.True(t, waits[row.Name], row.Name)
		}
	}
	for _, name := range []string{"kick", "ban", "unban", "upgradeRoom", "uploadContent", "createContent", "setRoomAlias"} {
		require.True(t, waits[name], name)
	}
	for _, name := range []string{
		"uploadKeys", "sendToDevice", "uploadCrossSigningKeys", "postRoomKeysVersion", "setAccountData", "postReceipt", "setTyping", "defineFilter",
		"deleteDevice", "postPusher", "reportEvent", "requestOpenIdToken", "setProfileField", "forgetRoom",
	} {
		waiting, ok := waits[name]
		require.True(t, ok, name)
		require.False(t, waiting, name)
	}
	alice.expect(200, "", "GET", "/v3/sync", "")
	alice.expect(200, "", "GET", "/v3/rooms/"+room+"/messages?dir=b", "")
	bob.expect(200, "", "POST", "/v3/rooms/"+room+"/leave", "{}")
	login := `{"type":"m.login.password","identifier":{"type":"m.id.user","user":"bob"},"password":"correct horse"}`
	second := bob.expect(200, "", "POST", "/v3/login", login)
	status, _, _ := w.call(t, "POST", "/_matrix/client/v3/logout", second["access_token"].(string), "{}")
	require.Equal(t, 200, status)

	// The page. The link alone does nothing, nor does one that nobody gave out.
	b := &browser{t, w}
	status, page, _ := b.visit(link, nil)
	require.Equal(t, 200, status, page)
	require.Contains(t, page, "Privacy &lt;1&gt;")
	require.Contains(t, page, "https://example.org/p1")
	send(alice, 403, "M_CONSENT_NOT_GIVEN")
	u, err := url.Parse(link)
	require.NoError(t, err)
	form := url.Values{"for": {u.Query().Get("for")}}
	status, page, _ = b.visit(u.Path, form)
	require.Equal(t, http.StatusForbidden, status)
	require.Contains(t, page, "you must agree")
	for _, sealed := range []string{"", "x", form.Get("for") + "x", form.Get("for")[1:]} {
		status, _, _ = b.visit(u.Path, url.Values{"for": {sealed}, "agree": {"yes"}})
		require.Equal(t, 400, status, sealed)
	}
	send(alice, 403, "M_CONSENT_NOT_GIVEN")
	form.Set("agree", "yes")
	status, page, _ = b.visit(u.Path, form)
	require.Equal(t, 200, status, page)
	require.Contains(t, page, "You have agreed")
	send(alice, 200, "")
	alice.expect(200, "", "POST", "/v3/createRoom", "{}")
	bob.expect(403, "M_CONSENT_NOT_GIVEN", "POST", "/v3/join/"+room, "{}")
	status, page, _ = b.visit(u.Path, form)
	require.Equal(t, 200, status, page)
	var versions []string
	require.NoError(t, f.db.Pool.QueryRow(t.Context(), `SELECT array_agg(user_id || ' ' || policy || ' ' || version) FROM consent`).Scan(&versions))
	require.Equal(t, []string{"@alice:example.org privacy 1"}, versions)

	// Who registers agrees there.
	status, a, _ := w.call(t, "POST", "/_matrix/client/v3/register", "", `{"username":"carol","password":"x","auth":{"type":"m.login.terms"}}`)
	require.Equal(t, 200, status, a)
	carol := &person{worker: w, t: t, user: a["user_id"].(string), token: a["access_token"].(string)}
	carol.expect(200, "", "POST", "/v3/join/"+room, "{}")
	w.stop(t)

	// A later version asks again.
	f.cfg.Registration.Terms[0].Version = "2"
	restart("three")
	send(alice, 403, "M_CONSENT_NOT_GIVEN")
	b.at = w
	status, page, _ = b.visit(u.Path, form) // the same link: it says who, and the page says to what
	require.Equal(t, 200, status, page)
	send(alice, 200, "")
}

// Stages that an app does not know are passed on pages, whose app then goes on with the session alone.
func TestStagesOnPages(t *testing.T) {
	f := newFleet(t)
	f.cfg.RateLimits.Enabled = false
	f.cfg.Registration.RequireToken = true
	f.cfg.Registration.Terms = []config.Policy{{ID: "t", Version: "1", Documents: []config.Document{{Lang: "en", Name: "T", URL: "https://example.org/t"}}}}
	w := f.start(t, AllInOne, "one")
	f.owns(t, "one")
	_, err := f.db.Pool.Exec(t.Context(), `INSERT INTO registration_token (shard, token, uses_allowed, pending, completed) VALUES ($1, 'let-me-in', 2, 0, 0)`,
		int16(shard.NewMap(f.cfg.ServerName, f.cfg.Shards).Of("let-me-in")))
	require.NoError(t, err)
	b := &browser{t, w}
	path := func(stage, session string) string {
		return "/_matrix/client/v3/auth/" + stage + "/fallback/web?session=" + url.QueryEscape(session)
	}
	pass := func(want int, stage, session string, more ...string) string {
		t.Helper()
		form := url.Values{"session": {session}}
		for i := 0; i < len(more); i += 2 {
			form.Set(more[i], more[i+1])
		}
		status, page, _ := b.visit(strings.Split(path(stage, session), "?")[0], form)
		require.Equal(t, want, status, page)
		require.Equal(t, want == 200, strings.Contains(page, "onAuthDone"), page)
		return page
	}
	register := func(name, session string) (int, map[string]any) {
		auth := ""
		if session != "" {
			auth = `,"auth":{"session":"` + session + `"}`
		}
		status, a, _ := w.call(t, "POST", "/_matrix/client/v3/register", "", `{"username":"`+name+`","password":"correct horse"`+auth+`}`)
		return status, a
	}
	enter := func(name string) *person {
		t.Helper()
		_, a := register(name, "")
		session := a["session"].(string)
		for _, stage := range []string{"m.login.terms", "m.login.registration_token"} {
			status, page, _ := b.visit(path(stage, session), nil)
			require.Equal(t, 200, status, page)
		}
		pass(403, "m.login.terms", session)
		_, a = register(name, session)
		require.Empty(t, a["completed"])
		pass(200, "m.login.terms", session, "agree", "yes")
		status, a := register(name, session)
		require.Equal(t, 401, status, a)
		require.Equal(t, []any{"m.login.terms"}, a["completed"])
		session = a["session"].(string)
		require.Contains(t, pass(403, "m.login.registration_token", session, "token", "wrong"), "lets nobody register")
		pass(200, "m.login.registration_token", session, "token", "let-me-in")
		status, a = register(name, session)
		require.Equal(t, 200, status, a)
		return &person{worker: w, t: t, user: a["user_id"].(string), token: a["access_token"].(string), device: a["device_id"].(string)}
	}
	alice := enter("alice")
	eve := enter("eve")
	var used int
	require.NoError(t, f.db.Pool.QueryRow(t.Context(), `SELECT completed FROM registration_token`).Scan(&used))
	require.Equal(t, 2, used, "what was shown on the page is used up")

	begin := func(p *person) string {
		status, a := p.ask("DELETE", "/v3/devices/"+p.device, "{}")
		require.Equal(t, 401, status, a)
		return a["session"].(string)
	}
	session := begin(alice)
	status, page, _ := b.visit(path("m.login.password", session), nil)
	require.Equal(t, 200, status, page)
	require.Contains(t, page, `type="password"`)
	pass(403, "m.login.password", session, "username", "alice", "password", "wrong")
	remove := map[string]any{"auth": map[string]string{"session": session}}
	alice.expect(401, "", "DELETE", "/v3/devices/"+alice.device, remove)
	pass(200, "m.login.password", session, "username", "eve", "password", "correct horse")
	alice.expect(401, "", "DELETE", "/v3/devices/"+alice.device, remove) // eve confirms nothing of alice's
	pass(200, "m.login.terms", session, "agree", "yes")
	alice.expect(401, "", "DELETE", "/v3/devices/"+alice.device, remove) // nor does what anybody can do
	pass(200, "m.login.password", session, "username", "alice", "password", "correct horse")
	eve.expect(400, "M_UNKNOWN", "DELETE", "/v3/devices/"+eve.device, remove)
	alice.expect(200, "", "DELETE", "/v3/devices/"+alice.device, remove)

	for _, stage := range []string{"m.login.email.identity", "m.login.sso", "m.login.recaptcha", "x"} {
		status, _, _ = b.visit(path(stage, session), nil)
		require.Equal(t, 404, status, stage)
	}
	for _, bad := range []string{"", "x", `"><script>alert(1)</script>`} {
		status, page, _ = b.visit(path("m.login.password", bad), nil)
		require.Equal(t, 400, status, bad)
		require.NotContains(t, page, "<script>")
	}
}

// Who has an app that knows none of the ways to log in does it on a page, which hands the session over.
func TestLoginOnThePage(t *testing.T) {
	f := newFleet(t)
	f.cfg.RateLimits.Enabled = false
	w := f.start(t, AllInOne, "one")
	f.owns(t, "one")
	alice := f.person(t, w, "alice")
	b := &browser{t, w}
	const path = "/_matrix/static/client/login/"
	status, page, _ := b.visit(path+"?device_id=PHONE&initial_device_display_name=%3Cmine%3E", nil)
	require.Equal(t, 200, status, page)
	require.Contains(t, page, `value="PHONE"`)
	require.Contains(t, page, "&lt;mine&gt;")
	require.NotContains(t, page, "sso")
	form := url.Values{"username": {"alice"}, "password": {"wrong"}, "device_id": {"PHONE"}, "initial_device_display_name": {"<mine></script>"}}
	status, page, _ = b.visit(path, form)
	require.Equal(t, 403, status)
	require.NotContains(t, page, "onLogin")
	form.Set("password", "correct horse")
	status, page, _ = b.visit(path, form)
	require.Equal(t, 200, status, page)
	require.NotContains(t, page, "mine")
	_, rest, ok := strings.Cut(page, `"access_token":"`)
	require.True(t, ok, page)
	require.Contains(t, page, "window.onLogin({")
	token, _, _ := strings.Cut(rest, `"`)
	in := &person{worker: w, t: t, user: alice.user, token: token}
	who := in.expect(200, "", "GET", "/v3/account/whoami", "")
	require.Equal(t, "PHONE", who["device_id"])
	require.Equal(t, alice.user, who["user_id"])
	require.Equal(t, "<mine></script>", in.expect(200, "", "GET", "/v3/devices/PHONE", "")["display_name"])

	// And with what a provider's login ends in.
	a := alice.expect(401, "", "POST", "/v1/login/get_token", "{}")
	a = alice.expect(200, "", "POST", "/v1/login/get_token", map[string]any{"auth": map[string]any{
		"type": "m.login.password", "session": a["session"], "password": "correct horse",
	}})
	token = a["login_token"].(string)
	status, page, _ = b.visit(path+"?loginToken="+token, nil)
	require.Equal(t, 200, status)
	require.NotContains(t, page, "password")
	status, page, _ = b.visit(path, url.Values{"loginToken": {token}})
	require.Equal(t, 200, status)
	require.Contains(t, page, "window.onLogin({")
	status, page, _ = b.visit(path, url.Values{"loginToken": {token}})
	require.Equal(t, 403, status, "it is good once")
	require.Contains(t, page, `type="password"`)
}
