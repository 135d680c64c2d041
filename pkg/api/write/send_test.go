package write_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSendMessage(t *testing.T) {
	s := newStack(t)
	s.users("alice", "bob")
	r := s.create("alice", `{}`)
	send := func(txn string) string { return at(r, "/send/m.room.message/"+txn) }

	first := s.call("alice", "PUT", send("t1"), ` {"msgtype":"m.text", "body":"hello", "n":-0}`).ok("event_id")
	e := s.event(first)
	require.Equal(t, "m.room.message", e["type"])
	require.Equal(t, alice, e["sender"])
	require.Equal(t, "hello", e["content"].(map[string]any)["body"])
	require.Equal(t, first, s.call("alice", "PUT", send("t1"), `{"msgtype":"m.text","body":"again"}`).ok("event_id"), "repeated")
	require.NotEqual(t, first, s.call("alice", "PUT", send("t2"), `{"body":"hello"}`).ok("event_id"))
	require.NotEqual(t, first, s.call("alice", "PUT", at(r, "/send/other/t1"), `{"body":"hello"}`).ok("event_id"), "another path")
	s.call("alice", "PUT", send("%2F%20%C3%A9"), `{}`).ok("event_id")
	s.call("alice", "PUT", send("ts")+"?ts=12345", `{}`).ok("event_id")
	require.Greater(t, s.event(first)["origin_server_ts"], float64(12345), "only an application service may set the time")

	target := s.call("alice", "PUT", send("t3"), `{"body":"oops"}`).ok("event_id")
	redaction := s.call("alice", "PUT", at(r, "/send/m.room.redaction/t1"), `{"redacts":"`+target+`","reason":"typo"}`).ok("event_id")
	require.Equal(t, "m.room.redaction", s.event(redaction)["type"])

	react := `{"m.relates_to":{"rel_type":"m.annotation","event_id":"` + first + `","key":"+1"}}`
	s.call("alice", "PUT", at(r, "/send/m.reaction/r1"), react).ok("event_id")
	path := send("bad")
	bad := func(body, code string) refusal { return refusal{"alice", "PUT", path, body, 400, code} }
	s.refuse(t, map[string]refusal{
		"nobody":               {"", "PUT", path, `{}`, 401, "M_MISSING_TOKEN"},
		"not in the room":      {"bob", "PUT", path, `{}`, 403, "M_FORBIDDEN"},
		"unknown room":         {"alice", "PUT", at(unknownRoom, "/send/m.room.message/1"), `{}`, 404, "M_NOT_FOUND"},
		"malformed room":       {"alice", "PUT", badRoom + "/send/m.room.message/1", `{}`, 400, "M_INVALID_PARAM"},
		"no body":              bad(``, "M_NOT_JSON"),
		"no JSON":              bad(`{"a":}`, "M_NOT_JSON"),
		"cut short":            bad(`{"a":"b"`, "M_NOT_JSON"),
		"not UTF-8":            bad("{\"a\":\"\xff\"}", "M_NOT_JSON"),
		"a list":               bad(`[]`, "M_BAD_JSON"),
		"null":                 bad(`null`, "M_BAD_JSON"),
		"a float":              bad(`{"a":1.5}`, "M_BAD_JSON"),
		"a number too large":   bad(`{"a":9007199254740992}`, "M_BAD_JSON"),
		"a name twice":         bad(`{"a":1,"a":2}`, "M_BAD_JSON"),
		"too large":            {"alice", "PUT", path, `{"a":"` + strings.Repeat("x", 70<<10) + `"}`, 413, "M_TOO_LARGE"},
		"transaction too long": {"alice", "PUT", send(strings.Repeat("t", 256)), `{}`, 400, "M_INVALID_PARAM"},
		"reaction twice":       {"alice", "PUT", at(r, "/send/m.reaction/r2"), react, 400, "M_DUPLICATE_ANNOTATION"},
		"redacts nothing":      {"alice", "PUT", at(r, "/send/m.room.redaction/t9"), `{}`, 400, "M_BAD_JSON"},
	})
}

