package timeline_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/matrix/filter"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/service/timeline"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/shardlog/token"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
	"github.com/heddle-im/heddle/pkg/store/readdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

// world is a server, and its rooms as they are read. Its queries are counted.
type world struct {
	*roomtest.World
	rooms   *timeline.Rooms
	queries *pg.QueryCounter
	mark    int64 // the transaction after which written rows are counted
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{World: roomtest.New(t), queries: pg.NewQueryCounter()}
	db, err := pg.Open(w.Ctx(), pg.Config{DSN: w.DB.DSN, MaxConns: 4}, pg.Options{Counter: w.queries})
	require.NoError(t, err)
	t.Cleanup(db.Close)
	w.rooms = timeline.New(
		readdb.NewReader(roomdb.NewReader(db.Primary), w.Shards), accountdb.NewReader(db.Primary), time.Now,
	)
	return w
}

type shown struct {
	ID       string          `json:"event_id"`
	Type     string          `json:"type"`
	StateKey *string         `json:"state_key"`
	Redacts  string          `json:"redacts"`
	TS       int64           `json:"origin_server_ts"`
	Content  json.RawMessage `json:"content"`
	Unsigned struct {
		Membership string          `json:"membership"`
		Txn        string          `json:"transaction_id"`
		Prev       json.RawMessage `json:"prev_content"`
		Replaces   string          `json:"replaces_state"`
		Because    *shown          `json:"redacted_because"`
		Age        *int64          `json:"age"`
	} `json:"unsigned"`
}

func (e *shown) body() string {
	var c struct {
		Body string `json:"body"`
	}
	_ = json.Unmarshal(e.Content, &c)
	return c.Body
}

type page struct {
	Start string  `json:"start"`
	End   string  `json:"end"`
	Chunk []shown `json:"chunk"`
	State []shown `json:"state"`
}

func as(u id.UserID) timeline.Viewer { return timeline.Viewer{User: u, Device: "DEVICE"} }

// read decodes an answer, or gives the code of a refusal.
func read[T any](t testing.TB, body []byte, err error) (out T, code mxerr.Code) {
	t.Helper()
	if err != nil {
		require.Less(t, mxerr.From(err).HTTPStatus, 500, "%v", err)
		return out, mxerr.From(err).Code
	}
	require.NoError(t, json.Unmarshal(body, &out), "%s", body)
	return out, ""
}

func (w *world) messages(u id.UserID, p timeline.Page) (page, mxerr.Code) {
	w.T.Helper()
	if p.Limit == 0 {
		p.Limit = 1000
	}
	b, err := w.rooms.Messages(w.Ctx(), as(u), p)
	return read[page](w.T, b, err)
}

// bodies gives the texts of the messages that a user sees of a room, the oldest first; - stands for a redacted one.
func (w *world) bodies(u id.UserID, r id.RoomID) string {
	w.T.Helper()
	p, code := w.messages(u, timeline.Page{Room: r, Dir: timeline.Forward})
	if code != "" {
		return string(code)
	}
	var out []string
	for i := range p.Chunk {
		if p.Chunk[i].Type == "m.room.message" {
			text := p.Chunk[i].body()
			if text == "" {
				text = "-"
			}
			out = append(out, text)
		}
	}
	return strings.Join(out, " ")
}

func (w *world) visibility(r id.RoomID, by id.UserID, v string) id.EventID {
	w.T.Helper()
	return w.State(r, by, "m.room.history_visibility", "", `{"history_visibility":"`+v+`"}`)
}

// event gives an event as a user sees it.
func (w *world) event(u id.UserID, r id.RoomID, e id.EventID) (shown, mxerr.Code) {
	w.T.Helper()
	b, err := w.rooms.Event(w.Ctx(), as(u), r, string(e))
	return read[shown](w.T, b, err)
}

func (w *world) leave(r id.RoomID, u id.UserID) {
	w.T.Helper()
	w.Membership(r, u, u, room.ActionLeave)
}

