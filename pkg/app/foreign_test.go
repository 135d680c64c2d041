package app

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/route"
)

// victim is an account that has something of everything, and whose data hold a mark by which they are known wherever they appear.
type victim struct {
	t                            *testing.T
	url                          string
	user, token, device          string
	room, event, filter, version string
}

const mark = "alices-own-business"

func (v *victim) ask(method, path, token string, body string) (int, []byte) {
	v.t.Helper()
	var r io.Reader
	if body != "" {
		r = bytes.NewReader([]byte(body))
	}
	req, err := http.NewRequestWithContext(v.t.Context(), method, v.url+path, r)
	require.NoError(v.t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := (&http.Client{Timeout: patient}).Do(req)
	require.NoError(v.t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	require.NoError(v.t, err)
	return res.StatusCode, b
}

// must has something done by the victim.
func (v *victim) must(method, path, body string) map[string]any {
	v.t.Helper()
	status, b := v.ask(method, "/_matrix/client/v3"+path, v.token, body)
	require.Equal(v.t, http.StatusOK, status, "%s %s: %s", method, path, b)
	var m map[string]any
	require.NoError(v.t, json.Unmarshal(b, &m))
	return m
}

func (v *victim) furnish() {
	u := "/user/" + url.PathEscape(v.user)
	v.room = v.must("POST", "/createRoom", `{"preset":"private_chat","name":"`+mark+`"}`)["room_id"].(string)
	r := url.PathEscape(v.room)
	v.event = v.must("PUT", "/rooms/"+r+"/send/m.room.message/1", `{"msgtype":"m.text","body":"`+mark+`"}`)["event_id"].(string)
	v.must("PUT", u+"/account_data/org.example.own", `{"x":"`+mark+`"}`)
	v.must("PUT", u+"/rooms/"+r+"/account_data/org.example.own", `{"x":"`+mark+`"}`)
	v.must("PUT", u+"/rooms/"+r+"/tags/u.own", `{"order":0.5}`)
	v.filter = v.must("POST", u+"/filter", `{"room":{"rooms":["!`+mark+`:example.org"]}}`)["filter_id"].(string)
	v.must("PUT", "/devices/"+v.device, `{"display_name":"`+mark+`"}`)
	v.must("PUT", "/sendToDevice/m.test/1", `{"messages":{"`+v.user+`":{"`+v.device+`":{"x":"`+mark+`"}}}}`)
	v.must("POST", "/keys/upload", `{"one_time_keys":{"signed_curve25519:1":{"key":"x"}}}`)
	v.version = v.must("POST", "/room_keys/version", `{"algorithm":"x","auth_data":{"x":"`+mark+`"}}`)["version"].(string)
	v.must("PUT", "/room_keys/keys/"+r+"/s?version="+v.version,
		`{"first_message_index":0,"forwarded_count":0,"is_verified":true,"session_data":{"x":"`+mark+`"}}`)
	v.must("PUT", "/pushrules/global/override/org.example.own", `{"conditions":[],"actions":[],"pattern":"x"}`)
	status, b := v.ask("PUT", "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device", v.token,
		`{"device_id":"ASLEEP","device_data":{"x":"`+mark+`"},"device_keys":{"user_id":"`+v.user+
			`","device_id":"ASLEEP","algorithms":[],"keys":{},"signatures":{}}}`)
	require.Equal(v.t, http.StatusOK, status, "%s", b)
}

// inventory is what the victim finds.
func (v *victim) inventory() map[string]string {
	v.t.Helper()
	u, r := "/v3/user/"+url.PathEscape(v.user), url.PathEscape(v.room)
	out, age := map[string]string{}, regexp.MustCompile(`"age":\d+`)
	for _, path := range []string{
		u + "/account_data/org.example.own", u + "/rooms/" + r + "/account_data/org.example.own", u + "/rooms/" + r + "/tags",
		u + "/filter/" + v.filter, "/v3/room_keys/version", "/v3/room_keys/keys?version=" + v.version,
		"/v3/profile/" + url.PathEscape(v.user), "/v3/rooms/" + r + "/state", "/v3/pushrules/",
		"/unstable/org.matrix.msc3814.v1/dehydrated_device", "/v3/account/whoami",
	} {
		status, b := v.ask("GET", "/_matrix/client"+path, v.token, "")
		require.Equal(v.t, http.StatusOK, status, "%s: %s", path, b)
		out[path] = age.ReplaceAllString(string(b), "")
	}
	var devices struct {
		Devices []struct {
			ID   string `json:"device_id"`
			Name string `json:"display_name"`
		} `json:"devices"`
	}
	_, b := v.ask("GET", "/_matrix/client/v3/devices", v.token, "")
	require.NoError(v.t, json.Unmarshal(b, &devices))
	names, err := json.Marshal(devices)
	require.NoError(v.t, err)
	out["devices"] = string(names)
	_, b = v.ask("GET", "/_matrix/client/v3/sync", v.token, "")
	var s struct {
		ToDevice json.RawMessage `json:"to_device"`
		Counts   json.RawMessage `json:"device_one_time_keys_count"`
	}
	require.NoError(v.t, json.Unmarshal(b, &s))
	out["messages"], out["keys"] = string(s.ToDevice), string(s.Counts)
	return out
}

// path fills a pattern with what is the victim's.
func (v *victim) path(pattern string) string {
	segments := strings.Split(pattern, "/")
	for i, s := range segments {
		if !strings.HasPrefix(s, "{") {
			continue
		}
		value, ok := map[string]string{
			"userId": v.user, "deviceId": v.device, "roomId": v.room, "roomIdOrAlias": v.room, "eventId": v.event, "filterId": v.filter,
			"version": v.version, "sessionId": "s", "type": "org.example.own", "tag": "u.own", "eventType": "m.room.name", "txnId": "foreign",
			"kind": "override", "ruleId": "org.example.own", "keyName": "displayname", "receiptType": "m.read", "stateKey": "",
			"relType": "m.annotation", "attr": "enabled", "actionId": "enabled", "serverName": "example.org",
		}[strings.TrimSuffix(strings.Trim(s, "{}"), "...")]
		if !ok {
			value = "x"
		}
		segments[i] = url.PathEscape(value)
	}
	return strings.Join(segments, "/")
}

// answersStrangers are the endpoints that answer to the walk of [TestForeignToken] at all, and why they may.
func answersStrangers() map[string]string {
	own, public := "it is about the caller alone", "it says the same to everybody"
	return map[string]string{
		"createContent":             own,
		"createRoom":                own,
		"deleteRoomKeysVersion":     own,
		"getDelayedEvents":          own,
		"getDevices":                own,
		"getEvents":                 own,
		"getJoinedRooms":            own,
		"getNotifications":          own,
		"getPushRuleActions":        own,
		"getPushRules":              own,
		"getPushRulesGlobal":        own,
		"getPushers":                own,
		"getRoomKeysVersion":        own,
		"getRoomKeysVersionCurrent": own,
		"getTokenOwner":             own,
		"getAccount3PIDs":           own,
		"initialSync":               own,
		"isPushRuleEnabled":         own,
		"logout":                    own,
		"logout_all":                own,
		"postRoomKeysVersion":       own,
		"putRoomKeysVersion":        own,
		"setPushRule":               own,
		"setPushRuleActions":        own,
		"setPushRuleEnabled":        own,
		"slidingSync":               own,
		"uploadCrossSigningKeys":    own,
		"uploadContent":             own,
		"getCapabilities":           public,
		"getConfig":                 public,
		"getConfigAuthed":           public,
		"getProtocols":              public,
		"getRtcTransports":          public,
		"getTurnServer":             public,
		"getVersions":               public,
		"queryPublicRooms":          public,
		"getMutualRooms":            "it tells of the caller's own rooms",
		"getThreadSubscriptions":    own,
		"queryKeys":                 "keys of devices are for whoever asks",
		"sendToDevice":              "anybody may send to anybody; here, to nobody",
		"search":                    "it looks in the caller's own rooms",
		"searchUserDirectory":       "it finds people whom the caller shares a room with, or who are in public rooms",
	}
}

// A foreign token opens nothing: whoever walks over all endpoints of clients with what is somebody else's in the path, in the query and in the
// body, is shown none of it, and changes none of it.
func TestForeignToken(t *testing.T) {
	f := newFleet(t)
	f.cfg.RateLimits.Enabled = false
	f.cfg.Log.Level = "error"
	w := f.start(t, AllInOne, "one")
	f.owns(t, "one")
	v := &victim{t: t, url: w.URL()}
	register := func(name string) (user, token, device string) {
		_, a, _ := w.call(t, "POST", "/_matrix/client/v3/register", "", `{"username":"`+name+`","password":"correct horse","auth":{"type":"m.login.dummy"}}`)
		return a["user_id"].(string), a["access_token"].(string), a["device_id"].(string)
	}
	v.user, v.token, v.device = register("alice")
	v.furnish()
	before := v.inventory()
	require.Contains(t, before["messages"], mark)

	query := "?" + url.Values{
		"version": {v.version}, "user_id": {v.user}, "device_id": {v.device}, "timeout": {"0"}, "filter": {v.filter},
	}.Encode()
	body, err := json.Marshal(map[string]any{
		"user_id": v.user, "device_id": v.device, "devices": []string{v.device}, "display_name": "mine now", "displayname": "mine now",
		"x": "mine now", "typing": true, "m.fully_read": v.event, "m.read": v.event, "messages": map[string]any{}, "search_term": mark, "limit": 10,
		"search_categories": map[string]any{"room_events": map[string]any{"search_term": mark}}, "device_keys": map[string][]string{v.user: {}}, "algorithm": "x", "auth_data": map[string]string{"x": "mine now"}, "sessions": map[string]any{},
		"rooms": map[string]any{}, "room_id": v.room, "event_id": v.event, "actions": []string{}, "conditions": []string{}, "enabled": false,
		"auth": map[string]any{
			"type": "m.login.password", "password": "correct horse", "identifier": map[string]string{"type": "m.id.user", "user": v.user},
		},
	})
	require.NoError(t, err)
	walked, eves := 0, 0
	var token string
	answered := map[string]bool{}
	for _, row := range route.Table() {
		switch row.Auth {
		case route.AuthNone, route.AuthFederation: // nobody's token is looked at
			continue
		}
		for _, method := range row.Methods {
			if token == "" || strings.Contains(row.Name, "ogout") || strings.Contains(row.Name, "deactivate") {
				eves++
				_, token, _ = register("eve" + strings.Repeat("e", eves))
			}
			for _, pattern := range row.Paths {
				sent := ""
				if method != "GET" && method != "HEAD" {
					sent = string(body)
				}
				status, b := v.ask(method, v.path(pattern)+query, token, sent)
				walked++
				require.NotContains(t, string(b), mark, "%s %s: %d", method, pattern, status)
				require.Less(t, status, 500, "%s %s: %s", method, pattern, b)
				if status < 400 {
					answered[row.Name] = true
				}
				if row.Auth == route.AuthAdmin || row.Auth == route.AuthAppservice {
					require.Contains(t, []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound}, status, "%s %s: %s", method, pattern, b)
				}
			}
			if status, _ := v.ask("GET", "/_matrix/client/v3/account/whoami", token, ""); status != http.StatusOK {
				token = "" // it logged itself out
			}
		}
	}
	t.Logf("%d requests", walked)
	// Whatever answers a stranger is known to do so, with the reason: an endpoint that comes is refused here, or stands in the list.
	require.ElementsMatch(t, slices.Collect(maps.Keys(answersStrangers())), slices.Collect(maps.Keys(answered)))
	require.Greater(t, walked, 150)
	for path, now := range v.inventory() {
		require.Equal(t, before[path], now, path)
	}
}
