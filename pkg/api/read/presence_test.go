package read_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/api/read"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/presence"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// nothing is a store that has lost everything.
type nothing struct{}

func (nothing) Get(context.Context, string) ([]byte, bool, error)        { return nil, false, nil }
func (nothing) Set(context.Context, string, []byte, time.Duration) error { return nil }

func presenceHandlers(w *roomtest.World) httpx.Handlers {
	hub := presence.New(presence.Options{Origin: "a", Store: nothing{}, Now: time.Now})
	return read.NewPresence(hub, func(ctx context.Context, user, other id.UserID) (bool, error) {
		_, n, err := w.Reader.MutualRooms(ctx, string(user), string(other), 0, 1)
		return n > 0, err
	}, time.Now).Handlers()
}

func status(u id.UserID) string { return "/v3/presence/" + url.PathEscape(string(u)) + "/status" }

func TestPresence(t *testing.T) {
	s := newStack(t)
	s.users(alice, bob, carol)
	s.Join(s.Room(alice, roomver.Default), bob)
	type shown struct {
		Presence string `json:"presence"`
		Status   string `json:"status_msg"`
		Active   bool   `json:"currently_active"`
		Ago      *int64 `json:"last_active_ago"`
	}
	require.Equal(t, shown{Presence: "offline"}, ok[shown](s, bob, status(alice)), "of whom nothing is known")

	code, body, _ := s.send(alice, http.MethodPut, status(alice), `{"presence":"online","status_msg":"here"}`)
	require.Equal(t, http.StatusOK, code, "%s", body)
	require.JSONEq(t, `{}`, string(body))
	for _, reader := range []id.UserID{alice, bob} {
		got := ok[shown](s, reader, status(alice))
		require.NotNil(t, got.Ago)
		got.Ago = nil
		require.Equal(t, shown{Presence: "online", Status: "here", Active: true}, got)
	}
	s.refused(carol, status(alice), http.StatusForbidden, "M_FORBIDDEN")
	s.refused(carol, status("@nobody:heddle.test"), http.StatusForbidden, "M_FORBIDDEN")
	s.refused(alice, status("nobody"), http.StatusBadRequest, "M_INVALID_PARAM")
	s.refused("", status(alice), http.StatusUnauthorized, "M_MISSING_TOKEN")
}

func TestSetPresenceRefuses(t *testing.T) {
	s := newStack(t)
	s.users(alice, bob)
	long, err := json.Marshal(map[string]string{"presence": "online", "status_msg": strings.Repeat("x", 3000)})
	require.NoError(t, err)
	for _, c := range []struct {
		user, of   id.UserID
		body, code string
		status     int
	}{
		{bob, alice, `{"presence":"online"}`, "M_FORBIDDEN", http.StatusForbidden},
		{"", alice, `{"presence":"online"}`, "M_MISSING_TOKEN", http.StatusUnauthorized},
		{alice, "alice", `{"presence":"online"}`, "M_INVALID_PARAM", http.StatusBadRequest},
		{alice, alice, `{}`, "M_MISSING_PARAM", http.StatusBadRequest},
		{alice, alice, `{"presence":"busy"}`, "M_INVALID_PARAM", http.StatusBadRequest},
		{alice, alice, `{"presence":1}`, "M_BAD_JSON", http.StatusBadRequest},
		{alice, alice, `{"presence":"online","status_msg":[]}`, "M_BAD_JSON", http.StatusBadRequest},
		{alice, alice, string(long), "M_INVALID_PARAM", http.StatusBadRequest},
		{alice, alice, `nonsense`, "M_NOT_JSON", http.StatusBadRequest},
	} {
		s.denied(c.user, http.MethodPut, status(c.of), c.body, c.status, c.code)
	}
	code, body, _ := s.get(alice, status(alice))
	require.Equal(t, http.StatusOK, code)
	require.JSONEq(t, `{"presence":"offline"}`, string(body), "nothing of it held")
}
