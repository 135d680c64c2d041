package read_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/room"
)

const searchPath = "/v3/search"

type searched struct {
	Count      int      `json:"count"`
	Highlights []string `json:"highlights"`
	Results    []struct {
		Rank    float64 `json:"rank"`
		Result  shown   `json:"result"`
		Context *struct {
			Start    string                       `json:"start"`
			End      string                       `json:"end"`
			Before   []shown                      `json:"events_before"`
			After    []shown                      `json:"events_after"`
			Profiles map[string]map[string]string `json:"profile_info"`
		} `json:"context"`
	} `json:"results"`
	Next   string `json:"next_batch"`
	Groups map[string]map[string]struct {
		Order   int          `json:"order"`
		Results []id.EventID `json:"results"`
		Next    string       `json:"next_batch"`
	} `json:"groups"`
	State map[id.RoomID][]shown `json:"state"`
}

func (r searched) ids() []id.EventID {
	list := []id.EventID{}
	for _, e := range r.Results {
		list = append(list, e.Result.ID)
	}
	return list
}

// search looks for a term, in the order of time; more are further criteria, as JSON.
func (s *stack) search(user id.UserID, term, next string, more ...string) searched {
	s.T.Helper()
	word, err := json.Marshal(term)
	require.NoError(s.T, err)
	criteria := append([]string{`"search_term":` + string(word)}, more...)
	if !slices.ContainsFunc(more, func(m string) bool { return strings.HasPrefix(m, `"order_by"`) }) {
		criteria = append(criteria, `"order_by":"recent"`)
	}
	path := searchPath
	if next != "" {
		path += "?next_batch=" + url.QueryEscape(next)
	}
	answer := post[struct {
		Categories struct {
			Events searched `json:"room_events"`
		} `json:"search_categories"`
	}](s, user, path, `{"search_categories":{"room_events":{`+strings.Join(criteria, ",")+`}}}`)
	return answer.Categories.Events
}

func TestSearch(t *testing.T) {
	s := newStack(t)
	s.index()
	s.users(alice, bob)
	r := s.Room(alice, roomver.Default)
	s.Join(r, bob)
	hello := s.Send(r, alice, "Hello, Wörld")
	world := s.Send(r, bob, "the whole world says hello to the world")
	name := s.State(r, alice, "m.room.name", "", `{"name":"The world's room"}`)
	topic := s.State(r, alice, "m.room.topic", "", `{"topic":"worldly things","m.topic":{"m.text":[{"mimetype":"text/html","body":"<b>bold</b>"},{"body":"plain words"}]}}`)
	s.State(r, alice, "org.example.world", "", `{"body":"hello world"}`)

	got := s.search(alice, "world", "")
	require.Equal(t, []id.EventID{topic, name, world, hello}, got.ids())
	require.Equal(t, 4, got.Count)
	require.Equal(t, []string{"world"}, got.Highlights)
	require.Empty(t, got.Next)
	require.Equal(t, "Hello, Wörld", got.Results[3].Result.Content["body"])
	require.Equal(t, r, got.Results[3].Result.Room)
	require.Nil(t, got.Results[0].Context)
	require.Empty(t, got.State)

	for term, want := range map[string][]id.EventID{
		"HELLO world": {world, hello}, "hello WORL": {world, hello}, "plain": {topic}, "bold": {}, "says": {world}, "ay": {}, "hello nobody": {},
		"": {}, "' | !": {}, "\x00": {}, "#sfoo": {}, "worldly": {topic},
	} {
		got := s.search(alice, term, "")
		require.Equal(t, want, got.ids(), term)
		require.Equal(t, len(want), got.Count, term)
	}
	require.Equal(t, []id.EventID{name}, s.search(alice, "world", "", `"keys":["content.name"]`).ids())
	require.Equal(t, []id.EventID{topic}, s.search(alice, "world", "", `"keys":["content.topic"]`).ids())
	require.Equal(t, []id.EventID{world, hello}, s.search(alice, "world", "", `"keys":["content.body"]`).ids())

	ranked := s.search(alice, "world", "", `"order_by":"rank"`, `"keys":["content.body"]`)
	require.Equal(t, []id.EventID{world, hello}, ranked.ids())
	require.Greater(t, ranked.Results[0].Rank, ranked.Results[1].Rank)

	answer := post[map[string]map[string]any](s, alice, searchPath, `{"search_categories":{}}`)
	require.Equal(t, map[string]map[string]any{"search_categories": {}}, answer)
}

