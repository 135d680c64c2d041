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

const fed = "/_matrix/federation/v1/"

// refusal makes a request that has to be refused, with one of some statuses.
func (s *stage) refusal(t *testing.T, method, uri string, body []byte, code string, statuses ...int) {
	t.Helper()
	status, answer := s.remote.Ask(t, s.home, method, uri, body)
	require.Contains(t, statuses, status, "%s", answer)
	var e struct {
		Code string `json:"errcode"`
		Text string `json:"error"`
	}
	require.NoError(t, json.Unmarshal(answer, &e), "%s", answer)
	require.Equal(t, code, e.Code, e.Text)
	require.NotEmpty(t, e.Text)
}

// A server that wants its users in, or out, or to be asked in, is held to what was proposed to it, and to its own users.
func TestHostileMembers(t *testing.T) {
	s := newStage(t)
	esc := url.PathEscape
	for _, version := range []roomver.Version{roomver.V10, roomver.V12} {
		p := s.enter(t, version, "mallory")
		room := string(p.Room)
		closed := s.alice.Create(t, string(version), nil)
		newcomer := "@new:" + string(s.remote.Name)
		ver := "?ver=" + string(version)
		makes := func(what, r, user string) string { return fed + what + "/" + esc(r) + "/" + esc(user) + ver }
		levels, rules := p.Find(t, event.TypePowerLevels, ""), p.Find(t, event.TypeJoinRules, "")
		member := func(user, membership string, change func(*event.Proto)) *event.Event {
			proto := p.Message(t, "")
			proto.Type, proto.StateKey, proto.Sender = event.TypeMember, &user, id.UserID(user)
			proto.Content = []byte(`{"membership":"` + membership + `"}`)
			proto.AuthEvents = []id.EventID{levels.EventID(), rules.EventID()}
			if !p.Rules.RoomIDIsHash {
				proto.AuthEvents = append(proto.AuthEvents, p.Find(t, event.TypeCreate, "").EventID())
			}
			if change != nil {
				change(proto)
			}
			return p.Build(t, proto)
		}
		put := func(endpoint string, e *event.Event) string {
			return "/_matrix/federation/" + endpoint + "/" + esc(room) + "/" + esc(string(e.EventID()))
		}
		good := member(newcomer, "join", nil)
		before := s.alice.State(t, room)
		s.undisturbed(t, func() {
			for name, c := range map[string]struct {
				uri, code string
				status    int
			}{
				"make_join of another server's user":   {makes("make_join", room, s.alice.User), "M_FORBIDDEN", 403},
				"make_join of nobody":                  {makes("make_join", room, "nobody"), "M_INVALID_PARAM", 400},
				"make_join to a room that is none":     {makes("make_join", "room", newcomer), "M_INVALID_PARAM", 400},
				"make_join to an unknown room":         {makes("make_join", "!nothing:nowhere.test", newcomer), "M_NOT_FOUND", 404},
				"make_join to a closed room":           {makes("make_join", closed, newcomer), "M_FORBIDDEN", 403},
				"make_join without the version":        {fed + "make_join/" + esc(room) + "/" + esc(newcomer), "M_INCOMPATIBLE_ROOM_VERSION", 400},
				"make_knock on a room that is not for": {makes("make_knock", room, newcomer), "M_FORBIDDEN", 403},
				"make_leave of another server's user":  {makes("make_leave", room, s.alice.User), "M_FORBIDDEN", 403},
				"make_leave of who is not in":          {makes("make_leave", room, newcomer), "M_FORBIDDEN", 403},
			} {
				t.Run("version "+string(version)+" "+name, func(t *testing.T) { s.refusal(t, "GET", c.uri, nil, c.code, c.status) })
			}
			type sent struct {
				e        *event.Event
				uri      string // default: send_join of the event
				body     []byte // default: the event
				code     string
				statuses []int
			}
			stray := p.Say(t, "never sent")
			for name, c := range map[string]sent{
				"a leave as a join":          {e: member(newcomer, "leave", nil), code: "M_INVALID_PARAM"},
				"a message as a join":        {e: p.Say(t, "let me in"), code: "M_INVALID_PARAM"},
				"another user's join":        {e: member(newcomer, "join", func(x *event.Proto) { x.StateKey = &s.alice.User }), code: "M_INVALID_PARAM"},
				"under another id":           {e: good, uri: put("v2/send_join", p.Join), code: "M_INVALID_PARAM"},
				"to another room":            {e: good, uri: "/_matrix/federation/v2/send_join/" + esc(closed) + "/" + esc(string(good.EventID())), code: "M_INVALID_PARAM"},
				"not signed":                 {e: good, body: with(t, good, map[string]any{"signatures": map[string]any{}}), code: "M_FORBIDDEN", statuses: []int{403}},
				"changed":                    {e: good, body: with(t, good, map[string]any{"origin_server_ts": 1}), code: "M_INVALID_PARAM"},
				"an object that is no event": {e: good, body: []byte(`{}`), code: "M_BAD_JSON"},
				"a list":                     {e: good, body: []byte(`[]`), code: "M_BAD_JSON"},
				"after what nobody has":      {e: member(newcomer, "join", func(x *event.Proto) { x.PrevEvents = []id.EventID{stray.EventID()} }), code: "M_BAD_STATE", statuses: []int{400, 403}},
				"allowed by what nobody has": {e: member(newcomer, "join", func(x *event.Proto) { x.AuthEvents = append(x.AuthEvents, stray.EventID()) }), code: "M_BAD_STATE", statuses: []int{400, 403}},
				"allowed by nothing":         {e: member(newcomer, "join", func(x *event.Proto) { x.AuthEvents = nil }), code: "M_FORBIDDEN", statuses: []int{403}},
				"a join as a leave":          {e: good, uri: put("v2/send_leave", good), code: "M_INVALID_PARAM"},
				"a join as a leave, v1":      {e: good, uri: put("v1/send_leave", good), code: "M_INVALID_PARAM"},
				"a leave as a join, v1":      {e: member(newcomer, "leave", nil), uri: "join v1", code: "M_INVALID_PARAM"},
				"another user's join, v1":    {e: member(newcomer, "join", func(x *event.Proto) { x.StateKey = &s.alice.User }), uri: "join v1", code: "M_INVALID_PARAM"},
				"another user's leave":       {e: member(newcomer, "leave", func(x *event.Proto) { x.StateKey = &s.alice.User }), uri: "leave", code: "M_INVALID_PARAM"},
				"a message as a leave":       {e: p.Say(t, "let me out"), uri: "leave", code: "M_INVALID_PARAM"},
				"a join as a knock":          {e: good, uri: put("v1/send_knock", good), code: "M_INVALID_PARAM"},
				"a knock on an open room":    {e: member(newcomer, "knock", nil), uri: "knock", code: "M_FORBIDDEN", statuses: []int{403}},
				"the leave of who is not in": {e: member(newcomer, "leave", nil), uri: "leave", code: "M_FORBIDDEN", statuses: []int{403}},
				"vouched for by another user": {e: member(newcomer, "join", func(x *event.Proto) {
					x.Content = []byte(`{"membership":"join","join_authorised_via_users_server":"` + s.alice.User + `"}`)
				}), code: ""},
			} {
				t.Run("version "+string(version)+" "+name, func(t *testing.T) {
					switch c.uri {
					case "":
						c.uri = put("v2/send_join", c.e)
					case "knock", "leave", "join v1":
						c.uri = put(map[string]string{"knock": "v1/send_knock", "leave": "v2/send_leave", "join v1": "v1/send_join"}[c.uri], c.e)
					}
					if c.body == nil {
						c.body = c.e.JSON()
					}
					if c.statuses == nil {
						c.statuses = []int{400}
					}
					if c.code == "" { // the room is open to everybody, so that vouching for somebody means nothing: either is right, and no crash
						status, _ := s.remote.Ask(t, s.home, "PUT", c.uri, c.body)
						require.NotEqual(t, 500, status)
						return
					}
					s.refusal(t, "PUT", c.uri, c.body, c.code, c.statuses...)
				})
			}
		})
		after := s.alice.State(t, room)
		delete(after, "m.room.member|"+newcomer)
		require.Equal(t, before, after, "nobody came in, and nothing changed")
		// Who is banned is not let in by any way.
		s.alice.Must(t, "POST", fedtest.RoomPath(room, "ban"), map[string]any{"user_id": p.User})
		s.refusal(t, "GET", makes("make_join", room, string(p.User)), nil, "M_FORBIDDEN", 403)
		again := member(string(p.User), "join", func(x *event.Proto) { x.Content = []byte(`{"membership":"join","displayname":"another"}`) })
		s.refusal(t, "PUT", put("v2/send_join", again), again.JSON(), "M_FORBIDDEN", 403)
	}
}

