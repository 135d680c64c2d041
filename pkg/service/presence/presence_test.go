package presence_test

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/heddle-im/heddle/pkg/service/presence"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	alice = "@alice:heddle.test"
	bob   = "@bob:heddle.test"
)

// world is a fleet of synchrotrons with what they share. Time is that of a synctest bubble.
type world struct {
	t       *testing.T
	mu      sync.Mutex
	kept    map[string][]byte
	rooms   map[string][]shard.Nid
	workers []*worker
}

// worker is one synchrotron.
type worker struct {
	*presence.Hub
	*presence.Announcer
	w     *world
	inbox chan []byte
	quit  chan struct{}
	done  chan struct{}
	lost  bool // the bus does not reach it

	mu     sync.Mutex
	wakes  int
	served map[string]bool // whose rooms are in memory
}

func newWorld(t *testing.T) *world {
	return &world{t: t, kept: map[string][]byte{}, rooms: map[string][]shard.Nid{}}
}

func (w *world) Get(_ context.Context, key string) ([]byte, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	v, ok := w.kept[key]
	return v, ok, nil
}

func (w *world) Set(_ context.Context, key string, value []byte, _ time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept[key] = value
	return nil
}

func (w *world) roomsOf(user string) []shard.Nid {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.rooms[user])
}

func (w *world) put(user string, rooms ...shard.Nid) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rooms[user] = rooms
}

// start starts a worker; it is stopped at the end of the test, unless kill did.
func (w *world) start(name string, change ...func(*presence.Options)) *worker {
	x := &worker{w: w, inbox: make(chan []byte, 1000), quit: make(chan struct{}), done: make(chan struct{}), served: map[string]bool{}}
	o := presence.Options{Origin: name, Store: w, Now: time.Now}
	for _, c := range change {
		c(&o)
	}
	x.Hub = presence.New(o)
	x.Announcer = presence.NewAnnouncer(context.Background(), x.Hub, x,
		func(_ context.Context, user string) ([]shard.Nid, error) { return w.roomsOf(user), nil },
		func(data []byte) error {
			for _, to := range w.workers {
				if !to.lost && !x.lost {
					to.inbox <- data
				}
			}
			return nil
		})
	w.workers = append(w.workers, x)
	go func() {
		defer close(x.done)
		for {
			select {
			case data := <-x.inbox:
				x.Hear(data)
			case <-x.quit:
				return
			}
		}
	}()
	require.NoError(w.t, x.Start(w.t.Context()))
	return x
}

// kill ends a worker without a word.
func (w *world) kill(x *worker) {
	w.workers = slices.DeleteFunc(w.workers, func(o *worker) bool { return o == x })
	require.NoError(w.t, x.Stop(context.Background()))
	close(x.quit)
	<-x.done
}

func (w *world) end() {
	for len(w.workers) > 0 {
		w.kill(w.workers[0])
	}
}

func (x *worker) RoomsOf(user string) ([]shard.Nid, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.served[user] {
		return nil, false
	}
	return x.w.roomsOf(user), true
}

func (x *worker) WakeIn([]shard.Nid, string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.wakes++
}

type shown struct {
	Presence string `json:"presence"`
	Status   string `json:"status_msg"`
	Ago      *int64 `json:"last_active_ago"`
	Active   *bool  `json:"currently_active"`
}

// news gives what is new to a user, as {user: presence}, and whether it is worth an answer.
func (x *worker) news(user string, mark int64, entered ...shard.Nid) (map[string]shown, bool) {
	fresh := map[shard.Nid]bool{}
	for _, r := range entered {
		fresh[r] = true
	}
	got := map[string]shown{}
	worth := x.News(user, mark, slices.Values(x.w.roomsOf(user)), fresh, func(who string, content []byte) {
		require.NotContains(x.w.t, got, who, "no user is told twice")
		var s shown
		require.NoError(x.w.t, json.Unmarshal(content, &s), "%s", content)
		got[who] = s
	})
	return got, worth
}

