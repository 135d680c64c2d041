package read_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

const slidingPath = "/unstable/org.matrix.simplified_msc3575/sync"

type slidRoom struct {
	Initial  bool             `json:"initial"`
	Name     string           `json:"name"`
	DM       bool             `json:"is_dm"`
	Bump     int64            `json:"bump_stamp"`
	Limited  bool             `json:"limited"`
	Expanded bool             `json:"unstable_expanded_timeline"`
	State    []map[string]any `json:"required_state"`
	Timeline []map[string]any `json:"timeline"`
	Heroes   []struct {
		User string `json:"user_id"`
	} `json:"heroes"`
	Joined  int `json:"joined_count"`
	Invited int `json:"invited_count"`
}

func (r slidRoom) state() []string {
	out := []string{}
	for _, e := range r.State {
		out = append(out, fmt.Sprint(e["type"], "|", e["state_key"]))
	}
	slices.Sort(out)
	return out
}

type slidAnswer struct {
	Pos        string                         `json:"pos"`
	Lists      map[string]struct{ Count int } `json:"lists"`
	Rooms      map[string]slidRoom            `json:"rooms"`
	Extensions map[string]json.RawMessage     `json:"extensions"`
}

// house is a user with rooms of all kinds, by name.
type house struct {
	*stack
	engine *syncing
	rooms  map[string]id.RoomID
}

func (h *house) slide(pos, body string) (a slidAnswer) {
	h.T.Helper()
	h.engine.settled(h.stack)
	path := slidingPath
	if pos != "" {
		path += "?pos=" + pos
	}
	status, b, _ := h.send(alice, http.MethodPost, path, body)
	require.Equal(h.T, http.StatusOK, status, "%s", b)
	require.NoError(h.T, json.Unmarshal(b, &a))
	return a
}

