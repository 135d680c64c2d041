package read_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// abroad stands for the other servers.
type abroad struct {
	aliases map[id.RoomAlias]id.RoomID
	hosts   []string
}

func (a *abroad) Alias(_ context.Context, alias id.RoomAlias) (id.RoomID, []id.ServerName, error) {
	if r, ok := a.aliases[alias]; ok {
		return r, []id.ServerName{alias.Server()}, nil
	}
	return "", nil, errors.New("no such server")
}

func (a *abroad) Profile(context.Context, id.UserID, string) (map[string]json.RawMessage, error) {
	return nil, errors.New("no such server")
}

func (a *abroad) Hosts(context.Context, id.RoomID) ([]string, error) { return a.hosts, nil }

const (
	nowhere   = "!nowhere:heddle.test"
	malformed = "nowhere"
)

// scene is a room of alice and bob, which carol was never in and dave has left, with a message from before dave left and one from
// after.
type scene struct {
	*stack
	room          id.RoomID
	before, after id.EventID
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{stack: newStack(t)}
	s.users(alice, bob, carol, dave)
	s.room = s.Room(alice, roomver.Default)
	s.Join(s.room, bob, dave)
	s.before = s.Send(s.room, alice, "before")
	s.Membership(s.room, dave, dave, room.ActionLeave)
	s.after = s.Send(s.room, alice, "after")
	return s
}

// rooms gives the path of something of the room.
func (s *scene) at(rest string, args ...any) string {
	return "/v3/rooms/" + url.PathEscape(string(s.room)) + fmt.Sprintf(rest, args...)
}

// closed checks what is so for each endpoint that reads from a room: strangers are refused, whether or not the room is
// there, and so is who is nobody.
func (s *scene) closed(version, rest string) {
	s.T.Helper()
	of := func(r string) string { return "/" + version + "/rooms/" + url.PathEscape(r) + rest }
	s.refused(carol, of(string(s.room)), 403, "M_FORBIDDEN")
	s.refused(carol, of(nowhere), 403, "M_FORBIDDEN")
	s.refused(alice, of(malformed), 400, "M_INVALID_PARAM")
	s.refused("", of(string(s.room)), 401, "M_MISSING_TOKEN")
}

func TestMessagesEndpoint(t *testing.T) {
	s := newScene(t)
	p := ok[page](s.stack, alice, s.at("/messages?dir=b&limit=2"))
	require.Equal(t, s.after, p.Chunk[0].ID)
	require.Len(t, p.Chunk, 2)
	require.NotEmpty(t, p.Start)
	next := ok[page](s.stack, alice, s.at("/messages?dir=b&limit=1&from=%s", p.End))
	require.Equal(t, s.before, next.Chunk[0].ID)
	stop := ok[page](s.stack, alice, s.at("/messages?dir=b&limit=10&from=%s&to=%s", p.Start, p.End))
	require.Equal(t, p.ids(), stop.ids(), "what lies behind to is not given")
	forward := ok[page](s.stack, alice, s.at("/messages?dir=f&limit=1"))
	require.Equal(t, "m.room.create", forward.Chunk[0].Type)
	filtered := ok[page](s.stack, alice, s.at("/messages?dir=b&filter=%s", url.QueryEscape(`{"types":["m.room.message"]}`)))
	require.Equal(t, []id.EventID{s.after, s.before}, filtered.ids())
	none := ok[page](s.stack, alice, s.at("/messages?dir=b&filter=%s", url.QueryEscape(`{"types":[]}`)))
	require.Empty(t, none.Chunk)
	require.NotContains(t, ok[page](s.stack, dave, s.at("/messages?dir=b")).ids(), s.after, "of what came after leaving nothing is seen")

	s.closed("v3", "/messages?dir=b")
	for query, code := range map[string]string{
		"":                               "M_MISSING_PARAM",
		"?dir=x":                         "M_INVALID_PARAM",
		"?dir=b&limit=x":                 "M_INVALID_PARAM",
		"?dir=b&limit=-1":                "M_INVALID_PARAM",
		"?dir=b&from=x":                  "M_INVALID_PARAM",
		"?dir=b&to=x":                    "M_INVALID_PARAM",
		"?dir=b&filter=x":                "M_INVALID_PARAM",
		"?dir=b&filter=%7B%22types%22:1": "M_INVALID_PARAM",
		"?dir=b&filter=%7B%22types%22:%22m.room.message%22%7D": "M_INVALID_PARAM",
		"?dir=b&filter=%7B%22limit%22:-1%7D":                   "M_INVALID_PARAM",
		"?dir=b&filter=%7B%22senders%22:[%22bob%22]%7D":        "M_INVALID_PARAM",
	} {
		s.refused(alice, s.at("/messages")+query, 400, code)
	}
}

