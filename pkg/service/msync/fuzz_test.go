package msync_test

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/matrix/filter"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/msync"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/shardlog/token"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// eventful is a world in which a bit of everything has happened to bob: of each kind of room that /sync tells one.
func eventful(t testing.TB) *roomtest.World {
	w := roomtest.New(t)
	alice, bob, carol := roomtest.User("alice"), roomtest.User("bob"), roomtest.User("carol")
	front := w.Accounts(account.Config{})
	w.Register(front, bob)
	den := w.Room(alice, roomver.Default)
	w.Join(den, bob, carol)
	for range 2 {
		root := w.Send(den, alice, "root")
		w.Relate(den, carol, "m.thread", root, "in a thread")
		w.Do(roomtest.Reaction(den, bob, root, "x"))
		w.State(den, alice, "m.room.topic", "", `{"topic":"x"}`)
		w.State(den, alice, "org.example.a.b", "key", `{"n":1}`)
		w.Redact(den, alice, w.Send(den, carol, "gone"))
		w.Do(&room.SetProfile{Room: den, User: carol, Profile: room.Profile{DisplayName: "Carol"}})
		w.Do(&room.Send{Room: den, By: roomtest.As(carol), Type: "m.room.message", Content: []byte(
			`{"msgtype":"m.image","body":"y","url":"mxc://heddle.test/a","info":{"h.x":2,"w":1},"m.mentions":{"user_ids":["@bob:heddle.test"]}}`)})
		for _, kind := range []string{room.ReceiptRead, room.ReceiptReadPrivate} {
			w.Do(&room.Receipt{Room: den, User: bob, Kind: kind, Event: root})
			w.Do(&room.Receipt{Room: den, User: carol, Kind: kind, Event: root, Thread: "main"})
		}
	}
	for _, d := range []account.SetAccountData{{Type: "m.direct"}, {Type: "m.tag", RoomID: string(den)}} {
		d.UserID, d.Content = string(bob), []byte(`{"x":{}}`)
		_, err := front.Do(w.Ctx(), &d)
		require.NoError(t, err)
	}
	for _, end := range []func(r id.RoomID){
		func(r id.RoomID) { w.Membership(r, bob, bob, room.ActionLeave) },
		func(r id.RoomID) { w.Membership(r, alice, bob, room.ActionBan) },
		func(r id.RoomID) {
			w.Membership(r, bob, bob, room.ActionLeave)
			w.Do(&room.Forget{Room: r, User: bob})
		},
		func(r id.RoomID) {
			w.Membership(r, bob, bob, room.ActionLeave)
			w.Send(r, alice, "while he was away")
			w.Join(r, bob)
		},
	} {
		r := w.Room(alice, roomver.Default)
		w.Join(r, bob)
		w.Send(r, alice, "x")
		end(r)
	}
	w.Create(room.CreateRoom{Creator: roomtest.As(alice), Invite: []room.Invitation{{User: bob}}})
	knocked := w.Room(alice, roomver.Default)
	w.State(knocked, alice, "m.room.join_rules", "", `{"join_rule":"knock"}`)
	w.Membership(knocked, bob, bob, room.ActionKnock)
	return w
}

// fuzzed is an answer, as far as it is held against what was asked.
type fuzzed struct {
	Next  string `json:"next_batch"`
	Rooms struct {
		Join, Leave, Invite, Knock map[string]fuzzedRoom
	} `json:"rooms"`
}

type fuzzedRoom struct {
	Timeline struct {
		fuzzedEvents
		Prev string `json:"prev_batch"`
	} `json:"timeline"`
	State    fuzzedEvents `json:"state"`
	After    fuzzedEvents `json:"state_after"`
	Unstable fuzzedEvents `json:"org.matrix.msc4222.state_after"`
}

type fuzzedEvents struct {
	Events []struct {
		Type    string          `json:"type"`
		Sender  string          `json:"sender"`
		Content json.RawMessage `json:"content"`
	} `json:"events"`
}

