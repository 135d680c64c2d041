package write_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

func TestReports(t *testing.T) {
	s := newStack(t)
	s.users("alice", "bob", "eve")
	r := url.PathEscape(string(s.create("eve", `{"preset":"public_chat"}`)))
	s.call("alice", "POST", "/join/"+r, "").ok("room_id")
	event := s.call("eve", "PUT", "/rooms/"+r+"/send/m.room.message/1", `{"msgtype":"m.text","body":"x"}`).ok("event_id")
	e := url.PathEscape(event)
	eve := "/users/" + url.PathEscape(string(roomtest.User("eve"))) + "/report"
	const why = `{"reason":"it makes me sad"}`

	s.call("alice", "POST", "/rooms/"+r+"/report/"+e, why).ok("")
	s.call("alice", "POST", "/rooms/"+r+"/report/"+e, `{"score":-100}`).ok("")
	s.call("bob", "POST", "/rooms/"+r+"/report", why).ok("") // who is not in the room may
	s.call("bob", "POST", eve, `{"reason":""}`).ok("")
	s.call("bob", "POST", "/rooms/"+r+"/report", `{"reason":"a\u0000b"}`).ok("") // what PostgreSQL would not take
	s.call("bob", "POST", "/users/@somebody:elsewhere.example/report", why).ok("")
	s.raw("bob", "POST", "/_matrix/client/unstable/org.matrix.msc4260"+eve, why).ok("")
	s.raw("bob", "POST", "/_matrix/client/unstable/org.matrix.msc4151/rooms/"+r+"/report", why).ok("")

	rows, err := s.DB.Pool.Query(s.Ctx(), `SELECT concat_ws('|', split_part(reporter, ':', 1), room_id <> '', event_id = $1, split_part(user_id, ':', 1), reason)
		FROM report ORDER BY at, id`, event)
	require.NoError(t, err)
	defer rows.Close()
	var got []string
	for rows.Next() {
		var row string
		require.NoError(t, rows.Scan(&row))
		got = append(got, row)
	}
	require.ElementsMatch(t, []string{
		"@alice|t|t|@eve|it makes me sad", "@alice|t|t|@eve|", "@bob|t|f||it makes me sad", "@bob|f|f|@eve|",
		"@bob|f|f|@somebody|it makes me sad", "@bob|f|f|@eve|it makes me sad", "@bob|t|f||it makes me sad",
		"@bob|t|f||a\uFFFDb",
	}, got)

	nobody := "/users/" + url.PathEscape(string(roomtest.User("nobody"))) + "/report"
	s.refuse(t, map[string]refusal{
		"event, not in the room": {"bob", "POST", "/rooms/" + r + "/report/" + e, why, 404, "M_NOT_FOUND"},
		"event, none":            {"alice", "POST", "/rooms/" + r + "/report/$none", why, 404, "M_NOT_FOUND"},
		"event, unknown room":    {"alice", "POST", "/rooms/!none:" + string(roomtest.Server) + "/report/" + e, why, 404, "M_NOT_FOUND"},
		"event, bad id":          {"alice", "POST", "/rooms/" + r + "/report/none", why, 400, "M_INVALID_PARAM"},
		"event, bad reason":      {"alice", "POST", "/rooms/" + r + "/report/" + e, `{"reason":1}`, 400, "M_BAD_JSON"},
		"event, no JSON":         {"alice", "POST", "/rooms/" + r + "/report/" + e, `{`, 400, "M_NOT_JSON"},
		"event, long": {
			"alice", "POST", "/rooms/" + r + "/report/" + e, `{"reason":"` + strings.Repeat("x", 4097) + `"}`, 400, "M_INVALID_PARAM",
		},
		"event, nobody":     {"", "POST", "/rooms/" + r + "/report/" + e, why, 401, "M_MISSING_TOKEN"},
		"room, unknown":     {"alice", "POST", "/rooms/!none:" + string(roomtest.Server) + "/report", why, 404, "M_NOT_FOUND"},
		"room, bad id":      {"alice", "POST", "/rooms/none/report", why, 400, "M_INVALID_PARAM"},
		"room, no reason":   {"alice", "POST", "/rooms/" + r + "/report", `{}`, 400, "M_MISSING_PARAM"},
		"room, nobody":      {"", "POST", "/rooms/" + r + "/report", why, 401, "M_MISSING_TOKEN"},
		"user, unknown":     {"alice", "POST", nobody, why, 404, "M_NOT_FOUND"},
		"user, bad id":      {"alice", "POST", "/users/none/report", why, 400, "M_INVALID_PARAM"},
		"user, no reason":   {"alice", "POST", eve, `{}`, 400, "M_MISSING_PARAM"},
		"user, bad reason":  {"alice", "POST", eve, `{"reason":[]}`, 400, "M_BAD_JSON"},
		"user, as a nobody": {"", "POST", eve, why, 401, "M_MISSING_TOKEN"},
	})
}
