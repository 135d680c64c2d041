package write_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAliases(t *testing.T) {
	s := newStack(t)
	s.users("alice", "bob", "carol", "dave", "admin")
	s.Exec(`UPDATE account SET admin = true WHERE user_id = '@admin:heddle.test'`)
	r := s.create("alice", `{"preset":"public_chat"}`)
	for _, u := range []string{"bob", "carol"} {
		s.call(u, "POST", at(r, "/join"), ``).ok("room_id")
	}
	path := func(name string) string { return "/directory/room/%23" + name + ":heddle.test" }
	body := `{"room_id":"` + string(r) + `"}`

	for _, name := range []string{"one", "two", "three"} {
		s.call("bob", "PUT", path(name), body).ok("")
	}
	s.call("admin", "PUT", path("four"), body).ok("")
	s.call("alice", "PUT", at(r, "/state/m.room.canonical_alias"),
		`{"alias":"#one:heddle.test","alt_aliases":["#two:heddle.test","#three:heddle.test"],"com.example":1}`).ok("event_id")

	s.refuse(t, map[string]refusal{
		"taken":                    {"bob", "PUT", path("one"), body, 409, "M_UNKNOWN"},
		"not in the room":          {"dave", "PUT", path("x"), body, 403, "M_FORBIDDEN"},
		"of another server":        {"bob", "PUT", "/directory/room/%23x:other.example", body, 400, "M_INVALID_PARAM"},
		"malformed":                {"bob", "PUT", "/directory/room/x", body, 400, "M_INVALID_PARAM"},
		"without a name":           {"bob", "PUT", "/directory/room/%23:heddle.test", body, 400, "M_INVALID_PARAM"},
		"no room":                  {"bob", "PUT", path("x"), `{}`, 400, "M_MISSING_PARAM"},
		"room malformed":           {"bob", "PUT", path("x"), `{"room_id":"x"}`, 400, "M_INVALID_PARAM"},
		"room a number":            {"bob", "PUT", path("x"), `{"room_id":1}`, 400, "M_BAD_JSON"},
		"no body":                  {"bob", "PUT", path("x"), ``, 400, "M_NOT_JSON"},
		"unknown room":             {"bob", "PUT", path("x"), `{"room_id":"` + unknownRoom + `"}`, 403, "M_FORBIDDEN"},
		"nobody":                   {"", "PUT", path("x"), body, 401, "M_MISSING_TOKEN"},
		"delete another's":         {"carol", "DELETE", path("one"), ``, 403, "M_FORBIDDEN"},
		"delete unknown":           {"bob", "DELETE", path("none"), ``, 404, "M_NOT_FOUND"},
		"delete of another server": {"bob", "DELETE", "/directory/room/%23x:other.example", ``, 404, "M_NOT_FOUND"},
		"delete malformed":         {"bob", "DELETE", "/directory/room/x", ``, 400, "M_INVALID_PARAM"},
	})

	s.call("alice", "DELETE", path("one"), ``).ok("") // has the power
	require.Equal(t, map[string]any{"alt_aliases": []any{"#two:heddle.test", "#three:heddle.test"}, "com.example": 1.0},
		s.state(r, "m.room.canonical_alias", ""))
	s.call("bob", "DELETE", path("two"), ``).ok("") // made it, but may not change the room
	require.Contains(t, s.state(r, "m.room.canonical_alias", "")["alt_aliases"], "#two:heddle.test")
	s.call("admin", "DELETE", path("three"), ``).ok("")
	s.call("bob", "DELETE", path("three"), ``).refused(404, "M_NOT_FOUND")
	s.call("carol", "POST", "/join/%23four:heddle.test", ``).ok("room_id")
}

func TestVisibility(t *testing.T) {
	s := newStack(t)
	s.users("alice", "bob", "admin")
	s.Exec(`UPDATE account SET admin = true WHERE user_id = '@admin:heddle.test'`)
	r := s.create("alice", `{"preset":"public_chat"}`)
	s.call("bob", "POST", at(r, "/join"), ``).ok("room_id")
	path := "/directory/list/room/" + string(r)
	listed := func() bool {
		room, _, err := s.Reader.Room(s.Ctx(), s.Shards.Of(string(r)), string(r))
		require.NoError(t, err)
		ok, err := s.Reader.Published(s.Ctx(), room.Nid)
		require.NoError(t, err)
		return ok
	}
	s.call("alice", "PUT", path, `{}`).ok("")
	require.True(t, listed(), "public unless told otherwise")
	s.call("alice", "PUT", path, `{"visibility":"private"}`).ok("")
	require.False(t, listed())
	s.call("admin", "PUT", path, `{"visibility":"public"}`).ok("")
	require.True(t, listed())
	s.refuse(t, map[string]refusal{
		"not permitted":      {"bob", "PUT", path, `{"visibility":"private"}`, 403, "M_FORBIDDEN"},
		"unknown room":       {"alice", "PUT", "/directory/list/room/" + unknownRoom, `{}`, 404, "M_NOT_FOUND"},
		"malformed room":     {"alice", "PUT", "/directory/list/room/x", `{}`, 400, "M_INVALID_PARAM"},
		"unknown visibility": {"alice", "PUT", path, `{"visibility":"secret"}`, 400, "M_BAD_JSON"},
		"a number":           {"alice", "PUT", path, `{"visibility":1}`, 400, "M_BAD_JSON"},
		"nobody":             {"", "PUT", path, `{}`, 401, "M_MISSING_TOKEN"},
	})
	require.True(t, listed())
}
