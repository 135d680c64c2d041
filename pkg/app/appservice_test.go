package app

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/store/leasedb"
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

// network is an application service as far as it is asked.
type network struct {
	http *httptest.Server
	mu   sync.Mutex // guards what follows
	// answers are by method and path, below the base.
	answers map[string]func(w http.ResponseWriter, r *http.Request)
	asked   []string
	names   map[string]bool // of transactions
	events  []string        // ids, of all transactions
}

func newNetwork(t *testing.T) *network {
	n := &network{answers: map[string]func(w http.ResponseWriter, r *http.Request){}, names: map[string]bool{}}
	n.http = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer hs-irc" {
			http.Error(w, `{"errcode":"M_FORBIDDEN"}`, http.StatusForbidden)
			return
		}
		if strings.HasPrefix(r.URL.Path, "/_matrix/app/v1/transactions/") {
			var txn struct {
				Events []struct {
					ID string `json:"event_id"`
				} `json:"events"`
			}
			_ = json.NewDecoder(r.Body).Decode(&txn)
			n.mu.Lock()
			defer n.mu.Unlock()
			if !n.names[r.URL.Path] {
				for _, e := range txn.Events {
					n.events = append(n.events, e.ID)
				}
			}
			n.names[r.URL.Path] = true
			_, _ = io.WriteString(w, "{}")
			return
		}
		key := r.Method + " " + r.URL.EscapedPath()
		n.mu.Lock()
		n.asked = append(n.asked, key)
		f := n.answers[key]
		n.mu.Unlock()
		if f == nil {
			http.Error(w, `{"errcode":"IRC_NOT_FOUND"}`, http.StatusNotFound)
			return
		}
		f(w, r)
	}))
	t.Cleanup(n.http.Close)
	return n
}

func (n *network) answer(key string, f func(w http.ResponseWriter, r *http.Request)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answers[key] = f
}

