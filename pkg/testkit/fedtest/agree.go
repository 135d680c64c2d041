package fedtest

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
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
			for _, m := range members {
				t.Log(m.Home.standing(t, room))
			}
			require.FailNow(t, "the servers do not agree", why)
		case <-time.After(30 * time.Millisecond):
		}
	}
}

// standing tells where a homeserver is with a room: what it builds on, what it refused, and what waits to come in.
func (h *Homeserver) standing(t testing.TB, room string) string {
	t.Helper()
	var out strings.Builder
	fmt.Fprintf(&out, "%s shows %d events of %s", h.Name, len(h.Timeline(t, room)), room)
	for what, query := range map[string]string{
		"builds on": `SELECT e.event_id || ' ' || e.depth FROM event e JOIN room r ON r.nid = e.room_nid WHERE r.room_id = $1 AND e.ord IS NOT NULL AND NOT EXISTS
			(SELECT FROM event n WHERE n.room_nid = e.room_nid AND n.ord IS NOT NULL AND convert_from(n.json, 'UTF8')::json->>'prev_events' LIKE '%' || e.event_id || '%')`,
		"refused": `SELECT e.event_id || ' ' || e.flags FROM event e JOIN room r ON r.nid = e.room_nid WHERE r.room_id = $1 AND e.flags & 3 <> 0`,
		"waits":   `SELECT event_id || ' tries ' || tries || ' due ' || due || ' ' || error FROM staged_pdu WHERE room_id = $1 ORDER BY seq LIMIT 5`,
	} {
		rows, err := h.DB.Pool.Query(t.Context(), query, room)
		require.NoError(t, err)
		list, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		fmt.Fprintf(&out, "\n\t%s: %s", what, strings.Join(list, ", "))
	}
	return out.String()
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
