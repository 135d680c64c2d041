package app

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// bridge writes the registration of an application service: its name begins its users and aliases, and is in its tokens.
func bridge(t *testing.T, name, address, more string) string {
	t.Helper()
	text := "id: " + name + "\nurl: " + address + "\nas_token: as-" + name + "\nhs_token: hs-" + name + "\nsender_localpart: " + name + "bot\n" +
		"protocols: [" + name + "]\nnamespaces:\n  users: [{ exclusive: true, regex: '@" + name + "_.*' }]\n" +
		"  aliases: [{ exclusive: true, regex: '#" + name + "_.*' }]\n  rooms: []\n" + more
	path := filepath.Join(t.TempDir(), name+".yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

const v3 = "/_matrix/client/v3"

// asked makes a request and demands an answer: a status, and an errcode unless it is empty.
func (w *worker) asked(t *testing.T, status int, code, method, path, token, body string) map[string]any {
	t.Helper()
	got, out, _ := w.call(t, method, path, token, body)
	require.Equal(t, status, got, "%s %s: %v", method, path, out)
	if code != "" {
		require.Equal(t, code, out["errcode"], "%s %s: %v", method, path, out)
		require.NotEmpty(t, out["error"])
	}
	return out
}

func (w *worker) registers(t *testing.T, name string) string {
	t.Helper()
	return w.asked(t, 200, "", "POST", v3+"/register", "", `{"username":"`+name+`","password":"a-password","auth":{"type":"m.login.dummy"}}`)["access_token"].(string)
}

// An application service acts as its users and as no others, makes accounts and devices, and keeps its names to itself; on workers of every
// kind.
func TestApplicationServicesAct(t *testing.T) {
	f := newFleet(t)
	f.cfg.RateLimits.Enabled = false
	f.cfg.Appservices = []string{bridge(t, "irc", "null", "rate_limited: false\n"), bridge(t, "xmpp", "null", "")}
	master, reader := f.start(t, Master, "master"), f.start(t, Synchrotron, "reader")
	f.owns(t, "master")
	alice := master.registers(t, "alice")
	require.Eventually(t, func() bool { // until the master has heard of the reader
		status, _, _ := master.call(t, "GET", v3+"/account/whoami", alice, "")
		return status == http.StatusOK
	}, patient, patient/1000)
	as := func(user, path string, more ...string) string {
		sep := "?"
		if strings.Contains(path, "?") {
			sep = "&"
		}
		return v3 + path + sep + "user_id=" + url.QueryEscape(user) + strings.Join(more, "")
	}
	register := func(status int, code, token, body string) map[string]any {
		t.Helper()
		return master.asked(t, status, code, "POST", v3+"/register", token, `{"type":"m.login.application_service"`+body+`}`)
	}
	const ghost, secret = "@irc_ghost:example.org", "as-irc"

	t.Run("registration", func(t *testing.T) {
		register(401, "M_MISSING_TOKEN", "", `,"username":"irc_ghost"`)
		register(401, "M_UNKNOWN_TOKEN", "hs-irc", `,"username":"irc_ghost"`)
		register(401, "M_UNKNOWN_TOKEN", alice, `,"username":"irc_ghost"`)
		register(400, "M_MISSING_PARAM", secret, ``)
		register(400, "M_EXCLUSIVE", secret, `,"username":"bob"`)
		register(400, "M_EXCLUSIVE", secret, `,"username":"xmpp_ghost"`)
		register(400, "M_INVALID_USERNAME", secret, `,"username":"irc_:"`)
		master.asked(t, 403, "M_FORBIDDEN", "GET", as(ghost, "/account/whoami"), secret, "")
		out := register(200, "", secret, `,"username":"irc_ghost","inhibit_login":true`)
		require.Equal(t, ghost, out["user_id"])
		require.NotContains(t, out, "access_token")
		register(400, "M_USER_IN_USE", secret, `,"username":"irc_ghost","inhibit_login":true`)
		register(200, "", secret, `,"username":"ircbot","inhibit_login":true`)
		out = register(200, "", secret, `,"username":"irc_other","device_id":"DEV"`)
		require.Equal(t, "DEV", out["device_id"])
		who := reader.asked(t, 200, "", "GET", v3+"/account/whoami", out["access_token"].(string), "")
		require.Equal(t, "@irc_other:example.org", who["user_id"])
		require.Equal(t, "DEV", who["device_id"])

		for _, name := range []string{"irc_mine", "ircbot", "XMPP_mine"} {
			master.asked(t, 400, "M_EXCLUSIVE", "POST", v3+"/register", "", `{"username":"`+name+`","password":"a-password","auth":{"type":"m.login.dummy"}}`)
			master.asked(t, 400, "M_EXCLUSIVE", "GET", v3+"/register/available?username="+name, "", "")
		}
		master.asked(t, 400, "M_EXCLUSIVE", "POST", v3+"/register", secret, `{"username":"irc_mine","password":"a-password","auth":{"type":"m.login.dummy"}}`)
	})
	t.Run("identity", func(t *testing.T) {
		for _, w := range []*worker{master, reader} { // master passes it on
			require.Equal(t, "@ircbot:example.org", w.asked(t, 200, "", "GET", v3+"/account/whoami", secret, "")["user_id"])
			require.Equal(t, ghost, w.asked(t, 200, "", "GET", as(ghost, "/account/whoami"), secret, "")["user_id"])
			require.Equal(t, ghost, w.asked(t, 200, "", "GET", as(ghost, "/account/whoami?access_token="+secret), "", "")["user_id"])
			w.asked(t, 403, "M_FORBIDDEN", "GET", as("@alice:example.org", "/account/whoami"), secret, "")
			w.asked(t, 403, "M_FORBIDDEN", "GET", as("@irc_ghost:else.example", "/account/whoami"), secret, "")
			w.asked(t, 403, "M_FORBIDDEN", "GET", as("@irc_unmade:example.org", "/account/whoami"), secret, "")
			w.asked(t, 401, "M_UNKNOWN_TOKEN", "GET", as(ghost, "/account/whoami"), "hs-irc", "")
			who := w.asked(t, 200, "", "GET", as(ghost, "/account/whoami"), alice, "")
			require.Equal(t, "@alice:example.org", who["user_id"], "for nobody else does it mean anything")
		}
		require.Equal(t, "@xmppbot:example.org", reader.asked(t, 200, "", "GET", v3+"/account/whoami", "as-xmpp", "")["user_id"],
			"a sender need not be registered")
		master.asked(t, 403, "M_FORBIDDEN", "POST", v3+"/logout", secret, "{}")
		master.asked(t, 403, "M_FORBIDDEN", "POST", as(ghost, "/account/password"), secret, `{"new_password":"another one"}`)
	})
	t.Run("devices", func(t *testing.T) {
		put := func(status int, user, device string) {
			t.Helper()
			master.asked(t, status, "", "PUT", as(user, "/devices/"+device), secret, `{"display_name":"Bridge"}`)
		}
		put(201, ghost, "ONE")
		put(200, ghost, "ONE")
		put(201, ghost, "TWO")
		master.asked(t, 404, "M_NOT_FOUND", "PUT", v3+"/devices/ONE", alice, `{"display_name":"mine"}`)
		for _, param := range []string{"device_id", "org.matrix.msc3202.device_id"} {
			who := reader.asked(t, 200, "", "GET", as(ghost, "/account/whoami", "&"+param+"=ONE"), secret, "")
			require.Equal(t, "ONE", who["device_id"])
			reader.asked(t, 400, "M_UNKNOWN_DEVICE", "GET", as(ghost, "/account/whoami", "&"+param+"=THREE"), secret, "")
			reader.asked(t, 400, "M_UNKNOWN_DEVICE", "GET", v3+"/account/whoami?"+param+"=ONE", secret, "")
		}
		reader.asked(t, 400, "M_UNKNOWN_DEVICE", "GET", v3+"/account/whoami?device_id=ONE", "as-xmpp", "")
		keys := `{"one_time_keys":{"curve25519:AAAA":"` + strings.Repeat("a", 43) + `"}}`
		master.asked(t, 400, "M_INVALID_PARAM", "POST", as(ghost, "/keys/upload"), secret, keys)
		master.asked(t, 200, "", "POST", as(ghost, "/keys/upload", "&device_id=ONE"), secret, keys)
		master.asked(t, 200, "", "DELETE", as(ghost, "/devices/ONE"), secret, "")
		reader.asked(t, 400, "M_UNKNOWN_DEVICE", "GET", as(ghost, "/account/whoami", "&device_id=ONE"), secret, "")
		master.asked(t, 200, "", "POST", as(ghost, "/delete_devices"), secret, `{"devices":["TWO"]}`)
		require.Empty(t, reader.asked(t, 200, "", "GET", as(ghost, "/devices"), secret, "")["devices"])
	})
	t.Run("login", func(t *testing.T) {
		login := func(status int, code, token, user string) map[string]any {
			t.Helper()
			return master.asked(t, status, code, "POST", v3+"/login", token,
				`{"type":"m.login.application_service","identifier":{"type":"m.id.user","user":"`+user+`"}}`)
		}
		flows, _ := master.asked(t, 200, "", "GET", v3+"/login", "", "")["flows"].([]any)
		require.Contains(t, flows, map[string]any{"type": "m.login.application_service"})
		login(401, "M_MISSING_TOKEN", "", "irc_ghost")
		login(401, "M_UNKNOWN_TOKEN", "nonsense", "irc_ghost")
		login(403, "M_EXCLUSIVE", secret, "alice")
		login(403, "M_FORBIDDEN", secret, "irc_unmade")
		in := login(200, "", secret, ghost)
		who := reader.asked(t, 200, "", "GET", v3+"/account/whoami", in["access_token"].(string), "")
		require.Equal(t, ghost, who["user_id"])
		require.Equal(t, in["device_id"], who["device_id"])
	})
	t.Run("rooms", func(t *testing.T) {
		room := master.asked(t, 200, "", "POST", as(ghost, "/createRoom"), secret, `{"room_alias_name":"irc_first"}`)["room_id"].(string)
		master.asked(t, 400, "M_EXCLUSIVE", "POST", as(ghost, "/createRoom"), secret, `{"room_alias_name":"mine"}`)
		master.asked(t, 400, "M_EXCLUSIVE", "POST", v3+"/createRoom", alice, `{"room_alias_name":"irc_mine"}`)
		alias := func(name string) string { return v3 + "/directory/room/" + url.PathEscape("#"+name+":example.org") }
		master.asked(t, 200, "", "PUT", alias("irc_second"), secret, `{"room_id":"`+room+`"}`)
		master.asked(t, 400, "M_EXCLUSIVE", "PUT", alias("mine"), secret, `{"room_id":"`+room+`"}`)
		master.asked(t, 400, "M_EXCLUSIVE", "PUT", alias("irc_third"), alice, `{"room_id":"`+room+`"}`)
		master.asked(t, 400, "M_EXCLUSIVE", "DELETE", alias("irc_second"), alice, "")
		master.asked(t, 400, "M_EXCLUSIVE", "DELETE", alias("irc_second"), "as-xmpp", "")
		master.asked(t, 200, "", "DELETE", alias("irc_second"), secret, "")

		at := v3 + "/rooms/" + url.PathEscape(room)
		as := func(path, query string) string { return at + path + "?user_id=" + url.QueryEscape(ghost) + query }
		ts := func(event string) float64 {
			return reader.asked(t, 200, "", "GET", as("/event/"+url.PathEscape(event), ""), secret, "")["origin_server_ts"].(float64)
		}
		sent := master.asked(t, 200, "", "PUT", as("/send/m.room.message/1", "&ts=12345"), secret, `{"body":"old"}`)["event_id"].(string)
		require.InDelta(t, 12345, ts(sent), 0)
		state := master.asked(t, 200, "", "PUT", as("/state/m.room.topic/", "&ts=54321"), secret, `{"topic":"old"}`)["event_id"].(string)
		require.InDelta(t, 54321, ts(state), 0)
		master.asked(t, 400, "M_INVALID_PARAM", "PUT", as("/send/m.room.message/2", "&ts=-1"), secret, `{"body":"old"}`)
		master.asked(t, 400, "M_INVALID_PARAM", "PUT", as("/send/m.room.message/2", "&ts=yesterday"), secret, `{"body":"old"}`)
		redaction := master.asked(t, 200, "", "PUT", as("/redact/"+url.PathEscape(sent)+"/1", "&ts=12345"), secret, `{}`)["event_id"].(string)
		require.Greater(t, ts(redaction), float64(12345), "it is for messages and state alone")
	})
	t.Run("cross-signing", func(t *testing.T) {
		upload := func(key string) int {
			t.Helper()
			status, _, _ := master.call(t, "POST", as(ghost, "/keys/device_signing/upload"), secret,
				`{"master_key":{"user_id":"`+ghost+`","usage":["master"],"keys":{"ed25519:`+key+`":"`+key+`"}}}`)
			return status
		}
		require.Equal(t, http.StatusOK, upload(strings.Repeat("A", 43)))
		require.Equal(t, http.StatusOK, upload(strings.Repeat("B", 42)+"A"), "replaced without further proof")
	})
	t.Run("the end of an account", func(t *testing.T) {
		master.asked(t, 200, "", "POST", as("@irc_other:example.org", "/account/deactivate"), secret, `{}`)
		require.Eventually(t, func() bool {
			status, out, _ := reader.call(t, "GET", as("@irc_other:example.org", "/account/whoami"), secret, "")
			return status == 403 && out["errcode"] == "M_USER_DEACTIVATED"
		}, patient, patient/1000)
	})
}

// Only what is to be limited is, and the sender never.
func TestRateLimitsOfApplicationServices(t *testing.T) {
	f := newFleet(t)
	f.cfg.RateLimits.Write.Count, f.cfg.RateLimits.Write.Burst = 1, 2
	f.cfg.RateLimits.Write.Per = 1 << 50
	f.cfg.RateLimits.Register = f.cfg.RateLimits.Write
	f.cfg.Appservices = []string{bridge(t, "free", "null", "rate_limited: false\n"), bridge(t, "tied", "null", "")}
	w := f.start(t, Master, "master")
	f.owns(t, "master")
	for _, name := range []string{"free", "tied"} {
		for _, user := range []string{"a", "b", "c"} { // more than strangers may
			w.asked(t, 200, "", "POST", v3+"/register", "as-"+name, `{"type":"m.login.application_service","inhibit_login":true,"username":"`+name+`_`+user+`"}`)
		}
	}
	write := func(name, user string) int {
		status, _, _ := w.call(t, "PUT", v3+"/devices/D?user_id="+url.QueryEscape("@"+user+":example.org"), "as-"+name, `{}`)
		return status
	}
	w.asked(t, 200, "", "POST", v3+"/register", "as-tied", `{"type":"m.login.application_service","inhibit_login":true,"username":"tiedbot"}`)
	for i := range 5 {
		require.Less(t, write("free", "free_a"), 300)
		require.Less(t, write("tied", "tiedbot"), 300)
		require.Equal(t, i >= 2, write("tied", "tied_a") == http.StatusTooManyRequests)
	}
}
