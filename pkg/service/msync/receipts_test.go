package msync_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/service/msync"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// Who has read one event in no thread, in the main one and in a thread of its own is told all of it, what is in no thread first.
func TestReceiptsOfSeveralThreadsAtOneEvent(t *testing.T) {
	w := roomtest.New(t)
	alice, bob := roomtest.User("alice"), roomtest.User("bob")
	r := w.Room(alice, "12")
	w.Join(r, bob)
	e := w.Send(r, alice, "read me")
	s := start(t, w, 256<<20)
	b0 := s.sync(t, msync.Request{User: bob})
	for _, thread := range []string{string(e), "main", ""} {
		w.Do(&room.Receipt{Room: r, User: alice, Kind: room.ReceiptRead, Thread: thread, Event: e})
	}
	w.Do(&room.Receipt{Room: r, User: bob, Kind: room.ReceiptRead, Thread: "main", Event: e})
	s.settled(t, w)
	for _, since := range []string{b0.Next, ""} { // from memory, and from the database
		var threads []string
		bobs := 0
		for _, x := range s.sync(t, msync.Request{User: bob, Since: since}).Rooms.Join[string(r)].Ephemeral.Events {
			require.Equal(t, "m.receipt", x.Type)
			var content map[string]map[string]map[string]struct {
				Thread string `json:"thread_id"`
			}
			require.NoError(t, json.Unmarshal(x.Content, &content))
			threads = append(threads, content[string(e)]["m.read"][string(alice)].Thread)
			if b, ok := content[string(e)]["m.read"][string(bob)]; ok {
				bobs++
				require.Equal(t, "main", b.Thread)
			}
		}
		require.Len(t, threads, 3)
		require.Empty(t, threads[0])
		require.ElementsMatch(t, []string{"", "main", string(e)}, threads)
		require.Equal(t, 1, bobs)
	}
}
