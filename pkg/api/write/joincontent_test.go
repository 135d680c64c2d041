package write_test

import (
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

func TestJoinAndKnockSayMore(t *testing.T) {
	s := newStack(t)
	s.users("alice", "bob")
	bob := string(roomtest.User("bob"))
	const body = `{"reason":"to weave","foo":{"bar":[1]},"membership":"ban","displayname":"Somebody","avatar_url":"mxc://x/y",
		"is_direct":true,"third_party_invite":{},"join_authorised_via_users_server":"@alice:x"}`
	open := s.create("alice", `{"preset":"public_chat"}`)
	closed := s.create("alice", `{"initial_state":[{"type":"m.room.join_rules","content":{"join_rule":"knock"}}]}`)
	s.call("bob", "POST", "/join/"+url.PathEscape(string(open)), body).ok("room_id")
	s.call("bob", "POST", "/knock/"+url.PathEscape(string(closed)), body).ok("room_id")
	for r, membership := range map[string]string{string(open): "join", string(closed): "knock"} {
		got := s.state(id.RoomID(r), "m.room.member", bob)
		delete(got, "displayname") // the user's own
		require.Equal(t, map[string]any{"membership": membership, "reason": "to weave", "foo": map[string]any{"bar": []any{1.0}}}, got)
	}
	s.call("bob", "POST", "/join/"+url.PathEscape(string(open)), `{"foo":1.5}`).refused(400, "M_BAD_JSON")
	s.call("bob", "POST", "/join/"+url.PathEscape(string(open)), `[]`).refused(400, "M_BAD_JSON")
}
