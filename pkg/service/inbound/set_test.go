package inbound_test

import (
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/inbound"
	"github.com/heddle-im/heddle/pkg/store/feddb"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

// In whatever order another server gives a room's state, an event is stored after all that it is checked against: in version 12, which does
// not name it, after the create event too.
func TestSetsAreInOrder(t *testing.T) {
	w := roomtest.New(t)
	db := feddb.NewDB(w.DB.DB)
	for _, v := range []roomver.Version{"10", "12"} {
		r := w.Room(roomtest.User("alice"), v)
		w.Join(r, roomtest.User("bob"))
		rows, err := w.DB.Pool.Query(w.Ctx(), `SELECT e.json FROM event e JOIN room r ON r.nid = e.room_nid WHERE r.room_id = $1 ORDER BY e.depth DESC`, string(r))
		require.NoError(t, err)
		var events []*event.Event
		var state []id.EventID
		for rows.Next() {
			var b []byte
			require.NoError(t, rows.Scan(&b))
			e, err := event.Parse(roomver.MustGet(v), b)
			require.NoError(t, err)
			events, state = append(events, e), append(state, e.EventID())
		}
		require.NoError(t, rows.Err())
		require.Greater(t, len(events), 5)
		set, err := inbound.StageSet(w.Ctx(), db, events, state, nil)
		require.NoError(t, err)
		staged, err := db.SetPiece(w.Ctx(), set.ID, 0, 100)
		require.NoError(t, err)
		require.Len(t, staged, len(events))
		require.Contains(t, string(staged[0].JSON), `"type":"m.room.create"`)
		var before []id.EventID
		for _, s := range staged {
			e, err := event.Parse(roomver.MustGet(v), s.JSON)
			require.NoError(t, err)
			for _, a := range e.AuthEvents() {
				require.True(t, slices.Contains(before, a))
			}
			before = append(before, e.EventID())
		}
	}
}
