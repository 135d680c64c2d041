package msync_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/matrix/filter"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/msync"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// What is written wakes those whom it concerns and nobody else, of many who wait: the waiting members of its room, with as many requests as
// they have, or the one user whose it is.
func TestWakeUps(t *testing.T) {
	w := roomtest.New(t)
	s := start(t, w, 256<<20)
	front := w.Accounts(account.Config{})
	rooms := make([]id.RoomID, 4)
	people := make([][]id.UserID, len(rooms))
	for i := range rooms {
		maker := roomtest.User(fmt.Sprintf("maker%d", i))
		rooms[i] = w.Room(maker, "12")
		for j := range 2 + 2*i {
			u := roomtest.User(fmt.Sprintf("u%d-%d", i, j))
			w.Join(rooms[i], u)
			people[i] = append(people[i], u)
		}
	}
	both := people[1][0]
	w.Join(rooms[2], both)
	people[2] = append(people[2], both)
	earlier := w.Send(rooms[3], roomtest.User("maker3"), "before")
	s.settled(t, w)

	waiting := map[id.UserID][]*msync.Pending{}
	ctx, cancel := context.WithCancel(t.Context())
	for _, list := range people {
		for _, u := range list {
			if waiting[u] != nil {
				continue
			}
			since := s.sync(t, msync.Request{User: u}).Next
			for range 1 + len(u)%2 { // some with two devices
				body, p, err := s.Begin(ctx, msync.Request{User: u, Since: since, Timeout: time.Minute}, nil)
				require.NoError(t, err)
				require.Nil(t, body)
				waiting[u] = append(waiting[u], p)
			}
		}
	}
	defer func() {
		cancel()
		for _, list := range waiting {
			for _, p := range list {
				_, _ = p.Wait(ctx)
			}
		}
	}()
	woken := map[id.UserID]bool{}
	check := func(what string, more ...id.UserID) {
		t.Helper()
		s.settled(t, w)
		for _, u := range more {
			woken[u] = true
		}
		for u, list := range waiting {
			for _, p := range list {
				require.Equal(t, woken[u], p.Woken(), "%s: %s", what, u)
			}
		}
	}
	check("nothing")
	event := w.Send(rooms[1], roomtest.User("maker1"), "hello")
	check("a message", people[1]...)
	w.Do(&room.Receipt{Room: rooms[3], User: people[3][0], Kind: room.ReceiptReadPrivate, Event: earlier})
	check("a private receipt", people[3][0])
	_, err := front.Do(w.Ctx(), &account.SetAccountData{UserID: string(people[3][1]), Type: "m.x", Content: []byte(`{}`)})
	require.NoError(t, err)
	check("account data", people[3][1])
	w.Do(&room.Receipt{Room: rooms[1], User: people[1][1], Kind: room.ReceiptRead, Event: event})
	check("a receipt in a room whose members are awake")
	w.Membership(rooms[3], roomtest.User("maker3"), people[2][0], room.ActionInvite)
	check("an invitation", append([]id.UserID{people[2][0]}, people[3]...)...)
}

// A sync that finds nothing new allocates no more for a user of many rooms than for one of few.
func TestAllocationsOfALook(t *testing.T) {
	w := roomtest.New(t)
	s := start(t, w, 256<<20)
	alice := roomtest.User("alice")
	looks := func() float64 {
		s.settled(t, w)
		since := s.sync(t, msync.Request{User: alice}).Next
		gone, leave := context.WithCancel(t.Context())
		leave()
		return testing.AllocsPerRun(50, func() {
			_, p, err := s.Begin(t.Context(), msync.Request{User: alice, Since: since, Timeout: time.Minute}, nil)
			if err != nil || p == nil {
				t.Fatal("it does not wait", err)
			}
			_, _ = p.Wait(gone)
		})
	}
	w.Room(alice, "12")
	few := looks()
	for range 40 {
		w.Room(alice, "12")
	}
	require.InDelta(t, few, looks(), 10)
}

// The rows that a first sync reads are as many as what it tells needs: neither what has happened before, nor members who are not told, nor the
// rooms of others count.
func TestRowsOfAFirstSync(t *testing.T) {
	w := roomtest.New(t)
	alice := roomtest.User("alice")
	var rooms []id.RoomID
	grow := func(messages, members int) {
		for _, r := range rooms {
			for i := range members {
				w.Join(r, roomtest.User(fmt.Sprintf("m%d-%d", i, messages)))
			}
			for i := range messages {
				w.Send(r, alice, fmt.Sprint(i))
			}
		}
	}
	f, err := filter.Parse([]byte(`{"room":{"timeline":{"limit":5},"state":{"lazy_load_members":true}}}`))
	require.NoError(t, err)
	first := func() (rows, statements int64, events int) {
		s := start(t, w, 256<<20)
		none, err := filter.Parse([]byte(`{"room":{"rooms":[]}}`))
		require.NoError(t, err)
		s.sync(t, msync.Request{User: alice, Filter: none}) // what it holds of the user is read beside
		ctx, tally := pg.WithTally(t.Context())
		b, err := s.Sync(ctx, msync.Request{User: alice, Filter: f})
		require.NoError(t, err)
		for _, x := range parse(t, b).Rooms.Join {
			events += len(x.Timeline.Events) + len(x.states())
		}
		return tally.Rows(), tally.Count(), events
	}
	for range 3 {
		rooms = append(rooms, w.Room(alice, "12"))
	}
	grow(10, 10)
	rows, statements, events := first()
	t.Log(rows, statements, events)
	require.LessOrEqual(t, rows, int64(4*events), "rows for %d events", events)

	grow(60, 25)
	for i := range 5 { // of others
		w.Join(w.Room(roomtest.User("maker"), "12"), roomtest.User(fmt.Sprint("other", i)))
	}
	more, again, same := first()
	t.Log(more, again, same)
	require.InDelta(t, events, same, 15)
	require.LessOrEqual(t, more, rows+int64(4*(same-events))+30, "after 180 more messages and 75 more members")

	for range 3 {
		rooms = append(rooms, w.Room(alice, "12"))
	}
	rooms = rooms[3:]
	grow(10, 10)
	twice, _, events2 := first()
	t.Log(twice, events2)
	require.LessOrEqual(t, twice, more*int64(events2)*5/int64(same)/4, "twice as many rooms")
}

func parse(t testing.TB, b []byte) (a toldAll) {
	t.Helper()
	require.NoError(t, json.Unmarshal(b, &a))
	return a
}
