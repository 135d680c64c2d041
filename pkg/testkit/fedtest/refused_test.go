package fedtest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/testkit/fedtest"
)

// invites has the bad server invite alice to a room of its own, with what it tells of the room. named is the event's id in the path, if not its own.
func (s *stage) invites(t *testing.T, p *fedtest.Place, named id.EventID, told any) (status int, answer []byte) {
	t.Helper()
	proto := p.Message(t, "")
	proto.Type, proto.StateKey, proto.Content = event.TypeMember, &s.alice.User, []byte(`{"membership":"invite"}`)
	proto.PrevEvents = []id.EventID{p.Find(t, event.TypeJoinRules, "").EventID()}
	e := p.Build(t, proto)
	if named == "" {
		named = e.EventID()
	}
	return s.remote.Ask(t, s.home, http.MethodPut, inviteV2+url.PathEscape(string(p.Room))+"/"+url.PathEscape(string(named)), []byte(encoded(t, map[string]any{
		"room_version": p.Rules.Version, "event": json.RawMessage(e.JSON()), "invite_room_state": told,
	})))
}

// Whoever declines an invitation is rid of it, whatever its server says or makes of it, and nothing is signed that is not a leave.
func TestDeclinedWhateverItsServerSays(t *testing.T) {
	s := newStage(t)
	const makeLeave, sendLeave = "/_matrix/federation/v1/make_leave/", "/_matrix/federation/v2/send_leave/"
	forbidden := says(403, `{"errcode":"M_FORBIDDEN","error":"stay"}`)
	proposes := func(p *fedtest.Place, membership string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			_ = json.NewEncoder(w).Encode(map[string]any{"room_version": p.Rules.Version, "event": p.Template(t, s.alice.User, membership)})
		}
	}
	for _, version := range []roomver.Version{roomver.V1, roomver.V10, roomver.V12} {
		n := 0
		for what, server := range map[string]func(p *fedtest.Place) (makes, sends http.HandlerFunc){
			"it knows nothing":         func(*fedtest.Place) (_, _ http.HandlerFunc) { return nil, nil },
			"it forbids it":            func(*fedtest.Place) (_, _ http.HandlerFunc) { return forbidden, nil },
			"it forbids it in the end": func(p *fedtest.Place) (_, _ http.HandlerFunc) { return proposes(p, event.Leave), forbidden },
			"it says no JSON":          func(*fedtest.Place) (_, _ http.HandlerFunc) { return pretends, nil },
			"it proposes a join":       func(p *fedtest.Place) (_, _ http.HandlerFunc) { return proposes(p, event.Join), says(200, "{}") },
		} {
			n++
			t.Run("version "+string(version)+" "+what, func(t *testing.T) {
				p := s.remote.Host(t, version, fmt.Sprint("mallory", n))
				status, answer := s.invites(t, p, "", []any{})
				require.Equal(t, 200, status, "%s", answer)
				s.alice.SeesRoom(t, string(p.Room), "invite")
				makes, sends := server(p)
				s.remote.Handle(makeLeave, makes)
				s.remote.Handle(sendLeave, sends)
				asked, sent := s.remote.Asked(makeLeave), s.remote.Asked(sendLeave)
				leave := fedtest.RoomPath(string(p.Room), "leave")
				s.alice.Must(t, "POST", leave, nil)
				require.Equal(t, asked+1, s.remote.Asked(makeLeave))
				if what != "it forbids it in the end" {
					require.Equal(t, sent, s.remote.Asked(sendLeave))
				}
				s.alice.SeesRoom(t, string(p.Room), "leave")
				s.alice.Must(t, "POST", leave, nil)
				require.Equal(t, asked+1, s.remote.Asked(makeLeave), "who has left has nobody asked")
			})
		}
	}
}

