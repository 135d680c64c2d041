package write_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// receipts gives the event of each receipt of a user in a room, by kind and thread.
func (s *stack) receipts(user string, r id.RoomID) map[string]string {
	s.T.Helper()
	room, ok, err := s.Reader.Room(s.Ctx(), s.Shards.Of(string(r)), string(r))
	require.NoError(s.T, err)
	require.True(s.T, ok)
	rows, err := s.Reader.ReceiptsOf(s.Ctx(), room.Nid, string(roomtest.User(user)))
	require.NoError(s.T, err)
	out := map[string]string{}
	for _, row := range rows {
		out[row.Kind+"/"+row.Thread] = row.EventID
	}
	return out
}

func TestReceipts(t *testing.T) {
	s := newStack(t)
	s.users("alice", "bob")
	r := s.create("alice", `{}`)
	other := s.create("alice", `{}`)
	var e []string
	for _, txn := range []string{"1", "2", "3"} {
		e = append(e, s.call("alice", "PUT", at(r, "/send/m.room.message/"+txn), `{}`).ok("event_id"))
	}
	elsewhere := s.call("alice", "PUT", at(other, "/send/m.room.message/1"), `{}`).ok("event_id")
	threaded := s.call("alice", "PUT", at(r, "/send/m.room.message/4"), `{"m.relates_to":{"rel_type":"m.thread","event_id":"`+e[0]+`"}}`).ok("event_id")
	path := func(kind, event string) string { return at(r, "/receipt/"+kind+"/"+event) }

	s.call("alice", "POST", path("m.read", e[1]), `{}`).ok("")
	s.call("alice", "POST", path("m.read", e[0]), ``).ok("") // backward: nothing
	s.call("alice", "POST", path("m.read.private", e[2]), `{"thread_id":"main"}`).ok("")
	s.call("alice", "POST", path("m.read", threaded), `{"thread_id":"`+e[0]+`"}`).ok("")
	require.Equal(t, map[string]string{"m.read/": e[1], "m.read.private/main": e[2], "m.read/" + e[0]: threaded}, s.receipts("alice", r))
	s.call("alice", "POST", path("m.fully_read", e[0]), `{}`).ok("")
	require.Equal(t, map[string]any{"event_id": e[0]}, s.accountData("alice", r, "m.fully_read"))

	markers := at(r, "/read_markers")
	s.call("alice", "POST", markers, `{"m.fully_read":"`+e[2]+`","m.read":"`+e[2]+`","m.read.private":"`+e[1]+`"}`).ok("")
	require.Equal(t, map[string]any{"event_id": e[2]}, s.accountData("alice", r, "m.fully_read"))
	require.Equal(t, e[2], s.receipts("alice", r)["m.read/"])
	require.Equal(t, e[1], s.receipts("alice", r)["m.read.private/"])
	s.call("alice", "POST", markers, `{}`).ok("")

	s.refuse(t, map[string]refusal{
		"unknown type":           {"alice", "POST", path("m.seen", e[0]), `{}`, 400, "M_INVALID_PARAM"},
		"malformed event":        {"alice", "POST", path("m.read", "x"), `{}`, 400, "M_INVALID_PARAM"},
		"thread a number":        {"alice", "POST", path("m.read", e[2]), `{"thread_id":1}`, 400, "M_INVALID_PARAM"},
		"thread null":            {"alice", "POST", path("m.read", e[2]), `{"thread_id":null}`, 400, "M_INVALID_PARAM"},
		"thread empty":           {"alice", "POST", path("m.read", e[2]), `{"thread_id":""}`, 400, "M_INVALID_PARAM"},
		"another thread":         {"alice", "POST", path("m.read", e[2]), `{"thread_id":"` + e[0] + `"}`, 400, "M_INVALID_PARAM"},
		"not of the main thread": {"alice", "POST", path("m.read", threaded), `{"thread_id":"main"}`, 400, "M_INVALID_PARAM"},
		"thread no event":        {"alice", "POST", path("m.read", e[2]), `{"thread_id":"side"}`, 400, "M_INVALID_PARAM"},
		"thread of a marker":     {"alice", "POST", path("m.fully_read", e[2]), `{"thread_id":"main"}`, 400, "M_INVALID_PARAM"},
		"body a list":            {"alice", "POST", path("m.read", e[2]), `[]`, 400, "M_BAD_JSON"},
		"no JSON":                {"alice", "POST", path("m.read", e[2]), `{`, 400, "M_NOT_JSON"},
		"not in the room":        {"bob", "POST", path("m.read", e[2]), `{}`, 403, "M_FORBIDDEN"},
		"marker not in the room": {"bob", "POST", path("m.fully_read", e[2]), `{}`, 403, "M_FORBIDDEN"},
		"event of another room":  {"alice", "POST", path("m.read", elsewhere), `{}`, 404, "M_NOT_FOUND"},
		"marker of another room": {"alice", "POST", path("m.fully_read", elsewhere), `{}`, 404, "M_NOT_FOUND"},
		"unknown room":           {"alice", "POST", at(unknownRoom, "/receipt/m.read/"+e[0]), `{}`, 404, "M_NOT_FOUND"},
		"malformed room":         {"alice", "POST", badRoom + "/receipt/m.read/" + e[0], `{}`, 400, "M_INVALID_PARAM"},
		"markers: number":        {"alice", "POST", markers, `{"m.read":1}`, 400, "M_BAD_JSON"},
		"markers: malformed":     {"alice", "POST", markers, `{"m.read":"` + e[2] + `","m.fully_read":"x"}`, 400, "M_INVALID_PARAM"},
		"markers: no body":       {"alice", "POST", markers, ``, 400, "M_NOT_JSON"},
		"markers: no member":     {"bob", "POST", markers, `{"m.fully_read":"` + e[2] + `"}`, 403, "M_FORBIDDEN"},
		"markers: another room":  {"alice", "POST", markers, `{"m.fully_read":"` + elsewhere + `"}`, 404, "M_NOT_FOUND"},
		"markers: bad room":      {"alice", "POST", badRoom + "/read_markers", `{}`, 400, "M_INVALID_PARAM"},
	})
	require.Equal(t, map[string]any{"event_id": e[2]}, s.accountData("alice", r, "m.fully_read"), "nothing refused was done")
}

