package room_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// deepFork is a room of which this server has gone one way and another server goes another way, event by event.
type deepFork struct {
	*far
	w    *roomtest.World
	tip  []roomdb.StoredEvent
	seen int
}

func newDeepFork(t *testing.T, w *roomtest.World, version roomver.Version) *deepFork {
	users := `"@eve:far.test":60`
	if version != roomver.V12 {
		users += `,"@alice:heddle.test":100`
	}
	r := w.Create(room.CreateRoom{
		Creator: roomtest.As(alice), Version: version, Preset: room.PresetPublic, PowerOverride: []byte(`{"users":{` + users + `}}`),
	})
	f := newFar(t, w, r, version)
	f.Join(eve)
	all := f.All()
	w.State(r, alice, "m.room.topic", "", `{"topic":"here"}`)
	return &deepFork{far: f, w: w, tip: all[len(all)-1:]}
}

// deeper adds an event to what the other server has.
func (f *deepFork) deeper(sender id.UserID, typ string, key *string, content string) {
	e := f.Build(f.tip, sender, typ, key, content)
	v := f.Send(e)
	require.Equal(f.t, room.FateAccepted, v[0].Fate, v[0].Reason)
	rows, err := f.w.Reader.EventsByID(f.w.Ctx(), f.ref.Nid, []string{string(e.EventID())})
	require.NoError(f.t, err)
	f.tip = rows
	f.seen++
}

// However deep a room is forked, an event that changes no state has nothing resolved anew.
func TestDeepForkOfMessages(t *testing.T) {
	const steps = "heddle_room_state_resolution_steps_total"
	w := roomtest.New(t)
	for _, version := range []roomver.Version{roomver.V11, roomver.V12} {
		f := newDeepFork(t, w, version)
		before := w.Counted(steps)
		f.deeper(eve, "m.room.message", nil, `{"body":"there"}`)
		once := w.Counted(steps)
		require.Greater(t, once, before)
		for range 30 {
			f.deeper(eve, "m.room.message", nil, `{"body":"there"}`)
		}
		require.Equal(t, once, w.Counted(steps)) //nolint:testifylint // the counter is a whole number
		w.Send(f.room, alice, "together")
		f.check()
	}
}
