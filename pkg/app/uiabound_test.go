package app

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/config"
)

// An authentication session confirms what it was begun for, and nothing else: by method and path, by what the request names, and by user.
func TestSessionsConfirmWhatTheyWereBegunFor(t *testing.T) {
	m := newMailing(t, nil)
	alice, eve := m.person(t, m.at, "alice"), m.person(t, m.at, "eve")
	master, replacement := newSigner("m"), newSigner("n")
	alice.expect(200, "", "POST", "/v3/keys/device_signing/upload", map[string]any{"master_key": master.as("master", alice.user)})
	type operation struct {
		method, path string
		body         map[string]any
	}
	operations := map[string]operation{
		"delete a device":       {"DELETE", "/v3/devices/ONE", nil},
		"delete another device": {"DELETE", "/v3/devices/TWO", nil},
		"delete devices":        {"POST", "/v3/delete_devices", map[string]any{"devices": []string{"ONE", "TWO"}}},
		"change the password":   {"POST", "/v3/account/password", map[string]any{"new_password": "battery staple"}},
		"deactivate":            {"POST", "/v3/account/deactivate", nil},
		"deactivate and erase":  {"POST", "/v3/account/deactivate", map[string]any{"erase": true}},
		"a login token":         {"POST", "/v1/login/get_token", nil},
		"add an address":        {"POST", "/v3/account/3pid/add", map[string]any{"sid": "x", "client_secret": "y"}},
		"add another address":   {"POST", "/v3/account/3pid/add", map[string]any{"sid": "z", "client_secret": "y"}},
		"replace the identity":  {"POST", "/v3/keys/device_signing/upload", map[string]any{"master_key": replacement.as("master", alice.user)}},
		"another identity":      {"POST", "/v3/keys/device_signing/upload", map[string]any{"master_key": newSigner("o").as("master", alice.user)}},
	}
	with := func(o operation, session string) map[string]any {
		body := map[string]any{}
		for k, v := range o.body {
			body[k] = v
		}
		if session != "" {
			body["auth"] = map[string]any{"type": "m.login.password", "session": session, "password": "correct horse"}
		}
		return body
	}
	begin := func(p *person, o operation) string {
		status, a := p.ask(o.method, o.path, with(o, ""))
		require.Equal(t, 401, status, "%s %s: %v", o.method, o.path, a)
		return a["session"].(string)
	}
	for name, o := range operations {
		session := begin(alice, o)
		for other, p := range operations {
			if other == name {
				continue
			}
			status, a := alice.ask(p.method, p.path, with(p, session))
			require.Equal(t, 400, status, "%s, begun to %s: %v", other, name, a)
			require.Equal(t, "M_UNKNOWN", a["errcode"])
		}
		if o.path == "/v3/keys/device_signing/upload" {
			continue // eve has no keys to replace
		}
		status, a := eve.ask(o.method, o.path, with(o, session))
		require.Equal(t, 400, status, "%s by another user: %v", name, a)
		// And a session of somebody else's is none of a registration, nor of a reset.
		for path, body := range map[string]string{"/v3/register": `{"username":"bob","password":"x",`, "/v3/account/password": `{"new_password":"x",`} {
			nobody := &person{worker: m.at, t: t}
			stage := map[string]string{"/v3/register": "m.login.dummy", "/v3/account/password": "m.login.email.identity"}[path]
			nobody.expect(400, "M_UNKNOWN", "POST", path, body+`"auth":{"type":"`+stage+`","session":"`+session+`"}}`)
		}
	}
	for _, session := range []string{"x", "x.y", begin(alice, operations["deactivate"]) + "x"} {
		alice.expect(400, "M_UNKNOWN", "POST", "/v3/account/deactivate", with(operations["deactivate"], session))
	}
	// Each of them does confirm its own.
	for _, name := range []string{"delete a device", "delete devices", "replace the identity", "a login token", "deactivate and erase"} {
		o := operations[name]
		alice.expect(200, "", o.method, o.path, with(o, begin(alice, o)))
	}
}

// A registration makes the account that it was begun for: what was shown for one name makes no other.
func TestRegistrationMakesWhatItWasBegunFor(t *testing.T) {
	f := newFleet(t)
	f.cfg.RateLimits.Enabled = false
	f.cfg.Registration.Terms = []config.Policy{{ID: "t", Version: "1", Documents: []config.Document{{Lang: "en", Name: "T", URL: "https://example.org/t"}}}}
	w := f.start(t, AllInOne, "one")
	f.owns(t, "one")
	p := &person{worker: w, t: t}
	register := func(username, session, more string) (int, map[string]any) {
		body := map[string]any{"password": "correct horse"}
		if username != "" {
			body["username"] = username
		}
		if session != "" {
			body["auth"] = map[string]any{"session": session, "type": "m.login.terms"}
		}
		raw, err := json.Marshal(body)
		require.NoError(t, err)
		return p.ask("POST", "/v3/register", string(raw[:len(raw)-1])+more+"}")
	}
	session := func(username string) string {
		status, a := register(username, "", "")
		require.Equal(t, 401, status, a)
		return a["session"].(string)
	}
	status, a := register("bob", session("alice"), "")
	require.Equal(t, "400 M_INVALID_PARAM", fmt.Sprint(status, " ", a["errcode"]))
	status, a = register("Alice", session("alice"), "")
	require.Equal(t, 200, status, a)
	status, a = register("", session("carol"), "")
	require.Equal(t, 200, status, a)
	require.Equal(t, "@carol:example.org", a["user_id"])
	status, a = register("dave", session(""), "") // a client that asked first which stages there are
	require.Equal(t, 200, status, a)
	require.Equal(t, "@dave:example.org", a["user_id"])
	status, a = register("erin", session("erin"), `,"guest_access_token":"x"`)
	require.Equal(t, "403 M_FORBIDDEN", fmt.Sprint(status, " ", a["errcode"]))
}

