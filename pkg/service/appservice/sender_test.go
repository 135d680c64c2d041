package appservice_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/appservice"
	"github.com/heddle-im/heddle/pkg/service/e2ee"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/appservicedb"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

const (
	patience = 60 * time.Second
	version  = "11"
)

func alice() id.UserID { return roomtest.User("alice") }
func ghost() id.UserID { return roomtest.User("_irc_ghost") }

// delivery is a transaction as an application service gets it.
type delivery struct {
	Events []struct {
		ID      string         `json:"event_id"`
		Type    string         `json:"type"`
		Room    string         `json:"room_id"`
		Sender  string         `json:"sender"`
		Content map[string]any `json:"content"`
	} `json:"events"`
	Ephemeral []map[string]any `json:"ephemeral"`
	ToDevice  []map[string]any `json:"to_device"`
	Lists     struct {
		Changed []string `json:"changed"`
	} `json:"org.matrix.msc3202.device_lists"`
	Counts map[string]map[string]map[string]int `json:"org.matrix.msc3202.device_one_time_keys_count"`
}

// bridgeServer is an application service, which counts what it is told.
type bridgeServer struct {
	t    *testing.T
	http *httptest.Server
	// old has it know the endpoints of before the specification alone.
	old bool

	mu       sync.Mutex // guards what follows
	down     bool
	deaf     int // so many transactions more are taken without an answer
	refused  int
	bodies   map[string]string // by transaction
	names    []string          // of transactions, in the order of their first arrival
	repeated int
	taken    []delivery // of each transaction once
}

func newBridge(t *testing.T) *bridgeServer {
	b := &bridgeServer{t: t, bodies: map[string]string{}}
	b.http = httptest.NewServer(b)
	t.Cleanup(b.http.Close)
	return b
}

// ServeHTTP implements http.Handler.
func (b *bridgeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	prefix := "/base/_matrix/app/v1/transactions/"
	if b.old {
		prefix = "/base/transactions/"
	}
	name, ok := strings.CutPrefix(r.URL.Path, prefix)
	if !ok || r.Method != http.MethodPut {
		http.Error(w, "what is that?", http.StatusNotFound)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer hs-secret" || b.old != (r.URL.Query().Get("access_token") == "hs-secret") {
		b.t.Errorf("a request without the right token: %s", r.URL)
	}
	known, again := b.bodies[name]
	if again && known != string(body) {
		b.t.Errorf("transaction %s has changed", name)
	}
	if !again {
		b.bodies[name], b.names = string(body), append(b.names, name)
	} else {
		b.repeated++
	}
	if b.down {
		b.refused++
		http.Error(w, `{"errcode":"M_UNKNOWN"}`, http.StatusBadGateway)
		return
	}
	if n := len(b.taken); !again || n < len(b.names) { // each is taken in once, and before the next
		var d delivery
		if err := json.Unmarshal(body, &d); err != nil || d.Events == nil {
			b.t.Errorf("transaction %s is %v: %s", name, err, body)
		}
		b.taken = append(b.taken, d)
	}
	if b.deaf > 0 {
		b.deaf--
		panic(http.ErrAbortHandler)
	}
	_, _ = io.WriteString(w, "{}")
}

func (b *bridgeServer) set(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

// messages gives the texts of the messages that were told, in order.
func (b *bridgeServer) messages() (out []string) {
	b.set(func() {
		for _, d := range b.taken {
			for _, e := range d.Events {
				if e.Type == "m.room.message" {
					out = append(out, e.Content["body"].(string))
				}
			}
		}
	})
	return out
}

func (b *bridgeServer) until(what string, done func() bool) {
	b.t.Helper()
	require.Eventually(b.t, func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return done()
	}, patience, 5*time.Millisecond, what)
}

// byRoom sorts messages by the rooms that they are of: rooms have no order between them.
func byRoom(list []string) map[string][]string {
	out := map[string][]string{}
	for _, m := range list {
		r, _, _ := strings.Cut(m, " ")
		out[r] = append(out[r], m)
	}
	return out
}

// told waits until exactly these messages have been told, in the order of each room.
func (b *bridgeServer) told(want ...string) {
	b.t.Helper()
	require.Eventually(b.t, func() bool { return len(b.messages()) >= len(want) }, patience, 5*time.Millisecond, "%v of %v", b.messages, want)
	require.Equal(b.t, byRoom(want), byRoom(b.messages()))
}

type world struct {
	*roomtest.World
	t     *testing.T
	front *account.Front
	epoch shard.Epoch
	cfg   appservice.Config

	mu    sync.Mutex // guards acked
	acked []appservice.Received
}