// TestWhoSeesWhat follows one user through staying, leaving, being banned and joining again, under each visibility.
func TestWhoSeesWhat(t *testing.T) {
	w := newWorld(t)
	alice, bob, eve := roomtest.User("alice"), roomtest.User("bob"), roomtest.User("eve")
	for _, x := range []struct{ visibility, invited, joined, left, banned, again, stranger string }{
		{"shared", "M_FORBIDDEN", "a b c", "a b c", "a b c", "a b c d e f g", "M_FORBIDDEN"},
		{"invited", "M_FORBIDDEN", "b c", "b c", "b c", "b c g", "M_FORBIDDEN"},
		{"joined", "M_FORBIDDEN", "c", "c", "c", "c g", "M_FORBIDDEN"},
		{"world_readable", "a b", "a b c", "a b c d", "a b c d e", "a b c d e f g", "a b c d e f g"},
	} {
		t.Run(x.visibility, func(t *testing.T) {
			w := &world{World: w.In(t), rooms: w.rooms, queries: w.queries}
			r := w.Room(alice, "11")
			w.visibility(r, alice, x.visibility)
			w.Send(r, alice, "a")
			w.Membership(r, alice, bob, room.ActionInvite)
			w.Send(r, alice, "b")
			require.Equal(t, x.invited, w.bodies(bob, r))
			w.Join(r, bob)
			w.Send(r, alice, "c")
			require.Equal(t, x.joined, w.bodies(bob, r))
			w.leave(r, bob)
			w.Send(r, alice, "d")
			require.Equal(t, x.left, w.bodies(bob, r))
			w.Membership(r, alice, bob, room.ActionBan)
			w.Send(r, alice, "e")
			require.Equal(t, x.banned, w.bodies(bob, r), "a ban after leaving takes nothing away")
			w.Membership(r, alice, bob, room.ActionUnban)
			w.Send(r, alice, "f")
			w.Join(r, bob)
			w.Send(r, alice, "g")
			require.Equal(t, x.again, w.bodies(bob, r))
			require.Equal(t, x.stranger, w.bodies(eve, r))
		})
	}
}

// TestOnceWorldReadable: an event stays for everybody as it was sent for everybody; what came later does not.
func TestOnceWorldReadable(t *testing.T) {
	w := newWorld(t)
	alice, eve := roomtest.User("alice"), roomtest.User("eve")
	r := w.Room(alice, "11")
	hidden := w.Send(r, alice, "hidden")
	w.visibility(r, alice, "world_readable")
	open := w.Send(r, alice, "open")
	require.Equal(t, "open", w.bodies(eve, r), "a stranger does not see what was before")
	w.visibility(r, alice, "shared")
	later := w.Send(r, alice, "later")

	require.Equal(t, "M_FORBIDDEN", w.bodies(eve, r))
	e, code := w.event(eve, r, open)
	require.Empty(t, code)
	require.Equal(t, "open", e.body())
	require.Equal(t, "leave", e.Unsigned.Membership)
	for _, x := range []id.EventID{hidden, later, "$none"} {
		_, code = w.event(eve, r, x)
		require.Equal(t, mxerr.NotFound, code)
	}
	_, err := w.rooms.Context(w.Ctx(), as(eve), r, string(later), 10, nil)
	require.True(t, mxerr.Is(err, mxerr.Forbidden))
	b, err := w.rooms.Context(w.Ctx(), as(eve), r, string(open), 10, nil)
	around, code := read[struct {
		Before []shown `json:"events_before"`
		After  []shown `json:"events_after"`
	}](t, b, err)
	require.Empty(t, code)
	require.Len(t, around.Before, 1, "the change to world_readable itself")
	require.Len(t, around.After, 1, "the change away from it")
}

func TestDeclinedInvitationOpensNothing(t *testing.T) {
	w := newWorld(t)
	alice, bob := roomtest.User("alice"), roomtest.User("bob")
	r := w.Room(alice, "11")
	w.Send(r, alice, "a")
	w.Membership(r, alice, bob, room.ActionInvite)
	w.leave(r, bob)
	require.Equal(t, "M_FORBIDDEN", w.bodies(bob, r))
	w.visibility(r, alice, "world_readable")
	w.Send(r, alice, "b")
	require.Equal(t, "b", w.bodies(bob, r), "shared is for those who join, and bob only declined")
	_, err := w.rooms.Members(w.Ctx(), as(bob), timeline.MembersQuery{Room: r})
	require.True(t, mxerr.Is(err, mxerr.Forbidden))
	w.Join(r, bob)
	w.leave(r, bob)
	w.Do(&room.Forget{Room: r, User: bob})
	w.visibility(r, alice, "shared")
	require.Equal(t, "M_FORBIDDEN", w.bodies(bob, r), "what is forgotten is gone")
}