// A guest becomes a user, with the rooms and the name that the guest had, and without the tokens.
func TestGuestBecomesAUser(t *testing.T) {
	f := newFleet(t)
	f.cfg.RateLimits.Enabled = false
	f.cfg.Registration.Guests = true
	w := f.start(t, AllInOne, "one")
	f.owns(t, "one")
	alice := f.person(t, w, "alice")
	guest := func() *person {
		status, a, _ := w.call(t, "POST", "/_matrix/client/v3/register?kind=guest", "", `{}`)
		require.Equal(t, 200, status, a)
		return &person{worker: w, t: t, user: a["user_id"].(string), token: a["access_token"].(string), device: a["device_id"].(string)}
	}
	g, other := guest(), guest()
	name := func(p *person) string { return p.user[1 : len(p.user)-len(":example.org")] }
	room := alice.expect(200, "", "POST", "/v3/createRoom", `{"preset":"public_chat","initial_state":[{"type":"m.room.guest_access","content":{"guest_access":"can_join"}}]}`)["room_id"].(string)
	g.expect(200, "", "POST", "/v3/rooms/"+room+"/join", "{}")
	g.expect(200, "", "PUT", "/v3/profile/"+g.user+"/displayname", `{"displayname":"Gail"}`)
	g.expect(403, "M_GUEST_ACCESS_FORBIDDEN", "POST", "/v3/createRoom", "{}")

	nobody := &person{worker: w, t: t}
	register := func(username, token, more string) map[string]any {
		return map[string]any{"username": username, "password": "correct horse", "guest_access_token": token, "device_id": more, "auth": map[string]string{"type": "m.login.dummy"}}
	}
	nobody.expect(403, "M_FORBIDDEN", "POST", "/v3/register", register(name(other), g.token, ""))
	nobody.expect(403, "M_FORBIDDEN", "POST", "/v3/register", register("newcomer", g.token, ""))
	nobody.expect(403, "M_FORBIDDEN", "POST", "/v3/register", register("alice", alice.token, ""))
	nobody.expect(403, "M_FORBIDDEN", "POST", "/v3/register", register(name(g), "nonsense", ""))
	without := register(name(g), g.token, "")
	delete(without, "username")
	nobody.expect(400, "M_MISSING_PARAM", "POST", "/v3/register", without)
	nobody.expect(400, "M_USER_IN_USE", "POST", "/v3/register", map[string]any{"username": name(g), "password": "x", "auth": map[string]string{"type": "m.login.dummy"}})
	g.expect(200, "", "GET", "/v3/account/whoami", "")

	in := nobody.expect(200, "", "POST", "/v3/register", register(name(g), g.token, g.device))
	require.Equal(t, g.user, in["user_id"])
	require.Equal(t, g.device, in["device_id"])
	u := &person{worker: w, t: t, user: g.user, token: in["access_token"].(string), device: g.device}
	g.expect(401, "M_UNKNOWN_TOKEN", "GET", "/v3/account/whoami", "")
	who := u.expect(200, "", "GET", "/v3/account/whoami", "")
	require.NotEqual(t, true, who["is_guest"])
	u.expect(200, "", "POST", "/v3/createRoom", "{}")
	require.Equal(t, "Gail", u.expect(200, "", "GET", "/v3/profile/"+u.user+"/displayname", "")["displayname"])
	require.Contains(t, u.expect(200, "", "GET", "/v3/joined_rooms", "")["joined_rooms"], room)
	require.Len(t, u.expect(200, "", "GET", "/v3/devices", "")["devices"], 1)
	nobody.expect(200, "", "POST", "/v3/login", map[string]any{
		"type": "m.login.password", "identifier": map[string]string{"type": "m.id.user", "user": g.user}, "password": "correct horse",
	})
	nobody.expect(403, "M_FORBIDDEN", "POST", "/v3/register", register(name(g), in["access_token"].(string), "")) // a guest no more

	// Guests go when guests are let in no more; who was one stays.
	alice.expect(200, "", "PUT", "/v3/rooms/"+room+"/state/m.room.guest_access/", `{"guest_access":"forbidden"}`)
	require.Contains(t, u.expect(200, "", "GET", "/v3/joined_rooms", "")["joined_rooms"], room)
}
