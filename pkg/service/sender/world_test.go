package sender_test

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/infra/cache"
	"github.com/heddle-im/heddle/pkg/infra/outhttp"
	"github.com/heddle-im/heddle/pkg/infra/soft"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
	"github.com/heddle-im/heddle/pkg/remote/fedclient"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/service/sender"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
	"github.com/heddle-im/heddle/pkg/store/senderdb"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

const (
	patience = 20 * time.Second
	version  = "11"
)

func alice() id.UserID { return roomtest.User("alice") }

// world is a homeserver that sends.
type world struct {
	*roomtest.World
	cfg    sender.Config
	epoch  shard.Epoch
	client *fedclient.Client
	pauses bool // whether servers that fail are left alone as long as the client says
	news   devices
	budget *cache.Budget
}

func newWorld(t testing.TB) *world {
	w := &world{World: roomtest.New(t), cfg: sender.Config{
		SaveEvery: 20 * time.Millisecond, Tick: 10 * time.Millisecond, Recheck: 50 * time.Millisecond, Patience: 100 * time.Millisecond,
		Follow: follow.Config{Poll: 10 * time.Millisecond},
	}, budget: cache.NewBudget(cache.BudgetConfig{Memory: 256 << 20}, nil)}
	for s := range w.Shards.Count() {
		w.Exec(`INSERT INTO role_lease (role, slot, epoch, holder) VALUES ($1, $2, 0, 'm')`, sender.RoleName, s)
	}
	store, err := soft.New(soft.Config{}, soft.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = store.Close() })
	pool := x509.NewCertPool()
	srv := httptest.NewTLSServer(nil) // all of them have the same certificate
	pool.AddCert(srv.Certificate())
	srv.Close()
	w.client = fedclient.New(fedclient.Options{
		Enabled: true, Server: roomtest.Server, Key: w.Key, Roots: pool, Cache: store, Now: time.Now,
		Guard: outhttp.NewGuard([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, nil),
	})
	t.Cleanup(w.client.Close)
	return w
}

// transport carries transactions as the application does.
type transport struct{ w *world }

// Send implements sender.Transport.
func (t transport) Send(ctx context.Context, to id.ServerName, txn string, body []byte) ([]byte, error) {
	answer, err := t.w.client.Do(ctx, to, fedclient.Request{
		Method: "PUT", Path: fedclient.Path("/_matrix/federation/v1/send", txn), Body: body, Strict: true, Insist: !t.w.pauses,
	})
	var refused *fedclient.RefusedError
	if errors.As(err, &refused) {
		err = &sender.RefusedError{Status: refused.Status, Matrix: refused.Err != nil, Err: err}
	}
	return answer, err
}

// Backoff implements sender.Transport.
func (t transport) Backoff(ctx context.Context, to id.ServerName) time.Duration {
	if !t.w.pauses {
		return 0
	}
	return t.w.client.Backoff(ctx, to)
}

// devices are what is to be told of users' devices.
type devices struct{}

// Updates implements sender.Devices.
func (devices) Updates(_ context.Context, user id.UserID, pos shard.Pos, change *entry.DeviceListBody) ([]sender.EDU, error) {
	list := []string{"ALL"}
	if change != nil {
		list = change.Changed
	}
	var out []sender.EDU
	for _, d := range list {
		out = append(out, sender.EDU{Type: "m.device_list_update", Content: fmt.Appendf(nil, `{"user_id":%q,"device_id":%q,"stream_id":%d}`, user, d, pos)})
	}
	return out, nil
}

// master is a sender that holds slots.
type master struct {
	*sender.Sender
	w     *world
	slots map[int]bool
	once  sync.Once
}

// start starts a sender, with no slots.
func (w *world) start() *master {
	s := sender.New(w.Ctx(), w.cfg, sender.Options{
		Server: roomtest.Server, Shards: w.Shards, DB: senderdb.NewDB(w.DB.DB), Cursors: w.Log(), Source: w.Log(), Transport: transport{w},
		Devices: w.news, Budget: w.budget, Now: time.Now,
	})
	require.NoError(w.T, s.Start(w.Ctx()))
	m := &master{Sender: s, w: w, slots: map[int]bool{}}
	w.T.Cleanup(m.stop)
	return m
}

