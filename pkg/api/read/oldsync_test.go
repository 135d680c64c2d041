package read_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/api/read"
	"github.com/heddle-im/heddle/pkg/infra/cache"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/msync"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/service/timeline"
	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
	"github.com/heddle-im/heddle/pkg/store/e2eedb"
	"github.com/heddle-im/heddle/pkg/store/logdb"
	"github.com/heddle-im/heddle/pkg/store/pushdb"
	"github.com/heddle-im/heddle/pkg/store/readdb"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// syncing is a sync engine that hears the log.
type syncing struct {
	*msync.Engine
	source   *logdb.DB
	index    *follow.Index
	follower *follow.Follower
}

func (s *syncing) Heads(ctx context.Context) (shard.Heads, error) { return s.index.Heads(ctx) }
func (s *syncing) Reach(ctx context.Context, h shard.Heads) error { return s.follower.Reach(ctx, h) }

func (s *syncing) History(ctx context.Context) (shard.History, error) { return s.source.History(ctx) }

// noDevices takes what devices have received.
type noDevices struct{}

func (noDevices) Acknowledge(context.Context, []msync.Received) error { return nil }

// newOldStack is a stack that serves the endpoints from before /sync, too.
func newOldStack(t *testing.T) (*stack, *syncing) {
	s := newStack(t)
	x := newSyncing(t, s, nil)
	s.serves(read.NewOldSync(x.Engine, timeline.New(x.Rooms, x.Accounts, time.Now)).Handlers())
	return s, x
}

// newSyncing starts a sync engine beside a stack. who may be nil.
func newSyncing(t *testing.T, s *stack, who msync.Presence) *syncing {
	x := &syncing{source: s.Log()}
	x.index = follow.NewIndex(x.source)
	rooms, accounts := readdb.NewReader(s.Reader, s.Shards), accountdb.NewReader(s.DB.Pool)
	x.Engine = msync.New(t.Context(), msync.Options{
		Shards: s.Shards, Rooms: rooms, Accounts: accounts, Push: pushdb.NewReader(s.DB.Pool), Keys: e2eedb.NewReader(s.DB.Pool),
		Acks: noDevices{}, Presence: who, Budget: cache.NewBudget(cache.BudgetConfig{Memory: 64 << 20}, nil), Now: time.Now,
	}, x)
	x.follower = follow.New(follow.Config{Poll: 5 * time.Millisecond, Grace: time.Millisecond}, follow.Options{
		Source: x.source, Consumer: x.Engine, Filter: x.Wants,
	})
	require.NoError(t, x.follower.Start(s.Ctx()))
	require.NoError(t, x.Start(s.Ctx()))
	t.Cleanup(func() {
		require.NoError(t, x.Stop(s.Ctx()))
		require.NoError(t, x.follower.Stop(s.Ctx()))
		x.index.Stop()
	})
	return x
}

func (s *syncing) settled(w *stack) {
	w.T.Helper()
	h, err := s.Heads(w.Ctx())
	require.NoError(w.T, err)
	require.NoError(w.T, s.Reach(w.Ctx(), h))
}

type oldEvent struct {
	ID      string         `json:"event_id"`
	Room    string         `json:"room_id"`
	Type    string         `json:"type"`
	Content map[string]any `json:"content"`
}

type oldRoom struct {
	Room       string     `json:"room_id"`
	Membership string     `json:"membership"`
	Visibility string     `json:"visibility"`
	Invite     *oldEvent  `json:"invite"`
	State      []oldEvent `json:"state"`
	Data       []oldEvent `json:"account_data"`
	Messages   struct {
		Start, End string
		Chunk      []oldEvent
	} `json:"messages"`
}

type oldChunk struct {
	Start, End string
	Chunk      []oldEvent
}

