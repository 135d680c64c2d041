package write_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/api/write"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

func (s *stack) upgrade(user, r, body string) reply {
	s.T.Helper()
	return s.call(user, "POST", "/rooms/"+url.PathEscape(r)+"/upgrade", body)
}

func (s *stack) setState(user, r, typ, key, content string) {
	s.T.Helper()
	s.call(user, "PUT", "/rooms/"+url.PathEscape(r)+"/state/"+typ+"/"+url.PathEscape(key), content).ok("event_id")
}

func TestUpgradeBetweenAllVersions(t *testing.T) {
	s := newStack(t)
	s.users("alice", "bob", "eve")
	alice, bob, eve := string(roomtest.User("alice")), string(roomtest.User("bob")), string(roomtest.User("eve"))
	kept := map[string]map[string]any{ // and not as any preset has them
		"m.room.server_acl":         {"allow": []any{"*"}, "deny": []any{"bad.example"}},
		"m.room.encryption":         {"algorithm": "m.megolm.v1.aes-sha2"},
		"m.room.avatar":             {"url": "mxc://heddle.test/loom"},
		"m.room.guest_access":       {"guest_access": "can_join"},
		"m.room.history_visibility": {"history_visibility": "world_readable"},
	}
	all := roomver.All()
	for i := range all {
		from := all[i].Version
		for _, to := range []roomver.Version{all[(i+1)%len(all)].Version, all[(i+7)%len(all)].Version} {
			t.Run(string(from)+" to "+string(to), func(t *testing.T) {
				s := s.in(t)
				old := s.call("alice", "POST", "/createRoom", `{"preset":"public_chat","visibility":"public","name":"Weavers","topic":"Looms",
					"room_version":"`+string(from)+`","creation_content":{"type":"m.space","m.federate":false,"org.example.own":1}}`).ok("room_id")
				alias := "#" + "v" + string(from) + "to" + string(to) + ":" + string(roomtest.Server)
				s.call("alice", "PUT", "/directory/room/"+url.PathEscape(alias), `{"room_id":"`+old+`"}`).ok("")
				s.setState("alice", old, "m.room.canonical_alias", "", `{"alias":"`+alias+`"}`)
				s.setState("alice", old, "m.space.child", "!child:x", `{"via":["x"]}`)
				s.setState("alice", old, "m.space.child", "!gone:x", `{}`)
				s.setState("alice", old, "com.example", "", `{"mine":true}`)
				for typ, content := range kept {
					raw, err := json.Marshal(content)
					require.NoError(t, err)
					s.setState("alice", old, typ, "", string(raw))
				}
				s.call("bob", "POST", "/join/"+url.PathEscape(old), "").ok("room_id")
				s.call("alice", "POST", "/rooms/"+url.PathEscape(old)+"/ban", `{"user_id":"`+eve+`"}`).ok("")

				made := s.upgrade("alice", old, `{"new_version":"`+string(to)+`"}`).ok("replacement_room")

				require.NotEqual(t, old, made)
				create := s.state(id.RoomID(made), "m.room.create", "")
				require.Equal(t, string(to), create["room_version"])
				require.Equal(t, "m.space", create["type"])
				require.Equal(t, false, create["m.federate"])
				require.NotContains(t, create, "org.example.own")
				predecessor, _ := create["predecessor"].(map[string]any)
				require.Equal(t, old, predecessor["room_id"])
				require.Equal(t, to == "12", predecessor["event_id"] == nil)
				require.Equal(t, "Weavers", s.state(id.RoomID(made), "m.room.name", "")["name"])
				require.Equal(t, "Looms", s.state(id.RoomID(made), "m.room.topic", "")["topic"])
				require.Equal(t, "public", s.state(id.RoomID(made), "m.room.join_rules", "")["join_rule"])
				for typ, content := range kept {
					require.Equal(t, content, s.state(id.RoomID(made), typ, ""), typ)
				}
				require.Equal(t, alias, s.state(id.RoomID(made), "m.room.canonical_alias", "")["alias"])
				require.NotNil(t, s.state(id.RoomID(made), "m.space.child", "!child:x"))
				require.Nil(t, s.state(id.RoomID(made), "m.space.child", "!gone:x"))
				require.Nil(t, s.state(id.RoomID(made), "com.example", ""))
				require.Nil(t, s.state(id.RoomID(made), "m.room.member", bob))
				require.Equal(t, "ban", s.state(id.RoomID(made), "m.room.member", eve)["membership"])
				users, _ := s.state(id.RoomID(made), "m.room.power_levels", "")["users"].(map[string]any)
				if to == "12" {
					require.Empty(t, users)
				} else {
					require.EqualValues(t, 100, users[alice])
				}

				require.Equal(t, made, s.state(id.RoomID(old), "m.room.tombstone", "")["replacement_room"])
				require.Empty(t, s.state(id.RoomID(old), "m.room.canonical_alias", ""))
				require.EqualValues(t, 50, s.state(id.RoomID(old), "m.room.power_levels", "")["events_default"])
				require.EqualValues(t, 50, s.state(id.RoomID(old), "m.room.power_levels", "")["invite"])
				s.call("bob", "PUT", "/rooms/"+url.PathEscape(old)+"/send/m.room.message/1", `{"msgtype":"m.text","body":"x"}`).
					refused(403, "M_FORBIDDEN")
				room, _, _ := s.alias(alias)
				require.Equal(t, made, room)
				require.False(t, s.listed(old))
				require.True(t, s.listed(made))
				s.call("bob", "POST", "/join/"+url.PathEscape(alias), "").ok("room_id")
			})
		}
	}
}

