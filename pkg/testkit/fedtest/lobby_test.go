package fedtest_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/testkit/certtest"
	"github.com/heddle-im/heddle/pkg/testkit/fedtest"
)

// names gives the names of the rooms of an answer.
func names(answer map[string]any, list string) (out []string) {
	rooms, _ := answer[list].([]any)
	for _, r := range rooms {
		name, _ := r.(map[string]any)["name"].(string)
		out = append(out, name)
	}
	return out
}

// v1 asks what is served under /_matrix/client/v1.
func v1(t *testing.T, u *fedtest.User, path string) (answer map[string]any, status int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u.URL+"/_matrix/client/v1"+path, http.NoBody)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+u.Token)
	resp, err := u.HTTP.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&answer))
	return answer, resp.StatusCode
}

// What rooms show to those outside is told to users of other servers: the directory, with search and pages, summaries, and spaces as far as the user may
// know of them.
func TestLobbyOfAnotherServer(t *testing.T) {
	ca := certtest.NewAuthority(t)
	one, two := fedtest.Run(t, ca, "127.0.0.1"), fedtest.Run(t, ca, "localhost")
	alice, bob := one.NewUser(t, "alice"), two.NewUser(t, "bob")
	t.Run("there", func(t *testing.T) { lobby(t, alice, bob) })
	t.Run("back", func(t *testing.T) { lobby(t, bob, alice) })
}

func lobby(t *testing.T, alice, bob *fedtest.User) {
	one := alice.Home
	via := []string{string(one.Name)}
	open := func(name string, more map[string]any) string {
		body := map[string]any{"preset": "public_chat", "visibility": "public", "name": name}
		for k, v := range more {
			body[k] = v
		}
		return alice.Create(t, "11", body)
	}
	space := map[string]any{"creation_content": map[string]any{"type": "m.space"}}
	loft := open("the loft", map[string]any{"topic": "yarn"})
	mill := open("the mill", space)
	shed := open("the shed", map[string]any{"creation_content": map[string]any{"type": "m.space"}, "visibility": "private"})
	secret := alice.Create(t, "11", map[string]any{"name": "the vault"})
	inner := open("the inner room", map[string]any{"visibility": "private"})
	guild := alice.Create(t, "11", map[string]any{"name": "the guild", "initial_state": []map[string]any{{
		"type": "m.room.join_rules", "content": map[string]any{
			"join_rule": "restricted", "allow": []map[string]any{{"type": "m.room_membership", "room_id": loft}},
		},
	}}})
	for _, c := range []string{loft, shed, secret, guild} {
		alice.Set(t, mill, "m.space.child", c, map[string]any{"via": via, "order": c[:1], "suggested": c == loft})
	}
	alice.Set(t, shed, "m.space.child", inner, map[string]any{"via": via})

	directory := "/publicRooms?server=" + url.QueryEscape(string(one.Name))
	require.ElementsMatch(t, []string{"the loft", "the mill"}, names(bob.Must(t, "GET", directory, nil), "chunk"))
	found := bob.Must(t, "POST", directory, map[string]any{"filter": map[string]any{"generic_search_term": "YARN"}})
	require.Equal(t, []string{"the loft"}, names(found, "chunk"))
	found = bob.Must(t, "POST", directory, map[string]any{"filter": map[string]any{"room_types": []any{"m.space"}}})
	require.Equal(t, []string{"the mill"}, names(found, "chunk"))
	first := bob.Must(t, "GET", directory+"&limit=1", nil)
	second := bob.Must(t, "GET", directory+"&limit=1&since="+url.QueryEscape(first["next_batch"].(string)), nil)
	require.ElementsMatch(t, []string{"the loft", "the mill"}, append(names(first, "chunk"), names(second, "chunk")...))
	status, _ := bob.Refused(t, "GET", "/publicRooms?server="+url.QueryEscape(string(fedtest.Nowhere(t))), nil)
	require.Equal(t, http.StatusBadGateway, status)

	// A space that nobody here is in: by one of ours that leads there.
	root := bob.Create(t, "11", map[string]any{"preset": "public_chat", "name": "our own", "creation_content": map[string]any{"type": "m.space"}})
	bob.Set(t, root, "m.space.child", mill, map[string]any{"via": via})
	walk := func(u *fedtest.User, room, more string) []string {
		var out []string
		from := ""
		for {
			a, status := v1(t, u, "/rooms/"+url.PathEscape(room)+"/hierarchy?limit=2"+more+from)
			require.Equal(t, 200, status)
			out = append(out, names(a, "rooms")...)
			next, _ := a["next_batch"].(string)
			if next == "" {
				return out
			}
			from = "&from=" + url.QueryEscape(next)
		}
	}
	require.ElementsMatch(t, []string{"our own", "the mill", "the loft", "the shed", "the inner room"}, walk(bob, root, ""))
	require.Equal(t, []string{"the mill", "the loft"}, walk(bob, mill, "&suggested_only=true"), "by the server in its id")
	require.ElementsMatch(t, []string{"our own", "the mill"}, walk(bob, root, "&max_depth=1"))

	summary := func(room string) (map[string]any, int) {
		return v1(t, bob, "/room_summary/"+url.PathEscape(room)+"?via="+url.QueryEscape(string(one.Name)))
	}
	s, status := summary(loft)
	require.Equal(t, 200, status)
	require.Equal(t, "yarn", s["topic"])
	require.Equal(t, "leave", s["membership"])
	for _, closed := range []string{secret, guild} {
		_, status = summary(closed)
		require.Equal(t, 404, status)
	}
	bob.Join(t, loft, one) // whose members may join the guild
	alice.SeesMember(t, loft, bob, "join")
	s, status = summary(guild)
	require.Equal(t, 200, status)
	require.Equal(t, []any{loft}, s["allowed_room_ids"])
}