func TestEventEndpoint(t *testing.T) {
	s := newScene(t)
	e := ok[shown](s.stack, bob, s.at("/event/%s", s.after))
	require.Equal(t, s.after, e.ID)
	require.Equal(t, s.room, e.Room)
	require.Equal(t, alice, e.Sender)
	require.Equal(t, "m.room.message", e.Type)
	require.Equal(t, s.before, ok[shown](s.stack, dave, s.at("/event/%s", s.before)).ID)

	other := s.Room(carol, roomver.Default)
	elsewhere := s.Send(other, carol, "x")
	// Whoever may not see an event is told that there is none.
	for _, e := range []id.EventID{s.after, "$none"} {
		s.refused(dave, s.at("/event/%s", e), 404, "M_NOT_FOUND")
	}
	s.refused(alice, s.at("/event/%s", elsewhere), 404, "M_NOT_FOUND")
	s.refused(alice, s.at("/event/none"), 404, "M_NOT_FOUND")
	for _, r := range []string{string(s.room), nowhere} {
		s.refused(carol, "/v3/rooms/"+r+"/event/"+string(s.before), 404, "M_NOT_FOUND")
	}
	s.refused(alice, "/v3/rooms/"+malformed+"/event/"+string(s.before), 400, "M_INVALID_PARAM")
	s.refused("", s.at("/event/%s", s.before), 401, "M_MISSING_TOKEN")
}

func TestContextEndpoint(t *testing.T) {
	s := newScene(t)
	type answer struct {
		Event  shown   `json:"event"`
		Before []shown `json:"events_before"`
		After  []shown `json:"events_after"`
		Start  string  `json:"start"`
		End    string  `json:"end"`
		State  []shown `json:"state"`
	}
	a := ok[answer](s.stack, alice, s.at("/context/%s?limit=4", s.before))
	require.Equal(t, s.before, a.Event.ID)
	require.Len(t, a.After, 2, "dave's leaving, and the message after it")
	require.Equal(t, s.after, a.After[1].ID)
	require.NotEmpty(t, a.Before)
	require.NotEmpty(t, a.State)
	require.NotEmpty(t, a.Start)
	require.NotEmpty(t, a.End)
	a = ok[answer](s.stack, alice, s.at("/context/%s?limit=0", s.before))
	require.Equal(t, s.before, a.Event.ID)
	require.Empty(t, a.Before)
	require.Empty(t, a.After)
	a = ok[answer](s.stack, alice, s.at("/context/%s?filter=%s", s.before, url.QueryEscape(`{"types":["m.room.message"]}`)))
	require.Len(t, a.After, 1)
	require.Empty(t, a.Before)

	s.refused(dave, s.at("/context/%s", s.after), 404, "M_NOT_FOUND")
	s.refused(alice, s.at("/context/$none"), 404, "M_NOT_FOUND")
	s.refused(carol, s.at("/context/%s", s.before), 403, "M_FORBIDDEN")
	s.refused(carol, "/v3/rooms/"+nowhere+"/context/"+string(s.before), 403, "M_FORBIDDEN")
	s.refused(alice, "/v3/rooms/"+malformed+"/context/"+string(s.before), 400, "M_INVALID_PARAM")
	s.refused(alice, s.at("/context/%s?limit=x", s.before), 400, "M_INVALID_PARAM")
	s.refused(alice, s.at("/context/%s?limit=-1", s.before), 400, "M_INVALID_PARAM")
	s.refused(alice, s.at("/context/%s?filter=x", s.before), 400, "M_INVALID_PARAM")
	s.refused("", s.at("/context/%s", s.before), 401, "M_MISSING_TOKEN")
}

