package read_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

type summary struct {
	RoomID     id.RoomID `json:"room_id"`
	Name       string    `json:"name"`
	Topic      string    `json:"topic"`
	Avatar     string    `json:"avatar_url"`
	Alias      string    `json:"canonical_alias"`
	Joined     int       `json:"num_joined_members"`
	World      *bool     `json:"world_readable"`
	Guests     *bool     `json:"guest_can_join"`
	Rule       string    `json:"join_rule"`
	Type       string    `json:"room_type"`
	Allowed    []string  `json:"allowed_room_ids"`
	Encryption string    `json:"encryption"`
	Version    string    `json:"room_version"`
	Membership string    `json:"membership"`
	Children   []struct {
		Type     string         `json:"type"`
		StateKey string         `json:"state_key"`
		Sender   string         `json:"sender"`
		TS       int64          `json:"origin_server_ts"`
		Content  map[string]any `json:"content"`
	} `json:"children_state"`
}

type listing struct {
	Chunk []summary `json:"chunk"`
	Next  string    `json:"next_batch"`
	Prev  string    `json:"prev_batch"`
	Total *int      `json:"total_room_count_estimate"`
}

type spaces struct {
	Rooms []summary `json:"rooms"`
	Next  string    `json:"next_batch"`
}

// post asks the directory as a user.
func (s *stack) post(user id.UserID, path, body string) (int, []byte) {
	s.T.Helper()
	r := httptest.NewRequest(http.MethodPost, "/_matrix/client"+path, strings.NewReader(body)).WithContext(s.Ctx())
	if user != "" {
		r.Header.Set("Authorization", "Bearer "+s.tokens[user])
	}
	w := httptest.NewRecorder()
	s.router.ServeHTTP(w, r)
	return w.Code, w.Body.Bytes()
}

func (s *stack) query(user id.UserID, body string) (out listing) {
	s.T.Helper()
	status, b := s.post(user, "/v3/publicRooms", body)
	require.Equal(s.T, http.StatusOK, status, "%s", b)
	require.NoError(s.T, json.Unmarshal(b, &out))
	return out
}

func names(rooms []summary) string {
	out := make([]string, len(rooms))
	for i := range rooms {
		out[i] = rooms[i].Name
	}
	return strings.Join(out, " ")
}