func TestSearchFilters(t *testing.T) {
	s := newStack(t)
	s.index()
	s.users(alice, bob, carol)
	one, two := s.Room(alice, roomver.Default), s.Room(alice, roomver.Default)
	s.Join(one, bob, carol)
	s.Join(two, bob)
	a1, b1, c1 := s.Send(one, alice, "word"), s.Send(one, bob, "word"), s.Send(one, carol, "word")
	a2 := s.Send(two, alice, "word")
	name := s.State(two, alice, "m.room.name", "", `{"name":"word"}`)
	for f, want := range map[string][]id.EventID{
		`{}`:                                      {name, a2, c1, b1, a1},
		`null`:                                    {name, a2, c1, b1, a1},
		`{"rooms":["` + string(one) + `"]}`:       {c1, b1, a1},
		`{"rooms":[]}`:                            {},
		`{"rooms":["!nowhere:x"]}`:                {},
		`{"not_rooms":["` + string(one) + `"]}`:   {name, a2},
		`{"senders":["` + string(bob) + `"]}`:     {b1},
		`{"senders":[]}`:                          {},
		`{"not_senders":["` + string(bob) + `"]}`: {name, a2, c1, a1},
		`{"types":["m.room.name"]}`:               {name},
		`{"not_types":["m.room.*"]}`:              {},
		`{"senders":["` + string(carol) + `"],"not_senders":["` + string(carol) + `"]}`: {},
	} {
		require.Equal(t, want, s.search(alice, "word", "", `"filter":`+f).ids(), f)
	}
	s.ignore(alice, bob)
	require.Equal(t, []id.EventID{name, a2, c1, a1}, s.search(alice, "word", "").ids(), "an ignored sender")
}

// A reader who turns the pages sees each event once, in either order, also within a group.
func TestSearchPages(t *testing.T) {
	s := newStack(t)
	s.index()
	s.users(alice, bob)
	rooms := []id.RoomID{s.Room(alice, roomver.Default), s.Room(alice, roomver.Default)}
	var all []id.EventID
	in := map[id.RoomID][]id.EventID{}
	for i := range 23 {
		r := rooms[i%2]
		e := s.Send(r, alice, "word"+strings.Repeat(" word", i%5))
		all, in[r] = append(all, e), append(in[r], e)
	}
	s.Send(s.Room(bob, roomver.Default), bob, "word")
	slices.Reverse(all)

	got := s.search(alice, "word", "")
	require.Equal(t, all[:10], got.ids(), "ten unless the request says otherwise")
	require.Equal(t, 23, got.Count)
	for _, order := range []string{"recent", "rank"} {
		for _, limit := range []int{1, 4, 23, 24} {
			more := []string{fmt.Sprintf(`"order_by":%q`, order), fmt.Sprintf(`"filter":{"limit":%d}`, limit)}
			var seen []id.EventID
			for next := ""; ; {
				p := s.search(alice, "word", next, more...)
				require.LessOrEqual(t, len(p.Results), limit)
				if len(p.Results) == 0 {
					require.Zero(t, len(all)%limit, "only what follows a last page that was full is empty")
					require.Empty(t, p.Next)
				}
				require.Equal(t, 23, p.Count)
				for i := 1; order == "rank" && i < len(p.Results); i++ {
					require.GreaterOrEqual(t, p.Results[i-1].Rank, p.Results[i].Rank)
				}
				seen = append(seen, p.ids()...)
				if next = p.Next; next == "" {
					break
				}
			}
			if order == "rank" {
				require.ElementsMatch(t, all, seen)
				continue
			}
			require.Equal(t, all, seen)
		}
	}

	more := []string{`"groupings":{"group_by":[{"key":"room_id"},{"key":"sender"}]}`, `"filter":{"limit":4}`}
	first := s.search(alice, "word", "", more...)
	require.Len(t, first.Groups["room_id"], 2)
	require.Equal(t, first.ids(), first.Groups["sender"][string(alice)].Results)
	for _, r := range rooms {
		g := first.Groups["room_id"][string(r)]
		seen := slices.Clone(g.Results)
		for next := g.Next; next != ""; {
			p := s.search(alice, "word", next, more...)
			require.Equal(t, len(in[r]), p.Count)
			if require.LessOrEqual(t, len(p.Groups["room_id"]), 1); len(p.Results) == 0 {
				require.Empty(t, p.Next)
				break
			}
			seen = append(seen, p.Groups["room_id"][string(r)].Results...)
			next = p.Next
		}
		want := slices.Clone(in[r])
		slices.Reverse(want)
		require.Equal(t, want, seen)
	}
	newest, other := first.Groups["room_id"][string(rooms[0])], first.Groups["room_id"][string(rooms[1])]
	require.Equal(t, []int{1, 2}, []int{newest.Order, other.Order}, "in the order of their first")

	none := s.search(alice, "word", "", `"filter":{"limit":0}`)
	require.Empty(t, none.Results)
	require.Empty(t, none.Next)
	require.Equal(t, 23, none.Count)
}