// Of what several servers answer to somebody who wants in, a refusal says more than silence, in whatever order they are asked; and if there is nobody
// to ask, that is said.
func TestWhatIsToldOfAJoinThatNobodyAllowed(t *testing.T) {
	s := newStage(t)
	other, room := fedtest.NewRemote(t, s.ca), "!room:"+string(fedtest.Nowhere(t))
	s.remote.Handle(fed+"make_join/", says(403, `{"errcode":"M_FORBIDDEN","error":"no"}`))
	silent, forbids, unknowing := string(fedtest.Nowhere(t)), string(s.remote.Name), string(other.Name)
	for what, c := range map[string]struct {
		room   string
		via    []string
		status int
		code   string
	}{
		"a refusal, then silence":          {room, []string{forbids, silent}, 403, "M_FORBIDDEN"},
		"silence, then a refusal":          {room, []string{silent, forbids}, 403, "M_FORBIDDEN"},
		"a refusal, then who knows it not": {room, []string{forbids, unknowing}, 403, "M_FORBIDDEN"},
		"who knows it not, then a refusal": {room, []string{unknowing, forbids}, 403, "M_FORBIDDEN"},
		"silence":                          {room, []string{silent}, 502, "M_UNKNOWN"},
		"names that are none":              {room, []string{"not a name", "[::", string(s.home.Name)}, 404, "M_NOT_FOUND"},
		"nobody, for an id without server": {"!" + strings.Repeat("A", 43), nil, 404, "M_NOT_FOUND"},
	} {
		t.Run(what, func(t *testing.T) {
			status, code := s.alice.Refused(t, "POST", "/join/"+url.PathEscape(c.room)+"?"+url.Values{"via": c.via}.Encode(), map[string]any{})
			require.Equal(t, c.status, status)
			require.Equal(t, c.code, code)
		})
	}
}

// A join that another server is said to vouch for counts only with that server's signature.
func TestVouchedForByNobody(t *testing.T) {
	s := newStage(t)
	defer s.traffic(t)()
	for _, version := range []roomver.Version{roomver.V8, roomver.V10, roomver.V12} {
		p := s.remote.Host(t, version, "mallory")
		p.Propose(t, func(_, proposed map[string]any) {
			proposed["content"] = map[string]any{"membership": "join", "join_authorised_via_users_server": p.User}
		})
		sign := func(forge bool) func(answer map[string]any) {
			return func(answer map[string]any) {
				e, err := event.Parse(p.Rules, answer["event"].(json.RawMessage))
				if err != nil {
					t.Errorf("what was sent: %v", err)
					return
				}
				pdu := json.RawMessage(e.Sign(s.remote.Name, s.remote.Key).JSON())
				if forge {
					pdu = with(t, e, map[string]any{"signatures": map[string]any{
						string(s.home.Name): map[string]any{"ed25519:x": "x"}, string(s.remote.Name): map[string]any{string(s.remote.Key.ID()): strings.Repeat("A", 86)},
					}})
				}
				answer["event"] = pdu
			}
		}
		for what, tell := range map[string]func(map[string]any){"not signed": nil, "forged": sign(true)} {
			t.Run("version "+string(version)+" "+what, func(t *testing.T) {
				p.Tell(t, tell)
				status, code := s.alice.Refused(t, "POST", p.JoinVia(), map[string]any{})
				require.Equal(t, 403, status)
				require.Equal(t, "M_FORBIDDEN", code)
				require.False(t, s.home.Known(t, p.Room))
			})
		}
		p.Tell(t, sign(false))
		s.alice.Must(t, "POST", p.JoinVia(), map[string]any{})
		require.Equal(t, string(p.User), vouched(t, string(p.Room), s.alice))
	}
}

// An invitation whose sender may not invite any more when the other server has signed it does not come to be.
func TestInvitationOvertaken(t *testing.T) {
	s := newStage(t)
	bob := s.home.NewUser(t, "bob")
	for _, version := range []roomver.Version{roomver.V1, roomver.V10, roomver.V12} {
		t.Run("version "+string(version), func(t *testing.T) {
			room := s.alice.Create(t, string(version), map[string]any{"preset": "public_chat", "power_level_content_override": map[string]any{"invite": 0}})
			bob.Join(t, room)
			s.remote.Handle(inviteV2, func(w http.ResponseWriter, q *http.Request) {
				if err := s.alice.Do(q.Context(), "POST", fedtest.RoomPath(room, "ban"), map[string]any{"user_id": bob.User}, nil); err != nil {
					t.Errorf("ban: %v", err)
				}
				signs(s.remote, roomver.MustGet(version), false, contained)(w, q)
			})
			weaver := "@weaver:" + string(s.remote.Name)
			asked := s.remote.Asked(inviteV2)
			status, code := bob.Refused(t, "POST", fedtest.RoomPath(room, "invite"), map[string]any{"user_id": weaver})
			require.Equal(t, 403, status)
			require.Equal(t, "M_FORBIDDEN", code)
			require.Equal(t, asked+1, s.remote.Asked(inviteV2))
			require.NotContains(t, s.alice.State(t, room), "m.room.member|"+weaver)
			s.alice.Say(t, room, "still here")
		})
	}
}

