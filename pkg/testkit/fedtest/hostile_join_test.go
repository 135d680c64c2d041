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

// usurped is a room that is hosted by the bad server, and in which a pawn of its has crowned itself and then given the room a name.
type usurped struct {
	*fedtest.Place
	create, levels, rules *event.Event
	// join is the pawn's, crown are the power levels by which it has power, and name is what it did with that.
	join, crown, name *event.Event
}

func (s *stage) usurp(t *testing.T, version roomver.Version, king string) *usurped {
	t.Helper()
	u := &usurped{Place: s.remote.Host(t, version, king)}
	u.create, u.levels, u.rules = u.Find(t, event.TypeCreate, ""), u.Find(t, event.TypePowerLevels, ""), u.Find(t, event.TypeJoinRules, "")
	pawn := id.UserID("@pawn:" + string(s.remote.Name))
	last := u.rules
	build := func(typ, key, content string, auth ...*event.Event) *event.Event {
		proto := &event.Proto{
			RoomID: u.Room, Type: typ, StateKey: &key, Sender: pawn, Content: []byte(content), Depth: last.Depth() + 1, PrevEvents: idsOf(last),
			OriginServerTS: last.OriginServerTS() + 1, AuthEvents: idsOf(auth...),
		}
		if !u.Rules.RoomIDIsHash {
			proto.AuthEvents = append(proto.AuthEvents, u.create.EventID())
		}
		last = u.Build(t, proto)
		return last
	}
	u.join = build(event.TypeMember, string(pawn), `{"membership":"join"}`, u.rules, u.levels)
	u.crown = build(event.TypePowerLevels, "", `{"users":{"`+string(pawn)+`":100}}`, u.join, u.levels)
	u.name = build(event.TypeName, "", `{"name":"mine"}`, u.join, u.crown)
	return u
}

// Power that a state's events do not bear out is nobody's, in whatever state it is told.
func TestStateThatContradictsItsAuthChain(t *testing.T) {
	s := newStage(t)
	defer s.traffic(t)()
	kings := 0
	for _, version := range []roomver.Version{roomver.V6, roomver.V10, roomver.V11, roomver.V12} {
		for what, tell := range map[string]func(u *usurped) []*event.Event{
			"the false levels alone": func(u *usurped) []*event.Event {
				return []*event.Event{u.create, u.Join, u.rules, u.join, u.crown, u.name}
			},
			"both, the false ones last": func(u *usurped) []*event.Event {
				return []*event.Event{u.create, u.Join, u.levels, u.rules, u.join, u.crown, u.name}
			},
			"both, the false ones first": func(u *usurped) []*event.Event {
				return []*event.Event{u.create, u.Join, u.crown, u.levels, u.rules, u.join, u.name}
			},
			"what follows from them only": func(u *usurped) []*event.Event {
				return []*event.Event{u.create, u.Join, u.levels, u.rules, u.join, u.name}
			},
			"all of it twice": func(u *usurped) []*event.Event {
				once := []*event.Event{u.create, u.Join, u.levels, u.rules, u.join, u.crown, u.name}
				return append(once, once...)
			},
		} {
			kings++ // each room is new to the homeserver, or it would not ask
			u := s.usurp(t, version, fmt.Sprint("king", kings))
			t.Run("version "+string(version)+" "+what, func(t *testing.T) {
				asked := s.remote.Asked("/_matrix/federation/v2/send_join/")
				u.Propose(t, nil)
				u.Tell(t, func(a map[string]any) {
					a["state"], a["auth_chain"] = u.PDUs(tell(u)...), u.PDUs(u.create, u.Join, u.levels, u.rules, u.join, u.crown, u.name)
				})
				err := s.alice.Do(t.Context(), "POST", u.JoinVia(), map[string]any{}, nil)
				require.Greater(t, s.remote.Asked("/_matrix/federation/v2/send_join/"), asked)
				if err != nil { // a state of which something is false need not be taken at all
					require.NotContains(t, err.Error(), "500")
					t.Log(err)
					require.False(t, s.home.Known(t, u.Room))
					return
				}
				state := s.alice.State(t, string(u.Room))
				require.NotEqual(t, string(u.crown.EventID()), state["m.room.power_levels|"])
				require.NotContains(t, state, "m.room.name|")
				require.Equal(t, string(u.join.EventID()), state["m.room.member|"+string(u.join.Sender())], "what is right of it is taken")
			})
		}
	}
}
