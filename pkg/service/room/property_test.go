package room_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

var users = []id.UserID{alice, bob, carol, dave}

// anyCommand draws any command on a room.
func anyCommand(t *rapid.T, r id.RoomID, known []id.EventID) room.Command {
	u := rapid.SampledFrom(users).Draw(t, "user")
	target := rapid.SampledFrom(users).Draw(t, "target")
	n := rapid.IntRange(0, 3).Draw(t, "n")
	switch rapid.IntRange(0, 9).Draw(t, "verb") {
	case 0, 1, 2:
		return message(r, u, fmt.Sprint("text ", n), rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "txn"))
	case 3:
		typ := rapid.SampledFrom([]string{"m.room.topic", "m.room.name", "x.y"}).Draw(t, "type")
		return state(r, u, typ, rapid.SampledFrom([]string{"", "k"}).Draw(t, "key"), fmt.Sprintf(`{"n":%d}`, n))
	case 4:
		rule := rapid.SampledFrom([]string{"public", "invite", "knock"}).Draw(t, "rule")
		return state(r, u, "m.room.join_rules", "", fmt.Sprintf(`{"join_rule":%q}`, rule))
	case 5:
		return &room.SetProfile{Room: r, User: u, Profile: room.Profile{DisplayName: fmt.Sprint("name ", n)}}
	case 6:
		if len(known) > 0 {
			return &room.Redact{Room: r, By: by(u), Target: rapid.SampledFrom(known).Draw(t, "event")}
		}
		fallthrough
	case 7:
		if len(known) > 0 {
			return &room.Receipt{Room: r, User: u, Kind: room.ReceiptRead, Event: rapid.SampledFrom(known).Draw(t, "event")}
		}
		fallthrough
	default:
		action := rapid.SampledFrom([]room.Action{
			room.ActionJoin, room.ActionJoin, room.ActionLeave, room.ActionInvite, room.ActionKick, room.ActionBan, room.ActionUnban,
			room.ActionKnock,
		}).Draw(t, "action")
		if action == room.ActionJoin || action == room.ActionLeave || action == room.ActionKnock {
			target = u
		}
		return set(r, u, target, action)
	}
}

// Random commands by several users, many at once, some of them refused by the database: what is stored is the same as a naive replay
// finds, after every few commands and after reloading, and what was answered is there.
func TestRandomCommands(t *testing.T) {
	g := newGate()
	world := roomtest.New(t, roomtest.WithStore(g.wrap))
	rapid.Check(t, func(rt *rapid.T) {
		version := rapid.SampledFrom([]roomver.Version{roomver.V1, roomver.V6, roomver.V10, roomver.V11, roomver.V12}).Draw(rt, "version")
		r := world.Room(alice, version)
		var known []id.EventID
		for range rapid.IntRange(1, 4).Draw(rt, "rounds") {
			if rapid.IntRange(0, 3).Draw(rt, "restart") == 0 {
				world.Restart()
			}
			bad := rapid.IntRange(0, 12).Draw(rt, "bad")
			seen := 0
			var mu sync.Mutex
			failed := map[*entry.Proposal]bool{}
			g.refuseWith(func(p *entry.Proposal) error {
				mu.Lock()
				defer mu.Unlock()
				if _, ok := failed[p]; !ok {
					seen++
					failed[p] = seen%13 == bad && bad > 0
				}
				if failed[p] {
					return errPlanted
				}
				return nil
			})
			var results []<-chan result
			for range rapid.IntRange(1, 12).Draw(rt, "commands") {
				results = append(results, async(world, nil, anyCommand(rt, r, known)))
				if rapid.Bool().Draw(rt, "wait") {
					collect(t, &known, &results)
				}
			}
			collect(t, &known, &results)
			g.refuseWith(nil)
			checkRoom(t, world, r)
			stored := map[string]bool{}
			for _, e := range timeline(t, world, r) {
				stored[e.EventID] = true
			}
			for _, e := range known {
				require.True(t, stored[string(e)], "%s was answered and is not there", e)
			}
		}
	})
}

func collect(t *testing.T, known *[]id.EventID, results *[]<-chan result) {
	t.Helper()
	for _, ch := range *results {
		res := <-ch
		var refused *mxerr.Error
		switch {
		case res.err == nil && res.answer.Event != "":
			*known = append(*known, res.answer.Event)
		case res.err == nil, errors.Is(res.err, errPlanted), errors.As(res.err, &refused):
		default:
			t.Fatal(res.err)
		}
	}
	*results = nil
}

// Rooms come and go in a budget that holds only a few of them.
func TestRoomsAreEvicted(t *testing.T) {
	w := roomtest.New(t, roomtest.WithMemory(160<<10))
	var rooms []id.RoomID
	for range 12 {
		rooms = append(rooms, w.Room(alice, roomver.Default))
	}
	var results []<-chan result
	for i := range 120 {
		results = append(results, async(w, nil, message(rooms[i%len(rooms)], alice, fmt.Sprint(i), "")))
	}
	for _, ch := range results {
		require.NoError(t, (<-ch).err)
	}
	for _, r := range rooms {
		require.Len(t, bodies(t, w, r), 10)
		checkRoom(t, w, r)
	}
}
