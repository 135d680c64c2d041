package msync_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/infra/cache"
	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/matrix/filter"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/e2ee"
	"github.com/heddle-im/heddle/pkg/service/msync"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/shardlog/token"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
	"github.com/heddle-im/heddle/pkg/store/e2eedb"
	"github.com/heddle-im/heddle/pkg/store/pushdb"
	"github.com/heddle-im/heddle/pkg/store/readdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// received has what was received removed by the world's master.
type received struct{ w *roomtest.World }

func (r received) Acknowledge(ctx context.Context, list []msync.Received) error {
	front, _ := r.w.E2EE()
	var out []e2ee.Received
	for _, x := range list {
		out = append(out, e2ee.Received{UserID: x.User, DeviceID: x.Device, Upto: int64(x.Upto)})
	}
	return front.Acknowledge(ctx, out)
}

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

// worker is one synchrotron: an engine with a follower of its own.
type worker struct {
	*msync.Engine
	follower *follow.Follower
	index    *follow.Index
	source   follow.Source
}

func (w *worker) Heads(ctx context.Context) (shard.Heads, error) { return w.index.Heads(ctx) }
func (w *worker) Reach(ctx context.Context, h shard.Heads) error { return w.follower.Reach(ctx, h) }

func (w *worker) History(ctx context.Context) (shard.History, error) { return w.source.History(ctx) }

// start starts a synchrotron on a world. Without a stream it hears the log by polling, many times a second.
func start(t testing.TB, w *roomtest.World, memory int64) *worker {
	t.Helper()
	return startKeeping(t, w, memory, nil)
}

// startKeeping is start with a store for the connections of sliding sync.
func startKeeping(t testing.TB, w *roomtest.World, memory int64, connections msync.ConnectionStore) *worker {
	t.Helper()
	return startWith(t, w, memory, func(o *msync.Options) { o.Connections = connections })
}

// startWith is start with other options.
func startWith(t testing.TB, w *roomtest.World, memory int64, change func(*msync.Options)) *worker {
	t.Helper()
	x := &worker{source: w.Log()}
	x.index = follow.NewIndex(x.source)
	o := msync.Options{
		Shards: w.Shards, Rooms: readdb.NewReader(roomdb.NewReader(w.DB.Pool), w.Shards), Accounts: accountdb.NewReader(w.DB.Pool),
		Push: pushdb.NewReader(w.DB.Pool),
		Keys: e2eedb.NewReader(w.DB.Pool), Acks: received{w},
		Budget: cache.NewBudget(cache.BudgetConfig{Memory: memory}, nil), Now: time.Now,
	}
	change(&o)
	x.Engine = msync.New(context.Background(), o, x)
	x.follower = follow.New(follow.Config{Poll: 5 * time.Millisecond, Grace: time.Millisecond}, follow.Options{
		Source: x.source, Consumer: x.Engine, Filter: x.Wants,
	})
	require.NoError(t, x.follower.Start(w.Ctx()))
	require.NoError(t, x.Start(w.Ctx()))
	t.Cleanup(func() {
		require.NoError(t, x.Stop(w.Ctx()))
		require.NoError(t, x.follower.Stop(w.Ctx()))
		x.index.Stop()
	})
	return x
}

// settled waits until the worker has heard everything that is committed.
func (w *worker) settled(t testing.TB, world *roomtest.World) {
	t.Helper()
	h, err := w.index.Heads(world.Ctx())
	require.NoError(t, err)
	require.NoError(t, w.follower.Reach(world.Ctx(), h))
}

type shownEvent struct {
	ID       string          `json:"event_id"`
	Type     string          `json:"type"`
	Sender   string          `json:"sender"`
	StateKey *string         `json:"state_key"`
	Content  json.RawMessage `json:"content"`
	Unsigned struct {
		Txn string `json:"transaction_id"`
	} `json:"unsigned"`
}

type events struct {
	Events []shownEvent `json:"events"`
}

type joined struct {
	Timeline struct {
		events
		Limited bool   `json:"limited"`
		Prev    string `json:"prev_batch"`
	} `json:"timeline"`
	State      events `json:"state"`
	StateAfter events `json:"state_after"`
	Ephemeral  events `json:"ephemeral"`
	Summary    struct {
		Joined int       `json:"m.joined_member_count"`
		Heroes *[]string `json:"m.heroes"`
	} `json:"summary"`
}

type answer struct {
	Next  string `json:"next_batch"`
	Rooms struct {
		Join   map[string]joined `json:"join"`
		Invite map[string]struct {
			State events `json:"invite_state"`
		} `json:"invite"`
		Leave map[string]joined `json:"leave"`
	} `json:"rooms"`
	AccountData events `json:"account_data"`
}