func TestUnsigned(t *testing.T) {
	w := newWorld(t)
	alice, bob := roomtest.User("alice"), roomtest.User("bob")
	for _, v := range []roomver.Version{"1", "10", "12"} {
		r := w.Room(alice, v)
		w.Join(r, bob)
		by := roomtest.As(alice)
		by.Txn = "txn" + string(v)
		said := w.Do(&room.Send{Room: r, By: by, Type: "m.room.message", Content: roomtest.Message("hi")}).Event
		e, _ := w.event(alice, r, said)
		require.Equal(t, by.Txn, e.Unsigned.Txn)
		require.NotNil(t, e.Unsigned.Age)
		require.Equal(t, "join", e.Unsigned.Membership)
		b, err := w.rooms.Event(w.Ctx(), timeline.Viewer{User: alice, Device: "OTHER"}, r, string(said))
		e, _ = read[shown](t, b, err)
		require.Empty(t, e.Unsigned.Txn, "another device")
		e, _ = w.event(bob, r, said)
		require.Empty(t, e.Unsigned.Txn, "another user")

		first := w.State(r, alice, "x", "", `{"n":1}`)
		second := w.State(r, alice, "x", "", `{"n":2}`)
		e, _ = w.event(bob, r, second)
		require.Equal(t, string(first), e.Unsigned.Replaces)
		require.JSONEq(t, `{"n":1}`, string(e.Unsigned.Prev))

		redaction := w.Do(&room.Redact{Room: r, By: roomtest.As(alice), Target: said, Reason: "why"}).Event
		e, _ = w.event(bob, r, said)
		require.JSONEq(t, `{}`, string(e.Content))
		require.NotNil(t, e.Unsigned.Because)
		require.Equal(t, string(redaction), e.Unsigned.Because.ID)
		require.Equal(t, string(said), e.Unsigned.Because.Redacts)
	}
}

// TestRedactsInBothPlaces: whatever the room version says, clients find the target at both.
func TestRedactsInBothPlaces(t *testing.T) {
	w := newWorld(t)
	alice := roomtest.User("alice")
	for _, v := range []struct {
		version   roomver.Version
		inContent bool
	}{{"1", false}, {"10", false}, {"11", true}, {"12", true}} {
		r := w.Room(alice, v.version)
		said := w.Send(r, alice, "hi")
		redaction := w.Do(&room.Redact{Room: r, By: roomtest.As(alice), Target: said}).Event
		e, _ := w.event(alice, r, redaction)
		require.Equal(t, string(said), e.Redacts)
		var content struct {
			Redacts string `json:"redacts"`
		}
		require.NoError(t, json.Unmarshal(e.Content, &content))
		require.Equal(t, string(said), content.Redacts)

		var stored string
		require.NoError(t, w.DB.Pool.QueryRow(w.Ctx(), `SELECT convert_from(json, 'UTF8') FROM event WHERE event_id = $1`, string(redaction)).Scan(&stored))
		var pdu struct {
			Redacts string `json:"redacts"`
			Content struct {
				Redacts string `json:"redacts"`
			} `json:"content"`
		}
		require.NoError(t, json.Unmarshal([]byte(stored), &pdu))
		require.Equal(t, v.inContent, pdu.Content.Redacts != "")
		require.Equal(t, !v.inContent, pdu.Redacts != "", "the event itself has it where its room version wants it")
	}
}

