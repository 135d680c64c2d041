package room_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// An event of ours in a room with more forward extremities than it names rests on what it names alone, as it does for whoever receives it: the
// state before it, and what authorises it. One after the other they bring the room together.
func TestMoreExtremitiesThanAreNamed(t *testing.T) {
	for _, version := range []roomver.Version{roomver.V1, roomver.V10, roomver.V12} {
		t.Run("version "+string(version), func(t *testing.T) {
			w := roomtest.New(t)
			r := w.Create(room.CreateRoom{Creator: by(alice), Version: version, Preset: room.PresetPublic})
			w.Join(r, bob)
			f := newFar(t, w, r, version)
			mallory := id.UserID("@mallory:" + string(roomtest.FarServer))
			f.Join(mallory)
			users := fmt.Sprintf(`{%q:100,%q:100}`, alice, mallory)
			if version == roomver.V12 {
				users = fmt.Sprintf(`{%q:100}`, mallory)
			}
			w.State(r, alice, "m.room.power_levels", "", `{"users":`+users+`}`)
			all := f.All()
			last := all[len(all)-1:]
			const forks = 20 // with more this server joins them by itself
			for i := range forks {
				key := fmt.Sprint("fork", i)
				typ, content := "m.fork", `{}`
				if i == forks-1 { // bob may not speak any more, which the last of the events to be named says
					typ, key, content = "m.room.power_levels", "", `{"events_default":50,"users":`+users+`}`
				}
				v := f.Send(f.Build(last, mallory, typ, &key, content))
				require.Equal(t, room.FateAccepted, v[0].Fate, v[0].Reason)
			}
			tips := func() []roomdb.StoredEvent {
				events := timeline(t, w, r)
				e := events[len(events)-1]
				if len(e.Extremities) == 0 {
					return []roomdb.StoredEvent{e}
				}
				rows, err := w.Reader.EventsByNid(w.Ctx(), e.Extremities)
				require.NoError(t, err)
				return rows
			}
			require.Len(t, tips(), forks)
			_, err := w.Host.Do(w.Ctx(), nil, &room.Send{Room: r, By: by(bob), Type: "m.x"})
			require.True(t, mxerr.Is(err, mxerr.Forbidden), "the room's state counts too, whatever an event names: %v", err)

			for n := 0; len(tips()) > 1; n++ {
				before := len(tips())
				switch n {
				case 0:
					w.Send(r, alice, "together")
				case 1:
					w.State(r, alice, "m.room.topic", "", `{"topic":"together"}`)
				default:
					target := w.Send(r, alice, "not so")
					w.Redact(r, alice, target)
				}
				require.Less(t, len(tips()), before)
				require.Less(t, n, 5)
			}
			for _, e := range timeline(t, w, r) {
				require.LessOrEqual(t, len(e.Prev), 10, e.EventID)
			}
			f.check()
			w.Restart()
			w.Send(r, alice, "as one")
			f.check()
		})
	}
}