func (w *worker) sync(t testing.TB, q msync.Request) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	b, err := w.Sync(ctx, q)
	require.NoError(t, err)
	var a answer
	require.NoError(t, json.Unmarshal(b, &a), "%s", b)
	return a
}

func TestConversation(t *testing.T) {
	w := roomtest.New(t)
	s := start(t, w, 256<<20)
	alice, bob := roomtest.User("alice"), roomtest.User("bob")
	b0 := s.sync(t, msync.Request{User: bob})
	require.Empty(t, b0.Rooms.Join)

	r := w.Create(room.CreateRoom{Creator: roomtest.As(alice), Invite: []room.Invitation{{User: bob}}})
	b1 := s.sync(t, msync.Request{User: bob, Since: b0.Next, Timeout: 10 * time.Second})
	require.Contains(t, b1.Rooms.Invite, string(r))
	state := b1.Rooms.Invite[string(r)].State.Events
	require.Equal(t, "m.room.member", state[len(state)-1].Type)

	w.Join(r, bob)
	b2 := s.sync(t, msync.Request{User: bob, Since: b1.Next, Timeout: 10 * time.Second})
	got := b2.Rooms.Join[string(r)]
	require.Equal(t, 2, got.Summary.Joined)
	require.Equal(t, "m.room.create", got.Timeline.Events[0].Type)
	require.Empty(t, got.State.Events, "the timeline begins with the room")
	require.False(t, got.Timeline.Limited, "all that there is was told")
	s.settled(t, w)

	// From here on both are served from memory: a message is told without a query.
	a0 := s.sync(t, msync.Request{User: alice, Device: "DEVICE"})
	type told struct {
		answer
		statements int64
	}
	done := make(chan told, 1)
	go func() {
		ctx, tally := pg.WithTally(context.Background())
		body, err := s.Sync(ctx, msync.Request{User: bob, Since: b2.Next, Timeout: 20 * time.Second})
		var a answer
		if err == nil {
			err = json.Unmarshal(body, &a)
		}
		if err != nil {
			t.Error(err)
		}
		done <- told{a, tally.Count()}
	}()
	event := w.Do(&room.Send{Room: r, By: room.Origin{User: alice, Device: "DEVICE", Txn: "t1"}, Type: "m.room.message", Content: roomtest.Message("hi")}).Event
	b3 := <-done
	require.Equal(t, string(event), b3.Rooms.Join[string(r)].Timeline.Events[0].ID)
	require.Empty(t, b3.Rooms.Join[string(r)].Timeline.Events[0].Unsigned.Txn, "the transaction is the sender's device's alone")
	require.Zero(t, b3.statements, "an incremental sync within the window makes no query")

	a1 := s.sync(t, msync.Request{User: alice, Device: "DEVICE", Since: a0.Next, Timeout: 10 * time.Second})
	require.Equal(t, "t1", a1.Rooms.Join[string(r)].Timeline.Events[0].Unsigned.Txn)

	// The same since is answered the same.
	again := s.sync(t, msync.Request{User: bob, Since: b2.Next})
	require.Equal(t, b3.Rooms.Join[string(r)].Timeline.Events[0].ID, again.Rooms.Join[string(r)].Timeline.Events[0].ID)

	w.Membership(r, alice, bob, room.ActionKick)
	b4 := s.sync(t, msync.Request{User: bob, Since: b3.Next, Timeout: 10 * time.Second})
	left := b4.Rooms.Leave[string(r)].Timeline.Events
	require.Equal(t, "m.room.member", left[len(left)-1].Type)
	w.Send(r, alice, "behind your back")
	s.settled(t, w)
	require.Empty(t, s.sync(t, msync.Request{User: bob, Since: b4.Next}).Rooms.Leave)
}

func TestDeclinedInvitation(t *testing.T) {
	w := roomtest.New(t)
	s := start(t, w, 256<<20)
	alice, bob := roomtest.User("alice"), roomtest.User("bob")
	r := w.Create(room.CreateRoom{Creator: roomtest.As(alice), Invite: []room.Invitation{{User: bob}}})
	b0 := s.sync(t, msync.Request{User: bob})
	require.Contains(t, b0.Rooms.Invite, string(r))
	w.Membership(r, bob, bob, room.ActionLeave)
	b1 := s.sync(t, msync.Request{User: bob, Since: b0.Next, Timeout: 10 * time.Second})
	left := b1.Rooms.Leave[string(r)]
	require.Len(t, left.Timeline.Events, 1, "nothing of the room but the going")
	require.Equal(t, "m.room.member", left.Timeline.Events[0].Type)
	require.Empty(t, left.State.Events)
}

