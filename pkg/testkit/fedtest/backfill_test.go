package fedtest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/testkit/certtest"
	"github.com/heddle-im/heddle/pkg/testkit/fedtest"
)

// page reads a page of a room's timeline backward, and gives where the next one begins, "" at the end.
func page(t *testing.T, u *fedtest.User, room, from string, limit int) (events []string, next string) {
	t.Helper()
	q := url.Values{"dir": {"b"}, "limit": {fmt.Sprint(limit)}}
	if from != "" {
		q.Set("from", from)
	}
	a := u.Must(t, "GET", fedtest.RoomPath(room, "messages")+"?"+q.Encode(), nil)
	for _, e := range a["chunk"].([]any) {
		events = append(events, e.(map[string]any)["event_id"].(string))
	}
	next, _ = a["end"].(string)
	return events, next
}

// history reads all of a room's timeline backward.
func history(t *testing.T, u *fedtest.User, room string, limit int) (events []string) {
	t.Helper()
	for from, pages := "", 0; ; pages++ {
		part, next := page(t, u, room, from, limit)
		events = append(events, part...)
		if next == "" {
			return events
		}
		require.Less(t, pages, 200)
		from = next
	}
}

// Whoever joins a room of another server can read back all that was said before, in the order in which it was said; and so can who was away
// meanwhile. None of it is told as new.
func TestReadingBack(t *testing.T) {
	ca := certtest.NewAuthority(t)
	one, two := fedtest.Run(t, ca, "127.0.0.1"), fedtest.Run(t, ca, "localhost")
	alice, bob := one.NewUser(t, "alice"), two.NewUser(t, "bob")
	for _, v := range versions {
		alice, bob = bob, alice // one way and the other
		t.Run("version "+string(v), func(t *testing.T) {
			room := alice.Create(t, string(v), map[string]any{"preset": "public_chat", "name": "the attic"})
			for i := range 120 {
				alice.Say(t, room, fmt.Sprint("before anybody came ", i))
			}
			alice.Set(t, room, "m.room.name", "", map[string]any{"name": "the cellar"})
			gone := alice.Say(t, room, "a slip")
			alice.Must(t, "PUT", fedtest.RoomPath(room, "redact", gone, "gone"), map[string]any{})
			bob.Join(t, room, alice.Home)
			alice.SeesMember(t, room, bob, "join")
			bob.SeesRoom(t, room, "join")
			require.Equal(t, history(t, alice, room, 500), history(t, bob, room, 30))
			e := bob.Must(t, "GET", fedtest.RoomPath(room, "event", gone), nil)
			require.Empty(t, e["content"], "what was redacted there is not shown here")

			bob.Must(t, "POST", fedtest.RoomPath(room, "leave"), nil)
			alice.SeesMember(t, room, bob, "leave")
			for i := range 30 {
				alice.Say(t, room, fmt.Sprint("while nobody was here ", i))
			}
			bob.Join(t, room, alice.Home)
			alice.SeesMember(t, room, bob, "join")
			bob.SeesRoom(t, room, "join")
			seen := len(bob.Seen.Events[room])
			require.Equal(t, history(t, alice, room, 500), history(t, bob, room, 7))
			last := alice.Say(t, room, "so here we are")
			bob.Sees(t, room, last)
			require.Len(t, bob.Seen.Events[room], seen+1, "what was fetched is not new")
			fedtest.Agree(t, room, alice, bob)
			// What was fetched is passed on like everything else.
			var found int
			require.NoError(t, bob.Home.DB.Pool.QueryRow(t.Context(), `SELECT count(*) FROM event_gap g JOIN room r ON r.nid = g.room_nid
				WHERE r.room_id = $1`, room).Scan(&found))
			require.Zero(t, found, "nothing is missing any more")
		})
	}
}

