package fedtest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/testkit/fedtest"
)

// chainOf is what an auth chain has to hold: what the events name, what these name, and so on, and the create event where it is not named.
func chainOf(p *fedtest.Place, known []*event.Event, of ...*event.Event) []id.EventID {
	byID := map[id.EventID]*event.Event{}
	for _, e := range known {
		byID[e.EventID()] = e
	}
	seen := map[id.EventID]bool{}
	var out []id.EventID
	var add func(e id.EventID)
	add = func(e id.EventID) {
		if seen[e] {
			return
		}
		seen[e] = true
		out = append(out, e)
		if event := byID[e]; event != nil {
			for _, a := range event.AuthEvents() {
				add(a)
			}
		}
	}
	if p.Rules.RoomIDIsHash {
		create, _ := p.Room.CreateEvent()
		add(create)
	}
	for _, e := range of {
		for _, a := range e.AuthEvents() {
			add(a)
		}
	}
	return out
}

// What another server is told of what allows an event begins with the room's creation, whether events name that or not.
func TestAuthChains(t *testing.T) {
	s := newStage(t)
	for _, version := range []roomver.Version{roomver.V1, roomver.V10, roomver.V12} {
		t.Run("version "+string(version), func(t *testing.T) {
			p := s.enter(t, version, "mallory")
			ask := func(uri string, to any) {
				status, answer := s.remote.Ask(t, s.home, http.MethodGet, uri, nil)
				require.Equal(t, http.StatusOK, status, "%s", answer)
				require.NoError(t, json.Unmarshal(answer, to))
			}
			ids := func(raw []json.RawMessage) (out []id.EventID) {
				for _, pdu := range raw {
					e, err := event.Parse(p.Rules, pdu)
					require.NoError(t, err)
					out = append(out, e.EventID())
				}
				return out
			}
			known := slices.Concat(p.State, p.Chain)
			before := p.State[:len(p.State)-1] // without the join
			var told []id.EventID
			for _, e := range p.Chain {
				told = append(told, e.EventID())
			}
			require.ElementsMatch(t, chainOf(p, known, p.State...), told, "with the state that one joins by")

			room, join := url.PathEscape(string(p.Room)), url.PathEscape(string(p.Join.EventID()))
			var auth struct {
				Chain []json.RawMessage `json:"auth_chain"`
			}
			ask(fed+"event_auth/"+room+"/"+join, &auth)
			require.ElementsMatch(t, chainOf(p, known, p.Join), ids(auth.Chain))

			create := p.Find(t, event.TypeCreate, "")
			auth.Chain = nil
			ask(fed+"event_auth/"+room+"/"+url.PathEscape(string(create.EventID())), &auth)
			require.Empty(t, auth.Chain, "nothing allows a room's creation")

			var state struct {
				State []json.RawMessage `json:"pdus"`
				Chain []json.RawMessage `json:"auth_chain"`
			}
			ask(fed+"state/"+room+"?event_id="+join, &state)
			require.ElementsMatch(t, chainOf(p, known, before...), ids(state.Chain))
			require.Len(t, state.State, len(before))
			var names struct {
				State []id.EventID `json:"pdu_ids"`
				Chain []id.EventID `json:"auth_chain_ids"`
			}
			ask(fed+"state_ids/"+room+"?event_id="+join, &names)
			require.ElementsMatch(t, ids(state.Chain), names.Chain)
			require.ElementsMatch(t, ids(state.State), names.State)
		})
	}
}