// open gives a sender a slot, under a new epoch.
func (m *master) open(slot int) {
	m.w.epoch++
	m.w.Exec(`UPDATE role_lease SET epoch = $1 WHERE role = $2 AND slot = $3`, int64(m.w.epoch), sender.RoleName, slot)
	require.NoError(m.w.T, m.Opened(m.w.Ctx(), slot, m.w.epoch))
	m.slots[slot] = true
}

func (m *master) close(slot int) {
	m.Closing(m.w.Ctx(), slot)
	delete(m.slots, slot)
}

// all starts a sender with all slots.
func (w *world) all() *master {
	m := w.start()
	for s := range w.Shards.Count() {
		m.open(s)
	}
	return m
}

func (m *master) stop() {
	m.once.Do(func() {
		for s := range m.slots {
			m.Closing(m.w.Ctx(), s)
		}
		require.NoError(m.w.T, m.Stop(m.w.Ctx()))
	})
}

func (m *master) kill() { m.once.Do(m.Kill) }

func (w *world) eventually(what string, f func() bool) {
	w.T.Helper()
	require.Eventually(w.T, f, patience, 5*time.Millisecond, what)
}

func (w *world) count(query string, args ...any) (n int) {
	w.T.Helper()
	require.NoError(w.T, w.DB.Pool.QueryRow(w.Ctx(), query, args...).Scan(&n))
	return n
}

// far is another homeserver, on TLS.
type far struct {
	t    testing.TB
	w    *world
	name id.ServerName
	srv  *httptest.Server

	mu       sync.Mutex
	txns     []transaction // those that were answered with 200, each as often as it was
	attempts []transaction
	inFlight int
	most     int
	// answer, if set, is asked how to answer; 0 for 200. It may block until gone ends.
	answer func(n int, t *transaction, gone <-chan struct{}) (status int, body string)
}

type transaction struct {
	ID     string `json:"-"`
	Raw    string `json:"-"`
	Origin id.ServerName
	PDUs   []json.RawMessage `json:"pdus"`
	EDUs   []edu             `json:"edus"`
}

type edu struct {
	Type    string          `json:"edu_type"`
	Content json.RawMessage `json:"content"`
}

func newFar(w *world) *far {
	f := &far{t: w.T, w: w}
	f.srv = httptest.NewUnstartedServer(http.HandlerFunc(f.serve))
	f.srv.EnableHTTP2 = true
	f.srv.StartTLS()
	f.name = id.ServerName(strings.TrimPrefix(f.srv.URL, "https://"))
	w.T.Cleanup(func() {
		f.set(nil)
		f.srv.CloseClientConnections()
		f.srv.Close()
	})
	return f
}

func (f *far) set(answer func(n int, t *transaction, gone <-chan struct{}) (int, string)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

func (f *far) serve(rw http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return // it was cut off
	}
	txn, ok := strings.CutPrefix(r.URL.Path, "/_matrix/federation/v1/send/")
	if !ok || r.Method != http.MethodPut {
		rw.WriteHeader(http.StatusNotFound)
		return
	}
	f.verify(r, raw)
	t := transaction{ID: txn, Raw: string(raw)}
	if err := json.Unmarshal(raw, &t); err != nil {
		f.t.Error(err)
	}
	f.mu.Lock()
	n, answer := len(f.attempts), f.answer
	f.attempts = append(f.attempts, t)
	f.inFlight++
	f.most = max(f.most, f.inFlight)
	f.mu.Unlock()
	status, body := 0, `{"pdus":{}}`
	if answer != nil {
		var b string
		if status, b = answer(n, &t, r.Context().Done()); b != "" {
			body = b
		}
	}
	f.mu.Lock()
	f.inFlight--
	if status == 0 {
		status = http.StatusOK
		f.txns = append(f.txns, t)
	}
	f.mu.Unlock()
	rw.WriteHeader(status)
	_, _ = io.WriteString(rw, body)
}

var header = regexp.MustCompile(`^X-Matrix origin="([^"]*)",destination="([^"]*)",key="([^"]*)",sig="([^"]*)"$`)

