package room_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

func by(u id.UserID) room.Origin { return roomtest.As(u) }

func set(r id.RoomID, u, target id.UserID, a room.Action) *room.SetMembership {
	return &room.SetMembership{Room: r, By: by(u), Target: target, Action: a}
}

func state(r id.RoomID, u id.UserID, typ, key, content string) *room.SendState {
	return &room.SendState{Room: r, By: by(u), Type: typ, StateKey: key, Content: []byte(content)}
}

// Each row is a command in a room of alice (creator), bob (member), carol (banned) and dave (not there, and joins are public).
func TestRefusals(t *testing.T) {
	world := roomtest.New(t)
	for _, version := range []roomver.Version{roomver.V6, roomver.V11, roomver.V12} {
		w := world
		r := w.Room(alice, version)
		w.Join(r, bob, carol)
		w.Membership(r, alice, carol, room.ActionBan)
		first := w.Send(r, alice, "first")
		create := id.EventID(timeline(t, w, r)[0].EventID)
		big := `{"body":"` + strings.Repeat("x", 66_000) + `"}`
		rows := []struct {
			name string
			cmd  room.Command
			code mxerr.Code
		}{
			{"send: unknown room", &room.Send{Room: "!nowhere:heddle.test", By: by(alice), Type: "m.x"}, mxerr.NotFound},
			{"send: not in the room", &room.Send{Room: r, By: by(dave), Type: "m.x"}, mxerr.Forbidden},
			{"send: banned", &room.Send{Room: r, By: by(carol), Type: "m.x"}, mxerr.Forbidden},
			{"send: not JSON", &room.Send{Room: r, By: by(bob), Type: "m.x", Content: []byte(`{`)}, mxerr.NotJSON},
			{"send: no object", &room.Send{Room: r, By: by(bob), Type: "m.x", Content: []byte(`[]`)}, mxerr.BadJSON},
			{"send: a float", &room.Send{Room: r, By: by(bob), Type: "m.x", Content: []byte(`{"a":1.5}`)}, mxerr.BadJSON},
			{"send: twice the key", &room.Send{Room: r, By: by(bob), Type: "m.x", Content: []byte(`{"a":1,"a":2}`)}, mxerr.BadJSON},
			{"send: bad UTF-8", &room.Send{Room: r, By: by(bob), Type: "m.x", Content: []byte("{\"a\":\"\xff\"}")}, mxerr.NotJSON},
			{"send: deep", &room.Send{Room: r, By: by(bob), Type: "m.x", Content: []byte(`{"a":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + "}")}, mxerr.BadJSON},
			{"send: too large", &room.Send{Room: r, By: by(bob), Type: "m.x", Content: []byte(big)}, mxerr.TooLarge},
			{"send: long type", &room.Send{Room: r, By: by(bob), Type: strings.Repeat("x", 256)}, mxerr.TooLarge},
			{"state: no power", state(r, bob, "m.room.name", "", `{"name":"x"}`), mxerr.Forbidden},
			{"state: not in the room", state(r, dave, "m.room.name", "", `{"name":"x"}`), mxerr.Forbidden},
			{"state: another's key", state(r, alice, "m.x", string(bob), `{}`), mxerr.Forbidden},
			{"state: create", state(r, alice, "m.room.create", "", `{}`), mxerr.InvalidParam},
			{"send: create", &room.Send{Room: r, By: by(alice), Type: "m.room.create"}, mxerr.BadJSON},
			{"state: levels of no user", state(r, alice, "m.room.power_levels", "", `{"users":{"alice":100}}`), mxerr.BadJSON},
			{"state: levels that are a list", state(r, alice, "m.room.power_levels", "", `{"users":[]}`), mxerr.BadJSON},
			{"state: a level that is a word", state(r, alice, "m.room.power_levels", "", `{"ban":"much"}`), mxerr.BadJSON},
			{"state: events that are no levels", state(r, alice, "m.room.power_levels", "", `{"events":{"m.x":{}}}`), mxerr.BadJSON},
			{"state: malformed levels, and no power", state(r, bob, "m.room.power_levels", "", `{"users":[]}`), mxerr.Forbidden},
			{"state: member without membership", state(r, alice, "m.room.member", string(bob), `{}`), mxerr.BadJSON},
			{"state: unknown membership", state(r, alice, "m.room.member", string(bob), `{"membership":"x"}`), mxerr.BadJSON},
			{"state: member of no user", state(r, alice, "m.room.member", "bob", `{"membership":"invite"}`), mxerr.InvalidParam},
			{"state: levels beyond one's own", state(r, bob, "m.room.power_levels", "", `{"users":{}}`), mxerr.Forbidden},
			{"join: unknown room", set("!nowhere:heddle.test", dave, dave, room.ActionJoin), mxerr.NotFound},
			{"join: banned", set(r, carol, carol, room.ActionJoin), mxerr.Forbidden},
			{"join: for another", set(r, alice, dave, room.ActionJoin), mxerr.Forbidden},
			{"leave: not in the room", set(r, dave, dave, room.ActionLeave), mxerr.Forbidden},
			{"leave: for another", set(r, alice, bob, room.ActionLeave), mxerr.Forbidden},
			{"invite: not in the room", set(r, dave, roomtest.User("erin"), room.ActionInvite), mxerr.Forbidden},
			{"invite: banned", set(r, alice, carol, room.ActionInvite), mxerr.Forbidden},
			{"invite: joined", set(r, alice, bob, room.ActionInvite), mxerr.Forbidden},
			{"invite: no power", set(r, bob, dave, room.ActionInvite), mxerr.Forbidden},
			{"kick: no power", set(r, bob, alice, room.ActionKick), mxerr.Forbidden},
			{"kick: not there", set(r, alice, dave, room.ActionKick), mxerr.Forbidden},
			{"kick: banned", set(r, alice, carol, room.ActionKick), mxerr.Forbidden},
			{"ban: no power", set(r, bob, dave, room.ActionBan), mxerr.Forbidden},
			{"unban: not banned", set(r, alice, bob, room.ActionUnban), mxerr.BadState},
			{"unban: no power", set(r, bob, carol, room.ActionUnban), mxerr.Forbidden},
			{"knock: rule is another", set(r, dave, dave, room.ActionKnock), mxerr.Forbidden},
			{"membership: unknown action", set(r, alice, dave, "hug"), mxerr.InvalidParam},
			{"membership: bad content", &room.SetMembership{Room: r, By: by(dave), Target: dave, Action: room.ActionJoin, Content: []byte(`x`)}, mxerr.NotJSON},
			{"redact: unknown event", &room.Redact{Room: r, By: by(bob), Target: "$nothing"}, mxerr.NotFound},
			{"redact: another's", &room.Redact{Room: r, By: by(bob), Target: first}, mxerr.Forbidden},
			{"redact: not in the room", &room.Redact{Room: r, By: by(dave), Target: first}, mxerr.Forbidden},
			{"redact: create", &room.Redact{Room: r, By: by(alice), Target: create}, mxerr.Forbidden},
			{"redact: sent without target", &room.Send{Room: r, By: by(alice), Type: "m.room.redaction"}, mxerr.BadJSON},
			{"forget: still there", &room.Forget{Room: r, User: bob}, mxerr.Unknown},
			{"forget: never there", &room.Forget{Room: r, User: dave}, mxerr.NotFound},
			{"receipt: unknown event", &room.Receipt{Room: r, User: bob, Kind: room.ReceiptRead, Event: "$nothing"}, mxerr.NotFound},
			{"receipt: unknown kind", &room.Receipt{Room: r, User: bob, Kind: "m.fully_read", Event: first}, mxerr.InvalidParam},
			{"receipt: not in the room", &room.Receipt{Room: r, User: dave, Kind: room.ReceiptRead, Event: first}, mxerr.Forbidden},
			{"typing: not in the room", &room.Typing{Room: r, User: dave, Typing: true}, mxerr.Forbidden},
			{"typing: unknown room", &room.Typing{Room: "!nowhere:heddle.test", User: dave, Typing: true}, mxerr.NotFound},
			{"visibility: no power", &room.SetVisibility{Room: r, By: bob, Public: true}, mxerr.Forbidden},
			{"visibility: not in the room", &room.SetVisibility{Room: r, By: dave, Public: true}, mxerr.Forbidden},
			{"alias: another server's", &room.SetAlias{Alias: "#a:elsewhere.test", Room: r, By: alice}, mxerr.InvalidParam},
			{"alias: none to delete", &room.DeleteAlias{Alias: "#none:heddle.test", By: alice}, mxerr.NotFound},
		}
		before := len(timeline(t, w, r))
		for _, row := range rows {
			t.Run(string(version)+" "+row.name, func(t *testing.T) {
				_, err := world.Host.Do(world.Ctx(), nil, row.cmd)
				require.Error(t, err)
				require.Equal(t, row.code, mxerr.From(err).Code, "%v", err)
			})
		}
		require.Len(t, timeline(t, w, r), before, "a refusal stored something")
		checkRoom(t, w, r)
	}
}

func TestRefusedCreations(t *testing.T) {
	world := roomtest.New(t)
	rows := []struct {
		name string
		c    room.CreateRoom
		code mxerr.Code
	}{
		{"unknown version", room.CreateRoom{Version: "13"}, mxerr.UnsupportedRoomVersion},
		{"unknown preset", room.CreateRoom{Preset: "x"}, mxerr.BadJSON},
		{"creation content", room.CreateRoom{CreationContent: []byte(`[]`)}, mxerr.BadJSON},
		{"levels", room.CreateRoom{PowerOverride: []byte(`{"a":1.5}`)}, mxerr.BadJSON},
		{"levels that are none", room.CreateRoom{PowerOverride: []byte(`{"ban":"x"}`)}, mxerr.Forbidden},
		{"levels name the creator", room.CreateRoom{PowerOverride: []byte(`{"users":{"@alice:heddle.test":100}}`)}, mxerr.InvalidParam},
		{"levels name another creator", room.CreateRoom{
			CreationContent: []byte(`{"additional_creators":["@bob:heddle.test"]}`),
			PowerOverride:   []byte(`{"users":{"@bob:heddle.test":100}}`),
		}, mxerr.InvalidParam},
		{"creators are none", room.CreateRoom{CreationContent: []byte(`{"additional_creators":["bob"]}`)}, mxerr.InvalidParam},
		{"creators are no list", room.CreateRoom{CreationContent: []byte(`{"additional_creators":{}}`)}, mxerr.BadJSON},
		{"initial create", room.CreateRoom{InitialState: []room.StateEvent{{Type: "m.room.create"}}}, mxerr.BadJSON},
		{"initial state not JSON", room.CreateRoom{InitialState: []room.StateEvent{{Type: "m.x", Content: []byte(`{`)}}}, mxerr.NotJSON},
		{"invite oneself", room.CreateRoom{Invite: []room.Invitation{{User: alice}}}, mxerr.InvalidParam},
		{"long name", room.CreateRoom{Name: strings.Repeat("x", 70_000)}, mxerr.TooLarge},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			row.c.Creator = by(alice)
			_, err := room.Create(world.Ctx(), world.Host, roomtest.Server, now(), zeros{}, &row.c)
			require.Error(t, err)
			require.Equal(t, row.code, mxerr.From(err).Code, "%v", err)
		})
	}
	var rooms int
	require.NoError(t, world.DB.Pool.QueryRow(world.Ctx(), `SELECT count(*) FROM room`).Scan(&rooms))
	require.Zero(t, rooms)
}

func TestMembershipGoesItsWays(t *testing.T) {
	w := roomtest.New(t)
	r := w.Create(room.CreateRoom{Creator: by(alice), Preset: room.PresetPrivate})
	member := func(u id.UserID) string {
		return currentState(t, w, r)[roomdb.StateName{Type: "m.room.member", StateKey: string(u)}]
	}
	invite := w.Do(&room.SetMembership{
		Room: r, By: by(alice), Target: bob, Action: room.ActionInvite, Profile: room.Profile{DisplayName: "Bob"}, IsDirect: true,
		Reason: "come",
	})
	require.JSONEq(t, `{"displayname":"Bob","is_direct":true,"membership":"invite","reason":"come"}`, member(bob))
	// Said again, nothing happens.
	again := w.Do(&room.SetMembership{
		Room: r, By: by(alice), Target: bob, Action: room.ActionInvite, Profile: room.Profile{DisplayName: "Bob"}, IsDirect: true,
		Reason: "come",
	})
	require.Equal(t, invite.Event, again.Event)
	require.True(t, again.Unchanged)
	w.Join(r, bob)
	require.True(t, w.Do(set(r, bob, bob, room.ActionJoin)).Unchanged)
	w.Do(&room.SetProfile{Room: r, User: bob, Profile: room.Profile{DisplayName: "Bobby", AvatarURL: "mxc://heddle.test/a"}})
	require.JSONEq(t, `{"avatar_url":"mxc://heddle.test/a","displayname":"Bobby","membership":"join"}`, member(bob))
	require.True(t, w.Do(&room.SetProfile{Room: r, User: bob, Profile: room.Profile{DisplayName: "Bobby", AvatarURL: "mxc://heddle.test/a"}}).Unchanged)
	w.Membership(r, bob, bob, room.ActionLeave)
	require.True(t, w.Do(set(r, bob, bob, room.ActionLeave)).Unchanged)
	require.True(t, w.Do(&room.SetProfile{Room: r, User: bob}).Unchanged)
	_, err := w.Host.Do(w.Ctx(), nil, set(r, bob, bob, room.ActionJoin))
	require.True(t, mxerr.Is(err, mxerr.Forbidden), "the room is for the invited")
	w.Do(&room.Forget{Room: r, User: bob})
	ref, _, err := w.Reader.Room(w.Ctx(), shardOf(w, r), string(r))
	require.NoError(t, err)
	row, ok, err := w.Reader.Member(w.Ctx(), ref.Nid, string(bob))
	require.NoError(t, err)
	require.True(t, ok && row.Forgotten && row.Local)
	w.Membership(r, alice, bob, room.ActionInvite)
	row, _, err = w.Reader.Member(w.Ctx(), ref.Nid, string(bob))
	require.NoError(t, err)
	require.False(t, row.Forgotten)
	w.State(r, alice, "m.room.member", string(bob), `{"membership":"ban"}`)
	w.State(r, alice, "m.room.member", string(bob), `{"membership":"leave"}`)
	require.JSONEq(t, `{"membership":"leave"}`, member(bob))
	w.State(r, alice, "m.room.join_rules", "", `{"join_rule":"knock"}`)
	w.Membership(r, carol, carol, room.ActionKnock)
	w.Membership(r, alice, carol, room.ActionInvite)
	w.Join(r, carol)
	checkRoom(t, w, r)
	w.Restart()
	w.Send(r, carol, "after")
	checkRoom(t, w, r)
}

func TestRestrictedJoins(t *testing.T) {
	world := roomtest.New(t)
	for _, version := range []roomver.Version{roomver.V8, roomver.V11, roomver.V12} {
		w := world
		home := w.Room(alice, version)
		r := w.Create(room.CreateRoom{Creator: by(alice), Version: version, PowerOverride: []byte(`{"invite":50}`)})
		w.State(r, alice, "m.room.join_rules", "", fmt.Sprintf(
			`{"join_rule":"restricted","allow":[{"type":"x"},{"type":"m.room_membership","room_id":%q},{"type":"m.room_membership","room_id":"!none:heddle.test"}]}`, home))
		_, err := w.Host.Do(w.Ctx(), nil, set(r, bob, bob, room.ActionJoin))
		require.True(t, mxerr.Is(err, mxerr.Forbidden), "%v", err)
		w.Join(home, bob)
		w.Join(r, bob)
		require.JSONEq(t, `{"join_authorised_via_users_server":"@alice:heddle.test","membership":"join"}`,
			currentState(t, w, r)[roomdb.StateName{Type: "m.room.member", StateKey: string(bob)}])
		require.True(t, w.Do(set(r, bob, bob, room.ActionJoin)).Unchanged)
		w.Send(r, bob, "in")
		if version != roomver.V12 {
			// Nobody of this server who could invite is left.
			w.Membership(r, alice, alice, room.ActionLeave)
			w.Join(home, carol)
			_, err = w.Host.Do(w.Ctx(), nil, set(r, carol, carol, room.ActionJoin))
			require.True(t, mxerr.Is(err, mxerr.UnableToGrantJoin), "%v", err)
		}
		checkRoom(t, w, r)
	}
}

func TestRedaction(t *testing.T) {
	world := roomtest.New(t)
	for _, version := range []roomver.Version{roomver.V1, roomver.V10, roomver.V11, roomver.V12} {
		w := world
		r := w.Room(alice, version)
		w.Join(r, bob)
		msg := w.Send(r, bob, "regret")
		topic := w.State(r, alice, "m.room.topic", "", `{"topic":"secret"}`)
		// Who may redact anything may redact what only other servers have.
		require.NotEmpty(t, w.Do(&room.Redact{Room: r, By: by(alice), Target: "$elsewhere"}).Event)
		own := w.Do(&room.Redact{Room: r, By: by(bob), Target: msg, Reason: "oops"})
		other := w.Do(&room.Send{Room: r, By: by(alice), Type: "m.room.redaction", Content: []byte(fmt.Sprintf(`{"redacts":%q}`, topic))})
		rows := map[string]roomdb.StoredEvent{}
		for _, e := range timeline(t, w, r) {
			rows[e.EventID] = e
		}
		require.Equal(t, rows[string(own.Event)].Nid, rows[string(msg)].RedactedBy)
		require.Equal(t, rows[string(other.Event)].Nid, rows[string(topic)].RedactedBy)
		// What replaces a redacted state event does not tell what it said.
		for range 2 {
			w.State(r, alice, "m.room.topic", "", fmt.Sprintf(`{"topic":"new %d"}`, len(timeline(t, w, r))))
			body := lastEntry(t, w, r)
			if body.ReplacesEventId == string(topic) {
				require.Equal(t, `{}`, string(body.ReplacesContent))
			}
		}
		checkRoom(t, w, r)
	}
}

func TestAliasesAndDirectory(t *testing.T) {
	w := roomtest.New(t)
	r := w.Create(room.CreateRoom{Creator: by(alice), Alias: "#home:heddle.test", Public: true})
	require.JSONEq(t, `{"alias":"#home:heddle.test"}`, currentState(t, w, r)[roomdb.StateName{Type: "m.room.canonical_alias"}])
	a, ok, err := w.Reader.Alias(w.Ctx(), w.Shards.Of("#home:heddle.test"), "#home:heddle.test")
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, string(r), a.RoomID)
	_, err = room.Create(w.Ctx(), w.Host, roomtest.Server, now(), zeros{}, &room.CreateRoom{Creator: by(bob), Alias: "#home:heddle.test"})
	require.True(t, mxerr.Is(err, mxerr.RoomInUse), "%v", err)
	_, err = w.Host.Do(w.Ctx(), nil, &room.DeleteAlias{Alias: "#home:heddle.test", By: bob})
	require.True(t, mxerr.Is(err, mxerr.Forbidden), "%v", err)
	ref, _, err := w.Reader.Room(w.Ctx(), shardOf(w, r), string(r))
	require.NoError(t, err)
	for _, public := range []bool{true, false} {
		w.Do(&room.SetVisibility{Room: r, By: alice, Public: public})
		got, err := w.Reader.Published(w.Ctx(), ref.Nid)
		require.NoError(t, err)
		require.Equal(t, public, got)
	}
	w.Do(&room.DeleteAlias{Alias: "#home:heddle.test", By: alice})
	// A creation that is refused gives its alias back.
	_, err = room.Create(w.Ctx(), w.Host, roomtest.Server, now(), zeros{}, &room.CreateRoom{
		Creator: by(bob), Alias: "#home:heddle.test", PowerOverride: []byte(`{"ban":"x"}`),
	})
	require.Error(t, err)
	_, ok, err = w.Reader.Alias(w.Ctx(), w.Shards.Of("#home:heddle.test"), "#home:heddle.test")
	require.NoError(t, err)
	require.False(t, ok)
}

func TestReactions(t *testing.T) {
	w := roomtest.New(t)
	r := w.Room(alice, roomver.Default)
	w.Join(r, bob)
	msg := w.Send(r, alice, "like it?")
	react := func(u id.UserID, key string) (room.Answer, error) {
		return w.Host.Do(w.Ctx(), nil, &room.Send{Room: r, By: by(u), Type: "m.reaction", Content: []byte(fmt.Sprintf(
			`{"m.relates_to":{"rel_type":"m.annotation","event_id":%q,"key":%q}}`, msg, key))})
	}
	a, err := react(bob, "+1")
	require.NoError(t, err)
	_, err = react(bob, "+1")
	require.True(t, mxerr.Is(err, mxerr.DuplicateAnnotation), "%v", err)
	_, err = react(bob, "-1")
	require.NoError(t, err)
	_, err = react(alice, "+1")
	require.NoError(t, err)
	w.Do(&room.Redact{Room: r, By: by(bob), Target: a.Event})
	_, err = react(bob, "+1")
	require.NoError(t, err)
}

func TestTrustedPrivateChat(t *testing.T) {
	world := roomtest.New(t)
	for _, version := range []roomver.Version{roomver.V11, roomver.V12} {
		w := world
		r := w.Create(room.CreateRoom{
			Creator: by(alice), Version: version, Preset: room.PresetTrusted, Invite: []room.Invitation{{User: bob}}, IsDirect: true,
		})
		w.Join(r, bob)
		w.State(r, bob, "m.room.server_acl", "", `{"allow":["*"]}`)
		checkRoom(t, w, r)
	}
}