// Ten users of two servers write, redact, leave and come back, while one reads back, again and again and in pages of any size, through what
// this server was not there for. Each reading has each event once and comes to the beginning, with all that the one before had.
func TestReadingBackWhileOthersWrite(t *testing.T) {
	ca := certtest.NewAuthority(t)
	one, two := fedtest.Run(t, ca, "127.0.0.1"), fedtest.Run(t, ca, "localhost")
	alice, bob := one.NewUser(t, "alice"), two.NewUser(t, "bob")
	room := alice.Create(t, string(roomver.Default), map[string]any{"preset": "public_chat"})
	for i := range 150 {
		alice.Say(t, room, fmt.Sprint("before anybody came ", i))
	}
	bob.Join(t, room, one)
	var writers []*fedtest.User
	for i := range 10 {
		home := []*fedtest.Homeserver{one, two}[i%2]
		u := home.NewUser(t, fmt.Sprint("writer", i))
		u.Join(t, room, one)
		writers = append(writers, u)
	}
	var all errgroup.Group
	for i, u := range writers {
		all.Go(func() error { return scribble(t.Context(), u, room, rand.New(rand.NewPCG(1, uint64(i))), 15) })
	}
	written := make(chan error, 1)
	go func() { written <- all.Wait() }()
	rnd := rand.New(rand.NewPCG(2, 2))
	before := map[string]bool{}
	reading := func() []string {
		read := history(t, bob, room, 5+rnd.IntN(60))
		seen := map[string]bool{}
		for _, e := range read {
			require.False(t, seen[e], "%s is told twice", e)
			seen[e] = true
		}
		for e := range before {
			require.True(t, seen[e], "%s was there, and is not any more", e)
		}
		before = seen
		first := bob.Must(t, "GET", fedtest.RoomPath(room, "event", read[len(read)-1]), nil)
		require.Equal(t, "m.room.create", first["type"])
		return read
	}
	for done := false; !done; {
		reading()
		select {
		case err := <-written:
			require.NoError(t, err)
			done = true
		default:
		}
	}
	// What came last is on its way between the two for a moment yet.
	require.Eventually(t, func() bool {
		here, there := reading(), history(t, alice, room, 100)
		slices.Sort(here)
		slices.Sort(there)
		return slices.Equal(here, there)
	}, time.Minute, 50*time.Millisecond, "both servers have the same events")
}

// scribble does things in a room, as one who may.
func scribble(ctx context.Context, u *fedtest.User, room string, rnd *rand.Rand, count int) error {
	var mine []string
	for i := range count {
		var a struct {
			EventID string `json:"event_id"`
		}
		txn := fmt.Sprint("s", i)
		var err error
		switch n := rnd.IntN(8); {
		case n == 0 && len(mine) > 0:
			err = u.Do(ctx, http.MethodPut, fedtest.RoomPath(room, "redact", mine[rnd.IntN(len(mine))], txn), map[string]any{}, nil)
		case n == 1:
			if err = u.Do(ctx, http.MethodPost, fedtest.RoomPath(room, "leave"), map[string]any{}, nil); err == nil {
				err = u.Do(ctx, http.MethodPost, fedtest.RoomPath(room, "join"), map[string]any{}, nil)
			}
		default:
			err = u.Do(ctx, http.MethodPut, fedtest.RoomPath(room, "send", "m.room.message", txn), map[string]any{"body": txn}, &a)
			mine = append(mine, a.EventID)
		}
		if err != nil {
			return fmt.Errorf("%s, step %d: %w", u.User, i, err)
		}
	}
	return nil
}

// limited is a room as a sync tells it.
type limited struct {
	Limited bool `json:"limited"`
	Events  []struct {
		ID string `json:"event_id"`
	} `json:"events"`
	Prev string `json:"prev_batch"`
}

func syncRoom(t *testing.T, u *fedtest.User, room, since string) (timeline limited, state map[string]any, next string) {
	t.Helper()
	q := url.Values{"timeout": {"0"}}
	if since != "" {
		q.Set("since", since)
	}
	a := u.Must(t, "GET", "/sync?"+q.Encode(), nil)
	next = a["next_batch"].(string)
	rooms, _ := a["rooms"].(map[string]any)
	joined, _ := rooms["join"].(map[string]any)
	it, ok := joined[room].(map[string]any)
	if !ok {
		return timeline, nil, next
	}
	raw, err := json.Marshal(it["timeline"])
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(raw, &timeline))
	state = map[string]any{}
	for _, e := range it["state"].(map[string]any)["events"].([]any) {
		ev := e.(map[string]any)
		state[ev["type"].(string)] = ev["content"]
	}
	return timeline, state, next
}

