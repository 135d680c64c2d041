package room

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

type heard struct {
	mu  sync.Mutex
	all []TypingUsers
}

func (h *heard) PublishTyping(u TypingUsers) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, u)
}

func (h *heard) list() []TypingUsers {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.all)
}

// pass lets time go by in a bubble.
func pass(d time.Duration) {
	<-time.After(d)
}

func TestTypistsFallSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h heard
		ty := newTypists(3, 7, &h)
		nid := shard.MakeNid(3, 1)
		ty.set(nid, "!r", "@a", 0) // nothing to say
		ty.set(nid, "!r", "@a", 10*time.Second)
		ty.set(nid, "!r", "@b", 30*time.Second)
		pass(5 * time.Second)
		ty.set(nid, "!r", "@a", 10*time.Second) // goes on: nothing new
		synctest.Wait()
		require.Len(t, h.list(), 2)
		pass(11 * time.Second)
		synctest.Wait()
		require.Len(t, h.list(), 3)
		ty.set(nid, "!r", "@b", 0)
		require.Len(t, h.list(), 4)
		want := [][]id.UserID{{"@a"}, {"@a", "@b"}, {"@b"}, nil}
		for i, u := range h.list() {
			require.Equal(t, TypingUsers{Shard: 3, Epoch: 7, N: int64(i + 1), RoomNid: nid, Room: "!r", Users: want[i]}, u)
		}
		ty.set(nid, "!r", "@a", 10*time.Second)
		ty.stop()
		pass(time.Minute)
		synctest.Wait()
		require.Len(t, h.list(), 5)
		ty.set(nid, "!r", "@c", time.Second)
		require.Len(t, h.list(), 5)
	})
}