func TestStateEndpoints(t *testing.T) {
	s := newScene(t)
	s.State(s.room, alice, "m.room.topic", "", `{"topic":"now"}`)
	s.State(s.room, alice, "org.example.thing", "key", `{"x":1}`)
	all := ok[[]shown](s.stack, bob, s.at("/state"))
	topic := func(list []shown) any {
		for _, e := range list {
			if e.Type == "m.room.topic" {
				return e.Content["topic"]
			}
		}
		return nil
	}
	require.Equal(t, "now", topic(all))
	require.Nil(t, topic(ok[[]shown](s.stack, dave, s.at("/state"))), "who left sees the state of then")
	require.Equal(t, map[string]any{"topic": "now"}, ok[map[string]any](s.stack, bob, s.at("/state/m.room.topic")))
	require.Equal(t, map[string]any{"topic": "now"}, ok[map[string]any](s.stack, bob, s.at("/state/m.room.topic/")))
	require.Equal(t, map[string]any{"topic": "now"}, ok[map[string]any](s.stack, bob, s.at("/state/m.room.topic?format=content")))
	require.EqualValues(t, 1, ok[map[string]any](s.stack, bob, s.at("/state/org.example.thing/key"))["x"])
	e := ok[shown](s.stack, bob, s.at("/state/m.room.topic?format=event"))
	require.Equal(t, alice, e.Sender)
	require.Equal(t, map[string]any{"topic": "now"}, e.Content)

	for _, rest := range []string{"/state", "/state/m.room.create", "/state/m.room.none/key"} {
		s.closed("v3", rest)
	}
	s.refused(alice, s.at("/state/org.example.thing"), 404, "M_NOT_FOUND")
	s.refused(dave, s.at("/state/m.room.topic"), 404, "M_NOT_FOUND")
	s.refused(alice, s.at("/state/m.room.topic?format=x"), 400, "M_INVALID_PARAM")

	s.State(s.room, alice, "m.room.history_visibility", "", `{"history_visibility":"world_readable"}`)
	require.Equal(t, "now", ok[map[string]any](s.stack, carol, s.at("/state/m.room.topic"))["topic"], "all may peek")
	require.Equal(t, "now", topic(ok[[]shown](s.stack, carol, s.at("/state"))))
}

func TestMembersEndpoints(t *testing.T) {
	s := newScene(t)
	type member struct {
		StateKey id.UserID `json:"state_key"`
		Content  struct {
			Membership string `json:"membership"`
		} `json:"content"`
	}
	type answer struct {
		Chunk []member `json:"chunk"`
	}
	list := func(user id.UserID, query string) map[id.UserID]string {
		t.Helper()
		got := map[id.UserID]string{}
		for _, m := range ok[answer](s.stack, user, s.at("/members")+query).Chunk {
			got[m.StateKey] = m.Content.Membership
		}
		return got
	}
	then := ok[page](s.stack, alice, s.at("/messages?dir=b&limit=1")).Start
	s.Membership(s.room, alice, carol, room.ActionInvite)
	now := map[id.UserID]string{alice: "join", bob: "join", carol: "invite", dave: "leave"}
	require.Equal(t, now, list(alice, ""))
	require.Equal(t, map[id.UserID]string{alice: "join", bob: "join"}, list(alice, "?membership=join"))
	require.Equal(t, map[id.UserID]string{alice: "join", bob: "join", carol: "invite"}, list(alice, "?not_membership=leave"))
	require.Equal(t, map[id.UserID]string{carol: "invite"}, list(alice, "?membership=invite"))
	require.Equal(t, map[id.UserID]string{alice: "join", bob: "join", dave: "leave"}, list(alice, "?at="+then))
	require.NotContains(t, list(dave, ""), carol, "who left sees the members of then")
	s.Membership(s.room, alice, carol, room.ActionKick)
	s.closed("v3", "/members")
	for _, query := range []string{"?membership=x", "?not_membership=x", "?at=x"} {
		s.refused(alice, s.at("/members")+query, 400, "M_INVALID_PARAM")
	}

	type profiles struct {
		Joined map[id.UserID]map[string]any `json:"joined"`
	}
	joined := func() map[id.UserID]map[string]any {
		t.Helper()
		return ok[profiles](s.stack, bob, s.at("/joined_members")).Joined
	}
	e := s.State(s.room, bob, "m.room.member", string(bob), `{"membership":"join","displayname":"B\"ob \\ ☃","avatar_url":7}`)
	s.State(s.room, alice, "m.room.member", string(alice), `{"membership":"join","avatar_url":"mxc://a/b"}`)
	require.Equal(t, map[id.UserID]map[string]any{
		alice: {"display_name": nil, "avatar_url": "mxc://a/b"}, bob: {"display_name": `B"ob \ ☃`, "avatar_url": nil},
	}, joined())
	s.Redact(s.room, alice, e)
	require.Equal(t, map[string]any{"display_name": nil, "avatar_url": nil}, joined()[bob])
	s.closed("v3", "/joined_members")
	s.refused(dave, s.at("/joined_members"), 403, "M_FORBIDDEN")
}

