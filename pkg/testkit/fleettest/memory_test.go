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
	"sync"
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
	// What is mapped from the program's file is the system's to take back, and no part of the budget.
	most := map[string]*atomic.Int64{}
	watching, stop := context.WithCancel(t.Context())
	var watchers sync.WaitGroup
	for _, w := range f.Workers() {
		top := new(atomic.Int64)
		most[w.Name] = top
		watchers.Go(func() {
			for watching.Err() == nil {
				top.Store(max(top.Load(), memory(t, w, "RssAnon:")))
				time.Sleep(20 * time.Millisecond) //nolint:forbidigo // between two looks
			}
		})
	}
	defer watchers.Wait()
	defer stop()

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
	stop()
	watchers.Wait()
	for _, w := range f.Workers() {
		top := most[w.Name].Load()
		t.Logf("%s: at most %d MiB of %d MiB", w.Name, top>>20, budget>>20)
		require.False(t, w.Ended())
		require.Less(t, top, int64(budget), w.Name)
	}
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
