package fleettest_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/testkit/fleettest"
)

// follower is a client that keeps what it has seen. A sync that tells something again is taken for a new beginning.
type follower struct {
	c      *fleettest.Client
	since  string
	seen   map[string][]string // room to messages
	known  map[string]bool
	anew   int
	failed error
}

func (r *follower) sync(ctx context.Context, timeout time.Duration) {
	a, _, err := r.c.TrySync(ctx, r.since, timeout)
	if err != nil {
		if ctx.Err() == nil {
			r.failed = err
		}
		return
	}
	again := false
	for _, room := range a.Rooms.Join {
		for _, e := range room.Timeline.Events {
			again = again || r.known[e.ID]
		}
	}
	if again {
		r.anew++
		r.seen, r.known = map[string][]string{}, map[string]bool{}
	}
	for room, in := range a.Rooms.Join {
		for _, e := range in.Timeline.Events {
			if e.Type == "m.room.message" && !r.known[e.ID] {
				r.known[e.ID] = true
				r.seen[room] = append(r.seen[room], e.ID)
			}
		}
	}
	r.since = a.Next
}

// follow syncs until stop.
func (r *follower) follow(ctx context.Context, stop *atomic.Bool) {
	for !stop.Load() && ctx.Err() == nil && r.failed == nil {
		r.sync(ctx, time.Second)
	}
}

