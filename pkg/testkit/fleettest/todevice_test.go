package fleettest_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/testkit/fleettest"
)

// mail is clients who send messages to each other's devices without pause, and read their own.
type mail struct {
	t       *testing.T
	clients []*fleettest.Client
	mu      sync.Mutex
	sent    []map[string]bool // by recipient; guarded by mu
	got     []map[string]int  // by recipient, each written by its reader alone
	since   []string
	tries   atomic.Int64
	stop    atomic.Bool
	done    atomic.Bool // everything that is sent has been answered
}

const mailClients = 6

type inbox struct {
	Next     string `json:"next_batch"`
	ToDevice struct {
		Events []struct {
			Content struct {
				N string `json:"n"`
			} `json:"content"`
		} `json:"events"`
	} `json:"to_device"`
}

// startMail makes the clients, in turns on each of the servers.
func startMail(t *testing.T, urls ...string) *mail {
	t.Helper()
	m := &mail{t: t, since: make([]string, mailClients)}
	for i := range mailClients {
		c, err := fleettest.Register(t.Context(), urls[i%len(urls)], fmt.Sprintf("mail%d", i))
		require.NoError(t, err)
		m.clients = append(m.clients, c)
		m.sent, m.got = append(m.sent, map[string]bool{}), append(m.got, map[string]int{})
	}
	return m
}

// send sends to one recipient after the other; what is not answered 200 is sent again as the same transaction.
func (m *mail) send(ctx context.Context, n int) {
	c := m.clients[n]
	for i := 0; !m.stop.Load(); i++ {
		to := (n + 1 + i%(mailClients-1)) % mailClients
		body := fmt.Sprintf("%d/%d", n, i)
		tries, err := c.Persist(ctx, http.MethodPut, fmt.Sprintf("/sendToDevice/m.test/%d-%d", n, i), map[string]any{
			"messages": map[string]any{m.clients[to].User: map[string]any{"*": map[string]string{"n": body}}},
		}, nil)
		if err != nil {
			m.t.Errorf("send %s: %v", body, err)
			return
		}
		m.tries.Add(int64(tries - 1))
		m.mu.Lock()
		m.sent[to][body] = true
		m.mu.Unlock()
		pause(10 * time.Millisecond)
	}
}

// sync reads what has come.
func (m *mail) sync(ctx context.Context, n int, timeout time.Duration) bool {
	q := url.Values{"timeout": {fmt.Sprint(timeout.Milliseconds())}}
	if m.since[n] != "" {
		q.Set("since", m.since[n])
	}
	var a inbox
	if _, err := m.clients[n].Persist(ctx, http.MethodGet, "/sync?"+q.Encode(), nil, &a); err != nil {
		m.t.Errorf("sync: %v", err)
		return false
	}
	m.since[n] = a.Next
	for _, e := range a.ToDevice.Events {
		m.got[n][e.Content.N]++
	}
	return true
}

func (m *mail) complete(n int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.got[n]) >= len(m.sent[n])
}

// Messages to devices come once, whoever is killed meanwhile, and none stays behind.
func TestMessagesToDevicesUnderKills(t *testing.T) {
	f := fleettest.Start(t, binaries(t), nats, fleettest.Split())
	m := startMail(t, f.URL)
	m.under(func() {
		for _, v := range []string{"master-1", "synchrotron-1", "nats", "master-2", "synchrotron-2", "redis", "postgres"} {
			kill(f, v)
		}
	}, f)
}

// The same between two servers: what one owes the other outlives whoever was about to send, to take or to pass it on.
func TestMessagesToDevicesBetweenServersUnderKills(t *testing.T) {
	spec := fleettest.Split()
	spec.Synchrotrons = 1
	fleets := federated(t, spec, "localhost", "127.0.0.1")
	m := startMail(t, fleets[0].URL, fleets[1].URL)
	m.under(func() {
		for i, v := range []string{"master-1", "federation-reader-1", "master-2", "nats", "postgres", "federation-reader-1", "master-1"} {
			kill(fleets[i%2], v)
		}
	}, fleets...)
}

// kill kills a process, and starts it again.
func kill(f *fleettest.Fleet, name string) {
	switch name {
	case "postgres":
		f.Database.Kill()
		f.Database.Start()
	case "redis":
		f.Redis.Stop()
		pause(500 * time.Millisecond)
		f.Redis.Start()
	default:
		f.Process(name).Kill()
		pause(500 * time.Millisecond)
		f.Process(name).Restart()
	}
	pause(time.Second)
}

// under has everybody send and read while something is done, and then counts.
func (m *mail) under(fault func(), fleets ...*fleettest.Fleet) {
	t := m.t
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var senders, readers sync.WaitGroup
	for n := range mailClients {
		senders.Go(func() { m.send(ctx, n) })
		readers.Go(func() {
			for ctx.Err() == nil && m.sync(ctx, n, time.Second) {
				if m.done.Load() && m.complete(n) {
					return
				}
			}
		})
	}
	fault()
	m.stop.Store(true)
	senders.Wait()
	m.done.Store(true)
	readers.Wait()
	total := 0
	for n := range mailClients {
		total += len(m.sent[n])
		require.Len(t, m.got[n], len(m.sent[n]), "nothing comes that was not sent, and all that was")
		for body := range m.sent[n] {
			require.Equal(t, 1, m.got[n][body], "%s to %d", body, n)
		}
	}
	for _, f := range fleets {
		db := f.Database.Open()
		require.Eventually(t, func() bool {
			for n := range mailClients {
				m.sync(ctx, n, 0)
			}
			var left int
			err := db.Pool.QueryRow(ctx, `SELECT (SELECT count(*) FROM to_device) + (SELECT count(*) FROM fed_edu WHERE type = 'm.direct_to_device')`).Scan(&left)
			return err == nil && left == 0
		}, 30*time.Second, 200*time.Millisecond, "what was received is removed")
	}
	t.Logf("%d messages; %d sends were tried again", total, m.tries.Load())
}
