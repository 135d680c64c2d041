package fedtest_test

import (
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/testkit/fedtest"
)

// While a room has two ends, its state is what both come to, and not that of the side on which something happened last: however a client
// asks for it.
func TestStateOfAForkedRoom(t *testing.T) {
	s := newStage(t)
	for _, version := range []roomver.Version{roomver.V10, roomver.V12} {
		t.Run("version "+string(version), func(t *testing.T) {
			p := s.enter(t, version, "mallory")
			room := string(p.Room)
			s.alice.Sees(t, room, string(p.Join.EventID()))
			topic := s.alice.Set(t, room, "m.room.topic", "", map[string]any{"topic": "this side"})
			bob := s.home.NewUser(t, "bob"+string(version))
			bob.Join(t, room)
			// The other server has heard of none of that.
			side := p.Say(t, "that side")
			s.remote.Send(t, s.home, side)
			s.alice.Sees(t, room, string(side.EventID()))

			state := s.alice.State(t, room)
			require.Equal(t, topic, state["m.room.topic|"])
			require.Contains(t, state, "m.room.member|"+bob.User)
			joined := s.alice.Must(t, "GET", fedtest.RoomPath(room, "joined_members"), nil)["joined"]
			require.Contains(t, joined, bob.User)
			var members []string
			for _, m := range s.alice.Must(t, "GET", fedtest.RoomPath(room, "members")+"?membership=join", nil)["chunk"].([]any) {
				members = append(members, m.(map[string]any)["state_key"].(string))
			}
			require.ElementsMatch(t, []string{s.alice.User, bob.User, string(p.User)}, members)
			for _, limit := range []string{"1", "50"} {
				for _, after := range []string{"", "&use_state_after=true"} {
					filter := url.QueryEscape(`{"room":{"timeline":{"limit":` + limit + `}}}`)
					told := told(s.alice.Must(t, "GET", "/sync?filter="+filter+after, nil), room)
					require.Equal(t, topic, told["m.room.topic|"], "limit %s %s", limit, after)
					require.Contains(t, told, "m.room.member|"+bob.User)
				}
			}
			// The next event brings both together.
			said := s.alice.Say(t, room, "both sides")
			s.alice.Sees(t, room, said)
			require.Equal(t, state, s.alice.State(t, room))
		})
	}
}

// told is the state of a room as a client has it from a sync: what is told of the state, and then of the timeline; or after it.
func told(answer map[string]any, room string) map[string]string {
	r := answer["rooms"].(map[string]any)["join"].(map[string]any)[room].(map[string]any)
	out := map[string]string{}
	for _, section := range []string{"state", "timeline", "state_after"} {
		of, ok := r[section].(map[string]any)
		if !ok || section == "timeline" && r["state_after"] != nil {
			continue
		}
		for _, e := range of["events"].([]any) {
			e := e.(map[string]any)
			if key, ok := e["state_key"].(string); ok {
				out[e["type"].(string)+"|"+key] = e["event_id"].(string)
			}
		}
	}
	return out
}
