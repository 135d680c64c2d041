package room_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// crowd is a room to which another server adds events side by side.
type crowd struct {
	*far
	base []roomdb.StoredEvent
}

func newCrowd(t *testing.T, w *roomtest.World, version roomver.Version, powers string) *crowd {
	users := `"@eve:far.test":60`
	if version != roomver.V12 {
		users += `,"@alice:heddle.test":100`
	}
	r := w.Create(room.CreateRoom{
		Creator: roomtest.As(alice), Version: version, Preset: room.PresetPublic, PowerOverride: []byte(`{"users":{` + users + `}` + powers + `}`),
	})
	f := newFar(t, w, r, version)
	f.Join(eve)
	all := f.All()
	return &crowd{f, all[len(all)-1:]}
}

// sideBySide adds n events of a type, every third of them a state event if it is no dummy.
func (c *crowd) sideBySide(n int, typ string) {
	c.t.Helper()
	var events []*event.Event
	for i := range n {
		var key *string
		if i%3 == 0 && typ != event.TypeDummy {
			key = new(string)
			*key = fmt.Sprint(i)
		}
		events = append(events, c.Build(c.base, eve, typ, key, `{}`))
	}
	for _, v := range c.Send(events...) {
		require.Equal(c.t, room.FateAccepted, v.Fate, v.Reason)
	}
}

// tips counts the forward extremities, joins the events of this server that joined some.
func (c *crowd) tips() (tips, joins int) {
	events := timeline(c.t, c.w, c.room)
	for _, e := range events {
		if p := parse(c.t, e); p.Type == event.TypeDummy && id.UserID(p.Sender) == alice {
			joins++
			require.LessOrEqual(c.t, len(e.Prev), 10)
		}
	}
	return max(1, len(events[len(events)-1].Extremities)), joins
}

// However many events come side by side, a room is left with few forward extremities: at once if they are very many, and else if nobody else has
// joined them for a while. Nothing of that counts as said by anybody, and none of it makes another server's.
func TestManyExtremitiesAreJoined(t *testing.T) {
	for _, version := range []roomver.Version{roomver.V1, roomver.V10, roomver.V12} {
		t.Run("version "+string(version), func(t *testing.T) {
			var ahead atomic.Int64
			w := roomtest.New(t, roomtest.WithClock(func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }))
			c := newCrowd(t, w, version, `,"events":{}`)
			c.sideBySide(30, "m.x")
			tips, joins := c.tips()
			require.Equal(t, [2]int{30, 0}, [2]int{tips, joins}, "others may do it")
			ahead.Add(int64(time.Minute))
			c.sideBySide(1, event.TypeDummy)
			tips, joins = c.tips()
			require.Equal(t, [2]int{31, 0}, [2]int{tips, joins}, "others do it")
			c.sideBySide(1, "m.x")
			tips, joins = c.tips()
			require.LessOrEqual(t, tips, 20)
			require.Equal(t, 2, joins)

			for range 3 {
				c.sideBySide(90, "m.x")
			}
			tips, joins = c.tips()
			require.Less(t, tips, 120, "so many are not waited for")
			require.LessOrEqual(t, 9*joins, 30+2+3*90)
			var counted int
			require.NoError(t, w.DB.Pool.QueryRow(w.Ctx(), `SELECT (SELECT count(*) FROM push_tally WHERE room_nid = $1)
				+ (SELECT count(*) FROM push_exception WHERE room_nid = $1) + (SELECT count(*) FROM push_sent WHERE room_nid = $1)`, int64(c.ref.Nid)).Scan(&counted))
			require.Zero(t, counted)
			c.check()
			w.Restart()
			w.Send(c.room, alice, "together")
			c.check()
		})
	}
}

// Where nobody of this server may say anything, the extremities stay as they are.
func TestNobodyToJoinExtremities(t *testing.T) {
	w := roomtest.New(t)
	c := newCrowd(t, w, roomver.V10, `,"events":{"`+event.TypeDummy+`":101,"m.x":0},"state_default":0`)
	for range 3 {
		c.sideBySide(90, "m.x")
	}
	tips, joins := c.tips()
	require.Equal(t, [2]int{270, 0}, [2]int{tips, joins})
	c.check()
}
