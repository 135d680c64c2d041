package read_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/service/wordindex"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/searchdb"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// index starts the consumers by which things are found; stop them with what is returned.
func (s *stack) index() (stop func()) {
	s.T.Helper()
	s.Exec(`INSERT INTO role_lease (role, slot, epoch, holder) VALUES ('background', 0, 1, 'm') ON CONFLICT DO NOTHING`)
	x := searchdb.NewIndexer(s.DB.Pool, s.Shards)
	var all []*follow.Durable
	for _, c := range []follow.DurableOptions{
		{Name: searchdb.EventsConsumer, Consumer: wordindex.NewEvents(x), Filter: wordindex.EventFilter},
		{Name: searchdb.PeopleConsumer, Consumer: wordindex.NewPeople(x, s.Shards), Filter: wordindex.PeopleFilter},
	} {
		c.Role, c.Cursors, c.Source = follow.Role{Name: "background", Epoch: 1}, s.Log(), s.Log()
		c.SaveEvery = 50 * time.Millisecond
		d := follow.NewDurable(follow.Config{Poll: 10 * time.Millisecond}, c)
		require.NoError(s.T, d.Start(s.Ctx()))
		all = append(all, d)
	}
	stop = sync.OnceFunc(func() {
		for _, d := range all {
			require.NoError(s.T, d.Stop(s.Ctx()))
		}
	})
	s.T.Cleanup(stop)
	return stop
}

// indexed waits until what is committed can be found.
func (s *stack) indexed() {
	s.T.Helper()
	var all []shard.ID
	for i := range s.Shards.Count() {
		all = append(all, shard.ID(i))
	}
	r := searchdb.NewReader(s.DB.Pool)
	for _, c := range []string{searchdb.EventsConsumer, searchdb.PeopleConsumer} {
		require.NoError(s.T, r.Reach(s.Ctx(), c, all, time.Minute, entry.KindEvent, entry.KindProfile, entry.KindSession))
	}
}

// post demands success of a POST, and reads the answer.
func post[T any](s *stack, user id.UserID, path, sent string) (answer T) {
	s.T.Helper()
	status, body, _ := s.send(user, http.MethodPost, path, sent)
	require.Equal(s.T, http.StatusOK, status, "%s: %s", path, body)
	require.NoError(s.T, json.Unmarshal(body, &answer), "%s", body)
	return answer
}

const directoryPath = "/v3/user_directory/search"

type person struct {
	ID     id.UserID `json:"user_id"`
	Name   string    `json:"display_name"`
	Avatar string    `json:"avatar_url"`
}

type people struct {
	Results []person `json:"results"`
	Limited bool     `json:"limited"`
}

func (s *stack) find(asker id.UserID, term string) []id.UserID {
	s.T.Helper()
	s.indexed()
	sent, err := json.Marshal(map[string]any{"search_term": term})
	require.NoError(s.T, err)
	p := post[people](s, asker, directoryPath, string(sent))
	require.False(s.T, p.Limited)
	found := []id.UserID{}
	for _, r := range p.Results {
		found = append(found, r.ID)
	}
	return found
}

func (s *stack) named(user id.UserID, name string) {
	s.T.Helper()
	value, err := json.Marshal(name)
	require.NoError(s.T, err)
	_, err = s.front.Do(s.Ctx(), &account.SetProfile{UserID: string(user), Field: "displayname", Value: value})
	require.NoError(s.T, err)
}

func (s *stack) private(by id.UserID) id.RoomID {
	s.T.Helper()
	return s.Create(room.CreateRoom{Creator: roomtest.As(by), Version: roomver.Default, Preset: room.PresetPrivate})
}

func TestUserDirectory(t *testing.T) {
	s := newStack(t)
	s.index()
	s.users(alice, bob, carol)
	s.named(alice, "Alice Ångström")
	r := s.private(alice)
	require.Empty(t, s.find(bob, "alice"), "no room is shared")

	s.Membership(r, alice, bob, room.ActionInvite)
	require.Empty(t, s.find(bob, "alice"), "an invitation is no membership")
	s.Join(r, bob)
	for _, term := range []string{"alice", "ALI", "angst", "ångström ali", "@ali", "@Alice:heddle.test", " alice "} {
		require.Equal(t, []id.UserID{alice}, s.find(bob, term), term)
	}
	for _, term := range []string{"", "lice", "alice bob", "@lice", "heddle", "%", "@%", "@_lice", "' & !x", "\x00"} {
		require.Empty(t, s.find(bob, term), term)
	}
	require.Empty(t, s.find(alice, "alice"), "oneself")
	require.Empty(t, s.find(carol, "alice"), "a stranger")

	s.named(alice, "Queen of Hearts")
	require.Empty(t, s.find(bob, "angst"))
	require.Equal(t, []id.UserID{alice}, s.find(bob, "queen"))
	s.State(r, alice, "m.room.member", string(alice), `{"membership":"join","displayname":"Freddy"}`)
	require.Empty(t, s.find(bob, "freddy"), "a name for one room is no profile")

	s.Membership(r, bob, bob, room.ActionLeave)
	require.Empty(t, s.find(bob, "queen"))
}

