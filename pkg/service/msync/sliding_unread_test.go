package msync_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// What is unread is told with a room's news, and when the user has read it on another device; from memory and from the database.
func TestSlidingTellsWhatIsUnread(t *testing.T) {
	w := roomtest.New(t)
	l := listen(t, w)
	store := &shared{kept: map[string][]byte{}}
	s := startKeeping(t, w, 256<<20, store)
	alice, bob := roomtest.User("alice"), roomtest.User("bob")
	r := w.Room(alice, "11")
	w.State(r, alice, "m.room.join_rules", "", `{"join_rule":"public"}`)
	w.Join(r, bob)
	l.settled(t, w)
	unread := func(a slidingAnswer) unreadCount {
		x, ok := a.Rooms[string(r)]
		require.True(t, ok, "the room is told")
		require.NotNil(t, x.Notification)
		require.NotNil(t, x.Highlight)
		return unreadCount{Notify: *x.Notification, Highlight: *x.Highlight}
	}
	w.Send(r, alice, "one")
	w.Send(r, alice, "two")
	s.settled(t, w)
	a := s.slide(t, ask(t, bob, "", elementX))
	require.Equal(t, unreadCount{Notify: 2}, unread(a))
	last := w.Send(r, alice, "three, bob")
	s.settled(t, w)
	b := s.slide(t, ask(t, bob, a.Pos, elementX))
	three := unread(b)
	require.Equal(t, 3, three.Notify)

	q := ask(t, bob, b.Pos, elementX)
	q.Timeout = 20 * time.Second
	done := make(chan slidingAnswer, 1)
	go func() { done <- s.slide(t, q) }()
	w.Do(&room.Receipt{Room: r, User: bob, Kind: room.ReceiptRead, Event: last})
	c := <-done
	require.Equal(t, unreadCount{}, unread(c))
	require.Empty(t, c.Rooms[string(r)].Timeline)

	// A worker that holds nothing from before tells the same of the same pos.
	other := startKeeping(t, w, 256<<20, store)
	other.settled(t, w)
	q = ask(t, bob, b.Pos, elementX)
	require.Equal(t, unreadCount{}, unread(other.slide(t, q)))
	require.NotContains(t, other.slide(t, ask(t, bob, c.Pos, elementX)).Rooms, string(r))
}

// What happens in a room of the client's window is told from memory.
func TestSlidingOnInTheWindowReadsNothing(t *testing.T) {
	w := roomtest.New(t)
	s := start(t, w, 256<<20)
	alice, bob := roomtest.User("alice"), roomtest.User("bob")
	r := w.Room(alice, "11")
	w.State(r, alice, "m.room.join_rules", "", `{"join_rule":"public"}`)
	w.Join(r, bob)
	ctx, tally := pg.WithTally(t.Context())
	_, err := s.slideRaw(ctx, ask(t, bob, "", elementX))
	require.NoError(t, err)
	require.Positive(t, tally.Count())
	a := s.slide(t, ask(t, bob, "", elementX))
	w.Send(r, alice, "one") // its member event is read once
	s.settled(t, w)
	a = s.slide(t, ask(t, bob, a.Pos, elementX))
	for range 3 {
		w.Send(r, alice, "two")
		s.settled(t, w)
		ctx, tally := pg.WithTally(t.Context())
		b, err := s.slideRaw(ctx, ask(t, bob, a.Pos, elementX))
		require.NoError(t, err)
		require.Zero(t, tally.Count())
		var next slidingAnswer
		require.NoError(t, json.Unmarshal(b, &next))
		require.Len(t, next.Rooms[string(r)].Timeline, 1)
		a = next
	}
}
