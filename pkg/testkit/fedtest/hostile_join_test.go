package fedtest_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/testkit/fedtest"
)

func endless(w http.ResponseWriter, _ *http.Request) {
	for {
		if _, err := io.WriteString(w, strings.Repeat(" ", 64<<10)); err != nil {
			return
		}
	}
}

// What another server proposes to a user who wants in is signed only if it is the user's join and nothing else. When it has come to its
// senses the user gets in.
func TestHostileTemplates(t *testing.T) {
	s := newStage(t)
	const path = "/_matrix/federation/v1/make_join/"
	sent := func() int { return s.remote.Asked("/_matrix/federation/v2/send_join/") }
	type proposal = func(answer, proposed map[string]any)
	set := func(member string, v any) proposal {
		return func(_, proposed map[string]any) {
			if v == nil {
				delete(proposed, member)
				return
			}
			proposed[member] = v
		}
	}
	for _, version := range []roomver.Version{roomver.V6, roomver.V10, roomver.V12} {
		p := s.remote.Host(t, version, "mallory")
		refused := func(name string, lie func()) {
			t.Run("version "+string(version)+" "+name, func(t *testing.T) {
				lie()
				before := sent()
				status, code := s.alice.Refused(t, "POST", p.JoinVia(), map[string]any{})
				require.NotEqual(t, 500, status, code)
				require.Equal(t, before, sent(), "nothing was signed")
				require.False(t, s.home.Known(t, p.Room))
			})
		}
		s.undisturbed(t, func() {
			for name, change := range map[string]proposal{
				"another type":                 set("type", "m.room.power_levels"),
				"another room":                 set("room_id", "!other:nowhere.test"),
				"another sender":               set("sender", "@bob:"+string(s.home.Name)),
				"a sender of its own":          set("sender", string(p.User)),
				"another user's join":          set("state_key", "@bob:"+string(s.home.Name)),
				"no state":                     set("state_key", nil),
				"a ban":                        set("content", map[string]any{"membership": "ban"}),
				"a leave":                      set("content", map[string]any{"membership": "leave"}),
				"content that is a list":       set("content", []int{}),
				"no content":                   set("content", nil),
				"prev events that are none":    set("prev_events", []any{5, nil}),
				"auth events that are none":    set("auth_events", "all"),
				"an event too large to be one": set("prev_events", strings.Split(strings.Repeat("$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA ", 3000), " ")),
				"no event":                     func(answer, _ map[string]any) { delete(answer, "event") },
				"a list for an event":          func(answer, _ map[string]any) { answer["event"] = []any{} },
				"a version that there is not":  func(answer, _ map[string]any) { answer["room_version"] = "99" },
				"a version that is a number":   func(answer, _ map[string]any) { answer["room_version"] = 10 },
			} {
				refused(name, func() { p.Propose(t, change) })
			}
			for name, body := range map[string]string{
				"no JSON": "<html>", "a list": "[]", "null": "null", "invalid UTF-8": "{\"room_version\":\"10\",\"event\":{\"type\":\"\xff\"}}",
				"nested beyond all": strings.Repeat(`{"event":`, 50_000) + "1" + strings.Repeat("}", 50_000),
			} {
				refused(name, func() { s.remote.Says(path, body) })
			}
			refused("no JSON, though it says so", func() { s.remote.Handle(path, pretends) })
			refused("endless", func() { s.remote.Handle(path, endless) })
			refused("a redirect elsewhere", func() {
				s.remote.Handle(path, func(w http.ResponseWriter, q *http.Request) {
					http.Redirect(w, q, "http://127.0.0.1:1/", http.StatusFound)
				})
			})
			refused("an error that is none of ours", func() {
				s.remote.Handle(path, func(w http.ResponseWriter, _ *http.Request) {
					w.WriteHeader(http.StatusInternalServerError)
					_, _ = io.WriteString(w, `{"errcode":"M_UNKNOWN_TOKEN","error":"log out!","soft_logout":false}`)
				})
			})
		})
		p.Propose(t, func(_, proposed map[string]any) {
			proposed["unsigned"] = map[string]any{"x": 1}
			proposed["content"] = map[string]any{"membership": "join", "displayname": "a fool", "sold": "everything"}
		})
		s.alice.Must(t, "POST", p.JoinVia(), map[string]any{})
		s.alice.SeesRoom(t, string(p.Room), "join")
		content := s.alice.Must(t, "GET", fedtest.RoomPath(string(p.Room), "state", "m.room.member", s.alice.User), nil)
		require.NotContains(t, content, "sold", "what is said of a user is what the user says")
		require.NotEqual(t, "a fool", content["displayname"])
	}
}

