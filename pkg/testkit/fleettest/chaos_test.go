package fleettest_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/shardlog/token"
	"github.com/heddle-im/heddle/pkg/testkit/fleettest"
)

// load is 20 clients who send without pause, and as many readers who sync, over a few rooms.
type load struct {
	t     *testing.T
	rooms []string
	// sent are the events that were answered 200, by room; body to event id.
	mu      sync.Mutex
	sent    map[string]map[string]string
	seen    []map[string][]string // by reader: room to event ids, as they came
	writes  atomic.Int64
	retries atomic.Int64
	failed  atomic.Int64 // requests that were not answered 200 the first time
	gap     atomic.Int64 // the longest that any one send took, ns
	cancel  context.CancelFunc
	senders sync.WaitGroup
	readers sync.WaitGroup
	stop    atomic.Bool // nothing more is sent
	sentAll atomic.Bool // nor on its way
}

const (
	chaosClients = 20
	chaosRooms   = 5
)

func startLoad(t *testing.T, url string) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{t: t, sent: map[string]map[string]string{}, cancel: cancel}
	var clients []*fleettest.Client
	for i := range chaosClients {
		c, err := fleettest.Register(ctx, url, fmt.Sprintf("user%d", i))
		require.NoError(t, err)
		c.HTTP = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}
		clients = append(clients, c)
	}
	for range chaosRooms {
		var a struct {
			RoomID string `json:"room_id"`
		}
		require.NoError(t, clients[0].Do(ctx, http.MethodPost, "/createRoom", map[string]string{"preset": "public_chat"}, &a))
		l.rooms, l.sent[a.RoomID] = append(l.rooms, a.RoomID), map[string]string{}
		for _, c := range clients[1:] {
			require.NoError(t, c.Do(ctx, http.MethodPost, "/join/"+a.RoomID, map[string]string{}, nil))
		}
	}
	since := make([]string, len(clients))
	for i, c := range clients { // before anything is sent
		first, err := c.Sync(ctx, "", 0)
		require.NoError(t, err)
		since[i], l.seen = first.Next, append(l.seen, map[string][]string{})
	}
	for i, c := range clients {
		l.senders.Go(func() { l.send(ctx, c, i) })
		l.readers.Go(func() { l.read(ctx, c, since[i], l.seen[i]) })
	}
	return l
}

// send sends, and tries what was not answered 200 again with the same transaction.
func (l *load) send(ctx context.Context, c *fleettest.Client, n int) {
	for i := 0; !l.stop.Load(); i++ {
		room, body := l.rooms[(n+i)%len(l.rooms)], fmt.Sprintf("%d/%d", n, i)
		var a struct {
			EventID string `json:"event_id"`
		}
		begun := time.Now()
		tries, err := c.Persist(ctx, http.MethodPut, fmt.Sprintf("/rooms/%s/send/m.room.message/%d-%d", room, n, i),
			map[string]string{"msgtype": "m.text", "body": body}, &a)
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				l.t.Errorf("send %s: %v", body, err)
			}
			return
		}
		for took := int64(time.Since(begun)); ; {
			if old := l.gap.Load(); took <= old || l.gap.CompareAndSwap(old, took) {
				break
			}
		}
		l.writes.Add(1)
		if tries > 1 {
			l.failed.Add(1)
			l.retries.Add(int64(tries - 1))
		}
		l.mu.Lock()
		l.sent[room][body] = a.EventID
		l.mu.Unlock()
		time.Sleep(20 * time.Millisecond) //nolint:forbidigo // the pace of the load, not a wait for anything
	}
}

// read syncs until everything that was sent has come.
func (l *load) read(ctx context.Context, c *fleettest.Client, since string, seen map[string][]string) {
	for ctx.Err() == nil {
		a, err := c.Sync(ctx, since, 2*time.Second)
		if err != nil {
			if ctx.Err() == nil {
				l.t.Errorf("sync: %v", err)
			}
			return
		}
		for room, r := range a.Rooms.Join {
			if r.Timeline.Limited {
				l.t.Errorf("a sync of %d events was cut short", len(r.Timeline.Events))
			}
			for _, e := range r.Timeline.Events {
				if e.Type != "m.room.message" {
					continue
				}
				if slices.Contains(seen[room], e.ID) {
					l.t.Errorf("%s sees %s in %s again, with %d others, in the sync from %s to %s",
						c.User, e.ID, room, len(r.Timeline.Events)-1, readable(since), readable(a.Next))
					return
				}
				seen[room] = append(seen[room], e.ID)
			}
		}
		since = a.Next
		if l.sentAll.Load() && l.complete(seen) {
			return
		}
	}
}

// readable gives a sync token as a message about a failure should have it.
func readable(s string) string {
	t, err := token.DecodeSync(s, 16)
	if err != nil {
		return s
	}
	return fmt.Sprintf("(incarnation %d, %v)", t.Incarnation, t.Positions)
}

// requireSame fails with the first difference and not with two lists of thousands.
func requireSame(t *testing.T, want, got []string, what string) {
	t.Helper()
	for i := range max(len(want), len(got)) {
		var w, g string
		if i < len(want) {
			w = want[i]
		}
		if i < len(got) {
			g = got[i]
		}
		require.Equal(t, w, g, "%s: item %d; %d are wanted and %d there; the wanted one is item %d there, that one is item %d of the wanted",
			what, i, len(want), len(got), slices.Index(got, w), slices.Index(want, g))
	}
}

