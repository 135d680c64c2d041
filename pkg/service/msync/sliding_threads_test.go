package msync_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
)

type threadsAnswer struct {
	Pos        string `json:"pos"`
	Extensions struct {
		Threads struct {
			Subscribed map[string]map[string]struct {
				Automatic bool  `json:"automatic"`
				Bump      int64 `json:"bump_stamp"`
			} `json:"subscribed"`
			Unsubscribed map[string]map[string]struct {
				Bump int64 `json:"bump_stamp"`
			} `json:"unsubscribed"`
			Prev string `json:"prev_batch"`
		} `json:"io.element.msc4308.thread_subscriptions"`
	} `json:"extensions"`
}

// The threads that a user wants to hear of come over sliding sync (MSC4308): as they are to a client that has not heard of them, changes to one
// that waits, the latest of many, and to whichever worker.
func TestSlidingTellsThreadSubscriptions(t *testing.T) {
	p := newPeople(t)
	alice := p.user("alice", "DEVICE")
	s := start(t, p.World, 256<<20)
	const room = "!room"
	do := func(c *account.SubscribeThread) {
		c.UserID, c.RoomID = string(alice), room
		_, err := p.accounts.Do(p.Ctx(), c)
		require.NoError(t, err)
	}
	body := func(limit int) string {
		return fmt.Sprintf(`{"extensions":{"io.element.msc4308.thread_subscriptions":{"enabled":true,"limit":%d}}}`, limit)
	}
	slide := func(w *worker, pos string, limit int, timeout time.Duration) (a threadsAnswer) {
		q := ask(t, alice, pos, body(limit))
		q.Timeout = timeout
		b, err := w.slideRaw(t.Context(), q)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(b, &a))
		return a
	}
	do(&account.SubscribeThread{Root: "$a"})
	do(&account.SubscribeThread{Root: "$gone"})
	do(&account.SubscribeThread{Root: "$gone", End: true, Ord: 10})
	s.settled(t, p.World)
	a := slide(s, "", 10, 0)
	require.Len(t, a.Extensions.Threads.Subscribed[room], 1)
	require.Empty(t, a.Extensions.Threads.Unsubscribed, "what was ended is no news to who has not heard of it")

	ctx, tally := pg.WithTally(t.Context())
	_, err := s.slideRaw(ctx, ask(t, alice, a.Pos, body(10)))
	require.NoError(t, err)
	require.Zero(t, tally.Count())

	told := make(chan threadsAnswer, 1)
	go func() { told <- slide(s, a.Pos, 10, 20*time.Second) }()
	do(&account.SubscribeThread{Root: "$b", Automatic: true, Ord: 5})
	b := <-told
	require.True(t, b.Extensions.Threads.Subscribed[room]["$b"].Automatic)
	require.Len(t, b.Extensions.Threads.Subscribed[room], 1)

	do(&account.SubscribeThread{Root: "$b"}) // by hand
	do(&account.SubscribeThread{Root: "$a", End: true, Ord: 20})
	other := start(t, p.World, 256<<20)
	for _, w := range []*worker{s, other} {
		w.settled(t, p.World)
		c := slide(w, b.Pos, 10, 0)
		require.False(t, c.Extensions.Threads.Subscribed[room]["$b"].Automatic)
		require.Contains(t, c.Extensions.Threads.Unsubscribed[room], "$a")
		one := slide(w, b.Pos, 1, 0)
		require.Empty(t, one.Extensions.Threads.Subscribed)
		require.Contains(t, one.Extensions.Threads.Unsubscribed[room], "$a", "the latest")
		require.NotEmpty(t, one.Extensions.Threads.Prev)
		reader := account.NewReader(p.Shards, accountdb.NewReader(p.DB.Pool))
		upto, err := reader.Place(string(alice), one.Extensions.Threads.Prev)
		require.NoError(t, err)
		above, err := reader.Place(string(alice), b.Pos)
		require.NoError(t, err)
		rest, more, err := reader.ThreadSubscriptions(t.Context(), string(alice), above, upto, 10)
		require.NoError(t, err)
		require.False(t, more)
		require.Len(t, rest, 1)
		require.Equal(t, "$b", rest[0].Root)
	}

	_, err = p.accounts.Do(p.Ctx(), &account.SubscribeThread{UserID: string(alice), RoomID: room, Root: "$a", Automatic: true, Ord: 20})
	require.True(t, mxerr.Is(err, mxerr.ConflictingUnsubscription), "%v", err)
	do(&account.SubscribeThread{Root: "$a", Automatic: true, Ord: 21})
}