// gapOf has a room's bad server send the last of a chain of messages, and be silent on those between; it tells what the state is.
func (s *stage) gapOf(t *testing.T, p *fedtest.Place, hidden int) (chain []*event.Event, last *event.Event) {
	t.Helper()
	at := p.Join
	for i := range hidden {
		at = p.Say(t, fmt.Sprint("hidden ", i), at)
		chain = append(chain, at)
	}
	last = p.Say(t, "the end", at)
	s.remote.Says("/_matrix/federation/v1/state_ids/", encoded(t, map[string]any{"pdu_ids": idsOf(p.State...), "auth_chain_ids": idsOf(p.Chain...)}))
	s.remote.Send(t, s.home, last)
	return chain, last
}

// Where events are missing a sync says that its timeline is cut there, and tells nothing of what was before as if it led up to it; whoever
// reads on from there has them fetched, and gets them in their place.
func TestGapInTheTimeline(t *testing.T) {
	s := newStage(t)
	for _, v := range []roomver.Version{roomver.V6, roomver.V12} {
		t.Run("version "+string(v), func(t *testing.T) {
			p := s.enter(t, v, "mallory")
			room := string(p.Room)
			s.alice.SeesRoom(t, room, "join")
			_, _, since := syncRoom(t, s.alice, room, "")
			before := s.alice.Say(t, room, "before the gap")
			chain, last := s.gapOf(t, p, 60)
			s.alice.Sees(t, room, string(last.EventID()))
			for _, from := range []string{since, ""} {
				timeline, _, _ := syncRoom(t, s.alice, room, from)
				require.True(t, timeline.Limited)
				require.Len(t, timeline.Events, 1)
				require.Equal(t, string(last.EventID()), timeline.Events[0].ID)
			}
			after := s.alice.Say(t, room, "after the gap")
			s.alice.Sees(t, room, after)
			timeline, _, _ := syncRoom(t, s.alice, room, since)
			require.True(t, timeline.Limited)
			require.Len(t, timeline.Events, 2)

			s.undisturbed(t, func() {
				s.remote.Handle("/_matrix/federation/v1/backfill/", func(w http.ResponseWriter, q *http.Request) {
					from := id.EventID(q.URL.Query().Get("v"))
					n := slices.IndexFunc(chain, func(e *event.Event) bool { return e.EventID() == from })
					part := slices.Clone(chain[max(0, n-24) : n+1])
					slices.Reverse(part)
					_, _ = io.WriteString(w, encoded(t, map[string]any{"origin": s.remote.Name, "origin_server_ts": 1, "pdus": pdusOf(part...)}))
				})
				var got []string
				for from := timeline.Prev; from != ""; {
					var part []string
					part, from = page(t, s.alice, room, from, 10)
					got = append(got, part...)
				}
				want := idsOf(chain...)
				slices.Reverse(want)
				for i, e := range want {
					require.Equal(t, string(e), got[i], "%d", i)
				}
				require.Equal(t, before, got[len(want)])
			})
			whole := history(t, s.alice, room, 100)
			require.Equal(t, []string{after, string(last.EventID())}, whole[:2])
			timeline, _, _ = syncRoom(t, s.alice, room, since)
			require.True(t, timeline.Limited, "what was fetched later is in no sync")
			require.Len(t, timeline.Events, 2)
			s.goesOn(t, p)
		})
	}
}

