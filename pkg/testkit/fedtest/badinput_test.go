package fedtest_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/route"
	"github.com/heddle-im/heddle/pkg/testkit/fedtest"
)

// clumsy is a server that signs what it asks, and asks all of it wrong.
type clumsy struct {
	*stage
	place *fedtest.Place
	txns  int
	asked int
	taken int // of which the homeserver took something
}

// send makes one request and demands what is true of every answer: no failure of the homeserver, and of what is refused the reason.
func (c *clumsy) send(t *testing.T, method, uri, body string) int {
	t.Helper()
	var b []byte
	if body != "" {
		b = []byte(body)
	}
	status, answer := c.remote.AskWith(t, c.home, method, uri, b, headerOf(t, c.remote, c.home, method, uri, b))
	c.asked++
	if status < http.StatusBadRequest {
		c.taken++
		return status
	}
	var e struct {
		Code string `json:"errcode"`
		Text string `json:"error"`
	}
	if status >= http.StatusInternalServerError || json.Unmarshal(answer, &e) != nil || !strings.HasPrefix(e.Code, "M_") || e.Text == "" {
		t.Errorf("%s %.300s\n%.300s\n%d %.300s", method, uri, body, status, answer)
	}
	return status
}

// good gives a value that fits a path's variable.
func (c *clumsy) good(name string) string {
	c.txns++
	v, ok := map[string]string{
		"roomId": string(c.place.Room), "eventId": string(c.place.Join.EventID()), "userId": string(c.place.User),
		"queryType": "profile", "txnId": fmt.Sprint("clumsy", c.txns),
	}[name]
	if !ok {
		return "clumsy"
	}
	return url.PathEscape(v)
}

func (c *clumsy) path(pattern string) string { return route.Fill(pattern, c.good) }

// Every endpoint that other servers sign their requests to, asked with all that a broken one can get wrong: each answer is one of the
// specification and none a failure, what is refused leaves nothing in the room, and that room and another go on.
func TestBadInputOfServers(t *testing.T) {
	s := newStage(t)
	c := &clumsy{stage: s, place: s.enter(t, roomver.V11, "clumsy")}
	s.alice.SeesRoom(t, string(c.place.Room), "join")
	var walked []string
	s.undisturbed(t, func() {
		for _, row := range route.Table() {
			if row.Auth != route.AuthFederation {
				continue
			}
			walked = append(walked, row.Name)
			for _, method := range row.Methods {
				t.Run(row.Name, func(t *testing.T) {
					before, taken := s.home.Timeline(t, string(c.place.Room)), c.taken
					c.paths(t, row.Paths[0], method)
					c.queries(t, row.Paths[0], method)
					if row.MaxBody != route.BodyNone {
						c.syntax(t, row.Paths[0], method)
						c.spoilt(t, &row, method)
					}
					if taken == c.taken {
						require.Equal(t, before, s.home.Timeline(t, string(c.place.Room)), "what was refused is not there")
					}
				})
			}
		}
		s.goesOn(t, c.place)
	})
	require.Subset(t, walked, slices.Collect(maps.Keys(c.bodies(t))), "there is a body for what is served")
	t.Logf("%d endpoints, %d requests, %d taken", len(walked), c.asked, c.taken)
}

// paths asks with bad values for each variable of the path, the others being right.
func (c *clumsy) paths(t *testing.T, pattern, method string) {
	segs, err := route.ParsePattern(pattern)
	require.NoError(t, err)
	for _, seg := range segs {
		if seg.Type == route.Literal {
			continue
		}
		for _, bad := range []string{
			"%00", "a%00b", "%FF", "%C3%28", "%ED%A0%80", "%20", "%2F", "%2E%2E%2F", "!", "@", "$", "%23", "!:", "@:x", "!x%00:x", "$%00", "@%00:x", "-1", "'", "%7B%7D",
			"@" + strings.Repeat("a", 300) + ":x", strings.Repeat("a", 3000), "$" + strings.Repeat("%F0%9F%98%80", 500),
		} {
			c.send(t, method, route.Fill(pattern, func(name string) string {
				if name == seg.Text {
					return bad
				}
				return c.good(name)
			}), bodyless(method))
		}
	}
}

func bodyless(method string) string {
	if method == http.MethodGet {
		return ""
	}
	return "{}"
}

// queries asks with bad parameters.
func (c *clumsy) queries(t *testing.T, pattern, method string) {
	names := []string{"omit_members"}
	if method == http.MethodGet {
		names = []string{
			"event_id", "v", "limit", "ver", "dir", "ts", "user_id", "field", "room_alias", "suggested_only", "since", "include_all_networks",
			"third_party_instance_id", "width", "height", "method", "animated", "timeout_ms",
		}
	}
	values := []string{
		"", "x", "-1", "0", "1.5", "99999999999999999999", "%00", "%FF", "a%00b", "%7B", "$x", "@x:y", "%23x:y", "%23%00:y", strings.Repeat("A", 2000),
		"1&dir=b&ts=x", "x&dir=b&ts=1", "0&ts=9223372036854775807&dir=f",
	}
	ask := func(name, value string) { c.send(t, method, c.path(pattern)+"?"+name+"="+value, bodyless(method)) }
	for i, v := range values {
		ask(strings.Join(names, "="+v+"&"), v)
		ask(names[i%len(names)], v)
	}
	for i, name := range names { // each by itself, so that none hides another
		ask(name, values[i%len(values)])
		ask(name, values[(7*i+3)%len(values)])
	}
	for _, q := range []string{"=&=&", "a;b", strings.Repeat("v=$b&", 500), strings.Repeat("ver=x&", 500)} {
		c.send(t, method, c.path(pattern)+"?"+q, bodyless(method))
	}
}

