package app

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/route"
)

// What each endpoint is asked for, by letters: that it does what it is for, that it refuses who is in the room and may not, who is not in
// the room, what is malformed, and a room that is not there.
const (
	done    = 'd'
	denied  = 'n'
	outside = 'o'
	bad     = 'b'
	nowhere = 'u'
	setup   = '-' // a request on the way to the next
	other   = '+' // another error of the specification
)

// roomCase is one request and what is to come of it. In path, below /_matrix/client, and in body, {x} stands for a value of the scene.
type roomCase struct {
	kind   rune
	who    string
	path   string
	body   string
	status int
	code   string
}

// roomEndpoint is what is asked of one endpoint.
type roomEndpoint struct {
	method string
	path   string // of the first spelling, with the scene's values; the cases that have none use it
	cases  []roomCase
	// lacks are the kinds that the endpoint has no case of, and why.
	lacks map[string]string
	// spec are the errors that the specification lists for it beyond 401 and 429: each has a case.
	spec string
}

// roomPart gives the rows of the route table that are about rooms, events, and people in rooms: whatever is called by a room or an event, and
// some more.
func roomPart() []route.Row {
	rows := route.Rooms()
	people := []string{
		"getEvents", "initialSync", "setAccountData", "getAccountData", "deleteAccountData", "defineFilter", "getFilter", "setProfileField",
		"getProfileField", "deleteProfileField", "getUserProfile", "setPresence", "getPresence", "searchUserDirectory", "getNotifications",
	}
	named := regexp.MustCompile(`\{(roomId|roomIdOrAlias|roomAlias|eventId|threadRootId)\}`)
	for _, r := range route.Table() {
		if r.Kind == route.FederationReader || slices.ContainsFunc(rows, func(has route.Row) bool { return has.Name == r.Name }) {
			continue
		}
		backup := strings.Contains(r.Paths[0], "/room_keys/") // of keys: TestRefusalsOfEncryption
		if slices.Contains(people, r.Name) || named.MatchString(r.Paths[0]) && !backup {
			rows = append(rows, r)
		}
	}
	return rows
}

// TestRoomAPI asks every endpoint about rooms for success, for each error that the specification lists, without permission, from outside
// of the room, with bad input and for an unknown room. A row of the route table without its cases fails.
func TestRoomAPI(t *testing.T) {
	f := newFleet(t)
	f.cfg.RateLimits.Enabled = false
	f.cfg.Registration.Guests = true
	f.cfg.Log.Level = "error"
	w := &roomAPI{worker: f.start(t, AllInOne, "one"), tokens: map[string]string{}}
	f.owns(t, "one")
	w.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}, Timeout: patient}
	t.Cleanup(w.client.CloseIdleConnections)
	w.t = t
	for _, u := range []string{"alice", "bob", "carol", "dave"} {
		made := w.must("", "POST", "/v3/register", fmt.Sprintf(`{"username":%q,"password":"correct horse","auth":{"type":"m.login.dummy"}}`, u))
		w.tokens[u] = made["access_token"].(string)
	}
	guest := w.must("", "POST", "/v3/register?kind=guest", `{}`)
	w.tokens["guest"], w.guest = guest["access_token"].(string), guest["user_id"].(string)

	table := roomEndpoints()
	for _, row := range roomPart() {
		t.Run(row.Name, func(t *testing.T) {
			if why := notYet(row.Name); why != "" {
				w.t = t
				a := w.ask("alice", row.Methods[0], strings.TrimPrefix(row.Paths[0], "/_matrix/client"), `{}`)
				if row.Auth != route.AuthAppservice {
					require.Equal(t, "M_UNRECOGNIZED", a["errcode"], "it is served now, and the table has no cases of it")
				}
				t.Skip(why)
			}
			e, ok := table[row.Name]
			require.True(t, ok, "the table has no cases of this row")
			delete(table, row.Name)
			w.t = t
			w.scene()
			w.endpoint(&row, &e)
		})
	}
	require.Empty(t, table, "cases of rows that there are not")

	t.Run("guests leave", func(t *testing.T) {
		w.t = t
		w.scene()
		w.must("guest", "POST", "/v3/rooms/{readable}/join", `{}`)
		w.must("guest", "PUT", "/v3/rooms/{readable}/send/m.room.message/g", `{"body":"hello"}`)
		w.must("bob", "POST", "/v3/rooms/{readable}/join", `{}`)
		w.must("alice", "PUT", "/v3/rooms/{readable}/state/m.room.guest_access/", `{"guest_access":"forbidden"}`)
		require.Eventually(t, func() bool {
			members := w.must("alice", "GET", "/v3/rooms/{readable}/joined_members", ``)["joined"].(map[string]any)
			return len(members) == 2 && members["@bob:example.org"] != nil
		}, patient, 20*time.Millisecond, "alice and bob stay, and the guest does not")
		w.ask("guest", "POST", "/v3/rooms/{readable}/join", `{}`)
		require.Equal(t, http.StatusForbidden, w.status)
		w.ask("guest", "PUT", "/v3/profile/"+url.PathEscape(w.guest)+"/avatar_url", `{"avatar_url":"mxc://x/y"}`)
		require.Equal(t, http.StatusForbidden, w.status)
		w.must("guest", "PUT", "/v3/profile/"+url.PathEscape(w.guest)+"/displayname", `{"displayname":"Guest"}`)
	})
}