func newWorld(t *testing.T) *world {
	w := &world{World: roomtest.New(t), t: t, cfg: appservice.Config{
		MinBackoff: time.Millisecond, MaxBackoff: 20 * time.Millisecond, SaveEvery: 10 * time.Millisecond, Retry: 10 * time.Millisecond,
		Follow: follow.Config{Poll: 10 * time.Millisecond},
	}}
	w.Exec(`INSERT INTO role_lease (role, slot, epoch, holder) VALUES ($1, 0, 0, 'm')`, appservice.RoleName)
	w.front = w.Accounts(account.Config{Enabled: true})
	for _, u := range []id.UserID{alice(), ghost()} {
		w.Register(w.front, u)
	}
	return w
}

func service(t *testing.T, name string, to *bridgeServer, change ...string) appservice.Registration {
	t.Helper()
	text := strings.NewReplacer(append([]string{
		"id: irc", "id: " + name, "as-secret", "as-" + name, "http://127.0.0.1:1234", to.http.URL,
	}, change...)...).Replace(bridge)
	return parsed(t, text)
}

type sender struct {
	*appservice.Sender
	w    *world
	once sync.Once
}

// start has a master send under a new epoch.
func (w *world) start(list ...appservice.Registration) *sender {
	w.t.Helper()
	reg, err := appservice.NewRegistry(roomtest.Server, list)
	require.NoError(w.t, err)
	client := appservice.NewClient("test")
	w.t.Cleanup(client.Close)
	s := &sender{w: w, Sender: appservice.NewSender(w.cfg, appservice.Options{
		Server: roomtest.Server, Shards: w.Shards, Services: reg, Client: client, DB: appservicedb.NewDB(w.DB.DB), Source: w.Log(), Now: time.Now,
		Acknowledge: func(_ context.Context, list []appservice.Received) error {
			w.acked = append(w.acked, list...)
			return nil
		},
	})}
	w.take()
	require.NoError(w.t, s.Opened(w.Ctx(), 0, w.epoch))
	w.t.Cleanup(s.stop)
	return s
}

func (w *world) take() {
	w.epoch++
	w.Exec(`UPDATE role_lease SET epoch = $1 WHERE role = $2`, int64(w.epoch), appservice.RoleName)
}

func (s *sender) stop() { s.once.Do(func() { s.Closing(s.w.Ctx(), 0) }) }

// kill ends a sender as SIGKILL does: nothing is stored any more.
func (s *sender) kill() {
	s.w.take()
	s.stop()
}

// say sends messages and gives their texts.
func (w *world) say(r id.RoomID, from, n int) (out []string) {
	for i := range n {
		text := fmt.Sprintf("%s %d", r[1:5], from+i)
		w.Send(r, alice(), text)
		out = append(out, text)
	}
	return out
}

func (w *world) bridged() id.RoomID {
	r := w.Room(alice(), version)
	w.Membership(r, alice(), ghost(), room.ActionInvite)
	w.Join(r, ghost())
	return r
}

// What concerns an application service is told in order, once, under numbers that rise; the rest is not.
func TestDelivery(t *testing.T) {
	w := newWorld(t)
	b := newBridge(t)
	before := w.bridged()
	w.say(before, 0, 3)
	w.start(service(t, "irc", b))
	r, other := w.bridged(), w.Room(alice(), version)
	w.say(other, 0, 5)
	want := w.say(r, 0, 5)
	want = append(want, w.say(before, 3, 2)...)
	b.told(want...)
	b.set(func() {
		last := 0
		for _, name := range b.names {
			n, err := strconv.Atoi(strings.Split(name, "-")[0])
			require.NoError(t, err)
			require.Greater(t, n, last)
			last = n
		}
		var types []string
		for _, d := range b.taken {
			for _, e := range d.Events {
				require.NotEqual(t, string(other), e.Room)
				if e.Room == string(r) {
					types = append(types, e.Type)
				}
			}
		}
		require.Equal(t, "m.room.member", types[0], "first it is told of the invitation")
	})
	w.Membership(r, alice(), ghost(), room.ActionKick)
	w.say(r, 5, 1)
	b.told(append(want, w.say(before, 5, 1)...)...)
}