// syntax asks with bodies that are no JSON object.
func (c *clumsy) syntax(t *testing.T, pattern, method string) {
	for _, body := range []string{
		`{`, `{"a":}`, `{'a':1}`, `{"a":1,}`, `{} {}`, `nul`, `{"a":01}`, `{"a":NaN}`, "{\"a\":\"\xff\"}", "{\"\xc3\x28\":1}", "\xef\xbb\xbf{}", "{\"a\":\"\x01\"}",
		"\x00", "<xml/>", `[]`, `[{}]`, `"x"`, `1`, `null`, `{"a":"\ud800"}`,
		strings.Repeat(`{"a":`, 10_000) + `1` + strings.Repeat(`}`, 10_000),
	} {
		assert.Equal(t, http.StatusBadRequest, c.send(t, method, c.path(pattern), body), "%.100s", body)
	}
}

// bodies are what would be right for the endpoints that take one.
func (c *clumsy) bodies(t *testing.T) map[string]string {
	t.Helper()
	p, alice := c.place, c.alice.User
	member := func(target, membership string) *event.Event {
		proto := p.Message(t, "")
		proto.Type, proto.StateKey, proto.Content = event.TypeMember, &target, []byte(`{"membership":"`+membership+`"}`)
		return p.Build(t, proto)
	}
	me := string(p.User)
	invite := member(alice, event.Invite)
	join, leave, knock := member(me, event.Join), member(me, event.Leave), member(me, event.Knock)
	return map[string]string{
		"federation.sendInviteV1": string(invite.JSON()),
		"federation.sendInviteV2": encoded(t, map[string]any{"event": json.RawMessage(invite.JSON()), "room_version": "11", "invite_room_state": []any{}}),
		"federation.sendJoinV1":   string(join.JSON()), "federation.sendJoinV2": string(join.JSON()),
		"federation.sendLeaveV1": string(leave.JSON()), "federation.sendLeaveV2": string(leave.JSON()), "federation.sendKnock": string(knock.JSON()),
		"federation.getMissingPreviousEvents": encoded(t, map[string]any{
			"earliest_events": []string{}, "latest_events": idsOf(p.Join), "limit": 5, "min_depth": 0,
		}),
		"federation.queryPublicRooms": `{"filter":{"generic_search_term":"x","room_types":[null]},"limit":5,"since":"x","include_all_networks":false,"third_party_instance_id":"x"}`,
		"federation.exchangeThirdPartyInvite": encoded(t, map[string]any{
			"type": event.TypeMember, "room_id": p.Room, "sender": alice, "state_key": me, "content": map[string]any{
				"membership": "invite", "third_party_invite": map[string]any{
					"display_name": "x", "signed": map[string]any{"mxid": me, "token": "x", "signatures": map[string]any{"x": map[string]any{"ed25519:0": "x"}}},
				},
			},
		}),
		"federation.sendTransaction": encoded(t, map[string]any{
			"origin": c.remote.Name, "origin_server_ts": 1, "pdus": []json.RawMessage{p.Say(t, "in a spoilt transaction").JSON()},
			"edus": []any{map[string]any{"edu_type": "m.typing", "content": map[string]any{"room_id": p.Room, "user_id": me, "typing": false}}},
		}),
		"federation.claimUserEncryptionKeys": encoded(t, map[string]any{"one_time_keys": map[string]any{alice: map[string]any{c.alice.Device: "signed_curve25519"}}}),
		"federation.queryUserEncryptionKeys": encoded(t, map[string]any{"device_keys": map[string]any{alice: []string{}}}),
	}
}

// spoilt asks with what would be right but for one member, of the body and of what is in it.
func (c *clumsy) spoilt(t *testing.T, row *route.Row, method string) {
	base, ok := c.bodies(t)[row.Name]
	require.True(t, ok, "there is no body for %s", row.Name)
	var whole map[string]any
	require.NoError(t, json.Unmarshal([]byte(base), &whole))
	deep := json.RawMessage(strings.Repeat(`[`, 90) + strings.Repeat(`]`, 90))
	values := []any{
		nil, true, 0, -1, json.RawMessage("1.5"), json.RawMessage("1e400"), json.RawMessage("9223372036854775808"), "", "x", "\x00", strings.Repeat("x", 70_000),
		[]any{},
		map[string]any{},
		[]any{nil},
		[]any{1},
		[]any{[]any{}},
		[]any{"\x00"},
		[]any{map[string]any{}},
		map[string]any{"": ""},
		map[string]any{"\x00": 1},
		map[string]any{"@x:y": map[string]any{"\x00": "\x00"}},
		map[string]any{c.alice.User: 1},
		map[string]any{c.alice.User: []any{1}},
		deep,
	}
	id := c.good("eventId")
	if e, err := event.Parse(c.place.Rules, []byte(base)); err == nil {
		id = url.PathEscape(string(e.EventID()))
	}
	path := func() string {
		return route.Fill(row.Paths[0], func(name string) string {
			if name == "eventId" {
				return id
			}
			return c.good(name)
		})
	}
	next := 0
	var spoil func(at map[string]any)
	spoil = func(at map[string]any) {
		for _, name := range slices.Sorted(maps.Keys(at)) {
			was := at[name]
			for range 8 { // they go round, so that each is met in many places
				next++
				at[name] = values[next%len(values)]
				c.send(t, method, path(), encoded(t, whole))
			}
			delete(at, name)
			c.send(t, method, path(), encoded(t, whole))
			at[name] = was
			if in, ok := was.(map[string]any); ok {
				spoil(in)
			}
		}
	}
	spoil(whole)
}