// A server that knows only the first versions of joining and leaving is answered as these say: in a list, after the status.
func TestFirstVersions(t *testing.T) {
	s := newStage(t)
	for _, version := range []roomver.Version{roomver.V1, roomver.V12} {
		t.Run("version "+string(version), func(t *testing.T) {
			room := s.alice.Create(t, string(version), map[string]any{"preset": "public_chat"})
			p := s.remote.Enter(t, s.home, room, "mallory")
			put := func(endpoint string, e *event.Event) (answer []json.RawMessage) {
				status, b := s.remote.Ask(t, s.home, http.MethodPut, fed+endpoint+"/"+url.PathEscape(room)+"/"+url.PathEscape(string(e.EventID())), e.JSON())
				require.Equal(t, http.StatusOK, status, "%s", b)
				require.NoError(t, json.Unmarshal(b, &answer), "%s", b)
				require.Len(t, answer, 2)
				require.JSONEq(t, "200", string(answer[0]))
				return answer
			}
			member := func(membership string, after *event.Event) *event.Event {
				proto := p.Message(t, "", after)
				user := string(p.User)
				proto.Type, proto.StateKey, proto.Content = event.TypeMember, &user, []byte(`{"membership":"`+membership+`"}`)
				proto.AuthEvents = []id.EventID{p.Find(t, event.TypePowerLevels, "").EventID(), after.EventID()}
				if !p.Rules.RoomIDIsHash {
					proto.AuthEvents = append(proto.AuthEvents, p.Find(t, event.TypeCreate, "").EventID())
				}
				if membership == event.Join {
					proto.AuthEvents = append(proto.AuthEvents, p.Find(t, event.TypeJoinRules, "").EventID())
				}
				return p.Build(t, proto)
			}
			left := member(event.Leave, p.Join)
			require.JSONEq(t, "{}", string(put("send_leave", left)[1]))
			s.alice.Until(t, "the leave", func(v *fedtest.Seen) bool { return v.Members[room][string(p.User)] == event.Leave })

			var told struct {
				State []json.RawMessage `json:"state"`
				Chain []json.RawMessage `json:"auth_chain"`
			}
			require.NoError(t, json.Unmarshal(put("send_join", member(event.Join, left))[1], &told))
			require.Len(t, told.State, len(p.State))
			require.Greater(t, len(told.Chain), len(p.Chain), "both of the user's changes are told too")
			s.alice.Until(t, "the join", func(v *fedtest.Seen) bool { return v.Members[room][string(p.User)] == event.Join })
		})
	}
}

// A server that wants to begin without a room's members is told everything else of its state, a few of them where the room has no name, what
// allows all of that, and which servers were in the room before.
func TestJoiningWithoutMembers(t *testing.T) {
	s := newStage(t)
	var crowd []*fedtest.User
	for i := range 7 {
		crowd = append(crowd, s.home.NewUser(t, fmt.Sprint("member", i)))
	}
	for _, version := range versions {
		for kind, c := range map[string]struct {
			more    map[string]any
			members int
		}{
			"with a name":  {map[string]any{"preset": "public_chat", "name": "the mill"}, 0},
			"without name": {map[string]any{"preset": "public_chat"}, 5},
		} {
			t.Run("version "+string(version)+" "+kind, func(t *testing.T) {
				room := s.alice.Create(t, string(version), c.more)
				for _, u := range crowd {
					u.Join(t, room)
				}
				p := s.remote.Enter(t, s.home, room, "early")
				s.alice.Sees(t, room, string(p.Join.EventID()))
				var others []string
				members := 0
				for key, e := range s.alice.State(t, room) {
					if strings.HasPrefix(key, event.TypeMember+"|") {
						members++
					} else {
						others = append(others, e)
					}
				}
				require.Equal(t, len(crowd)+2, members)

				late := fedtest.NewRemote(t, s.ca)
				p, answer := late.EnterBy(t, s.home, room, "late", "?omit_members=true")
				var told struct {
					Omitted bool     `json:"members_omitted"`
					Servers []string `json:"servers_in_room"`
				}
				require.NoError(t, json.Unmarshal(answer, &told))
				require.True(t, told.Omitted)
				require.ElementsMatch(t, []string{string(s.home.Name), string(s.remote.Name)}, told.Servers)
				var state []string
				members = 0
				for _, e := range p.State[:len(p.State)-1] {
					if e.Type() == event.TypeMember {
						members++
					} else {
						state = append(state, string(e.EventID()))
					}
				}
				require.ElementsMatch(t, others, state)
				require.Equal(t, c.members, members)
				requireClosed(t, []*event.Event{p.Join}, slices.Concat(p.State, p.Chain))

				said := p.Say(t, "who is here?")
				require.Empty(t, late.Send(t, s.home, said)[string(said.EventID())])
				s.alice.Sees(t, room, string(said.EventID()))
			})
		}
	}
}
