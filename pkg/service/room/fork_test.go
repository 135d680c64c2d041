package room_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/event"
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
		Creator: roomtest.As(alice), Version: version, Preset: room.PresetPublic, PowerOverride: []byte(`{"users":{` + users + `},"events":{}}`),
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

// However deep a room is forked, an event costs no more than the one before it: nothing if it changes no state, and else what it touches. A ban is put
// in line with those before it, a step for each. Power levels and join rules have everything resolved anew, which goes with the number of events once and
// no more.
func TestDeepForkSteps(t *testing.T) {
	const counter, turn = "heddle_room_state_resolution_steps_total", 20
	w := roomtest.New(t)
	empty := ""
	for _, c := range []struct {
		name string
		next func(f *deepFork)
		most func(turns int) float64 // steps of an event
	}{
		{"messages", func(f *deepFork) { f.deeper(eve, "m.room.message", nil, `{"body":"there"}`) }, func(int) float64 { return 0 }},
		{"topics", func(f *deepFork) { f.deeper(eve, "m.room.topic", &empty, fmt.Sprintf(`{"topic":"%d"}`, f.seen)) }, follows},
		{"members", func(f *deepFork) {
			u := fmt.Sprintf("@u%d:far.test", f.seen)
			f.deeper(id.UserID(u), event.TypeMember, &u, `{"membership":"join"}`)
		}, follows},
		{"names of a member", func(f *deepFork) {
			u := string(eve)
			f.deeper(eve, event.TypeMember, &u, fmt.Sprintf(`{"membership":"join","displayname":"%d"}`, f.seen))
		}, follows},
		{"bans", func(f *deepFork) {
			u := fmt.Sprintf("@u%d:far.test", f.seen)
			f.deeper(eve, event.TypeMember, &u, `{"membership":"ban"}`)
		}, func(turns int) float64 { return follows(turns) + float64(turn*turns+20) }},
		{"power levels", func(f *deepFork) {
			users := `"@eve:far.test":60`
			if f.rules.Version != roomver.V12 {
				users += `,"@alice:heddle.test":100`
			}
			f.deeper(eve, event.TypePowerLevels, &empty, fmt.Sprintf(`{"users":{%s,"@puppet:far.test":%d}}`, users, f.seen%50))
		}, func(turns int) float64 { return 40 * float64(turn*turns+20) }},
	} {
		for _, version := range []roomver.Version{roomver.V11, roomver.V12} {
			t.Run(fmt.Sprintf("%s, version %s", c.name, version), func(t *testing.T) {
				w := w.In(t)
				f := newDeepFork(t, w, version)
				f.deeper(eve, "m.room.message", nil, `{"body":"there"}`)
				c.next(f)
				c.next(f)
				var steps []float64
				for i := range 4 {
					before := w.Counted(counter)
					for range turn {
						c.next(f)
					}
					steps = append(steps, w.Counted(counter)-before)
					require.LessOrEqual(t, steps[i], turn*c.most(i+1), "%v", steps)
				}
				t.Log(steps)
				w.Send(f.room, alice, "together")
				f.check()
			})
		}
	}
}

// follows is the most steps of an event that is followed: a few for each doubling of what is in conflict.
func follows(turns int) float64 { return 34 + 6*math.Log2(float64(turns)) }