func TestPublicRooms(t *testing.T) {
	s := newStack(t)
	alice := roomtest.User("alice")
	s.users(alice)
	var sizes []string
	for n := range 7 {
		c := room.CreateRoom{
			Creator: roomtest.As(alice), Version: roomver.V11, Preset: room.PresetPublic, Public: true, Name: fmt.Sprintf("R%d", n), Topic: "a TOPIC of many",
		}
		if n == 3 {
			c.CreationContent = []byte(`{"type":"m.space"}`)
		}
		r := s.Create(c)
		for i := range n {
			s.Join(r, roomtest.User(fmt.Sprintf("u%d", i)))
		}
		sizes = append([]string{c.Name}, sizes...)
	}
	s.Create(room.CreateRoom{Creator: roomtest.As(alice), Preset: room.PresetPublic, Name: "unlisted"})

	all := ok[listing](s, "", "/v3/publicRooms")
	require.Equal(t, strings.Join(sizes, " "), names(all.Chunk))
	require.Empty(t, all.Next)
	require.Empty(t, all.Prev)
	require.Equal(t, 7, *all.Total)
	first := all.Chunk[0]
	require.Equal(t, 7, first.Joined)
	require.Equal(t, "a TOPIC of many", first.Topic)
	require.Equal(t, "public", first.Rule)
	require.False(t, *first.World)
	require.False(t, *first.Guests)
	require.Empty(t, first.Version)

	// There and back, by pages of two.
	var there []string
	page := ok[listing](s, "", "/v3/publicRooms?limit=2")
	require.Empty(t, page.Prev)
	for {
		there = append(there, names(page.Chunk))
		if page.Next == "" {
			break
		}
		page = ok[listing](s, "", "/v3/publicRooms?limit=2&since="+url.QueryEscape(page.Next))
		require.NotEmpty(t, page.Prev)
	}
	require.Equal(t, []string{"R6 R5", "R4 R3", "R2 R1", "R0"}, there)
	var back []string
	for page.Prev != "" {
		page = ok[listing](s, "", "/v3/publicRooms?limit=2&since="+url.QueryEscape(page.Prev))
		back = append(back, names(page.Chunk))
		require.NotEmpty(t, page.Next)
	}
	require.Equal(t, []string{"R2 R1", "R4 R3", "R6 R5"}, back)

	// Searches.
	require.Equal(t, "R4", names(s.query(alice, `{"filter":{"generic_search_term":"r4"}}`).Chunk))
	found := s.query(alice, `{"limit":3,"filter":{"generic_search_term":"topic"}}`)
	require.Equal(t, "R6 R5 R4", names(found.Chunk))
	require.Equal(t, "R3 R2 R1", names(s.query(alice, `{"limit":3,"since":"`+found.Next+`","filter":{"generic_search_term":"topic"}}`).Chunk))
	require.Empty(t, s.query(alice, `{"filter":{"generic_search_term":"nothing"}}`).Chunk)
	require.Equal(t, "R3", names(s.query(alice, `{"filter":{"room_types":["m.space"]}}`).Chunk))
	require.Equal(t, "R6 R5 R4 R2 R1 R0", names(s.query(alice, `{"filter":{"room_types":[null]}}`).Chunk))
	require.Len(t, s.query(alice, `{"filter":{"room_types":[null,"m.space"]}}`).Chunk, 7)
	require.Empty(t, s.query(alice, `{"filter":{"room_types":[]}}`).Chunk)
	require.Len(t, s.query(alice, `{"include_all_networks":true}`).Chunk, 7)
	require.Empty(t, s.query(alice, `{"third_party_instance_id":"irc"}`).Chunk)
	require.Len(t, ok[listing](s, "", "/v3/publicRooms?server="+string(roomtest.Server)).Chunk, 7)

	s.refused("", "/v3/publicRooms?limit=-1", 400, "M_INVALID_PARAM")
	s.refused("", "/v3/publicRooms?limit=x", 400, "M_INVALID_PARAM")
	s.refused("", "/v3/publicRooms?since=x", 400, "M_INVALID_PARAM")
	s.refused("", "/v3/publicRooms?server=no%20server", 400, "M_INVALID_PARAM")
	for body, code := range map[string]string{
		`{"limit":-1}`: "M_INVALID_PARAM", `{"limit":"1"}`: "M_BAD_JSON", `{"since":"x"}`: "M_INVALID_PARAM",
		`{"filter":[]}`: "M_BAD_JSON", `{"filter":{"room_types":[1]}}`: "M_BAD_JSON", `{`: "M_NOT_JSON",
		`{"include_all_networks":true,"third_party_instance_id":"irc"}`:          "M_INVALID_PARAM",
		`{"filter":{"generic_search_term":"` + strings.Repeat("x", 1025) + `"}}`: "M_INVALID_PARAM",
	} {
		status, b := s.post(alice, "/v3/publicRooms", body)
		require.Equal(t, 400, status, "%s: %s", body, b)
		require.Contains(t, string(b), code)
	}
	status, b := s.post("", "/v3/publicRooms", `{}`)
	require.Equal(t, 401, status, "%s", b)
}

// A change of how many are in rooms neither repeats nor loses a room that has not moved across the reader's place.
func TestPublicRoomsThatGrowBetweenPages(t *testing.T) {
	s := newStack(t)
	alice := roomtest.User("alice")
	s.users(alice)
	rooms := map[string]id.RoomID{}
	for n := range 5 {
		c := room.CreateRoom{Creator: roomtest.As(alice), Preset: room.PresetPublic, Public: true, Name: fmt.Sprintf("R%d", n)}
		rooms[c.Name] = s.Create(c)
		for i := range n {
			s.Join(rooms[c.Name], roomtest.User(fmt.Sprintf("u%d", i)))
		}
	}
	page := ok[listing](s, "", "/v3/publicRooms?limit=2")
	require.Equal(t, "R4 R3", names(page.Chunk))
	s.Join(rooms["R4"], roomtest.User("late"))
	page = ok[listing](s, "", "/v3/publicRooms?limit=2&since="+page.Next)
	require.Equal(t, "R2 R1", names(page.Chunk))
}

