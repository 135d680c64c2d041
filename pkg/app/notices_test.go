package app

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// noticing is a server with an administrator, and alice.
type noticing struct {
	*worker
	t            *testing.T
	admin, alice string // tokens
}

const (
	noticesUser = "@_server:example.org"
	sendNotice  = "/_synapse/admin/v1/send_server_notice"
)

func newNoticing(t *testing.T, f *fleet) *noticing {
	t.Helper()
	f.cfg.RateLimits.Enabled, f.cfg.Log.Level = false, "error"
	n := &noticing{worker: f.start(t, AllInOne, "one"), t: t}
	f.owns(t, "one")
	_, err := CreateUser(t.Context(), f.cfg, NewUser{Localpart: "admin", Password: "correct horse", Admin: true})
	require.NoError(t, err)
	n.admin = n.ok("", "POST", "/_matrix/client/v3/login", `{"type":"m.login.password","user":"admin","password":"correct horse"}`)["access_token"].(string)
	n.alice = n.register("alice")
	return n
}

func (n *noticing) register(name string) string {
	n.t.Helper()
	return n.ok("", "POST", "/_matrix/client/v3/register",
		fmt.Sprintf(`{"username":%q,"password":"correct horse","auth":{"type":"m.login.dummy"}}`, name))["access_token"].(string)
}

func (n *noticing) ok(token, method, path, body string) map[string]any {
	n.t.Helper()
	status, a, _ := n.call(n.t, method, path, token, body)
	require.Equal(n.t, http.StatusOK, status, "%s %s: %v", method, path, a)
	return a
}

func (n *noticing) refused(token, method, path, body string, status int, code string) {
	n.t.Helper()
	got, a, _ := n.call(n.t, method, path, token, body)
	require.Equal(n.t, code, a["errcode"], "%s %s: %v", method, path, a)
	require.Equal(n.t, status, got)
	require.NotEmpty(n.t, a["error"])
}

// notice sends one to a user, and gives its event.
func (n *noticing) notice(path, user, text string) string {
	n.t.Helper()
	method := "POST"
	if path != "" {
		method = "PUT"
	}
	return n.ok(n.admin, method, sendNotice+path, fmt.Sprintf(`{"user_id":%q,"content":{"msgtype":"m.text","body":%q}}`, user, text))["event_id"].(string)
}

// rooms gives what a user's first sync has of rooms of a kind, by room.
func (n *noticing) rooms(token, kind string) map[string]any {
	n.t.Helper()
	rooms, _ := n.ok(token, "GET", "/_matrix/client/v3/sync?timeout=0", "")["rooms"].(map[string]any)
	of, _ := rooms[kind].(map[string]any)
	return of
}

func (n *noticing) onlyRoom(token, kind string) string {
	n.t.Helper()
	rooms := n.rooms(token, kind)
	require.Len(n.t, rooms, 1)
	return slices.Collect(maps.Keys(rooms))[0]
}

func roomPath(room, rest string) string {
	return "/_matrix/client/v3/rooms/" + url.PathEscape(room) + rest
}