func TestSetState(t *testing.T) {
	s := newStack(t)
	s.users("alice", "bob", "carol")
	r := s.create("alice", `{"preset":"public_chat"}`)
	s.call("bob", "POST", at(r, "/join"), ``).ok("room_id")
	s.call("carol", "PUT", "/profile/"+carol+"/displayname", `{"displayname":"Carol"}`).ok("")
	state := func(rest string) string { return at(r, "/state/"+rest) }

	one := s.call("alice", "PUT", state("m.room.topic"), `{"topic":"x"}`).ok("event_id")
	require.Equal(t, one, s.call("alice", "PUT", state("m.room.topic/"), `{"topic":"x"}`).ok("event_id"), "the same again")
	require.Equal(t, "x", s.state(r, "m.room.topic", "")["topic"])
	s.call("alice", "PUT", state("com.example/some%2Fkey"), `{"a":1}`).ok("event_id")
	require.NotNil(t, s.state(r, "com.example", "some/key"))

	t.Run("members", func(t *testing.T) {
		s := s.in(t)
		s.call("carol", "PUT", state("m.room.member/"+carol), `{"membership":"join","com.example":true}`).ok("event_id")
		require.Equal(t, map[string]any{"membership": "join", "displayname": "Carol", "com.example": true},
			s.state(r, "m.room.member", carol))
		s.call("carol", "PUT", state("m.room.member/"+carol), `{"membership":"join","displayname":"C"}`).ok("event_id")
		require.Equal(t, "C", s.state(r, "m.room.member", carol)["displayname"], "a profile for this room")
		s.call("alice", "PUT", state("m.room.member/"+carol), `{"membership":"leave"}`).ok("event_id")
		require.Equal(t, "leave", s.state(r, "m.room.member", carol)["membership"])
		s.call("alice", "PUT", state("m.room.member/"+carol), `{"membership":"invite"}`).ok("event_id")
		require.Equal(t, "Carol", s.state(r, "m.room.member", carol)["displayname"])
	})
	t.Run("canonical alias", func(t *testing.T) {
		s := s.in(t)
		other := s.create("alice", `{"room_alias_name":"other"}`)
		for _, a := range []string{"a", "b"} {
			s.call("alice", "PUT", "/directory/room/%23"+a+":heddle.test", `{"room_id":"`+string(r)+`"}`).ok("")
		}
		path := state("m.room.canonical_alias")
		s.call("alice", "PUT", path, `{"alias":"#a:heddle.test","alt_aliases":["#b:heddle.test","#b:heddle.test"]}`).ok("event_id")
		s.refuse(t, map[string]refusal{
			"of another room":   {"alice", "PUT", path, `{"alias":"#other:heddle.test"}`, 400, "M_BAD_ALIAS"},
			"of no room":        {"alice", "PUT", path, `{"alt_aliases":["#none:heddle.test"]}`, 400, "M_BAD_ALIAS"},
			"of another server": {"alice", "PUT", path, `{"alt_aliases":["#a:other.example"]}`, 400, "M_BAD_ALIAS"},
			"malformed":         {"alice", "PUT", path, `{"alias":"a"}`, 400, "M_INVALID_PARAM"},
			"malformed other":   {"alice", "PUT", path, `{"alt_aliases":["%%"]}`, 400, "M_INVALID_PARAM"},
			"of wrong type":     {"alice", "PUT", path, `{"alias":1}`, 400, "M_BAD_JSON"},
		})
		// What stands there is not looked up again, even if it is gone.
		s.Exec(`DELETE FROM alias WHERE alias = '#a:heddle.test'`)
		s.call("alice", "PUT", path, `{"alias":"#a:heddle.test"}`).ok("event_id")
		s.call("alice", "PUT", path, `{}`).ok("event_id")
		s.call("alice", "PUT", path, `{"alias":"#a:heddle.test"}`).refused(400, "M_BAD_ALIAS")
		require.Empty(t, s.state(r, "m.room.canonical_alias", ""))
		_ = other
	})

	s.refuse(t, map[string]refusal{
		"not permitted":     {"bob", "PUT", state("m.room.topic"), `{"topic":"y"}`, 403, "M_FORBIDDEN"},
		"not in the room":   {"carol", "PUT", state("m.room.topic"), `{"topic":"y"}`, 403, "M_FORBIDDEN"},
		"another's key":     {"bob", "PUT", state("com.example/" + alice), `{}`, 403, "M_FORBIDDEN"},
		"unknown room":      {"alice", "PUT", at(unknownRoom, "/state/m.room.topic"), `{}`, 404, "M_NOT_FOUND"},
		"malformed room":    {"alice", "PUT", badRoom + "/state/m.room.topic", `{}`, 400, "M_INVALID_PARAM"},
		"no body":           {"alice", "PUT", state("m.room.topic"), ``, 400, "M_NOT_JSON"},
		"no JSON":           {"alice", "PUT", state("m.room.topic"), `x`, 400, "M_NOT_JSON"},
		"a list":            {"alice", "PUT", state("m.room.topic"), `[]`, 400, "M_BAD_JSON"},
		"create":            {"alice", "PUT", state("m.room.create"), `{}`, 400, "M_INVALID_PARAM"},
		"no membership":     {"alice", "PUT", state("m.room.member/" + bob), `{}`, 400, "M_BAD_JSON"},
		"bad membership":    {"alice", "PUT", state("m.room.member/" + bob), `{"membership":"guest"}`, 400, "M_BAD_JSON"},
		"member of no user": {"alice", "PUT", state("m.room.member/bob"), `{"membership":"ban"}`, 400, "M_INVALID_PARAM"},
		"invite elsewhere":  {"alice", "PUT", state("m.room.member/@x:other.example"), `{"membership":"invite"}`, 403, "M_FORBIDDEN"},
		"join for another":  {"alice", "PUT", state("m.room.member/" + carol), `{"membership":"join"}`, 403, "M_FORBIDDEN"},
		"nobody":            {"", "PUT", state("m.room.topic"), `{}`, 401, "M_MISSING_TOKEN"},
	})
}

