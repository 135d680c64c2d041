package msync_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/matrix/filter"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/msync"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// A room is read once for all who come at about the same time, and not once for each: what each of them reads is their own.
func TestARoomIsReadOnceForAll(t *testing.T) {
	const many = 50
	w := roomtest.New(t)
	alice := roomtest.User("alice")
	r := w.Room(alice, "12")
	people := make([]id.UserID, many)
	for i := range people {
		people[i] = roomtest.User(fmt.Sprint("member", i))
		w.Join(r, people[i])
	}
	for i := range 100 {
		w.State(r, alice, "m.x", fmt.Sprint(i), fmt.Sprintf(`{"n":%d}`, i))
	}
	for i := range 25 {
		w.Do(&room.Receipt{Room: r, User: people[i], Kind: room.ReceiptRead, Event: w.Send(r, people[i], fmt.Sprint(i))})
	}
	syncs := func(text string) func(context.Context, *worker, id.UserID) (told, state int, err error) {
		f, err := filter.Parse([]byte(text))
		require.NoError(t, err)
		return func(ctx context.Context, s *worker, u id.UserID) (int, int, error) {
			b, err := s.Sync(ctx, msync.Request{User: u, Filter: f})
			if err != nil {
				return 0, 0, err
			}
			x := parse(t, b).Rooms.Join[string(r)]
			return len(x.Timeline.Events), len(x.states()), nil
		}
	}
	for name, ask := range map[string]func(context.Context, *worker, id.UserID) (told, state int, err error){
		"lazily":        syncs(`{"room":{"state":{"lazy_load_members":true}}}`),
		"whole":         syncs(`{"room":{"timeline":{"limit":20}}}`),
		"state in line": syncs(`{"room":{"timeline":{"limit":40}}}`),
		"sliding": func(ctx context.Context, s *worker, u id.UserID) (int, int, error) {
			b, err := s.slideRaw(ctx, ask(t, u, "", everything))
			if err != nil {
				return 0, 0, err
			}
			var a slidingAnswer
			err = json.Unmarshal(b, &a)
			return len(a.Rooms[string(r)].Timeline), len(a.Rooms[string(r)].State), err
		},
	} {
		s := start(t, w, 256<<20)
		s.settled(t, w)
		read := func(s *worker, u id.UserID) (rows int64, told, state int, err error) {
			ctx, tally := pg.WithTally(t.Context())
			told, state, err = ask(ctx, s, u)
			return tally.Rows(), told, state, err
		}
		one, first, _, err := read(start(t, w, 256<<20), people[0])
		require.NoError(t, err)
		require.Greater(t, one, int64(100))
		var rows atomic.Int64
		var all errgroup.Group
		for _, u := range people {
			all.Go(func() error {
				n, told, state, err := read(s, u)
				if err != nil {
					return err
				}
				rows.Add(n)
				if told != first || state < 100 {
					return fmt.Errorf("%s is told %d events and a state of %d", u, told, state)
				}
				return nil
			})
		}
		require.NoError(t, all.Wait())
		t.Log(name, one, rows.Load())
		require.LessOrEqual(t, rows.Load(), 2*one+8*many, "%s: one user reads %d rows", name, one)
	}
}

// Whatever happens in a room, who comes after it is told so, by a worker that has told others of the room before as by one that has not.
func TestWhatIsReadForAllIsOfNow(t *testing.T) {
	w := roomtest.New(t)
	front := w.Accounts(account.Config{Enabled: true})
	s := start(t, w, 256<<20)
	alice, bob, carol, dave := roomtest.User("alice"), roomtest.User("bob"), roomtest.User("carol"), roomtest.User("dave")
	r := w.Room(alice, "12")
	w.Join(r, bob, carol)
	var sent []id.EventID
	for i := range 8 {
		sent = append(sent, w.Send(r, bob, fmt.Sprint(i)))
	}
	requests := []msync.Request{{}, {StateAfter: true}}
	for _, text := range []string{
		`{"room":{"timeline":{"limit":3},"state":{"lazy_load_members":true}}}`,
		`{"room":{"timeline":{"limit":3,"not_senders":["@bob:heddle.test"]},"state":{"lazy_load_members":true}}}`,
		`{"room":{"timeline":{"limit":0}}}`,
	} {
		f, err := filter.Parse([]byte(text))
		require.NoError(t, err)
		requests = append(requests, msync.Request{Filter: f}, msync.Request{Filter: f, StateAfter: true})
	}
	check := func(what string) {
		t.Helper()
		s.settled(t, w)
		other := start(t, w, 256<<20)
		other.settled(t, w)
		for i, q := range requests {
			for _, u := range []id.UserID{alice, carol, dave} {
				q.User = u
				body := func(by *worker) toldAll {
					b, err := by.Sync(t.Context(), q)
					require.NoError(t, err)
					return parse(t, b)
				}
				require.Equal(t, body(other).Rooms, body(s).Rooms, "%s: request %d of %s", what, i, u)
			}
		}
		for _, q := range []string{elementX, everything} {
			for _, u := range []id.UserID{alice, carol, dave} {
				rooms := func(by *worker) map[string]slidingRoom {
					told := by.slide(t, ask(t, u, "", q)).Rooms
					for _, r := range told { // members stand in any order
						slices.SortFunc(r.State, func(a, b slidingState) int { return strings.Compare(a.ID, b.ID) })
					}
					return told
				}
				require.Equal(t, rooms(other), rooms(s), "%s: sliding, %s", what, u)
			}
		}
	}
	read := func(u id.UserID, kind string, e id.EventID) {
		w.Do(&room.Receipt{Room: r, User: u, Kind: kind, Event: e})
	}
	check("nothing")
	w.Send(r, carol, "more")
	check("a message")
	read(alice, room.ReceiptRead, sent[0])
	read(carol, room.ReceiptReadPrivate, sent[1])
	check("receipts")
	read(alice, room.ReceiptRead, sent[2])
	check("a receipt that moved")
	w.Redact(r, alice, sent[7])
	check("a redaction")
	w.State(r, alice, "m.room.topic", "", `{"topic":"knots"}`)
	check("a topic")
	w.State(r, alice, "m.room.topic", "", `{"topic":"weaves"}`)
	read(bob, room.ReceiptRead, sent[3])
	check("another topic")
	w.Relate(r, bob, "m.replace", sent[6], "edited")
	check("an edit")
	w.Join(r, dave)
	check("somebody came")
	_, err := front.Do(w.Ctx(), &account.SetAccountData{UserID: string(alice), Type: "m.ignored_user_list", Content: []byte(`{"ignored_users":{"` + string(bob) + `":{}}}`)})
	require.NoError(t, err)
	check("somebody is ignored")
	w.Membership(r, alice, carol, room.ActionKick)
	check("somebody went")
	s.Squeeze()
	check("memory was short")
}
