package fedtest_test

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
	"github.com/heddle-im/heddle/pkg/testkit/certtest"
	"github.com/heddle-im/heddle/pkg/testkit/fedtest"
)

// Somebody who was invited by an address gets the invitation when an identity server says whose it is; nobody else does.
func TestInvitedByAnAddress(t *testing.T) {
	ca := certtest.NewAuthority(t)
	one, two := fedtest.Run(t, ca, "127.0.0.1"), fedtest.Run(t, ca, "localhost")
	alice, bob, eve, other := one.NewUser(t, "alice"), two.NewUser(t, "bob"), one.NewUser(t, "eve"), two.NewUser(t, "other")
	identity := fedtest.NewRemote(t, ca)
	for _, v := range versions {
		one, two, alice, bob, eve, other = two, one, bob, alice, other, eve // one way and the other
		t.Run("version "+string(v), func(t *testing.T) {
			room := alice.Create(t, string(v), nil)
			key := identity.Key.Public()
			alice.Set(t, room, "m.room.third_party_invite", "token", map[string]any{
				"display_name": "b...@e...", "key_validity_url": "https://identity.test/valid", "public_key": base64.RawStdEncoding.EncodeToString(key),
				"public_keys": []map[string]any{{"public_key": base64.RawStdEncoding.EncodeToString(key)}},
			})
			bind := func(home *fedtest.Homeserver, by signing.Key, user, token string) int {
				signed, err := signing.SignJSON([]byte(encoded(t, map[string]string{"mxid": user, "token": token})), "identity.test", by)
				require.NoError(t, err)
				status, answer := identity.Ask(t, home, "PUT", "/_matrix/federation/v1/3pid/onbind", []byte(encoded(t, map[string]any{
					"medium": "email", "address": "bob@example.org", "mxid": user, "invites": []map[string]any{{
						"medium": "email", "address": "bob@example.org", "mxid": user, "room_id": room, "sender": alice.User, "signed": json.RawMessage(signed),
					}},
				})))
				require.Equal(t, 200, status, "%s", answer)
				return status
			}
			seed := make([]byte, 32)
			_, _ = rand.Read(seed) // never fails
			forger, err := signing.NewKey("ed25519:forged", seed)
			require.NoError(t, err)
			bind(two, forger, bob.User, "token")
			bind(two, identity.Key, bob.User, "another")
			members := alice.State(t, room)
			require.NotContains(t, members, "m.room.member|"+bob.User, "what is not signed as the invitation says is worth nothing")

			bind(two, identity.Key, bob.User, "token")
			bob.SeesRoom(t, room, "invite")
			alice.SeesMember(t, room, bob, "invite")
			bob.Join(t, room)
			alice.SeesMember(t, room, bob, "join")
			bob.SeesRoom(t, room, "join")
			fedtest.Agree(t, room, alice, bob)

			bind(one, identity.Key, eve.User, "token") // of the same server as who invited
			eve.SeesRoom(t, room, "invite")

			nobody, _ := identity.Ask(t, two, "PUT", "/_matrix/federation/v1/3pid/onbind", []byte(encoded(t, map[string]any{
				"mxid": "@nobody:" + string(two.Name), "invites": []any{},
			})))
			require.Equal(t, 404, nobody)
		})
	}
}

// What is for debugging and for deciding whether to join is told to those who are in the room.
func TestFactsOfARoom(t *testing.T) {
	s := newStage(t)
	p := s.enter(t, roomver.V11, "mallory")
	path := func(format string) string { return strings.Replace(format, "ROOM", url.PathEscape(string(p.Room)), 1) }
	status, answer := s.remote.Ask(t, s.home, "GET", path("/_matrix/federation/unstable/org.matrix.msc4370/extremities/ROOM"), nil)
	require.Equal(t, 200, status)
	require.JSONEq(t, encoded(t, map[string]any{"prev_events": idsOf(p.Join)}), string(answer))
	status, answer = s.remote.Ask(t, s.home, "GET", path("/_matrix/federation/unstable/rooms/ROOM/complexity"), nil)
	require.Equal(t, 200, status)
	var c struct {
		V1 float64 `json:"v1"`
	}
	require.NoError(t, json.Unmarshal(answer, &c))
	require.InDelta(t, float64(len(p.State))/500, c.V1, 1e-9)
	stranger := fedtest.NewRemote(t, s.ca)
	for _, f := range []string{"/_matrix/federation/unstable/org.matrix.msc4370/extremities/ROOM", "/_matrix/federation/unstable/rooms/ROOM/complexity"} {
		status, _ = stranger.Ask(t, s.home, "GET", path(f), nil)
		require.Equal(t, 403, status)
	}
}