// notYet says why a row is not served, if that is known.
func notYet(name string) string {
	switch name {
	case "updateAppserviceRoomDirectoryVisibility":
		return "only application services may ask: TestApplicationServicesAreAsked does"
	}
	return ""
}

// roomAPI is the walk.
type roomAPI struct {
	*worker
	t      *testing.T
	client *http.Client
	tokens map[string]string
	guest  string
	values map[string]string
	scenes int
	status int
}

// scene makes a private room of alice and bob, where bob may speak and nothing else, a public one, and one that anybody may read.
func (w *roomAPI) scene() {
	w.scenes++
	w.values = map[string]string{
		"alice": "@alice:example.org", "bob": "@bob:example.org", "carol": "@carol:example.org", "dave": "@dave:example.org",
		"nowhere": "!nowhere:example.org", "malformed": "nowhere", "none": "$none", "n": fmt.Sprint(w.scenes),
		"nobody": "@nobody:example.org", "long": strings.Repeat("x", 70_000), "key": strings.Repeat("k", 256),
	}
	v := w.values
	text := func(member string, a map[string]any) string { return a[member].(string) }
	v["room"] = text("room_id", w.must("alice", "POST", "/v3/createRoom",
		`{"preset":"private_chat","name":"the loom","room_alias_name":"loom{n}","invite":["{bob}"],"power_level_content_override":{"invite":50,"events_default":0}}`))
	w.must("bob", "POST", "/v3/rooms/{room}/join", `{}`)
	v["alias"] = "#loom" + v["n"] + ":example.org"
	v["event"] = text("event_id", w.must("alice", "PUT", "/v3/rooms/{room}/send/m.room.message/scene-a{n}", `{"msgtype":"m.text","body":"warp"}`))
	v["reply"] = text("event_id", w.must("bob", "PUT", "/v3/rooms/{room}/send/m.room.message/scene-b{n}",
		`{"msgtype":"m.text","body":"weft","m.relates_to":{"rel_type":"m.thread","event_id":"{event}"}}`))
	v["public"] = text("room_id", w.must("alice", "POST", "/v3/createRoom", `{"preset":"public_chat"}`))
	v["readable"] = text("room_id", w.must("alice", "POST", "/v3/createRoom", `{"preset":"public_chat","initial_state":[
		{"type":"m.room.history_visibility","content":{"history_visibility":"world_readable"}},
		{"type":"m.room.guest_access","content":{"guest_access":"can_join"}}]}`))
	v["said"] = text("event_id", w.must("alice", "PUT", "/v3/rooms/{readable}/send/m.room.message/scene-c{n}", `{"body":"open"}`))
	v["space"] = text("room_id", w.must("alice", "POST", "/v3/createRoom", `{"creation_content":{"type":"m.space"}}`))
	w.must("alice", "PUT", "/v3/rooms/{space}/state/m.space.child/{room}", `{"via":["example.org"]}`)
}

var sceneValue = regexp.MustCompile(`\{(\w+)\}`)

func (w *roomAPI) fill(s string, escape bool) string {
	return sceneValue.ReplaceAllStringFunc(s, func(m string) string {
		v, ok := w.values[m[1:len(m)-1]]
		switch {
		case !ok:
			return m
		case escape:
			return url.PathEscape(v)
		}
		return v
	})
}

func (w *roomAPI) ask(who, method, path, body string) map[string]any {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.URL()+"/_matrix/client"+w.fill(path, true), strings.NewReader(w.fill(body, false)))
	require.NoError(w.t, err)
	if who != "" {
		require.Contains(w.t, w.tokens, who)
		req.Header.Set("Authorization", "Bearer "+w.tokens[who])
	}
	res, err := w.client.Do(req)
	require.NoError(w.t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	require.NoError(w.t, err)
	w.status = res.StatusCode
	var object map[string]any
	if json.Unmarshal(b, &object) != nil {
		var list []any
		require.NoError(w.t, json.Unmarshal(b, &list), "%s %s: %s", method, path, b)
	}
	// What a step makes is a value for those that come after.
	for member, name := range map[string]string{"event_id": "made", "room_id": "newroom", "filter_id": "filter", "delay_id": "delay"} {
		if s, ok := object[member].(string); ok {
			w.values[name] = s
		}
	}
	return object
}