// A room goes on with the join rule that it had, unless its new version does not know that; then it is closed, and never open to more than before.
func TestUpgradeKeepsTheJoinRule(t *testing.T) {
	s := newStack(t)
	s.users("alice")
	allow := []any{map[string]any{"type": "m.room_membership", "room_id": "!space:heddle.test"}}
	for _, x := range []struct {
		from, to roomver.Version
		rule     map[string]any
		keeps    bool
	}{
		{"7", "8", map[string]any{"join_rule": "knock"}, true},
		{"7", "6", map[string]any{"join_rule": "knock"}, false},
		{"8", "12", map[string]any{"join_rule": "restricted", "allow": allow}, true},
		{"9", "7", map[string]any{"join_rule": "restricted", "allow": allow}, false},
		{"10", "11", map[string]any{"join_rule": "knock_restricted", "allow": allow}, true},
		{"12", "9", map[string]any{"join_rule": "knock_restricted", "allow": allow}, false},
		{"1", "12", map[string]any{"join_rule": "invite"}, true},
		{"12", "1", map[string]any{"join_rule": "private"}, true},
	} {
		t.Run(string(x.from)+" to "+string(x.to)+", "+x.rule["join_rule"].(string), func(t *testing.T) {
			s := s.in(t)
			old := s.call("alice", "POST", "/createRoom", `{"preset":"public_chat","room_version":"`+string(x.from)+`"}`).ok("room_id")
			raw, err := json.Marshal(x.rule)
			require.NoError(t, err)
			s.setState("alice", old, "m.room.join_rules", "", string(raw))
			made := s.upgrade("alice", old, `{"new_version":"`+string(x.to)+`"}`).ok("replacement_room")
			if !x.keeps {
				x.rule = map[string]any{"join_rule": "invite"}
			}
			require.Equal(t, x.rule, s.state(id.RoomID(made), "m.room.join_rules", ""))
		})
	}
}

func (s *stack) alias(alias string) (room string, creator string, ok bool) {
	s.T.Helper()
	a, ok, err := s.Reader.Alias(s.Ctx(), s.Shards.Of(alias), alias)
	require.NoError(s.T, err)
	return a.RoomID, a.Creator, ok
}

func (s *stack) listed(r string) bool {
	s.T.Helper()
	ref, ok, err := s.Reader.Room(s.Ctx(), s.Shards.Of(r), r)
	require.NoError(s.T, err)
	require.True(s.T, ok)
	listed, err := s.Reader.Published(s.Ctx(), ref.Nid)
	require.NoError(s.T, err)
	return listed
}

// A user who is no more powerful than it takes to close the room upgrades it, and is as powerful afterwards as before.
func TestUpgradeByOneWhoIsNotTheMostPowerful(t *testing.T) {
	s := newStack(t)
	s.users("alice", "bob")
	alice, bob := string(roomtest.User("alice")), string(roomtest.User("bob"))
	old := s.call("alice", "POST", "/createRoom", `{"preset":"public_chat","room_version":"9","initial_state":[
		{"type":"m.room.server_acl","content":{"allow":["*"]}}],
		"power_level_content_override":{"users":{"`+alice+`":"100","`+bob+`":60},"events":{"m.room.tombstone":60,"m.room.power_levels":100,"m.room.server_acl":100}}}`).
		ok("room_id")
	s.call("bob", "POST", "/join/"+url.PathEscape(old), "").ok("room_id")
	made := s.upgrade("bob", old, `{"new_version":"11"}`).ok("replacement_room")
	users, _ := s.state(id.RoomID(made), "m.room.power_levels", "")["users"].(map[string]any)
	require.Equal(t, map[string]any{alice: 100.0, bob: 60.0}, users)
	require.NotNil(t, s.state(id.RoomID(made), "m.room.server_acl", ""))
	require.Equal(t, made, s.state(id.RoomID(old), "m.room.tombstone", "")["replacement_room"])
	require.NotEqual(t, 50.0, s.state(id.RoomID(old), "m.room.power_levels", "")["events_default"]) // that took more power
}