// The database is restored to an earlier moment while all workers go on living, with what came after it in their memory, and clients go on
// asking with tokens from then. What came after the backup is gone, as a restore has it, and nothing else: what was acknowledged before
// it and after the restore is there once, no reader misses or repeats any of it, nobody who asks gets an error of the server's, and what
// was made in the lost time (a user, a room, a membership) is unknown to every worker.
func TestDatabaseRestoredUnderLiveWorkers(t *testing.T) {
	const users = 6
	f := fleettest.Start(t, binaries(t), nats, fleettest.Split())
	ctx := t.Context()
	var clients []*fleettest.Client
	for i := range users {
		c, err := fleettest.Register(ctx, f.URL, fmt.Sprintf("user%d", i))
		require.NoError(t, err)
		clients = append(clients, c)
	}
	room := newRoom(ctx, t, clients[0])
	for _, c := range clients[1:] {
		require.NoError(t, c.Do(ctx, http.MethodPost, "/join/"+room, map[string]string{}, nil))
	}
	var mu sync.Mutex
	sent := map[string][]string{} // by phase
	txn := atomic.Int64{}
	send := func(phase string, n int) {
		var wg sync.WaitGroup
		for _, c := range clients {
			wg.Go(func() {
				for range n {
					var a struct {
						EventID string `json:"event_id"`
					}
					_, err := c.Persist(ctx, http.MethodPut, fmt.Sprintf("/rooms/%s/send/m.room.message/t%d", room, txn.Add(1)),
						map[string]string{"msgtype": "m.text", "body": phase}, &a)
					if !assertNoError(t, err, phase) {
						return
					}
					mu.Lock()
					sent[phase] = append(sent[phase], a.EventID)
					mu.Unlock()
				}
			})
		}
		wg.Wait()
	}
	readers := make([]*follower, users)
	for i, c := range clients {
		readers[i] = &follower{c: c, seen: map[string][]string{}, known: map[string]bool{}}
		readers[i].sync(ctx, 0)
	}
	asleep, awake := readers[:users/2], readers[users/2:]
	send("kept", 20)
	for _, r := range readers {
		r.sync(ctx, 0)
	}
	send("kept", 20) // of which those who sleep know nothing

	f.Database.Stop()
	backup := f.Database.Backup()
	f.Database.Start()

	var stop atomic.Bool
	var following sync.WaitGroup
	for _, r := range awake {
		following.Go(func() { r.follow(ctx, &stop) })
	}
	send("lost", 30)
	lostUser, err := fleettest.Register(ctx, f.URL, "lost")
	require.NoError(t, err)
	require.NoError(t, lostUser.Do(ctx, http.MethodPost, "/join/"+room, map[string]string{}, nil))
	lostRoom := newRoom(ctx, t, clients[1])
	require.NoError(t, clients[2].Do(ctx, http.MethodPost, "/join/"+lostRoom, map[string]string{}, nil))
	require.NoError(t, clients[2].Do(ctx, http.MethodPut, "/rooms/"+lostRoom+"/send/m.room.message/x", map[string]string{"body": "x"}, nil))
	_, err = lostUser.Sync(ctx, "", 0)
	require.NoError(t, err)

	f.Database.Stop()
	f.Database.Restore(backup)
	send("marker", 1)
	stop.Store(true)
	following.Wait()
	for _, r := range readers { // those who were awake hear of it now, at the latest
		for begun := time.Now(); !holdsAll(r.seen[room], sent["marker"]); {
			require.NoError(t, r.failed)
			require.Less(t, time.Since(begun), time.Minute, "%s does not hear what is sent after the restore", r.c.User)
			r.sync(ctx, time.Second)
		}
	}
	stop.Store(false)
	following = sync.WaitGroup{}
	for _, r := range readers {
		following.Go(func() { r.follow(ctx, &stop) })
	}
	send("after", 30)
	stop.Store(true)
	following.Wait()
	for _, r := range readers {
		r.sync(ctx, 0)
		require.NoError(t, r.failed)
	}

	l := &load{t: t}
	order := l.history(clients[0], room)
	count := map[string]int{}
	for _, e := range order {
		count[e]++
	}
	for _, phase := range []string{"kept", "marker", "after"} {
		for _, e := range sent[phase] {
			require.Equal(t, 1, count[e], "%s (%s)", e, phase)
		}
	}
	for _, e := range sent["lost"] {
		require.Zero(t, count[e], "%s was undone by the restore", e)
	}
	require.Len(t, order, len(sent["kept"])+len(sent["marker"])+len(sent["after"]))
	for i, r := range readers {
		requireSame(t, order, r.seen[room], fmt.Sprintf("reader %d, beside the room's history", i))
		require.Empty(t, r.seen[lostRoom])
	}
	for _, r := range asleep {
		require.Zero(t, r.anew, "a token from before the backup is good")
	}
	for _, r := range awake {
		require.Equal(t, 1, r.anew, "a token of what was lost begins anew, once")
	}

	// Every worker has forgotten the lost time.
	for _, w := range f.Workers() {
		at := func(c *fleettest.Client) *fleettest.Client {
			return &fleettest.Client{URL: "http://" + w.Addr, Token: c.Token, User: c.User}
		}
		requireStatus(t, http.StatusUnauthorized, at(lostUser).Do(ctx, http.MethodGet, "/account/whoami", nil, nil), w.Name)
		requireStatus(t, http.StatusForbidden, at(clients[2]).Do(ctx, http.MethodGet, "/rooms/"+lostRoom+"/messages?dir=b", nil, nil), w.Name)
		err := at(clients[2]).Do(ctx, http.MethodPut, "/rooms/"+lostRoom+"/send/m.room.message/y"+w.Name, map[string]string{"body": "y"}, nil)
		var s *fleettest.StatusError
		require.ErrorAs(t, err, &s, w.Name)
		require.Contains(t, []int{http.StatusForbidden, http.StatusNotFound}, s.Status, "%s: %v", w.Name, err)
		var members struct {
			Joined map[string]struct{} `json:"joined"`
		}
		require.NoError(t, at(clients[0]).Do(ctx, http.MethodGet, "/rooms/"+room+"/joined_members", nil, &members))
		require.Len(t, members.Joined, users, w.Name)
	}
	// Names and numbers given in the lost time are given again.
	again, err := fleettest.Register(ctx, f.URL, "lost")
	require.NoError(t, err)
	next := newRoom(ctx, t, clients[3])
	require.NoError(t, again.Do(ctx, http.MethodPost, "/join/"+next, map[string]string{}, nil))
	for i, c := range []*fleettest.Client{clients[3], again} {
		require.NoError(t, c.Do(ctx, http.MethodPut, fmt.Sprintf("/rooms/%s/send/m.room.message/%d", next, i), map[string]string{"body": "x"}, nil))
	}
	first, err := again.Sync(ctx, "", 0)
	require.NoError(t, err)
	require.Len(t, first.Rooms.Join, 1)
	require.Len(t, l.history(again, next), 2)
}

func newRoom(ctx context.Context, t *testing.T, c *fleettest.Client) string {
	t.Helper()
	var a struct {
		RoomID string `json:"room_id"`
	}
	require.NoError(t, c.Do(ctx, http.MethodPost, "/createRoom", map[string]string{"preset": "public_chat"}, &a))
	return a.RoomID
}

func assertNoError(t *testing.T, err error, what string) bool {
	t.Helper()
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("%s: %v", what, err)
	}
	return err == nil
}

func holdsAll(all, some []string) bool {
	return !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}

func requireStatus(t *testing.T, status int, err error, who string) {
	t.Helper()
	var s *fleettest.StatusError
	require.ErrorAs(t, err, &s, who)
	require.Equal(t, status, s.Status, "%s: %v", who, err)
}
