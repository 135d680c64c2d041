package fedtest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/testkit/fedtest"
)

// What a server says besides events counts of its own users only, in rooms that it is in, and however it is said nothing else suffers: what is said
// properly after it, in the same transaction, comes in.
func TestHostileEDUs(t *testing.T) {
	s := newStage(t)
	p := s.enter(t, roomver.V11, "mallory")
	room, me := string(p.Room), string(p.User)
	bystander := s.alice.Create(t, "11", nil) // nobody of the other server is in it
	here := s.alice.Say(t, room, "read this")
	there := s.alice.Say(t, bystander, "read that")
	foreign := "@bob:" + string(fedtest.Nowhere(t))
	s.alice.Sees(t, bystander, there)
	edu := func(typ, content string) json.RawMessage {
		return json.RawMessage(fmt.Sprintf(`{"edu_type":%q,"content":%s}`, typ, content))
	}
	message := func(n int, sender, to, device string) json.RawMessage {
		return edu("m.direct_to_device", fmt.Sprintf(
			`{"sender":%q,"type":"m.test","message_id":"bad%d","messages":{%q:{%q:{"bad":true}}}}`, sender, n, to, device))
	}
	var bad []json.RawMessage
	for i, u := range []string{s.alice.User, foreign, "mallory", "", "@ :" + string(s.remote.Name) + "/"} {
		bad = append(bad,
			edu("m.typing", fmt.Sprintf(`{"room_id":%q,"user_id":%q,"typing":true}`, room, u)),
			edu("m.receipt", fmt.Sprintf(`{%q:{"m.read":{%q:{"data":{"ts":1},"event_ids":[%q]}}}}`, room, u, here)),
			edu("m.presence", fmt.Sprintf(`{"push":[{"user_id":%q,"presence":"unavailable"}]}`, u)),
			edu("m.device_list_update", fmt.Sprintf(`{"user_id":%q,"device_id":"X","stream_id":%d,"prev_id":[]}`, u, i)),
			edu("m.signing_key_update", fmt.Sprintf(`{"user_id":%q,"master_key":{"user_id":%q,"usage":["master"],"keys":{"ed25519:x":"x"}}}`, u, u)),
			message(i, u, s.alice.User, s.alice.Device))
	}
	bad = append(bad,
		edu("m.typing", fmt.Sprintf(`{"room_id":%q,"user_id":%q,"typing":true}`, bystander, me)),
		edu("m.typing", fmt.Sprintf(`{"room_id":%q,"user_id":%q,"typing":true}`, "!nothing:nowhere.test", me)),
		edu("m.receipt", fmt.Sprintf(`{%q:{"m.read":{%q:{"data":{"ts":1},"event_ids":[%q]}}}}`, bystander, me, there)),
		message(10, me, foreign, "*"), message(11, me, "@nobody:"+string(s.home.Name), "*"), message(12, me, "nobody", "*"),
		edu("m.direct_to_device", `{"sender":5,"messages":[]}`), edu("m.direct_to_device", fmt.Sprintf(`{"sender":%q,"type":"x"}`, me)),
		edu("m.device_list_update", fmt.Sprintf(`{"user_id":%q,"device_id":["X"],"stream_id":"no","prev_id":{}}`, me)),
		edu("m.receipt", fmt.Sprintf(`{%q:{"m.read":{%q:{"data":{"ts":"x"},"event_ids":%q}}}}`, room, me, here)),
		edu("m.receipt", fmt.Sprintf(`{%q:{"m.read":{%q:{"data":{"ts":1},"event_ids":[""]}}}}`, room, me)),
		edu("m.presence", `{"push":[null,5,{"user_id":[]}]}`), edu("m.nothing", `{}`), edu("", `{}`))
	for _, typ := range []string{"m.typing", "m.receipt", "m.presence", "m.device_list_update", "m.direct_to_device", "m.signing_key_update"} {
		for _, content := range []string{`[]`, `null`, `5`, `"x"`, `{}`, strings.Repeat(`{"a":`, 200) + `1` + strings.Repeat(`}`, 200)} {
			bad = append(bad, edu(typ, content))
		}
	}
	send := func(n int, edus ...json.RawMessage) {
		t.Helper()
		status, _ := s.remote.Transaction(t, s.home, fmt.Sprint("edus ", n), nil, edus)
		require.Equal(t, http.StatusOK, status)
	}
	s.undisturbed(t, func() {
		n := 0
		for part := range slices.Chunk(bad, 99) {
			n++
			send(n, append(slices.Clone(part), edu("m.direct_to_device", fmt.Sprintf(
				`{"sender":%q,"type":"m.test","message_id":"good%d","messages":{%q:{%q:{"good":%d}}}}`, me, n, s.alice.User, s.alice.Device, n)))...)
		}
		// The same message again, in another transaction, and to all devices: once.
		again := edu("m.direct_to_device", fmt.Sprintf(
			`{"sender":%q,"type":"m.test","message_id":"again","messages":{%q:{"*":{"good":"again"}}}}`, me, s.alice.User))
		send(100, again, again)
		send(101, again)
		send(102, edu("m.typing", fmt.Sprintf(`{"room_id":%q,"user_id":%q,"typing":true}`, room, me)),
			edu("m.receipt", fmt.Sprintf(`{%q:{"m.read":{%q:{"data":{"ts":1},"event_ids":[%q]}}}}`, room, me, here)),
			edu("m.presence", fmt.Sprintf(`{"push":[{"user_id":%q,"presence":"online","currently_active":true}]}`, me)),
			edu("m.device_list_update", fmt.Sprintf(`{"user_id":%q,"device_id":"X","stream_id":1,"prev_id":[],"keys":{"user_id":%q,"device_id":"X","algorithms":[],"keys":{}}}`, me, me)))
		for what, is := range map[string]func(seen *fedtest.Seen) bool{
			"typing":   func(seen *fedtest.Seen) bool { return slices.Contains(seen.Typing[room], me) },
			"receipt":  func(seen *fedtest.Seen) bool { return seen.Read[room][me] == here },
			"presence": func(seen *fedtest.Seen) bool { return seen.Presence[me] == "online" },
			"devices":  func(seen *fedtest.Seen) bool { return seen.Changed[me] },
			"message": func(seen *fedtest.Seen) bool {
				return slices.ContainsFunc(seen.ToDevice, func(e fedtest.Event) bool { return e.Content["good"] == "again" })
			},
		} {
			s.alice.Until(t, what, is)
		}
	})
	require.Eventually(t, func() bool {
		var left int
		require.NoError(t, s.home.DB.Pool.QueryRow(t.Context(), "SELECT count(*) FROM staged_edu").Scan(&left))
		return left == 0
	}, patience, tick)
	s.alice.Sync(t, false)
	seen := &s.alice.Seen
	require.Equal(t, []string{me}, seen.Typing[room])
	require.Empty(t, seen.Typing[bystander])
	require.NotContains(t, seen.Read[bystander], me)
	require.NotContains(t, seen.Read[room], foreign)
	require.NotContains(t, seen.Read[room], s.alice.User)
	require.NotEqual(t, "unavailable", seen.Presence[s.alice.User])
	require.NotContains(t, seen.Presence, foreign)
	require.NotContains(t, seen.Changed, foreign)
	count := 0
	for _, e := range seen.ToDevice {
		require.Equal(t, me, e.Sender)
		require.NotContains(t, e.Content, "bad")
		if e.Content["good"] == "again" {
			count++
		}
	}
	require.Equal(t, 1, count)
	keys := s.alice.Must(t, "POST", "/keys/query", map[string]any{"device_keys": map[string]any{s.alice.User: []string{}}})
	require.NotContains(t, fmt.Sprint(keys["master_keys"]), "ed25519:x")
}