func TestUpgradeNamesCreators(t *testing.T) {
	s := newStack(t)
	s.users("alice", "bob", "carol")
	alice, bob, carol := string(roomtest.User("alice")), string(roomtest.User("bob")), string(roomtest.User("carol"))
	old := s.call("alice", "POST", "/createRoom", `{"preset":"public_chat","room_version":"11",
		"power_level_content_override":{"users":{"`+alice+`":100,"`+bob+`":100,"`+carol+`":50}}}`).ok("room_id")
	made := s.upgrade("alice", old, `{"new_version":"12","additional_creators":["`+bob+`"]}`).ok("replacement_room")
	require.Equal(t, []any{bob}, s.state(id.RoomID(made), "m.room.create", "")["additional_creators"])
	require.Equal(t, map[string]any{carol: 50.0}, s.state(id.RoomID(made), "m.room.power_levels", "")["users"])

	again := s.upgrade("alice", made, `{"new_version":"12"}`).ok("replacement_room")
	require.NotContains(t, s.state(id.RoomID(again), "m.room.create", ""), "additional_creators")

	back := s.upgrade("alice", made, `{"new_version":"10","additional_creators":["no user"]}`).ok("replacement_room") // ignored there
	require.Equal(t, map[string]any{alice: 100.0, bob: 100.0, carol: 50.0}, s.state(id.RoomID(back), "m.room.power_levels", "")["users"])
}

func TestUpgradeIsRefused(t *testing.T) {
	s := newStack(t)
	s.users("alice", "bob", "carol")
	r := s.call("alice", "POST", "/createRoom", `{"preset":"public_chat"}`).ok("room_id")
	s.call("bob", "POST", "/join/"+url.PathEscape(r), "").ok("room_id")
	s.upgrade("alice", r, `{"new_version":"99"}`).refused(400, "M_UNSUPPORTED_ROOM_VERSION")
	s.upgrade("alice", r, `{}`).refused(400, "M_MISSING_PARAM")
	s.upgrade("alice", r, `{"new_version":12}`).refused(400, "M_BAD_JSON")
	s.upgrade("alice", r, `{`).refused(400, "M_NOT_JSON")
	s.upgrade("alice", r, `{"new_version":"12","additional_creators":["bob"]}`).refused(400, "M_INVALID_PARAM")
	s.upgrade("alice", "!nowhere:"+string(roomtest.Server), `{"new_version":"12"}`).refused(404, "M_NOT_FOUND")
	s.upgrade("alice", "nowhere", `{"new_version":"12"}`).refused(400, "M_INVALID_PARAM")
	s.upgrade("bob", r, `{"new_version":"12"}`).refused(403, "M_FORBIDDEN")
	s.upgrade("carol", r, `{"new_version":"12"}`).refused(403, "M_FORBIDDEN")
	s.upgrade("", r, `{"new_version":"12"}`).refused(401, "M_MISSING_TOKEN")
	require.Nil(t, s.state(id.RoomID(r), "m.room.tombstone", ""))
}

