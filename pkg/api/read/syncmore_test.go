package read_test

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/api/read"
	"github.com/heddle-im/heddle/pkg/infra/cache"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/presence"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
)

// A sync makes its user online, unless it says what else.
func TestSetPresenceOfSync(t *testing.T) {
	for path, want := range map[string]presence.Presence{
		"/v3/sync?set_presence=online":      presence.Online,
		"/v3/sync":                          presence.Online,
		"/v3/sync?set_presence=unavailable": presence.Unavailable,
		"/v3/sync?set_presence=offline":     presence.Offline,
	} {
		s := newStack(t)
		s.users(alice)
		x := newSyncing(t, s, nil)
		hub := presence.New(presence.Options{Origin: "a", Store: nothing{}, Now: time.Now})
		accounts := account.NewReader(s.Shards, accountdb.NewReader(s.DB.Pool))
		s.serves(read.NewSync(x.Engine, accounts, hub, cache.NewBudget(cache.BudgetConfig{Memory: 1 << 20}, nil), nil).Handlers())
		status, body, _ := s.get(alice, path)
		require.Equal(t, http.StatusOK, status, "%s", body)
		require.Equal(t, want, hub.Get(t.Context(), string(alice)).Presence, path)
		s.refused(alice, "/v3/sync?set_presence=busy", http.StatusBadRequest, "M_INVALID_PARAM")
	}
}

// An event tells the reader's membership as of it, from the database and from memory.
func TestMembershipAtEvents(t *testing.T) {
	s, engine := newSyncStack(t)
	s.users(alice, bob)
	r := s.Create(room.CreateRoom{Creator: room.Origin{User: alice, Device: "DEVICE"}, Version: roomver.Default, Preset: room.PresetPublic})
	before := s.Send(r, alice, "before")
	s.Membership(r, alice, bob, room.ActionInvite)
	invited := s.Send(r, alice, "invited")
	s.Join(r, bob)
	joined := s.Send(r, alice, "joined")
	engine.settled(s)
	at := func(events []map[string]any) map[string]any {
		out := map[string]any{}
		for _, e := range events {
			out[e["event_id"].(string)] = e["unsigned"].(map[string]any)["membership"]
		}
		return out
	}
	first := ok[synced](s, bob, syncPath(`{"room":{"timeline":{"limit":50}}}`, ""))
	want := map[string]any{string(before): "leave", string(invited): "invite", string(joined): "join"}
	require.Subset(t, at(first.Rooms.Join[string(r)].Timeline.Events), want)
	page := ok[struct{ Chunk []map[string]any }](s, bob, "/v3/rooms/"+url.PathEscape(string(r))+"/messages?dir=b&limit=50")
	require.Subset(t, at(page.Chunk), want)
	more := s.Send(r, alice, "more")
	engine.settled(s)
	next := ok[synced](s, bob, syncPath(`{}`, first.Next))
	require.Equal(t, map[string]any{string(more): "join"}, at(next.Rooms.Join[string(r)].Timeline.Events))
}

// Rooms that were left are told where the filter says so, as they were then, unless they are forgotten.
func TestLeftRoomsOfSync(t *testing.T) {
	s, engine := newSyncStack(t)
	s.users(alice, bob)
	kept, banned, forgotten := s.Room(alice, roomver.Default), s.Room(alice, roomver.Default), s.Room(alice, roomver.Default)
	declined := s.Room(alice, roomver.Default)
	s.Join(kept, bob)
	s.Join(banned, bob)
	s.Join(forgotten, bob)
	seen := s.Send(kept, alice, "seen")
	s.Membership(kept, bob, bob, room.ActionLeave)
	s.Membership(banned, alice, bob, room.ActionBan)
	s.Membership(forgotten, bob, bob, room.ActionLeave)
	s.Do(&room.Forget{Room: forgotten, User: bob})
	s.Membership(declined, alice, bob, room.ActionInvite)
	s.Membership(declined, bob, bob, room.ActionLeave)
	after := s.Send(kept, alice, "after")
	engine.settled(s)
	require.Empty(t, ok[synced](s, bob, syncPath(`{}`, "")).Rooms.Leave)
	left := ok[synced](s, bob, syncPath(`{"room":{"include_leave":true}}`, "")).Rooms.Leave
	require.Contains(t, left, string(kept))
	require.Contains(t, left, string(banned))
	require.NotContains(t, left, string(forgotten))
	var ids []any
	for _, e := range left[string(kept)].Timeline.Events {
		ids = append(ids, e["event_id"])
	}
	require.Contains(t, ids, string(seen))
	require.NotContains(t, ids, string(after))
}
