package fedtest_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
	"github.com/heddle-im/heddle/pkg/testkit/fedtest"
)

// Whatever is sent in a room that uses a policy server is signed by it: what it does not sign is not sent from here, and not shown if it
// comes from elsewhere.
func TestPolicyServer(t *testing.T) {
	s := newStage(t)
	const path = "/_matrix/policy/v1/sign"
	seed := make([]byte, 32)
	_, _ = rand.Read(seed) // never fails
	key, err := signing.NewKey("ed25519:policy_server", seed)
	require.NoError(t, err)
	for _, v := range []roomver.Version{roomver.V1, roomver.V10, roomver.V12} {
		t.Run("version "+string(v), func(t *testing.T) {
			p := s.enter(t, v, "guard")
			room := string(p.Room)
			s.alice.SeesRoom(t, room, "join")
			s.remote.Handle(path, func(w http.ResponseWriter, q *http.Request) {
				body, _ := io.ReadAll(q.Body)
				e, err := event.Parse(p.Rules, body)
				if err != nil || bytes.Contains(body, []byte("spam")) {
					w.WriteHeader(http.StatusBadRequest)
					_, _ = io.WriteString(w, `{"errcode":"M_FORBIDDEN","error":"we do not like spam"}`)
					return
				}
				var signed struct {
					Signatures map[string]map[string]string `json:"signatures"`
				}
				_ = json.Unmarshal(e.Sign(s.remote.Name, key).JSON(), &signed)
				_ = json.NewEncoder(w).Encode(map[string]any{string(s.remote.Name): map[string]string{
					"ed25519:policy_server": signed.Signatures[string(s.remote.Name)]["ed25519:policy_server"],
				}})
			})
			t.Cleanup(func() { s.remote.Handle(path, nil) })
			asked := s.remote.Asked(path)
			s.alice.Say(t, room, "spam, as long as nobody minds")
			require.Equal(t, asked, s.remote.Asked(path), "who is not asked to sign is not asked")
			s.alice.Set(t, room, "m.room.policy", "", map[string]any{
				"via": s.remote.Name, "public_keys": map[string]string{"ed25519": base64.RawStdEncoding.EncodeToString(key.Public())},
			})
			require.Equal(t, asked, s.remote.Asked(path))

			said := s.alice.Say(t, room, "good morning")
			var raw []byte
			require.NoError(t, s.home.DB.Pool.QueryRow(t.Context(), "SELECT json FROM event WHERE event_id = $1", said).Scan(&raw))
			e, err := event.Parse(p.Rules, raw)
			require.NoError(t, err)
			require.NoError(t, e.VerifyWith(s.remote.Name, "ed25519:policy_server", key.Public()))
			require.True(t, e.SignedBy(s.home.Name))
			s.alice.Sees(t, room, said)

			send := fedtest.RoomPath(room, "send", "m.room.message", "the same")
			twice := map[string]any{"msgtype": "m.text", "body": "said once"}
			once := s.alice.Must(t, "PUT", send, twice)["event_id"]
			again := s.alice.Must(t, "PUT", send, twice)["event_id"]
			require.Equal(t, once, again)

			status, code := s.alice.Refused(t, "PUT", fedtest.RoomPath(room, "send", "m.room.message", "x"), map[string]any{"msgtype": "m.text", "body": "spam"})
			require.Equal(t, 400, status)
			require.Equal(t, "M_FORBIDDEN", code)

			good, bad := p.Say(t, "from afar"), p.Say(t, "spam from afar")
			require.Empty(t, s.remote.Send(t, s.home, bad, good)[string(good.EventID())])
			s.alice.Sees(t, room, string(good.EventID()))
			own := p.Build(t, p.Message(t, "spam that its own server signs")).Sign(s.remote.Name, key)
			asked = s.remote.Asked(path)
			s.remote.Send(t, s.home, own)
			s.alice.Sees(t, room, string(own.EventID()))
			require.Equal(t, asked, s.remote.Asked(path), "what is signed need not be")
			require.NotContains(t, s.home.Timeline(t, room), string(bad.EventID()))
			require.Eventually(t, func() bool { return s.home.Staged(t) == 0 }, patience, tick)

			s.remote.Handle(path, nil) // not a policy server any more
			status, _ = s.alice.Refused(t, "PUT", fedtest.RoomPath(room, "send", "m.room.message", "y"), map[string]any{"msgtype": "m.text", "body": "anybody?"})
			require.Equal(t, 404, status)
			s.alice.Set(t, room, "m.room.policy", "", map[string]any{})
			s.alice.Sees(t, room, s.alice.Say(t, room, "spam again"))
		})
	}
}
