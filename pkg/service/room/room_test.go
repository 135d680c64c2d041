package room_test

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

var (
	alice = roomtest.User("alice")
	bob   = roomtest.User("bob")
	carol = roomtest.User("carol")
	dave  = roomtest.User("dave")
)

// pdu is what tests look at of an event.
type pdu struct {
	Type       string          `json:"type"`
	StateKey   *string         `json:"state_key"`
	Sender     string          `json:"sender"`
	Content    json.RawMessage `json:"content"`
	PrevEvents []any           `json:"prev_events"`
	Depth      int64           `json:"depth"`
}

// timeline reads a room's events, earliest first.
func timeline(t *testing.T, w *roomtest.World, r id.RoomID) []roomdb.StoredEvent {
	t.Helper()
	ref, ok, err := w.Reader.Room(w.Ctx(), w.Shards.Of(string(r)), string(r))
	require.NoError(t, err)
	require.True(t, ok, "room is not stored")
	events, err := w.Reader.TimelineForward(w.Ctx(), ref.Nid, roomdb.Beginning, roomdb.End, 10_000)
	require.NoError(t, err)
	return events
}

func parse(t *testing.T, e roomdb.StoredEvent) (p pdu) {
	t.Helper()
	require.NoError(t, json.Unmarshal(e.JSON, &p))
	return p
}

// currentState reads a room's state from its table, as contents by type and key.
func currentState(t *testing.T, w *roomtest.World, r id.RoomID) map[roomdb.StateName]string {
	t.Helper()
	ref, ok, err := w.Reader.Room(w.Ctx(), w.Shards.Of(string(r)), string(r))
	require.NoError(t, err)
	require.True(t, ok)
	events, err := w.Reader.CurrentStateEvents(w.Ctx(), ref.Nid)
	require.NoError(t, err)
	state := map[roomdb.StateName]string{}
	for _, e := range events {
		var p pdu
		require.NoError(t, json.Unmarshal(e.JSON, &p))
		require.NotNil(t, p.StateKey)
		state[roomdb.StateName{Type: p.Type, StateKey: *p.StateKey}] = string(p.Content)
	}
	return state
}

// A new room may hold any number of names that nobody has used before.
func TestCreateRoomOfManyNames(t *testing.T) {
	w := roomtest.New(t)
	c := room.CreateRoom{Creator: by(alice)}
	for i := range 100 {
		c.Invite = append(c.Invite, room.Invitation{User: roomtest.User(fmt.Sprint("stranger", i))})
		c.InitialState = append(c.InitialState, room.StateEvent{
			Type: fmt.Sprint("com.example.type", i), StateKey: fmt.Sprint("key", i),
			Content: fmt.Appendf(nil, `{"m.relates_to":{"rel_type":"com.example.rel%d","event_id":"$x"}}`, i),
		})
	}
	w.Create(c)
}

func TestCreateRoomInEveryVersion(t *testing.T) {
	world := roomtest.New(t)
	for _, rules := range roomver.All() {
		t.Run(string(rules.Version), func(t *testing.T) {
			w := world.In(t)
			r := w.Create(room.CreateRoom{
				Creator: roomtest.As(alice), Profile: room.Profile{DisplayName: "Alice"}, Version: rules.Version,
				Preset: room.PresetPublic, Name: "The room", Topic: "of things",
				InitialState: []room.StateEvent{{Type: "m.room.encryption", Content: []byte(`{"algorithm":"m.megolm.v1.aes-sha2"}`)}},
				Invite:       []room.Invitation{{User: bob}},
			})
			var types []string
			for i, e := range timeline(t, w, r) {
				p := parse(t, e)
				types = append(types, p.Type)
				require.EqualValues(t, i+1, p.Depth)
				require.Len(t, p.PrevEvents, min(i, 1))
				require.NotNil(t, p.StateKey)
			}
			require.Equal(t, []string{
				"m.room.create", "m.room.member", "m.room.power_levels", "m.room.join_rules", "m.room.history_visibility",
				"m.room.guest_access", "m.room.encryption", "m.room.name", "m.room.topic", "m.room.member",
			}, types)
			require.Equal(t, rules.RoomIDIsHash, r.IsHash())
			w.Join(r, bob)
			w.Send(r, bob, "hello")
			w.Membership(r, alice, bob, room.ActionKick)
			_, err := w.Host.Do(w.Ctx(), nil, &room.Send{Room: r, By: roomtest.As(bob), Type: "m.room.message"})
			require.True(t, mxerr.Is(err, mxerr.Forbidden), "%v", err)
			state := currentState(t, w, r)
			require.JSONEq(t, `{"name":"The room"}`, state[roomdb.StateName{Type: "m.room.name"}])
			require.JSONEq(t, `{"membership":"leave"}`, state[roomdb.StateName{Type: "m.room.member", StateKey: string(bob)}])
		})
	}
}

func shardOf(w *roomtest.World, r id.RoomID) shard.ID { return w.Shards.Of(string(r)) }
