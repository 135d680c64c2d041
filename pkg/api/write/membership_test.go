package write_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/write"
	"github.com/heddle-im/heddle/pkg/infra/soft"
	"github.com/heddle-im/heddle/pkg/route"
)

// at gives the path of a room's endpoint.
func at[S ~string](room S, rest string) string { return "/rooms/" + string(room) + rest }

const (
	unknownRoom = "!nowhere:heddle.test"
	badRoom     = "/rooms/nowhere"
)

func TestJoin(t *testing.T) {
	s := newStack(t)
	s.users("alice", "bob", "carol", "dave")
	public := s.create("alice", `{"preset":"public_chat","room_alias_name":"public"}`)
	private := s.create("alice", `{"invite":["`+bob+`"]}`)
	s.call("carol", "PUT", "/profile/"+carol+"/displayname", `{"displayname":"Carol"}`).ok("")

	require.Equal(t, string(private), s.call("bob", "POST", at(private, "/join"), `{"reason":"hello"}`).ok("room_id"))
	require.Equal(t, "hello", s.state(private, "m.room.member", bob)["reason"])
	require.Equal(t, string(public), s.call("bob", "POST", "/join/"+string(public), ``).ok("room_id"))
	require.Equal(t, string(public), s.call("carol", "POST", "/join/%23public:heddle.test", `{}`).ok("room_id"))
	require.Equal(t, "Carol", s.state(public, "m.room.member", carol)["displayname"])
	require.Equal(t, string(public), s.call("carol", "POST", at(public, "/join"), ``).ok("room_id"), "joined already")

	s.call("alice", "POST", at(public, "/ban"), `{"user_id":"@dave:heddle.test"}`).ok("")
	s.refuse(t, map[string]refusal{
		"not invited":              {"carol", "POST", at(private, "/join"), ``, 403, "M_FORBIDDEN"},
		"banned":                   {"dave", "POST", at(public, "/join"), ``, 403, "M_FORBIDDEN"},
		"unknown room":             {"bob", "POST", at(unknownRoom, "/join"), ``, 404, "M_NOT_FOUND"},
		"unknown room by join":     {"bob", "POST", "/join/" + unknownRoom, ``, 404, "M_NOT_FOUND"},
		"unknown alias":            {"bob", "POST", "/join/%23nowhere:heddle.test", ``, 404, "M_NOT_FOUND"},
		"alias of another server":  {"bob", "POST", "/join/%23public:other.example", ``, 404, "M_NOT_FOUND"},
		"neither room nor alias":   {"bob", "POST", "/join/nowhere", ``, 400, "M_INVALID_PARAM"},
		"malformed alias":          {"bob", "POST", "/join/%23public", ``, 400, "M_INVALID_PARAM"},
		"malformed room":           {"bob", "POST", badRoom + "/join", ``, 400, "M_INVALID_PARAM"},
		"an alias where a room is": {"bob", "POST", "/rooms/%23public:heddle.test/join", ``, 400, "M_INVALID_PARAM"},
		"no JSON":                  {"bob", "POST", at(public, "/join"), `{`, 400, "M_NOT_JSON"},
		"reason is a number":       {"bob", "POST", at(public, "/join"), `{"reason":1}`, 400, "M_BAD_JSON"},
		"third party":              {"bob", "POST", at(public, "/join"), `{"third_party_signed":{}}`, 403, "M_THREEPID_DENIED"},
		"nobody":                   {"", "POST", at(public, "/join"), ``, 401, "M_MISSING_TOKEN"},
	})
}