// An invitation counts if it is signed by its sender's server, which is who sends it, and for somebody who is here.
func TestHostileInvitations(t *testing.T) {
	s := newStage(t)
	for _, version := range []roomver.Version{roomver.V1, roomver.V10, roomver.V12} {
		p := s.remote.Host(t, version, "mallory")
		invite := func(to string, change func(*event.Proto)) *event.Event {
			proto := p.Message(t, "")
			proto.Type, proto.StateKey, proto.Content = event.TypeMember, &to, []byte(`{"membership":"invite"}`)
			proto.PrevEvents = []id.EventID{p.Find(t, event.TypeJoinRules, "").EventID()}
			if change != nil {
				change(proto)
			}
			return p.Build(t, proto)
		}
		good := invite(s.alice.User, nil)
		body := func(members map[string]any) []byte {
			m := map[string]any{"room_version": version, "event": json.RawMessage(good.JSON()), "invite_room_state": []any{}}
			for k, v := range members {
				m[k] = v
			}
			b, err := json.Marshal(m)
			require.NoError(t, err)
			return b
		}
		of := func(e *event.Event) []byte { return body(map[string]any{"event": json.RawMessage(e.JSON())}) }
		foreign := id.UserID("@bob:" + string(fedtest.Nowhere(t)))
		s.undisturbed(t, func() {
			for name, c := range map[string]struct {
				body   []byte
				code   string
				status int
			}{
				"for a user of another server":   {of(invite(string(foreign), nil)), "M_INVALID_PARAM", 400},
				"for nobody":                     {of(invite("nobody", nil)), "M_INVALID_PARAM", 400},
				"for somebody who is not there":  {of(invite("@ghost:"+string(s.home.Name), nil)), "M_NOT_FOUND", 404},
				"by a user of another server":    {of(invite(s.alice.User, func(x *event.Proto) { x.Sender = foreign })), "M_FORBIDDEN", 403},
				"by a user of this server":       {of(invite(s.alice.User, func(x *event.Proto) { x.Sender = id.UserID(s.alice.User) })), "M_FORBIDDEN", 403},
				"that is a join":                 {of(invite(s.alice.User, func(x *event.Proto) { x.Content = []byte(`{"membership":"join"}`) })), "M_INVALID_PARAM", 400},
				"that is a message":              {of(p.Say(t, "come in", p.Find(t, event.TypeJoinRules, ""))), "M_INVALID_PARAM", 400},
				"to another room":                {of(invite(s.alice.User, func(x *event.Proto) { x.RoomID = "!other:nowhere.test" })), "M_INVALID_PARAM", 400},
				"not signed":                     {body(map[string]any{"event": with(t, good, map[string]any{"signatures": map[string]any{}})}), "M_FORBIDDEN", 403},
				"to a version that there is not": {body(map[string]any{"room_version": "99"}), "M_UNSUPPORTED_ROOM_VERSION", 400},
				"without an event":               {body(map[string]any{"event": nil}), "M_BAD_JSON", 400},
				"that is a list":                 {[]byte(`[]`), "M_BAD_JSON", 400},
			} {
				t.Run("version "+string(version)+" "+name, func(t *testing.T) {
					var eventID struct {
						Event json.RawMessage `json:"event"`
					}
					_ = json.Unmarshal(c.body, &eventID)
					named := good.EventID()
					if e, err := event.Parse(p.Rules, eventID.Event); err == nil {
						named = e.EventID()
					}
					s.refusal(t, "PUT", "/_matrix/federation/v2/invite/"+url.PathEscape(string(p.Room))+"/"+url.PathEscape(string(named)), c.body, c.code, c.status)
				})
			}
		})
		s.alice.Sync(t, false)
		require.NotContains(t, s.alice.Seen.Section, string(p.Room))
		// What is told of the room is cut to what it may be, and the invitation stands.
		told := []any{
			5, nil,
			[]int{},
			map[string]any{"type": "m.room.name"},
			map[string]any{"type": 1, "state_key": "", "sender": "x", "content": map[string]any{}},
			map[string]any{"type": "m.room.name", "state_key": "", "sender": string(p.User), "content": map[string]any{"name": "the trap"}, "event_id": "$x", "more": strings.Repeat("x", 1000)},
		}
		status, answer := s.remote.Ask(t, s.home, http.MethodPut,
			"/_matrix/federation/v2/invite/"+url.PathEscape(string(p.Room))+"/"+url.PathEscape(string(good.EventID())), body(map[string]any{"invite_room_state": told}))
		require.Equal(t, 200, status, "%s", answer)
		s.alice.SeesRoom(t, string(p.Room), "invite")
		names := 0
		for _, e := range s.alice.Seen.Stripped[string(p.Room)] {
			if e.Type == "m.room.name" {
				names++
				require.Empty(t, e.ID)
			}
		}
		require.Equal(t, 1, names, fmt.Sprint(s.alice.Seen.Stripped[string(p.Room)]))
	}
}

