package msync_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/matrix/filter"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/service/msync"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// A timeline that is cut short says what the children of its events come to, as far as the token: from memory without a query, and
// the same from the database; to each user what they may know of.
func TestRelationsInLimitedTimelines(t *testing.T) {
	w := roomtest.New(t)
	alice, bob, troll := roomtest.User("alice"), roomtest.User("bob"), roomtest.User("troll")
	r := w.Room(alice, "12")
	w.Join(r, bob, troll)
	limit := 12
	cut := &filter.Filter{EventFormat: filter.FormatClient}
	cut.Room.Timeline.Limit = &limit
	s := start(t, w, 256<<20)
	w.Exec(`INSERT INTO account_data (shard, user_id, type, content, pos) VALUES ($1, $2, 'm.ignored_user_list', $3, 0)`,
		int16(w.Shards.OfUser(string(bob))), string(bob), fmt.Sprintf(`{"ignored_users":{"%s":{}}}`, troll))
	b0 := s.sync(t, msync.Request{User: bob})

	for i := range 5 {
		w.Send(r, alice, fmt.Sprint(i))
	}
	root := w.Send(r, alice, "root")
	w.Relate(r, alice, "m.replace", root, "first edit")
	edit := w.Relate(r, alice, "m.replace", root, "second edit")
	gone := w.Relate(r, alice, "m.replace", root, "third edit")
	w.Redact(r, alice, gone)
	ref := w.Relate(r, alice, "m.reference", root, "see")
	w.Relate(r, troll, "m.reference", root, "boo")
	w.Do(roomtest.Reaction(r, alice, root, "+1"))
	latest := w.Relate(r, alice, "m.thread", root, "in the thread")
	inner := w.Relate(r, alice, "m.replace", latest, "better")
	w.Relate(r, troll, "m.thread", root, "boo")
	s.settled(t, w)

	type relations struct {
		Replace *shownEvent `json:"m.replace"`
		Thread  *struct {
			Latest struct {
				shownEvent
				Unsigned struct {
					Relations struct {
						Replace *shownEvent `json:"m.replace"`
					} `json:"m.relations"`
				} `json:"unsigned"`
			} `json:"latest_event"`
			Count        int  `json:"count"`
			Participated bool `json:"current_user_participated"`
		} `json:"m.thread"`
	}
	ask := func(s *worker, user id.UserID, since string, f *filter.Filter) (got map[id.EventID]json.RawMessage, next string, queries int64) {
		t.Helper()
		ctx, tally := pg.WithTally(context.Background())
		b, err := s.Sync(ctx, msync.Request{User: user, Since: since, Filter: f})
		require.NoError(t, err)
		var a struct {
			Next  string `json:"next_batch"`
			Rooms struct {
				Join map[string]struct {
					Timeline struct {
						Events []struct {
							ID       id.EventID `json:"event_id"`
							Unsigned struct {
								Relations json.RawMessage `json:"m.relations"`
							} `json:"unsigned"`
						} `json:"events"`
					} `json:"timeline"`
				} `json:"join"`
			} `json:"rooms"`
		}
		require.NoError(t, json.Unmarshal(b, &a), "%s", b)
		got = map[id.EventID]json.RawMessage{}
		for _, e := range a.Rooms.Join[string(r)].Timeline.Events {
			got[e.ID] = e.Unsigned.Relations
		}
		return got, a.Next, tally.Count()
	}
	check := func(raw json.RawMessage) {
		t.Helper()
		var got relations
		require.NoError(t, json.Unmarshal(raw, &got), "%s", raw)
		require.Equal(t, string(edit), got.Replace.ID)
		require.NotContains(t, string(raw), `"room_id"`, "in the form of sync")
		require.Contains(t, string(raw), fmt.Sprintf(`"m.reference":{"chunk":[{"event_id":%q}]}`, ref))
		require.NotContains(t, string(raw), "m.annotation")
		require.Equal(t, string(latest), got.Thread.Latest.ID)
		require.Equal(t, 1, got.Thread.Count)
		require.False(t, got.Thread.Participated)
		require.Equal(t, string(inner), got.Thread.Latest.Unsigned.Relations.Replace.ID)
	}

	held, next, queries := ask(s, bob, b0.Next, cut)
	require.Contains(t, held, root)
	check(held[root])
	require.Zero(t, queries, "what is held is aggregated without a query")

	fresh := start(t, w, 256<<20)
	read, _, _ := ask(fresh, bob, b0.Next, cut)
	check(read[root])
	initial, _, _ := ask(fresh, bob, "", cut)
	check(initial[root])

	// What is not cut short has the children themselves.
	much := 100
	uncut := &filter.Filter{EventFormat: filter.FormatClient}
	uncut.Room.Timeline.Limit = &much
	whole, _, queries := ask(s, bob, b0.Next, uncut)
	require.Contains(t, whole, root)
	require.Empty(t, string(whole[root]))
	require.Contains(t, whole, edit)
	require.Zero(t, queries)

	// Others are told otherwise, of the same events.
	for range 2 {
		mine, _, _ := ask(s, alice, b0.Next, cut)
		var got relations
		require.NoError(t, json.Unmarshal(mine[root], &got))
		require.Equal(t, 2, got.Thread.Count)
		require.True(t, got.Thread.Participated)
	}

	// A reaction, an edit and an event of a thread are ordinary events: no query is made for them.
	w.Do(roomtest.Reaction(r, bob, root, "+1"))
	w.Relate(r, alice, "m.replace", root, "fourth edit")
	w.Relate(r, alice, "m.thread", root, "again")
	s.settled(t, w)
	news, _, queries := ask(s, bob, next, nil)
	require.Len(t, news, 3)
	require.Zero(t, queries)

	// One who was not there when it was said, is told no more than may be known.
	w.State(r, alice, "m.room.history_visibility", "", `{"history_visibility":"joined"}`)
	w.Relate(r, alice, "m.replace", root, "for those who are here")
	carol := roomtest.User("carol")
	w.Join(r, carol)
	s.settled(t, w)
	limit = 14
	late, _, _ := ask(s, carol, "", cut)
	for e, raw := range late {
		require.NotContains(t, string(raw), "for those who are here", "%s", e)
	}
}