func TestSearchContext(t *testing.T) {
	s := newStack(t)
	s.index()
	s.users(alice, bob)
	r := s.Room(alice, roomver.Default)
	var around []id.EventID
	for i := range 14 {
		text := fmt.Sprint("number ", i)
		if i == 7 {
			text = "needle"
		}
		around = append(around, s.Send(r, alice, text))
	}
	s.State(r, alice, "m.room.member", string(alice), `{"membership":"join","displayname":"Later"}`)

	got := s.search(alice, "needle", "", `"event_context":{}`, `"include_state":true`)
	require.Equal(t, []id.EventID{around[7]}, got.ids())
	c := got.Results[0].Context
	ids := func(list []shown) []id.EventID { return page{Chunk: list}.ids() }
	require.Equal(t, []id.EventID{around[6], around[5], around[4], around[3], around[2]}, ids(c.Before))
	require.Equal(t, around[8:13], ids(c.After))
	require.Nil(t, c.Profiles)
	require.Equal(t, around[1], ok[page](s, alice, in3(r, "/messages?dir=b&limit=1&from=%s", c.Start)).Chunk[0].ID)
	require.Equal(t, around[13], ok[page](s, alice, in3(r, "/messages?dir=f&limit=1&from=%s", c.End)).Chunk[0].ID)
	require.Len(t, got.State, 1)
	require.True(t, slices.ContainsFunc(got.State[r], func(e shown) bool { return e.Content["displayname"] == "Later" }), "the current state")

	c = s.search(alice, "needle", "", `"event_context":{"before_limit":1,"after_limit":0,"include_profile":true}`).Results[0].Context
	require.Equal(t, []id.EventID{around[6]}, ids(c.Before))
	require.Empty(t, c.After)
	require.Contains(t, c.Profiles, string(alice))
	require.NotEqual(t, "Later", c.Profiles[string(alice)]["displayname"], "the profile of then")
}

// Only what the reader may see is found: also for one who has come late, left, come again, or was never there.
func TestSearchKeepsHistoryVisibility(t *testing.T) {
	s := newStack(t)
	s.index()
	s.users(alice, bob, carol)
	r := s.private(alice)
	s.State(r, alice, "m.room.history_visibility", "", `{"history_visibility":"joined"}`)
	before := s.Send(r, alice, "word before")
	s.Membership(r, alice, bob, room.ActionInvite)
	require.Empty(t, s.search(bob, "word", "").ids(), "an invited user is not in the room")
	s.Join(r, bob)
	during := s.Send(r, alice, "word during")
	s.Membership(r, bob, bob, room.ActionLeave)
	after := s.Send(r, alice, "word after")
	require.Equal(t, []id.EventID{after, during, before}, s.search(alice, "word", "").ids())
	got := s.search(bob, "word", "", `"event_context":{}`, `"include_state":true`)
	require.Equal(t, []id.EventID{during}, got.ids(), "a room that was left")
	require.Equal(t, 1, got.Count)
	for _, e := range slices.Concat(got.Results[0].Context.Before, got.Results[0].Context.After) {
		require.NotContains(t, []id.EventID{before, after}, e.ID)
	}
	s.Membership(r, alice, bob, room.ActionInvite)
	s.Join(r, bob)
	again := s.Send(r, alice, "word again")
	require.Equal(t, []id.EventID{again, during}, s.search(bob, "word", "").ids())
	require.Empty(t, s.search(carol, "word", "").ids())
	require.Empty(t, s.search(carol, "word", "", `"filter":{"rooms":["`+string(r)+`"]}`).ids())

	s.Membership(r, bob, bob, room.ActionLeave)
	s.Do(&room.Forget{Room: r, User: bob})
	require.Empty(t, s.search(bob, "word", "").ids(), "a forgotten room")

	s.State(r, alice, "m.room.encryption", "", `{"algorithm":"m.megolm.v1.aes-sha2"}`)
	require.Empty(t, s.search(alice, "word", "").ids(), "an encrypted room")
}

