package fedtest

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Timeline gives the events that a homeserver shows of a room, and how deep they are.
func (h *Homeserver) Timeline(t testing.TB, room string) map[string]int64 {
	t.Helper()
	rows, err := h.DB.Pool.Query(t.Context(),
		"SELECT e.event_id, e.depth FROM event e JOIN room r ON r.nid = e.room_nid WHERE r.room_id = $1 AND e.ord IS NOT NULL", room)
	require.NoError(t, err)
	defer rows.Close()
	out := map[string]int64{}
	for rows.Next() {
		var e string
		var depth int64
		require.NoError(t, rows.Scan(&e, &depth))
		out[e] = depth
	}
	require.NoError(t, rows.Err())
	return out
}

// Agree waits until members of a room on different servers see the same state, and their servers show the same events since the last of the
// servers came in, each once.
func Agree(t testing.TB, room string, members ...*User) {
	t.Helper()
	end := time.After(patience)
	for {
		why := disagreement(t, room, members)
		if why == "" {
			return
		}
		select {
		case <-end:
			require.FailNow(t, "the servers do not agree", why)
		case <-time.After(30 * time.Millisecond):
		}
	}
}

func disagreement(t testing.TB, room string, members []*User) string {
	t.Helper()
	first, err := members[0].state(t, room)
	if err != nil {
		return err.Error()
	}
	var since int64
	timelines := make([]map[string]int64, len(members))
	for i, m := range members {
		state, err := m.state(t, room)
		if err != nil {
			return err.Error()
		}
		if !maps.Equal(first, state) {
			return fmt.Sprintf("state of %s:\n%v\nof %s:\n%v", members[0].User, first, m.User, state)
		}
		timelines[i] = m.Home.Timeline(t, room)
		since = max(since, timelines[0][first["m.room.member|"+m.User]])
	}
	for i, one := range timelines {
		for j, other := range timelines {
			for e, depth := range one {
				if _, ok := other[e]; !ok && depth >= since {
					return fmt.Sprintf("%s has %s (depth %d, all are in since %d), %s has not", members[i].User, e, depth, since, members[j].User)
				}
			}
		}
	}
	return ""
}
