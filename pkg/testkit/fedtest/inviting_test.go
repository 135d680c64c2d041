package fedtest_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/testkit/fedtest"
)

const inviteV1, inviteV2 = "/_matrix/federation/v1/invite/", "/_matrix/federation/v2/invite/"

// says answers with a status and a text.
func says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// signs answers an invitation as a good server does, but for what change makes of it. Of the first version the body is the event itself.
func signs(r *fedtest.Remote, rules *roomver.Rules, first bool, change func(signed json.RawMessage) any) http.HandlerFunc {
	return func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		var v2 struct {
			Event json.RawMessage `json:"event"`
		}
		if !first {
			_ = json.Unmarshal(body, &v2)
			body = v2.Event
		}
		e, err := event.Parse(rules, body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		_ = json.NewEncoder(w).Encode(change(e.Sign(r.Name, r.Key).JSON()))
	}
}

func contained(signed json.RawMessage) any { return map[string]any{"event": signed} }

func listed(signed json.RawMessage) any { return []any{http.StatusOK, contained(signed)} }

// Who says that it does not know the second version of inviting is asked by the first, if the room's version is one that there was then. A refusal
// is no reason to ask again.
func TestInvitingOlderServers(t *testing.T) {
	s := newStage(t)
	unknown := `{"errcode":"M_UNRECOGNIZED","error":"no such endpoint"}`
	type answer struct {
		status int
		body   string
	}
	for _, version := range []roomver.Version{roomver.V1, roomver.V2, roomver.V3, roomver.V10, roomver.V12} {
		rules := roomver.MustGet(version)
		given := rules.EventIDs == roomver.EventIDGiven
		for what, c := range map[string]struct {
			answer
			again bool
		}{
			"404":                {answer{status: 404, body: unknown}, given},
			"400":                {answer{status: 400, body: unknown}, given},
			"404 without reason": {answer{status: 404, body: "<html>"}, given},
			"403":                {answer{status: 403, body: `{"errcode":"M_FORBIDDEN","error":"no"}`}, false},
			"403 by the user":    {answer{status: 403, body: `{"errcode":"M_INVITE_BLOCKED","error":"no"}`}, false},
			"500":                {answer{status: 500, body: unknown}, false},
		} {
			t.Run("version "+string(version)+" "+what, func(t *testing.T) {
				room := s.alice.Create(t, string(version), map[string]any{"name": "the loft"})
				user := "@weaver:" + string(s.remote.Name)
				var sent []byte
				s.remote.Handle(inviteV2, says(c.status, c.body))
				good := signs(s.remote, rules, true, listed)
				s.remote.Handle(inviteV1, func(w http.ResponseWriter, q *http.Request) {
					sent, _ = io.ReadAll(q.Body)
					q.Body = io.NopCloser(strings.NewReader(string(sent)))
					good(w, q)
				})
				before := s.remote.Asked(inviteV1)
				body := map[string]any{"user_id": user, "reason": "<&> come"}
				if !c.again {
					s.alice.Refused(t, "POST", fedtest.RoomPath(room, "invite"), body)
					require.Equal(t, before, s.remote.Asked(inviteV1))
					require.NotContains(t, s.alice.State(t, room), "m.room.member|"+user)
					return
				}
				s.alice.Must(t, "POST", fedtest.RoomPath(room, "invite"), body)
				require.Equal(t, before+1, s.remote.Asked(inviteV1))
				require.Equal(t, "<&> come", stateOf(t, s.alice, room, "m.room.member", user)["reason"])
				e, err := event.Parse(rules, sent)
				require.NoError(t, err)
				require.False(t, e.HashMismatch())
				var told struct {
					Stripped []fedtest.Event `json:"invite_room_state"`
				}
				require.NoError(t, json.Unmarshal(e.Unsigned(), &told))
				names := []any{}
				for _, e := range told.Stripped {
					if e.Type == "m.room.name" {
						names = append(names, e.Content["name"])
					}
				}
				require.Equal(t, []any{"the loft"}, names)
			})
		}
	}
}