// TestTokens: from, to and dir to the letter.
func TestTokens(t *testing.T) {
	w := newWorld(t)
	alice, bob := roomtest.User("alice"), roomtest.User("bob")
	r := w.Room(alice, "11")
	for i := range 10 {
		w.Send(r, alice, fmt.Sprint(i))
	}
	texts := func(p page) string {
		var out []string
		for i := range p.Chunk {
			out = append(out, p.Chunk[i].body())
		}
		return strings.Join(out, "")
	}
	p1, _ := w.messages(alice, timeline.Page{Room: r, Limit: 3})
	require.Equal(t, "987", texts(p1))
	p2, _ := w.messages(alice, timeline.Page{Room: r, From: p1.End, Limit: 3})
	require.Equal(t, "654", texts(p2))
	require.Equal(t, p1.End, p2.Start)
	back, _ := w.messages(alice, timeline.Page{Room: r, From: p2.End, Dir: timeline.Forward, Limit: 3})
	require.Equal(t, "456", texts(back), "a token is a place between events, in either direction")
	until, _ := w.messages(alice, timeline.Page{Room: r, From: p2.End, To: p1.Start, Dir: timeline.Forward})
	require.Equal(t, "456789", texts(until))
	until, _ = w.messages(alice, timeline.Page{Room: r, From: p1.Start, To: p2.End})
	require.Equal(t, "987654", texts(until))
	none, _ := w.messages(alice, timeline.Page{Room: r, From: p1.End, To: p1.End})
	require.Empty(t, none.Chunk)

	// The start of what was read backward is where to wait for what comes.
	w.Send(r, alice, "A")
	w.Send(r, alice, "B")
	on, _ := w.messages(alice, timeline.Page{Room: r, From: p1.Start, Dir: timeline.Forward})
	require.Equal(t, "AB", texts(on))
	require.NotEmpty(t, on.End)
	end, _ := w.messages(alice, timeline.Page{Room: r, From: on.End, Dir: timeline.Forward})
	require.Empty(t, end.Chunk)
	require.Empty(t, end.End, "there is nothing more")
	all, _ := w.messages(alice, timeline.Page{Room: r})
	require.Empty(t, all.End, "the beginning of the room")

	// A token of a sync stands for what the sync had told, in either direction and as either end.
	var head int64
	require.NoError(t, w.DB.Pool.QueryRow(w.Ctx(), `SELECT max(ord) FROM event WHERE event_id = $1`, on.Chunk[0].ID).Scan(&head))
	synced := token.Sync{Incarnation: 1, Positions: make(shard.Vector, w.Shards.Count())}
	synced.Positions[w.Shards.Of(string(r))] = shard.Pos(head)
	before, _ := w.messages(alice, timeline.Page{Room: r, From: synced.Encode(), Limit: 3})
	require.Equal(t, "A98", texts(before))
	after, _ := w.messages(alice, timeline.Page{Room: r, From: synced.Encode(), Dir: timeline.Forward})
	require.Equal(t, "B", texts(after))
	upto, _ := w.messages(alice, timeline.Page{Room: r, From: p1.Start, To: synced.Encode(), Dir: timeline.Forward})
	require.Equal(t, "A", texts(upto))
	since, _ := w.messages(alice, timeline.Page{Room: r, To: synced.Encode()})
	require.Equal(t, "B", texts(since))
	require.Empty(t, since.End, "that was all until there")
	apart, _ := w.messages(alice, timeline.Page{Room: r, From: p2.End, To: p1.Start})
	require.Empty(t, apart.Chunk, "an end that lies the other way")
	require.Empty(t, apart.End)
	ended, _ := w.messages(alice, timeline.Page{Room: r, From: p1.Start, To: p2.End, Dir: timeline.Forward})
	require.Empty(t, ended.Chunk)

	for _, bad := range []string{"x", "s1_2", "!!", strings.Repeat("A", 20000)} {
		_, code := w.messages(alice, timeline.Page{Room: r, From: bad})
		require.Equal(t, mxerr.InvalidParam, code)
		_, code = w.messages(alice, timeline.Page{Room: r, To: bad})
		require.Equal(t, mxerr.InvalidParam, code)
	}
	_, code := w.messages(bob, timeline.Page{Room: r})
	require.Equal(t, mxerr.Forbidden, code)
	_, code = w.messages(bob, timeline.Page{Room: "!none:heddle.test"})
	require.Equal(t, mxerr.Forbidden, code)
}

func parse(t testing.TB, text string) *filter.RoomEventFilter {
	t.Helper()
	f, err := filter.ParseRoomEvents([]byte(text))
	require.NoError(t, err)
	return f
}