// A server that knows only the first version of inviting is answered as that says. What it may not invite to by it, since its events have no
// names, it may not.
func TestInvitedByTheFirstVersion(t *testing.T) {
	s := newStage(t)
	for _, version := range []roomver.Version{roomver.V1, roomver.V2, roomver.V10} {
		p := s.remote.Host(t, version, "host")
		proto := p.Message(t, "")
		proto.Type, proto.StateKey, proto.Content = event.TypeMember, &s.alice.User, []byte(`{"membership":"invite"}`)
		proto.PrevEvents = []id.EventID{p.Find(t, event.TypeJoinRules, "").EventID()}
		invite := p.Build(t, proto)
		uri := "/_matrix/federation/v1/invite/" + url.PathEscape(string(p.Room)) + "/" + url.PathEscape(string(invite.EventID()))
		ask := func(e *event.Event, more map[string]any) (int, []byte) {
			more["unsigned"] = map[string]any{"invite_room_state": []any{
				map[string]any{"type": "m.room.name", "state_key": "", "sender": p.User, "content": map[string]any{"name": "the loft"}},
			}}
			return s.remote.Ask(t, s.home, http.MethodPut, uri, with(t, e, more))
		}
		if p.Rules.EventIDs != roomver.EventIDGiven {
			status, answer := ask(invite, map[string]any{})
			require.Equal(t, http.StatusBadRequest, status, "%s", answer)
			continue
		}
		status, answer := ask(invite, map[string]any{"signatures": map[string]any{}})
		require.Equal(t, http.StatusForbidden, status, "%s", answer)
		status, answer = ask(invite, map[string]any{})
		require.Equal(t, http.StatusOK, status, "%s", answer)
		var list []json.RawMessage
		require.NoError(t, json.Unmarshal(answer, &list))
		require.Len(t, list, 2)
		require.JSONEq(t, "200", string(list[0]))
		var told struct {
			Event json.RawMessage `json:"event"`
		}
		require.NoError(t, json.Unmarshal(list[1], &told))
		signed, err := event.Parse(p.Rules, told.Event)
		require.NoError(t, err)
		require.Equal(t, invite.EventID(), signed.EventID())
		require.True(t, signed.SignedBy(s.home.Name))
		require.True(t, signed.SignedBy(s.remote.Name))
		s.alice.SeesRoom(t, string(p.Room), "invite")
		require.True(t, slices.ContainsFunc(s.alice.Seen.Stripped[string(p.Room)], func(e fedtest.Event) bool {
			return e.Type == "m.room.name" && e.Content["name"] == "the loft"
		}))
	}
}