func (x *worker) is(user, want string) {
	x.w.t.Helper()
	require.Equal(x.w.t, want, x.Get(context.Background(), user).Presence.String())
}

// inBubble runs a test in a bubble of its own, where time passes when all wait.
func inBubble(t *testing.T, test func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.put(alice, 1, 2)
		w.put(bob, 2, 3)
		test(t, w)
		w.end()
	})
}

func pass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // the bubble's clock, on which nothing is waited for
	synctest.Wait()
}

// Who syncs is online everywhere, is idle after a while, and offline soon after the last sync.
func TestSyncMakesOnline(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a, b := w.start("a"), w.start("b")
		synctest.Wait()
		mark := b.Mark()
		_, worth := b.news(bob, mark)
		require.False(t, worth)

		done := a.Sync(t.Context(), alice, "PHONE", presence.Online)
		pass(time.Second)
		got, worth := b.news(bob, mark)
		require.True(t, worth)
		require.Equal(t, "online", got[alice].Presence)
		require.True(t, *got[alice].Active)
		require.Equal(t, 1, b.wakes)
		a.is(alice, "online")
		b.is(alice, "online")
		stranger, _ := b.news("@carol:heddle.test", mark)
		require.Empty(t, stranger, "only who shares a room hears of it")
		mark = b.Mark()
		_, worth = b.news(bob, mark)
		require.False(t, worth, "told once")

		pass(6 * time.Minute) // the client waits in one long sync
		got, _ = b.news(bob, mark)
		require.Equal(t, "unavailable", got[alice].Presence)
		require.False(t, *got[alice].Active)
		require.InDelta(t, 6*60*1000, *got[alice].Ago, 2000)
		a.Active(alice)
		pass(time.Second)
		b.is(alice, "online")

		mark = b.Mark()
		done()
		pass(20 * time.Second)
		b.is(alice, "online")
		pass(20 * time.Second)
		got, _ = b.news(bob, mark)
		require.Equal(t, "offline", got[alice].Presence)
		require.Nil(t, got[alice].Active)
		a.is(alice, "offline")
		pass(time.Hour)
		require.Equal(t, "offline", b.Get(t.Context(), alice).Presence.String(), "from the store, when all have forgotten")
	})
}

func TestSyncAsOfflineDoesNotCount(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a := w.start("a")
		defer a.Sync(t.Context(), alice, "PHONE", presence.Offline)()
		pass(time.Minute)
		a.is(alice, "offline")
		got, _ := a.news(bob, 0)
		require.Empty(t, got)
	})
}

// The highest of the devices' presences counts.
func TestDevices(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a, b := w.start("a"), w.start("b")
		phone := a.Sync(t.Context(), alice, "PHONE", presence.Unavailable)
		laptop := a.Sync(t.Context(), alice, "LAPTOP", presence.Online)
		pass(time.Second)
		b.is(alice, "online")
		laptop()
		pass(40 * time.Second)
		b.is(alice, "unavailable")
		phone()
		pass(40 * time.Second)
		b.is(alice, "offline")
	})
}

// What a user sets holds on all devices, with its message, and is told to the user's own devices too.
func TestSet(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a, b := w.start("a"), w.start("b")
		defer b.Sync(t.Context(), alice, "LAPTOP", presence.Online)()
		pass(time.Second)
		mark := b.Mark()
		a.Set(t.Context(), alice, "PHONE", presence.Unavailable, "at lunch")
		pass(time.Second)
		for _, x := range []*worker{a, b} {
			s := x.Get(t.Context(), alice)
			require.Equal(t, "unavailable", s.Presence.String())
			require.Equal(t, "at lunch", s.Message)
		}
		got, worth := b.news(alice, mark)
		require.True(t, worth)
		require.Equal(t, "at lunch", got[alice].Status)
		got, _ = b.news(bob, mark)
		require.Equal(t, "unavailable", got[alice].Presence)

		pass(time.Hour)
		c := w.start("c")
		done := c.Sync(t.Context(), alice, "PHONE", presence.Online)
		pass(time.Second)
		require.Equal(t, "at lunch", c.Get(t.Context(), alice).Message, "the message outlives the sync")
		done()
	})
}