func TestFilters(t *testing.T) {
	w := newWorld(t)
	alice, bob := roomtest.User("alice"), roomtest.User("bob")
	r := w.Room(alice, "11")
	w.Join(r, bob)
	root := w.Send(r, alice, "root")
	w.Send(r, bob, "other")
	w.Do(&room.Send{Room: r, By: roomtest.As(bob), Type: "m.reaction", Content: []byte(
		`{"m.relates_to":{"rel_type":"m.annotation","event_id":"` + string(root) + `","key":"k"}}`)})
	w.Do(&room.Send{Room: r, By: roomtest.As(bob), Type: "m.room.message", Content: []byte(`{"body":"pic","url":"mxc://a/b"}`)})
	for text, want := range map[string]string{
		`{"types":["m.room.message"]}`:                                                      "pic other root",
		`{"types":["m.room.message"],"senders":["` + string(bob) + `"]}`:                    "pic other",
		`{"types":["m.room.*"],"not_types":["m.room.message"],"senders":["@no:one"]}`:       "",
		`{"types":["m.room.message"],"not_senders":["` + string(bob) + `"]}`:                "root",
		`{"contains_url":true}`:                                                             "pic",
		`{"types":["m.room.message"],"contains_url":false}`:                                 "other root",
		`{"types":["m.room.message"],"limit":1}`:                                            "pic",
		`{"related_by_rel_types":["m.annotation"]}`:                                         "root",
		`{"related_by_senders":["` + string(bob) + `"]}`:                                    "root",
		`{"related_by_senders":["` + string(alice) + `"]}`:                                  "",
		`{"related_by_rel_types":["m.thread"]}`:                                             "",
		`{"related_by_rel_types":["m.annotation"],"related_by_senders":["@bob:x.y"]}`:       "",
		`{"not_rooms":["` + string(r) + `"]}`:                                               "",
		`{"rooms":[]}`:                                                                      "",
		`{"types":["m.room.message"],"rooms":["` + string(r) + `"],"not_senders":["@x:y"]}`: "pic other root",
	} {
		p, code := w.messages(alice, timeline.Page{Room: r, Filter: parse(t, text)})
		require.Empty(t, code)
		var out []string
		for i := range p.Chunk {
			out = append(out, p.Chunk[i].body())
		}
		require.Equal(t, want, strings.Join(out, " "), text)
	}
}

// TestLazyMembers: the members told are those who spoke, as they were then, and never as they are after the reader left.
func TestLazyMembers(t *testing.T) {
	w := newWorld(t)
	alice, bob, carol := roomtest.User("alice"), roomtest.User("bob"), roomtest.User("carol")
	r := w.Room(alice, "11")
	w.Join(r, bob, carol)
	w.Send(r, alice, "a")
	w.Send(r, bob, "b")
	w.leave(r, carol)
	w.Do(&room.SetProfile{Room: r, User: bob, Profile: room.Profile{DisplayName: "secret"}})
	w.Send(r, bob, "c")
	p, _ := w.messages(carol, timeline.Page{Room: r, Limit: 3, Filter: parse(t, `{"lazy_load_members":true}`)})
	require.Len(t, p.State, 3, "alice, bob and carol, who left")
	for i := range p.State {
		require.NotContains(t, string(p.State[i].Content), "secret")
	}
	p, _ = w.messages(alice, timeline.Page{Room: r, Limit: 1, Filter: parse(t, `{"lazy_load_members":true}`)})
	require.Len(t, p.State, 1)
	require.Contains(t, string(p.State[0].Content), "secret")
	p, _ = w.messages(alice, timeline.Page{Room: r})
	require.Empty(t, p.State)
}