// A server is told of a room what it may know: nothing if it is not in it or the room denies it, and only what its users might see.
func TestWhoMayAsk(t *testing.T) {
	s := newStage(t)
	defer s.traffic(t)()
	stranger := fedtest.NewRemote(t, s.ca)
	for _, version := range []roomver.Version{roomver.V10, roomver.V12} {
		room := s.alice.Create(t, string(version), map[string]any{"preset": "public_chat", "initial_state": []map[string]any{
			{"type": "m.room.history_visibility", "content": map[string]any{"history_visibility": "joined"}},
		}})
		secret := s.alice.Say(t, room, "before anybody came")
		p := s.remote.Enter(t, s.home, room, "mallory")
		open := s.alice.Say(t, room, "now that you are here")
		r, e := url.PathEscape(room), func(x string) string { return url.PathEscape(x) }
		missing := encoded(t, map[string]any{"earliest_events": []string{}, "latest_events": []string{open}, "limit": 50})
		asks := map[string][2]string{
			"state":     {"GET", fed + "state/" + r + "?event_id=" + e(open)},
			"state ids": {"GET", fed + "state_ids/" + r + "?event_id=" + e(open)},
			"auth":      {"GET", fed + "event_auth/" + r + "/" + e(open)},
			"event":     {"GET", fed + "event/" + e(open)},
			"backfill":  {"GET", fed + "backfill/" + r + "?limit=100&v=" + e(open)},
			"missing":   {"POST", fed + "get_missing_events/" + r},
			"time":      {"GET", fed + "timestamp_to_event/" + r + "?dir=b&ts=9000000000000"},
		}
		bodyOf := func(method string) []byte {
			if method == "POST" {
				return []byte(missing)
			}
			return nil
		}
		for name, q := range asks {
			t.Run("version "+string(version)+" "+name, func(t *testing.T) {
				status, answer := s.remote.Ask(t, s.home, q[0], q[1], bodyOf(q[0]))
				require.Equal(t, 200, status, "%s", answer)
				status, answer = stranger.Ask(t, s.home, q[0], q[1], bodyOf(q[0]))
				require.Equal(t, 403, status, "%s", answer)
				require.NotContains(t, string(answer), "here", "nothing is told by the way")
			})
		}
		// What was said before, to those who were there, is told without what it says.
		for _, name := range []string{"backfill", "missing"} {
			q := asks[name]
			_, answer := s.remote.Ask(t, s.home, q[0], q[1], bodyOf(q[0]))
			require.NotContains(t, string(answer), "before anybody came")
		}
		s.refusal(t, "GET", fed+"event/"+e(secret), nil, "M_FORBIDDEN", 403)
		for name, uri := range map[string]string{
			"no event named":         fed + "state/" + r,
			"an unknown event":       fed + "state/" + r + "?event_id=" + e("$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
			"an unknown room":        fed + "state/" + e("!nothing:nowhere.test") + "?event_id=" + e(open),
			"a room that is none":    fed + "state/" + e("room") + "?event_id=" + e(open),
			"nothing to go from":     fed + "backfill/" + r + "?limit=5",
			"a limit that is none":   fed + "backfill/" + r + "?limit=x&v=" + e(open),
			"a direction that is no": fed + "timestamp_to_event/" + r + "?dir=up&ts=1",
			"a time that is none":    fed + "timestamp_to_event/" + r + "?dir=f&ts=now",
		} {
			t.Run("version "+string(version)+" "+name, func(t *testing.T) {
				status, answer := s.remote.Ask(t, s.home, "GET", uri, nil)
				require.Contains(t, []int{400, 404}, status, "%s", answer)
				require.Contains(t, string(answer), "errcode")
			})
		}
		for name, body := range map[string]string{
			"latest events that are none": `{"latest_events":5}`, "no JSON": `{`, "a list": `[]`,
			"too many": encoded(t, map[string]any{"latest_events": strings.Split(strings.Repeat("$a ", 5000), " ")}),
		} {
			t.Run("version "+string(version)+" missing, "+name, func(t *testing.T) {
				uri := fed + "get_missing_events/" + r
				b := []byte(body)
				status, answer := s.remote.AskWith(t, s.home, "POST", uri, b, headerOf(t, s.remote, s.home, "POST", uri, b))
				require.Equal(t, 400, status, "%s", answer)
			})
		}
		// The room's list of servers is obeyed on every way in.
		s.alice.Set(t, room, "m.room.server_acl", "", map[string]any{"allow": []string{"*"}, "allow_ip_literals": false})
		for name, q := range asks {
			t.Run("version "+string(version)+" denied "+name, func(t *testing.T) {
				s.refusalBy(t, s.remote, q[0], q[1], bodyOf(q[0]))
			})
		}
		s.refusalBy(t, s.remote, "GET", fed+"make_join/"+r+"/"+e("@other:"+string(s.remote.Name))+"?ver="+string(version), nil)
		before := s.home.Timeline(t, room)
		said := p.Say(t, "nevertheless")
		require.NotEmpty(t, s.remote.Send(t, s.home, said)[string(said.EventID())])
		require.Len(t, s.home.Timeline(t, room), len(before))
	}
}

func (s *stage) refusalBy(t *testing.T, r *fedtest.Remote, method, uri string, body []byte) {
	t.Helper()
	status, answer := r.Ask(t, s.home, method, uri, body)
	require.Equal(t, 403, status, "%s", answer)
	require.Contains(t, string(answer), "M_FORBIDDEN")
}
