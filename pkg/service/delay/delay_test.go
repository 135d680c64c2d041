package delay_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/api/write"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/delay"
	"github.com/heddle-im/heddle/pkg/store/delaydb"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

// world is what engines share: the store, the time, and a room that takes what they send.
type world struct {
	t   *testing.T
	db  *delaydb.DB
	now atomic.Int64

	mu   sync.Mutex
	sent []string // the types, as they came
	err  error    // what the room says
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, db: delaydb.NewDB(pgtest.New(t).Pool)}
	w.now.Store(1_000_000)
	return w
}

func (w *world) send(_ context.Context, _ []byte, e *delaydb.Event) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	w.sent = append(w.sent, e.Type)
	return nil
}

func (w *world) got() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string{}, w.sent...)
}

func (w *world) says(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
}

func (w *world) engine(cfg delay.Config) *delay.Engine {
	cfg.Poll = 5 * time.Millisecond
	return delay.New(cfg, delay.Options{Store: w.db, Send: w.send, Now: func() time.Time { return time.UnixMilli(w.now.Load()) }})
}

func (w *world) start(cfg delay.Config) *delay.Engine {
	e := w.engine(cfg)
	require.NoError(w.t, e.Start(w.t.Context()))
	w.t.Cleanup(func() { require.NoError(w.t, e.Stop(context.Background())) })
	return e
}

func (w *world) schedule(e *delay.Engine, typ string, after time.Duration) string {
	w.t.Helper()
	delayID, err := e.Schedule(w.t.Context(), delaydb.Event{
		User: "@a:x", Device: "D", Room: "!r:x", Type: typ, Content: []byte(`{}`), Delay: after.Milliseconds(),
	})
	require.NoError(w.t, err)
	return delayID
}

func (w *world) eventually(want ...string) {
	w.t.Helper()
	require.Eventually(w.t, func() bool { return len(w.got()) >= len(want) }, 20*time.Second, time.Millisecond)
	require.Equal(w.t, want, w.got())
}

func (w *world) waiting() int {
	w.t.Helper()
	list, err := w.db.Waiting(w.t.Context(), "@a:x")
	require.NoError(w.t, err)
	return len(list)
}

func code(t *testing.T, err error) mxerr.Code {
	t.Helper()
	var m *mxerr.Error
	require.ErrorAs(t, err, &m)
	return m.Code
}

// What is due is sent, in the order of the times, and nothing before.
func TestInOrder(t *testing.T) {
	w := newWorld(t)
	e := w.engine(delay.Config{})
	w.schedule(e, "c", 3*time.Second)
	w.schedule(e, "a", time.Second)
	w.schedule(e, "b", 2*time.Second)
	w.schedule(e, "d", time.Hour)
	w.now.Add(3000)
	w.start(delay.Config{})
	w.eventually("a", "b", "c")
	require.Equal(t, 1, w.waiting())
}

// However many engines there are, each event is sent once.
func TestEachIsSentOnce(t *testing.T) {
	w := newWorld(t)
	engines := []*delay.Engine{w.start(delay.Config{}), w.start(delay.Config{}), w.start(delay.Config{})}
	var want []string
	for i := range 60 {
		typ := fmt.Sprintf("e%02d", i)
		want = append(want, typ)
		w.schedule(engines[i%3], typ, time.Duration(i+1)*time.Second)
	}
	w.schedule(engines[0], "late", time.Hour)
	require.Empty(t, w.got())
	w.now.Add((30 * time.Second).Milliseconds())
	require.Eventually(t, func() bool { return w.waiting() == 31 }, 20*time.Second, time.Millisecond)
	require.ElementsMatch(t, want[:30], w.got())
	w.now.Add(time.Minute.Milliseconds())
	require.Eventually(t, func() bool { return w.waiting() == 1 }, 20*time.Second, time.Millisecond)
	require.ElementsMatch(t, want, w.got())
}

// What a worker had claimed when it died is sent by another.
func TestAnotherTakesOver(t *testing.T) {
	w := newWorld(t)
	w.schedule(w.engine(delay.Config{}), "e", time.Second) // the engine that took it never runs
	w.now.Add(2000)
	claimed, err := w.db.Claim(t.Context(), w.now.Load(), 0, 10)
	require.NoError(t, err)
	require.Len(t, claimed, 1)
	w.start(delay.Config{Stale: time.Minute})
	require.Empty(t, w.got())
	w.now.Add((2 * time.Minute).Milliseconds())
	w.eventually("e")
	require.Eventually(t, func() bool { return w.waiting() == 0 }, 20*time.Second, time.Millisecond)
}

