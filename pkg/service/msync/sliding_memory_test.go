package msync_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/service/msync"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// However many users have however many connections that want however much, what is remembered of them stays within the budget. Whoever's is not
// remembered any more is told of the rooms anew, and that is nobody whose connection is in use.
func TestSlidingConnectionsStayWithinTheBudget(t *testing.T) {
	const users, connections = 30, 10
	w := roomtest.New(t)
	s := start(t, w, 2<<20)
	maker := roomtest.User("maker")
	r := w.Room(maker, "12")
	wishes := make([]string, 199)
	for i := range wishes {
		wishes[i] = fmt.Sprintf(`["org.example.%d","key"]`, i)
	}
	body := func(conn int) string {
		return fmt.Sprintf(`{"conn_id":"%d","lists":{"l":{"ranges":[[0,9]],"timeline_limit":1,"required_state":[%s]}}}`, conn, strings.Join(wishes, ","))
	}
	by := func(user int, pos string, conn int) *msync.SlidingRequest {
		return ask(t, roomtest.User(fmt.Sprint("u", user)), pos, body(conn))
	}
	var told [users]string // on the last of each user's connections
	for i := range users {
		w.Join(r, roomtest.User(fmt.Sprint("u", i)))
	}
	busy := roomtest.User("busy")
	w.Join(r, busy)
	at := s.slide(t, ask(t, busy, "", body(0))).Pos
	for i := range users {
		for c := range connections {
			a := s.slide(t, by(i, "", c))
			require.Contains(t, a.Rooms, string(r))
			told[i] = a.Pos
			require.LessOrEqual(t, s.Budget.Used(), s.Budget.Limit()+64<<10, "user %d, connection %d", i, c)
			b := s.slide(t, ask(t, busy, at, body(0)))
			require.NotContains(t, b.Rooms, string(r), "forgotten by user %d, connection %d", i, c)
			at = b.Pos
		}
	}
	forgotten := 0
	for i := range slices.Backward(told[:]) {
		a := s.slide(t, by(i, told[i], connections-1))
		if x, anew := a.Rooms[string(r)]; anew {
			require.True(t, x.Initial)
			forgotten++
		}
	}
	require.Greater(t, forgotten, users/4)
	require.Less(t, forgotten, users)
}
