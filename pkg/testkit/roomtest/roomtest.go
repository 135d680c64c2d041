// Package roomtest puts a room.Host on a real database, and makes rooms and events in it, for tests.
//
// A World is one master: a database of its own (package pgtest), the fenced writer, the committer, and a host that holds all
// shards. Restart puts another master in its place, on the same database. Test packages that use it should run under
// pgtest.Run. Only _test files and other packages of the test kit may import it.
package roomtest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/infra/cache"
	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/infra/telemetry"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/shardlog/commit"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/commitdb"
	"github.com/heddle-im/heddle/pkg/store/feddb"
	"github.com/heddle-im/heddle/pkg/store/pushdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
)

// Server is the name of the homeserver.
const Server id.ServerName = "heddle.test"

// World is one master on a database.
type World struct {
	T      testing.TB
	DB     *pgtest.DB
	Shards shard.Map
	Key    signing.Key
	Reader *roomdb.Reader
	Host   *room.Host
	// Committer is the master's, for what else is to be written.
	Committer *commit.Committer
	// Metrics are those of the host of rooms, over all masters.
	Metrics *telemetry.Metrics
	// Typing receives what was published about typing; what does not fit is dropped.
	Typing chan room.TypingUsers
	// Preferences are what the host of rooms asks, from the next Restart on; nil: nobody has any.
	Preferences room.Preferences

	options  options
	sessions *pg.DB
	epoch    *atomic.Int64 // which those ask who are still ending with the master before
	stop     func()
}

type options struct {
	shards int
	memory int64
	store  func(commit.Store) commit.Store
	now    func() time.Time
}

// Option changes what New makes.
type Option func(*options)

// WithShards sets the number of shards in place of 4.
func WithShards(n int) Option { return func(o *options) { o.shards = n } }

// WithMemory sets the worker's memory, half of which is for caches, in place of 256 MiB.
func WithMemory(bytes int64) Option { return func(o *options) { o.memory = bytes } }

// WithClock gives the host of rooms another clock.
func WithClock(now func() time.Time) Option { return func(o *options) { o.now = now } }

// WithStore puts something between the committer and the database.
func WithStore(wrap func(commit.Store) commit.Store) Option {
	return func(o *options) { o.store = wrap }
}

// New makes a World, gone when the test ends.
func New(t testing.TB, opts ...Option) *World {
	t.Helper()
	o := options{shards: 4, memory: 256 << 20, now: time.Now}
	for _, f := range opts {
		f(&o)
	}
	key, err := signing.NewKey(id.NewKeyID(id.AlgorithmEd25519, "test"), make([]byte, 32))
	require.NoError(t, err)
	w := &World{
		T: t, DB: pgtest.New(t), Shards: shard.NewMap(string(Server), o.shards), Key: key,
		Metrics: telemetry.NewMetrics(prometheus.NewRegistry()), Typing: make(chan room.TypingUsers, 1024), options: o, epoch: new(atomic.Int64),
	}
	// The writer's session is not counted with the host's reading.
	w.sessions, err = pg.Open(w.Ctx(), pg.Config{DSN: w.DB.DSN, MaxConns: 1}, pg.Options{})
	require.NoError(t, err)
	t.Cleanup(w.sessions.Close)
	w.Reader = roomdb.NewReader(w.DB.Pool)
	for s := range o.shards {
		w.Exec(`INSERT INTO shard_lease (shard, epoch, holder) VALUES ($1, 0, '')`, s)
	}
	w.start()
	t.Cleanup(func() { w.stop() })
	return w
}

// In gives the same World for a subtest.
func (w *World) In(t testing.TB) *World {
	c := *w
	c.T = t
	return &c
}

// Exec runs a statement.
func (w *World) Exec(sql string, args ...any) {
	w.T.Helper()
	_, err := w.DB.Pool.Exec(w.Ctx(), sql, args...)
	require.NoError(w.T, err)
}

// Ctx gives a context that is long enough for anything.
func (w *World) Ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	w.T.Cleanup(cancel)
	return ctx
}

// Restart stops the master in order and starts another one on the same database.
func (w *World) Restart() {
	w.T.Helper()
	w.stop()
	w.start()
}

// start starts a master that takes all shards.
func (w *World) start() {
	w.T.Helper()
	epoch := shard.Epoch(w.epoch.Add(1))
	w.Exec(`UPDATE shard_lease SET epoch = $1, holder = 'm'`, int64(epoch))
	writer := commitdb.NewWriter(commitdb.Options{
		Connect: w.sessions.Connect, Shards: w.options.shards, Holder: func() string { return "m" },
	})
	var store commit.Store = writer
	if w.options.store != nil {
		store = w.options.store(writer)
	}
	master := &master{world: w}
	committer := commit.New(commit.Config{}, commit.Options{Store: store, Publisher: master, Leases: master})
	master.committer, w.Committer = committer, committer
	require.NoError(w.T, committer.Start(w.Ctx()))
	w.Host = room.NewHost(room.Options{
		Server: Server, Shards: w.Shards, Key: w.Key, Committer: committer, DB: w.Reader, Push: pushdb.NewReader(w.DB.Pool), Preferences: w.Preferences, Sets: feddb.NewDB(w.DB.DB), Ephemeral: master,
		Metrics: w.Metrics,
		Budget:  cache.NewBudget(cache.BudgetConfig{Memory: w.options.memory}, nil), Now: w.options.now, Random: rand.Reader,
	})
	host := w.Host
	for s := range w.options.shards {
		require.NoError(w.T, committer.Open(w.Ctx(), shard.ID(s), epoch))
		require.NoError(w.T, host.Open(w.Ctx(), shard.ID(s), epoch))
	}
	w.stop = sync.OnceFunc(func() {
		master.moves.Wait()
		for s := range w.options.shards {
			require.NoError(w.T, host.Close(w.Ctx(), shard.ID(s)))
		}
		require.NoError(w.T, committer.Stop(w.Ctx()))
		writer.Close()
	})
}