// While it is down, it is owed all, in what is one transaction the same as often as it is tried, and none of it is in memory.
func TestDownAndBack(t *testing.T) {
	w := newWorld(t)
	w.cfg.MaxBatches, w.cfg.MaxEvents = 3, 7
	b := newBridge(t)
	w.start(service(t, "irc", b))
	r, q := w.bridged(), w.bridged()
	want := append(w.say(r, 0, 1), w.say(q, 0, 1)...)
	b.until("the first", func() bool { return len(b.taken) > 0 })
	b.set(func() { b.down = true })
	for i := range 15 {
		want = append(append(want, w.say(r, 2*i+1, 2)...), w.say(q, 2*i+1, 2)...)
	}
	b.until("tried again", func() bool { return b.refused > 5 })
	b.set(func() { b.down = false })
	b.told(want...)
	b.set(func() {
		for _, d := range b.taken {
			require.LessOrEqual(t, len(d.Events), 7)
		}
	})
}

// Whatever of it is killed, and whoever goes on: a transaction whose answer was lost comes again as it was, and nothing is told twice or left
// out.
func TestAnotherGoesOn(t *testing.T) {
	w := newWorld(t)
	w.cfg.MaxEvents = 5
	b := newBridge(t)
	reg := service(t, "irc", b)
	s := w.start(reg)
	r := w.bridged()
	var want []string
	for round := range 4 {
		b.set(func() { b.deaf = 1 + round })
		want = append(want, w.say(r, 10*round, 10)...)
		b.until("in the middle", func() bool { return b.deaf <= round })
		if round%2 == 0 {
			s.kill()
		} else {
			s.stop()
		}
		want = append(want, w.say(r, 100+10*round, 3)...)
		s = w.start(reg)
	}
	b.told(want...)
	b.set(func() { require.Positive(t, b.repeated) })
	require.Eventually(t, func() bool {
		var pending int
		require.NoError(t, w.DB.Pool.QueryRow(w.Ctx(), `SELECT count(*) FROM appservice WHERE body IS NOT NULL`).Scan(&pending))
		return pending == 0
	}, patience, 5*time.Millisecond, "what was taken is not kept")
}

// One who has lost the role stores nothing any more, and so begins no transaction.
func TestWhoHasLostTheRoleSendsNothingNew(t *testing.T) {
	w := newWorld(t)
	b := newBridge(t)
	w.start(service(t, "irc", b))
	r := w.bridged()
	b.told(w.say(r, 0, 1)...)
	w.take()
	w.say(r, 1, 3)
	other := newBridge(t)
	w.start(service(t, "irc", other))
	require.Eventually(t, func() bool { return len(other.messages()) == 3 }, patience, 5*time.Millisecond)
	require.Len(t, b.messages(), 1)
}

// One that never answers delays nobody else.
func TestTheDeadDelayNobody(t *testing.T) {
	w := newWorld(t)
	dead, b := newBridge(t), newBridge(t)
	dead.down = true
	w.start(service(t, "dead", dead), service(t, "irc", b))
	r := w.bridged()
	b.told(w.say(r, 0, 20)...)
	require.Empty(t, dead.messages())
	dead.until("it is tried", func() bool { return dead.refused > 0 && len(dead.names) == 1 })
}

// Who knows the endpoints of before the specification alone is found there.
func TestLegacyPath(t *testing.T) {
	w := newWorld(t)
	b := newBridge(t)
	b.old = true
	w.start(service(t, "irc", b))
	b.told(w.say(w.bridged(), 0, 2)...)
}

// Aliases and room ids in a namespace are reasons too, and so is who sends.
func TestInterest(t *testing.T) {
	for name, tc := range map[string]struct {
		change []string
		act    func(w *world, r id.RoomID)
		want   bool
	}{
		"nothing": {act: func(*world, id.RoomID) {}},
		"alias": {want: true, act: func(w *world, r id.RoomID) {
			w.Do(&room.SetAlias{Alias: "#log_a:" + id.RoomAlias(roomtest.Server), Room: r, By: alice()})
		}},
		"another alias": {act: func(w *world, r id.RoomID) {
			w.Do(&room.SetAlias{Alias: "#else:" + id.RoomAlias(roomtest.Server), Room: r, By: alice()})
		}},
		"room":                  {change: []string{"!watched:heddle.test$", "!.*"}, want: true, act: func(*world, id.RoomID) {}},
		"member":                {want: true, act: func(w *world, r id.RoomID) { w.Membership(r, alice(), ghost(), room.ActionInvite); w.Join(r, ghost()) }},
		"invited":               {act: func(w *world, r id.RoomID) { w.Membership(r, alice(), ghost(), room.ActionInvite) }},
		"sender of the service": {change: []string{"_irc_bot", "alice"}, want: true, act: func(*world, id.RoomID) {}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			b, all := newBridge(t), newBridge(t)
			w.start(service(t, "irc", b, tc.change...), service(t, "all", all, "!watched:heddle.test$", "!.*"))
			r := w.Room(alice(), version)
			tc.act(w, r)
			want := w.say(r, 0, 1)
			all.told(want...)
			mark := w.bridged()
			want = append(want, w.say(mark, 0, 1)...)
			all.told(want...)
			if !tc.want {
				want = want[1:]
			}
			b.told(want...)
		})
	}
}

