package readdb_test

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/readdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

// world is a room and its timeline as it is stored.
type world struct {
	*roomtest.World
	db   *readdb.Reader
	room id.RoomID
	ref  roomdb.RoomRef
}

func newWorld(t *testing.T, by id.UserID) *world {
	t.Helper()
	w := &world{World: roomtest.New(t)}
	w.db = readdb.NewReader(w.Reader, w.Shards)
	w.room = w.Room(by, "12")
	var ok bool
	var err error
	w.ref, ok, err = w.db.RoomByID(w.Ctx(), w.room)
	require.NoError(t, err)
	require.True(t, ok)
	return w
}

// items gives the events of the room, in their order.
func (w *world) items() []*readdb.Item {
	w.T.Helper()
	stored, err := w.db.TimelineForward(w.Ctx(), w.ref.Nid, roomdb.Beginning, roomdb.End, 10_000)
	require.NoError(w.T, err)
	items, err := w.db.Items(w.Ctx(), w.ref.Version, stored)
	require.NoError(w.T, err)
	return items
}

// told gives what is shown of items to somebody, less what depends on how they were read.
func told(t *testing.T, user id.UserID, items []*readdb.Item) []string {
	t.Helper()
	out := make([]string, len(items))
	for i, it := range items {
		var v any
		require.NoError(t, json.Unmarshal(it.Append(nil, readdb.Viewer{User: user, Now: time.UnixMilli(0)}, false), &v))
		b, err := json.Marshal(without(v))
		require.NoError(t, err)
		out[i] = string(b)
	}
	return out
}

// without removes the members that are not compared, at any depth.
func without(v any) any {
	switch v := v.(type) {
	case map[string]any:
		delete(v, "membership")
		for k := range v {
			v[k] = without(v[k])
		}
	case []any:
		for i := range v {
			v[i] = without(v[i])
		}
	}
	return v
}

// Two ways come to the same, for random families of events: from the database's indices, and from the events at hand.
func TestAggregateIsGather(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 9))
			users := []id.UserID{roomtest.User("alice"), roomtest.User("bob"), roomtest.User("carol")}
			w := newWorld(t, users[0])
			w.Join(w.room, users[1:]...)
			var events []id.EventID
			kinds := []string{"m.thread", "m.thread", "m.replace", "m.replace", "m.reference", "m.annotation", "org.example.x"}
			for range 250 {
				by := users[rnd.IntN(len(users))]
				if len(events) < 5 || rnd.IntN(6) == 0 {
					events = append(events, w.Send(w.room, by, "x"))
					continue
				}
				target := events[max(rnd.IntN(len(events)), rnd.IntN(len(events)))]
				if rnd.IntN(8) == 0 {
					w.Redact(w.room, users[0], target)
					continue
				}
				c := &room.Send{
					Room: w.room, By: room.Origin{User: by, TS: int64(1000 + rnd.IntN(20))}, Type: "m.room.message",
					Content: roomtest.Relating(kinds[rnd.IntN(len(kinds))], target, "y"),
				}
				switch rnd.IntN(10) {
				case 0:
					c.Type = "m.sticker"
				case 1:
					c.Content = fmt.Appendf(nil, `{"m.relates_to":{"rel_type":"m.replace","event_id":%q}}`, target)
				}
				a, err := w.Host.Do(w.Ctx(), nil, c) // a thread at what relates to another is refused
				if err == nil {
					events = append(events, a.Event)
				}
			}
			for _, ignored := range []map[string]bool{nil, {string(users[1]): true}, {string(users[0]): true, string(users[2]): true}} {
				for _, user := range users {
					a, ok, err := w.db.Access(w.Ctx(), w.room, user)
					require.NoError(t, err)
					require.True(t, ok)
					read := w.items()
					require.NoError(t, w.db.Aggregate(w.Ctx(), &a, user, ignored, read))
					at := w.items()
					gathered := readdb.Gather(user, ignored, at, at)
					want, got := told(t, user, gathered), told(t, user, read)
					for i := range want {
						require.Equal(t, want[i], got[i])
					}
					families := 0
					for _, it := range read {
						if it.Relations != nil {
							families++
						}
					}
					require.Greater(t, families, 10)
					for _, it := range at {
						require.Nil(t, it.Relations, "what others may be shown is left alone")
					}

					// Up to some place, nothing that came later counts.
					a.Until = at[len(at)/2].Ord
					read = w.items()[:len(at)/2+1]
					require.NoError(t, w.db.Aggregate(w.Ctx(), &a, user, ignored, read))
					got = told(t, user, read)
					want = told(t, user, readdb.Gather(user, ignored, at[:len(at)/2+1], at[:len(at)/2+1]))
					for i := range want {
						require.Equal(t, want[i], got[i])
					}
				}
			}
			w.checkThreads()
		})
	}
}

// checkThreads compares who takes part in threads with what the events say.
func (w *world) checkThreads() {
	w.T.Helper()
	var kept, counted int
	require.NoError(w.T, w.DB.Pool.QueryRow(w.Ctx(), `SELECT count(*) FROM thread_part`).Scan(&kept))
	require.NoError(w.T, w.DB.Pool.QueryRow(w.Ctx(), `
		SELECT count(*) FROM thread_part t JOIN (
			SELECT room_nid, relates_to, sender, max(ord) AS ord FROM event WHERE relation = 2 AND redacted_by = 0 AND ord IS NOT NULL
			GROUP BY 1, 2, 3
		) e ON e.room_nid = t.room_nid AND e.relates_to = t.root AND e.sender = t.sender AND e.ord = t.ord`).Scan(&counted))
	require.Equal(w.T, counted, kept)
	require.NotZero(w.T, kept)
}

// States read at once are those that are read one by one.
func TestStates(t *testing.T) {
	alice := roomtest.User("alice")
	w := newWorld(t, alice)
	for i := range 70 {
		w.State(w.room, alice, "m.x", fmt.Sprint(i%9), fmt.Sprintf(`{"n":%d}`, i))
	}
	items := w.items()
	var all []shard.Nid
	for _, it := range items {
		all = append(all, it.StateBefore, it.StateAfter)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 20 {
		some := slices.DeleteFunc(slices.Clone(all), func(shard.Nid) bool { return rnd.IntN(4) > 0 })
		w.DB.Counter.Reset()
		got, err := w.db.States(w.Ctx(), some)
		require.NoError(t, err)
		require.LessOrEqual(t, w.DB.Counter.Count(), int64(2))
		require.Len(t, got, len(some))
		for _, n := range some {
			want, err := w.db.State(w.Ctx(), n)
			require.NoError(t, err)
			require.Equal(t, want.Len(), got[n].Len())
			for k, e := range want.All() {
				other, ok := got[n].Get(k)
				require.True(t, ok)
				require.Equal(t, e, other)
			}
		}
	}
	got, err := w.db.States(w.Ctx(), []shard.Nid{math.MaxInt64})
	require.NoError(t, err)
	require.Empty(t, got)
}
