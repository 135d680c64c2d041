package fedtest_test

import (
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/app"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/testkit/certtest"
	"github.com/heddle-im/heddle/pkg/testkit/fedtest"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

// versions are those that the tests of what servers do together go through.
var versions = []roomver.Version{roomver.V1, roomver.V6, roomver.V10, roomver.V11, roomver.V12}

// walk is a host's user and a guest's user, and the room that they meet in.
type walk struct {
	*testing.T
	rules       *roomver.Rules
	host, guest *fedtest.User
	room, alias string
}

// Everything that two servers do together in a room, with each version and both ways.
func TestFlows(t *testing.T) {
	ca := certtest.NewAuthority(t)
	one, two := fedtest.Run(t, ca, "127.0.0.1"), fedtest.Run(t, ca, "localhost")
	three := fedtest.NewHomeserver(t, ca, "127.0.0.1")
	three.Config.Federation.KeyServers = []string{string(two.Name)}
	three.Start(app.AllInOne, "one")
	alice, bob, carol := one.NewUser(t, "alice"), two.NewUser(t, "bob"), three.NewUser(t, "carol")
	for _, v := range versions {
		for name, p := range map[string][2]*fedtest.User{"there": {alice, bob}, "back": {bob, alice}} {
			t.Run("version "+string(v)+" "+name, func(t *testing.T) {
				w := &walk{T: t, rules: roomver.MustGet(v), host: p[0], guest: p[1]}
				w.inviteAndJoin()
				w.speak()
				w.leaveAndReject()
				w.byAlias()
				w.kickAndBan()
				w.knock()
				w.restricted()
				w.upgrade()
			})
		}
	}
	t.Run("ephemeral there", func(t *testing.T) { ephemeral(t, alice, bob) })
	t.Run("ephemeral back", func(t *testing.T) { ephemeral(t, bob, alice) })
	t.Run("devices there", func(t *testing.T) { devices(t, alice, bob) })
	t.Run("devices back", func(t *testing.T) { devices(t, bob, alice) })
	t.Run("queries", func(t *testing.T) { queries(t, alice, bob) })
	for _, v := range versions {
		t.Run("version "+string(v)+" at three", func(t *testing.T) { atThree(t, v, alice, bob, carol) })
	}
}

func (w *walk) inviteAndJoin() {
	w.room = w.host.Create(w, string(w.rules.Version), map[string]any{"name": "weaving"})
	before := w.host.Say(w, w.room, "nobody else is here")
	w.host.Member(w, w.room, "invite", w.guest)
	w.guest.SeesRoom(w, w.room, "invite")
	require.True(w, slices.ContainsFunc(w.guest.Seen.Stripped[w.room], func(e fedtest.Event) bool {
		return e.Type == "m.room.name" && e.Content["name"] == "weaving"
	}), "an invitation tells the room's name: %v", w.guest.Seen.Stripped[w.room])
	w.guest.Join(w, w.room)
	w.host.SeesMember(w, w.room, w.guest, "join")
	w.host.Sees(w, w.room, before)
	w.guest.SeesRoom(w, w.room, "join")
	fedtest.Agree(w, w.room, w.host, w.guest)
}

func (w *walk) speak() {
	first := w.host.Say(w, w.room, "warp")
	w.guest.Sees(w, w.room, first)
	second := w.guest.Say(w, w.room, "weft")
	w.host.Sees(w, w.room, second)
	topic := w.host.Set(w, w.room, "m.room.topic", "", map[string]any{"topic": "patterns"})
	w.guest.Sees(w, w.room, topic)
	for _, by := range []struct {
		of, to *fedtest.User
		event  string
	}{{w.host, w.guest, first}, {w.guest, w.host, second}} {
		redaction := by.of.Must(w, "PUT", fedtest.RoomPath(w.room, "redact", by.event, "1"), map[string]any{"reason": "a knot"})["event_id"].(string)
		by.to.Sees(w, w.room, redaction)
		e := by.to.Must(w, "GET", fedtest.RoomPath(w.room, "event", by.event), nil)
		require.Empty(w, e["content"], "what was redacted there is gone here")
	}
	fedtest.Agree(w, w.room, w.host, w.guest)
}

func (w *walk) leaveAndReject() {
	w.guest.Must(w, "POST", fedtest.RoomPath(w.room, "leave"), nil)
	w.host.SeesMember(w, w.room, w.guest, "leave")
	w.guest.SeesRoom(w, w.room, "leave")
	w.host.Member(w, w.room, "invite", w.guest)
	w.guest.SeesRoom(w, w.room, "invite")
	w.host.SeesMember(w, w.room, w.guest, "invite")
	w.guest.Must(w, "POST", fedtest.RoomPath(w.room, "leave"), nil)
	w.host.SeesMember(w, w.room, w.guest, "leave")
	w.guest.SeesRoom(w, w.room, "leave")
}

func (w *walk) byAlias() {
	w.host.Set(w, w.room, "m.room.join_rules", "", map[string]any{"join_rule": "public"})
	name := strings.ToLower(url.QueryEscape(strings.Trim(w.Name(), "/")))
	name = "#" + strings.NewReplacer("%", "", "/", "-").Replace(name) + ":" + string(w.host.Home.Name)
	w.alias = name
	w.host.Must(w, "PUT", "/directory/room/"+url.PathEscape(name), map[string]any{"room_id": w.room})
	found := w.guest.Must(w, "GET", "/directory/room/"+url.PathEscape(name), nil)
	require.Equal(w, w.room, found["room_id"])
	require.Contains(w, found["servers"], string(w.host.Home.Name))
	w.guest.Join(w, name, w.host.Home)
	w.host.SeesMember(w, w.room, w.guest, "join")
	w.guest.SeesRoom(w, w.room, "join")
	fedtest.Agree(w, w.room, w.host, w.guest)
}

func (w *walk) kickAndBan() {
	w.host.Member(w, w.room, "kick", w.guest)
	w.guest.SeesRoom(w, w.room, "leave")
	w.guest.Join(w, w.room, w.host.Home)
	w.host.SeesMember(w, w.room, w.guest, "join")
	w.guest.SeesRoom(w, w.room, "join")
	w.host.Member(w, w.room, "ban", w.guest)
	w.guest.SeesRoom(w, w.room, "leave")
	status, code := w.guest.Refused(w, "POST", fedtest.JoinPath(w.room, w.host.Home), map[string]any{})
	require.Equal(w, 403, status)
	require.Equal(w, "M_FORBIDDEN", code)
	w.host.Member(w, w.room, "unban", w.guest)
	w.guest.Join(w, w.room, w.host.Home)
	w.host.SeesMember(w, w.room, w.guest, "join")
	w.guest.Sees(w, w.room, w.host.Say(w, w.room, "welcome back"))
	fedtest.Agree(w, w.room, w.host, w.guest)
}

func (w *walk) knock() {
	if !w.rules.Knock {
		return
	}
	room := w.host.Create(w, string(w.rules.Version), map[string]any{
		"name": "the loft", "initial_state": []map[string]any{{"type": "m.room.join_rules", "content": map[string]any{"join_rule": "knock"}}},
	})
	path := "/knock/" + url.PathEscape(room) + "?via=" + url.QueryEscape(string(w.host.Home.Name)) + "&server_name=" + url.QueryEscape(string(w.host.Home.Name))
	w.guest.Must(w, "POST", path, map[string]any{"reason": "let me in"})
	w.host.SeesMember(w, room, w.guest, "knock")
	w.guest.SeesRoom(w, room, "knock")
	require.True(w, slices.ContainsFunc(w.guest.Seen.Stripped[room], func(e fedtest.Event) bool { return e.Type == "m.room.name" }))
	w.guest.Must(w, "POST", fedtest.RoomPath(room, "leave"), nil) // never mind
	w.host.SeesMember(w, room, w.guest, "leave")
	w.guest.Must(w, "POST", path, nil)
	w.host.SeesMember(w, room, w.guest, "knock")
	w.host.Member(w, room, "invite", w.guest)
	w.guest.SeesRoom(w, room, "invite")
	w.guest.Join(w, room)
	w.host.SeesMember(w, room, w.guest, "join")
	fedtest.Agree(w, room, w.host, w.guest)
}

func (w *walk) restricted() {
	if !w.rules.Restricted {
		return
	}
	room := w.host.Create(w, string(w.rules.Version), map[string]any{
		"initial_state": []map[string]any{{"type": "m.room.join_rules", "content": map[string]any{
			"join_rule": "restricted", "allow": []map[string]any{{"type": "m.room_membership", "room_id": w.room}},
		}}},
	})
	w.guest.Must(w, "POST", fedtest.RoomPath(w.room, "leave"), nil)
	w.host.SeesMember(w, w.room, w.guest, "leave")
	status, _ := w.guest.Refused(w, "POST", fedtest.JoinPath(room, w.host.Home), map[string]any{})
	require.Equal(w, 403, status)
	w.guest.Join(w, w.room, w.host.Home)
	w.guest.Join(w, room, w.host.Home)
	w.host.SeesMember(w, room, w.guest, "join")
	fedtest.Agree(w, room, w.host, w.guest)
	fedtest.Agree(w, w.room, w.host, w.guest)
}

// upgrade replaces the room, to which its guests are led and its name with them.
func (w *walk) upgrade() {
	a := w.host.Must(w, "POST", fedtest.RoomPath(w.room, "upgrade"), map[string]any{"new_version": string(w.rules.Version)})
	next := a["replacement_room"].(string)
	w.guest.Until(w, "tombstone", func(s *fedtest.Seen) bool {
		return slices.ContainsFunc(s.Events[w.room], func(e fedtest.Event) bool {
			return e.Type == "m.room.tombstone" && e.Content["replacement_room"] == next
		})
	})
	fedtest.Agree(w, w.room, w.host, w.guest) // who may speak there is changed after that
	status, _ := w.guest.Refused(w, "PUT", fedtest.RoomPath(w.room, "send", "m.room.message", "late"), map[string]any{"msgtype": "m.text", "body": "still here"})
	require.Equal(w, 403, status)
	w.guest.Join(w, next, w.host.Home)
	w.host.SeesMember(w, next, w.guest, "join")
	w.guest.SeesRoom(w, next, "join")
	create := w.guest.Must(w, "GET", fedtest.RoomPath(next, "state", "m.room.create", ""), nil)
	require.Equal(w, w.room, create["predecessor"].(map[string]any)["room_id"])
	require.Equal(w, "weaving", w.guest.Must(w, "GET", fedtest.RoomPath(next, "state", "m.room.name", ""), nil)["name"])
	require.Equal(w, next, w.guest.Must(w, "GET", "/directory/room/"+url.PathEscape(w.alias), nil)["room_id"], "the alias leads to the new room")
	w.guest.Sees(w, next, w.host.Say(w, next, "the same people, another room"))
	fedtest.Agree(w, next, w.host, w.guest)
	fedtest.Agree(w, w.room, w.host, w.guest)
}

// together gives a room that users of different servers are in.
func together(t *testing.T, version string, host *fedtest.User, guests ...*fedtest.User) string {
	t.Helper()
	room := host.Create(t, version, map[string]any{"preset": "public_chat"})
	for _, g := range guests {
		g.Join(t, room, host.Home)
		host.SeesMember(t, room, g, "join")
	}
	for _, g := range guests {
		g.SeesRoom(t, room, "join")
	}
	return room
}

func ephemeral(t *testing.T, from, to *fedtest.User) {
	room := together(t, "10", to, from)
	from.Must(t, "PUT", fedtest.RoomPath(room, "typing", from.User), map[string]any{"typing": true, "timeout": 30000})
	to.Until(t, "typing", func(s *fedtest.Seen) bool { return slices.Contains(s.Typing[room], from.User) })
	from.Must(t, "PUT", fedtest.RoomPath(room, "typing", from.User), map[string]any{"typing": false})
	to.Until(t, "typing no more", func(s *fedtest.Seen) bool { return !slices.Contains(s.Typing[room], from.User) })

	event := to.Say(t, room, "read this")
	from.Sees(t, room, event)
	from.Must(t, "POST", fedtest.RoomPath(room, "receipt", "m.read", event), map[string]any{})
	to.Until(t, "receipt", func(s *fedtest.Seen) bool { return s.Read[room][from.User] == event })

	from.Must(t, "PUT", "/presence/"+url.PathEscape(from.User)+"/status", map[string]any{"presence": "unavailable", "status_msg": "at the loom"})
	to.Until(t, "presence", func(s *fedtest.Seen) bool { return s.Presence[from.User] == "unavailable" })
}

func devices(t *testing.T, from, to *fedtest.User) {
	together(t, "11", to, from)
	to.Sync(t, false)
	clear(to.Seen.Changed)
	from.Must(t, "POST", "/keys/upload", map[string]any{
		"device_keys": map[string]any{
			"user_id": from.User, "device_id": from.Device, "algorithms": []string{"m.olm.v1.curve25519-aes-sha2"},
			"keys": map[string]string{"curve25519:" + from.Device: "aaa", "ed25519:" + from.Device: "bbb"}, "signatures": map[string]any{},
		},
		"one_time_keys": map[string]any{"signed_curve25519:AAAB": map[string]any{"key": "ccc", "signatures": map[string]any{}}},
	})
	to.Until(t, "devices changed", func(s *fedtest.Seen) bool { return s.Changed[from.User] })
	ask := func() map[string]any {
		a := to.Must(t, "POST", "/keys/query", map[string]any{"device_keys": map[string]any{from.User: []string{}}})
		require.Empty(t, a["failures"])
		list, _ := a["device_keys"].(map[string]any)[from.User].(map[string]any)
		return list
	}
	require.Contains(t, ask(), from.Device)
	claim := map[string]any{"one_time_keys": map[string]any{from.User: map[string]string{from.Device: "signed_curve25519"}}}
	got := to.Must(t, "POST", "/keys/claim", claim)
	keys := got["one_time_keys"].(map[string]any)[from.User].(map[string]any)[from.Device].(map[string]any)
	require.Contains(t, keys, "signed_curve25519:AAAB")
	again := to.Must(t, "POST", "/keys/claim", claim)["one_time_keys"]
	require.NotContains(t, fmt.Sprint(again), "AAAB", "a key is given away once")

	to.Must(t, "PUT", "/sendToDevice/m.test/"+url.PathEscape(t.Name()), map[string]any{
		"messages": map[string]any{from.User: map[string]any{from.Device: map[string]any{"thread": "silk"}}},
	})
	from.Until(t, "message to the device", func(s *fedtest.Seen) bool {
		return slices.ContainsFunc(s.ToDevice, func(e fedtest.Event) bool { return e.Sender == to.User && e.Content["thread"] == "silk" })
	})
}

func queries(t *testing.T, a, b *fedtest.User) {
	for _, p := range [][2]*fedtest.User{{a, b}, {b, a}} {
		p[0].Must(t, "PUT", "/profile/"+url.PathEscape(p[0].User)+"/displayname", map[string]any{"displayname": "the weaver"})
		require.Equal(t, "the weaver", p[1].Must(t, "GET", "/profile/"+url.PathEscape(p[0].User), nil)["displayname"])
		require.Equal(t, "the weaver", p[1].Must(t, "GET", "/profile/"+url.PathEscape(p[0].User)+"/displayname", nil)["displayname"])
		nobody := "@nobody:" + string(p[0].Home.Name)
		status, _ := p[1].Refused(t, "GET", "/profile/"+url.PathEscape(nobody), nil)
		require.Equal(t, 404, status)
		status, _ = p[1].Refused(t, "GET", "/directory/room/"+url.PathEscape("#nothing:"+string(p[0].Home.Name)), nil)
		require.Equal(t, 404, status)
	}
}

// A third server joins by way of the second, whom it believes on keys, while the first, which made the room, is away; and all agree in
// the end.
func atThree(t *testing.T, version roomver.Version, alice, bob, carol *fedtest.User) {
	room := together(t, string(version), alice, bob)
	alice.Home.Link.Refuse()
	carol.Join(t, room, bob.Home)
	bob.SeesMember(t, room, carol, "join")
	apart := alice.Say(t, room, "is anybody there?")
	fromCarol := carol.Say(t, room, "I am new")
	bob.Sees(t, room, fromCarol)
	alice.Home.Link.Heal()
	bob.Sees(t, room, apart)
	fromBob := bob.Say(t, room, "we are all here")
	alice.Sees(t, room, fromBob, fromCarol)
	carol.Sees(t, room, fromBob)
	fedtest.Agree(t, room, alice, bob, carol)
}

const (
	patience = time.Minute
	tick     = 20 * time.Millisecond
)