// A worker that begins asks the others; one that is killed leaves nobody online for ever.
func TestWorkersComeAndGo(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a := w.start("a")
		a.Sync(t.Context(), alice, "PHONE", presence.Online)
		pass(time.Second)
		b := w.start("b")
		pass(time.Second)
		got, _ := b.news(bob, 0)
		require.Equal(t, "online", got[alice].Presence)
		w.kill(a)
		pass(4 * time.Minute)
		b.is(alice, "online")
		mark := b.Mark()
		pass(15 * time.Minute)
		got, worth := b.news(bob, mark)
		require.True(t, worth)
		require.Equal(t, "offline", got[alice].Presence)
	})
}

// A state that was never heard is asked for when it is said again.
func TestLostMessages(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a, b := w.start("a"), w.start("b")
		pass(time.Second)
		b.lost = true
		defer a.Sync(t.Context(), alice, "PHONE", presence.Unavailable)()
		pass(time.Second)
		b.lost = false
		got, _ := b.news(bob, 0)
		require.Empty(t, got)
		pass(6 * time.Minute)
		got, _ = b.news(bob, 0)
		require.Equal(t, "unavailable", got[alice].Presence)
	})
}

// A client whose syncs go to two workers in turn is not answered again and again with the same.
func TestMarksOfAnotherWorker(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a, b := w.start("a"), w.start("b")
		defer a.Sync(t.Context(), alice, "PHONE", presence.Online)()
		pass(time.Second)
		got, worth := b.news(bob, a.Mark())
		require.False(t, worth)
		require.Contains(t, got, alice, "a doubtful one is told with what else is told")
		pass(time.Minute)
		mark := a.Mark()
		defer b.Sync(t.Context(), "@dan:heddle.test", "X", presence.Online)()
		w.put("@dan:heddle.test", 3)
		pass(time.Second)
		got, worth = b.news(bob, mark)
		require.True(t, worth)
		require.Contains(t, got, "@dan:heddle.test")
		_, worth = a.news(bob, b.Mark())
		require.False(t, worth)
	})
}

// Who comes into a room hears of those in it, and they of the newcomer.
func TestEntering(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a := w.start("a")
		const carol = "@carol:heddle.test"
		w.put(carol, 9)
		defer a.Sync(t.Context(), alice, "PHONE", presence.Online)()
		defer a.Sync(t.Context(), carol, "PHONE", presence.Online)()
		pass(time.Second)
		mark := a.Mark()
		got, _ := a.news(carol, mark)
		require.Empty(t, got)
		w.put(carol, 1, 9)
		a.Moved(carol)
		pass(time.Second)
		got, worth := a.news(carol, mark, 1)
		require.True(t, worth)
		require.Contains(t, got, alice)
		got, worth = a.news(alice, mark)
		require.True(t, worth)
		require.Contains(t, got, carol)
	})
}

func TestDisabled(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a := w.start("a", func(o *presence.Options) { o.Disabled = true })
		defer a.Sync(t.Context(), alice, "PHONE", presence.Online)()
		a.Set(t.Context(), alice, "PHONE", presence.Online, "here")
		pass(time.Minute)
		got, worth := a.news(bob, 0)
		require.Empty(t, got)
		require.False(t, worth)
		a.is(alice, "offline")
	})
}

func TestParse(t *testing.T) {
	for _, p := range []presence.Presence{presence.Offline, presence.Unavailable, presence.Online} {
		got, ok := presence.Parse(p.String())
		require.True(t, ok)
		require.Equal(t, p, got)
	}
	_, ok := presence.Parse("busy")
	require.False(t, ok)
}