// named gives the names that the test has for rooms.
func (h *house) named(a slidAnswer) []string {
	out := []string{}
	for name, r := range h.rooms {
		if _, told := a.Rooms[string(r)]; told {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func (h *house) data(room, typ, content string) {
	h.T.Helper()
	_, err := h.front.Do(h.Ctx(), &account.SetAccountData{UserID: string(alice), RoomID: room, Type: typ, Content: []byte(content)})
	require.NoError(h.T, err)
}

func newHouse(t *testing.T) *house {
	s, engine := newSyncStack(t)
	s.users(alice, bob, carol)
	h := &house{stack: s, engine: engine, rooms: map[string]id.RoomID{}}
	add := func(name string, c room.CreateRoom) id.RoomID {
		if c.Creator.User == "" {
			c.Creator = roomtest.As(alice)
		}
		h.rooms[name] = s.Create(c)
		return h.rooms[name]
	}
	plain := add("plain", room.CreateRoom{Name: "Weaving Room", Topic: "looms", Preset: room.PresetPublic})
	s.Join(plain, bob)
	secret := add("secret", room.CreateRoom{Name: "Secret", InitialState: []room.StateEvent{
		{Type: "m.room.encryption", Content: []byte(`{"algorithm":"m.megolm.v1.aes-sha2"}`)},
	}})
	space := add("space", room.CreateRoom{Name: "Mill", CreationContent: []byte(`{"type":"m.space"}`)})
	s.State(space, alice, "m.space.child", string(plain), `{"via":["heddle.test"]}`)
	s.State(space, alice, "m.space.child", string(secret), `{}`) // taken out again
	add("typed", room.CreateRoom{Name: "Typed", CreationContent: []byte(`{"type":"org.x"}`)})
	dm := add("dm", room.CreateRoom{Preset: room.PresetPublic})
	s.Join(dm, bob, carol)
	add("invited", room.CreateRoom{Creator: roomtest.As(bob), Name: "Party", Invite: []room.Invitation{{User: alice}}})
	h.data("", "m.direct", `{"`+string(bob)+`":["`+string(dm)+`"]}`)
	h.data(string(plain), "m.tag", `{"tags":{"m.favourite":{},"u.x":{}}}`)
	h.data(string(secret), "m.tag", `{"tags":{"m.lowpriority":{}}}`)
	return h
}

func TestSlidingFilters(t *testing.T) {
	h := newHouse(t)
	all := []string{"dm", "invited", "plain", "secret", "space", "typed"}
	without := func(names ...string) []string {
		return slices.DeleteFunc(slices.Clone(all), func(n string) bool { return slices.Contains(names, n) })
	}
	space := string(h.rooms["space"])
	for filter, want := range map[string][]string{
		`{}`:                                                  all,
		`{"is_dm":true}`:                                      {"dm"},
		`{"is_dm":false}`:                                     without("dm"),
		`{"is_encrypted":true}`:                               {"secret"},
		`{"is_encrypted":false}`:                              without("secret"),
		`{"is_invite":true}`:                                  {"invited"},
		`{"is_invited":true}`:                                 {"invited"},
		`{"is_invite":false}`:                                 without("invited"),
		`{"room_types":["m.space"]}`:                          {"space"},
		`{"room_types":["m.space","org.x"]}`:                  {"space", "typed"},
		`{"room_types":[null]}`:                               without("space", "typed"),
		`{"room_types":[null,"org.x"]}`:                       without("space"),
		`{"room_types":[]}`:                                   {},
		`{"not_room_types":["m.space"]}`:                      without("space"),
		`{"not_room_types":[null]}`:                           {"space", "typed"},
		`{"room_types":["org.x"],"not_room_types":["org.x"]}`: {},
		`{"room_name_like":"weav"}`:                           {"plain"},
		`{"room_name_like":"E"}`:                              {"plain", "secret", "typed"},
		`{"tags":["m.favourite"]}`:                            {"plain"},
		`{"tags":["m.favourite","m.lowpriority"]}`:            {"plain", "secret"},
		`{"tags":[]}`:                                         {},
		`{"not_tags":["m.favourite"]}`:                        without("plain"),
		`{"tags":["u.x"],"not_tags":["m.favourite"]}`:         {},
		`{"spaces":["` + space + `"]}`:                        {"plain"},
		`{"spaces":["!unknown:heddle.test"]}`:                 {},
		`{"is_dm":false,"is_encrypted":false,"not_room_types":["m.space"],"is_invite":false}`: {"plain", "typed"},
	} {
		a := h.slide("", `{"lists":{"l":{"ranges":[[0,99]],"timeline_limit":0,"required_state":[],"filters":`+filter+`}}}`)
		require.Equal(t, want, h.named(a), filter)
		require.Equal(t, len(want), a.Lists["l"].Count, filter)
	}
	a := h.slide("", `{"lists":{"l":{"ranges":[[0,99]],"timeline_limit":0}}}`)
	for name, r := range h.rooms {
		require.Equal(t, name == "dm", a.Rooms[string(r)].DM, name)
	}
}

// What happened last comes first; a list tells of its ranges, and more when they grow.
func TestSlidingRanges(t *testing.T) {
	h := newHouse(t)
	order := []string{"typed", "dm", "space", "plain"}
	for _, name := range slices.Backward(order) {
		h.Send(h.rooms[name], alice, "x")
	}
	list := func(ranges string) string {
		return `{"lists":{"l":{` + ranges + `"timeline_limit":1,"required_state":[],"filters":{"is_invite":false,"is_encrypted":false}}}}`
	}
	for ranges, want := range map[string][]string{
		`"ranges":[[0,0]],`:       order[:1],
		`"ranges":[[0,1]],`:       order[:2],
		`"ranges":[[1,2]],`:       order[1:3],
		`"ranges":[[0,0],[3,3]],`: {"typed", "plain"},
		`"ranges":[[0,1],[1,2]],`: order[:3],
		`"ranges":[[2,1000000]],`: order[2:],
		`"ranges":[[4,9]],`:       {},
		`"ranges":[],`:            {},
		`"range":[0,1],`:          order[:2],
		``:                        order,
	} {
		a := h.slide("", list(ranges))
		require.ElementsMatch(t, want, h.named(a), ranges)
		require.Equal(t, 4, a.Lists["l"].Count, ranges)
	}
	a := h.slide("", list(`"ranges":[[0,0]],`))
	b := h.slide(a.Pos, list(`"ranges":[[0,2]],`))
	require.ElementsMatch(t, order[1:3], h.named(b), "the first is known")
	for _, r := range b.Rooms {
		require.True(t, r.Initial)
	}
	h.Send(h.rooms["plain"], bob, "up") // comes into the range
	c := h.slide(b.Pos, list(`"ranges":[[0,2]],`))
	require.Equal(t, []string{"plain"}, h.named(c))
	require.True(t, c.Rooms[string(h.rooms["plain"])].Initial)
	two := h.slide("", `{"lists":{"a":{"ranges":[[0,0]],"timeline_limit":1,"filters":{"is_dm":true}},"b":{"ranges":[[0,9]],"timeline_limit":1,"filters":{"is_encrypted":true}}}}`)
	require.Equal(t, []string{"dm", "secret"}, h.named(two))
	require.Equal(t, 1, two.Lists["a"].Count)
}

func TestSlidingRequiredState(t *testing.T) {
	h := newHouse(t)
	plain := h.rooms["plain"]
	h.State(plain, alice, "org.x", "a", `{}`)
	h.State(plain, alice, "org.x", "b", `{}`)
	h.Send(plain, bob, "who")
	me, him := "m.room.member|"+string(alice), "m.room.member|"+string(bob)
	for wishes, want := range map[string][]string{
		`[]`:                          {},
		`[["m.room.name",""]]`:        {"m.room.name|"},
		`[["m.room.name","x"]]`:       {},
		`[["nothing.there",""]]`:      {},
		`[["org.x","a"]]`:             {"org.x|a"},
		`[["org.x","*"]]`:             {"org.x|a", "org.x|b"},
		`[["*","b"]]`:                 {"org.x|b"},
		`[["m.room.member","$ME"]]`:   {me},
		`[["m.room.member","$LAZY"]]`: {him},
		`[["m.room.member","$LAZY"],["m.room.member","$ME"]]`: {me, him},
		`[["m.room.member","` + string(bob) + `"]]`:           {him},
		`[["m.room.member","*"]]`:                             {me, him},
		`[["org.x","a"],["org.x","*"],["m.room.topic",""]]`:   {"m.room.topic|", "org.x|a", "org.x|b"},
	} {
		a := h.slide("", `{"room_subscriptions":{"`+string(plain)+`":{"timeline_limit":1,"required_state":`+wishes+`}}}`)
		slices.Sort(want)
		require.Equal(t, want, a.Rooms[string(plain)].state(), wishes)
	}
	everything := h.slide("", `{"room_subscriptions":{"`+string(plain)+`":{"timeline_limit":1,"required_state":[["*","*"]]}}}`).Rooms[string(plain)].state()
	require.Subset(t, everything, []string{me, him, "org.x|a", "org.x|b", "m.room.create|", "m.room.name|", "m.room.power_levels|"})
	rest := h.slide("", `{"room_subscriptions":{"`+string(plain)+`":{"timeline_limit":1,"required_state":[["*","*"],["m.room.member","$LAZY"]]}}}`).Rooms[string(plain)].state()
	require.NotContains(t, rest, me, "members are told lazily, the rest whole")
	require.Contains(t, rest, him)

	// What changes is told if it is wanted, and what is wanted anew as it is.
	ask := func(pos, wishes string) slidAnswer {
		return h.slide(pos, `{"room_subscriptions":{"`+string(plain)+`":{"timeline_limit":1,"required_state":`+wishes+`}}}`)
	}
	a := ask("", `[["org.x","a"]]`)
	h.State(plain, alice, "org.x", "a", `{"now":1}`)
	h.State(plain, alice, "org.x", "b", `{"now":1}`)
	b := ask(a.Pos, `[["org.x","a"]]`)
	require.Equal(t, []string{"org.x|a"}, b.Rooms[string(plain)].state())
	require.False(t, b.Rooms[string(plain)].Initial)
	c := ask(b.Pos, `[["org.x","a"],["m.room.name",""]]`)
	require.Equal(t, []string{"m.room.name|"}, c.Rooms[string(plain)].state())
}

func TestSlidingTimelinesHeroesAndBumps(t *testing.T) {
	h := newHouse(t)
	plain, dm := string(h.rooms["plain"]), string(h.rooms["dm"])
	for i := range 5 {
		h.Send(h.rooms["plain"], alice, fmt.Sprint(i))
	}
	ask := func(pos string, limit int) slidRoom {
		a := h.slide(pos, fmt.Sprintf(`{"room_subscriptions":{%q:{"timeline_limit":%d}}}`, plain, limit))
		return a.Rooms[plain]
	}
	one := h.slide("", fmt.Sprintf(`{"room_subscriptions":{%q:{"timeline_limit":1}}}`, plain))
	require.Len(t, one.Rooms[plain].Timeline, 1)
	require.True(t, one.Rooms[plain].Limited)
	raised := ask(one.Pos, 4)
	require.True(t, raised.Expanded, "a longer timeline is told whole")
	require.Len(t, raised.Timeline, 4)
	require.Empty(t, ask("", 0).Timeline)
	require.False(t, ask("", 100).Limited)

	dms := h.slide("", fmt.Sprintf(`{"room_subscriptions":{%q:{"timeline_limit":1}}}`, dm)).Rooms[dm]
	require.Empty(t, dms.Name)
	require.Equal(t, 3, dms.Joined)
	heroes := []string{}
	for _, x := range dms.Heroes {
		heroes = append(heroes, x.User)
	}
	require.ElementsMatch(t, []string{string(bob), string(carol)}, heroes)

	bump := func() int64 { return ask("", 1).Bump }
	first := bump()
	h.State(h.rooms["plain"], alice, "m.room.topic", "", `{"topic":"y"}`)
	require.Equal(t, first, bump(), "a topic is no activity")
	h.Send(h.rooms["plain"], bob, "new")
	require.Greater(t, bump(), first)
}

// Each extension is answered where it is asked for, by itself.
func TestSlidingExtensions(t *testing.T) {
	h := newHouse(t)
	plain := h.rooms["plain"]
	event := h.Send(plain, bob, "x")
	h.Do(&room.Receipt{Room: plain, User: bob, Kind: room.ReceiptRead, Event: event})
	h.engine.settled(h.stack)
	list := `"lists":{"l":{"ranges":[[0,99]],"timeline_limit":1}}`
	h.slide("", `{`+list+`}`)
	ref, _, err := h.engine.Rooms.RoomByID(h.Ctx(), plain)
	require.NoError(t, err)
	h.engine.HearTyping(&entry.Typing{Shard: uint32(ref.Nid.Shard()), RoomNid: int64(ref.Nid), Epoch: 1, N: 1, UserIds: []string{string(bob)}})
	for name, c := range map[string]struct{ more, has string }{
		"to_device":    {``, `"next_batch"`},
		"e2ee":         {``, `"device_one_time_keys_count"`},
		"account_data": {``, `m.favourite`},
		"receipts":     {``, string(event)},
		"typing":       {``, string(bob)},
		"io.element.msc4308.thread_subscriptions": {``, ``},
	} {
		a := h.slide("", `{`+list+`,"extensions":{"`+name+`":{"enabled":true}}}`)
		require.Subset(t, []string{name}, slices.Collect(maps.Keys(a.Extensions)), "of %s", name)
		require.Contains(t, string(a.Extensions[name]), c.has, name)
		off := h.slide("", `{`+list+`,"extensions":{"`+name+`":{"enabled":false}}}`)
		require.Empty(t, off.Extensions, name)
		if name == "account_data" || name == "receipts" || name == "typing" {
			none := h.slide("", `{`+list+`,"extensions":{"`+name+`":{"enabled":true,"lists":[],"rooms":[]}}}`)
			if c := string(none.Extensions[name]); c != "" {
				require.NotContains(t, c, string(plain), "of no room: %s", name)
			}
			other := h.slide("", `{`+list+`,"extensions":{"`+name+`":{"enabled":true,"lists":["other"],"rooms":[]}}}`)
			require.NotContains(t, string(other.Extensions[name]), string(plain), "of another list: %s", name)
			that := h.slide("", `{`+list+`,"extensions":{"`+name+`":{"enabled":true,"lists":["l"],"rooms":[]}}}`)
			require.Contains(t, string(that.Extensions[name]), string(plain), "of this list: %s", name)
		}
	}
}

// However many connections there are, what is remembered of them is bounded; whose connection is not remembered any more is told anew.
func TestSlidingConnectionsAreBounded(t *testing.T) {
	h := newHouse(t)
	body := func(i int) string {
		return fmt.Sprintf(`{"conn_id":"c%d","lists":{"l":{"ranges":[[0,99]],"timeline_limit":1}}}`, i)
	}
	const many = 200
	first := h.slide("", body(0))
	require.Len(t, first.Rooms, len(h.rooms))
	require.Empty(t, h.slide(first.Pos, body(0)).Rooms, "it is remembered")
	for i := 1; i <= many; i++ {
		h.slide("", body(i))
	}
	again := h.slide(first.Pos, body(0))
	require.Len(t, again.Rooms, len(h.rooms), "it is not remembered, after %d others", many)
	for _, r := range again.Rooms {
		require.True(t, r.Initial)
	}
	require.Empty(t, h.slide(again.Pos, body(0)).Rooms)
}