// A new one is told of what happens from then on; one that is not registered any more is forgotten after a while, and the log is not kept
// for it.
func TestForgotten(t *testing.T) {
	w := newWorld(t)
	b, other := newBridge(t), newBridge(t)
	s := w.start(service(t, "irc", b), service(t, "gone", other))
	s.stop()
	count := func() (n int) {
		require.NoError(t, w.DB.Pool.QueryRow(w.Ctx(), `SELECT count(DISTINCT consumer) FROM cursor WHERE consumer LIKE 'appservice/%'`).Scan(&n))
		return n
	}
	s = w.start(service(t, "irc", b))
	require.Equal(t, 2, count(), "not at once: perhaps it was left out by mistake")
	s.stop()
	w.Exec(`UPDATE appservice SET seen = seen - 8 * 24 * 3600 * 1000`)
	w.start(service(t, "irc", b))
	require.Equal(t, 1, count())
	b.told(w.say(w.bridged(), 0, 1)...)
}

// Receipts and typing are told to those who ask for them, private ones of their own users alone.
func TestEphemeral(t *testing.T) {
	w := newWorld(t)
	b, quiet := newBridge(t), newBridge(t)
	s := w.start(service(t, "irc", b), service(t, "quiet", quiet, "de.sorunome.msc2409.push_ephemeral: true", "x: 1", "org.matrix.msc3202: true", "y: 1"))
	r := w.bridged()
	e := w.Send(r, alice(), "read this")
	b.until("it knows who is in the room", func() bool {
		for _, d := range b.taken {
			for _, x := range d.Events {
				if x.ID == string(e) {
					return true
				}
			}
		}
		return false
	})
	receipt := func(u id.UserID, kind, thread string) {
		w.Do(&room.Receipt{Room: r, User: u, Kind: kind, Thread: thread, Event: e})
	}
	receipt(alice(), "m.read", "")
	receipt(alice(), "m.read.private", "")
	receipt(ghost(), "m.read.private", "main")
	s.HearTyping(&entry.Typing{RoomNid: w.nid(r), RoomId: string(r), UserIds: []string{string(alice())}, Epoch: 1, N: 1})
	s.HearPresence(&entry.PresenceBatch{States: []*entry.PresenceState{
		{UserId: string(alice()), Presence: entry.PresenceOnline, At: 1, WithRooms: true, Rooms: []int64{w.nid(r)}},
		{UserId: "@stranger:far.test", Presence: entry.PresenceOnline, At: 1, WithRooms: true},
		{UserId: "@unheard:far.test", Presence: entry.PresenceOnline, At: 1},
		{UserId: string(ghost()), Presence: entry.PresenceUnavailable, At: 1, WithRooms: true},
	}})
	var got []string
	b.until("all of it", func() bool {
		got = nil
		for _, d := range b.taken {
			for _, x := range d.Ephemeral {
				text, err := json.Marshal(x)
				require.NoError(t, err)
				got = append(got, string(text))
			}
		}
		return len(got) >= 5
	})
	text := strings.Join(got, "\n")
	require.Len(t, got, 5, text)
	for _, want := range []string{
		`"m.read":{"@alice:heddle.test":{"ts":`, `"m.read.private":{"@_irc_ghost:heddle.test":{"thread_id":"main","ts":`,
		`{"content":{"user_ids":["@alice:heddle.test"]},"room_id":"` + string(r) + `","type":"m.typing"}`,
		`"presence":"online"},"sender":"@alice:heddle.test","type":"m.presence"}`,
		`"presence":"unavailable"},"sender":"@_irc_ghost:heddle.test","type":"m.presence"}`,
	} {
		require.Contains(t, text, want)
	}
	require.Equal(t, 3, strings.Count(text, `"room_id":"`+string(r)+`"`))
	s.HearPresence(&entry.PresenceBatch{States: []*entry.PresenceState{{UserId: string(alice()), Presence: entry.PresenceOffline, At: 2}}})
	b.until("whose rooms were not told", func() bool {
		for _, d := range b.taken {
			for _, x := range d.Ephemeral {
				if x["sender"] == string(alice()) && x["content"].(map[string]any)["presence"] == "offline" {
					return true
				}
			}
		}
		return false
	})
	require.Eventually(t, func() bool { return len(quiet.messages()) == 1 }, patience, 5*time.Millisecond)
	quiet.set(func() {
		for _, d := range quiet.taken {
			require.Empty(t, d.Ephemeral)
		}
	})
}