// What fails for a passing reason is tried again; what the room refuses is given up.
func TestFailures(t *testing.T) {
	w := newWorld(t)
	w.says(errors.New("the shard is moving"))
	e := w.start(delay.Config{Stale: time.Second})
	w.schedule(e, "e", 0)
	require.Eventually(t, func() bool {
		w.now.Add(10)
		return w.now.Load() > 1_000_500
	}, 20*time.Second, time.Millisecond)
	require.Equal(t, 1, w.waiting())
	w.says(nil)
	w.now.Add(5000)
	w.eventually("e")

	w.says(mxerr.New(mxerr.Forbidden, "no"))
	refused := w.schedule(e, "f", time.Hour)
	require.Equal(t, mxerr.Forbidden, code(t, e.Now(t.Context(), refused)))
	w.says(nil)
	require.Equal(t, mxerr.NotFound, code(t, e.Now(t.Context(), refused)))
	require.Eventually(t, func() bool { return w.waiting() == 0 }, 20*time.Second, time.Millisecond, "what was sent goes after it was sent")
}

func TestActions(t *testing.T) {
	w := newWorld(t)
	ctx, e := t.Context(), w.start(delay.Config{})
	kept, dropped := w.schedule(e, "kept", time.Minute), w.schedule(e, "dropped", time.Minute)
	w.now.Add(50_000)
	require.NoError(t, e.Restart(ctx, kept))
	require.NoError(t, e.Cancel(ctx, dropped))
	require.NoError(t, e.Cancel(ctx, dropped), "again")
	require.Equal(t, mxerr.NotFound, code(t, e.Restart(ctx, dropped)))
	require.Equal(t, mxerr.NotFound, code(t, e.Now(ctx, dropped)))
	w.now.Add(59_000)
	now := w.schedule(e, "now", time.Hour)
	require.NoError(t, e.Now(ctx, now))
	require.NoError(t, e.Now(ctx, now), "again")
	require.Equal(t, []string{"now"}, w.got(), "the one that was restarted is not due")
	require.Equal(t, mxerr.NotFound, code(t, e.Cancel(ctx, now)))
	w.now.Add(1000)
	w.eventually("now", "kept")
	for _, act := range []func(context.Context, string) error{e.Restart, e.Cancel, e.Now} {
		require.Equal(t, mxerr.NotFound, code(t, act(ctx, "nonsense")))
	}
}

func TestBounds(t *testing.T) {
	w := newWorld(t)
	e := w.engine(delay.Config{MaxWaiting: 2, MaxDelay: time.Hour})
	ev := delaydb.Event{User: "@a:x", Device: "D", Txn: "t", Room: "!r:x", Type: "e", Content: []byte(`{}`)}
	ev.Delay = time.Hour.Milliseconds() + 1
	_, err := e.Schedule(t.Context(), ev)
	require.Equal(t, mxerr.Unknown, code(t, err))
	ev.Delay--
	first, err := e.Schedule(t.Context(), ev)
	require.NoError(t, err)
	again, err := e.Schedule(t.Context(), ev)
	require.NoError(t, err)
	require.Equal(t, first, again, "the same transaction")
	w.schedule(e, "second", time.Hour)
	ev.Txn = "other"
	_, err = e.Schedule(t.Context(), ev)
	require.Equal(t, mxerr.Unknown, code(t, err))
	ev.User = "@b:x"
	_, err = e.Schedule(t.Context(), ev)
	require.NoError(t, err, "each user has a bound of its own")
}

// An event whose command was done, though nobody heard so, is not sent again by who takes it up, nor after the room's shard
// has gone to another writer.
func TestOnceAcrossHandOver(t *testing.T) {
	w := roomtest.New(t)
	alice := roomtest.User("alice")
	r := w.Room(alice, "")
	e := &delaydb.Event{ID: "x", User: string(alice), Room: string(r), Type: "org.example.test", Content: []byte(`{"a":1}`)}
	count := func() (n int) {
		require.NoError(t, w.DB.Pool.QueryRow(w.Ctx(), `SELECT count(*) FROM event e JOIN atom a ON a.nid = e.type WHERE a.name = $1`, e.Type).Scan(&n))
		return n
	}
	require.NoError(t, write.SendDelayed(w.Host)(w.Ctx(), []byte("delayed:x"), e))
	require.Equal(t, 1, count())
	w.Restart()
	require.NoError(t, write.SendDelayed(w.Host)(w.Ctx(), []byte("delayed:x"), e))
	require.Equal(t, 1, count())
	require.NoError(t, write.SendDelayed(w.Host)(w.Ctx(), []byte("delayed:y"), e), "another is sent")
	require.Equal(t, 2, count())
}
