package read_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/store/delaydb"
)

func TestDelayedEventsAreListed(t *testing.T) {
	s := newStack(t)
	s.users(alice, bob)
	type answer struct {
		Delayed []map[string]any `json:"delayed_events"`
	}
	const path = "/unstable/org.matrix.msc4140/delayed_events"
	s.refused("", path, 401, "M_MISSING_TOKEN")
	got := ok[answer](s, alice, path)
	require.NotNil(t, got.Delayed, "a list, even if empty")
	require.Empty(t, got.Delayed)
	db, key := delaydb.NewDB(s.DB.Pool), ""
	for _, e := range []*delaydb.Event{
		{ID: "second", User: string(alice), Room: "!r:x", Type: "m.room.message", Content: []byte(`{"body":"b"}`), Delay: 2000},
		{ID: "first", User: string(alice), Room: "!r:x", Type: "m.x", StateKey: &key, Content: []byte(`{}`), Delay: 1000},
		{ID: "other", User: string(bob), Room: "!r:x", Type: "m.x", Content: []byte(`{}`), Delay: 1000},
	} {
		stored, err := db.Schedule(s.Ctx(), e, 5000, 10)
		require.NoError(t, err)
		require.True(t, stored)
	}
	require.Equal(t, []map[string]any{
		{"delay_id": "first", "room_id": "!r:x", "type": "m.x", "state_key": "", "delay": 1000.0, "running_since": 5000.0, "content": map[string]any{}},
		{
			"delay_id": "second", "room_id": "!r:x", "type": "m.room.message", "delay": 2000.0, "running_since": 5000.0,
			"content": map[string]any{"body": "b"},
		},
	}, ok[answer](s, alice, path).Delayed)
}