func (l *load) complete(seen map[string][]string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for room, sent := range l.sent {
		if len(seen[room]) < len(sent) {
			return false
		}
	}
	return true
}

// finish ends the load, waits until the readers have everything, and checks it against the rooms.
func (l *load) finish(c *fleettest.Client) {
	l.t.Helper()
	l.stop.Store(true)
	l.senders.Wait()
	l.sentAll.Store(true)
	done := make(chan struct{})
	go func() { l.readers.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(60 * time.Second):
		l.t.Error("the readers do not come to the end")
	}
	l.cancel()
	<-done
	for _, room := range l.rooms {
		order := l.history(c, room)
		count := map[string]int{}
		for _, e := range order {
			count[e]++
		}
		require.Len(l.t, count, len(order), "an event is twice in the history")
		require.Len(l.t, order, len(l.sent[room]), "the room holds what was answered, each once, and nothing else")
		for body, e := range l.sent[room] {
			require.Equal(l.t, 1, count[e], "%s was answered and is not in the room", body)
		}
		for i, seen := range l.seen {
			requireSame(l.t, order, seen[room], fmt.Sprintf("what reader %d saw of %s, beside the room's history", i, room))
		}
	}
	l.t.Logf("%d sends, %d not answered at once (%d tries more), the longest took %s", l.writes.Load(), l.failed.Load(),
		l.retries.Load(), time.Duration(l.gap.Load()).Round(time.Millisecond))
}

// history reads a room's messages through /messages, oldest first.
func (l *load) history(c *fleettest.Client, room string) []string {
	l.t.Helper()
	var out []string
	from := ""
	for {
		var a struct {
			Chunk []fleettest.SyncEvent `json:"chunk"`
			End   string                `json:"end"`
		}
		path := "/rooms/" + room + "/messages?dir=b&limit=500"
		if from != "" {
			path += "&from=" + from
		}
		require.NoError(l.t, c.Do(context.Background(), http.MethodGet, path, nil, &a))
		for _, e := range a.Chunk {
			if e.Type == "m.room.message" {
				out = append(out, e.ID)
			}
		}
		if a.End == "" {
			slices.Reverse(out)
			return out
		}
		from = a.End
	}
}

// victims are killed or stopped in turn.
func victims() []string {
	return []string{"master-1", "synchrotron-1", "nats", "master-2", "federation-reader-1", "synchrotron-2", "postgres", "redis"}
}

func TestKillEachInTurn(t *testing.T) { killRounds(t, 1) }

// TestRobustnessKill is the long form.
func TestRobustnessKill(t *testing.T) {
	if os.Getenv("HEDDLE_TEST_ROBUSTNESS") == "" {
		t.Skip("`make robustness` runs this")
	}
	killRounds(t, 20)
}

func killRounds(t *testing.T, rounds int) {
	f := fleettest.Start(t, binaries(t), nats, fleettest.Split())
	l := startLoad(t, f.URL)
	pause := func(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // the load goes on meanwhile
	for range rounds {
		for _, v := range victims() {
			before := l.writes.Load()
			switch v {
			case "postgres":
				f.Database.Kill()
				f.Database.Start()
			case "redis":
				f.Redis.Stop()
				f.Redis.Start()
			default:
				f.Process(v).Kill()
				pause(time.Second)
				f.Process(v).Restart()
			}
			begun := time.Now()
			for l.writes.Load() < before+chaosClients {
				require.Less(t, time.Since(begun), 30*time.Second, "writes do not go on after %s was killed", v)
				pause(10 * time.Millisecond)
			}
			pause(time.Second)
		}
	}
	c, err := fleettest.Register(t.Context(), f.URL, "reader")
	require.NoError(t, err)
	for _, r := range l.rooms {
		_, err := c.Persist(t.Context(), http.MethodPost, "/join/"+r, map[string]string{}, nil)
		require.NoError(t, err)
	}
	l.finish(c)
	// The promise is 5 s for a killed master; a machine that also runs the tests is given more.
	require.Less(t, time.Duration(l.gap.Load()), 15*time.Second, "the longest that a send took")
}

// Stopping workers in order is not felt: no request fails.
func TestStopEachInTurn(t *testing.T) {
	f := fleettest.Start(t, binaries(t), nats, fleettest.Split())
	l := startLoad(t, f.URL)
	for _, v := range []string{"master-1", "synchrotron-1", "master-2", "synchrotron-2"} {
		f.Process(v).Stop()
		time.Sleep(500 * time.Millisecond) //nolint:forbidigo // the load goes on meanwhile
		f.Process(v).Restart()
		time.Sleep(1500 * time.Millisecond) //nolint:forbidigo // the same
	}
	c, err := fleettest.Register(t.Context(), f.URL, "reader")
	require.NoError(t, err)
	for _, r := range l.rooms {
		require.NoError(t, c.Do(t.Context(), http.MethodPost, "/join/"+r, map[string]string{}, nil))
	}
	l.finish(c)
	require.Zero(t, l.failed.Load(), "a hand-over shows as a slower request and not as an error")
	require.Less(t, time.Duration(l.gap.Load()), 5*time.Second, "the longest that a send took (promised: 1 s)")
}