func (e fuzzedEvents) pass(t require.TestingT, f *filter.RoomEventFilter, room string) {
	for _, x := range e.Events {
		require.True(t, f.PassEvent(room, x.Type, x.Sender, x.Content), "%s from %s", x.Type, x.Sender)
	}
}

// asked is a world, and what clients ask of it.
type asked struct {
	small, large *worker
	head         shard.Heads
}

func newAsked(t testing.TB) *asked {
	w := eventful(t)
	x := &asked{small: start(t, w, 1<<20), large: start(t, w, 256<<20)}
	x.small.settled(t, w)
	x.large.settled(t, w)
	x.head = x.large.follower.Positions()
	return x
}

// mostQueries is how many an answer takes at most: some for each of the rooms that there are, whatever is asked for.
const mostQueries = 200

// check demands that what a client asks for, from wherever, is answered with what it asked for, in a bounded number of queries, or refused as its
// mistake, and that who goes on from the answer is told nothing again. cut is how much of each shard the client has heard.
func (x *asked) check(t require.TestingT, text []byte, since string, cut []byte, flags byte) {
	chosen, err := filter.Parse(text)
	if err != nil {
		return
	}
	q := msync.Request{
		User: roomtest.User("bob"), Device: "B", Since: since, Filter: chosen, FullState: flags&1 != 0, StateAfter: flags&2 != 0, StateAfterUnstable: flags&4 != 0,
	}
	if len(cut) > 0 { // a token that could have been given, somewhere in what has happened
		at := token.Sync{Incarnation: x.head.Incarnation, Positions: x.head.Positions.Clone()}
		for s := range at.Positions {
			at.Positions[s] = at.Positions[s] * shard.Pos(cut[s%len(cut)]) / 255
		}
		q.Since = at.Encode()
	}
	s := x.large
	if flags&8 != 0 {
		s = x.small
	}
	ctx, tally := pg.WithTally(context.Background())
	b, err := s.Sync(ctx, q)
	if err != nil {
		require.True(t, mxerr.Is(err, mxerr.InvalidParam), "%v", err)
		return
	}
	require.LessOrEqual(t, tally.Count(), int64(mostQueries))
	require.True(t, jsontext.Value(b).IsValid(), "%s", b)
	var a fuzzed
	require.NoError(t, json.Unmarshal(b, &a))
	for _, rooms := range []map[string]fuzzedRoom{a.Rooms.Join, a.Rooms.Leave, a.Rooms.Invite, a.Rooms.Knock} {
		for r, told := range rooms {
			require.True(t, chosen.Room.PassRoom(r))
			require.LessOrEqual(t, len(told.Timeline.Events), chosen.TimelineLimit())
			if chosen.Picks() {
				continue
			}
			told.Timeline.pass(t, &chosen.Room.Timeline, r)
			for _, state := range []fuzzedEvents{told.State, told.After, told.Unstable} {
				state.pass(t, &chosen.Room.State, r)
			}
		}
	}
	for _, told := range a.Rooms.Join {
		_, err := token.DecodeRoom(told.Timeline.Prev)
		require.NoError(t, err)
	}
	q.Since, q.FullState = a.Next, false
	b, err = s.Sync(context.Background(), q)
	require.NoError(t, err)
	var again fuzzed
	require.NoError(t, json.Unmarshal(b, &again))
	require.Equal(t, fuzzed{Next: again.Next}, again, "nothing has happened since")
}

func FuzzSync(f *testing.F) {
	x := newAsked(f)
	for _, seed := range []struct {
		filter, since string
		cut           []byte
		flags         byte
	}{
		{filter: `{}`},
		{filter: `{}`, since: "s72594_4483_1934"},
		{filter: `{"room":{"include_leave":true,"timeline":{"limit":0}}}`, flags: 8},
		{filter: `{"room":{"timeline":{"limit":1,"unread_thread_notifications":true},"state":{"lazy_load_members":true}}}`, cut: []byte{100, 120, 90, 200}},
		{filter: `{"event_fields":["content.info.h\\.x","sender"],"event_format":"federation","room":{"timeline":{"contains_url":true}}}`, cut: []byte{1, 255}, flags: 2},
		{filter: `{"room":{"timeline":{"types":["*a*m*e*","**"],"not_types":["m.*.*"],"limit":1000000000},"ephemeral":{"types":[]}}}`, cut: []byte{77, 3}, flags: 4},
	} {
		f.Add([]byte(seed.filter), seed.since, seed.cut, seed.flags)
	}
	f.Fuzz(func(t *testing.T, filter []byte, since string, cut []byte, flags byte) {
		x.check(t, filter, since, cut, flags)
	})
}

