package msync_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// slidingWorld has one user in many rooms.
func slidingWorld(b *testing.B, rooms int) (*roomtest.World, *worker, []id.RoomID) {
	w := roomtest.New(b)
	alice := roomtest.User("alice")
	all := make([]id.RoomID, rooms)
	for i := range all {
		all[i] = w.Room(alice, "11")
	}
	s := start(b, w, 256<<20)
	s.settled(b, w)
	return w, s, all
}

// BenchmarkSlidingInitial answers the first request of a client whose user is in 1,000 rooms, of which its window shows twenty.
func BenchmarkSlidingInitial(b *testing.B) {
	_, s, _ := slidingWorld(b, 1000)
	q := ask(b, roomtest.User("alice"), "", elementX)
	var length int
	b.ReportAllocs()
	for b.Loop() {
		body, err := s.slideRaw(b.Context(), q)
		require.NoError(b, err)
		length = len(body)
	}
	b.ReportMetric(float64(length), "B/answer")
}

// BenchmarkSlidingIncremental answers a request after one event in a room of the window, from memory.
func BenchmarkSlidingIncremental(b *testing.B) {
	w, s, rooms := slidingWorld(b, 100)
	alice := roomtest.User("alice")
	a := s.slide(b, ask(b, alice, "", elementX))
	w.Send(rooms[len(rooms)-1], alice, "one") // which is in the window
	s.settled(b, w)
	q := ask(b, alice, a.Pos, elementX)
	b.ReportAllocs()
	for b.Loop() {
		_, err := s.slideRaw(b.Context(), q)
		require.NoError(b, err)
	}
}