// verify checks that a request is signed by who it says it is of.
func (f *far) verify(r *http.Request, body []byte) {
	m := header.FindStringSubmatch(r.Header.Get("Authorization"))
	if len(m) != 5 || id.ServerName(m[1]) != roomtest.Server || id.ServerName(m[2]) != f.name {
		f.t.Errorf("header %q", r.Header.Get("Authorization"))
		return
	}
	object, err := fedclient.RequestObject(roomtest.Server, f.name, r.Method, r.URL.RequestURI(), body)
	if err != nil {
		f.t.Error(err)
	}
	sig, err := base64.RawStdEncoding.DecodeString(m[4])
	if err != nil || !ed25519.Verify(f.w.Key.Public(), object, sig) {
		f.t.Error("signature does not count")
	}
}

// user gives a user of the server.
func (f *far) user(name string) id.UserID { return id.UserID("@" + name + ":" + string(f.name)) }

// taken gives the ids of the events that were acknowledged, in order; each as often as it was.
func (f *far) taken() (list []id.EventID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range f.txns {
		for _, p := range t.PDUs {
			e, err := event.Parse(roomver.MustGet(version), p)
			if err != nil {
				f.t.Error(err)
				continue
			}
			list = append(list, e.EventID())
		}
	}
	return list
}

// edus gives the EDUs of a type that were acknowledged.
func (f *far) edus(typ string) (list []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range f.txns {
		for _, e := range t.EDUs {
			if e.Type == typ {
				list = append(list, string(e.Content))
			}
		}
	}
	return list
}

func (f *far) tried() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.attempts)
}

func (f *far) has(e id.EventID) bool {
	for _, x := range f.taken() {
		if x == e {
			return true
		}
	}
	return false
}

// await waits until events were acknowledged.
func (f *far) await(events ...id.EventID) {
	f.t.Helper()
	for _, e := range events {
		require.Eventually(f.t, func() bool { return f.has(e) }, patience, 5*time.Millisecond, "event %s", e)
	}
}

// member has a user of the server join or leave a room by itself.
func (f *far) member(r id.RoomID, u id.UserID, a room.Action, relay bool) id.EventID {
	f.t.Helper()
	ans := f.w.Do(&room.Template{Room: r, User: u, Action: a})
	var tpl struct {
		Event json.RawMessage `json:"event"`
	}
	require.NoError(f.t, json.Unmarshal(ans.Data, &tpl))
	rules := roomver.MustGet(version)
	p, err := event.ParseTemplate(rules, tpl.Event)
	require.NoError(f.t, err)
	key, err := signing.NewKey(id.NewKeyID(id.AlgorithmEd25519, "far"), make([]byte, 32))
	require.NoError(f.t, err)
	e, err := event.Build(rules, p, f.name, key)
	require.NoError(f.t, err)
	ans = f.w.Do(&room.Accept{Room: r, Events: [][]byte{e.JSON()}, Relay: relay})
	var verdicts []room.Verdict
	require.NoError(f.t, json.Unmarshal(ans.Data, &verdicts))
	require.Equal(f.t, room.FateAccepted, verdicts[0].Fate, verdicts[0].Reason)
	return e.EventID()
}

func (f *far) join(r id.RoomID) { f.member(r, f.user("bob"), room.ActionJoin, false) }

// room makes a room with servers in it.
func (w *world) shared(servers ...*far) id.RoomID {
	w.T.Helper()
	r := w.Room(alice(), version)
	for _, f := range servers {
		f.join(r)
	}
	return r
}

// invite invites a user of another server, who was told of it already.
func (w *world) invite(r id.RoomID, u id.UserID) id.EventID {
	w.T.Helper()
	ans := w.Do(&room.InviteDraft{Invite: room.SetMembership{Room: r, By: roomtest.As(alice()), Target: u, Action: room.ActionInvite}})
	var draft struct {
		Event json.RawMessage `json:"event"`
	}
	require.NoError(w.T, json.Unmarshal(ans.Data, &draft))
	e, err := event.Parse(roomver.MustGet(version), draft.Event)
	require.NoError(w.T, err)
	w.Do(&room.Accept{Room: r, Events: [][]byte{draft.Event}})
	return e.EventID()
}

// commit has an entry of a user committed.
func (w *world) commit(u id.UserID, e entry.Entry) {
	w.T.Helper()
	s := w.Shards.OfUser(string(u))
	epoch, _ := w.Epoch(s)
	_, err := w.Committer.Submit(&entry.Proposal{
		Shard: s, Epoch: epoch, Entries: []entry.Entry{e}, Rows: []entry.Row{&accountdb.DeviceList{UserID: string(u)}},
	}).Wait(w.Ctx())
	require.NoError(w.T, err)
}
