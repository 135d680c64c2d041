package timeline_test

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/matrix/filter"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/timeline"
	"github.com/heddle-im/heddle/pkg/store/searchdb"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// size gives how much a benchmark works on: of the size that is asked for by a variable, or a smaller one that is made in a moment.
func size(t testing.TB, variable string, small int) int {
	t.Helper()
	s := os.Getenv(variable)
	if s == "" {
		return small
	}
	n, err := strconv.Atoi(s)
	require.NoError(t, err, variable)
	return n
}

// crowd makes a room of many members.
func crowd(w *world, members int) (id.UserID, id.RoomID) {
	w.T.Helper()
	alice := roomtest.User("alice")
	r := w.Room(alice, roomver.Default)
	var wg sync.WaitGroup
	slots := make(chan struct{}, 64)
	for i := range members - 1 {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			w.Join(r, roomtest.User(fmt.Sprint("member", i)))
		})
	}
	wg.Wait()
	return alice, r
}

// counted runs a request of a benchmark, and tells how many queries one takes.
func (w *world) counted(b *testing.B, request func() ([]byte, error)) {
	b.Helper()
	body, err := request() // pgx learns the statements
	require.NoError(b, err)
	b.ReportAllocs()
	before := w.queries.Count()
	for b.Loop() {
		if _, err := request(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(w.queries.Count()-before)/float64(b.N), "queries/op")
	b.ReportMetric(float64(len(body)), "answer-B")
}

// BenchmarkCrowd reads the members and the state of a large room: of 2,000 members, or of HEDDLE_BENCH_MEMBERS.
func BenchmarkCrowd(b *testing.B) {
	w := newWorld(b)
	n := size(b, "HEDDLE_BENCH_MEMBERS", 2000)
	alice, r := crowd(w, n)
	for name, request := range map[string]func() ([]byte, error){
		"members": func() ([]byte, error) {
			return w.rooms.Members(b.Context(), as(alice), timeline.MembersQuery{Room: r})
		},
		"joined_members": func() ([]byte, error) { return w.rooms.JoinedMembers(b.Context(), as(alice), r) },
		"state":          func() ([]byte, error) { return w.rooms.State(b.Context(), as(alice), r) },
	} {
		b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) { w.counted(b, request) })
	}
}

// TestQueriesDoNotGrowWithMembers: nor do those of the members and the state of a room.
func TestQueriesDoNotGrowWithMembers(t *testing.T) {
	w := newWorld(t)
	count := func(members int) (out [3]int64) {
		alice, r := crowd(w, members)
		for i, request := range []func() ([]byte, error){
			func() ([]byte, error) {
				return w.rooms.Members(w.Ctx(), as(alice), timeline.MembersQuery{Room: r})
			},
			func() ([]byte, error) { return w.rooms.JoinedMembers(w.Ctx(), as(alice), r) },
			func() ([]byte, error) { return w.rooms.State(w.Ctx(), as(alice), r) },
		} {
			before := w.queries.Count()
			_, err := request()
			require.NoError(t, err)
			out[i] = w.queries.Count() - before
		}
		return out
	}
	count(2)
	few, many := count(3), count(150)
	require.Equal(t, few, many)
	require.LessOrEqual(t, many[0], int64(8))
}

// copies makes some messages like another, each in the index with words of its own.
func copies(w *world, e id.EventID, alice id.UserID, from, to int) {
	w.Exec(`INSERT INTO event (nid, room_nid, ord, event_id, type, sender, depth, ts, state_before, state_after, json)
		SELECT nid + (g << 8), room_nid, ord + g, event_id || g, type, sender, depth, ts + g, state_before, state_after, json
		FROM event, generate_series($2::bigint, $3::bigint) g WHERE event_id = $1`, string(e), int64(from), int64(to))
	w.Exec(`INSERT INTO search_event (event_nid, room_nid, ts, words)
		SELECT nid + (g << 8), room_nid, ts + g,
			format('''#r%s'' ''#kcontent.body'' ''#s%s'' ''warp'':1A ''n%s'':2A', room_nid, $4::text, g % 1000)::tsvector
		FROM event, generate_series($2::bigint, $3::bigint) g WHERE event_id = $1`, string(e), int64(from), int64(to), string(alice))
}

// BenchmarkSearch looks for words among 50,000 messages, or as many as HEDDLE_BENCH_MESSAGES says: a word that each has, one that every
// thousandth has, and both.
func BenchmarkSearch(b *testing.B) {
	w := newWorld(b)
	n := size(b, "HEDDLE_BENCH_MESSAGES", 50_000)
	alice := roomtest.User("alice")
	r := w.Room(alice, roomver.Default)
	e := w.Send(r, alice, "warp and weft")
	// One message, over and over, with other words in the index: as they are found that is all that matters of them.
	const atOnce = 50_000
	for from := 1; from <= n; from += atOnce {
		copies(w, e, alice, from, min(from+atOnce-1, n))
	}
	w.Exec(`INSERT INTO cursor (consumer, shard, pos) SELECT $1, shard, max(pos) FROM log GROUP BY shard`, searchdb.EventsConsumer) // all is indexed
	w.Exec(`ANALYZE`)
	db, err := pg.Open(w.Ctx(), pg.Config{DSN: w.DB.DSN, MaxConns: 4}, pg.Options{Counter: w.queries})
	require.NoError(b, err)
	b.Cleanup(db.Close)
	search := timeline.NewSearch(w.rooms, searchdb.NewReader(db.Primary))
	limit := 10
	for _, q := range []struct {
		name, term string
		byRank     bool
	}{{"rare", "n7", true}, {"rare, latest first", "n7", false}, {"both", "warp n7", true}, {"common", "warp", true}, {"common, latest first", "warp", false}} {
		b.Run(fmt.Sprintf("%s/%d", q.name, n), func(b *testing.B) {
			w.counted(b, func() ([]byte, error) {
				body, err := search.Events(b.Context(), as(alice), timeline.SearchQuery{
					Term: q.term, ByRank: q.byRank, Filter: &filter.RoomEventFilter{EventFilter: filter.EventFilter{Limit: &limit}},
				})
				if err == nil {
					require.Contains(b, string(body), `"event_id"`)
				}
				return body, err
			})
		})
	}
}
