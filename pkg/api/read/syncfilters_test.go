package read_test

import (
	"iter"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/api/read"
	"github.com/heddle-im/heddle/pkg/infra/cache"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/presence"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// twoOnline are bob and carol, always worth telling.
type twoOnline struct{}

func (twoOnline) Active(string) {}
func (twoOnline) Moved(string)  {}
func (twoOnline) Mark() int64   { return 1 }

func (twoOnline) News(_ string, _ int64, _ iter.Seq[shard.Nid], _ map[shard.Nid]bool, each func(string, []byte)) bool {
	each(string(bob), []byte(`{"presence":"online"}`))
	each(string(carol), []byte(`{"presence":"online"}`))
	return true
}

// newSyncStack is a stack that serves /sync.
func newSyncStack(t *testing.T) (*stack, *syncing) {
	s := newStack(t)
	x := newSyncing(t, s, twoOnline{})
	accounts := account.NewReader(s.Shards, accountdb.NewReader(s.DB.Pool))
	hub := presence.New(presence.Options{Disabled: true, Origin: "a", Store: nothing{}, Now: time.Now})
	s.serves(read.NewSync(x.Engine, accounts, hub, cache.NewBudget(cache.BudgetConfig{Memory: 1 << 20}, nil), nil).Handlers())
	return s, x
}

type syncedRoom struct {
	Timeline struct {
		Events  []map[string]any `json:"events"`
		Limited bool             `json:"limited"`
	} `json:"timeline"`
	State       struct{ Events []map[string]any } `json:"state"`
	Ephemeral   struct{ Events []map[string]any } `json:"ephemeral"`
	AccountData struct{ Events []map[string]any } `json:"account_data"`
	Unread      struct {
		Notifications int `json:"notification_count"`
	} `json:"unread_notifications"`
	Threads map[string]any `json:"unread_thread_notifications"`
}

type synced struct {
	Next        string                            `json:"next_batch"`
	AccountData struct{ Events []map[string]any } `json:"account_data"`
	Presence    struct{ Events []map[string]any } `json:"presence"`
	Rooms       struct {
		Join, Leave map[string]*syncedRoom
	} `json:"rooms"`
}

func syncPath(filter, since string) string {
	q := url.Values{"filter": {filter}}
	if since != "" {
		q.Set("since", since)
	}
	return "/v3/sync?" + q.Encode()
}

// lived is a life that filters choose from.
type lived struct {
	*stack
	engine         *syncing
	den, left      id.RoomID
	names          map[string]string // of events
	before         string            // a token from before it
	one, thread    id.EventID
	picture, topic id.EventID
}

func live(t *testing.T) *lived {
	s, engine := newSyncStack(t)
	s.users(alice, bob, carol)
	l := &lived{stack: s, engine: engine, den: s.Room(bob, roomver.Default), left: s.Room(bob, roomver.Default), names: map[string]string{}}
	s.Join(l.den, alice, carol)
	s.Join(l.left, alice)
	s.Membership(l.left, alice, alice, room.ActionLeave)
	engine.settled(s)
	l.before = ok[synced](s, alice, syncPath(`{}`, "")).Next

	name := func(e id.EventID, what string) id.EventID {
		l.names[string(e)] = what
		return e
	}
	l.one = name(s.Send(l.den, bob, "one"), "one")
	l.picture = name(s.Do(&room.Send{
		Room: l.den, By: roomtest.As(bob), Type: "m.room.message",
		Content: []byte(`{"msgtype":"m.image","body":"picture","url":"mxc://heddle.test/a","info":{"w":1,"h.x":2}}`),
	}).Event, "picture")
	l.thread = name(s.Relate(l.den, carol, "m.thread", l.one, "thread"), "thread")
	name(s.Do(roomtest.Reaction(l.den, alice, l.picture, "x")).Event, "reaction")
	l.topic = name(s.State(l.den, bob, "m.room.topic", "", `{"topic":"x"}`), "topic")
	name(s.State(l.den, bob, "org.example.a", "", `{}`), "a")
	s.Do(&room.Receipt{Room: l.den, User: bob, Kind: room.ReceiptRead, Event: l.one})
	for _, d := range []account.SetAccountData{
		{Type: "m.direct"},
		{Type: "org.example.data"},
		{Type: "m.tag", RoomID: string(l.den)},
		{Type: "org.example.roomdata", RoomID: string(l.den)},
	} {
		d.UserID, d.Content = string(alice), []byte(`{"x":1}`)
		_, err := s.front.Do(s.Ctx(), &d)
		require.NoError(t, err)
	}
	ref, found, err := engine.Rooms.RoomByID(s.Ctx(), l.den)
	require.True(t, found)
	require.NoError(t, err)
	engine.settled(s)
	engine.HearTyping(&entry.Typing{Shard: uint32(ref.Nid.Shard()), RoomNid: int64(ref.Nid), Epoch: 1, N: 1, UserIds: []string{string(bob)}})
	return l
}

// told gives what an answer tells in one of its sections, of what happened in the den.
func (l *lived) told(a *synced, section string) []string {
	out := []string{}
	add := func(events []map[string]any, key string) {
		for _, e := range events {
			v, _ := e[key].(string)
			if key == "event_id" {
				v = l.names[v]
			}
			if v != "" && v != "m.push_rules" {
				out = append(out, v)
			}
		}
	}
	den := a.Rooms.Join[string(l.den)]
	if den == nil {
		den = new(syncedRoom)
	}
	switch section {
	case "timeline":
		add(den.Timeline.Events, "event_id")
		return out // in their order
	case "state":
		add(den.State.Events, "event_id")
	case "members":
		for _, e := range den.State.Events {
			if e["type"] == "m.room.member" {
				out = append(out, e["state_key"].(string))
			}
		}
	case "ephemeral":
		add(den.Ephemeral.Events, "type")
	case "room data":
		add(den.AccountData.Events, "type")
	case "data":
		add(a.AccountData.Events, "type")
	case "presence":
		add(a.Presence.Events, "sender")
	case "joined":
		out = slices.AppendSeq(out, maps.Keys(a.Rooms.Join))
	case "left":
		out = slices.AppendSeq(out, maps.Keys(a.Rooms.Leave))
	}
	slices.Sort(out)
	return out
}

// Each member of a filter chooses what it says, of what a first sync reads from the database and of what one from memory tells.
func TestFiltersOfSync(t *testing.T) {
	l := live(t)
	all := []string{"one", "picture", "thread", "reaction", "topic", "a"}
	none := []string{}
	den, other := string(l.den), "!other:heddle.test"
	for _, c := range []struct {
		filter, section string
		want            []string
		first           bool // of a first sync alone
	}{
		{filter: `{}`, section: "timeline", want: all},
		{filter: `{"room":{"timeline":{"limit":2}}}`, section: "timeline", want: all[4:]},
		{filter: `{"room":{"timeline":{"limit":0}}}`, section: "timeline", want: none},
		{filter: `{"room":{"timeline":{"limit":1000000000}}}`, section: "timeline", want: all},
		{filter: `{"room":{"timeline":{"types":["m.room.*"]}}}`, section: "timeline", want: []string{"one", "picture", "thread", "topic"}},
		{filter: `{"room":{"timeline":{"types":["m.*n","org.*.a"]}}}`, section: "timeline", want: []string{"reaction", "a"}},
		{filter: `{"room":{"timeline":{"types":[]}}}`, section: "timeline", want: none},
		{filter: `{"room":{"timeline":{"not_types":["m.room.*"]}}}`, section: "timeline", want: []string{"reaction", "a"}},
		{filter: `{"room":{"timeline":{"types":["m.*"],"not_types":["m.room.message"]}}}`, section: "timeline", want: []string{"reaction", "topic"}},
		{filter: `{"room":{"timeline":{"senders":["@carol:heddle.test"]}}}`, section: "timeline", want: []string{"thread"}},
		{filter: `{"room":{"timeline":{"not_senders":["@bob:heddle.test"]}}}`, section: "timeline", want: []string{"thread", "reaction"}},
		{filter: `{"room":{"timeline":{"senders":["@carol:heddle.test"],"not_senders":["@carol:heddle.test"]}}}`, section: "timeline", want: none},
		{filter: `{"room":{"timeline":{"contains_url":true}}}`, section: "timeline", want: []string{"picture"}},
		{filter: `{"room":{"timeline":{"contains_url":false,"types":["m.room.message"]}}}`, section: "timeline", want: []string{"one", "thread"}},
		{filter: `{"room":{"timeline":{"rooms":["` + den + `"]}}}`, section: "timeline", want: all},
		{filter: `{"room":{"timeline":{"rooms":["` + other + `"]}}}`, section: "timeline", want: none},
		{filter: `{"room":{"timeline":{"not_rooms":["` + den + `"]}}}`, section: "timeline", want: none},
		{filter: `{"room":{"timeline":{"related_by_rel_types":["m.thread"]}}}`, section: "timeline", want: []string{"one"}},
		{filter: `{"room":{"timeline":{"related_by_rel_types":["m.reference"]}}}`, section: "timeline", want: none},
		{filter: `{"room":{"timeline":{"related_by_senders":["@alice:heddle.test"]}}}`, section: "timeline", want: []string{"picture"}},
		{filter: `{"room":{"timeline":{"related_by_senders":["@alice:heddle.test"],"related_by_rel_types":["m.thread"]}}}`, section: "timeline", want: none},
		{filter: `{"room":{"timeline":{"org.matrix.msc3874.rel_types":["m.thread"]}}}`, section: "timeline", want: []string{"thread"}},
		{filter: `{"room":{"timeline":{"org.matrix.msc3874.not_rel_types":["m.thread","m.annotation"],"types":["m.r*"]}}}`, section: "timeline", want: []string{"one", "picture", "topic"}},

		{filter: `{"room":{"timeline":{"limit":2}}}`, section: "state", want: none, first: true},
		{filter: `{"room":{"timeline":{"types":["x"]}}}`, section: "state", want: []string{"a", "topic"}},
		{filter: `{"room":{"timeline":{"types":["x"]},"state":{"types":["m.room.*"]}}}`, section: "state", want: []string{"topic"}},
		{filter: `{"room":{"timeline":{"types":["x"]},"state":{"not_types":["m.room.topic"]}}}`, section: "state", want: []string{"a"}},
		{filter: `{"room":{"timeline":{"types":["x"]},"state":{"not_senders":["@bob:heddle.test"]}}}`, section: "state", want: none},
		{filter: `{"room":{"timeline":{"types":["x"]},"state":{"not_rooms":["` + den + `"]}}}`, section: "state", want: none},
		{filter: `{"room":{"timeline":{"types":["x"]},"state":{"rooms":["` + den + `"]}}}`, section: "state", want: []string{"a", "topic"}},
		{filter: `{"room":{"timeline":{"types":["x"]}}}`, section: "members", want: []string{string(alice), string(bob), string(carol)}, first: true},
		{filter: `{"room":{"timeline":{"senders":["@nobody:x"]},"state":{"lazy_load_members":true,"types":["m.room.member"],"not_senders":["@bob:heddle.test","@carol:heddle.test"]}}}`, section: "members", want: []string{string(alice)}, first: true},

		{filter: `{}`, section: "ephemeral", want: []string{"m.receipt", "m.typing"}},
		{filter: `{"room":{"ephemeral":{"types":["m.typing"]}}}`, section: "ephemeral", want: []string{"m.typing"}},
		{filter: `{"room":{"ephemeral":{"not_types":["m.typ*"]}}}`, section: "ephemeral", want: []string{"m.receipt"}},
		{filter: `{"room":{"ephemeral":{"not_rooms":["` + den + `"]}}}`, section: "ephemeral", want: none},
		{filter: `{"room":{"ephemeral":{"rooms":["` + other + `"]}}}`, section: "ephemeral", want: none},

		{filter: `{}`, section: "room data", want: []string{"m.tag", "org.example.roomdata"}},
		{filter: `{"room":{"account_data":{"types":["m.*"]}}}`, section: "room data", want: []string{"m.tag"}},
		{filter: `{"room":{"account_data":{"not_types":["m.tag"]}}}`, section: "room data", want: []string{"org.example.roomdata"}},
		{filter: `{"room":{"account_data":{"not_rooms":["` + den + `"]}}}`, section: "room data", want: none},
		{filter: `{"account_data":{"types":[]}}`, section: "room data", want: []string{"m.tag", "org.example.roomdata"}},
		{filter: `{}`, section: "data", want: []string{"m.direct", "org.example.data"}},
		{filter: `{"account_data":{"types":["org.*.data"]}}`, section: "data", want: []string{"org.example.data"}},
		{filter: `{"account_data":{"not_types":["org.*"]}}`, section: "data", want: []string{"m.direct"}},
		{filter: `{"account_data":{"not_senders":["@alice:heddle.test"]}}`, section: "data", want: none},

		{filter: `{}`, section: "presence", want: []string{string(bob), string(carol)}},
		{filter: `{"presence":{"senders":["@bob:heddle.test"]}}`, section: "presence", want: []string{string(bob)}},
		{filter: `{"presence":{"not_senders":["@bob:heddle.test"]}}`, section: "presence", want: []string{string(carol)}},
		{filter: `{"presence":{"types":["m.x"]}}`, section: "presence", want: none},
		{filter: `{"presence":{"not_types":["m.presence"]}}`, section: "presence", want: none},

		{filter: `{"room":{"rooms":["` + den + `"]}}`, section: "joined", want: []string{den}},
		{filter: `{"room":{"rooms":[]}}`, section: "joined", want: none},
		{filter: `{"room":{"not_rooms":["` + den + `"]}}`, section: "joined", want: none},
		{filter: `{"room":{"rooms":["` + den + `"],"not_rooms":["` + den + `"]}}`, section: "joined", want: none},
		{filter: `{}`, section: "left", want: none},
		{filter: `{"room":{"include_leave":true}}`, section: "left", want: []string{string(l.left)}, first: true},
		{filter: `{"room":{"include_leave":true,"not_rooms":["` + string(l.left) + `"]}}`, section: "left", want: none},
	} {
		first := ok[synced](l.stack, alice, syncPath(c.filter, ""))
		require.Equal(t, c.want, l.told(&first, c.section), "%s of %s", c.section, c.filter)
		if c.first {
			continue
		}
		next := ok[synced](l.stack, alice, syncPath(c.filter, l.before))
		require.Equal(t, c.want, l.told(&next, c.section), "%s of %s from memory", c.section, c.filter)
	}
}

// A sync of which related events alone are wanted asks the database for them once for a room, and one without such a filter asks nothing.
func TestQueriesOfFiltersOfSync(t *testing.T) {
	l := live(t)
	for filter, most := range map[string]int64{
		`{}`: 0,
		`{"event_fields":["content.body"],"room":{"timeline":{"org.matrix.msc3874.not_rel_types":["m.thread"],"contains_url":false}}}`: 0,
		`{"room":{"timeline":{"related_by_rel_types":["m.thread"]}}}`:                                                                  2,
	} {
		l.get(alice, syncPath(filter, l.before)) // reads the filter, and what an answer takes beside it
		_, _, queries := l.get(alice, syncPath(filter, l.before))
		require.LessOrEqual(t, queries, most, filter)
	}
}

func TestEventFieldsOfSync(t *testing.T) {
	l := live(t)
	want := map[string]any{"content": map[string]any{"body": "picture", "info": map[string]any{"h.x": 2.0}}, "sender": string(bob)}
	for _, since := range []string{"", l.before} {
		for _, format := range []string{"client", "federation"} {
			filter := `{"event_format":"` + format + `","event_fields":["content.body","content.info.h\\.x","sender","content.nothing"],` +
				`"room":{"timeline":{"contains_url":true,"types":["m.room.message"]}}}`
			a := ok[synced](l.stack, alice, syncPath(filter, since))
			den := a.Rooms.Join[string(l.den)]
			require.Equal(t, []map[string]any{want}, den.Timeline.Events)
			for _, e := range den.State.Events {
				require.Subset(t, []string{"content", "sender"}, slices.Collect(maps.Keys(e)), "of state, too")
			}
			require.Equal(t, []string{"m.receipt", "m.typing"}, l.told(&a, "ephemeral"))
			require.Equal(t, []string{"m.tag", "org.example.roomdata"}, l.told(&a, "room data"), "what is no event is told whole")
		}
	}
}

func TestEventFormatOfSync(t *testing.T) {
	l := live(t)
	for format, raw := range map[string]bool{"client": false, "federation": true} {
		for _, since := range []string{"", l.before} {
			a := ok[synced](l.stack, alice, syncPath(`{"event_format":"`+format+`"}`, since))
			if !raw {
				for _, e := range a.Rooms.Join[string(l.den)].Timeline.Events {
					require.Contains(t, e, "event_id")
					require.NotContains(t, e, "room_id")
					require.NotContains(t, e, "hashes")
				}
				continue
			}
			for _, e := range a.Rooms.Join[string(l.den)].Timeline.Events {
				for _, member := range []string{"auth_events", "prev_events", "depth", "hashes", "signatures", "origin_server_ts"} {
					require.Contains(t, e, member)
				}
			}
		}
	}
	s := l.stack
	s.refused(alice, syncPath(`{"event_format":"html"}`, ""), http.StatusBadRequest, "M_INVALID_PARAM")
	s.refused(alice, syncPath(`{"event_fields":"content"}`, ""), http.StatusBadRequest, "M_INVALID_PARAM")
	s.refused(alice, syncPath(`nope`, ""), http.StatusBadRequest, "M_INVALID_PARAM")
}

// Members are told lazily, again if redundant ones are wanted, and notifications by thread if the client knows of threads.
func TestLazyAndThreadFiltersOfSync(t *testing.T) {
	l := live(t)
	lazy := func(more, since string) *synced {
		a := ok[synced](l.stack, alice, syncPath(`{"room":{"timeline":{"limit":1},"state":{"lazy_load_members":true`+more+`}}}`, since))
		return &a
	}
	first := lazy("", "")
	require.Contains(t, l.told(first, "members"), string(bob), "who sent what is told")
	l.Send(l.den, bob, "again")
	l.engine.settled(l.stack)
	require.Empty(t, l.told(lazy("", first.Next), "members"))
	require.Equal(t, []string{string(bob)}, l.told(lazy(`,"include_redundant_members":true`, first.Next), "members"))

	for _, since := range []string{"", l.before} {
		whole := ok[synced](l.stack, alice, syncPath(`{"room":{"timeline":{"limit":50}}}`, since)).Rooms.Join[string(l.den)]
		require.Empty(t, whole.Threads)
		parts := ok[synced](l.stack, alice, syncPath(`{"room":{"timeline":{"limit":50,"unread_thread_notifications":true}}}`, since)).Rooms.Join[string(l.den)]
		require.Contains(t, parts.Threads, string(l.one))
		require.Equal(t, whole.Unread.Notifications-1, parts.Unread.Notifications, "that of the thread is told with the thread")
	}
}

// A filter of relations chooses from pages of a room as it does from syncs.
func TestRelationFiltersOfMessages(t *testing.T) {
	l := live(t)
	for filter, want := range map[string][]string{
		`{"org.matrix.msc3874.rel_types":["m.thread"]}`:                                            {"thread"},
		`{"org.matrix.msc3874.rel_types":["m.thread","m.annotation"]}`:                             {"reaction", "thread"},
		`{"org.matrix.msc3874.not_rel_types":["m.thread"],"types":["m.room.message"]}`:             {"picture", "one"},
		`{"org.matrix.msc3874.rel_types":["m.x"],"org.matrix.msc3874.not_rel_types":["m.thread"]}`: {},
	} {
		a := ok[struct{ Chunk []map[string]any }](l.stack, alice,
			"/v3/rooms/"+url.PathEscape(string(l.den))+"/messages?dir=b&limit=100&filter="+url.QueryEscape(filter))
		got := []string{}
		for _, e := range a.Chunk {
			got = append(got, l.names[e["event_id"].(string)])
		}
		require.Equal(t, want, got, filter)
	}
}

// What unsigned says of an event is the same from memory, from the database and where the event is read by itself; what its children come to is told
// where they may be missing.
func TestUnsignedOfSyncIsAsInRooms(t *testing.T) {
	l := live(t)
	gone := l.Send(l.den, bob, "gone")
	l.Redact(l.den, bob, gone)
	l.State(l.den, bob, "m.room.topic", "", `{"topic":"y"}`)
	l.Do(&room.Send{Room: l.den, By: room.Origin{User: alice, Device: "DEVICE", Txn: "txn"}, Type: "m.room.message", Content: roomtest.Message("own")})
	l.engine.settled(l.stack)
	for name, since := range map[string]string{"memory": l.before, "the database": ""} {
		events := ok[synced](l.stack, alice, syncPath(`{"room":{"timeline":{"limit":50}}}`, since)).Rooms.Join[string(l.den)].Timeline.Events
		require.GreaterOrEqual(t, len(events), 10)
		for _, e := range events {
			path := "/v3/rooms/" + url.PathEscape(string(l.den)) + "/event/" + url.PathEscape(e["event_id"].(string))
			alone := ok[map[string]any](l.stack, alice, path)
			require.Equal(t, string(l.den), alone["room_id"])
			delete(alone, "room_id")
			for _, x := range []map[string]any{e, alone} {
				unsigned := x["unsigned"].(map[string]any)
				require.Contains(t, unsigned, "age")
				delete(unsigned, "age")
				delete(unsigned, "m.relations")
				if by, is := unsigned["redacted_because"].(map[string]any); is {
					delete(by, "unsigned")
				}
			}
			require.Equal(t, alone, e, "from %s", name)
		}
	}
}