// What another server makes of an invitation that it is to sign is not taken unless it is that invitation, with its signature.
func TestHostileAnswersToInvitations(t *testing.T) {
	s := newStage(t)
	defer s.traffic(t)()
	altered := func(members map[string]any) func(signed json.RawMessage) any {
		return func(signed json.RawMessage) any {
			var m map[string]any
			_ = json.Unmarshal(signed, &m)
			for k, v := range members {
				m[k] = v
			}
			b, _ := json.Marshal(m)
			return contained(b)
		}
	}
	lies := map[string]func(signed json.RawMessage) any{
		"no event":      func(json.RawMessage) any { return map[string]any{} },
		"null":          func(json.RawMessage) any { return nil },
		"a number":      func(json.RawMessage) any { return map[string]any{"event": 5} },
		"not signed":    altered(map[string]any{"signatures": map[string]any{}}),
		"other reason":  altered(map[string]any{"content": map[string]any{"membership": "invite", "reason": "free beer"}}),
		"another user":  altered(map[string]any{"state_key": "@eve:" + string(s.remote.Name)}),
		"a join":        altered(map[string]any{"content": map[string]any{"membership": "join"}}),
		"another room":  altered(map[string]any{"room_id": "!other:" + string(s.home.Name)}),
		"another event": altered(map[string]any{"depth": 1, "event_id": "$other:" + string(s.home.Name)}),
	}
	refused := func(t *testing.T, version roomver.Version) {
		t.Helper()
		room, user := s.alice.Create(t, string(version), nil), "@weaver:"+string(s.remote.Name)
		status, code := s.alice.Refused(t, "POST", fedtest.RoomPath(room, "invite"), map[string]any{"user_id": user, "reason": "come"})
		require.Contains(t, []int{403, 502}, status, code)
		require.NotContains(t, s.alice.State(t, room), "m.room.member|"+user)
		s.alice.Say(t, room, "still here")
	}
	for _, version := range []roomver.Version{roomver.V1, roomver.V10, roomver.V12} {
		rules := roomver.MustGet(version)
		for what, lie := range lies {
			t.Run("version "+string(version)+" "+what, func(t *testing.T) {
				s.remote.Handle(inviteV2, signs(s.remote, rules, false, lie))
				refused(t, version)
			})
		}
		t.Run("version "+string(version)+" endless", func(t *testing.T) {
			s.remote.Handle(inviteV2, endless)
			refused(t, version)
		})
		s.remote.Handle(inviteV2, signs(s.remote, rules, false, contained))
		room, user := s.alice.Create(t, string(version), nil), "@weaver:"+string(s.remote.Name)
		s.alice.Must(t, "POST", fedtest.RoomPath(room, "invite"), map[string]any{"user_id": user})
		require.Equal(t, "invite", stateOf(t, s.alice, room, "m.room.member", user)["membership"])
	}
	s.remote.Handle(inviteV2, nil)
	for what, lie := range map[string]func(signed json.RawMessage) any{
		"an object":         contained,
		"a list of nothing": func(json.RawMessage) any { return []any{} },
		"the status alone":  func(json.RawMessage) any { return []any{200} },
		"no status":         func(e json.RawMessage) any { return []any{contained(e)} },
		"another status":    func(e json.RawMessage) any { return []any{403, contained(e)} },
		"a text for status": func(e json.RawMessage) any { return []any{"200", contained(e)} },
		"one too many":      func(e json.RawMessage) any { return []any{200, contained(e), contained(e)} },
		"the wrong way":     func(e json.RawMessage) any { return []any{contained(e), 200} },
		"the bare event":    func(e json.RawMessage) any { return []any{200, e} },
		"another reason": func(e json.RawMessage) any {
			return []any{200, lies["other reason"](e)}
		},
		"not signed": func(e json.RawMessage) any { return []any{200, lies["not signed"](e)} },
	} {
		t.Run("first version "+what, func(t *testing.T) {
			before := s.remote.Asked(inviteV1)
			s.remote.Handle(inviteV1, signs(s.remote, roomver.MustGet(roomver.V1), true, lie))
			refused(t, roomver.V1)
			require.Equal(t, before+1, s.remote.Asked(inviteV1))
		})
	}
	for what, answer := range map[string]http.HandlerFunc{
		"no JSON": says(200, "<html>"), "many": says(200, "["+strings.Repeat("1,", 100_000)+"1]"), "endless": endless,
		"deep": says(200, strings.Repeat("[", 100_000)), "refused": says(403, `{"errcode":"M_FORBIDDEN","error":"no"}`),
	} {
		t.Run("first version "+what, func(t *testing.T) {
			s.remote.Handle(inviteV1, answer)
			refused(t, roomver.V1)
		})
	}
}
