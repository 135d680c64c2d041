package write_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
)

const (
	alice = "@alice:heddle.test"
	bob   = "@bob:heddle.test"
	carol = "@carol:heddle.test"
)

func TestCreateRoom(t *testing.T) {
	s := newStack(t)
	s.users("alice", "bob", "carol")
	s.call("bob", "PUT", "/profile/"+bob+"/displayname", `{"displayname":"Bob"}`).ok("")
	s.call("bob", "PUT", "/profile/"+bob+"/avatar_url", `{"avatar_url":"mxc://heddle.test/bob"}`).ok("")

	t.Run("empty request", func(t *testing.T) {
		s := s.in(t)
		r := s.create("alice", `{}`)
		require.Equal(t, "invite", s.state(r, "m.room.join_rules", "")["join_rule"])
		require.Equal(t, "join", s.state(r, "m.room.member", alice)["membership"])
		require.Nil(t, s.state(r, "m.room.name", ""))
	})
	t.Run("everything", func(t *testing.T) {
		s := s.in(t)
		r := s.create("alice", `{"visibility":"public","room_alias_name":"all","name":"All","topic":"of it",
			"invite":["`+bob+`","`+carol+`","`+bob+`"],"room_version":"11","creation_content":{"m.federate":false,"creator":"@x:y"},
			"initial_state":[{"type":"com.example","state_key":"k","content":{"a":1}},
				{"type":"m.room.history_visibility","content":{"history_visibility":"joined"}}],
			"preset":"trusted_private_chat","is_direct":true,"power_level_content_override":{"ban":99}}`)
		create := s.state(r, "m.room.create", "")
		require.Equal(t, false, create["m.federate"])
		require.NotContains(t, create, "creator")
		require.Equal(t, "11", create["room_version"])
		require.Equal(t, "#all:heddle.test", s.state(r, "m.room.canonical_alias", "")["alias"])
		require.Equal(t, "All", s.state(r, "m.room.name", "")["name"])
		require.Equal(t, "of it", s.state(r, "m.room.topic", "")["topic"])
		require.Equal(t, "joined", s.state(r, "m.room.history_visibility", "")["history_visibility"])
		require.InDelta(t, 1, s.state(r, "com.example", "k")["a"], 0)
		levels := s.state(r, "m.room.power_levels", "")
		require.InDelta(t, 99, levels["ban"], 0)
		require.InDelta(t, 100, levels["users"].(map[string]any)[bob], 0)
		require.Equal(t, map[string]any{
			"membership": "invite", "is_direct": true, "displayname": "Bob", "avatar_url": "mxc://heddle.test/bob",
		}, s.state(r, "m.room.member", bob))
		require.Equal(t, "invite", s.state(r, "m.room.member", carol)["membership"])
		room, ok, err := s.Reader.Room(s.Ctx(), s.Shards.Of(string(r)), string(r))
		require.NoError(t, err)
		require.True(t, ok)
		listed, err := s.Reader.Published(s.Ctx(), room.Nid)
		require.NoError(t, err)
		require.True(t, listed)
		s.call("bob", "POST", "/join/%23all:heddle.test", "").ok("room_id")
	})
	t.Run("every version", func(t *testing.T) {
		s := s.in(t)
		for v := 1; v <= 12; v++ {
			r := s.create("alice", fmt.Sprintf(`{"room_version":"%d"}`, v))
			require.Equal(t, fmt.Sprint(v), s.state(r, "m.room.create", "")["room_version"])
		}
	})
	t.Run("every preset in every version", func(t *testing.T) {
		for _, rules := range roomver.All() {
			for preset, want := range map[string]struct{ join, guests string }{
				`"preset":"private_chat"`:         {"invite", "can_join"},
				`"preset":"trusted_private_chat"`: {"invite", "can_join"},
				`"preset":"public_chat"`:          {"public", "forbidden"},
				`"visibility":"private"`:          {"invite", "can_join"},
				`"visibility":"public"`:           {"public", "forbidden"},
			} {
				t.Run(string(rules.Version)+" "+preset, func(t *testing.T) {
					s := s.in(t)
					r := s.create("alice", `{"room_version":"`+string(rules.Version)+`",`+preset+`,"invite":["`+bob+`"],
						"creation_content":{"additional_creators":["`+carol+`"]}}`)
					require.Equal(t, want.join, s.state(r, "m.room.join_rules", "")["join_rule"])
					require.Equal(t, "shared", s.state(r, "m.room.history_visibility", "")["history_visibility"])
					require.Equal(t, want.guests, s.state(r, "m.room.guest_access", "")["guest_access"])
					create := s.state(r, "m.room.create", "")
					users := s.state(r, "m.room.power_levels", "")["users"].(map[string]any)
					trusted := strings.Contains(preset, "trusted")
					if rules.PrivilegedCreators {
						require.Empty(t, users, "creators are not named")
						creators := []any{carol}
						if trusted {
							creators = append(creators, bob)
						}
						require.ElementsMatch(t, creators, create["additional_creators"])
					} else {
						powers := map[string]any{alice: 100.}
						if trusted {
							powers[bob] = 100.
						}
						require.Equal(t, powers, users)
					}
					if rules.Creator == roomver.CreatorInContent {
						require.Equal(t, alice, create["creator"])
					} else {
						require.NotContains(t, create, "creator")
					}
					require.Equal(t, "invite", s.state(r, "m.room.member", bob)["membership"])
				})
			}
		}
	})
	t.Run("nulls stand for nothing", func(t *testing.T) {
		s.in(t).create("alice", `{"creation_content":null,"power_level_content_override":null,"invite":null,"room_version":null}`)
	})

	s.create("alice", `{"room_alias_name":"taken"}`)
	many := strings.TrimSuffix(strings.Repeat(`"@u:heddle.test",`, 101), ",")
	bad := func(body, code string) refusal { return refusal{"alice", "POST", "/createRoom", body, 400, code} }
	s.refuse(t, map[string]refusal{
		"nobody":                    {"", "POST", "/createRoom", `{}`, 401, "M_MISSING_TOKEN"},
		"no body":                   bad(``, "M_NOT_JSON"),
		"no JSON":                   bad(`{`, "M_NOT_JSON"),
		"no object":                 bad(`[]`, "M_BAD_JSON"),
		"null":                      bad(`null`, "M_BAD_JSON"),
		"version is a number":       bad(`{"room_version":1}`, "M_BAD_JSON"),
		"unknown version":           bad(`{"room_version":"999"}`, "M_UNSUPPORTED_ROOM_VERSION"),
		"empty version":             bad(`{"room_version":""}`, "M_UNSUPPORTED_ROOM_VERSION"),
		"unknown visibility":        bad(`{"visibility":"secret"}`, "M_BAD_JSON"),
		"unknown preset":            bad(`{"preset":"party"}`, "M_BAD_JSON"),
		"name is a number":          bad(`{"name":1}`, "M_BAD_JSON"),
		"topic is an object":        bad(`{"topic":{}}`, "M_BAD_JSON"),
		"invite is a string":        bad(`{"invite":"`+bob+`"}`, "M_BAD_JSON"),
		"invite holds no user id":   bad(`{"invite":["bob"]}`, "M_INVALID_PARAM"),
		"invite of oneself":         bad(`{"invite":["`+alice+`"]}`, "M_INVALID_PARAM"),
		"too many invites":          bad(`{"invite":[`+many+`]}`, "M_INVALID_PARAM"),
		"alias taken":               bad(`{"room_alias_name":"taken"}`, "M_ROOM_IN_USE"),
		"alias with a colon":        bad(`{"room_alias_name":"a:b"}`, "M_INVALID_PARAM"),
		"alias empty":               bad(`{"room_alias_name":""}`, "M_INVALID_PARAM"),
		"alias with a space":        bad(`{"room_alias_name":"a b"}`, "M_INVALID_PARAM"),
		"alias too long":            bad(`{"room_alias_name":"`+strings.Repeat("a", 255)+`"}`, "M_INVALID_PARAM"),
		"creation_content a list":   bad(`{"creation_content":[]}`, "M_BAD_JSON"),
		"override a string":         bad(`{"power_level_content_override":"x"}`, "M_BAD_JSON"),
		"initial_state an object":   bad(`{"initial_state":{}}`, "M_BAD_JSON"),
		"initial_state no type":     bad(`{"initial_state":[{"content":{}}]}`, "M_BAD_JSON"),
		"initial_state no content":  bad(`{"initial_state":[{"type":"m.x"}]}`, "M_BAD_JSON"),
		"initial_state bad content": bad(`{"initial_state":[{"type":"m.x","content":1}]}`, "M_BAD_JSON"),
		"initial_state a member":    bad(`{"initial_state":[{"type":"m.room.member","state_key":"`+bob+`","content":{"membership":"join"}}]}`, "M_BAD_JSON"),
		"initial_state a float":     bad(`{"initial_state":[{"type":"m.x","content":{"a":1.5}}]}`, "M_BAD_JSON"),
		"name above one's power":    bad(`{"name":"x","room_version":"11","power_level_content_override":{"users":{"`+alice+`":10},"events":{"m.room.name":50}}}`, "M_INVALID_ROOM_STATE"),
		"invite by address, short":  bad(`{"invite_3pid":[{"medium":"email"}]}`, "M_MISSING_PARAM"),
		"invite by address": {
			"alice", "POST", "/createRoom",
			`{"invite_3pid":[{"medium":"email","address":"a@b.c","id_server":"is.example","id_access_token":"x"}]}`, 400, "M_SERVER_NOT_TRUSTED",
		},
		"invite to another server": {"alice", "POST", "/createRoom", `{"invite":["@x:other.example"]}`, 403, "M_FORBIDDEN"},
	})

	t.Run("a refused request leaves nothing", func(t *testing.T) {
		s := s.in(t)
		var rooms, aliases int
		count := func() {
			require.NoError(t, s.DB.Pool.QueryRow(s.Ctx(), `SELECT count(*) FROM room`).Scan(&rooms))
			require.NoError(t, s.DB.Pool.QueryRow(s.Ctx(), `SELECT count(*) FROM alias`).Scan(&aliases))
		}
		count()
		r, a := rooms, aliases
		s.call("alice", "POST", "/createRoom", `{"room_alias_name":"ghost","name":"x","room_version":"11",
			"power_level_content_override":{"users":{"`+alice+`":10}}}`).refused(400, "M_INVALID_ROOM_STATE")
		s.call("alice", "POST", "/createRoom", `{"room_alias_name":"ghost","invite":["@x:other.example"]}`).refused(403, "M_FORBIDDEN")
		count()
		require.Equal(t, r, rooms)
		require.Equal(t, a, aliases)
		s.create("alice", `{"room_alias_name":"ghost"}`)
	})
	t.Run("suspended", func(t *testing.T) {
		s := s.in(t)
		s.Exec(`UPDATE account SET suspended = true WHERE user_id = $1`, carol)
		s.call("carol", "POST", "/createRoom", `{}`).refused(403, "M_USER_SUSPENDED")
	})
}