// What a server gives of what is missing can be anything: nothing of it is shown that is not right, and what is there is shown all the same.
func TestLiesAboutThePast(t *testing.T) {
	s := newStage(t)
	r := s.remote
	const back = "/_matrix/federation/v1/backfill/"
	says := func(t *testing.T, pdus ...json.RawMessage) {
		r.Says(back, encoded(t, map[string]any{"origin": r.Name, "origin_server_ts": 1, "pdus": pdus}))
	}
	for name, lie := range map[string]func(t *testing.T, p *fedtest.Place, chain []*event.Event){
		"nothing":                    func(t *testing.T, _ *fedtest.Place, _ []*event.Event) { says(t) },
		"no JSON":                    func(*testing.T, *fedtest.Place, []*event.Event) { r.Says(back, "<html>") },
		"no JSON, though it says so": func(*testing.T, *fedtest.Place, []*event.Event) { r.Handle(back, pretends) },
		"numbers":                    func(*testing.T, *fedtest.Place, []*event.Event) { r.Says(back, `{"pdus":[1,null,"x",[],{}]}`) },
		"an error":                   func(*testing.T, *fedtest.Place, []*event.Event) { r.Handle(back, nil) },
		"endless": func(*testing.T, *fedtest.Place, []*event.Event) {
			r.Handle(back, func(w http.ResponseWriter, _ *http.Request) {
				for {
					if _, err := io.WriteString(w, strings.Repeat(" ", 64<<10)); err != nil {
						return
					}
				}
			})
		},
		"not signed": func(t *testing.T, _ *fedtest.Place, chain []*event.Event) {
			says(t, with(t, chain[len(chain)-1], map[string]any{"signatures": map[string]any{}}))
		},
		"changed": func(t *testing.T, _ *fedtest.Place, chain []*event.Event) {
			says(t, with(t, chain[len(chain)-1], map[string]any{"depth": 1}))
		},
		"what nobody asked for": func(t *testing.T, p *fedtest.Place, _ []*event.Event) {
			says(t, pdusOf(p.Say(t, "look at me"), p.Say(t, "and me"))...)
		},
		"of somebody who was never there": func(t *testing.T, p *fedtest.Place, chain []*event.Event) {
			stranger := p.Message(t, "I was never here", chain[0])
			stranger.Sender = id.UserID("@stranger:" + string(r.Name))
			says(t, pdusOf(p.Build(t, stranger))...)
		},
		"whose state is not told": func(t *testing.T, _ *fedtest.Place, chain []*event.Event) {
			r.Says("/_matrix/federation/v1/state_ids/", `{"pdu_ids":[],"auth_chain_ids":[]}`)
			says(t, pdusOf(chain[len(chain)-1])...)
		},
		"more than was asked for": func(t *testing.T, p *fedtest.Place, _ []*event.Event) {
			list, at := []*event.Event(nil), p.Join
			for i := range 300 {
				at = p.Say(t, fmt.Sprint("filler ", i), at)
				list = append(list, at)
			}
			says(t, pdusOf(list...)...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r.Handle(back, nil)
			p := s.enter(t, roomver.V10, "mallory")
			room := string(p.Room)
			before := s.alice.Say(t, room, "before the gap")
			chain, last := s.gapOf(t, p, 3)
			s.alice.Sees(t, room, string(last.EventID()))
			lie(t, p, chain)
			asked := r.Asked(back)
			s.undisturbed(t, func() {
				whole := history(t, s.alice, room, 4)
				require.Equal(t, string(last.EventID()), whole[0])
				require.Equal(t, before, whole[1], "nothing came in between")
			})
			require.Positive(t, r.Asked(back)-asked)
			require.Less(t, r.Asked(back)-asked, 5)
			s.goesOn(t, p)
		})
	}
}

// The event at a date is found also where it was said before this server came: it is fetched, and can be read around.
func TestJumpToADateBeforeTheJoin(t *testing.T) {
	ca := certtest.NewAuthority(t)
	one, two := fedtest.Run(t, ca, "127.0.0.1"), fedtest.Run(t, ca, "localhost")
	alice, bob := one.NewUser(t, "alice"), two.NewUser(t, "bob")
	for i, v := range versions {
		t.Run("version "+string(v), func(t *testing.T) {
			from, to := alice, bob
			if i%2 == 1 {
				from, to = bob, alice
			}
			room := from.Create(t, string(v), map[string]any{"preset": "public_chat"})
			var said []string
			for i := range 140 {
				said = append(said, from.Say(t, room, fmt.Sprint("day ", i)))
			}
			wanted := from.Must(t, "GET", fedtest.RoomPath(room, "event", said[9]), nil)["origin_server_ts"].(float64)
			to.Join(t, room, from.Home)
			from.SeesMember(t, room, to, "join")
			for _, dir := range []string{"f", "b"} {
				a, status := v1(t, to, "/rooms/"+url.PathEscape(room)+fmt.Sprintf("/timestamp_to_event?dir=%s&ts=%.0f", dir, wanted))
				require.Equal(t, 200, status)
				require.InDelta(t, wanted, a["origin_server_ts"], 0.1)
				around := to.Must(t, "GET", fedtest.RoomPath(room, "context", a["event_id"].(string))+"?limit=4", nil)
				require.Len(t, around["events_before"], 2)
				require.Len(t, around["events_after"], 2)
			}
			_, status := v1(t, to, "/rooms/"+url.PathEscape(room)+"/timestamp_to_event?dir=b&ts=1")
			require.Equal(t, 404, status, "nothing was said then")
		})
	}
}