func (w *roomAPI) must(who, method, path, body string) map[string]any {
	w.t.Helper()
	a := w.ask(who, method, path, body)
	require.Equal(w.t, http.StatusOK, w.status, "%s %s: %v", method, path, a)
	return a
}

func (w *roomAPI) endpoint(row *route.Row, e *roomEndpoint) {
	seen, codes := map[rune]bool{}, map[string]bool{}
	for _, c := range e.cases {
		method, path := e.method, c.path
		if first, rest, ok := strings.Cut(path, " "); ok { // a step of another endpoint
			method, path = first, rest
		}
		if path == "" {
			path = e.path
		}
		if strings.HasPrefix(path, "?") {
			path = e.path + path
		}
		a := w.ask(c.who, method, path, c.body)
		code, _ := a["errcode"].(string)
		if c.status != w.status || c.code != code {
			w.t.Errorf("%c: %s %s as %s with %.200s: %d %v, want %d %s", c.kind, method, w.fill(path, false), c.who, c.body, w.status, a, c.status, c.code)
		}
		if w.status != http.StatusOK && a["error"] == "" {
			w.t.Errorf("%s %s: no text beside %s", method, path, code)
		}
		seen[c.kind] = true
		if code != "" && method == e.method && c.kind != setup {
			codes[fmt.Sprintf("%d %s", w.status, code)] = true
		}
	}
	for kind, name := range map[rune]string{done: "done", denied: "denied", outside: "outside", bad: "bad", nowhere: "nowhere"} {
		_, lacks := e.lacks[name]
		if seen[kind] == lacks {
			w.t.Errorf("there is a case of what is %s, and a reason for none, or neither", name)
		}
	}
	for _, listed := range strings.Split(e.spec, ",") {
		if listed = strings.TrimSpace(listed); listed != "" && !codes[listed] {
			w.t.Errorf("no case came to %s, which the specification lists", listed)
		}
	}
	w.everywhere(row, e)
}

// everywhere asks what is alike for all endpoints: all spellings of a path lead there, a malformed room id is refused, and so is nobody.
func (w *roomAPI) everywhere(row *route.Row, e *roomEndpoint) {
	require.Contains(w.t, row.Methods, e.method)
	i := slices.IndexFunc(e.cases, func(c roomCase) bool { return c.kind == done && (c.path == "" || c.path[0] == '?') })
	require.GreaterOrEqual(w.t, i, 0, "no case asks by the first spelling")
	ix, err := route.NewIndex(route.Table())
	require.NoError(w.t, err)
	m := ix.Lookup(e.method, strings.Split("/_matrix/client"+w.fill(e.path, true), "?")[0])
	require.NotNil(w.t, m.Row, e.path)
	require.Equal(w.t, row.Name, m.Row.Name, e.path)
	if row.Auth == route.AuthUser || row.Auth == route.AuthGuest {
		a := w.ask("", e.method, e.path, e.cases[i].body)
		require.Equal(w.t, "M_MISSING_TOKEN", a["errcode"])
		require.Equal(w.t, http.StatusUnauthorized, w.status)
		if row.Auth == route.AuthUser {
			a = w.ask("guest", e.method, e.path, e.cases[i].body)
			require.Equal(w.t, "M_GUEST_ACCESS_FORBIDDEN", a["errcode"], "%v", a)
		}
	}
	params := map[string]string{}
	for _, p := range m.Params {
		params[p.Name] = p.Value
	}
	if _, ok := params["roomId"]; ok && row.Auth != route.AuthAppservice {
		path := route.Fill(m.Pattern, func(name string) string {
			if name == "roomId" {
				return "nowhere"
			}
			return params[name]
		})
		who := e.cases[i].who
		if who == "" {
			who = "alice"
		}
		a := w.ask(who, e.method, strings.TrimPrefix(path, "/_matrix/client")+querySuffix(e.path), e.cases[i].body)
		require.Equal(w.t, "M_INVALID_PARAM", a["errcode"], "%s: %v", path, a)
		require.Equal(w.t, http.StatusBadRequest, w.status)
	}
	if e.method != http.MethodGet {
		return
	}
	for _, spelling := range row.Paths {
		path := route.Fill(spelling, func(name string) string { return params[name] })
		if strings.HasSuffix(spelling, "/") || strings.Count(spelling, "{") != len(params) {
			continue // without the last variable: asked for by cases
		}
		c := e.cases[i]
		query := querySuffix(e.path)
		if c.path != "" {
			query = c.path
		}
		a := w.ask(c.who, e.method, strings.TrimPrefix(path, "/_matrix/client")+query, c.body)
		require.Equal(w.t, c.status, w.status, "%s: %v", path, a)
	}
}

func querySuffix(path string) string {
	if _, q, ok := strings.Cut(path, "?"); ok {
		return "?" + q
	}
	return ""
}