func TestRoomSummary(t *testing.T) {
	s := newStack(t)
	alice, bob, eve := roomtest.User("alice"), roomtest.User("bob"), roomtest.User("eve")
	s.users(alice, bob, eve)
	made := func(version roomver.Version, rule string) id.RoomID {
		return s.Create(room.CreateRoom{
			Creator: roomtest.As(alice), Version: version, Preset: room.PresetPrivate, Name: "Looms", InitialState: []room.StateEvent{
				{Type: "m.room.join_rules", Content: []byte(rule)},
				{Type: "m.room.encryption", Content: []byte(`{"algorithm":"m.megolm.v1.aes-sha2"}`)},
				{Type: "m.room.avatar", Content: []byte(`{"url":"mxc://x/y"}`)},
			},
		})
	}
	path := func(r id.RoomID) string { return "/v1/room_summary/" + url.PathEscape(string(r)) }
	public, private := made("11", `{"join_rule":"public"}`), made("11", `{"join_rule":"invite"}`)
	knock, old := made("11", `{"join_rule":"knock"}`), made("6", `{"join_rule":"knock"}`)
	space := made("11", `{"join_rule":"invite"}`)
	restricted := made("11", `{"join_rule":"restricted","allow":[{"type":"m.room_membership","room_id":"`+string(space)+`"},{"type":"other"}]}`)
	both := made("11", `{"join_rule":"knock_restricted","allow":[{"type":"m.room_membership","room_id":"`+string(space)+`"}]}`)

	for _, p := range []string{
		path(public), "/unstable/im.nheko.summary/rooms/" + url.PathEscape(string(public)) + "/summary",
		"/unstable/im.nheko.summary/summary/" + url.PathEscape(string(public)),
	} {
		got := ok[summary](s, bob, p)
		require.Equal(t, public, got.RoomID)
		require.Equal(t, "Looms", got.Name)
		require.Equal(t, "mxc://x/y", got.Avatar)
		require.Equal(t, 1, got.Joined)
		require.Equal(t, "public", got.Rule)
		require.Equal(t, "m.megolm.v1.aes-sha2", got.Encryption)
		require.Equal(t, "11", got.Version)
		require.Equal(t, "leave", got.Membership)
		require.True(t, *got.Guests)
		require.False(t, *got.World)
	}
	require.Empty(t, ok[summary](s, "", path(public)).Membership)
	require.Equal(t, "join", ok[summary](s, alice, path(private)).Membership)
	require.Equal(t, "knock", ok[summary](s, bob, path(knock)).Rule)
	require.Equal(t, "knock_restricted", ok[summary](s, "", path(both)).Rule)

	for _, r := range []id.RoomID{private, old, restricted, "!none:" + id.RoomID(roomtest.Server)} {
		s.refused("", path(r), 404, "M_NOT_FOUND")
		s.refused(bob, path(r), 404, "M_NOT_FOUND")
	}
	s.Membership(private, alice, bob, room.ActionInvite)
	require.Equal(t, "invite", ok[summary](s, bob, path(private)).Membership)
	s.Membership(space, alice, bob, room.ActionInvite)
	s.refused(bob, path(restricted), 404, "M_NOT_FOUND")
	s.Join(space, bob)
	require.Equal(t, []string{string(space)}, ok[summary](s, bob, path(restricted)).Allowed)
	s.State(old, alice, "m.room.history_visibility", "", `{"history_visibility":"world_readable"}`)
	require.True(t, *ok[summary](s, "", path(old)).World)
	s.Membership(public, alice, eve, room.ActionBan)
	s.refused(eve, path(public), 404, "M_NOT_FOUND")
	require.Equal(t, public, ok[summary](s, bob, path(public)).RoomID)

	alias := id.RoomAlias("#looms:" + string(roomtest.Server))
	s.Do(&room.SetAlias{Alias: alias, Room: public, By: alice})
	require.Equal(t, public, ok[summary](s, bob, "/v1/room_summary/"+url.PathEscape(string(alias))).RoomID)
	s.refused(bob, "/v1/room_summary/%23none:"+string(roomtest.Server), 404, "M_NOT_FOUND")
	s.refused(bob, "/v1/room_summary/%23none:elsewhere.example", 404, "M_NOT_FOUND")
	s.refused(bob, "/v1/room_summary/%23none", 400, "M_INVALID_PARAM")
	s.refused(bob, "/v1/room_summary/none", 400, "M_INVALID_PARAM")

	// Of a room that nobody here is in, nothing is known.
	s.Membership(knock, alice, alice, room.ActionLeave)
	s.refused(bob, path(knock), 404, "M_NOT_FOUND")
}