func TestKnock(t *testing.T) {
	s := newStack(t)
	s.users("alice", "bob")
	open := s.create("alice", `{"room_alias_name":"open","initial_state":[{"type":"m.room.join_rules","content":{"join_rule":"knock"}}]}`)
	shut := s.create("alice", `{}`)
	require.Equal(t, string(open), s.call("bob", "POST", "/knock/%23open:heddle.test", `{"reason":"please"}`).ok("room_id"))
	member := s.state(open, "m.room.member", bob)
	require.Equal(t, "knock", member["membership"])
	require.Equal(t, "please", member["reason"])
	s.call("alice", "POST", at(open, "/invite"), `{"user_id":"`+bob+`"}`).ok("")
	s.call("bob", "POST", at(open, "/join"), ``).ok("room_id")
	s.refuse(t, map[string]refusal{
		"a member":          {"bob", "POST", "/knock/" + string(open), ``, 403, "M_FORBIDDEN"},
		"no knocking there": {"bob", "POST", "/knock/" + string(shut), ``, 403, "M_FORBIDDEN"},
		"unknown room":      {"bob", "POST", "/knock/" + unknownRoom, ``, 404, "M_NOT_FOUND"},
		"unknown alias":     {"bob", "POST", "/knock/%23x:heddle.test", ``, 404, "M_NOT_FOUND"},
		"malformed":         {"bob", "POST", "/knock/x", ``, 400, "M_INVALID_PARAM"},
		"reason is a list":  {"bob", "POST", "/knock/" + string(open), `{"reason":[]}`, 400, "M_BAD_JSON"},
	})
}

func TestInviteKickBan(t *testing.T) {
	s := newStack(t)
	s.users("alice", "bob", "carol", "dave")
	r := s.create("alice", `{"power_level_content_override":{"invite":50}}`)
	user := func(u string) string { return `{"user_id":"` + u + `","reason":"why"}` }
	membership := func(u string) any { return s.state(r, "m.room.member", u)["membership"] }

	s.call("alice", "POST", at(r, "/invite"), user(bob)).ok("")
	require.Equal(t, "invite", membership(bob))
	require.Equal(t, "why", s.state(r, "m.room.member", bob)["reason"])
	s.call("alice", "POST", at(r, "/invite"), user(bob)).ok("")
	s.call("bob", "POST", at(r, "/join"), ``).ok("room_id")
	s.call("alice", "POST", at(r, "/kick"), user(bob)).ok("")
	require.Equal(t, "leave", membership(bob))
	s.call("alice", "POST", at(r, "/invite"), user(bob)).ok("")
	s.call("bob", "POST", at(r, "/join"), ``).ok("room_id")
	s.call("alice", "POST", at(r, "/ban"), user(carol)).ok("")
	require.Equal(t, "ban", membership(carol))

	cases := map[string]refusal{
		"invite: nothing to do it with": {"bob", "POST", at(r, "/invite"), user("@dave:heddle.test"), 403, "M_FORBIDDEN"},
		"invite: banned":                {"alice", "POST", at(r, "/invite"), user(carol), 403, "M_FORBIDDEN"},
		"invite: joined":                {"alice", "POST", at(r, "/invite"), user(bob), 403, "M_FORBIDDEN"},
		"invite: other server":          {"alice", "POST", at(r, "/invite"), user("@x:other.example"), 403, "M_FORBIDDEN"},
		"invite: by address, short":     {"alice", "POST", at(r, "/invite"), `{"medium":"email"}`, 400, "M_MISSING_PARAM"},
		"invite: by address": {
			"alice", "POST", at(r, "/invite"),
			`{"medium":"email","address":"a@b.c","id_server":"is.example","id_access_token":"x"}`, 400, "M_SERVER_NOT_TRUSTED",
		},
		"kick: not there":      {"alice", "POST", at(r, "/kick"), user("@dave:heddle.test"), 403, "M_FORBIDDEN"},
		"kick: banned":         {"alice", "POST", at(r, "/kick"), user(carol), 403, "M_FORBIDDEN"},
		"unban: not banned":    {"alice", "POST", at(r, "/unban"), user(bob), 403, "M_BAD_STATE"},
		"unban: not permitted": {"bob", "POST", at(r, "/unban"), user(carol), 403, "M_FORBIDDEN"},
	}
	for _, verb := range []string{"invite", "kick", "ban", "unban"} {
		path := at(r, "/"+verb)
		if verb != "unban" {
			cases[verb+": not permitted"] = refusal{"bob", "POST", path, user(alice), 403, "M_FORBIDDEN"}
		}
		// To a stranger, who is banned is not said either.
		cases[verb+": not in the room"] = refusal{"dave", "POST", path, user(carol), 403, "M_FORBIDDEN"}
		cases[verb+": unknown room"] = refusal{"alice", "POST", at(unknownRoom, "/"+verb), user(bob), 404, "M_NOT_FOUND"}
		cases[verb+": malformed room"] = refusal{"alice", "POST", badRoom + "/" + verb, user(bob), 400, "M_INVALID_PARAM"}
		cases[verb+": no user"] = refusal{"alice", "POST", path, `{}`, 400, "M_MISSING_PARAM"}
		cases[verb+": malformed user"] = refusal{"alice", "POST", path, `{"user_id":"bob"}`, 400, "M_INVALID_PARAM"}
		cases[verb+": user is a number"] = refusal{"alice", "POST", path, `{"user_id":1}`, 400, "M_BAD_JSON"}
		cases[verb+": no body"] = refusal{"alice", "POST", path, ``, 400, "M_NOT_JSON"}
		cases[verb+": nobody"] = refusal{"", "POST", path, user(bob), 401, "M_MISSING_TOKEN"}
	}
	s.refuse(t, cases)

	s.call("alice", "POST", at(r, "/unban"), user(carol)).ok("")
	require.Equal(t, "leave", membership(carol))
}