// An invitation under another name, or of somebody who takes none, is refused. One that tells too much of its room stands, and what it tells does not.
func TestInvitationsThatAreNotTaken(t *testing.T) {
	s := newStage(t)
	told := func(size int) any {
		return []any{map[string]any{"type": "m.room.name", "state_key": "", "sender": "@x:y", "content": map[string]any{"name": strings.Repeat("x", size)}}}
	}
	refused := func(p *fedtest.Place, named id.EventID, status int, code string) {
		t.Helper()
		got, answer := s.invites(t, p, named, told(1))
		require.Equal(t, status, got, "%s", answer)
		require.Contains(t, string(answer), `"`+code+`"`)
	}
	first := s.remote.Host(t, roomver.V1, "mallory")
	refused(first, "$other:"+id.EventID(s.remote.Name), 400, "M_INVALID_PARAM")
	p := s.remote.Host(t, roomver.V11, "mallory")
	config := "/user/" + url.PathEscape(s.alice.User) + "/account_data/m.invite_permission_config"
	s.alice.Must(t, "PUT", config, map[string]any{"default_action": "block"})
	refused(p, "", 403, "M_INVITE_BLOCKED")
	s.alice.Must(t, "PUT", config, map[string]any{})
	s.alice.Sync(t, false)
	require.NotContains(t, s.alice.Seen.Section, string(first.Room))
	require.NotContains(t, s.alice.Seen.Section, string(p.Room))

	status, answer := s.invites(t, p, "", told(128<<10))
	require.Equal(t, 200, status, "%s", answer)
	s.alice.SeesRoom(t, string(p.Room), "invite")
	for _, e := range s.alice.Seen.Stripped[string(p.Room)] {
		require.NotEqual(t, event.TypeName, e.Type)
	}
}

// What is said of whose an address is has to be of somebody here, and what is claimed by it the claimant's own.
func TestClaimsThatAreNone(t *testing.T) {
	s := newStage(t)
	defer s.traffic(t)()
	room := s.alice.Create(t, "11", nil)
	before := s.alice.State(t, room)
	const onbind = fed + "3pid/onbind"
	for what, c := range map[string]struct {
		user, code string
		status     int
	}{
		"of nobody":          {"", "M_MISSING_PARAM", 400},
		"of what is no user": {"alice", "M_INVALID_PARAM", 400},
		"of another server":  {"@alice:" + string(s.remote.Name), "M_INVALID_PARAM", 400},
		"of who is not here": {"@ghost:" + string(s.home.Name), "M_NOT_FOUND", 404},
	} {
		t.Run("bound "+what, func(t *testing.T) {
			s.refusal(t, "PUT", onbind, []byte(encoded(t, map[string]any{"mxid": c.user, "invites": []any{}})), c.code, c.status)
		})
	}
	// One that can be claimed nowhere does not hold up the others.
	signed := map[string]any{"mxid": s.alice.User, "token": "x", "signatures": map[string]any{}}
	asked := s.remote.Asked(fed + "exchange_third_party_invite/")
	status, answer := s.remote.Ask(t, s.home, "PUT", onbind, []byte(encoded(t, map[string]any{"mxid": s.alice.User, "invites": []any{
		map[string]any{"room_id": "no room", "sender": s.alice.User, "signed": signed},
		map[string]any{"room_id": room, "sender": "nobody", "signed": signed},
		map[string]any{"room_id": room, "sender": s.alice.User, "signed": nil},
		map[string]any{"room_id": room, "sender": "@mallory:" + string(s.remote.Name), "signed": signed},
	}})))
	require.Equal(t, 200, status, "%s", answer)
	require.Equal(t, asked+1, s.remote.Asked(fed+"exchange_third_party_invite/"))

	claim := func(change func(m, signed map[string]any)) []byte {
		of := map[string]any{"mxid": "@guest:" + string(s.remote.Name), "token": "x", "signatures": map[string]any{}}
		m := map[string]any{"type": event.TypeMember, "room_id": room, "sender": s.alice.User, "state_key": of["mxid"]}
		change(m, of)
		if m["content"] == nil {
			m["content"] = map[string]any{"membership": "invite", "third_party_invite": map[string]any{"display_name": "x", "signed": of}}
		}
		return []byte(encoded(t, m))
	}
	for what, change := range map[string]func(m, signed map[string]any){
		"of another type":       func(m, _ map[string]any) { m["type"] = "m.room.name" },
		"of another room":       func(m, _ map[string]any) { m["room_id"] = "!other:" + string(s.home.Name) },
		"of a sender elsewhere": func(m, _ map[string]any) { m["sender"] = "@mallory:" + string(s.remote.Name) },
		"of somebody else":      func(_, signed map[string]any) { signed["mxid"] = s.alice.User },
		"without a token":       func(_, signed map[string]any) { signed["token"] = "" },
		"for what is no user":   func(m, signed map[string]any) { m["state_key"], signed["mxid"] = "guest", "guest" },
	} {
		t.Run("claimed "+what, func(t *testing.T) {
			s.refusal(t, "PUT", fed+"exchange_third_party_invite/"+url.PathEscape(room), claim(change), "M_INVALID_PARAM", 400)
		})
	}
	t.Run("claimed by an invitation that there is not", func(t *testing.T) {
		s.refusal(t, "PUT", fed+"exchange_third_party_invite/"+url.PathEscape(room), claim(func(_, _ map[string]any) {}), "M_FORBIDDEN", 403)
	})
	require.Equal(t, before, s.alice.State(t, room))
}

