package profile_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/profile"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/service/roomwalk"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

const (
	alice = id.UserID("@alice:heddle.test")
	bob   = id.UserID("@bob:heddle.test")
)

// set is one call of SetProfile.
type set struct {
	room                   id.RoomID
	user                   id.UserID
	displayName, avatarURL string
}

// world is a master with a user in some rooms, and a consumer of its log.
type world struct {
	*roomtest.World
	front *account.Front
	calls chan set
	fail  func(ctx context.Context, s set) error // nil: nothing fails
}

func newWorld(t *testing.T) *world {
	w := &world{World: roomtest.New(t), calls: make(chan set, 1000)}
	w.front = w.Accounts(account.Config{})
	for _, u := range []id.UserID{alice, bob} {
		w.Register(w.front, u)
	}
	w.Exec(`INSERT INTO role_lease (role, slot, epoch, holder) VALUES ('background', 0, 1, 'm')`)
	return w
}

func (w *world) set(ctx context.Context, r id.RoomID, u id.UserID, name, avatar string) error {
	s := set{r, u, name, avatar}
	if w.fail != nil {
		if err := w.fail(ctx, s); err != nil {
			return err
		}
	}
	_, err := w.Host.Do(ctx, nil, &room.SetProfile{Room: r, User: u, Profile: room.Profile{DisplayName: name, AvatarURL: avatar}})
	w.calls <- s
	return err
}

func (w *world) spreader(cfg roomwalk.Config) *profile.Spreader {
	return profile.New(account.NewReader(w.Shards, accountdb.NewReader(w.DB.Pool)), roomwalk.New(cfg, w.Reader, nil, nil), w.set)
}

// consume starts the consumer as a master does; stop it with what is returned.
func (w *world) consume() (stop func()) {
	d := follow.NewDurable(follow.Config{Poll: 20 * time.Millisecond}, follow.DurableOptions{
		Name: profile.Consumer, Role: follow.Role{Name: "background", Epoch: 1}, Cursors: w.Log(), Source: w.Log(),
		Consumer: w.spreader(roomwalk.Config{Retry: time.Millisecond}), Filter: profile.Filter,
	})
	require.NoError(w.T, d.Start(w.Ctx()))
	stop = sync.OnceFunc(func() { require.NoError(w.T, d.Stop(w.Ctx())) })
	w.T.Cleanup(stop)
	return stop
}

func (w *world) change(u id.UserID, field, value string) {
	w.T.Helper()
	raw, err := json.Marshal(value)
	require.NoError(w.T, err)
	_, err = w.front.Do(w.Ctx(), &account.SetProfile{UserID: string(u), Field: field, Value: raw})
	require.NoError(w.T, err)
}

// carried waits for that many calls and gives their rooms, sorted.
func (w *world) carried(n int) []id.RoomID {
	w.T.Helper()
	var rooms []id.RoomID
	for range n {
		select {
		case s := <-w.calls:
			rooms = append(rooms, s.room)
		case <-w.Ctx().Done():
			w.T.Fatal("not carried to the rooms")
		}
	}
	slices.Sort(rooms)
	return rooms
}

// settle waits until the consumer's place is the end of the log.
func (w *world) settle() {
	w.T.Helper()
	require.Eventually(w.T, func() bool {
		heads, err := w.Log().Heads(w.Ctx())
		require.NoError(w.T, err)
		at, err := w.Log().LoadCursor(w.Ctx(), profile.Consumer)
		require.NoError(w.T, err)
		return at.Positions.AtLeast(heads.Positions)
	}, time.Minute, 10*time.Millisecond)
}

// shown gives what a room's member event says of a user.
func (w *world) shown(r id.RoomID, u id.UserID) string {
	w.T.Helper()
	ref, ok, err := w.Reader.Room(w.Ctx(), w.Shards.Of(string(r)), string(r))
	require.NoError(w.T, err)
	require.True(w.T, ok)
	name := roomdb.StateName{Type: "m.room.member", StateKey: string(u)}
	at, err := w.Reader.CurrentStateAt(w.Ctx(), ref.Nid, []roomdb.StateName{name})
	require.NoError(w.T, err)
	var e struct {
		Content struct {
			Membership  string `json:"membership"`
			DisplayName string `json:"displayname"`
			AvatarURL   string `json:"avatar_url"`
		} `json:"content"`
	}
	require.NoError(w.T, json.Unmarshal(at[name].JSON, &e))
	return e.Content.Membership + " " + e.Content.DisplayName + " " + e.Content.AvatarURL
}