func TestJoinedRoomsEndpoint(t *testing.T) {
	s := newScene(t)
	type answer struct {
		Rooms []id.RoomID `json:"joined_rooms"`
	}
	require.Equal(t, []id.RoomID{s.room}, ok[answer](s.stack, bob, "/v3/joined_rooms").Rooms)
	for _, u := range []id.UserID{carol, dave} {
		rooms := ok[answer](s.stack, u, "/v3/joined_rooms").Rooms
		require.NotNil(t, rooms, "an empty list is a list")
		require.Empty(t, rooms)
	}
	s.refused("", "/v3/joined_rooms", 401, "M_MISSING_TOKEN")
}

func TestTimestampEndpoint(t *testing.T) {
	s := newScene(t)
	type answer struct {
		ID id.EventID `json:"event_id"`
		TS int64      `json:"origin_server_ts"`
	}
	at := func(ts any, dir string) string {
		return "/v1/rooms/" + string(s.room) + fmt.Sprintf("/timestamp_to_event?ts=%v&dir=%s", ts, dir)
	}
	later := time.Now().Add(time.Hour).UnixMilli()
	last := ok[answer](s.stack, alice, at(later, "b"))
	require.Equal(t, s.after, last.ID)
	require.Positive(t, last.TS)
	require.NotEqual(t, s.after, ok[answer](s.stack, alice, at(0, "f")).ID)
	unstable := "/unstable/org.matrix.msc3030/rooms/" + string(s.room) + fmt.Sprintf("/timestamp_to_event?ts=%d&dir=b", later)
	require.Equal(t, s.after, ok[answer](s.stack, alice, unstable).ID)
	require.NotEqual(t, s.after, ok[answer](s.stack, dave, at(later, "b")).ID, "only what the reader may see is found")

	s.closed("v1", "/timestamp_to_event?ts=1&dir=f")
	s.refused(alice, at(later, "f"), 404, "M_NOT_FOUND")
	s.refused(alice, at(0, "b"), 404, "M_NOT_FOUND")
	s.refused(alice, at("x", "b"), 400, "M_INVALID_PARAM")
	s.refused(alice, at(1, "x"), 400, "M_INVALID_PARAM")
	s.refused(alice, "/v1/rooms/"+string(s.room)+"/timestamp_to_event?dir=b", 400, "M_MISSING_PARAM")
}

func TestDirectoryEndpoints(t *testing.T) {
	s := newScene(t)
	s.remote.hosts = []string{"one.example", "two.example"}
	s.remote.aliases = map[id.RoomAlias]id.RoomID{"#far:one.example": "!far:one.example"}
	named := s.Create(room.CreateRoom{Creator: roomtest.As(alice), Public: true, Alias: "#named:heddle.test"})
	type answer struct {
		Room    id.RoomID `json:"room_id"`
		Servers []string  `json:"servers"`
	}
	require.Equal(t, answer{named, []string{"heddle.test", "one.example", "two.example"}},
		ok[answer](s.stack, "", "/v3/directory/room/%23named:heddle.test"))
	require.Equal(t, answer{"!far:one.example", []string{"one.example"}}, ok[answer](s.stack, "", "/v3/directory/room/%23far:one.example"))
	s.refused("", "/v3/directory/room/%23none:heddle.test", 404, "M_NOT_FOUND")
	s.refused("", "/v3/directory/room/%23none:one.example", 404, "M_NOT_FOUND")
	s.refused("", "/v3/directory/room/named", 400, "M_INVALID_PARAM")
	s.refused("", "/v3/directory/room/%23named", 400, "M_INVALID_PARAM")

	type aliases struct {
		Aliases []id.RoomAlias `json:"aliases"`
	}
	require.Equal(t, []id.RoomAlias{"#named:heddle.test"}, ok[aliases](s.stack, alice, "/v3/rooms/"+string(named)+"/aliases").Aliases)
	none := ok[aliases](s.stack, alice, s.at("/aliases")).Aliases
	require.NotNil(t, none)
	require.Empty(t, none)
	s.closed("v3", "/aliases")

	list := "/v3/directory/list/room/"
	require.Equal(t, "public", ok[map[string]string](s.stack, "", list+string(named))["visibility"])
	require.Equal(t, "private", ok[map[string]string](s.stack, "", list+string(s.room))["visibility"])
	s.refused("", list+nowhere, 404, "M_NOT_FOUND")
	s.refused("", list+malformed, 400, "M_INVALID_PARAM")
}
