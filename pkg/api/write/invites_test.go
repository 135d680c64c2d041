package write_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestInvitesAreBlocked: nobody is invited who does not want to be, whichever way it is tried (spec: "Invite permission", and MSC4155).
func TestInvitesAreBlocked(t *testing.T) {
	s := newStack(t)
	s.users("alice", "bob", "carol")
	r := s.create("alice", `{}`)
	ofCarol := s.create("carol", `{}`)
	set := func(typ, content string) {
		t.Helper()
		s.call("bob", "PUT", "/user/"+bob+"/account_data/"+typ, content).ok("")
	}
	invite := `{"user_id":"` + bob + `"}`
	refused := func() {
		t.Helper()
		s.call("alice", "POST", at(r, "/invite"), invite).refused(403, "M_INVITE_BLOCKED")
		s.call("alice", "PUT", at(r, "/state/m.room.member/"+bob), `{"membership":"invite"}`).refused(403, "M_INVITE_BLOCKED")
		s.call("alice", "POST", "/createRoom", `{"invite":["`+bob+`"],"room_alias_name":"blocked"}`).refused(403, "M_INVITE_BLOCKED")
		require.Nil(t, s.state(r, "m.room.member", bob))
	}
	set("m.invite_permission_config", `{"default_action":"block"}`)
	refused()
	set("m.invite_permission_config", `{}`)
	s.call("alice", "PUT", "/directory/room/%23blocked:heddle.test", `{"room_id":"`+string(r)+`"}`).ok("") // nothing was made
	set("org.matrix.msc4155.invite_permission_config", `{"blocked_users":["@alice:*"]}`)
	refused()
	s.call("carol", "POST", at(ofCarol, "/invite"), invite).ok("")
	require.Equal(t, "invite", s.state(ofCarol, "m.room.member", bob)["membership"])

	// Whoever is ignored notices nothing.
	set("org.matrix.msc4155.invite_permission_config", `{"ignored_users":["@alice:*"]}`)
	s.call("alice", "POST", at(r, "/invite"), invite).ok("")
	require.Equal(t, "invite", s.state(r, "m.room.member", bob)["membership"])
}