func TestSettingsFollowAnUpgrade(t *testing.T) {
	s := newStack(t)
	s.users("alice", "bob")
	bob := roomtest.User("bob")
	old := s.call("alice", "POST", "/createRoom", `{"preset":"public_chat"}`).ok("room_id")
	s.call("bob", "POST", "/join/"+url.PathEscape(old), "").ok("room_id")
	set := func(room, typ, content string) {
		_, err := s.front.Do(s.Ctx(), &account.SetAccountData{UserID: string(bob), RoomID: room, Type: typ, Content: []byte(content)})
		require.NoError(t, err)
	}
	get := func(room, typ string) string {
		b, _, err := s.accounts.AccountData(s.Ctx(), s.Shards.OfUser(string(bob)), string(bob), room, typ)
		require.NoError(t, err)
		return string(b)
	}
	set(old, "m.tag", `{"tags":{"m.favourite":{"order":0.5}}}`)
	set("", "m.direct", `{"@alice:x":["`+old+`"],"@other:x":["!r:x"]}`)
	_, err := s.front.Do(s.Ctx(), &account.ChangePushRule{
		UserID: string(bob), Op: account.PutRule, Kind: "room", Rule: []byte(`{"rule_id":"` + old + `","actions":["dont_notify"]}`),
	})
	require.NoError(t, err)
	_, err = s.front.Do(s.Ctx(), &account.ChangePushRule{UserID: string(bob), Op: account.PutRule, Kind: "override", Rule: []byte(
		`{"rule_id":"` + old + `","actions":[],"conditions":[{"kind":"event_match","key":"room_id","pattern":"` + old + `"}]}`)})
	require.NoError(t, err)

	made := s.upgrade("alice", old, `{"new_version":"12"}`).ok("replacement_room")
	require.Empty(t, get(made, "m.tag"))
	for range 2 { // again changes nothing
		s.call("bob", "POST", "/join/"+url.PathEscape(made), "").ok("room_id")
		require.JSONEq(t, `{"tags":{"m.favourite":{"order":0.5}}}`, get(made, "m.tag"))
		require.JSONEq(t, `{"@alice:x":["`+old+`","`+made+`"],"@other:x":["!r:x"]}`, get("", "m.direct"))
		rules, err := account.NewReader(s.Shards, s.accounts).PushRules(s.Ctx(), string(bob))
		require.NoError(t, err)
		n := 0
		for _, r := range rules.Room {
			if r.ID == made {
				n++
			}
		}
		for _, r := range rules.Override {
			if r.ID == made {
				n++
				require.Equal(t, made, *r.Conditions[0].Pattern)
			}
		}
		require.Equal(t, 2, n)
	}

	// A room that only says of itself that it has replaced another takes nothing over.
	other := s.call("alice", "POST", "/createRoom", `{"preset":"public_chat","creation_content":{"predecessor":{"room_id":"`+old+`"}}}`).ok("room_id")
	s.call("bob", "POST", "/join/"+url.PathEscape(other), "").ok("room_id")
	require.Empty(t, get(other, "m.tag"))
}

// One who replaces a room by hand was in the new one first.
func TestSettingsFollowAnUpgradeByHand(t *testing.T) {
	s := newStack(t)
	s.users("alice")
	alice := string(roomtest.User("alice"))
	old := string(s.create("alice", `{"preset":"public_chat","room_version":"10"}`))
	s.call("alice", "PUT", "/user/"+alice+"/rooms/"+url.PathEscape(old)+"/tags/m.favourite", `{}`).ok("")
	made := s.create("alice", `{"room_version":"11","creation_content":{"predecessor":{"room_id":"`+old+`"}}}`)
	require.Nil(t, s.accountData("alice", made, "m.tag"))
	s.setState("alice", old, "m.room.tombstone", "", `{"body":"moved" , "replacement_room":"`+string(made)+`"}`)
	require.NotNil(t, s.accountData("alice", made, "m.tag"))
	s.setState("alice", old, "m.room.tombstone", "", `{"body":"moved","replacement_room":"nowhere"}`)
	s.setState("alice", old, "m.room.tombstone", "", `{"body":"moved"}`)
}

// deaf fails whenever it is asked what a room has replaced.
type deaf struct{ write.Upgrades }

func (deaf) Predecessor(context.Context, id.RoomID) (id.RoomID, bool, error) {
	return "", false, errors.New("nobody answers")
}

// Who is in a room, or has replaced one, is told so, whatever comes of the settings that should follow.
func TestJoiningIsToldThoughNothingFollows(t *testing.T) {
	s := newStack(t, func(o *write.RoomOptions) { o.Upgrades = deaf{o.Upgrades} })
	s.users("alice", "bob")
	old := s.call("alice", "POST", "/createRoom", `{"preset":"public_chat"}`).ok("room_id")
	s.call("bob", "POST", "/join/"+url.PathEscape(old), "").ok("room_id")
	made := s.upgrade("alice", old, `{"new_version":"11"}`).ok("replacement_room")
	s.call("bob", "POST", "/join/"+url.PathEscape(made), "").ok("room_id")
	other := s.call("alice", "POST", "/createRoom", `{"preset":"public_chat"}`).ok("room_id")
	s.setState("alice", other, "m.room.tombstone", "", `{"body":"gone","replacement_room":"`+made+`"}`)
}