// What a server has sent is answered the same when it comes again, and a user of another server's is not let in by it.
func TestJoinsSentAgain(t *testing.T) {
	s := newStage(t)
	for _, version := range []roomver.Version{roomver.V10, roomver.V12} {
		p := s.enter(t, version, "mallory")
		uri := func(e *event.Event) string {
			return "/_matrix/federation/v2/send_join/" + url.PathEscape(string(p.Room)) + "/" + url.PathEscape(string(e.EventID()))
		}
		for range 2 {
			status, answer := s.remote.Ask(t, s.home, http.MethodPut, uri(p.Join), p.Join.JSON())
			require.Equal(t, 200, status, "%s", answer)
		}
		user := "@bob:" + string(fedtest.Nowhere(t))
		proto := p.Message(t, "")
		proto.Type, proto.StateKey, proto.Sender, proto.Content = event.TypeMember, &user, id.UserID(user), []byte(`{"membership":"join"}`)
		e := p.Build(t, proto)
		s.refusal(t, http.MethodPut, uri(e), e.JSON(), "M_FORBIDDEN", 403)
		require.NotContains(t, s.alice.State(t, string(p.Room)), "m.room.member|"+user)
		// One that was refused by the room is so when it comes again.
		s.alice.Must(t, "POST", fedtest.RoomPath(string(p.Room), "ban"), map[string]any{"user_id": p.User})
		again := p.Message(t, "")
		again.Type, again.StateKey, again.Content = event.TypeMember, (*string)(&p.User), []byte(`{"membership":"join"}`)
		again.OriginServerTS = time.Now().UnixMilli()
		e = p.Build(t, again)
		for range 2 {
			s.refusal(t, http.MethodPut, uri(e), e.JSON(), "M_FORBIDDEN", 403)
		}
	}
}

// A server is asked for no more keys at once than one query may name.
func TestTooManyKeysAskedFor(t *testing.T) {
	s := newStage(t)
	keys := map[string]any{}
	for i := range 201 {
		keys[fmt.Sprint("ed25519:", i)] = map[string]any{}
	}
	query := func(server string) []byte {
		return []byte(encoded(t, map[string]any{"server_keys": map[string]any{server: keys}}))
	}
	s.refusal(t, http.MethodPost, "/_matrix/key/v2/query", query(string(s.home.Name)), "M_INVALID_PARAM", 400)
	status, answer := s.remote.Ask(t, s.home, http.MethodPost, "/_matrix/key/v2/query", query("not a name"))
	require.Equal(t, 200, status)
	require.JSONEq(t, `{"server_keys":[]}`, string(answer))
}