func TestServerNotices(t *testing.T) {
	f := newFleet(t)
	f.cfg.ServerNotices.Localpart, f.cfg.ServerNotices.AvatarURL = "_server", "mxc://example.org/picture"
	f.cfg.ServerNotices.RoomAvatarURL = "mxc://example.org/room"
	n := newNoticing(t, f)
	const alice, notice = "@alice:example.org", `{"user_id":"@alice:example.org","content":{"body":"x"}}`

	// Who may send, to whom, and what.
	n.refused(n.alice, "POST", sendNotice, notice, 403, "M_FORBIDDEN")
	n.refused(n.alice, "PUT", sendNotice+"/1", notice, 403, "M_FORBIDDEN")
	n.refused("", "POST", sendNotice, notice, 401, "M_MISSING_TOKEN")
	for body, code := range map[string]string{
		`{`: "M_NOT_JSON", `[]`: "M_BAD_JSON", `{"content":{}}`: "M_MISSING_PARAM", `{"user_id":"@alice:example.org"}`: "M_MISSING_PARAM",
		`{"user_id":"alice","content":{}}`: "M_INVALID_PARAM", `{"user_id":"@alice:example.org","content":1}`: "M_BAD_JSON",
		`{"user_id":"@alice:elsewhere.org","content":{}}`: "M_INVALID_PARAM", `{"user_id":"@_server:example.org","content":{}}`: "M_INVALID_PARAM",
	} {
		n.refused(n.admin, "POST", sendNotice, body, 400, code)
	}
	n.refused(n.admin, "POST", sendNotice, `{"user_id":"@nobody:example.org","content":{}}`, 404, "M_NOT_FOUND")
	require.Empty(t, n.rooms(n.alice, "invite"))
	n.refused("", "POST", "/_matrix/client/v3/register", `{"username":"_Server","password":"correct horse","auth":{"type":"m.login.dummy"}}`, 400, "M_USER_IN_USE")
	n.refused("", "GET", "/_matrix/client/v3/register/available?username=_server", "", 400, "M_USER_IN_USE")

	// The first notice invites to a room that clients know by its tag.
	first := n.notice("", alice, "first")
	room := n.onlyRoom(n.alice, "invite")
	state := n.rooms(n.alice, "invite")[room].(map[string]any)["invite_state"].(map[string]any)["events"].([]any)
	shown := map[string]any{}
	for _, e := range state {
		e := e.(map[string]any)
		require.Equal(t, noticesUser, e["sender"])
		shown[e["type"].(string)] = e["content"]
	}
	require.Equal(t, map[string]any{"name": "Server notices"}, shown["m.room.name"])
	require.Equal(t, map[string]any{"url": "mxc://example.org/room"}, shown["m.room.avatar"])
	tags := "/_matrix/client/v3/user/" + alice + "/rooms/" + url.PathEscape(room) + "/tags"
	require.Equal(t, map[string]any{"tags": map[string]any{"m.server_notice": map[string]any{}}}, n.ok(n.alice, "GET", tags, ""))

	// The invitation cannot be declined in any way, and when the user is in the room that can be left.
	decline := func() {
		n.refused(n.alice, "POST", roomPath(room, "/leave"), `{}`, 403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM")
		n.refused(n.alice, "PUT", roomPath(room, "/state/m.room.member/"+alice), `{"membership":"leave"}`, 403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM")
		n.refused(n.alice, "POST", roomPath(room, "/kick"), `{"user_id":"@alice:example.org"}`, 403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM")
	}
	decline()
	n.ok(n.alice, "POST", roomPath(room, "/join"), `{}`)
	e := n.ok(n.alice, "GET", roomPath(room, "/event/"+url.PathEscape(first)), "")
	require.Equal(t, noticesUser, e["sender"])
	require.Equal(t, map[string]any{"msgtype": "m.text", "body": "first"}, e["content"])
	member := n.ok(n.alice, "GET", roomPath(room, "/state/m.room.member/"+noticesUser), "")
	require.Equal(t, "Server notices", member["displayname"])
	n.refused(n.alice, "PUT", roomPath(room, "/send/m.room.message/1"), `{"body":"x"}`, 403, "M_FORBIDDEN")
	n.refused(n.alice, "POST", roomPath(room, "/invite"), `{"user_id":"@admin:example.org"}`, 403, "M_FORBIDDEN")
	n.ok(n.alice, "DELETE", tags+"/m.server_notice", `{}`)
	n.ok(n.alice, "POST", roomPath(room, "/leave"), `{}`)

	// The next one invites to the same room, whatever the user has done with it.
	n.ok(n.alice, "POST", roomPath(room, "/forget"), `{}`)
	second := n.notice("", alice, "second")
	require.Equal(t, room, n.onlyRoom(n.alice, "invite"))
	require.Contains(t, n.ok(n.alice, "GET", tags, "")["tags"], "m.server_notice")
	decline()
	n.notice("", alice, "third") // who is invited is not invited again
	n.ok(n.alice, "POST", roomPath(room, "/join"), `{}`)
	require.NotEqual(t, first, second)

	// Repeats are one; another administrator's are others.
	one := n.notice("/1", alice, "once")
	require.Equal(t, one, n.notice("/1", alice, "once"))
	require.NotEqual(t, one, n.notice("/2", alice, "once"))
	pinned := n.ok(n.admin, "POST", sendNotice, fmt.Sprintf(
		`{"user_id":%q,"type":"m.room.pinned_events","state_key":"","content":{"pinned":[%q]}}`, alice, one))["event_id"]
	require.NotEmpty(t, pinned)
	require.Equal(t, map[string]any{"pinned": []any{one}}, n.ok(n.alice, "GET", roomPath(room, "/state/m.room.pinned_events/"), ""))
	var bodies []string
	for _, e := range n.ok(n.alice, "GET", roomPath(room, "/messages?dir=f&limit=100&filter="+url.QueryEscape(`{"types":["m.room.message"]}`)), "")["chunk"].([]any) {
		bodies = append(bodies, e.(map[string]any)["content"].(map[string]any)["body"].(string))
	}
	require.Equal(t, []string{"first", "second", "third", "once", "once"}, bodies)

	// Another administrator's transaction is another one.
	_, err := CreateUser(t.Context(), f.cfg, NewUser{Localpart: "other", Password: "correct horse", Admin: true})
	require.NoError(t, err)
	n.admin = n.ok("", "POST", "/_matrix/client/v3/login", `{"type":"m.login.password","user":"other","password":"correct horse"}`)["access_token"].(string)
	require.NotEqual(t, one, n.notice("/1", alice, "once"))

	// Many first notices at once are told in one room.
	bob := n.register("bob")
	events := make(map[string]bool)
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range 10 {
		all.Go(func() {
			status, a, _ := n.call(t, "POST", sendNotice, n.admin, fmt.Sprintf(`{"user_id":"@bob:example.org","content":{"body":"%d"}}`, i))
			mu.Lock()
			defer mu.Unlock()
			if status == http.StatusOK {
				events[a["event_id"].(string)] = true
			} else {
				t.Errorf("%d %v", status, a)
			}
		})
	}
	all.Wait()
	require.Len(t, events, 10)
	bobs := n.onlyRoom(bob, "invite")
	require.NotEqual(t, room, bobs)
	n.ok(bob, "POST", roomPath(bobs, "/join"), `{}`)
	for event := range events {
		n.ok(bob, "GET", roomPath(bobs, "/event/"+url.PathEscape(event)), "")
	}

	// Another name of the same user is shown from the next notice on.
	n.stop(t)
	f.cfg.ServerNotices.DisplayName, f.cfg.ServerNotices.AvatarURL = "The operators", ""
	n.worker = f.start(t, AllInOne, "two")
	f.owns(t, "two")
	n.notice("", alice, "renamed")
	require.Equal(t, map[string]any{"displayname": "The operators"}, n.ok("", "GET", "/_matrix/client/v3/profile/"+noticesUser, ""))
	require.Len(t, n.rooms(n.alice, "join"), 1)

	// Who has left the server is told nothing more.
	n.ok(n.alice, "POST", "/_matrix/client/v3/account/deactivate",
		`{"auth":{"type":"m.login.password","identifier":{"type":"m.id.user","user":"alice"},"password":"correct horse"}}`)
	n.refused(n.admin, "POST", sendNotice, notice, 404, "M_NOT_FOUND")
}

// Without a name for who sends them there are no notices, and invitations are declined as ever.
func TestNoServerNotices(t *testing.T) {
	n := newNoticing(t, newFleet(t))
	n.refused(n.admin, "POST", sendNotice, `{"user_id":"@alice:example.org","content":{}}`, 400, "M_UNKNOWN")
	room := n.ok(n.admin, "POST", "/_matrix/client/v3/createRoom", `{"invite":["@alice:example.org"]}`)["room_id"].(string)
	n.ok(n.alice, "POST", roomPath(room, "/leave"), `{}`)
}