// What is redacted cannot be found, and leaves the index; what is edited is found by its new words and shown with its edit.
func TestSearchFollowsRedactionsAndEdits(t *testing.T) {
	s := newStack(t)
	stop := s.index()
	s.users(alice)
	r := s.Room(alice, roomver.Default)
	secret, kept := s.Send(r, alice, "the secret word"), s.Send(r, alice, "the kept word")
	require.Equal(t, []id.EventID{kept, secret}, s.search(alice, "word", "").ids())
	s.Redact(r, alice, secret)
	for _, order := range []string{"recent", "rank"} {
		got := s.search(alice, "word", "", `"order_by":"`+order+`"`)
		require.Equal(t, []id.EventID{kept}, got.ids())
		require.Equal(t, 1, got.Count)
	}
	require.Equal(t, 1, s.count(`SELECT count(*) FROM search_event`))

	edit := s.Relate(r, alice, "m.replace", kept, "the changed phrase")
	require.Equal(t, []id.EventID{edit}, s.search(alice, "phrase", "").ids())
	got := s.search(alice, "kept", "")
	require.Equal(t, []id.EventID{kept}, got.ids())
	require.Equal(t, edit, got.Results[0].Result.Unsigned.Relations.Replace.ID)

	// Redacted before it was indexed: it never comes into it.
	s.indexed()
	stop()
	late := s.Send(r, alice, "late word")
	s.Redact(r, alice, late)
	s.index()
	require.Empty(t, s.search(alice, "late", "").ids())
	s.indexed()
	require.Equal(t, 2, s.count(`SELECT count(*) FROM search_event`))
}

func TestSearchRefuses(t *testing.T) {
	s := newStack(t)
	s.users(alice)
	long, err := json.Marshal(strings.Repeat("x", 5000))
	require.NoError(t, err)
	within := func(criteria string) string { return `{"search_categories":{"room_events":` + criteria + `}}` }
	for body, code := range map[string]string{
		`{}`:                        "M_MISSING_PARAM",
		`nonsense`:                  "M_NOT_JSON",
		within(`{}`):                "M_MISSING_PARAM",
		within(`{"search_term":1}`): "M_BAD_JSON",
		within(`{"search_term":"a","keys":["content.secret"]}`):                      "M_INVALID_PARAM",
		within(`{"search_term":"a","order_by":"best"}`):                              "M_INVALID_PARAM",
		within(`{"search_term":"a","filter":{"limit":-1}}`):                          "M_INVALID_PARAM",
		within(`{"search_term":"a","event_context":{"before_limit":-1}}`):            "M_INVALID_PARAM",
		within(`{"search_term":"a","groupings":{"group_by":[{"key":"m.weather"}]}}`): "M_INVALID_PARAM",
		within(`{"search_term":` + string(long) + `}`):                               "M_INVALID_PARAM",
	} {
		s.denied(alice, http.MethodPost, searchPath, body, http.StatusBadRequest, code)
	}
	for _, next := range []string{"x", "!!", "e30x"} {
		s.denied(alice, http.MethodPost, searchPath+"?next_batch="+next, within(`{"search_term":"a"}`), http.StatusBadRequest, "M_INVALID_PARAM")
	}
	s.denied("", http.MethodPost, searchPath, within(`{"search_term":"a"}`), http.StatusUnauthorized, "M_MISSING_TOKEN")
}

// How many statements a search takes does not grow with what it tells of.
func TestSearchTakesConstantQueries(t *testing.T) {
	s := newStack(t)
	s.index()
	s.users(alice, bob)
	r := s.Room(alice, roomver.Default)
	for range 60 {
		s.Send(r, alice, "word")
	}
	s.Join(r, bob)
	s.indexed()
	cost := func(limit int) int64 {
		status, body, queries := s.send(bob, http.MethodPost, searchPath,
			fmt.Sprintf(`{"search_categories":{"room_events":{"search_term":"word","filter":{"limit":%d}}}}`, limit))
		require.Equal(t, 200, status, "%s", body)
		return queries
	}
	cost(1) // what is cached then
	require.Equal(t, cost(5), cost(50))
}

// count gives the number that a statement counts.
func (s *stack) count(sql string) (n int) {
	s.T.Helper()
	require.NoError(s.T, s.DB.Pool.QueryRow(s.Ctx(), sql).Scan(&n))
	return n
}

// TestSearchCountsBeyondWhatItLooksAt: of what is found far down not each is looked at, and still counted.
func TestSearchCountsBeyondWhatItLooksAt(t *testing.T) {
	s := newStack(t)
	s.index()
	s.users(alice, bob)
	r := s.Room(alice, roomver.Default)
	hidden := s.Room(alice, roomver.Default)
	s.State(hidden, alice, "m.room.history_visibility", "", `{"history_visibility":"joined"}`)
	const sent = 500
	for i := range sent {
		s.Send(r, alice, "word")
		if i%2 == 0 {
			s.Send(hidden, alice, "word")
		}
	}
	s.Join(r, bob)
	s.Join(hidden, bob)
	s.indexed()
	require.Equal(t, sent+sent/2, s.search(alice, "word", "").Count)
	got := s.search(bob, "word", "").Count
	require.InDelta(t, sent, got, sent/10, "what the reader may not see is no part of the estimate")
}
