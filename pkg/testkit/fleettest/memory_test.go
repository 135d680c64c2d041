package fleettest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/testkit/fleettest"
)

// Workers with little memory are asked for far more than fits: rooms whose events are several times the budget, read from end to
// end by many clients at once, each of whom begins anew with every sync. No worker may exceed what it was given, and what it
// answers must be right; it may ask clients to wait.
func TestMemoryStaysWithinTheBudget(t *testing.T) {
	const (
		budget  = 160 << 20
		members = 400
		ofRoom  = 40
		events  = 120
		size    = 40 << 10
		clients = 64
	)
	spec := one()
	spec.Env = []string{fmt.Sprintf("HEDDLE_MEMORY_BUDGET=%d", budget)}
	f := fleettest.Start(t, binaries(t), nats, spec)
	most := map[string]func() int64{}
	for _, w := range f.Workers() {
		most[w.Name] = watchMemory(t, w)
	}

	users := crowd(t, f, members)
	rooms := gather(t, f, users, ofRoom)
	body, err := json.Marshal(map[string]string{"msgtype": "m.text", "body": strings.Repeat("warp and weft ", size/14)})
	require.NoError(t, err)
	together(t, 8, len(rooms), func(i int) error {
		s, err := newSender(f.Process("master-1").Addr, users[i*ofRoom].token)
		if err != nil {
			return err
		}
		defer s.close()
		for n := range events {
			if err := s.send(rooms[i], int64(n), body); err != nil {
				return err
			}
		}
		return nil
	})

	var asked, deferred atomic.Int64
	pool := &http.Client{Timeout: patience, Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
	together(t, clients, 2*clients, func(int) error {
		i := rand.IntN(members)
		for _, w := range f.Workers() {
			c := &fleettest.Client{URL: "http://" + w.Addr, Token: users[i].token, HTTP: pool}
			for _, path := range []string{
				"/sync?filter=" + url.QueryEscape(`{"room":{"timeline":{"limit":100}}}`),
				"/rooms/" + rooms[i/ofRoom] + "/messages?dir=b&limit=100",
				"/rooms/" + rooms[i/ofRoom] + "/members",
			} {
				answer, err := patiently(t.Context(), c, path, &deferred)
				if err != nil {
					return fmt.Errorf("%s: %w", w.Name, err)
				}
				asked.Add(1)
				if !strings.Contains(path, "/members") {
					if n := strings.Count(string(answer), `"type":"m.room.message"`); n != 100 {
						return fmt.Errorf("%s answers %s with %d messages", w.Name, path, n)
					}
				}
			}
		}
		return nil
	})
	t.Logf("%d answers, %d times asked to wait", asked.Load(), deferred.Load())
	for _, w := range f.Workers() {
		top := most[w.Name]()
		t.Logf("%s: at most %d MiB of %d MiB", w.Name, top>>20, budget>>20)
		require.False(t, w.Ended())
		require.Less(t, top, int64(budget), w.Name)
	}
}

// More syncs wait at a synchrotron with little memory than fit: it turns new requests away, telling them for how long, before the system would
// end it; keeps those who wait, who are answered when there is something to tell them; stays within what the system would grant it; and
// serves again when they have left.
func TestWaitingSyncsAreShed(t *testing.T) {
	const budget, most, ofRoom = 64 << 20, 4_000, 10
	spec := one()
	spec.Env = []string{fmt.Sprintf("HEDDLE_MEMORY_BUDGET=%d", budget)}
	f := fleettest.Start(t, binaries(t), nats, spec)
	users := crowd(t, f, most)
	room := gather(t, f, users[:ofRoom], ofRoom)[0]
	p := f.Process("synchrotron-1")
	stop := watchMemory(t, p)
	first, err := (&fleettest.Client{URL: "http://" + p.Addr, Token: users[0].token}).Sync(t.Context(), "", 0)
	require.NoError(t, err)

	// ask is a request that waits for nothing; it tells whether it was turned away.
	ask := func() bool {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.Addr+"/_matrix/client/v3/account/whoami", nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+users[0].token)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return false
		}
		require.Contains(t, []int{http.StatusServiceUnavailable, http.StatusTooManyRequests}, resp.StatusCode)
		require.NotEmpty(t, resp.Header.Get("Retry-After"))
		return true
	}
	waiting := func() float64 { return gauge(t, p, `heddle_http_requests_in_flight{route="sync"}`) }
	refused := func() float64 { return gauge(t, p, "heddle_memory_pressure_refused") }
	var polls []*poll
	var kept float64
	for short := false; !short; short = ask() {
		begun := make([]*poll, 250)
		require.LessOrEqual(t, len(polls)+len(begun), most, "%d wait in %d MiB", len(polls), memory(t, p, "RssAnon:")>>20)
		together(t, 16, len(begun), func(i int) (err error) {
			begun[i], err = newPoll(p.Addr, users[len(polls)+i].token, first.Next)
			return err
		})
		polls = append(polls, begun...)
		require.Eventually(t, func() bool {
			before := kept
			kept = waiting()
			return kept == before && kept+refused() >= float64(len(polls))
		}, patience, 50*time.Millisecond)
	}
	t.Logf("%.0f wait, %.0f were turned away", kept, refused())

	say(t, f, users[0], room, "hear me")
	for _, q := range polls[:ofRoom] {
		require.Contains(t, q.answer(t), "hear me", "they wait on, and are served")
	}
	require.InDelta(t, kept-ofRoom, waiting(), 0, "nobody else is sent away")
	require.False(t, p.Ended())

	for _, q := range polls {
		_ = q.conn.Close()
	}
	require.Eventually(t, func() bool { return !ask() }, patience, 100*time.Millisecond, "they have left, and it does not serve again")
	again, err := newPoll(p.Addr, users[1].token, first.Next)
	require.NoError(t, err)
	require.Contains(t, again.answer(t), "hear me")
	_ = again.conn.Close()
	top := stop()
	t.Logf("at most %d MiB of %d MiB", top>>20, budget>>20)
	require.Less(t, top, int64(budget)*10/9, "a budget is nine tenths of what the system grants")
	require.False(t, p.Ended())
}

// watchMemory notes the most memory of a worker's own that it has until the end; what is mapped from the program's file is the system's to
// take back, and no part of the budget.
func watchMemory(t testing.TB, w *fleettest.Process) (stop func() int64) {
	var top int64
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			top = max(top, memory(t, w, "RssAnon:"))
			time.Sleep(20 * time.Millisecond) //nolint:forbidigo // between two looks
		}
	}()
	stop = func() int64 {
		cancel()
		<-done
		return top
	}
	t.Cleanup(func() { stop() })
	return stop
}

const patience = 2 * time.Minute

// patiently asks again when it is told to wait.
func patiently(ctx context.Context, c *fleettest.Client, path string, deferred *atomic.Int64) (answer json.RawMessage, err error) {
	for {
		err = c.Do(ctx, http.MethodGet, path, nil, &answer)
		var s *fleettest.StatusError
		if !errors.As(err, &s) || (s.Status != http.StatusServiceUnavailable && s.Status != http.StatusTooManyRequests) {
			return answer, err
		}
		if s.RetryAfter == "" {
			return nil, fmt.Errorf("asked to wait, and not for how long: %w", err)
		}
		deferred.Add(1)
		time.Sleep(time.Duration(100+rand.IntN(900)) * time.Millisecond) //nolint:forbidigo // as it was told
	}
}
