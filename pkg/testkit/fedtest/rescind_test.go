package fedtest_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/testkit/certtest"
	"github.com/heddle-im/heddle/pkg/testkit/fedtest"
)

// What a user was told of a room with an invitation, or on a knock, is kept as long as that stands.
func TestWhatIsToldOfInvitationsGoes(t *testing.T) {
	ca := certtest.NewAuthority(t)
	one, two := fedtest.Run(t, ca, "127.0.0.1"), fedtest.Run(t, ca, "localhost")
	alice, bob, carol := one.NewUser(t, "alice"), two.NewUser(t, "bob"), two.NewUser(t, "carol")
	kept := func() (n int) {
		require.NoError(t, two.DB.Pool.QueryRow(t.Context(), "SELECT count(*) FROM stripped_state").Scan(&n))
		return n
	}
	room := func(preset string) string {
		return alice.Create(t, "10", map[string]any{"preset": preset, "initial_state": []map[string]any{
			{"type": "m.room.join_rules", "content": map[string]any{"join_rule": "knock"}},
		}})
	}
	invite := func(preset string, who *fedtest.User) string {
		r := room(preset)
		alice.Member(t, r, "invite", who)
		who.SeesRoom(t, r, "invite")
		return r
	}

	joined := invite("private_chat", bob)
	require.Equal(t, 1, kept())
	alice.Member(t, joined, "invite", carol)
	carol.SeesRoom(t, joined, "invite")
	require.Equal(t, 2, kept())
	bob.Join(t, joined)
	require.Equal(t, 1, kept(), "who joins from outside")
	carol.Join(t, joined)
	require.Equal(t, 0, kept(), "who joins when the server is in the room")

	declined := invite("private_chat", bob)
	require.Equal(t, 1, kept())
	bob.Must(t, "POST", fedtest.RoomPath(declined, "leave"), nil)
	require.Equal(t, 0, kept(), "who declines")

	rescinded := invite("private_chat", bob)
	require.Equal(t, 1, kept())
	alice.Member(t, rescinded, "kick", bob)
	bob.SeesRoom(t, rescinded, "leave")
	require.Equal(t, 0, kept(), "whose invitation is taken back")

	knocked := room("public_chat")
	bob.Must(t, "POST", "/knock/"+url.PathEscape(knocked)+"?via="+url.QueryEscape(string(one.Name)), map[string]any{})
	require.Equal(t, 1, kept())
	bob.Must(t, "POST", fedtest.RoomPath(knocked, "leave"), nil)
	require.Equal(t, 0, kept(), "who takes the knock back")
}

// A user whose invitation is taken back hears of it though the user's server is not in the room; but only from who sent it, and not from what
// took back an earlier one.
func TestRescindedInvitations(t *testing.T) {
	s := newStage(t)
	third := fedtest.NewRemote(t, s.ca)
	for _, version := range []roomver.Version{roomver.V1, roomver.V10, roomver.V12} {
		for _, membership := range []string{event.Leave, event.Ban} {
			t.Run("version "+string(version)+" "+membership, func(t *testing.T) {
				p := s.remote.Host(t, version, "mallory"+membership)
				room, tail := string(p.Room), p.Find(t, event.TypeJoinRules, "")
				member := func(content string, auth []id.EventID, change func(*event.Proto)) *event.Event {
					proto := p.Message(t, "", tail)
					proto.Type, proto.StateKey, proto.Content = event.TypeMember, &s.alice.User, []byte(content)
					proto.AuthEvents = append(proto.AuthEvents, auth...)
					if change != nil {
						change(proto)
					}
					return p.Build(t, proto)
				}
				invite := func(reason string) *event.Event {
					e := member(`{"membership":"invite","reason":"`+reason+`"}`, nil, nil)
					body, err := json.Marshal(map[string]any{"room_version": version, "event": json.RawMessage(e.JSON()), "invite_room_state": []any{}})
					require.NoError(t, err)
					status, answer := s.remote.Ask(t, s.home, http.MethodPut,
						"/_matrix/federation/v2/invite/"+url.PathEscape(room)+"/"+url.PathEscape(string(e.EventID())), body)
					require.Equal(t, http.StatusOK, status, "%s", answer)
					delete(s.alice.Seen.Section, room)
					s.alice.SeesRoom(t, room, "invite")
					return e
				}
				ends := func(invite *event.Event, change func(*event.Proto)) *event.Event {
					return member(`{"membership":"`+membership+`","reason":"`+string(invite.EventID())+`"}`, []id.EventID{invite.EventID()}, change)
				}
				// stands says that what was sent has been looked at, and that the user is still invited.
				stands := func(t *testing.T) {
					t.Helper()
					require.Eventually(t, func() bool { return s.home.Staged(t) == 0 }, patience, tick)
					delete(s.alice.Seen.Section, room)
					s.alice.Sync(t, false)
					require.NotContains(t, s.alice.Seen.Section, room)
				}

				first := invite("first")
				other := id.UserID("@other:" + string(s.remote.Name))
				foreign := id.UserID("@eve:" + string(third.Name))
				for name, e := range map[string]*event.Event{
					"by another user of the server": ends(first, func(x *event.Proto) { x.Sender = other }),
					"by a user of another server":   ends(first, func(x *event.Proto) { x.Sender = foreign }),
					"without naming the invitation": member(`{"membership":"`+membership+`"}`, nil, nil),
					"that is a knock":               member(`{"membership":"knock"}`, []id.EventID{first.EventID()}, nil),
					"of another room":               ends(first, func(x *event.Proto) { x.RoomID = "!other:nowhere.test" }),
				} {
					t.Run(name, func(t *testing.T) {
						s.remote.Send(t, s.home, e)
						stands(t)
					})
				}
				good := ends(first, nil)
				t.Run("sent by another server", func(t *testing.T) {
					_, _ = third.Transaction(t, s.home, "theirs"+string(version)+membership, []json.RawMessage{good.JSON()}, nil)
					stands(t)
				})
				t.Run("not signed", func(t *testing.T) {
					_, _ = s.remote.Transaction(t, s.home, "unsigned"+string(version)+membership, []json.RawMessage{with(t, good, map[string]any{"signatures": map[string]any{}})}, nil)
					stands(t)
				})
				require.Empty(t, s.remote.Send(t, s.home, good)[string(good.EventID())])
				s.alice.Until(t, "the end of the invitation", func(v *fedtest.Seen) bool {
					return v.Section[room] == "leave" && v.Members[room][s.alice.User] == membership
				})

				invite("second")
				s.remote.Send(t, s.home, good)
				stands(t)
				s.remote.Send(t, s.home, ends(first, func(x *event.Proto) { x.OriginServerTS = time.Now().UnixMilli() + 1 }))
				stands(t)
			})
		}
	}
}

// The same between two homeservers of this kind: what is sent is what is taken.
func TestInvitationsTakenBack(t *testing.T) {
	ca := certtest.NewAuthority(t)
	one, two := fedtest.Run(t, ca, "127.0.0.1"), fedtest.Run(t, ca, "localhost")
	alice, bob := one.NewUser(t, "alice"), two.NewUser(t, "bob")
	for _, version := range []string{"1", "11", "12"} {
		for _, action := range []string{"kick", "ban"} {
			room := alice.Create(t, version, nil)
			alice.Member(t, room, "invite", bob)
			bob.SeesRoom(t, room, "invite")
			alice.Member(t, room, action, bob)
			bob.SeesRoom(t, room, "leave")
		}
	}
}
