package write_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRedactionOfRelations: with an event goes what relates to it in the ways that are named, as far as the user may redact that (MSC3912).
func TestRedactionOfRelations(t *testing.T) {
	s := newStack(t)
	s.users("alice", "bob")
	r := s.create("alice", `{"preset":"public_chat"}`)
	s.call("bob", "POST", at(r, "/join"), `{}`).ok("room_id")
	n := 0
	send := func(user, typ, content string) string {
		t.Helper()
		n++
		return s.call(user, "PUT", at(r, "/send/"+typ+"/n"+strings.Repeat("n", n)), content).ok("event_id")
	}
	family := func(user string) (parent, edit, reaction, theirs, reply string) {
		t.Helper()
		parent = send(user, "m.room.message", `{"body":"x"}`)
		edit = send(user, "m.room.message", `{"body":"y","m.relates_to":{"rel_type":"m.replace","event_id":"`+parent+`"},"m.new_content":{"body":"y"}}`)
		reaction = send("bob", "m.reaction", `{"m.relates_to":{"rel_type":"m.annotation","event_id":"`+parent+`","key":"1"}}`)
		theirs = send("alice", "m.reaction", `{"m.relates_to":{"rel_type":"m.annotation","event_id":"`+parent+`","key":"2"}}`)
		reply = send("bob", "m.room.message", `{"body":"z","m.relates_to":{"rel_type":"m.thread","event_id":"`+parent+`"}}`)
		return parent, edit, reaction, theirs, reply
	}
	redacted := func(event string) bool {
		t.Helper()
		rows, err := s.Reader.EventByIDAnywhere(s.Ctx(), event)
		require.NoError(t, err)
		require.Len(t, rows, 1)
		return rows[0].RedactedBy != 0
	}
	all := func(events ...string) (out []bool) {
		t.Helper()
		for _, e := range events {
			out = append(out, redacted(e))
		}
		return out
	}

	parent, edit, reaction, theirs, reply := family("alice")
	by := s.call("alice", "PUT", at(r, "/redact/"+parent+"/1"), `{"with_rel_types":["m.annotation","m.replace","none"],"reason":"why"}`).ok("event_id")
	require.Equal(t, parent, s.event(by)["content"].(map[string]any)["redacts"])
	require.Equal(t, []bool{true, true, true, true, false}, all(parent, edit, reaction, theirs, reply))
	require.Equal(t, by, s.call("alice", "PUT", at(r, "/redact/"+parent+"/1"), `{"with_rel_types":["*"]}`).ok("event_id"), "the same again")
	require.True(t, redacted(reply), "what was not redacted the first time")

	// Who may redact only their own leaves what others said.
	parent, edit, reaction, theirs, reply = family("bob")
	s.call("bob", "PUT", at(r, "/redact/"+parent+"/1"), `{"org.matrix.msc3912.with_relations":["*"]}`).ok("event_id")
	require.Equal(t, []bool{true, true, true, false, true}, all(parent, edit, reaction, theirs, reply))

	// Without it nothing goes along; and who may not redact an event redacts nothing.
	parent, edit, reaction, _, _ = family("alice")
	s.call("bob", "PUT", at(r, "/redact/"+parent+"/2"), `{"with_rel_types":["*"]}`).refused(403, "M_FORBIDDEN")
	require.Equal(t, []bool{false, false, false}, all(parent, edit, reaction))
	s.call("alice", "PUT", at(r, "/redact/"+parent+"/3"), `{}`).ok("event_id")
	require.Equal(t, []bool{true, false, false}, all(parent, edit, reaction))
	s.call("alice", "PUT", at(r, "/redact/"+parent+"/4"), `{"with_rel_types":["x"`+strings.Repeat(`,"x"`, 50)+`]}`).refused(400, "M_INVALID_PARAM")
	s.call("alice", "PUT", at(r, "/redact/"+parent+"/4"), `{"with_rel_types":"x"}`).refused(400, "M_BAD_JSON")
}
