package timeline_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/service/timeline"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// TestReadingWhileOthersWrite: ten write, redact, come and go; one reads forward as it grows, and others read all of it backward from
// wherever the end is just then. Each sees each event exactly once and in one order.
func TestReadingWhileOthersWrite(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t)
			alice := roomtest.User("alice")
			r := w.Room(alice, "11")
			var writers sync.WaitGroup
			var done atomic.Bool
			for n := range 10 {
				u := roomtest.User(fmt.Sprint("writer", n))
				w.Join(r, u)
				writers.Go(func() { w.scribble(r, u, rand.New(rand.NewPCG(seed, uint64(n))), 30) })
			}
			go func() { writers.Wait(); done.Store(true) }()
			forward := &reader{w: w, room: r, limit: 7, dir: timeline.Forward, seen: map[string]bool{}}
			rnd := rand.New(rand.NewPCG(seed, 99))
			for !done.Load() {
				forward.page(t)
				back := &reader{w: w, room: r, limit: 1 + rnd.IntN(40), dir: timeline.Backward, seen: map[string]bool{}}
				for back.page(t) {
					if rnd.IntN(20) == 0 { // turn round for a page, and go on from where it was
						there := *back
						there.dir, there.seen, there.order = timeline.Forward, map[string]bool{}, nil
						there.page(t)
					}
				}
				require.Equal(t, "m.room.create", back.last.Type, "backward comes to the beginning")
				// From where the reading began, what has come since is found.
				on := &reader{w: w, room: r, limit: 1000, dir: timeline.Forward, from: back.began, seen: back.seen}
				on.page(t)
			}
			for forward.page(t) {
			}
			require.Equal(t, w.stored(r), forward.order, "all of them, in the room's order")
		})
	}
}

// reader reads a room page by page, and fails if it sees an event twice.
type reader struct {
	w     *world
	room  id.RoomID
	limit int
	dir   timeline.Dir
	from  string
	began string
	seen  map[string]bool
	order []string
	last  shown
}

// page reads a page; false says that there is no more, for now.
func (r *reader) page(t *testing.T) bool {
	t.Helper()
	p, code := r.w.messages(roomtest.User("alice"), timeline.Page{Room: r.room, From: r.from, Dir: r.dir, Limit: r.limit})
	require.Empty(t, code)
	if r.began == "" {
		r.began = p.Start
	}
	for i := range p.Chunk {
		e := &p.Chunk[i]
		require.False(t, r.seen[e.ID], "%s is told twice", e.ID)
		r.seen[e.ID], r.last = true, *e
		r.order = append(r.order, e.ID)
	}
	if p.End == "" {
		return false
	}
	r.from = p.End
	return len(p.Chunk) > 0
}

// scribble does things in a room, as one who may.
func (w *world) scribble(r id.RoomID, u id.UserID, rnd *rand.Rand, count int) {
	var mine []id.EventID
	for i := range count {
		var cmd room.Command
		switch n := rnd.IntN(10); {
		case n == 0 && len(mine) > 0:
			cmd = &room.Redact{Room: r, By: roomtest.As(u), Target: mine[rnd.IntN(len(mine))]}
		case n == 1:
			cmd = &room.SetMembership{Room: r, By: roomtest.As(u), Target: u, Action: room.ActionLeave}
		case n == 2:
			cmd = &room.SetProfile{Room: r, User: u, Profile: room.Profile{DisplayName: fmt.Sprint(i)}}
		default:
			cmd = &room.Send{Room: r, By: roomtest.As(u), Type: "m.room.message", Content: roomtest.Message(fmt.Sprint(u, i))}
		}
		a, err := w.Host.Do(w.Ctx(), nil, cmd)
		if err != nil {
			w.T.Error(err)
			return
		}
		if _, left := cmd.(*room.SetMembership); left {
			if _, err := w.Host.Do(w.Ctx(), nil, &room.SetMembership{Room: r, By: roomtest.As(u), Target: u, Action: room.ActionJoin}); err != nil {
				w.T.Error(err)
				return
			}
		} else if a.Event != "" {
			mine = append(mine, a.Event)
		}
	}
}

// stored gives a room's events in their order, from the database.
func (w *world) stored(r id.RoomID) (out []string) {
	w.T.Helper()
	rows, err := w.DB.Pool.Query(w.Ctx(), `SELECT event_id FROM event e JOIN room r ON r.nid = e.room_nid WHERE r.room_id = $1 AND ord IS NOT NULL ORDER BY ord`, string(r))
	require.NoError(w.T, err)
	defer rows.Close()
	for rows.Next() {
		var e string
		require.NoError(w.T, rows.Scan(&e))
		out = append(out, e)
	}
	require.NoError(w.T, rows.Err())
	return out
}