func (w *world) nid(r id.RoomID) (n int64) {
	require.NoError(w.t, w.DB.Pool.QueryRow(w.Ctx(), `SELECT nid FROM room WHERE room_id = $1`, string(r)).Scan(&n))
	return n
}

// Messages to devices of its users, whose devices changed, and how many keys are left are told to those who ask; what was told is
// acknowledged once it is stored.
func TestEncryption(t *testing.T) {
	w := newWorld(t)
	b := newBridge(t)
	w.start(service(t, "irc", b))
	r := w.bridged()
	w.Register(w.front, roomtest.User("stranger"))
	front, _ := w.E2EE()
	_, err := w.front.Do(w.Ctx(), &account.PutDevice{UserID: string(ghost()), DeviceID: "GHOST"})
	require.NoError(t, err)
	for _, u := range []id.UserID{alice(), roomtest.User("stranger")} {
		_, err = w.front.Do(w.Ctx(), &account.PutDevice{UserID: string(u), DeviceID: "NEW"})
		require.NoError(t, err)
	}
	_, err = front.UploadKeys(w.Ctx(), ghost(), "GHOST", &e2ee.Upload{OneTime: map[string]json.RawMessage{
		"curve25519:AAAA": json.RawMessage(`"` + strings.Repeat("a", 43) + `"`),
	}})
	require.NoError(t, err)
	require.NoError(t, front.Send(w.Ctx(), &e2ee.Sending{
		Sender: alice(), Type: "m.room.encrypted", Txn: "1",
		Messages: map[string]map[string]json.RawMessage{
			string(ghost()): {"GHOST": json.RawMessage(`{"secret":"message"}`)}, string(alice()): {"*": json.RawMessage(`{"another":"one"}`)},
		},
	}))
	b.told(w.say(r, 0, 1)...)
	b.until("the message", func() bool {
		n := 0
		for _, d := range b.taken {
			n += len(d.ToDevice)
		}
		return n > 0
	})
	b.until("the lists and counts", func() bool {
		changed, counts := map[string]bool{}, map[string]int{}
		for _, d := range b.taken {
			for _, u := range d.Lists.Changed {
				changed[u] = true
			}
			for alg, n := range d.Counts[string(ghost())]["GHOST"] {
				counts[alg] = n
			}
			require.NotContains(t, d.Lists.Changed, "@stranger:heddle.test")
			for _, m := range d.ToDevice {
				require.Equal(t, map[string]any{
					"type": "m.room.encrypted", "sender": string(alice()), "content": map[string]any{"secret": "message"},
					"to_user_id": string(ghost()), "to_device_id": "GHOST",
				}, m)
			}
		}
		return changed[string(ghost())] && changed[string(alice())] && counts["curve25519"] == 1
	})
	require.Eventually(t, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.acked) == 1
	}, patience, 5*time.Millisecond)
	require.Equal(t, string(ghost()), w.acked[0].User)
	require.Equal(t, "GHOST", w.acked[0].Device)
}

// Whose devices changed after a user of the service came into a room with him is told, also where the shard of the room is read after that of the user.
func TestDevicesAreToldInWhateverOrderShardsAreRead(t *testing.T) {
	w := newWorld(t)
	b := newBridge(t)
	w.start(service(t, "irc", b)).stop()
	user := func(name string, s shard.ID) (u id.UserID) {
		for i := 0; u == "" || w.Shards.Of(string(u)) != s; i++ {
			u = roomtest.User(fmt.Sprint(name, i))
		}
		w.Register(w.front, u)
		return u
	}
	member, stranger := user("member", 0), user("stranger", 0)
	var r id.RoomID
	for r == "" || w.Shards.Of(string(r)) == 0 {
		r = w.Room(member, version)
	}
	w.Room(stranger, version)
	w.Membership(r, member, ghost(), room.ActionInvite)
	w.Join(r, ghost())
	for _, u := range []id.UserID{member, stranger} {
		_, err := w.front.Do(w.Ctx(), &account.PutDevice{UserID: string(u), DeviceID: "NEW"})
		require.NoError(t, err)
	}
	w.start(service(t, "irc", b))
	w.Send(r, member, string(r[1:5])+" 0")
	b.told(string(r[1:5]) + " 0")
	b.set(func() {
		var changed []string
		for _, d := range b.taken {
			changed = append(changed, d.Lists.Changed...)
		}
		require.Contains(t, changed, string(member))
		require.NotContains(t, changed, string(stranger))
	})
}