func (n *network) says(key, body string) {
	n.answer(key, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
}

func (n *network) was(key string) (times int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, k := range n.asked {
		if k == key {
			times++
		}
	}
	return times
}

// Application services are asked for what is not there, for what is in other networks, and whether they can be reached; they list rooms; and they
// are told what happens.
func TestApplicationServicesAreAsked(t *testing.T) {
	f := newFleet(t)
	f.cfg.RateLimits.Enabled = false
	n := newNetwork(t)
	f.cfg.Appservices = []string{bridge(t, "irc", n.http.URL, ""), bridge(t, "mute", "null", ""), bridge(t, "gone", "http://127.0.0.1:1", "")}
	w := f.start(t, AllInOne, "one")
	f.owns(t, "one")
	alice := w.registers(t, "alice")
	const secret = "as-irc"
	client := func(method, path, token, body string) (int, map[string]any) {
		status, out, _ := w.call(t, method, "/_matrix/client"+path, token, body)
		return status, out
	}
	makes := func(user string) {
		status, _ := client("POST", "/v3/register", secret, `{"type":"m.login.application_service","inhibit_login":true,"username":"`+user+`"}`)
		require.Equal(t, 200, status)
	}
	esc := url.PathEscape
	const app = "/_matrix/app/v1"

	t.Run("users", func(t *testing.T) {
		profile := func(user string) string { return "/v3/profile/" + esc("@"+user+":example.org") }
		query := func(user string) string { return "GET " + app + "/users/" + esc("@"+user+":example.org") }
		w.asked(t, 404, "M_NOT_FOUND", "GET", v3+"/profile/"+esc("@irc_no:example.org"), alice, "")
		require.Equal(t, 1, n.was(query("irc_no")))
		n.answer(query("irc_yes"), func(rw http.ResponseWriter, _ *http.Request) {
			makes("irc_yes")
			_, _ = io.WriteString(rw, "{}")
		})
		status, out := client("GET", profile("irc_yes"), alice, "")
		require.Equal(t, 200, status, out)
		client("GET", profile("irc_yes"), alice, "")
		require.Equal(t, 1, n.was(query("irc_yes")), "then it is there")
		w.asked(t, 404, "M_NOT_FOUND", "GET", v3+"/profile/"+esc("@stranger:example.org"), alice, "")
		require.Zero(t, n.was(query("stranger")))
		w.asked(t, 408, "M_UNKNOWN", "GET", v3+"/profile/"+esc("@gone_user:example.org"), alice, "")

		n.answer(query("irc_guest"), func(rw http.ResponseWriter, _ *http.Request) {
			makes("irc_guest")
			_, _ = io.WriteString(rw, "{}")
		})
		room := w.asked(t, 200, "", "POST", v3+"/createRoom", alice, `{"invite":["@irc_guest:example.org"]}`)["room_id"].(string)
		require.Equal(t, 1, n.was(query("irc_guest")))
		w.asked(t, 200, "", "POST", v3+"/rooms/"+esc(room)+"/join?user_id="+url.QueryEscape("@irc_guest:example.org"), secret, "{}")
		w.asked(t, 200, "", "POST", v3+"/rooms/"+esc(room)+"/invite", alice, `{"user_id":"@irc_nobody:example.org"}`)
		require.Equal(t, 1, n.was(query("irc_nobody")))
		event := w.asked(t, 200, "", "PUT", v3+"/rooms/"+esc(room)+"/send/m.room.message/1", alice, `{"body":"hello"}`)["event_id"].(string)
		require.Eventually(t, func() bool {
			n.mu.Lock()
			defer n.mu.Unlock()
			return slices.Contains(n.events, event)
		}, patient, patient/1000, "and it is told what happens there")
	})
	t.Run("aliases", func(t *testing.T) {
		query := func(alias string) string { return "GET " + app + "/rooms/" + esc("#"+alias+":example.org") }
		lookup := func(alias string) string { return v3 + "/directory/room/" + esc("#"+alias+":example.org") }
		w.asked(t, 404, "M_NOT_FOUND", "GET", lookup("irc_no"), alice, "")
		w.asked(t, 404, "M_NOT_FOUND", "POST", v3+"/join/"+esc("#irc_no:example.org"), alice, "{}")
		require.Equal(t, 2, n.was(query("irc_no")))
		w.asked(t, 404, "M_NOT_FOUND", "GET", lookup("nobodys"), alice, "")
		require.Zero(t, n.was(query("nobodys")))
		for _, name := range []string{"irc_one", "irc_two"} {
			n.answer(query(name), func(rw http.ResponseWriter, _ *http.Request) {
				status, _ := client("POST", "/v3/createRoom", secret, `{"preset":"public_chat","room_alias_name":"`+name+`"}`)
				if status == 200 {
					_, _ = io.WriteString(rw, "{}")
				}
			})
		}
		w.asked(t, 200, "", "GET", lookup("irc_one"), alice, "")
		w.asked(t, 200, "", "POST", v3+"/join/"+esc("#irc_two:example.org"), alice, "{}")
		w.asked(t, 408, "M_UNKNOWN", "GET", lookup("gone_room"), alice, "")
	})
	t.Run("networks", func(t *testing.T) {
		third := v3 + "/thirdparty"
		w.asked(t, 404, "M_NOT_FOUND", "GET", third+"/protocol/irc", alice, "")
		n.says("GET "+app+"/thirdparty/protocol/irc", `{"user_fields":["nick"],"location_fields":["channel"],"icon":"mxc://a/b","field_types":{},
			"instances":[{"network_id":"libera","desc":"Libera","fields":{}},{"desc":"without a name"}]}`)
		want := map[string]any{
			"user_fields": []any{"nick"}, "location_fields": []any{"channel"}, "icon": "mxc://a/b", "field_types": map[string]any{},
			"instances": []any{map[string]any{"network_id": "libera", "desc": "Libera", "fields": map[string]any{}, "instance_id": "irc|libera"}},
		}
		require.Equal(t, want, w.asked(t, 200, "", "GET", third+"/protocol/irc", alice, ""))
		require.Equal(t, map[string]any{"irc": want}, w.asked(t, 200, "", "GET", third+"/protocols", alice, ""))
		w.asked(t, 404, "M_NOT_FOUND", "GET", third+"/protocol/mute", alice, "")
		list := func(path string) []any {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.URL()+third+path, nil)
			require.NoError(t, err)
			req.Header.Set("Authorization", "Bearer "+alice)
			res, err := http.DefaultClient.Do(req)
			require.NoError(t, err)
			defer res.Body.Close()
			var out []any
			require.NoError(t, json.NewDecoder(res.Body).Decode(&out))
			require.Equal(t, 200, res.StatusCode)
			return out
		}
		for path, key := range map[string]string{
			"/user/irc?nick=a":                               "user/irc",
			"/location/irc?channel=%23a":                     "location/irc",
			"/user?userid=%40irc_a%3Aexample.org":            "user",
			"/location?alias=%23irc_a%3Aexample.org&limit=1": "location",
		} {
			w.asked(t, 404, "M_NOT_FOUND", "GET", third+path, alice, "")
			item := `{"userid":"@irc_a:example.org","alias":"#irc_a:example.org","protocol":"irc","fields":{"x":"y"}}`
			n.answer("GET "+app+"/thirdparty/"+key, func(rw http.ResponseWriter, r *http.Request) {
				q := r.URL.Query()
				if q.Get("nick")+q.Get("channel")+q.Get("userid")+q.Get("alias") == "" || q.Has("access_token") {
					http.Error(rw, "{}", http.StatusBadRequest)
					return
				}
				_, _ = io.WriteString(rw, "["+item+`,{"protocol":"irc"},7]`)
			})
			require.Len(t, list(path), 1, "without what is not as it should be")
		}
		w.asked(t, 400, "M_MISSING_PARAM", "GET", third+"/user", alice, "")
		w.asked(t, 400, "M_INVALID_PARAM", "GET", third+"/location?alias=x", alice, "")
		w.asked(t, 404, "M_NOT_FOUND", "GET", third+"/user/none?nick=a", alice, "")
	})
	t.Run("ping", func(t *testing.T) {
		ping := func(service string) string { return "/_matrix/client/v1/appservice/" + service + "/ping" }
		w.asked(t, 401, "M_MISSING_TOKEN", "POST", ping("irc"), "", "{}")
		w.asked(t, 403, "M_FORBIDDEN", "POST", ping("irc"), alice, "{}")
		w.asked(t, 403, "M_FORBIDDEN", "POST", ping("irc"), "as-mute", "{}")
		w.asked(t, 400, "M_URL_NOT_SET", "POST", ping("mute"), "as-mute", "{}")
		w.asked(t, 502, "M_CONNECTION_FAILED", "POST", ping("gone"), "as-gone", "{}")
		bad := w.asked(t, 502, "M_BAD_STATUS", "POST", ping("irc"), secret, "{}")
		require.Equal(t, "404", fmt.Sprint(bad["status"]))
		require.Contains(t, bad["body"], "IRC_NOT_FOUND")
		var body []byte
		n.answer("POST "+app+"/ping", func(rw http.ResponseWriter, r *http.Request) {
			body, _ = io.ReadAll(r.Body)
			_, _ = io.WriteString(rw, "{}")
		})
		out := w.asked(t, 200, "", "POST", ping("irc"), secret, `{"transaction_id":"meow"}`)
		require.Contains(t, out, "duration_ms")
		require.JSONEq(t, `{"transaction_id":"meow"}`, string(body))
	})
	t.Run("directories", func(t *testing.T) {
		room := func(body string) string {
			return w.asked(t, 200, "", "POST", v3+"/createRoom", alice, body)["room_id"].(string)
		}
		one, two, public := room(`{"name":"one","preset":"public_chat"}`), room(`{"name":"two","preset":"public_chat"}`), room(`{"visibility":"public"}`)
		list := func(network, room string) string {
			return v3 + "/directory/list/appservice/" + network + "/" + esc(room)
		}
		w.asked(t, 403, "M_FORBIDDEN", "PUT", list("libera", one), alice, `{"visibility":"public"}`)
		w.asked(t, 400, "M_MISSING_PARAM", "PUT", list("libera", one), secret, `{}`)
		w.asked(t, 400, "M_BAD_JSON", "PUT", list("libera", one), secret, `{"visibility":"hidden"}`)
		w.asked(t, 404, "M_NOT_FOUND", "PUT", list("libera", "!none:example.org"), secret, `{"visibility":"public"}`)
		for range 2 {
			w.asked(t, 200, "", "PUT", list("libera", one), secret, `{"visibility":"public"}`)
		}
		w.asked(t, 200, "", "PUT", list("other", two), secret, `{"visibility":"public"}`)
		w.asked(t, 200, "", "PUT", list("other", public), secret, `{"visibility":"public"}`)
		rooms := func(body string) (out []string, next any) {
			a := w.asked(t, 200, "", "POST", v3+"/publicRooms", alice, body)
			for _, c := range a["chunk"].([]any) {
				out = append(out, c.(map[string]any)["room_id"].(string))
			}
			return out, a["next_batch"]
		}
		only := func(body string) []string {
			out, next := rooms(body)
			require.Nil(t, next)
			return out
		}
		require.Equal(t, []string{one}, only(`{"third_party_instance_id":"irc|libera"}`))
		require.ElementsMatch(t, []string{two, public}, only(`{"third_party_instance_id":"irc|other"}`))
		require.Equal(t, []string{two}, only(`{"third_party_instance_id":"irc|other","filter":{"generic_search_term":"TWO"}}`))
		require.Empty(t, only(`{"third_party_instance_id":"mute|libera"}`))
		require.Empty(t, only(`{"third_party_instance_id":"nonsense"}`))
		require.Equal(t, []string{public}, only(`{}`))
		require.ElementsMatch(t, []string{one, two, public}, only(`{"include_all_networks":true}`))
		var all []string
		body := `{"include_all_networks":true,"limit":1}`
		for range 3 {
			page, next := rooms(body)
			require.Len(t, page, 1)
			all = append(all, page...)
			if len(all) == 3 {
				require.Nil(t, next)
				break
			}
			body = fmt.Sprintf(`{"include_all_networks":true,"limit":1,"since":%q}`, next)
		}
		require.ElementsMatch(t, []string{one, two, public}, all)
		w.asked(t, 200, "", "PUT", list("libera", one), secret, `{"visibility":"private"}`)
		require.Empty(t, only(`{"third_party_instance_id":"irc|libera"}`))
	})
}

