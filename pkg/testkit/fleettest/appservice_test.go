package fleettest_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/testkit/fleettest"
)

// bridge is an application service that answers only four of five transactions, and counts.
type bridge struct {
	t  *testing.T
	mu sync.Mutex // guards what follows
	// bodies are by transaction.
	bodies   map[string]string
	requests int
	repeated int
	messages []string // ids of events, of each transaction once
}

// ServeHTTP implements http.Handler.
func (b *bridge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the sender was killed
	}
	name := strings.TrimPrefix(r.URL.Path, "/_matrix/app/v1/transactions/")
	b.mu.Lock()
	defer b.mu.Unlock()
	b.requests++
	if known, again := b.bodies[name]; again {
		b.repeated++
		if known != string(body) {
			b.t.Errorf("transaction %s has changed", name)
		}
	} else {
		var txn struct {
			Events []struct {
				ID   string `json:"event_id"`
				Type string `json:"type"`
			} `json:"events"`
		}
		if err := json.Unmarshal(body, &txn); err != nil {
			b.t.Errorf("transaction %s: %v", name, err)
		}
		b.bodies[name] = string(body)
		for _, e := range txn.Events {
			if e.Type == "m.room.message" {
				b.messages = append(b.messages, e.ID)
			}
		}
	}
	if b.requests%5 == 0 {
		panic(http.ErrAbortHandler) // the answer is lost
	}
	_, _ = io.WriteString(w, "{}")
}

// Masters are killed in the middle of transactions to an application service, which loses answers besides: it is told every message, each in one
// transaction, and those of a sender in a room in their order.
func TestApplicationServiceUnderKills(t *testing.T) {
	b := &bridge{t: t, bodies: map[string]string{}}
	server := httptest.NewServer(b)
	defer server.Close()
	registration := filepath.Join(t.TempDir(), "bridge.yaml")
	require.NoError(t, os.WriteFile(registration, fmt.Appendf(nil, `id: bridge
url: %s
as_token: as-secret
hs_token: hs-secret
sender_localpart: bridgebot
namespaces: { users: [{ exclusive: true, regex: "@bridge_.*" }] }
`, server.URL), 0o600))
	spec := fleettest.Split()
	spec.Env = []string{"HEDDLE_APPSERVICES=" + registration}
	f := fleettest.Start(t, binaries(t), nats, spec)
	ctx := t.Context()
	service := &fleettest.Client{URL: f.URL, Token: "as-secret"}
	require.NoError(t, service.Do(ctx, http.MethodPost, "/register", map[string]any{
		"type": "m.login.application_service", "username": "bridge_ghost", "inhibit_login": true,
	}, nil))
	ghost := "?user_id=" + url.QueryEscape("@bridge_ghost:"+f.Name)

	const senders = 6
	var stop atomic.Bool
	var wg sync.WaitGroup
	sent := make([][]string, senders)
	for i := range senders {
		c, err := fleettest.Register(ctx, f.URL, fmt.Sprintf("sender%d", i))
		require.NoError(t, err)
		var made struct {
			ID string `json:"room_id"`
		}
		require.NoError(t, c.Do(ctx, http.MethodPost, "/createRoom", map[string]string{"preset": "public_chat"}, &made))
		require.NoError(t, service.Do(ctx, http.MethodPost, "/join/"+url.PathEscape(made.ID)+ghost, map[string]any{}, nil))
		wg.Go(func() {
			for n := 0; !stop.Load(); n++ {
				var e struct {
					ID string `json:"event_id"`
				}
				path := fmt.Sprintf("/rooms/%s/send/m.room.message/%d", url.PathEscape(made.ID), n)
				if _, err := c.Persist(ctx, http.MethodPut, path, map[string]string{"msgtype": "m.text", "body": fmt.Sprint(n)}, &e); err != nil {
					t.Errorf("send: %v", err)
					return
				}
				sent[i] = append(sent[i], e.ID)
				pause(10 * time.Millisecond)
			}
		})
	}
	told := func() int {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.messages)
	}
	for _, victim := range []string{"master-1", "master-2"} {
		before := told()
		require.Eventually(t, func() bool { return told() > before+20 }, patience, 5*time.Millisecond)
		f.Process(victim).Kill()
		before = told()
		require.Eventually(t, func() bool { return told() > before+20 }, patience, 5*time.Millisecond, "the other goes on")
		f.Process(victim).Revive()
		f.Process(victim).AwaitReady()
	}
	stop.Store(true)
	wg.Wait()
	all := 0
	for _, list := range sent {
		all += len(list)
	}
	require.Eventually(t, func() bool { return told() >= all }, patience, 5*time.Millisecond)
	b.mu.Lock()
	defer b.mu.Unlock()
	require.Len(t, b.messages, all)
	at := make(map[string]int, all)
	for i, e := range b.messages {
		require.NotContains(t, at, e, "told twice")
		at[e] = i
	}
	for _, list := range sent {
		places := make([]int, len(list))
		for i, e := range list {
			require.Contains(t, at, e, "not told")
			places[i] = at[e]
		}
		require.True(t, slices.IsSorted(places), "in the order in which they were sent")
	}
	require.Positive(t, b.repeated)
	t.Logf("%d messages in %d transactions, %d of them repeated", all, len(b.bodies), b.repeated)
}