// Whoever is in a room that anybody may join or read can be found, for as long as it is so.
func TestUserDirectoryOfOpenRooms(t *testing.T) {
	s := newStack(t)
	s.index()
	s.users(alice, carol)
	r := s.private(alice)
	require.Empty(t, s.find(carol, "alice"))
	for _, c := range []struct {
		typ, content string
		found        bool
	}{
		{"m.room.join_rules", `{"join_rule":"public"}`, true},
		{"m.room.join_rules", `{"join_rule":"knock"}`, false},
		{"m.room.history_visibility", `{"history_visibility":"world_readable"}`, true},
		{"m.room.history_visibility", `{"history_visibility":"shared"}`, false},
	} {
		s.State(r, alice, c.typ, "", c.content)
		if c.found {
			require.Equal(t, []id.UserID{alice}, s.find(carol, "alice"), c.content)
		} else {
			require.Empty(t, s.find(carol, "alice"), c.content)
		}
	}
	rules := s.State(r, alice, "m.room.join_rules", "", `{"join_rule":"public"}`)
	require.Len(t, s.find(carol, "alice"), 1)
	s.Redact(r, alice, rules)
	require.Empty(t, s.find(carol, "alice"), "redacted rules open nothing")
}

func TestUserDirectoryForgetsTheDeactivated(t *testing.T) {
	s := newStack(t)
	s.index()
	s.users(alice, bob)
	s.Join(s.Room(alice, roomver.Default), bob)
	require.Len(t, s.find(bob, "alice"), 1)
	require.NoError(t, s.front.Deactivate(s.Ctx(), alice, false))
	require.Empty(t, s.find(bob, "alice"))
}

func TestUserDirectoryLimits(t *testing.T) {
	s := newStack(t)
	stop := s.index()
	s.users(alice)
	r := s.Room(alice, roomver.Default)
	many := []id.UserID{"@dan:heddle.test", "@dana:heddle.test", "@danny:heddle.test"}
	s.users(many...)
	stop() // what happens while nobody follows is found later
	s.Join(r, many...)
	s.named(many[2], "Danny")
	s.index()
	s.indexed()

	p := post[people](s, alice, directoryPath, `{"search_term":"dan","limit":2}`)
	require.True(t, p.Limited)
	require.Len(t, p.Results, 2)
	require.Equal(t, many[0], p.Results[0].ID, "the exact one first")
	p = post[people](s, alice, directoryPath, `{"search_term":"dan","limit":3}`)
	require.False(t, p.Limited)
	require.Len(t, p.Results, 3)
	require.Contains(t, p.Results, person{ID: many[2], Name: "Danny"})
	p = post[people](s, alice, directoryPath, `{"search_term":"@dan\u0000","limit":3}`) // what PostgreSQL would not take
	require.Len(t, p.Results, 3)
	p = post[people](s, alice, directoryPath, `{"search_term":"dan","limit":0}`)
	require.True(t, p.Limited)
	require.Empty(t, p.Results)
}

func TestUserDirectoryRefuses(t *testing.T) {
	s := newStack(t)
	s.users(alice)
	long, err := json.Marshal(map[string]string{"search_term": strings.Repeat("x", 2000)})
	require.NoError(t, err)
	for body, code := range map[string]string{
		`{}`: "M_MISSING_PARAM", `{"search_term":1}`: "M_BAD_JSON", `{"search_term":"a","limit":-1}`: "M_INVALID_PARAM",
		`{"search_term":"a","limit":"ten"}`: "M_BAD_JSON", `[]`: "M_BAD_JSON", `nonsense`: "M_NOT_JSON", string(long): "M_INVALID_PARAM",
	} {
		s.denied(alice, http.MethodPost, directoryPath, body, http.StatusBadRequest, code)
	}
	s.denied("", http.MethodPost, directoryPath, `{"search_term":"a"}`, http.StatusUnauthorized, "M_MISSING_TOKEN")
}