// However many are invited, their profiles are read at once, with the profile of the user who makes the room.
func TestCreateRoomReadsProfilesAtOnce(t *testing.T) {
	const invited = 20
	s := newStack(t)
	names := make([]string, invited)
	quoted := make([]string, invited)
	for i := range names {
		names[i] = fmt.Sprint("u", i)
		quoted[i] = `"@` + names[i] + `:heddle.test"`
	}
	s.users(append([]string{"alice"}, names...)...)
	s.call("alice", "PUT", "/profile/"+alice+"/displayname", `{"displayname":"Alice"}`).ok("")
	s.call("u7", "PUT", "/profile/@u7:heddle.test/avatar_url", `{"avatar_url":"mxc://heddle.test/seven"}`).ok("")
	create := func(invite []string) int64 {
		body := `{"preset":"private_chat","invite":[` + strings.Join(invite, ",") + `]}`
		ctx, tally := pg.WithTally(t.Context())
		r := httptest.NewRequest(http.MethodPost, "/_matrix/client/v3/createRoom", strings.NewReader(body)).WithContext(ctx)
		r.Header.Set("Authorization", "Bearer "+s.tokens["alice"])
		w := httptest.NewRecorder()
		s.router.ServeHTTP(w, r)
		require.Equal(t, http.StatusOK, w.Code, "%s", w.Body)
		if len(invite) == invited {
			var a struct {
				RoomID id.RoomID `json:"room_id"`
			}
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &a))
			require.Equal(t, "Alice", s.state(a.RoomID, "m.room.member", alice)["displayname"])
			require.Equal(t, map[string]any{"membership": "invite", "displayname": "u7", "avatar_url": "mxc://heddle.test/seven"},
				s.state(a.RoomID, "m.room.member", "@u7:heddle.test"))
		}
		return tally.Count()
	}
	create(quoted) // the names are known from here on
	one := create(quoted[:1])
	require.Less(t, create(quoted)-one, int64(invited/2)) // whether the session is remembered makes a difference, too
}