// TestAnyPagesComeToTheSame: a user comes and goes under changing visibilities; whatever the size of the pages and their direction,
// reading gives the same events, those that each event by itself says the user may see.
func TestAnyPagesComeToTheSame(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 3))
			w := newWorld(t)
			alice, bob := roomtest.User("alice"), roomtest.User("bob")
			r := w.Room(alice, "11")
			in := false
			var said []id.EventID
			for i := range 60 {
				switch n := rnd.IntN(12); {
				case n == 0:
					w.visibility(r, alice, []string{"shared", "joined", "invited", "world_readable"}[rnd.IntN(4)])
				case n <= 2 && in:
					w.leave(r, bob)
					in = false
				case n <= 2:
					w.Join(r, bob)
					in = true
				case n == 3 && len(said) > 0:
					w.Do(&room.Redact{Room: r, By: roomtest.As(alice), Target: said[rnd.IntN(len(said))]})
				default:
					said = append(said, w.Send(r, alice, fmt.Sprint(i)))
				}
			}
			if !in {
				w.Join(r, bob)
			}
			var want []string
			for _, e := range w.stored(r) {
				if _, code := w.event(bob, r, id.EventID(e)); code == "" {
					want = append(want, e)
				}
			}
			for _, limit := range []int{1, 2, 7, 100} {
				for _, dir := range []timeline.Dir{timeline.Forward, timeline.Backward} {
					var got []string
					from := ""
					for range 1000 {
						p, code := w.messages(bob, timeline.Page{Room: r, From: from, Dir: dir, Limit: limit})
						require.Empty(t, code)
						for i := range p.Chunk {
							got = append(got, p.Chunk[i].ID)
						}
						if from = p.End; from == "" {
							break
						}
					}
					if dir == timeline.Backward {
						slices.Reverse(got)
					}
					require.Equal(t, want, got, "%d at a time, forward: %v", limit, dir)
				}
			}
		})
	}
}

// full makes a room in which one joined late has a hundred events to read, all different: messages, state, redactions, children.
func full(t testing.TB, w *world, events int) (id.UserID, id.RoomID) {
	t.Helper()
	alice, bob := roomtest.User("alice"), roomtest.User("bob")
	r := w.Room(alice, "11")
	for i := range events {
		switch i % 4 {
		case 0:
			w.State(r, alice, "x", fmt.Sprint(i%8), fmt.Sprintf(`{"n":%d}`, i))
		case 1:
			e := w.Send(r, alice, "gone")
			w.Do(&room.Redact{Room: r, By: roomtest.As(alice), Target: e})
		default:
			w.Send(r, alice, fmt.Sprint(i))
		}
	}
	w.Join(r, bob)
	return bob, r
}

// TestQueriesDoNotGrow: a page takes as many queries with ten events as with a hundred, whatever they are.
func TestQueriesDoNotGrow(t *testing.T) {
	w := newWorld(t)
	bob, r := full(t, w, 100)
	count := func(limit int, f string) int64 {
		before := w.queries.Count()
		p, code := w.messages(bob, timeline.Page{Room: r, Limit: limit, Filter: parse(t, f)})
		require.Empty(t, code)
		require.Len(t, p.Chunk, limit)
		return w.queries.Count() - before
	}
	count(1, `{}`) // pgx learns the statements
	few, many := count(10, `{}`), count(100, `{}`)
	require.Equal(t, few, many)
	require.LessOrEqual(t, many, int64(14))
	require.Equal(t, count(10, `{"lazy_load_members":true}`), count(100, `{"lazy_load_members":true}`))
}

func BenchmarkMessages100(b *testing.B) {
	w := newWorld(b)
	bob, r := full(b, w, 200)
	alice := roomtest.User("alice")
	for name, u := range map[string]id.UserID{"member": alice, "joined late": bob} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			before := w.queries.Count()
			for b.Loop() {
				if _, err := w.rooms.Messages(b.Context(), as(u), timeline.Page{Room: r, Limit: 100}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(w.queries.Count()-before)/float64(b.N), "queries/op")
		})
	}
}

// TestAMessageWritesAsManyRowsToTwoThousand as to two: the rows of all tables are counted.
func TestAMessageWritesAsManyRowsToTwoThousand(t *testing.T) {
	w := newWorld(t)
	alice := roomtest.User("alice")
	rows := func() map[string]int64 {
		t.Helper()
		out := map[string]int64{}
		var tables []string
		q, err := w.DB.Pool.Query(w.Ctx(), `SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace`)
		require.NoError(t, err)
		for q.Next() {
			var name string
			require.NoError(t, q.Scan(&name))
			tables = append(tables, name)
		}
		require.NoError(t, q.Err())
		for _, name := range tables {
			var n int64
			// xmin tells of rows that were changed, which count as much as new ones.
			require.NoError(t, w.DB.Pool.QueryRow(w.Ctx(), `SELECT count(*) FROM "`+name+`" WHERE xmin::text::bigint >= $1::bigint`, w.mark).Scan(&n))
			if n > 0 {
				out[name] = n
			}
		}
		return out
	}
	written := func(members int) map[string]int64 {
		t.Helper()
		r := w.Room(alice, "11")
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
		w.Send(r, alice, "warm")
		require.NoError(t, w.DB.Pool.QueryRow(w.Ctx(), `SELECT txid_current()`).Scan(&w.mark))
		w.Send(r, alice, "hello")
		return rows()
	}
	two := written(2)
	require.Equal(t, int64(1), two["event"])
	require.Equal(t, int64(1), two["log"])
	require.Equal(t, two, written(2000))
	t.Log(two)
}
