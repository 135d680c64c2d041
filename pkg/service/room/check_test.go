package room_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

func now() time.Time { return time.UnixMilli(1_700_000_000_000) }

// zeros is randomness for tests that want none.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// ours verifies with the world's key.
type ours struct{ key signing.Key }

func (o ours) VerifyKey(server id.ServerName, key id.KeyID) (signing.VerifyKey, bool) {
	return signing.VerifyKey{Key: o.key.Public(), ValidUntil: 1 << 60}, server == roomtest.Server && key == o.key.ID()
}

// checkRoom reads a room from the database and holds it against a naive replay: each event's state before and after, the links to
// the events before, the columns, the current state and the members.
func checkRoom(t *testing.T, w *roomtest.World, r id.RoomID) {
	t.Helper()
	ctx := w.Ctx()
	ref, ok, err := w.Reader.Room(ctx, shardOf(w, r), string(r))
	require.NoError(t, err)
	require.True(t, ok)
	rules := roomver.MustGet(roomver.Version(ref.Version))
	atoms := map[shard.Nid]string{}
	name := func(n shard.Nid) string {
		if _, ok := atoms[n]; !ok {
			got, err := w.Reader.AtomNames(ctx, []shard.Nid{n})
			require.NoError(t, err)
			require.Contains(t, got, n, "atom %d is missing", n)
			atoms[n] = got[n]
		}
		return atoms[n]
	}
	naive := map[roomdb.StateName]shard.Nid{}
	members := map[string]roomdb.Membership{}
	verify := func(at shard.Nid, what string) {
		t.Helper()
		state, err := w.Reader.State(ctx, at)
		require.NoError(t, err)
		require.Equal(t, len(naive), state.Len(), what)
		for k, n := range state.All() {
			require.Equal(t, naive[roomdb.StateName{Type: name(shard.Nid(k.Type)), StateKey: name(shard.Nid(k.StateKey))}], shard.Nid(n), what)
		}
	}
	var last *roomdb.StoredEvent
	events := timeline(t, w, r)
	byID := map[string]*roomdb.StoredEvent{}
	for i := range events {
		e := &events[i]
		ev, err := event.Parse(rules, e.JSON)
		require.NoError(t, err)
		require.False(t, ev.HashMismatch())
		require.NoError(t, ev.Verify(ours{w.Key}))
		require.Equal(t, e.EventID, string(ev.EventID()))
		require.Equal(t, r, ev.RoomID())
		require.Equal(t, ev.Type(), name(e.Type))
		require.Equal(t, string(ev.Sender()), name(e.Sender))
		require.Len(t, e.Auth, len(ev.AuthEvents()))
		for j, a := range ev.AuthEvents() {
			require.Equal(t, byID[string(a)].Nid, e.Auth[j])
		}
		if last == nil {
			require.Empty(t, ev.PrevEvents())
		} else {
			require.Equal(t, []id.EventID{id.EventID(last.EventID)}, ev.PrevEvents())
			require.Equal(t, []shard.Nid{last.Nid}, e.Prev)
		}
		verify(e.StateBefore, "before "+e.EventID)
		if key, isState := ev.StateKey(); isState {
			at := roomdb.StateName{Type: ev.Type(), StateKey: key}
			require.Equal(t, naive[at], e.Replaces)
			naive[at] = e.Nid
			if ev.Type() == event.TypeMember {
				members[key] = roomdb.ParseMembership(ev.Membership())
			}
			verify(e.StateAfter, "after "+e.EventID)
		} else {
			require.Equal(t, e.StateBefore, e.StateAfter)
		}
		last, byID[e.EventID] = e, e
	}
	pairs, err := w.Reader.CurrentState(ctx, ref.Nid)
	require.NoError(t, err)
	require.Len(t, pairs, len(naive))
	for _, p := range pairs {
		at := roomdb.StateName{Type: name(shard.Nid(p.Type)), StateKey: name(shard.Nid(p.StateKey))}
		require.Equal(t, naive[at], shard.Nid(p.Event))
	}
	rows, err := w.Reader.Members(ctx, ref.Nid)
	require.NoError(t, err)
	got := map[string]roomdb.Membership{}
	for _, m := range rows {
		got[m.UserID] = m.Membership
	}
	require.Equal(t, members, got)
}