func TestForgottenRoomsAreToldAsLeft(t *testing.T) {
	w := roomtest.New(t)
	s := start(t, w, 256<<20)
	alice, bob := roomtest.User("alice"), roomtest.User("bob")
	r := w.Room(alice, roomver.Default)
	w.Join(r, bob)
	before := s.sync(t, msync.Request{User: bob})
	require.Contains(t, before.Rooms.Join, string(r))
	w.Membership(r, bob, bob, room.ActionLeave)
	w.Do(&room.Forget{Room: r, User: bob})
	s.settled(t, w)
	after := s.sync(t, msync.Request{User: bob, Since: before.Next, Timeout: 10 * time.Second})
	require.Contains(t, after.Rooms.Leave, string(r), "a device that held the room as joined is told")
	require.Empty(t, after.Rooms.Leave[string(r)].State.Events)
	for _, q := range []msync.Request{{}, {StateAfter: true}, {StateAfterUnstable: true}} {
		q.User, q.Since = bob, before.Next
		b, err := s.Sync(t.Context(), q)
		require.NoError(t, err)
		for name, want := range map[string]bool{
			"state": !q.StateAfter && !q.StateAfterUnstable, "state_after": q.StateAfter, "org.matrix.msc4222.state_after": q.StateAfterUnstable,
		} {
			require.Equal(t, want, bytes.Contains(b, []byte(`"`+name+`":{"events":[]}`)), "%s of %s", name, b)
		}
	}
	include := filter.Filter{Room: filter.RoomFilter{IncludeLeave: true}}
	require.NotContains(t, s.sync(t, msync.Request{User: bob, Filter: &include}).Rooms.Leave, string(r))
	again := s.sync(t, msync.Request{User: bob, Since: after.Next})
	require.NotContains(t, again.Rooms.Leave, string(r))
}

func TestBadTokens(t *testing.T) {
	w := roomtest.New(t)
	s := start(t, w, 256<<20)
	for _, bad := range []string{"x", "s72594_4483_1934", "IRIA", "!!!"} {
		_, err := s.Sync(t.Context(), msync.Request{User: roomtest.User("alice"), Since: bad})
		require.True(t, mxerr.Is(err, mxerr.InvalidParam), "%s: %v", bad, err)
	}
}

func TestWaitingEndsWithTheWorker(t *testing.T) {
	w := roomtest.New(t)
	s := start(t, w, 256<<20)
	a0 := s.sync(t, msync.Request{User: roomtest.User("alice")})
	done := make(chan answer, 1)
	go func() {
		done <- s.sync(t, msync.Request{User: roomtest.User("alice"), Since: a0.Next, Timeout: time.Minute})
	}()
	s.Drain()
	require.Equal(t, a0.Next, (<-done).Next, "its token is as far as the client was")
}

// The log can go over to another incarnation without anything that was heard being undone: tokens say so from then on. With the old
// number and new positions they would be taken for tokens of what was undone, and answered with everything anew.
func TestTokensFollowTheIncarnation(t *testing.T) {
	w := roomtest.New(t)
	s := start(t, w, 256<<20)
	alice := roomtest.User("alice")
	w.Create(room.CreateRoom{Creator: roomtest.As(alice)})
	s.settled(t, w)
	at := s.follower.Positions()
	require.NoError(t, s.Apply(w.Ctx(), follow.Batch{
		Incarnation: at.Incarnation + 1, Shard: 0, Prev: at.Positions[0], Last: at.Positions[0],
	}))
	u, err := token.DecodeSync(s.sync(t, msync.Request{User: alice}).Next, w.Shards.Count())
	require.NoError(t, err)
	require.Equal(t, at.Incarnation+1, u.Incarnation)
}

// A worker that began before anything was ever written gives tokens of the incarnation that the first writer opened, which any
// other worker understands.
func TestTokensOfAWorkerThatCameFirst(t *testing.T) {
	w := roomtest.New(t)
	early := start(t, w, 256<<20)
	alice := roomtest.User("alice")
	r := w.Room(alice, "12")
	first := early.sync(t, msync.Request{User: alice})
	require.Contains(t, first.Rooms.Join, string(r))
	early.settled(t, w)
	later := start(t, w, 256<<20)
	token := early.sync(t, msync.Request{User: alice, Since: first.Next}).Next
	require.Empty(t, later.sync(t, msync.Request{User: alice, Since: token}).Rooms.Join, "nothing is told again")
}
