package app

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// gates are what clients look for before they use something: a version of the specification, and what must then be served.
func gates() map[string][]string {
	return map[string][]string{
		"v1.4":  {"GET /v1/rooms/!x:example.org/threads"},
		"v1.6":  {"GET /v1/rooms/!x:example.org/timestamp_to_event"},
		"v1.7":  {"POST /v1/login/get_token"},
		"v1.10": {"GET /v1/rooms/!x:example.org/relations/$x?recurse=true"},
		"v1.11": {"GET /v1/media/config"},
		"v1.13": {"POST /v3/rooms/!x:example.org/report"},
		"v1.14": {"POST /v3/users/@x:example.org/report"},
		"v1.15": {"GET /v1/room_summary/!x:example.org", "GET /v1/auth_metadata"},
		"v1.16": {"PUT /v3/profile/@x:example.org/m.tz", "GET /v3/sync?use_state_after=true&timeout=0"},
		"v1.17": {"PUT /v3/devices/X"},
		"v1.18": {"GET /v1/admin/lock/@x:example.org", "PUT /v1/admin/suspend/@x:example.org"},
		"v1.19": {"GET /v1/mutual_rooms?user_id=@x:example.org"},
	}
}

// features are the unstable features that are announced, and what clients then ask for.
func features() map[string][]string {
	return map[string][]string{
		"com.beeper.msc4169":                             {"PUT /v3/rooms/!x:example.org/send/m.room.redaction/1"},
		"org.matrix.e2e_cross_signing":                   {"POST /v3/keys/device_signing/upload", "POST /unstable/keys/device_signing/upload"},
		"org.matrix.label_based_filtering":               {"GET /v3/rooms/!x:example.org/messages?filter=%7B%22org.matrix.labels%22%3A%5B%5D%7D"},
		"org.matrix.msc2285.stable":                      {"POST /v3/rooms/!x:example.org/receipt/m.read.private/$x"},
		"org.matrix.msc2432":                             {"GET /v3/rooms/!x:example.org/aliases"},
		"org.matrix.msc3030":                             {"GET /unstable/org.matrix.msc3030/rooms/!x:example.org/timestamp_to_event"},
		"org.matrix.msc3030.stable":                      {"GET /v1/rooms/!x:example.org/timestamp_to_event"},
		"org.matrix.msc3391":                             {"DELETE /unstable/org.matrix.msc3391/user/@x:example.org/account_data/x", "DELETE /unstable/org.matrix.msc3391/user/@x:example.org/rooms/!x:example.org/account_data/x"},
		"org.matrix.msc3440.stable":                      {"GET /v1/rooms/!x:example.org/relations/$x/m.thread"},
		"org.matrix.msc3771":                             {"POST /v3/rooms/!x:example.org/receipt/m.read/$x"},
		"org.matrix.msc3827.stable":                      {"POST /v3/publicRooms"},
		"org.matrix.msc3874":                             {"GET /v3/rooms/!x:example.org/messages?dir=b&filter=%7B%22org.matrix.msc3874.rel_types%22%3A%5B%22m.thread%22%5D%7D"},
		"org.matrix.msc3881":                             {"GET /v3/pushers"},
		"org.matrix.msc3882":                             {"POST /unstable/org.matrix.msc3882/login/token"},
		"org.matrix.msc3912":                             {"PUT /v3/rooms/!x:example.org/redact/$x/1"},
		"org.matrix.msc3916.stable":                      {"GET /v1/media/download/example.org/x", "GET /v1/media/thumbnail/example.org/x?width=1&height=1"},
		"org.matrix.msc3981":                             {"GET /v1/rooms/!x:example.org/relations/$x?recurse=true"},
		"org.matrix.msc4028":                             {"GET /v3/pushrules/global/override/.org.matrix.msc4028.encrypted_event"},
		"org.matrix.msc4108":                             {"POST /unstable/org.matrix.msc4108/rendezvous", "GET /unstable/io.element.msc4388/rendezvous"},
		"org.matrix.msc4140":                             {"PUT /unstable/org.matrix.msc4140/rooms/!x:example.org/delayed_event/x/1", "GET /unstable/org.matrix.msc4140/delayed_events", "POST /unstable/org.matrix.msc4140/delayed_events/x/cancel", "POST /unstable/org.matrix.msc4140/delayed_events/x"},
		"org.matrix.msc4143":                             {"GET /unstable/org.matrix.msc4143/rtc/transports"},
		"org.matrix.msc4155":                             {"PUT /v3/user/@x:example.org/account_data/org.matrix.msc4155.invite_permission_config"},
		"org.matrix.msc4222":                             {"GET /v3/sync?org.matrix.msc4222.use_state_after=true&timeout=0"},
		"org.matrix.msc4306":                             {"GET /unstable/io.element.msc4306/rooms/!x:example.org/thread/$x/subscription", "GET /unstable/io.element.msc4308/thread_subscriptions"},
		"org.matrix.msc4380.stable":                      {"PUT /v3/user/@x:example.org/account_data/m.invite_permission_config"},
		"org.matrix.simplified_msc3575":                  {"POST /unstable/org.matrix.simplified_msc3575/sync"},
		"uk.half-shot.msc2666.query_mutual_rooms":        {"GET /unstable/uk.half-shot.msc2666/user/mutual_rooms"},
		"uk.half-shot.msc2666.query_mutual_rooms.stable": {"GET /v1/mutual_rooms"},
		"uk.tcpip.msc4133":                               {"GET /unstable/uk.tcpip.msc4133/profile/@x:example.org", "PUT /unstable/uk.tcpip.msc4133/profile/@x:example.org/m.tz"},
		"uk.tcpip.msc4133.stable":                        {"PUT /v3/profile/@x:example.org/m.tz", "DELETE /v3/profile/@x:example.org/m.tz"},
	}
}

