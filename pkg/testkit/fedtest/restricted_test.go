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

// fenced gives a room that the members of another one may join, where those may invite who have a level of 50.
func fenced(t *testing.T, version, rule string, host *fedtest.User) (room, space string) {
	t.Helper()
	space = host.Create(t, version, map[string]any{"preset": "public_chat"})
	room = host.Create(t, version, map[string]any{"preset": "public_chat", "initial_state": []map[string]any{
		{"type": "m.room.join_rules", "content": map[string]any{
			"join_rule": rule, "allow": []map[string]any{{"type": "m.room_membership", "room_id": space}},
		}},
	}})
	return room, space
}

// invited has a user come into a room by an invitation.
func invited(t *testing.T, room string, host, guest *fedtest.User) {
	t.Helper()
	host.Member(t, room, "invite", guest)
	guest.SeesRoom(t, room, "invite")
	guest.Join(t, room)
	host.SeesMember(t, room, guest, "join")
	guest.SeesRoom(t, room, "join")
}

// vouched gives in whose name a user was let into a room.
func vouched(t *testing.T, room string, who *fedtest.User) any {
	t.Helper()
	return who.Must(t, "GET", fedtest.RoomPath(room, "state", "m.room.member", who.User), nil)["join_authorised_via_users_server"]
}

// Who may join a restricted room comes in by way of a server on which somebody may let people in, also where the own server is in the room.
func TestRestrictedByAnother(t *testing.T) {
	ca := certtest.NewAuthority(t)
	one, two, three := fedtest.Run(t, ca, "127.0.0.1"), fedtest.Run(t, ca, "localhost"), fedtest.Run(t, ca, "127.0.0.1")
	alice, bob, dave, carol := one.NewUser(t, "alice"), two.NewUser(t, "bob"), two.NewUser(t, "dave"), three.NewUser(t, "carol")
	for _, c := range [][2]string{{"8", "restricted"}, {"10", "knock_restricted"}, {"12", "restricted"}} {
		t.Run("version "+c[0], func(t *testing.T) {
			room, space := fenced(t, c[0], c[1], alice)
			invited(t, room, alice, bob)
			status, code := dave.Refused(t, "POST", fedtest.JoinPath(room), map[string]any{})
			require.Equal(t, 403, status)
			require.Equal(t, "M_FORBIDDEN", code)
			dave.Join(t, space, one)
			dave.Join(t, room)
			alice.SeesMember(t, room, dave, "join")
			require.Equal(t, alice.User, vouched(t, room, dave))
			fedtest.Agree(t, room, alice, bob, dave)

			// What the join follows is not known here, since it cannot be brought.
			dave.Must(t, "POST", fedtest.RoomPath(room, "leave"), nil)
			alice.SeesMember(t, room, dave, "leave")
			two.Link.Refuse()
			alice.Set(t, room, "m.room.topic", "", map[string]any{"topic": "not heard"})
			apart := alice.Say(t, room, "is anybody there?")
			dave.Join(t, room)
			two.Link.Heal()
			alice.SeesMember(t, room, dave, "join")
			bob.Sees(t, room, apart)
			alice.Sees(t, room, dave.Say(t, room, "here I am"))
			fedtest.Agree(t, room, alice, bob, dave)

			// The first server that is asked may not, the second may.
			carol.Join(t, space, one)
			dave.SeesMember(t, space, carol, "join")
			status, code = carol.Refused(t, "POST", fedtest.JoinPath(room, two), map[string]any{})
			require.Equal(t, 400, status)
			require.Equal(t, "M_UNABLE_TO_GRANT_JOIN", code)
			carol.Join(t, room, two, one)
			require.Equal(t, alice.User, vouched(t, room, carol))
			fedtest.Agree(t, room, alice, bob, carol)
		})
	}
}

// A server says why it does not let somebody in: that it may not, that it cannot know, or that it knows.
func TestRestrictedRefusals(t *testing.T) {
	s := newStage(t)
	two := fedtest.Run(t, s.ca, "localhost")
	bob := two.NewUser(t, "bob")
	for _, version := range []string{"8", "12"} {
		t.Run("version "+version, func(t *testing.T) {
			room, space := fenced(t, version, "restricted", s.alice)
			invited(t, room, s.alice, bob)
			bob.Join(t, space, s.home)
			asks := func(user string, status int, code string) {
				t.Helper()
				got, answer := s.remote.Ask(t, two, http.MethodGet,
					fed+"make_join/"+url.PathEscape(room)+"/"+url.PathEscape(user)+"?ver="+version, nil)
				var e struct {
					Code string `json:"errcode"`
				}
				require.NoError(t, json.Unmarshal(answer, &e))
				require.Equal(t, status, got, "%s", answer)
				require.Equal(t, code, e.Code, "%s", answer)
			}
			member := s.remote.Enter(t, s.home, space, "member"+version)
			bob.Until(t, "the member", func(v *fedtest.Seen) bool { return v.Members[space][string(member.User)] == "join" })
			stranger := "@stranger:" + string(s.remote.Name)
			asks(stranger, 403, "M_FORBIDDEN")
			asks(string(member.User), 400, "M_UNABLE_TO_GRANT_JOIN")

			users := map[string]any{bob.User: 50}
			if version != "12" {
				users[s.alice.User] = 100
			}
			bob.Sees(t, room, s.alice.Set(t, room, "m.room.power_levels", "", map[string]any{"invite": 50, "users": users}))
			asks(string(member.User), 200, "")
			bob.Must(t, "POST", fedtest.RoomPath(space, "leave"), nil)
			asks(string(member.User), 400, "M_UNABLE_TO_AUTHORISE_JOIN") // what was known of the space may be over
			asks(stranger, 400, "M_UNABLE_TO_AUTHORISE_JOIN")
		})
	}
}

// A server whose users may let nobody in asks one first whose users may, however many others are in the room.
func TestWhoIsAskedToLetSomebodyIn(t *testing.T) {
	ca := certtest.NewAuthority(t)
	one, two := fedtest.Run(t, ca, "localhost"), fedtest.Run(t, ca, "127.0.0.1") // the others come before it by name
	alice, bob := one.NewUser(t, "alice"), two.NewUser(t, "bob")
	others := make([]*fedtest.Remote, 5)
	for i := range others {
		others[i] = fedtest.NewRemote(t, ca)
	}
	for _, version := range []string{"8", "12"} { // who may invite is named by power levels, and by the creation
		t.Run("version "+version, func(t *testing.T) {
			space := alice.Create(t, version, map[string]any{"preset": "public_chat"})
			room := alice.Create(t, version, map[string]any{"preset": "public_chat"})
			for _, r := range others {
				r.Enter(t, one, room, "other")
			}
			bob.Join(t, room, one)
			bob.SeesRoom(t, room, "join")
			bob.Sees(t, room, alice.Set(t, room, "m.room.join_rules", "", map[string]any{
				"join_rule": "restricted", "allow": []map[string]any{{"type": "m.room_membership", "room_id": space}},
			}))
			carol := two.NewUser(t, "carol"+version)
			carol.Join(t, space, one)
			carol.Join(t, room)
			require.Equal(t, alice.User, vouched(t, room, carol))
			for _, r := range others {
				require.Zero(t, r.Asked("/_matrix/federation/v1/make_join/"))
			}
		})
	}
}