// Whoever kicks or bans can ask for the user's events to be redacted with it, and the room is told so.
func TestKickAndBanAskForRedaction(t *testing.T) {
	const asked = "org.matrix.msc4293.redact_events"
	s := newStack(t)
	s.users("alice", "bob")
	r := s.create("alice", `{"preset":"public_chat"}`)
	do := func(verb, value string) map[string]any {
		s.call("alice", "POST", at(r, verb), `{"user_id":"`+bob+`","reason":"spam","`+asked+`":`+value+`}`).ok("")
		return s.state(r, "m.room.member", bob)
	}
	s.call("bob", "POST", at(r, "/join"), ``).ok("room_id")
	require.Equal(t, map[string]any{"membership": "leave", "reason": "spam", asked: true}, do("/kick", "true"))
	s.call("bob", "POST", at(r, "/join"), ``).ok("room_id")
	require.Equal(t, map[string]any{"membership": "leave", "reason": "spam"}, do("/kick", "false"))
	require.Equal(t, map[string]any{"membership": "ban", "reason": "spam"}, do("/ban", "false"))
	require.Equal(t, map[string]any{"membership": "ban", "reason": "spam", asked: true}, do("/ban", "true")) // on second thoughts
	require.Equal(t, map[string]any{"membership": "leave", "reason": "spam"}, do("/unban", "true"))
	s.refuse(t, map[string]refusal{
		"a word": {"alice", "POST", at(r, "/ban"), `{"user_id":"` + bob + `","` + asked + `":"yes"}`, 400, "M_BAD_JSON"},
	})
}

func TestLeaveAndForget(t *testing.T) {
	s := newStack(t)
	s.users("alice", "bob", "carol")
	r := s.create("alice", `{"preset":"public_chat","invite":["`+carol+`"]}`)
	s.call("bob", "POST", at(r, "/join"), ``).ok("room_id")
	s.refuse(t, map[string]refusal{
		"forget while in it": {"bob", "POST", at(r, "/forget"), `{}`, 400, "M_UNKNOWN"},
		"forget unknown":     {"bob", "POST", at(unknownRoom, "/forget"), `{}`, 404, "M_NOT_FOUND"},
		"forget malformed":   {"bob", "POST", badRoom + "/forget", `{}`, 400, "M_INVALID_PARAM"},
		"leave unknown":      {"bob", "POST", at(unknownRoom, "/leave"), ``, 404, "M_NOT_FOUND"},
		"leave malformed":    {"bob", "POST", badRoom + "/leave", ``, 400, "M_INVALID_PARAM"},
		"leave bad reason":   {"bob", "POST", at(r, "/leave"), `{"reason":{}}`, 400, "M_BAD_JSON"},
		"leave no JSON":      {"bob", "POST", at(r, "/leave"), `x`, 400, "M_NOT_JSON"},
	})
	s.call("bob", "POST", at(r, "/leave"), `{"reason":"bye"}`).ok("")
	require.Equal(t, map[string]any{"membership": "leave", "reason": "bye"}, s.state(r, "m.room.member", bob))
	s.call("bob", "POST", at(r, "/leave"), ``).ok("")
	s.call("bob", "POST", at(r, "/forget"), ``).ok("")
	s.call("carol", "POST", at(r, "/leave"), ``).ok("")
	require.Equal(t, "leave", s.state(r, "m.room.member", carol)["membership"], "an invitation is declined")
}