// When a master goes, another goes on where it was: nothing is left out, and nothing comes under two names.
func TestApplicationServicesMoveBetweenMasters(t *testing.T) {
	f := newFleet(t)
	f.cfg.RateLimits.Enabled = false
	n := newNetwork(t)
	f.cfg.Appservices = []string{bridge(t, "irc", n.http.URL, "")}
	first := f.start(t, Master, "first")
	f.owns(t, "first")
	alice := first.registers(t, "alice")
	first.asked(t, 200, "", "POST", v3+"/register", "as-irc", `{"type":"m.login.application_service","inhibit_login":true,"username":"irc_ghost"}`)
	room := first.asked(t, 200, "", "POST", v3+"/createRoom", alice, `{"preset":"public_chat"}`)["room_id"].(string)
	first.asked(t, 200, "", "POST", v3+"/rooms/"+url.PathEscape(room)+"/join?user_id="+url.QueryEscape("@irc_ghost:example.org"), "as-irc", "{}")
	var want []string
	send := func(w *worker) {
		for range 5 {
			path := fmt.Sprintf("%s/rooms/%s/send/m.room.message/%d", v3, url.PathEscape(room), len(want))
			want = append(want, w.asked(t, 200, "", "PUT", path, alice, `{"body":"hello"}`)["event_id"].(string))
		}
	}
	holder := func() (h string) {
		_ = f.db.Pool.QueryRow(t.Context(), `SELECT coalesce(holder, '') FROM role_lease WHERE role = 'appservice'`).Scan(&h)
		return leasedb.InstanceOf(h)
	}
	send(first)
	require.Eventually(t, func() bool { return holder() == "first" }, patient, patient/1000)
	second := f.start(t, Master, "second")
	f.owns(t, "first", "second")
	send(first)
	first.stop(t)
	f.owns(t, "second")
	send(second)
	require.Eventually(t, func() bool { return holder() == "second" }, patient, patient/1000)
	send(second)
	require.Eventually(t, func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return slices.Contains(n.events, want[len(want)-1])
	}, patient, patient/1000)
	n.mu.Lock()
	defer n.mu.Unlock()
	var got []string
	for _, e := range n.events {
		if slices.Contains(want, e) {
			got = append(got, e)
		}
	}
	require.Equal(t, want, got)
}