// What another server says the state of a room is that somebody joins by way of it counts only as far as it holds by itself. A lie leaves
// nothing behind: by the same server's truth the user gets in.
func TestHostileStateOfAJoinedRoom(t *testing.T) {
	s := newStage(t)
	const path = "/_matrix/federation/v2/send_join/"
	for _, version := range []roomver.Version{roomver.V6, roomver.V10, roomver.V12} {
		other := s.remote.Host(t, version, "other")
		lies := map[string]func(p *fedtest.Place) func(answer map[string]any){
			"no state": func(*fedtest.Place) func(map[string]any) {
				return func(a map[string]any) { delete(a, "state"); delete(a, "auth_chain") }
			},
			"numbers": func(*fedtest.Place) func(map[string]any) {
				return func(a map[string]any) { a["state"], a["auth_chain"] = []int{1}, []int{2} }
			},
			"of another room": func(*fedtest.Place) func(map[string]any) {
				return func(a map[string]any) {
					a["state"], a["auth_chain"] = other.PDUs(other.State...), other.PDUs(other.State...)
				}
			},
			"no create event": func(p *fedtest.Place) func(map[string]any) {
				return func(a map[string]any) { a["state"], a["auth_chain"] = p.PDUs(p.State[1:]...), p.PDUs(p.State[1:]...) }
			},
			"another join event": func(p *fedtest.Place) func(map[string]any) {
				return func(a map[string]any) { a["event"] = json.RawMessage(p.State[1].JSON()) }
			},
			"unsigned": func(p *fedtest.Place) func(map[string]any) {
				var all []json.RawMessage
				for _, e := range p.State {
					all = append(all, with(t, e, map[string]any{"signatures": map[string]any{}}))
				}
				return func(a map[string]any) { a["state"], a["auth_chain"] = all, all }
			},
			"changed": func(p *fedtest.Place) func(map[string]any) {
				all := p.PDUs(p.State...)
				all[0] = with(t, p.State[0], map[string]any{"depth": 7})
				return func(a map[string]any) { a["state"], a["auth_chain"] = all, all }
			},
			"in which nobody may join": func(p *fedtest.Place) func(map[string]any) {
				return func(a map[string]any) { // the rules of joining are missing, so that one has to be invited
					kept := p.PDUs(p.State[:len(p.State)-1]...)
					a["state"], a["auth_chain"] = kept, kept
				}
			},
		}
		raw := map[string]http.HandlerFunc{
			"endless":                    endless,
			"no JSON":                    func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") },
			"no JSON, though it says so": pretends,
			"refused": func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusForbidden)
				_, _ = io.WriteString(w, `{"errcode":"M_FORBIDDEN","error":"changed my mind"}`)
			},
			"breaks off": func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "1000")
				_, _ = io.WriteString(w, `{"state":[`)
			},
		}
		n := 0
		lied := func(name string, lie func(p *fedtest.Place)) {
			n++
			p := s.remote.Host(t, version, fmt.Sprint("mallory", n))
			t.Run("version "+string(version)+" "+name, func(t *testing.T) {
				lie(p)
				status, code := s.alice.Refused(t, "POST", p.JoinVia(), map[string]any{})
				require.NotEqual(t, 500, status, code)
				require.NotContains(t, s.alice.Must(t, "GET", "/joined_rooms", nil)["joined_rooms"], string(p.Room))
				require.Empty(t, s.home.Timeline(t, string(p.Room)))
				p.Welcome(t)
				s.alice.Must(t, "POST", p.JoinVia(), map[string]any{})
				s.alice.SeesRoom(t, string(p.Room), "join")
			})
		}
		s.undisturbed(t, func() {
			for name, lie := range lies {
				if name == "another join event" && version == roomver.V6 {
					continue // the answer holds none that counts
				}
				lied(name, func(p *fedtest.Place) { p.Tell(t, lie(p)) })
			}
			for name, answer := range raw {
				if name == "endless" && version != roomver.V10 {
					continue // half a gigabyte is read of it
				}
				lied(name, func(*fedtest.Place) { s.remote.Handle(path, answer) })
			}
		})
	}
}