// The same with filters that say something, each member of them alone and together.
func TestAnyFilterFromAnywhere(t *testing.T) {
	x := newAsked(t)
	some := func(values ...string) func(t *rapid.T) any {
		return func(t *rapid.T) any { return rapid.SliceOfN(rapid.SampledFrom(values), 0, 3).Draw(t, "list") }
	}
	types := some("m.room.message", "m.room.*", "*", "m.room.member", "m.room.topic", "m.re*", "org.*.b", "m.receipt", "m.typing", "m.tag")
	users := some("@alice:heddle.test", "@bob:heddle.test", "@carol:heddle.test")
	var rooms []string
	first, err := x.large.Sync(t.Context(), msync.Request{User: roomtest.User("bob"), Filter: lazily(t, `{"room":{"include_leave":true}}`)})
	require.NoError(t, err)
	var a fuzzed
	require.NoError(t, json.Unmarshal(first, &a))
	for _, in := range []map[string]fuzzedRoom{a.Rooms.Join, a.Rooms.Leave, a.Rooms.Invite, a.Rooms.Knock} {
		rooms = slices.AppendSeq(rooms, maps.Keys(in))
	}
	slices.Sort(rooms)
	require.Len(t, rooms, 6)
	yes := func(t *rapid.T) any { return rapid.Bool().Draw(t, "yes") }
	events := map[string]func(t *rapid.T) any{
		"types": types, "not_types": types, "senders": users, "not_senders": users,
		"limit": func(t *rapid.T) any { return rapid.SampledFrom([]int{0, 1, 2, 5, 1000, 1 << 40}).Draw(t, "limit") },
	}
	inRooms := map[string]func(t *rapid.T) any{
		"rooms": some(rooms...), "not_rooms": some(rooms...), "contains_url": yes, "lazy_load_members": yes, "include_redundant_members": yes,
		"unread_thread_notifications": yes, "related_by_rel_types": some("m.thread", "m.annotation"), "related_by_senders": users,
		"org.matrix.msc3874.rel_types": some("m.thread", "m.annotation"), "org.matrix.msc3874.not_rel_types": some("m.thread"),
	}
	maps.Copy(inRooms, events)
	rapid.Check(t, func(t *rapid.T) {
		draw := func(members map[string]func(t *rapid.T) any) map[string]any {
			out := map[string]any{}
			for _, name := range slices.Sorted(maps.Keys(members)) {
				if rapid.IntRange(0, len(members)/2).Draw(t, name) == 0 {
					out[name] = members[name](t)
				}
			}
			return out
		}
		part := func(members map[string]func(t *rapid.T) any) func(t *rapid.T) any {
			return func(*rapid.T) any { return draw(members) }
		}
		b, err := json.Marshal(draw(map[string]func(t *rapid.T) any{
			"presence": part(events), "account_data": part(events), "event_fields": some("content", "content.body", `content.info.h\.x`, "type", "a.b.c"),
			"event_format": func(t *rapid.T) any { return rapid.SampledFrom([]string{"client", "federation"}).Draw(t, "format") },
			"room": part(map[string]func(t *rapid.T) any{
				"rooms": some(rooms...), "not_rooms": some(rooms...), "include_leave": yes, "account_data": part(inRooms), "ephemeral": part(inRooms),
				"state": part(inRooms), "timeline": part(inRooms),
			}),
		}))
		require.NoError(t, err)
		_, err = filter.Parse(b)
		require.NoError(t, err, "%s", b)
		x.check(t, b, "", rapid.SliceOfN(rapid.Byte(), 0, 4).Draw(t, "cut"), rapid.Byte().Draw(t, "flags"))
	})
}