func TestRedact(t *testing.T) {
	s := newStack(t)
	s.users("alice", "bob", "carol")
	r := s.create("alice", `{"preset":"public_chat"}`)
	s.call("bob", "POST", at(r, "/join"), ``).ok("room_id")
	by := func(user string) string {
		return s.call(user, "PUT", at(r, "/send/m.room.message/"+user), `{"body":"x"}`).ok("event_id")
	}
	alices, bobs := by("alice"), by("bob")
	redact := func(event, txn string) string { return at(r, "/redact/"+event+"/"+txn) }

	one := s.call("bob", "PUT", redact(bobs, "1"), `{"reason":"mine"}`).ok("event_id")
	require.Equal(t, "mine", s.event(one)["content"].(map[string]any)["reason"])
	require.Equal(t, one, s.call("bob", "PUT", redact(bobs, "1"), ``).ok("event_id"), "repeated")
	s.call("alice", "PUT", redact(bobs, "1"), ``).ok("event_id")
	s.refuse(t, map[string]refusal{
		"another's":       {"bob", "PUT", redact(alices, "2"), `{}`, 403, "M_FORBIDDEN"},
		"not in the room": {"carol", "PUT", redact(alices, "2"), `{}`, 403, "M_FORBIDDEN"},
		"unknown event":   {"bob", "PUT", redact("$nothing", "2"), `{}`, 404, "M_NOT_FOUND"},
		"malformed event": {"bob", "PUT", redact("nothing", "2"), `{}`, 400, "M_INVALID_PARAM"},
		"unknown room":    {"bob", "PUT", at(unknownRoom, "/redact/"+bobs+"/2"), `{}`, 404, "M_NOT_FOUND"},
		"malformed room":  {"bob", "PUT", badRoom + "/redact/" + bobs + "/2", `{}`, 400, "M_INVALID_PARAM"},
		"reason a number": {"bob", "PUT", redact(bobs, "2"), `{"reason":1}`, 400, "M_BAD_JSON"},
		"no JSON":         {"bob", "PUT", redact(bobs, "2"), `{`, 400, "M_NOT_JSON"},
		"nobody":          {"", "PUT", redact(bobs, "2"), `{}`, 401, "M_MISSING_TOKEN"},
	})
}
