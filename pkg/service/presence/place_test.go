package presence_test

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/service/presence"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// said is a hub that hears of users from another worker.
type said struct {
	*presence.Hub
	*presence.Announcer
	t  testing.TB
	at int64
}

func newSaid(t testing.TB) *said {
	x := &said{t: t, at: time.Now().UnixMilli()}
	x.Hub = presence.New(presence.Options{Origin: "here", Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	x.Announcer = presence.NewAnnouncer(t.Context(), x.Hub, &worker{}, nil, nil)
	return x
}

func (x *said) hear(user string, is entry.PresenceValue, rooms ...shard.Nid) {
	x.t.Helper()
	x.at++
	p := &entry.PresenceState{UserId: user, Presence: is, At: x.at, LastActive: x.at, WithRooms: true}
	for _, r := range rooms {
		p.Rooms = append(p.Rooms, int64(r))
	}
	b, err := entry.EncodePresence(&entry.PresenceBatch{Origin: "there", States: []*entry.PresenceState{p}})
	require.NoError(x.t, err)
	x.Hear(b)
}

func (x *said) news(user string, mark int64, rooms ...shard.Nid) (who []string, worth bool) {
	worth = x.News(user, mark, slices.Values(rooms), nil, func(user string, _ []byte) { who = append(who, user) })
	slices.Sort(who)
	return who, worth
}

// What a reader's sync costs goes with what is new in the reader's rooms, and not with how many others come and go.
func TestNewsLooksAtTheReadersRoomsAlone(t *testing.T) {
	looks := func(others int) int64 {
		x := newSaid(t)
		x.hear(alice, entry.PresenceOnline, 1, 2)
		mark := x.Mark()
		for i := range others {
			x.hear(fmt.Sprintf("@u%d:heddle.test", i), entry.PresenceOnline, shard.Nid(10+i/10))
		}
		x.hear(bob, entry.PresenceOnline, 2, 3)
		for _, m := range []int64{mark, 1} { // one who waits, and one who was away for long
			who, worth := x.news(alice, m, 1, 2)
			require.Equal(t, []string{bob}, who)
			require.True(t, worth)
		}
		return x.Looked()
	}
	few := looks(10)
	require.Less(t, few, int64(10))
	require.Equal(t, few, looks(10_000))
}

// Whatever users do, a reader is told of just those whose presence changed, or who came into a room of the reader's, after the mark; and
// what is held of rooms goes with how many are in them.
func TestNewsTellsWhatChanged(t *testing.T) {
	const users, rooms, steps = 12, 6, 4000
	type model struct {
		is entry.PresenceValue
		in map[shard.Nid]int // by room: the step at which something was last to be told there
	}
	r := rand.New(rand.NewPCG(1, 2))
	x := newSaid(t)
	all := map[string]*model{}
	marks := []int64{x.Mark()}
	values := []entry.PresenceValue{entry.PresenceOffline, entry.PresenceUnavailable, entry.PresenceOnline}
	for step := 1; step <= steps; step++ {
		user := fmt.Sprintf("@u%d:heddle.test", r.IntN(users))
		is := values[r.IntN(len(values))]
		var now []shard.Nid
		for room := range shard.Nid(rooms) {
			if r.IntN(3) == 0 {
				now = append(now, room+1)
			}
		}
		x.hear(user, is, now...)
		m := all[user]
		if m == nil {
			m = &model{is: -1}
			all[user] = m
		}
		in := map[shard.Nid]int{}
		for _, room := range now {
			was, stayed := m.in[room]
			switch {
			case m.is != is, !stayed && is != entry.PresenceOffline:
				in[room] = step
			default: // who comes in while offline is no news
				in[room] = was
			}
		}
		m.is, m.in = is, in
		marks = append(marks, x.Mark())

		mine := []shard.Nid{shard.Nid(1 + r.IntN(rooms)), shard.Nid(1 + r.IntN(rooms))}
		from := max(0, step-r.IntN(30))
		var must, may []string
		for u, m := range all {
			for _, room := range mine {
				if at, ok := m.in[room]; ok {
					may = append(may, u)
					if at > from {
						must = append(must, u)
					}
				}
			}
		}
		slices.Sort(must)
		must = slices.Compact(must)
		got, worth := x.news("@reader:heddle.test", marks[from], mine...)
		require.Equal(t, len(got) > 0, worth)
		require.Subset(t, got, must, "step %d from %d", step, from)
		require.Subset(t, may, got)
		for _, u := range got { // who came back while offline may be told again, and nobody else
			require.True(t, slices.Contains(must, u) || all[u].is == entry.PresenceOffline, "step %d from %d: %s", step, from, u)
		}
	}
	changes, places := x.Held()
	require.LessOrEqual(t, changes, rooms*(2*users+16))
	require.LessOrEqual(t, places, rooms)
	for u := range all {
		x.hear(u, entry.PresenceOffline)
	}
	_, places = x.Held()
	require.Zero(t, places, "of rooms that nobody is known to be in")
}

// BenchmarkNews is what a sync asks of presence, of a reader with one room of ten, who has waited while all others came online.
func BenchmarkNews(b *testing.B) {
	for _, others := range []int{100, 2_000, 10_000} {
		b.Run(fmt.Sprint(others), func(b *testing.B) {
			x := newSaid(b)
			mark := x.Mark()
			for i := range others {
				x.hear(fmt.Sprintf("@u%d:heddle.test", i), entry.PresenceOnline, shard.Nid(i/10+1))
			}
			b.ReportAllocs()
			for b.Loop() {
				if who, _ := x.news("@reader:heddle.test", mark, 1); len(who) != 10 {
					b.Fatal(len(who))
				}
			}
		})
	}
}