func TestIgnoredUsersAreNotRead(t *testing.T) {
	w := newWorld(t)
	alice, bob := roomtest.User("alice"), roomtest.User("bob")
	front := w.Accounts(account.Config{Enabled: true})
	w.Register(front, alice)
	r := w.Room(alice, "11")
	w.Join(r, bob)
	w.Send(r, bob, "spam")
	w.State(r, alice, "m.room.power_levels", "", `{"users":{"`+string(alice)+`":100},"state_default":0}`)
	set := w.State(r, bob, "x", "", `{}`)
	ignore := func(list string) {
		_, err := front.Do(w.Ctx(), &account.SetAccountData{
			UserID: string(alice), Type: "m.ignored_user_list", Content: []byte(`{"ignored_users":` + list + `}`),
		})
		require.NoError(t, err)
	}
	require.Equal(t, "spam", w.bodies(alice, r))
	ignore(`{"` + string(bob) + `":{}}`)
	require.Empty(t, w.bodies(alice, r))
	p, _ := w.messages(alice, timeline.Page{Room: r, Limit: 1})
	require.Equal(t, string(set), p.Chunk[0].ID, "state is told in any case")
	require.Equal(t, "spam", w.bodies(bob, r))
	ignore(`{}`)
	require.Equal(t, "spam", w.bodies(alice, r))
	ignore(`"nonsense"`)
	require.Equal(t, "spam", w.bodies(alice, r))
}

func TestNear(t *testing.T) {
	w := newWorld(t)
	alice, bob := roomtest.User("alice"), roomtest.User("bob")
	r := w.Room(alice, "11")
	at := func(ts int64, text string) id.EventID {
		by := roomtest.As(alice)
		by.TS = ts
		return w.Do(&room.Send{Room: r, By: by, Type: "m.room.message", Content: roomtest.Message(text)}).Event
	}
	a, b, same := at(1000, "a"), at(2000, "b"), at(2000, "same")
	near := func(u id.UserID, ts int64, dir timeline.Dir) (string, mxerr.Code) {
		raw, err := w.rooms.Near(w.Ctx(), as(u), r, ts, dir)
		e, code := read[shown](t, raw, err)
		return e.ID, code
	}
	for _, x := range []struct {
		ts   int64
		dir  timeline.Dir
		want id.EventID
	}{
		{0, timeline.Forward, a},
		{1000, timeline.Forward, a},
		{1001, timeline.Forward, b},
		{2000, timeline.Forward, b},
		{1000, timeline.Backward, a},
		{1999, timeline.Backward, a},
		{2000, timeline.Backward, same},
		{3000, timeline.Backward, same},
	} {
		got, code := near(alice, x.ts, x.dir)
		require.Empty(t, code)
		require.Equal(t, string(x.want), got, "%d %v", x.ts, x.dir)
	}
	_, code := near(alice, 999, timeline.Backward)
	require.Equal(t, mxerr.NotFound, code)
	_, code = near(alice, time.Now().Add(time.Hour).UnixMilli(), timeline.Forward)
	require.Equal(t, mxerr.NotFound, code)
	_, code = near(bob, 1000, timeline.Forward)
	require.Equal(t, mxerr.Forbidden, code)

	// One who may not see the nearest is given the next that they may.
	w.visibility(r, alice, "joined")
	w.Join(r, bob)
	got, _ := near(bob, 1000, timeline.Forward)
	require.Equal(t, string(a), got, "shared, and bob joined")
	r = w.Room(alice, "11")
	w.visibility(r, alice, "joined")
	at(1000, "hidden")
	w.Join(r, bob)
	seen := at(5000, "seen")
	got, _ = near(bob, 1000, timeline.Forward)
	require.Equal(t, string(seen), got)
}

