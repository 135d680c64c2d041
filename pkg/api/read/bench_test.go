package read_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// BenchmarkHierarchy reads a space of 500 rooms, twenty of them spaces, in one page.
func BenchmarkHierarchy(b *testing.B) {
	alice := roomtest.User("alice")
	s := &space{stack: newStack(b), alice: alice, ids: map[string]id.RoomID{}}
	s.users(alice)
	s.room("Root", true)
	for i := range 20 {
		inner := fmt.Sprint("space", i)
		s.room(inner, true)
		s.child("Root", inner, "")
		for j := range 24 {
			name := fmt.Sprintf("room%d-%d", i, j)
			s.room(name, false)
			s.child(inner, name, "")
		}
	}
	path := s.path("Root") + "?limit=500"
	first := ok[spaces](s.stack, alice, path)
	require.Len(b, first.Rooms, 500)
	var queries int64
	b.ReportAllocs()
	for b.Loop() {
		status, body, n := s.get(alice, path)
		if status != 200 {
			b.Fatalf("%d %s", status, body)
		}
		queries += n
	}
	b.ReportMetric(float64(queries)/float64(b.N), "queries/op")
}