// unannounced are endpoints that clients find out about by asking.
func unannounced() []string {
	return []string{
		"GET /unstable/im.nheko.summary/rooms/!x:example.org/summary", "GET /unstable/im.nheko.summary/summary/!x:example.org",
		"GET /unstable/org.matrix.msc3814.v1/dehydrated_device", "GET /unstable/org.matrix.msc3814.v1/dehydrated_device/X/events",
		"POST /unstable/org.matrix.msc3814.v1/dehydrated_device/X/events", "GET /unstable/org.matrix.msc2965/auth_metadata",
		"POST /unstable/org.matrix.msc4151/rooms/!x:example.org/report", "POST /unstable/org.matrix.msc4260/users/@x:example.org/report",
		"GET /unstable/org.matrix.msc2946/rooms/!x:example.org/hierarchy", "GET /unstable/mutual_rooms",
		"POST /v3/user/@x:example.org/openid/request_token", "GET /v1/admin/lock/@x:example.org", "GET /unstable/uk.timedout.msc4323/admin/suspend/@x:example.org",
	}
}

// TestWhatIsAnnouncedIsServed: what clients look for is announced, and whatever is announced is there, under all names by which it is asked for.
func TestWhatIsAnnouncedIsServed(t *testing.T) {
	f := newFleet(t)
	f.cfg.PublicBaseurl, f.cfg.OAuth.Provide, f.cfg.Media.URLPreviews.Enabled = "https://matrix.example.org", true, true
	f.cfg.Calls.TURN.URIs, f.cfg.Calls.TURN.SharedSecret = []string{"turn:turn.example.org"}, "between us"
	f.cfg.Calls.LiveKit = []string{"https://livekit.example.org", "https://other.example.org"}
	n := newNoticing(t, f)

	a := n.ok("", "GET", "/_matrix/client/versions", "")
	var versions []string
	for _, v := range a["versions"].([]any) {
		versions = append(versions, v.(string))
	}
	flags := a["unstable_features"].(map[string]any)
	require.ElementsMatch(t, slices.Collect(maps.Keys(features())), slices.Collect(maps.Keys(flags)), "each is asked for here")
	for flag, v := range flags {
		require.Equal(t, true, v, flag)
	}
	all := unannounced()
	for version, asked := range gates() {
		require.Contains(t, versions, version)
		all = append(all, asked...)
	}
	for i, v := range versions[3:] { // none is left out
		require.Equal(t, fmt.Sprint("v1.", i+2), v)
	}
	for _, asked := range features() {
		all = append(all, asked...)
	}
	for _, asked := range all {
		method, path, _ := strings.Cut(asked, " ")
		_, a, _ := n.call(t, method, "/_matrix/client"+path, n.alice, "{")
		require.NotEqual(t, "M_UNRECOGNIZED", a["errcode"], asked)
	}
	status, a, _ := n.call(t, "GET", "/_matrix/client/unstable/org.example.none", n.alice, "")
	require.Equal(t, http.StatusNotFound, status)
	require.Equal(t, "M_UNRECOGNIZED", a["errcode"])
	status, a, _ = n.call(t, "PATCH", "/_matrix/client/versions", "", "")
	require.Equal(t, http.StatusMethodNotAllowed, status)
	require.Equal(t, "M_UNRECOGNIZED", a["errcode"])

	caps := n.ok(n.alice, "GET", "/_matrix/client/v3/capabilities", "")["capabilities"].(map[string]any)
	for name, enabled := range map[string]bool{ // there is no mail server here
		"m.change_password": true, "m.get_login_token": true, "m.set_displayname": true, "m.set_avatar_url": true, "m.3pid_changes": false,
	} {
		require.Equal(t, map[string]any{"enabled": enabled}, caps[name], name)
	}
	require.Equal(t, "12", caps["m.room_versions"].(map[string]any)["default"])
	require.Len(t, caps["m.room_versions"].(map[string]any)["available"], 12)
	require.Equal(t, map[string]any{"enabled": true}, caps["m.profile_fields"])
	require.Equal(t, map[string]any{"enabled": true}, caps["uk.tcpip.msc4133.profile_fields"])
	require.Equal(t, map[string]any{"enabled": true}, caps["io.element.msc4452.preview_url"])
	require.Equal(t, map[string]any{"max_delay_ms": 86400e3, "max_scheduled": 100.}, caps["org.matrix.msc4140.delayed_events"])
	require.NotContains(t, caps, "m.account_moderation")
	caps = n.ok(n.admin, "GET", "/_matrix/client/v3/capabilities", "")["capabilities"].(map[string]any)
	require.Equal(t, map[string]any{"lock": true, "suspend": true}, caps["m.account_moderation"])

	// Over what calls go.
	foci := []any{
		map[string]any{"type": "livekit", "livekit_service_url": "https://livekit.example.org"},
		map[string]any{"type": "livekit", "livekit_service_url": "https://other.example.org"},
	}
	require.Equal(t, foci, n.ok(n.alice, "GET", "/_matrix/client/unstable/org.matrix.msc4143/rtc/transports", "")["rtc_transports"])
	require.Equal(t, foci, n.ok("", "GET", "/.well-known/matrix/client", "")["org.matrix.msc4143.rtc_foci"])
	before := time.Now()
	turn := n.ok(n.alice, "GET", "/_matrix/client/v3/voip/turnServer", "")
	require.Equal(t, []any{"turn:turn.example.org"}, turn["uris"])
	require.EqualValues(t, 86400, turn["ttl"])
	until, user, _ := strings.Cut(turn["username"].(string), ":")
	require.Equal(t, "@alice:example.org", user)
	at, err := strconv.ParseInt(until, 10, 64)
	require.NoError(t, err)
	require.WithinRange(t, time.Unix(at, 0), before.Add(24*time.Hour-time.Second), time.Now().Add(24*time.Hour))
	mac := hmac.New(sha1.New, []byte("between us"))
	mac.Write([]byte(turn["username"].(string)))
	require.Equal(t, base64.StdEncoding.EncodeToString(mac.Sum(nil)), turn["password"])
}