func TestTyping(t *testing.T) {
	s := newStack(t)
	s.users("alice", "bob")
	r := s.create("alice", `{}`)
	path := at(r, "/typing/"+alice)
	s.call("alice", "PUT", path, `{"typing":true,"timeout":30000}`).ok("")
	require.Equal(t, []id.UserID{alice}, (<-s.Typing).Users)
	s.call("alice", "PUT", path, `{"typing":false}`).ok("")
	require.Empty(t, (<-s.Typing).Users)
	s.refuse(t, map[string]refusal{
		"for another":      {"alice", "PUT", at(r, "/typing/"+bob), `{"typing":true}`, 403, "M_FORBIDDEN"},
		"for nobody":       {"alice", "PUT", at(r, "/typing/x"), `{"typing":true}`, 400, "M_INVALID_PARAM"},
		"not in the room":  {"bob", "PUT", at(r, "/typing/"+bob), `{"typing":true}`, 403, "M_FORBIDDEN"},
		"says nothing":     {"alice", "PUT", path, `{}`, 400, "M_MISSING_PARAM"},
		"a string":         {"alice", "PUT", path, `{"typing":"yes"}`, 400, "M_BAD_JSON"},
		"timeout string":   {"alice", "PUT", path, `{"typing":true,"timeout":"long"}`, 400, "M_BAD_JSON"},
		"timeout negative": {"alice", "PUT", path, `{"typing":true,"timeout":-1}`, 400, "M_INVALID_PARAM"},
		"no body":          {"alice", "PUT", path, ``, 400, "M_NOT_JSON"},
		"unknown room":     {"alice", "PUT", at(unknownRoom, "/typing/"+alice), `{"typing":true}`, 404, "M_NOT_FOUND"},
		"malformed room":   {"alice", "PUT", badRoom + "/typing/" + alice, `{"typing":true}`, 400, "M_INVALID_PARAM"},
	})
}