// Power that a state's events do not bear out is nobody's, in whatever state it is told.
func TestStateThatContradictsItsAuthChain(t *testing.T) {
	s := newStage(t)
	for _, version := range []roomver.Version{roomver.V10, roomver.V12} {
		p := s.remote.Host(t, version, "king"+string(version))
		pawn := id.UserID("@pawn:" + string(s.remote.Name))
		// The pawn joins, and then crowns itself.
		king := p.User
		p.User = pawn
		key := string(pawn)
		create, levels, rules := p.Find(t, event.TypeCreate, ""), p.Find(t, event.TypePowerLevels, ""), p.Find(t, event.TypeJoinRules, "")
		auth := func(more ...*event.Event) (list []id.EventID) {
			if !p.Rules.RoomIDIsHash {
				list = append(list, create.EventID())
			}
			for _, e := range append(more, levels) {
				list = append(list, e.EventID())
			}
			return list
		}
		join := p.Build(t, &event.Proto{
			RoomID: p.Room, Type: event.TypeMember, StateKey: &key, Sender: pawn, Content: []byte(`{"membership":"join"}`), Depth: rules.Depth() + 1,
			PrevEvents: []id.EventID{rules.EventID()}, AuthEvents: auth(rules), OriginServerTS: rules.OriginServerTS() + 1,
		})
		empty := ""
		crown := p.Build(t, &event.Proto{
			RoomID: p.Room, Type: event.TypePowerLevels, StateKey: &empty, Sender: pawn, Content: []byte(`{"users":{"` + key + `":100}}`),
			Depth: join.Depth() + 1, PrevEvents: []id.EventID{join.EventID()}, AuthEvents: auth(join), OriginServerTS: join.OriginServerTS() + 1,
		})
		name := p.Build(t, &event.Proto{
			RoomID: p.Room, Type: event.TypeName, StateKey: &empty, Sender: pawn, Content: []byte(`{"name":"mine"}`), Depth: crown.Depth() + 1,
			PrevEvents: []id.EventID{crown.EventID()}, OriginServerTS: crown.OriginServerTS() + 1,
			AuthEvents: append(auth(join)[:len(auth(join))-1], crown.EventID()),
		})
		p.User = king
		for what, told := range map[string][]*event.Event{
			"the false levels alone":      {create, p.Join, rules, join, crown, name},
			"both, the false ones last":   {create, p.Join, levels, rules, join, crown, name},
			"both, the false ones first":  {create, p.Join, crown, levels, rules, join, name},
			"what follows from them only": {create, p.Join, levels, rules, join, name},
			"all of it twice":             {create, p.Join, levels, rules, join, crown, name, create, p.Join, levels, rules, join, crown, name},
		} {
			t.Run("version "+string(version)+" "+what, func(t *testing.T) {
				user := s.home.NewUser(t, strings.NewReplacer(" ", "", ",", "").Replace(what)+string(version))
				p.Tell(t, func(a map[string]any) {
					a["state"], a["auth_chain"] = p.PDUs(told...), p.PDUs(create, p.Join, levels, rules, join, crown, name)
				})
				ctx := t.Context()
				err := user.Do(ctx, "POST", p.JoinVia(), map[string]any{}, nil)
				if err != nil {
					require.NotContains(t, err.Error(), "500")
					return // a state of which something is false need not be taken at all
				}
				state := user.State(t, string(p.Room))
				require.NotEqual(t, string(crown.EventID()), state["m.room.power_levels|"])
				require.NotContains(t, state, "m.room.name|")
			})
		}
	}
}