// space is a hierarchy of rooms that alice made.
type space struct {
	*stack
	alice id.UserID
	ids   map[string]id.RoomID
}

func (s *space) room(name string, isSpace bool) id.RoomID {
	c := room.CreateRoom{Creator: roomtest.As(s.alice), Preset: room.PresetPublic, Name: name}
	if isSpace {
		c.CreationContent = []byte(`{"type":"m.space"}`)
	}
	s.ids[name] = s.Create(c)
	return s.ids[name]
}

func (s *space) child(parent, child, more string) {
	s.State(s.ids[parent], s.alice, "m.space.child", string(s.ids[child]), `{"via":["`+string(roomtest.Server)+`"]`+more+`}`)
}

func (s *space) path(root string) string {
	return "/v1/rooms/" + url.PathEscape(string(s.ids[root])) + "/hierarchy"
}

func TestHierarchy(t *testing.T) {
	alice, bob := roomtest.User("alice"), roomtest.User("bob")
	s := &space{stack: newStack(t), alice: alice, ids: map[string]id.RoomID{}}
	s.users(alice, bob)
	for _, n := range []string{"Root", "SA", "SB", "SC"} {
		s.room(n, true)
	}
	for _, n := range []string{"R1", "R2", "R3", "R4"} {
		s.room(n, false)
	}
	s.ids["away"] = "!away:elsewhere.example"
	// By order first; those without by time.
	s.child("Root", "R2", "")
	s.child("Root", "R1", `,"order":"\u0001"`) // not printable: none
	s.child("Root", "SB", `,"order":"b"`)
	s.child("Root", "SA", `,"order":"a","suggested":true`)
	s.child("SA", "R3", `,"suggested":true`)
	s.child("SA", "away", "")
	s.child("SB", "SC", "")
	s.child("SB", "R3", "")
	s.child("SC", "R4", "")
	s.child("SC", "Root", "")
	s.child("R1", "R4", "") // no space has no children

	all := ok[spaces](s.stack, bob, s.path("Root"))
	require.Equal(t, "Root SA R3 SB SC R4 R2 R1", names(all.Rooms))
	require.Empty(t, all.Next)
	require.Len(t, all.Rooms[0].Children, 4)
	require.Equal(t, "m.space.child", all.Rooms[0].Children[0].Type)
	require.Equal(t, string(s.ids["SA"]), all.Rooms[0].Children[0].StateKey)
	require.Equal(t, string(alice), all.Rooms[0].Children[0].Sender)
	require.NotZero(t, all.Rooms[0].Children[0].TS)
	require.Len(t, all.Rooms[1].Children, 2, "also those that are not known here")
	require.Empty(t, all.Rooms[7].Children)
	require.Equal(t, "m.space", all.Rooms[0].Type)
	require.Equal(t, "public", all.Rooms[7].Rule)
	require.Equal(t, names(all.Rooms), names(ok[spaces](s.stack, bob, "/unstable/org.matrix.msc2946/rooms/"+url.PathEscape(string(s.ids["Root"]))+"/hierarchy").Rooms))

	require.Equal(t, "Root", names(ok[spaces](s.stack, bob, s.path("Root")+"?max_depth=0").Rooms))
	require.Equal(t, "Root SA SB R2 R1", names(ok[spaces](s.stack, bob, s.path("Root")+"?max_depth=1").Rooms))
	suggested := ok[spaces](s.stack, bob, s.path("Root")+"?suggested_only=true")
	require.Equal(t, "Root SA R3", names(suggested.Rooms))
	require.Len(t, suggested.Rooms[0].Children, 1)

	var pages []string
	page := ok[spaces](s.stack, bob, s.path("Root")+"?limit=3")
	pages = append(pages, names(page.Rooms))
	for page.Next != "" {
		page = ok[spaces](s.stack, bob, s.path("Root")+"?limit=3&from="+page.Next)
		pages = append(pages, names(page.Rooms))
	}
	require.Equal(t, []string{"Root SA R3", "SB SC R4", "R2 R1"}, pages)
	from := ok[spaces](s.stack, bob, s.path("Root")+"?limit=1").Next
	s.refused(bob, s.path("Root")+"?max_depth=1&from="+from, 400, "M_INVALID_PARAM")
	s.refused(bob, s.path("Root")+"?suggested_only=true&from="+from, 400, "M_INVALID_PARAM")
	for _, q := range []string{"from=x", "limit=0", "limit=-1", "max_depth=-1", "max_depth=x", "suggested_only=x"} {
		s.refused(bob, s.path("Root")+"?"+q, 400, "M_INVALID_PARAM")
	}

	// A child that is taken back, and a room that is closed, are gone with what is below them.
	s.State(s.ids["Root"], alice, "m.space.child", string(s.ids["R2"]), `{}`)
	s.State(s.ids["SC"], alice, "m.room.join_rules", "", `{"join_rule":"invite"}`)
	require.Equal(t, "Root SA R3 SB R1", names(ok[spaces](s.stack, bob, s.path("Root")).Rooms))
	require.Equal(t, "Root SA R3 SB SC R4 R1", names(ok[spaces](s.stack, alice, s.path("Root")).Rooms))
	s.refused(bob, s.path("SC"), 403, "M_FORBIDDEN")
	s.State(s.ids["SC"], alice, "m.room.join_rules", "", `{"join_rule":"restricted","allow":[{"type":"m.room_membership","room_id":"`+string(s.ids["SB"])+`"}]}`)
	s.refused(bob, s.path("SC"), 403, "M_FORBIDDEN")
	s.Join(s.ids["SB"], bob)
	require.Equal(t, "SC R4 Root SA R3 SB R1", names(ok[spaces](s.stack, bob, s.path("SC")).Rooms))

	s.refused(bob, "/v1/rooms/!none:"+string(roomtest.Server)+"/hierarchy", 403, "M_FORBIDDEN")
	s.refused(bob, "/v1/rooms/none/hierarchy", 400, "M_INVALID_PARAM")
	s.refused("", s.path("Root"), 401, "M_MISSING_TOKEN")
}

// The queries of a page do not grow with the number of rooms.
func TestLobbyQueries(t *testing.T) {
	alice := roomtest.User("alice")
	s := &space{stack: newStack(t), alice: alice, ids: map[string]id.RoomID{}}
	s.users(alice)
	s.room("Root", true)
	s.get(alice, s.path("Root")) // the session is known from then on
	var hierarchy, directory []int64
	for n := range 3 {
		for i := range 1 + 10*n {
			name := fmt.Sprintf("r%d-%d", n, i)
			s.Do(&room.SetVisibility{Room: s.room(name, false), By: alice, Public: true})
			s.child("Root", name, "")
		}
		_, _, q := s.get(alice, s.path("Root"))
		hierarchy = append(hierarchy, q)
		_, _, q = s.get(alice, "/v3/publicRooms")
		directory = append(directory, q)
	}
	require.Len(t, slices.Compact(hierarchy), 1, "%v", hierarchy)
	require.Len(t, slices.Compact(directory), 1, "%v", directory)
}
