package fleettest_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/testkit/fleettest"
)

// A synchrotron that is told to stop answers the syncs that wait there at once, each with the token that its client has, and ends well. With the
// token the client goes on elsewhere, and has missed nothing.
func TestWaitingSyncsAreAnsweredWhenTheWorkerStops(t *testing.T) {
	const waiting, ofRoom = 20, 10
	f := fleettest.Start(t, binaries(t), nats, fleettest.Spec{Masters: 1, Synchrotrons: 2, FederationReaders: 1})
	users := crowd(t, f, waiting)
	rooms := gather(t, f, users, ofRoom)
	stopped, other := f.Process("synchrotron-1"), f.Process("synchrotron-2")
	filter := url.QueryEscape(`{"presence":{"types":[]}}`)
	type end struct {
		next string
		err  error
	}
	ends := make([]chan end, waiting)
	for i := range users {
		c := &fleettest.Client{URL: "http://" + stopped.Addr, Token: users[i].token, HTTP: &http.Client{Timeout: patience}}
		first, err := c.Sync(t.Context(), "", 0)
		require.NoError(t, err)
		ends[i] = make(chan end, 1)
		go func() {
			var a fleettest.SyncAnswer
			err := c.Do(t.Context(), http.MethodGet, "/sync?timeout=240000&filter="+filter+"&since="+first.Next, nil, &a)
			ends[i] <- end{a.Next, err}
		}()
	}
	require.Eventually(t, func() bool {
		n, _ := lookUp(t, stopped, `heddle_http_requests_in_flight{route="sync"}`)
		return n == waiting
	}, patience, 20*time.Millisecond)
	stopped.Stop()
	require.Zero(t, stopped.ExitCode())
	say(t, f, users[0], rooms[0], "hear me")
	for i := range users {
		e := <-ends[i]
		require.NoError(t, e.err)
		require.NotEmpty(t, e.next)
		if i >= ofRoom {
			continue
		}
		c := &fleettest.Client{URL: "http://" + other.Addr, Token: users[i].token}
		require.Eventually(t, func() bool {
			a, err := c.Sync(t.Context(), e.next, 10*time.Second)
			require.NoError(t, err)
			e.next = a.Next
			b, err := json.Marshal(a)
			require.NoError(t, err)
			return len(a.Rooms.Join) > 0 && strings.Contains(string(b), "hear me")
		}, patience, time.Millisecond)
	}
}