func TestInitialSyncAndEvents(t *testing.T) {
	s, engine := newOldStack(t)
	s.users(alice, bob, carol)
	r := s.Create(room.CreateRoom{Creator: roomtest.As(alice), Preset: "public_chat", Public: true})
	var sent []id.EventID
	for i := range 5 {
		sent = append(sent, s.Send(r, alice, fmt.Sprint(i)))
	}
	private := s.Room(carol, roomver.Default)
	s.Membership(private, carol, alice, room.ActionInvite)
	left := s.Room(carol, roomver.Default)
	s.Membership(left, carol, alice, room.ActionInvite)
	s.Join(left, alice)
	s.Membership(left, alice, alice, room.ActionLeave)
	engine.settled(s)

	type initial struct {
		End   string
		Rooms []oldRoom
	}
	got := ok[initial](s, alice, "/v3/initialSync?limit=2")
	byRoom := map[string]oldRoom{}
	for _, x := range got.Rooms {
		byRoom[x.Room] = x
	}
	require.Len(t, byRoom, 2)
	joined := byRoom[string(r)]
	require.Equal(t, []string{"join", "public"}, []string{joined.Membership, joined.Visibility})
	require.Len(t, joined.Messages.Chunk, 2)
	require.Equal(t, string(sent[4]), joined.Messages.Chunk[1].ID)
	types := map[string]int{}
	for _, e := range joined.State {
		types[e.Type]++
		require.Equal(t, string(r), e.Room)
	}
	require.Equal(t, 1, types["m.room.create"])
	require.Equal(t, 1, types["m.room.member"])
	older := ok[oldChunk](s, alice, "/v3/rooms/"+url.PathEscape(string(r))+"/messages?dir=b&limit=1&from="+joined.Messages.Start)
	require.Equal(t, string(sent[2]), older.Chunk[0].ID, "the tokens are those of /messages")
	invited := byRoom[string(private)]
	require.Equal(t, "invite", invited.Membership)
	require.Equal(t, "invite", invited.Invite.Content["membership"])
	got = ok[initial](s, alice, "/v3/initialSync?archived=true")
	require.Len(t, got.Rooms, 3)

	// What comes later is told by /events, at once or when it comes.
	require.Empty(t, ok[oldChunk](s, alice, "/v3/events?from="+got.End).Chunk)
	next := s.Send(r, alice, "next")
	engine.settled(s)
	news := ok[oldChunk](s, alice, "/v3/events?timeout=20000&from="+got.End)
	require.Len(t, news.Chunk, 1)
	require.Equal(t, []string{string(next), string(r)}, []string{news.Chunk[0].ID, news.Chunk[0].Room})
	require.Equal(t, got.End, news.Start)
	require.Empty(t, ok[oldChunk](s, alice, "/v3/events?from="+news.End).Chunk)
	for i := range 12 {
		s.Send(r, alice, fmt.Sprint("more ", i))
	}
	engine.settled(s)
	require.Len(t, ok[oldChunk](s, alice, "/v3/events?from="+news.End).Chunk, 12, "nothing is left out, for nothing would say so")
	now := ok[oldChunk](s, alice, "/v3/events")
	require.Empty(t, now.Chunk, "from now on")
	require.NotEmpty(t, now.End)
	one := "/v3/events?room_id=" + url.QueryEscape(string(r))
	require.Len(t, ok[oldChunk](s, alice, one+"&from="+got.End).Chunk, 13)
	s.refused(bob, one, http.StatusForbidden, "M_FORBIDDEN")
	s.refused(alice, "/v3/events?room_id=no", http.StatusBadRequest, "M_INVALID_PARAM")
	s.refused(alice, "/v3/events?from=no", http.StatusBadRequest, "M_INVALID_PARAM")
	s.refused(alice, "/v3/initialSync?limit=many", http.StatusBadRequest, "M_INVALID_PARAM")
	s.refused(alice, "/v3/initialSync?archived=perhaps", http.StatusBadRequest, "M_INVALID_PARAM")
	for _, path := range []string{"/v3/events", "/v3/initialSync", "/v3/events/$x", "/v3/rooms/!x/initialSync"} {
		s.refused("", path, http.StatusUnauthorized, "M_MISSING_TOKEN")
	}
}

func TestOldRoomAndEvent(t *testing.T) {
	s, _ := newOldStack(t)
	s.users(alice, bob)
	r := s.Room(alice, roomver.Default)
	_, err := s.front.Do(s.Ctx(), &account.SetAccountData{UserID: string(alice), RoomID: string(r), Type: "m.tag", Content: []byte(`{"x":1}`)})
	require.NoError(t, err)
	var sent id.EventID
	for i := range 12 {
		sent = s.Send(r, alice, fmt.Sprint(i))
	}
	path := "/v3/rooms/" + url.PathEscape(string(r)) + "/initialSync"
	got := ok[oldRoom](s, alice, path)
	require.Equal(t, []string{string(r), "join", "private"}, []string{got.Room, got.Membership, got.Visibility})
	require.Len(t, got.Messages.Chunk, 10)
	require.Equal(t, string(sent), got.Messages.Chunk[9].ID)
	require.NotEmpty(t, got.State)
	require.NotEqual(t, got.Messages.Start, got.Messages.End)
	require.Equal(t, []oldEvent{{Type: "m.tag", Content: map[string]any{"x": 1.0}}}, got.Data)
	s.refused(bob, path, http.StatusForbidden, "M_FORBIDDEN")
	s.refused(bob, "/v3/rooms/!no:heddle.test/initialSync", http.StatusForbidden, "M_FORBIDDEN")
	s.refused(bob, "/v3/rooms/no/initialSync", http.StatusBadRequest, "M_INVALID_PARAM")

	event := "/v3/events/" + url.PathEscape(string(sent))
	one := ok[oldEvent](s, alice, event)
	require.Equal(t, []string{string(sent), string(r)}, []string{one.ID, one.Room})
	s.refused(bob, event, http.StatusNotFound, "M_NOT_FOUND")
	s.refused(alice, "/v3/events/$no", http.StatusNotFound, "M_NOT_FOUND")
	_, body, _ := s.get(alice, event)
	require.True(t, json.Valid(body))

	// Who has left has the room as it was then; who only peeks is told so.
	open := s.Create(room.CreateRoom{Creator: roomtest.As(alice), Preset: "public_chat"})
	s.State(open, alice, "m.room.history_visibility", "", `{"history_visibility":"world_readable"}`)
	peeked := ok[oldRoom](s, bob, "/v3/rooms/"+url.PathEscape(string(open))+"/initialSync")
	require.Empty(t, peeked.Membership)
	require.NotEmpty(t, peeked.State)
	s.Join(open, bob)
	s.Membership(open, bob, bob, room.ActionLeave)
	require.Equal(t, "leave", ok[oldRoom](s, bob, "/v3/rooms/"+url.PathEscape(string(open))+"/initialSync").Membership)
}