func TestChangesReachTheRooms(t *testing.T) {
	w := newWorld(t)
	rooms := []id.RoomID{w.Room(alice, "12"), w.Room(alice, "11"), w.Room(bob, "10")}
	w.Join(rooms[2], alice)
	left, invited := w.Room(bob, "11"), w.Room(bob, "11")
	w.Join(left, alice)
	w.Membership(left, alice, alice, room.ActionLeave)
	w.Membership(invited, bob, alice, room.ActionInvite)
	w.Join(rooms[0], bob)
	slices.Sort(rooms)

	// What was changed while nobody listened is heard afterwards, but not what is no concern of rooms.
	stop := w.consume()
	w.settle() // the accounts got their first names
	stop()
	w.carried(len(w.calls))
	w.change(alice, "displayname", "Alice")
	w.change(alice, "com.example", "x")
	stop = w.consume()
	require.Equal(t, rooms, w.carried(3))
	w.change(alice, "avatar_url", "mxc://heddle.test/a")
	require.Equal(t, rooms, w.carried(3))
	for _, r := range rooms {
		require.Equal(t, "join Alice mxc://heddle.test/a", w.shown(r, alice))
	}
	require.Equal(t, "leave  ", w.shown(left, alice))
	require.Equal(t, "invite  ", w.shown(invited, alice))
	w.settle()
	stop()

	_, err := w.front.Do(w.Ctx(), &account.SetProfile{UserID: string(alice), Field: "avatar_url"})
	require.NoError(t, err)
	w.consume()
	require.Equal(t, rooms, w.carried(3))
	require.Equal(t, "join Alice ", w.shown(rooms[0], alice))
	w.settle()
	require.Empty(t, w.calls, "nothing was carried twice, and nobody else's")
}

// A worker that ends in the middle leaves the rest to the next.
func TestGoesOnWhereAnotherEnded(t *testing.T) {
	w := newWorld(t)
	var rooms []id.RoomID
	for range 20 {
		rooms = append(rooms, w.Room(alice, "11"))
	}
	stop := w.consume()
	w.settle()
	stop()
	stuck := make(chan struct{}, len(rooms))
	w.fail = func(ctx context.Context, s set) error {
		if s.room == rooms[10] {
			stuck <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}
	stop = w.consume()
	w.change(alice, "displayname", "Alice")
	<-stuck
	stop()
	w.fail = nil
	w.consume()
	w.settle()
	for _, r := range rooms {
		require.Equal(t, "join Alice ", w.shown(r, alice))
	}
	var events int
	require.NoError(t, w.DB.Pool.QueryRow(w.Ctx(),
		`SELECT count(*) FROM event e JOIN atom a ON a.nid = e.type WHERE a.name = 'm.room.member'`).Scan(&events))
	require.Equal(t, 3*len(rooms), events, "one event a room and change")
}

func (w *world) batch(users ...id.UserID) follow.Batch {
	var b follow.Batch
	for i, u := range users {
		e, err := entry.Profile(string(u), &entry.ProfileBody{Field: "displayname"})
		require.NoError(w.T, err)
		b.Last = shard.Pos(i + 1)
		b.Entries = append(b.Entries, entry.At{Pos: b.Last, Entry: e})
	}
	return b
}

func TestFailures(t *testing.T) {
	w := newWorld(t)
	good, flaky, refusing, broken := w.Room(alice, "11"), w.Room(alice, "11"), w.Room(alice, "11"), w.Room(alice, "11")
	w.change(alice, "displayname", "Alice")
	var mu sync.Mutex
	tries := map[id.RoomID]int{}
	w.fail = func(_ context.Context, s set) error {
		mu.Lock()
		defer mu.Unlock()
		tries[s.room]++
		switch {
		case s.room == flaky && tries[flaky] < 3:
			return mxerr.Unavailable("the writer moves", 10)
		case s.room == refusing:
			return mxerr.New(mxerr.Forbidden, "no")
		case s.room == broken:
			return errors.New("broken")
		}
		return nil
	}
	require.NoError(t, w.spreader(roomwalk.Config{Retry: time.Millisecond, GiveUp: 50 * time.Millisecond}).Apply(t.Context(), w.batch(alice)))
	require.Equal(t, "join Alice ", w.shown(good, alice))
	require.Equal(t, "join Alice ", w.shown(flaky, alice))
	require.Equal(t, 1, tries[good])
	require.Equal(t, 3, tries[flaky])
	require.Equal(t, 1, tries[refusing], "a refusal is final")
	require.Greater(t, tries[broken], 3)

	t.Run("never given up while stopped", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		w.fail = func(context.Context, set) error { cancel(); return errors.New("broken") }
		err := w.spreader(roomwalk.Config{Retry: time.Hour}).Apply(ctx, w.batch(alice))
		require.ErrorIs(t, err, context.Canceled, "so that its place stays")
	})
	t.Run("the database is away", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.Error(t, w.spreader(roomwalk.Config{}).Apply(ctx, w.batch(alice)))
	})
}

func TestBounds(t *testing.T) {
	w := newWorld(t)
	for i := range 12 {
		w.Create(room.CreateRoom{Creator: roomtest.As(alice), Name: fmt.Sprint(i)})
	}
	var (
		mu        sync.Mutex
		now, most int
	)
	gate := make(chan struct{})
	open := sync.OnceFunc(func() { close(gate) })
	w.fail = func(context.Context, set) error {
		mu.Lock()
		if now++; now == 3 {
			open() // three at once there are; more must not come
		}
		most = max(most, now)
		mu.Unlock()
		<-gate
		mu.Lock()
		now--
		mu.Unlock()
		return nil
	}
	require.NoError(t, w.spreader(roomwalk.Config{Parallel: 3, PerSecond: 1e6}).Apply(t.Context(), w.batch(alice, alice, alice)))
	require.Equal(t, 3, most)
	require.Len(t, w.calls, 12, "once a room, however many changes came together")
}