func TestTags(t *testing.T) {
	s := newStack(t)
	s.users("alice", "bob")
	r := s.create("alice", `{}`)
	path := func(tag string) string { return "/user/" + alice + at(r, "/tags/"+tag) }
	s.call("alice", "PUT", path("m.favourite"), `{ "order": 0.25 }`).ok("")
	s.call("alice", "PUT", path("u.%3Cwork%3E"), `{}`).ok("")
	s.call("alice", "PUT", path("u.%3Cwork%3E"), `{"x":"<&>"}`).ok("")
	require.Equal(t, map[string]any{"tags": map[string]any{
		"m.favourite": map[string]any{"order": 0.25}, "u.<work>": map[string]any{"x": "<&>"},
	}}, s.accountData("alice", r, "m.tag"))
	s.call("alice", "DELETE", path("m.favourite"), ``).ok("")
	s.call("alice", "DELETE", path("m.favourite"), ``).ok("")
	require.Equal(t, map[string]any{"tags": map[string]any{"u.<work>": map[string]any{"x": "<&>"}}}, s.accountData("alice", r, "m.tag"))

	t.Run("at once", func(t *testing.T) {
		s := s.in(t)
		done := make(chan struct{})
		names := strings.Split("abcdefghij", "")
		for _, n := range names {
			go func() {
				defer func() { done <- struct{}{} }()
				s.call("alice", "PUT", path("u."+n), `{}`).ok("")
			}()
		}
		for range names {
			<-done
		}
		require.Len(t, s.accountData("alice", r, "m.tag")["tags"], 1+len(names), "none is lost")
	})
	t.Run("over what is no tags", func(t *testing.T) {
		s := s.in(t)
		s.call("alice", "PUT", "/user/"+alice+at(r, "/account_data/m.tag"), `{"tags":[1],"else":2}`).ok("")
		s.call("alice", "PUT", path("u.x"), `{}`).ok("")
		require.Equal(t, map[string]any{"tags": map[string]any{"u.x": map[string]any{}}, "else": 2.0}, s.accountData("alice", r, "m.tag"))
	})
	s.refuse(t, map[string]refusal{
		"of another":     {"bob", "PUT", path("u.x"), `{}`, 403, "M_FORBIDDEN"},
		"delete another": {"bob", "DELETE", path("u.x"), ``, 403, "M_FORBIDDEN"},
		"too long":       {"alice", "PUT", path(strings.Repeat("t", 256)), `{}`, 400, "M_INVALID_PARAM"},
		"no body":        {"alice", "PUT", path("u.x"), ``, 400, "M_NOT_JSON"},
		"a list":         {"alice", "PUT", path("u.x"), `[]`, 400, "M_BAD_JSON"},
		"order a string": {"alice", "PUT", path("u.x"), `{"order":"first"}`, 400, "M_BAD_JSON"},
		"malformed room": {"alice", "PUT", "/user/" + alice + badRoom + "/tags/u.x", `{}`, 400, "M_INVALID_PARAM"},
		"nobody":         {"", "PUT", path("u.x"), `{}`, 401, "M_MISSING_TOKEN"},
	})
}

func TestDeleteAccountData(t *testing.T) {
	s := newStack(t)
	s.users("alice", "bob")
	r := s.create("alice", `{}`)
	const base = "/_matrix/client/unstable/org.matrix.msc3391"
	del := func(user, path string) reply {
		s.T.Helper()
		return s.raw(user, "DELETE", base+path, "")
	}
	global, of := "/user/"+alice+"/account_data/", "/user/"+alice+at(r, "/account_data/")
	s.call("alice", "PUT", global+"com.example", `{"a":1}`).ok("")
	s.call("alice", "PUT", of+"com.example", `{"a":2}`).ok("")
	del("alice", global+"com.example").ok("")
	require.Equal(t, map[string]any{}, s.accountData("alice", "", "com.example"))
	require.Equal(t, map[string]any{"a": 2.0}, s.accountData("alice", r, "com.example"))
	del("alice", of+"com.example").ok("")
	require.Equal(t, map[string]any{}, s.accountData("alice", r, "com.example"))
	del("bob", global+"com.example").refused(403, "M_FORBIDDEN")
	del("alice", of+"m.fully_read").refused(405, "M_BAD_JSON")
	del("alice", global+"m.push_rules").refused(405, "M_BAD_JSON")
	del("alice", "/user/"+alice+"/rooms/x/account_data/com.example").refused(400, "M_INVALID_PARAM")
	del("", global+"com.example").refused(401, "M_MISSING_TOKEN")
}
