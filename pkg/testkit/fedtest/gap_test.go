package fedtest_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/testkit/fedtest"
)

// idsOf names events.
func idsOf(events ...*event.Event) []id.EventID {
	out := make([]id.EventID, len(events))
	for i, e := range events {
		out[i] = e.EventID()
	}
	return out
}

// encoded is a JSON answer.
func encoded(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	require.NoError(t, err)
	return string(b)
}

func pdusOf(events ...*event.Event) []json.RawMessage {
	out := make([]json.RawMessage, len(events))
	for i, e := range events {
		out[i] = e.JSON()
	}
	return out
}

// A server that is asked for what its events lack can answer what it likes: its event does not come in, nor does what it made up, and
// both its room and another one go on meanwhile.
func TestLiesAboutWhatIsMissing(t *testing.T) {
	s := newStage(t)
	const (
		missing  = "/_matrix/federation/v1/get_missing_events/"
		stateIDs = "/_matrix/federation/v1/state_ids/"
		state    = "/_matrix/federation/v1/state/"
		single   = "/_matrix/federation/v1/event/"
		chain    = "/_matrix/federation/v1/event_auth/"
	)
	endless := func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := io.WriteString(w, strings.Repeat(" ", 64<<10)); err != nil {
				return
			}
		}
	}
	r := s.remote
	for name, lie := range map[string]func(t *testing.T, p *fedtest.Place, hidden *event.Event){
		"nothing":                    func(*testing.T, *fedtest.Place, *event.Event) {},
		"no JSON":                    func(*testing.T, *fedtest.Place, *event.Event) { r.Says("/_matrix/federation/", "<html>") },
		"no JSON, though it says so": func(*testing.T, *fedtest.Place, *event.Event) { r.Handle("/_matrix/federation/", pretends) },
		"empty objects":              func(*testing.T, *fedtest.Place, *event.Event) { r.Says("/_matrix/federation/", "{}") },
		"lists":                      func(*testing.T, *fedtest.Place, *event.Event) { r.Says("/_matrix/federation/", "[[[]]]") },
		"invalid UTF-8": func(*testing.T, *fedtest.Place, *event.Event) {
			r.Says("/_matrix/federation/", "{\"events\":[\"\xff\"]}")
		},
		"missing, endless": func(*testing.T, *fedtest.Place, *event.Event) { r.Handle(missing, endless) },
		"missing, more than was asked for": func(t *testing.T, p *fedtest.Place, _ *event.Event) {
			list, last := []*event.Event(nil), p.Join
			for i := range 200 {
				last = p.Say(t, fmt.Sprint("filler ", i), last)
				list = append(list, last)
			}
			r.Says(missing, encoded(t, map[string]any{"events": pdusOf(list[100:]...)}))
		},
		"missing, not signed": func(t *testing.T, _ *fedtest.Place, hidden *event.Event) {
			r.Says(missing, encoded(t, map[string]any{"events": []json.RawMessage{with(t, hidden, map[string]any{"signatures": map[string]any{}})}}))
		},
		"missing, changed": func(t *testing.T, _ *fedtest.Place, hidden *event.Event) {
			r.Says(missing, encoded(t, map[string]any{"events": []json.RawMessage{with(t, hidden, map[string]any{"depth": 1})}}))
		},
		"state, of events that nobody has": func(t *testing.T, _ *fedtest.Place, _ *event.Event) {
			r.Says(stateIDs, encoded(t, map[string]any{
				"pdu_ids":        []string{"$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "", "x", strings.Repeat("y", 1000)},
				"auth_chain_ids": []string{"$BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"},
			}))
		},
		"state, empty": func(t *testing.T, _ *fedtest.Place, _ *event.Event) {
			r.Says(stateIDs, encoded(t, map[string]any{"pdu_ids": []string{}, "auth_chain_ids": []string{}}))
		},
		"state, too large": func(t *testing.T, _ *fedtest.Place, _ *event.Event) {
			list := make([]string, 200_001)
			for i := range list {
				list[i] = fmt.Sprintf("$%043d", i)
			}
			r.Says(stateIDs, encoded(t, map[string]any{"pdu_ids": list, "auth_chain_ids": []string{}}))
		},
		"state, endless": func(*testing.T, *fedtest.Place, *event.Event) { r.Handle(stateIDs, endless) },
		"state, of numbers": func(_ *testing.T, _ *fedtest.Place, _ *event.Event) {
			r.Says(stateIDs, `{"pdu_ids":[1,2],"auth_chain_ids":[3]}`)
		},
		"state, with other events than asked for": func(t *testing.T, p *fedtest.Place, _ *event.Event) {
			r.Says(stateIDs, encoded(t, map[string]any{"pdu_ids": []string{"$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}, "auth_chain_ids": []string{}}))
			r.Says(single, encoded(t, map[string]any{"pdus": pdusOf(p.Say(t, "something else"))}))
		},
		"state, without who made the room": func(t *testing.T, p *fedtest.Place, _ *event.Event) {
			r.Says(stateIDs, encoded(t, map[string]any{"pdu_ids": idsOf(p.Join), "auth_chain_ids": idsOf()}))
		},
		"auth chain, endless": func(*testing.T, *fedtest.Place, *event.Event) { r.Handle(chain, endless) },
	} {
		t.Run(name, func(t *testing.T) {
			r.Handle("/_matrix/federation/", nil)
			for _, path := range []string{missing, stateIDs, state, single, chain} {
				r.Handle(path, nil)
			}
			p := s.enter(t, roomver.V10, "mallory")
			hidden := p.Say(t, "never sent")
			lie(t, p, hidden)
			before := r.Asked("/_matrix/federation/")
			s.undisturbed(t, func() {
				e := p.Say(t, "after what was never sent", hidden)
				require.Empty(t, r.Send(t, s.home, e)[string(e.EventID())], "it is taken, and looked at later")
				s.goesOn(t, p)
				require.Eventually(t, func() bool { return r.Asked("/_matrix/federation/") > before }, patience, tick)
				s.goesOn(t, p)
				timeline := s.home.Timeline(t, string(p.Room))
				require.NotContains(t, timeline, string(e.EventID()))
				require.NotContains(t, timeline, string(hidden.EventID()))
			})
			require.Less(t, r.Asked("/_matrix/federation/")-before, 50)
		})
	}
}

// What an event rests on is asked for and looked at like everything else: if one of the events that allow it is not what its server signed, it does
// not come in, whichever way that one was given; and it does if it is.
func TestCorruptedAuthChain(t *testing.T) {
	s := newStage(t)
	defer s.traffic(t)()
	for _, c := range []struct {
		name  string
		given func(t *testing.T, e *event.Event) json.RawMessage
		comes bool
	}{
		{"as it is", func(_ *testing.T, e *event.Event) json.RawMessage { return e.JSON() }, true},
		{"not signed", func(t *testing.T, e *event.Event) json.RawMessage {
			return with(t, e, map[string]any{"signatures": map[string]any{}})
		}, false},
		{"of another time than was signed", func(t *testing.T, e *event.Event) json.RawMessage {
			return with(t, e, map[string]any{"origin_server_ts": e.OriginServerTS() + 1})
		}, false},
	} {
		for _, way := range []string{"event", "event_auth"} {
			t.Run(c.name+", by "+way, func(t *testing.T) {
				p := s.enter(t, roomver.V1, "mallory") // where events are named, and a changed one is still the one that was asked for
				user := string(p.User)
				proto := p.Message(t, "")
				proto.Type, proto.StateKey, proto.Content = event.TypeMember, &user, []byte(`{"membership":"join","displayname":"another"}`)
				proto.AuthEvents = append(proto.AuthEvents, p.Find(t, event.TypeJoinRules, "").EventID())
				renamed := p.Build(t, proto)
				given := c.given(t, renamed)
				served := make(chan struct{}, 100)
				after := []*event.Event{p.Join}
				switch way {
				case "event":
					after[0] = p.Say(t, "never sent", renamed)
					state := append([]id.EventID{renamed.EventID()}, idsOf(p.State[:len(p.State)-1]...)...)
					s.remote.Says(fed+"state_ids/", encoded(t, map[string]any{"pdu_ids": state, "auth_chain_ids": idsOf(p.Chain...)}))
					s.remote.Handle(fed+"event/"+string(renamed.EventID()), func(w http.ResponseWriter, _ *http.Request) {
						served <- struct{}{}
						_, _ = io.WriteString(w, encoded(t, map[string]any{"pdus": []json.RawMessage{given}}))
					})
				default:
					s.remote.Handle(fed+"event_auth/", func(w http.ResponseWriter, _ *http.Request) {
						served <- struct{}{}
						_, _ = io.WriteString(w, encoded(t, map[string]any{"auth_chain": append(pdusOf(p.Chain...), given)}))
					})
				}
				proto = p.Message(t, "resting on it", after...)
				proto.AuthEvents = append(idsOf(renamed), proto.AuthEvents[:1]...)
				proto.AuthEvents = append(proto.AuthEvents, p.Find(t, event.TypeCreate, "").EventID())
				e := p.Build(t, proto)
				require.Empty(t, s.remote.Send(t, s.home, e)[string(e.EventID())])
				<-served
				if c.comes {
					s.alice.Sees(t, string(p.Room), string(e.EventID()))
					return
				}
				count := func(query string, of *event.Event) (n int) {
					require.NoError(t, s.home.DB.Pool.QueryRow(t.Context(), query, string(of.EventID())).Scan(&n))
					return n
				}
				require.Eventually(t, func() bool {
					return count("SELECT count(*) FROM staged_pdu WHERE event_id = $1 AND tries > 0", e) == 1
				}, patience, tick, "it waits for what it lacks")
				require.Zero(t, count("SELECT count(*) FROM event WHERE event_id = $1", e))
				require.Zero(t, count("SELECT count(*) FROM event WHERE event_id = $1", renamed), "what is not as it was signed is not kept")
				s.goesOn(t, p)
			})
		}
	}
}

// A server that takes its time holds up nothing but its own event; when it gives what is missing, that comes in.
func TestSlowAboutWhatIsMissing(t *testing.T) {
	s := newStage(t)
	p := s.enter(t, roomver.V11, "mallory")
	asked, answer := make(chan struct{}, 100), make(chan struct{})
	hidden := p.Say(t, "not sent yet")
	s.remote.Handle("/_matrix/federation/v1/get_missing_events/", func(w http.ResponseWriter, q *http.Request) {
		asked <- struct{}{}
		select {
		case <-answer:
			_, _ = io.WriteString(w, encoded(t, map[string]any{"events": pdusOf(hidden)}))
		case <-q.Context().Done():
		}
	})
	late := p.Say(t, "after what was not sent yet", hidden)
	s.remote.Send(t, s.home, late)
	<-asked
	s.undisturbed(t, func() {
		for range 3 {
			s.goesOn(t, p)
		}
	})
	require.NotContains(t, s.home.Timeline(t, string(p.Room)), string(late.EventID()))
	close(answer)
	s.alice.Sees(t, string(p.Room), string(hidden.EventID()), string(late.EventID()))
}

// However many events a server sends that lack something, those that lack nothing come in, and what lacks something is kept in bounds.
func TestManyEventsThatLackSomething(t *testing.T) {
	s := newStage(t)
	defer s.traffic(t)()
	p := s.enter(t, roomver.V11, "mallory")
	for i := range 4 {
		var events []*event.Event
		for j := range 50 {
			events = append(events, p.Say(t, "after nothing", p.Say(t, fmt.Sprint("never sent ", i, " ", j))))
		}
		s.remote.Send(t, s.home, events...)
		s.goesOn(t, p)
	}
	require.Eventually(t, func() bool {
		var n int
		require.NoError(t, s.home.DB.Pool.QueryRow(t.Context(), "SELECT count(*) FROM staged_pdu WHERE tries > 0").Scan(&n))
		return n == 200
	}, patience, tick)
	s.goesOn(t, p)
}

// Many events side by side are all taken; what is built on them names few, and pulls them together. When they are very many the server does that
// by itself: other servers hear of it, and no client does.
func TestFloodOfExtremities(t *testing.T) {
	s := newStage(t)
	p := s.enter(t, roomver.V11, "mallory")
	joins := make(chan string, 1000)
	s.remote.Handle("/_matrix/federation/v1/send/", func(w http.ResponseWriter, q *http.Request) {
		var txn struct {
			PDUs []struct {
				Type   string       `json:"type"`
				Sender string       `json:"sender"`
				Prev   []id.EventID `json:"prev_events"`
			} `json:"pdus"`
		}
		if json.NewDecoder(q.Body).Decode(&txn) == nil {
			for _, e := range txn.PDUs {
				if e.Type == event.TypeDummy && len(e.Prev) > 1 {
					joins <- e.Sender
				}
			}
		}
		_, _ = io.WriteString(w, `{"pdus":{}}`)
	})
	s.undisturbed(t, func() {
		var all []string
		for i := range 6 {
			var events []*event.Event
			for j := range 50 {
				e := p.Say(t, fmt.Sprint("side ", i, " ", j))
				events, all = append(events, e), append(all, string(e.EventID()))
			}
			s.remote.Send(t, s.home, events...)
		}
		s.alice.Sees(t, string(p.Room), all...)
		require.Equal(t, s.alice.User, <-joins)
		for range 3 {
			said := s.alice.Say(t, string(p.Room), "one thing after the other")
			var raw []byte
			require.NoError(t, s.home.DB.Pool.QueryRow(t.Context(), "SELECT json FROM event WHERE event_id = $1", said).Scan(&raw))
			e, err := event.Parse(p.Rules, raw)
			require.NoError(t, err)
			require.LessOrEqual(t, len(e.PrevEvents()), 20)
			require.Greater(t, len(e.PrevEvents()), 1)
			s.alice.Sees(t, string(p.Room), said)
		}
	})
	for _, e := range s.alice.Seen.Events[string(p.Room)] {
		require.NotEqual(t, event.TypeDummy, e.Type)
	}
	page := s.alice.Must(t, "GET", fedtest.RoomPath(string(p.Room), "messages")+"?dir=b&limit=100", nil)
	require.Len(t, page["chunk"], 100)
	for _, e := range page["chunk"].([]any) {
		require.NotEqual(t, event.TypeDummy, e.(map[string]any)["type"])
	}
}

// So does it with events that are taken by the state before them, since nobody gives what they follow.
func TestFloodOfGaps(t *testing.T) {
	s := newStage(t)
	defer s.traffic(t)()
	p := s.enter(t, roomver.V11, "mallory")
	s.remote.Says(fed+"state_ids/", encoded(t, map[string]any{"pdu_ids": idsOf(p.State...), "auth_chain_ids": idsOf(p.Chain...)}))
	const many = 210
	var events []*event.Event
	for i := range many {
		events = append(events, p.Say(t, "after what nobody gives", p.Say(t, fmt.Sprint("never sent ", i))))
	}
	for part := range slices.Chunk(events, 50) {
		s.remote.Send(t, s.home, part...)
	}
	require.Eventually(t, func() bool { return s.home.Staged(t) == 0 }, 5*patience, tick)
	var joins int
	require.NoError(t, s.home.DB.Pool.QueryRow(t.Context(),
		"SELECT count(*) FROM event WHERE room_nid = (SELECT nid FROM room WHERE room_id = $1) AND convert_from(json, 'UTF8') LIKE '%' || $2 || '%'",
		string(p.Room), event.TypeDummy).Scan(&joins))
	require.Positive(t, joins)
	s.goesOn(t, p)
}

// In room version 1 servers name their events, and so can have them name each other in a circle.
func TestEventsInACircle(t *testing.T) {
	s := newStage(t)
	defer s.traffic(t)()
	p := s.enter(t, roomver.V1, "mallory")
	build := func(name, after id.EventID) *event.Event {
		proto := p.Message(t, "round and round")
		proto.EventID, proto.PrevEvents = name, []id.EventID{after}
		return p.Build(t, proto)
	}
	at := ":" + string(s.remote.Name)
	one, two := build(id.EventID("$one"+at), id.EventID("$two"+at)), build(id.EventID("$two"+at), id.EventID("$one"+at))
	s.remote.Says("/_matrix/federation/v1/get_missing_events/", encoded(t, map[string]any{"events": pdusOf(one, two)}))
	s.remote.Send(t, s.home, one, two)
	require.Eventually(t, func() bool { return s.remote.Asked("/_matrix/federation/v1/get_missing_events/") > 0 }, patience, tick)
	s.goesOn(t, p)
	for _, x := range []*event.Event{one, two} {
		require.NotContains(t, s.home.Timeline(t, string(p.Room)), string(x.EventID()))
	}
}

// Who is banned cannot speak on from before the ban, whatever is told of the state there.
func TestSpeakingFromBeforeABan(t *testing.T) {
	s := newStage(t)
	defer s.traffic(t)()
	p := s.enter(t, roomver.V11, "mallory")
	s.goesOn(t, p)
	s.alice.Must(t, "POST", fedtest.RoomPath(string(p.Room), "ban"), map[string]any{"user_id": p.User})
	e := p.Say(t, "as if nothing had been")
	s.remote.Send(t, s.home, e)
	hidden := p.Say(t, "never sent")
	gap := p.Say(t, "by a state of my own", hidden)
	s.remote.Says("/_matrix/federation/v1/state_ids/", encoded(t, map[string]any{"pdu_ids": idsOf(p.State...), "auth_chain_ids": idsOf(p.Chain...)}))
	s.remote.Send(t, s.home, gap)
	require.Eventually(t, func() bool {
		var n int
		require.NoError(t, s.home.DB.Pool.QueryRow(t.Context(), "SELECT count(*) FROM event WHERE event_id = ANY($1)",
			[]string{string(e.EventID()), string(gap.EventID())}).Scan(&n))
		return n == 2
	}, patience, tick)
	s.alice.Sees(t, string(p.Room), s.alice.Say(t, string(p.Room), "quiet now"))
	for _, x := range s.alice.Seen.Events[string(p.Room)] {
		require.NotContains(t, []string{string(e.EventID()), string(gap.EventID())}, x.ID)
	}
	require.Equal(t, "ban", s.alice.Must(t, "GET", fedtest.RoomPath(string(p.Room), "state", "m.room.member", string(p.User)), nil)["membership"])
}

// Who has no power cannot get it by events that are allowed by each other alone.
func TestPowerOutOfNothing(t *testing.T) {
	s := newStage(t)
	defer s.traffic(t)()
	for _, version := range []roomver.Version{roomver.V6, roomver.V11, roomver.V12} {
		p := s.enter(t, version, "mallory"+string(version))
		empty := ""
		power := p.Message(t, "")
		power.Type, power.StateKey, power.Content = event.TypePowerLevels, &empty, []byte(`{"users":{"`+string(p.User)+`":100}}`)
		forged := p.Build(t, power)
		name := p.Message(t, "")
		name.Type, name.StateKey, name.Content = event.TypeName, &empty, []byte(`{"name":"mine now"}`)
		name.AuthEvents = []id.EventID{forged.EventID(), p.Join.EventID()}
		if !p.Rules.RoomIDIsHash {
			name.AuthEvents = append(name.AuthEvents, p.Find(t, event.TypeCreate, "").EventID())
		}
		renamed := p.Build(t, name)
		s.remote.Says("/_matrix/federation/v1/event_auth/", encoded(t, map[string]any{"auth_chain": pdusOf(append(p.State, forged)...)}))
		s.remote.Send(t, s.home, renamed)
		s.remote.Send(t, s.home, forged, renamed)
		s.goesOn(t, p)
		require.NotContains(t, s.alice.State(t, string(p.Room)), "m.room.name|")
		require.Equal(t, string(p.Find(t, event.TypePowerLevels, "").EventID()), s.alice.State(t, string(p.Room))["m.room.power_levels|"])
	}
}