func TestMembersAt(t *testing.T) {
	w := newWorld(t)
	alice, bob, carol := roomtest.User("alice"), roomtest.User("bob"), roomtest.User("carol")
	r := w.Room(alice, "11")
	count := func(u id.UserID, q timeline.MembersQuery) (int, mxerr.Code) {
		q.Room = r
		raw, err := w.rooms.Members(w.Ctx(), as(u), q)
		p, code := read[page](t, raw, err)
		return len(p.Chunk), code
	}
	early, _ := w.messages(alice, timeline.Page{Room: r, Limit: 1})
	w.Join(r, bob, carol)
	w.leave(r, carol)
	w.Join(r, roomtest.User("dave"))
	for _, x := range []struct {
		u    id.UserID
		q    timeline.MembersQuery
		want int
	}{
		{alice, timeline.MembersQuery{}, 4},
		{alice, timeline.MembersQuery{Membership: "join"}, 3},
		{alice, timeline.MembersQuery{Not: "join"}, 1},
		{alice, timeline.MembersQuery{Membership: "ban"}, 0},
		{alice, timeline.MembersQuery{At: early.Start}, 1},
		{carol, timeline.MembersQuery{}, 3},
		{carol, timeline.MembersQuery{Membership: "join"}, 2},
	} {
		n, code := count(x.u, x.q)
		require.Empty(t, code)
		require.Equal(t, x.want, n, "%+v", x)
	}
	// The place before the create event stands for the room's beginning, when its creator was in it.
	first, _ := w.messages(alice, timeline.Page{Room: r, Dir: timeline.Forward, Limit: 1})
	n, code := count(alice, timeline.MembersQuery{At: first.Start})
	require.Empty(t, code)
	require.Equal(t, 1, n)
	_, code = count(alice, timeline.MembersQuery{At: "nonsense"})
	require.Equal(t, mxerr.InvalidParam, code)
	_, code = count(roomtest.User("eve"), timeline.MembersQuery{})
	require.Equal(t, mxerr.Forbidden, code)

	// The members of a time that the reader may not see are not told.
	w.visibility(r, alice, "joined")
	w.Send(r, alice, "among us")
	hidden, _ := w.messages(alice, timeline.Page{Room: r, Limit: 1})
	w.Join(r, roomtest.User("eve"))
	_, code = count(roomtest.User("eve"), timeline.MembersQuery{At: hidden.Start})
	require.Equal(t, mxerr.Forbidden, code)
}

func TestContext(t *testing.T) {
	w := newWorld(t)
	alice := roomtest.User("alice")
	r := w.Room(alice, "11")
	var ids []id.EventID
	for i := range 9 {
		ids = append(ids, w.Send(r, alice, fmt.Sprint(i)))
	}
	type around struct {
		Start  string  `json:"start"`
		End    string  `json:"end"`
		Event  shown   `json:"event"`
		Before []shown `json:"events_before"`
		After  []shown `json:"events_after"`
		State  []shown `json:"state"`
	}
	get := func(limit int, f string) around {
		b, err := w.rooms.Context(w.Ctx(), as(alice), r, string(ids[4]), limit, parse(t, f))
		a, code := read[around](t, b, err)
		require.Empty(t, code)
		require.Equal(t, string(ids[4]), a.Event.ID)
		return a
	}
	a := get(5, `{}`)
	require.Len(t, a.Before, 2)
	require.Len(t, a.After, 3)
	require.Equal(t, []string{"3", "2"}, []string{a.Before[0].body(), a.Before[1].body()})
	require.Equal(t, "5", a.After[0].body())
	back, _ := w.messages(alice, timeline.Page{Room: r, From: a.Start, Limit: 1})
	require.Equal(t, "1", back.Chunk[0].body())
	on, _ := w.messages(alice, timeline.Page{Room: r, From: a.End, Dir: timeline.Forward, Limit: 1})
	require.Equal(t, "8", on.Chunk[0].body())
	require.NotEmpty(t, a.State)
	a = get(0, `{}`)
	require.Empty(t, append(a.Before, a.After...))
	on, _ = w.messages(alice, timeline.Page{Room: r, From: a.End, Dir: timeline.Forward, Limit: 1})
	require.Equal(t, "5", on.Chunk[0].body())
	require.Len(t, get(2, `{"lazy_load_members":true}`).State, len(a.State))
}

// TestPeekingByOneWhoNeverSpoke: whom the shard knows no name of takes part in no thread, and is answered like anybody.
func TestPeekingByOneWhoNeverSpoke(t *testing.T) {
	w := newWorld(t)
	alice := roomtest.User("alice")
	r := w.Room(alice, "11")
	w.visibility(r, alice, "world_readable")
	root := w.Send(r, alice, "root")
	w.Do(&room.Send{Room: r, By: roomtest.As(alice), Type: "m.room.message", Content: roomtest.Relating("m.thread", root, "reply")})
	b, err := w.rooms.Event(w.Ctx(), as(roomtest.User("never-seen")), r, string(root))
	require.NoError(t, err)
	require.Contains(t, string(b), `"current_user_participated":false`)
}