func TestSuspendedUsersActNoMore(t *testing.T) {
	s := newStack(t)
	s.users("alice", "bob")
	r := s.create("alice", `{"preset":"public_chat"}`)
	s.call("bob", "POST", at(r, "/join"), ``).ok("room_id")
	own := s.call("bob", "PUT", at(r, "/send/m.room.message/1"), `{"body":"x"}`).ok("event_id")
	other := s.call("alice", "PUT", at(r, "/send/m.room.message/1"), `{"body":"x"}`).ok("event_id")
	s.Exec(`UPDATE account SET suspended = true WHERE user_id = $1`, bob)
	no := func(method, path, body string) refusal {
		return refusal{"bob", method, path, body, 403, "M_USER_SUSPENDED"}
	}
	s.refuse(t, map[string]refusal{
		"join":          no("POST", at(r, "/join"), ``),
		"knock":         no("POST", "/knock/"+string(r), ``),
		"invite":        no("POST", at(r, "/invite"), `{"user_id":"@x:heddle.test"}`),
		"kick":          no("POST", at(r, "/kick"), `{"user_id":"@x:heddle.test"}`),
		"send":          no("PUT", at(r, "/send/m.room.message/2"), `{}`),
		"state":         no("PUT", at(r, "/state/m.room.topic"), `{"topic":"x"}`),
		"rejoin":        no("PUT", at(r, "/state/m.room.member/"+bob), `{"membership":"join"}`),
		"typing":        no("PUT", at(r, "/typing/"+bob), `{"typing":true}`),
		"redact other":  no("PUT", at(r, "/redact/"+other+"/3"), `{}`),
		"redact other2": no("PUT", at(r, "/send/m.room.redaction/3"), `{"redacts":"`+other+`"}`),
		"alias":         no("PUT", "/directory/room/%23x:heddle.test", `{"room_id":"`+string(r)+`"}`),
		"profile":       no("PUT", "/profile/"+bob+"/displayname", `{"displayname":"B"}`),
		"no profile":    no("DELETE", "/profile/"+bob+"/displayname", ``),
		"visibility":    no("PUT", "/directory/list/room/"+string(r), `{}`),
	})
	s.call("bob", "PUT", at(r, "/redact/"+own+"/4"), `{}`).ok("event_id")
	s.call("bob", "PUT", at(r, "/state/m.room.member/"+bob), `{"membership":"leave"}`).ok("event_id")
	s.call("bob", "POST", at(r, "/leave"), ``).ok("")
}

func TestRoomAllowance(t *testing.T) {
	store, err := soft.New(soft.Config{}, soft.Options{})
	require.NoError(t, err)
	s := newStack(t, func(o *write.RoomOptions) {
		o.Limits = auth.NewLimits(auth.LimitsConfig{
			Enabled: true, Room: auth.Rates{route.RateMessage: {PerSecond: 0.001, Burst: 2}},
		}, store)
	})
	s.users("alice")
	one, two := s.create("alice", `{}`), s.create("alice", `{}`)
	s.call("alice", "PUT", at(one, "/send/m.room.message/1"), `{}`).ok("event_id")
	s.call("alice", "PUT", at(one, "/state/m.room.topic"), `{"topic":"x"}`).ok("event_id")
	r := httptest.NewRequest(http.MethodPut, "/_matrix/client/v3"+at(one, "/send/m.room.message/2"), strings.NewReader(`{}`))
	s.serve("alice", r).refused(429, "M_LIMIT_EXCEEDED")
	s.call("alice", "PUT", at(two, "/send/m.room.message/1"), `{}`).ok("event_id")
}
