package push_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/infra/outhttp"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/push"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
	"github.com/heddle-im/heddle/pkg/store/pushdb"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

const (
	patience = 20 * time.Second
	version  = "11"
)

func alice() id.UserID { return roomtest.User("alice") }
func bob() id.UserID   { return roomtest.User("bob") }

// world is a homeserver that sends notifications.
type world struct {
	*roomtest.World
	cfg   push.Config
	front *account.Front
	epoch shard.Epoch
	roots *x509.CertPool
	guard *outhttp.Guard
}

func newWorld(t testing.TB) *world {
	w := &world{World: roomtest.New(t), cfg: push.Config{
		SaveEvery: 20 * time.Millisecond, Tick: 10 * time.Millisecond, Patience: 100 * time.Millisecond, Timeout: 5 * time.Second,
		MinBackoff: 5 * time.Millisecond, MaxBackoff: 50 * time.Millisecond, Follow: follow.Config{Poll: 10 * time.Millisecond},
	}, roots: x509.NewCertPool(), guard: outhttp.NewGuard([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, nil)}
	w.Preferences = push.NewPreferences(w.Shards, accountdb.NewReader(w.DB.Pool))
	w.Restart()
	w.Exec(`INSERT INTO role_lease (role, slot, epoch, holder) VALUES ($1, 0, 0, 'm')`, push.RoleName)
	w.front = w.Accounts(account.Config{Enabled: true})
	w.Register(w.front, alice())
	w.Register(w.front, bob())
	return w
}

// master is a sender that has the role.
type master struct {
	*push.Sender
	w    *world
	once sync.Once
}

// start starts a sender under a new epoch.
func (w *world) start() *master {
	w.epoch++
	w.Exec(`UPDATE role_lease SET epoch = $1 WHERE role = $2`, int64(w.epoch), push.RoleName)
	m := &master{w: w, Sender: push.New(w.cfg, push.Options{
		Shards: w.Shards, DB: pushdb.NewDB(w.DB.DB), Rooms: w.Reader, Accounts: accountdb.NewReader(w.DB.Pool),
		Preferences: push.NewPreferences(w.Shards, accountdb.NewReader(w.DB.Pool)), Cursors: w.Log(), Source: w.Log(), Guard: w.guard, Roots: w.roots,
		Remove: func(ctx context.Context, k pushdb.PusherKey) error {
			_, err := w.front.Do(ctx, &account.SetPusher{UserID: k.UserID, Pusher: account.Pusher{AppID: k.AppID, Pushkey: k.Pushkey}, Remove: true})
			return err
		},
		Now: time.Now,
	})}
	require.NoError(w.T, m.Opened(w.Ctx(), 0, w.epoch))
	w.T.Cleanup(m.stop)
	return m
}

func (m *master) stop() { m.once.Do(func() { m.Closing(m.w.Ctx(), 0) }) }

// kill ends a sender as SIGKILL does: nothing is stored any more.
func (m *master) kill() {
	m.w.epoch++
	m.w.Exec(`UPDATE role_lease SET epoch = $1 WHERE role = $2`, int64(m.w.epoch), push.RoleName)
	m.stop()
}

// caughtUp waits until the sender has taken in and stored all that was committed.
func (w *world) caughtUp() {
	w.T.Helper()
	heads, err := w.Log().Heads(w.Ctx())
	require.NoError(w.T, err)
	w.eventually("the place in the log is stored", func() bool {
		at, err := w.Log().LoadCursor(w.Ctx(), push.Consumer)
		return err == nil && at.Positions.AtLeast(heads.Positions)
	})
}

func (w *world) eventually(what string, f func() bool) {
	w.T.Helper()
	require.Eventually(w.T, f, patience, 5*time.Millisecond, what)
}

func (w *world) count(query string, args ...any) (n int) {
	w.T.Helper()
	require.NoError(w.T, w.DB.Pool.QueryRow(w.Ctx(), query, args...).Scan(&n))
	return n
}

func (w *world) read(user id.UserID, r id.RoomID, e id.EventID) {
	w.Do(&room.Receipt{Room: r, User: user, Kind: "m.read", Event: e})
}

// gateway is a push gateway, on TLS.
type gateway struct {
	w   *world
	srv *httptest.Server

	mu     sync.Mutex
	taken  []notified // those that were answered with 200
	asked  int
	reject []string
	answer func(n notified) int // nil: 200
}

type notified struct {
	EventID           string `json:"event_id"`
	RoomID            string `json:"room_id"`
	Type              string
	Sender            string
	SenderDisplayName string `json:"sender_display_name"`
	RoomName          string `json:"room_name"`
	UserIsTarget      bool   `json:"user_is_target"`
	Prio              string
	Content           map[string]any
	Counts            struct {
		Unread *int
		Missed *int `json:"missed_calls"`
	}
	Devices []struct {
		AppID     string `json:"app_id"`
		Pushkey   string
		PushkeyTS int64 `json:"pushkey_ts"`
		Data      map[string]any
		Tweaks    map[string]any
	}
	raw string
}

func newGateway(w *world) *gateway {
	g := &gateway{w: w}
	g.srv = httptest.NewTLSServer(http.HandlerFunc(g.serve))
	w.roots.AddCert(g.srv.Certificate())
	w.T.Cleanup(g.srv.Close)
	return g
}

func (g *gateway) serve(rw http.ResponseWriter, r *http.Request) {
	raw, _ := io.ReadAll(r.Body)
	var body struct{ Notification notified }
	if r.Method != http.MethodPost || r.URL.Path != "/_matrix/push/v1/notify" || json.Unmarshal(raw, &body) != nil {
		rw.WriteHeader(http.StatusNotFound)
		return
	}
	n := body.Notification
	n.raw = string(raw)
	g.mu.Lock()
	g.asked++
	answer := g.answer
	g.mu.Unlock()
	status := http.StatusOK
	if answer != nil {
		status = answer(n)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if status == http.StatusOK {
		g.taken = append(g.taken, n)
	}
	rw.WriteHeader(status)
	reject := g.reject
	if reject == nil {
		reject = []string{}
	}
	b, _ := json.Marshal(map[string]any{"rejected": reject})
	_, _ = rw.Write(b)
}

func (g *gateway) answers(f func(n notified) int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.answer = f
}

func (g *gateway) requests() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.asked
}

// all gives what was taken.
func (g *gateway) all() []notified {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]notified(nil), g.taken...)
}

// events gives the events that were taken, as often as they were.
func (g *gateway) events() (out []string) {
	for _, n := range g.all() {
		if n.EventID != "" {
			out = append(out, n.EventID)
		}
	}
	return out
}

// of waits for the notification of an event.
func (g *gateway) of(e id.EventID) (found notified) {
	g.w.T.Helper()
	g.w.eventually("a notification of "+string(e), func() bool {
		for _, n := range g.all() {
			if n.EventID == string(e) {
				found = n
				return true
			}
		}
		return false
	})
	return found
}

// pusher gives a user a pusher at a gateway; data are more members of its data.
func (w *world) pusher(user id.UserID, g *gateway, key string, data ...string) {
	w.T.Helper()
	more := ""
	for _, d := range data {
		more += "," + d
	}
	require.NoError(w.T, w.front.SetPusher(w.Ctx(), user, account.Pusher{
		AppID: "im.test", Pushkey: key, Kind: "http", AppDisplayName: "Test", DeviceDisplayName: "Phone", Lang: "en", DeviceID: "DEVICE",
		Data: fmt.Appendf(nil, `{"url":"%s/_matrix/push/v1/notify"%s}`, g.srv.URL, more),
	}, true, false))
}