// master is what a committer and a host need around them.
type master struct {
	world     *World
	committer *commit.Committer
	moves     sync.WaitGroup
}

func (m *master) Publish(_ shard.ID, _ []byte, acked func(error)) { acked(nil) }
func (m *master) Valid(shard.ID, shard.Epoch) bool                { return true }
func (m *master) Lost(shard.ID, shard.Epoch)                      {}

// Moved opens the shard again under its new epoch, as the leases' owner does.
func (m *master) Moved(s shard.ID, _, to shard.Epoch) {
	m.moves.Go(func() {
		if err := m.world.Host.Open(m.world.Ctx(), s, to); err != nil {
			m.world.T.Error(err)
		}
	})
}

func (m *master) PublishTyping(u room.TypingUsers) {
	select {
	case m.world.Typing <- u:
	default:
	}
}

// Counted reads a counter.
func (w *World) Counted(name string) float64 {
	w.T.Helper()
	families, err := w.Metrics.Gatherer().Gather()
	require.NoError(w.T, err)
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	w.T.Fatalf("nothing is counted as %s", name)
	return 0
}

// User gives a user of this server.
func User(name string) id.UserID { return id.UserID("@" + name + ":" + string(Server)) }

// As gives the origin of a command by a user.
func As(user id.UserID) room.Origin { return room.Origin{User: user, Device: "DEVICE"} }

// Do has a command done, which must not fail. In a test each is done in a millisecond of its own, so that what is ordered by the time
// of events is in the order of the calls.
func (w *World) Do(cmd room.Command) room.Answer {
	w.T.Helper()
	if _, measured := w.T.(*testing.B); !measured {
		for before := time.Now().UnixMilli(); time.Now().UnixMilli() == before; {
			runtime.Gosched()
		}
	}
	a, err := w.Host.Do(w.Ctx(), nil, cmd)
	require.NoError(w.T, err)
	return a
}

// Create makes a room as a request says.
func (w *World) Create(c room.CreateRoom) id.RoomID {
	w.T.Helper()
	r, err := room.Create(w.Ctx(), w.Host, Server, time.Now(), rand.Reader, &c)
	require.NoError(w.T, err)
	return r
}

// Room makes a public room of a version.
func (w *World) Room(by id.UserID, v roomver.Version) id.RoomID {
	w.T.Helper()
	return w.Create(room.CreateRoom{Creator: As(by), Version: v, Preset: room.PresetPublic})
}

// Membership changes a membership, by the target for a join, leave or knock.
func (w *World) Membership(r id.RoomID, by, target id.UserID, a room.Action) id.EventID {
	w.T.Helper()
	return w.Do(&room.SetMembership{Room: r, By: As(by), Target: target, Action: a}).Event
}

// Join joins users to a room.
func (w *World) Join(r id.RoomID, users ...id.UserID) {
	w.T.Helper()
	for _, u := range users {
		w.Membership(r, u, u, room.ActionJoin)
	}
}

// Send sends a text message.
func (w *World) Send(r id.RoomID, by id.UserID, text string) id.EventID {
	w.T.Helper()
	return w.Do(&room.Send{Room: r, By: As(by), Type: "m.room.message", Content: Message(text)}).Event
}

// Relating gives the content of a text message that relates to another event; more are further members of the relation, as JSON.
func Relating(relType string, parent id.EventID, text string, more ...string) []byte {
	body, err := json.Marshal(text)
	if err != nil {
		panic(fmt.Sprintf("encode text: %v", err)) // strings can always be encoded
	}
	relates := fmt.Sprintf(`"rel_type":%q,"event_id":%q`, relType, parent)
	for _, m := range more {
		relates += "," + m
	}
	return fmt.Appendf(nil, `{"msgtype":"m.text","body":%s,"m.new_content":{"msgtype":"m.text","body":%s},"m.relates_to":{%s}}`, body, body, relates)
}

// Relate sends a text message that relates to another event.
func (w *World) Relate(r id.RoomID, by id.UserID, relType string, parent id.EventID, text string) id.EventID {
	w.T.Helper()
	return w.Do(&room.Send{Room: r, By: As(by), Type: "m.room.message", Content: Relating(relType, parent, text)}).Event
}

// Reaction is the command that reacts to an event.
func Reaction(r id.RoomID, by id.UserID, parent id.EventID, key string) *room.Send {
	content := fmt.Appendf(nil, `{"m.relates_to":{"rel_type":"m.annotation","event_id":%q,"key":%q}}`, parent, key)
	return &room.Send{Room: r, By: As(by), Type: "m.reaction", Content: content}
}

// Redact redacts an event.
func (w *World) Redact(r id.RoomID, by id.UserID, target id.EventID) id.EventID {
	w.T.Helper()
	return w.Do(&room.Redact{Room: r, By: As(by), Target: target}).Event
}

// State sets a state event with a JSON content.
func (w *World) State(r id.RoomID, by id.UserID, typ, key, content string) id.EventID {
	w.T.Helper()
	return w.Do(&room.SendState{Room: r, By: As(by), Type: typ, StateKey: key, Content: []byte(content)}).Event
}

// Message gives the content of a text message.
func Message(text string) []byte {
	b, err := json.Marshal(map[string]string{"msgtype": "m.text", "body": text})
	if err != nil {
		panic(fmt.Sprintf("encode message: %v", err)) // strings can always be encoded
	}
	return b
}
