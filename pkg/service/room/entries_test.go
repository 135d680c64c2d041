package room_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// entries reads what the log holds of a room.
func entries(t *testing.T, w *roomtest.World, r id.RoomID) (list []entry.Entry) {
	t.Helper()
	ref, ok, err := w.Reader.Room(w.Ctx(), shardOf(w, r), string(r))
	require.NoError(t, err)
	require.True(t, ok)
	rows, err := w.DB.Pool.Query(w.Ctx(),
		`SELECT kind, room_nid, subject, event_nid, body FROM log WHERE shard = $1 AND room_nid = $2 ORDER BY pos`,
		int(shardOf(w, r)), int64(ref.Nid))
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var kind int16
		var nid, event int64
		var e entry.Entry
		require.NoError(t, rows.Scan(&kind, &nid, &e.Subject, &event, &e.Body))
		e.Kind, e.Room, e.Event = entry.Kind(kind), shard.Nid(nid), shard.Nid(event)
		list = append(list, e)
	}
	require.NoError(t, rows.Err())
	return list
}

func lastEntry(t *testing.T, w *roomtest.World, r id.RoomID) *entry.EventBody {
	t.Helper()
	all := entries(t, w, r)
	body, err := entry.DecodeEvent(&all[len(all)-1])
	require.NoError(t, err)
	return body
}

// An entry says all that a sync needs.
func TestEventEntries(t *testing.T) {
	w := roomtest.New(t)
	r := w.Create(room.CreateRoom{Creator: by(alice), Name: "Den", Version: roomver.V12})
	w.Membership(r, alice, bob, room.ActionInvite)
	all := entries(t, w, r)
	last := all[len(all)-1]
	require.Equal(t, string(bob), last.Subject)
	body := lastEntry(t, w, r)
	require.Equal(t, "invite", body.Membership)
	require.Empty(t, body.PrevMembership)
	var stripped []struct {
		Type    string         `json:"type"`
		Key     *string        `json:"state_key"`
		Sender  string         `json:"sender"`
		Content map[string]any `json:"content"`
	}
	require.NoError(t, json.Unmarshal(body.StrippedState, &stripped))
	var types []string
	for _, s := range stripped {
		types = append(types, s.Type)
		require.NotNil(t, s.Key)
	}
	require.Equal(t, []string{"m.room.create", "m.room.name", "m.room.join_rules", "m.room.member"}, types)
	w.Join(r, bob)
	joined := lastEntry(t, w, r)
	require.Equal(t, []string{"join", "invite", body.EventId, string(alice)},
		[]string{joined.Membership, joined.PrevMembership, joined.ReplacesEventId, joined.ReplacesSender})
	require.NotEqual(t, joined.StateBefore, joined.StateAfter)
	msg := w.Do(message(r, bob, "hi", "txn 1"))
	said := lastEntry(t, w, r)
	require.Equal(t, []string{string(msg.Event), "DEVICE", "txn 1", string(r), "12", "m.room.message"},
		[]string{said.EventId, said.DeviceId, said.TxnId, said.RoomId, said.RoomVersion, said.Type})
	require.Equal(t, said.StateBefore, said.StateAfter)
	require.Nil(t, said.StateKey)
	w.Do(&room.Redact{Room: r, By: by(bob), Target: msg.Event})
	require.Equal(t, string(msg.Event), lastEntry(t, w, r).Redacts)
	w.Do(&room.Send{Room: r, By: by(bob), Type: "m.room.message", Content: []byte(
		`{"body":"t","m.relates_to":{"rel_type":"m.thread","event_id":"$root"}}`)})
	require.Equal(t, []string{"$root", "m.thread"}, []string{lastEntry(t, w, r).RelatesTo, lastEntry(t, w, r).RelType})
}

func TestReceipts(t *testing.T) {
	w := roomtest.New(t)
	r := w.Room(alice, roomver.Default)
	w.Join(r, bob)
	var events []id.EventID
	for range 5 {
		events = append(events, w.Send(r, alice, "x"))
	}
	read := func(kind, thread string, at int) bool {
		return !w.Do(&room.Receipt{Room: r, User: bob, Kind: kind, Thread: thread, Event: events[at]}).Unchanged
	}
	for range 2 {
		ref, _, err := w.Reader.Room(w.Ctx(), shardOf(w, r), string(r))
		require.NoError(t, err)
		require.True(t, read(room.ReceiptRead, "", 2))
		require.False(t, read(room.ReceiptRead, "", 2))
		require.False(t, read(room.ReceiptRead, "", 1))
		require.True(t, read(room.ReceiptReadPrivate, "", 1))
		require.True(t, read(room.ReceiptRead, "main", 1))
		require.True(t, read(room.ReceiptRead, "", 4))
		rows, err := w.Reader.ReceiptsOf(w.Ctx(), ref.Nid, string(bob))
		require.NoError(t, err)
		require.Len(t, rows, 3)
		all := entries(t, w, r)
		var private, public int
		for i := range all {
			if all[i].Kind != entry.KindReceipt {
				continue
			}
			body, err := entry.DecodeReceipt(&all[i])
			require.NoError(t, err)
			if body.Kind == room.ReceiptReadPrivate {
				private++
				require.Equal(t, string(bob), all[i].Subject)
			} else {
				public++
				require.Empty(t, all[i].Subject)
			}
		}
		require.Equal(t, 1, private)
		require.Equal(t, 3, public)
		w.Restart()
		require.False(t, read(room.ReceiptRead, "", 3))
		w.Exec(`DELETE FROM receipt`)
		w.Exec(`DELETE FROM log WHERE kind = 2`)
		w.Restart()
	}
}

// A warm send reads nothing, whoever of the members sends; and writes as much in a room of many as in one of few.
func TestAWarmSendReadsNothing(t *testing.T) {
	var rows []int
	for _, members := range []int{2, 40} {
		g := newGate()
		w := roomtest.New(t, roomtest.WithStore(g.wrap))
		r := w.Room(alice, roomver.Default)
		for i := range members {
			w.Join(r, roomtest.User(string(rune('a'+i%26))+string(rune('a'+i/26))))
		}
		w.Send(r, alice, "warm")
		w.Do(&room.Receipt{Room: r, User: alice, Kind: room.ReceiptRead, Event: w.Send(r, alice, "warm")})
		n := 0
		g.refuseWith(func(p *entry.Proposal) error {
			n += len(p.Rows)
			return nil
		})
		w.DB.NoQueries(t, func() {
			for range 10 {
				e := w.Send(r, alice, "read nothing")
				w.Do(&room.Receipt{Room: r, User: alice, Kind: room.ReceiptRead, Event: e})
				w.Do(&room.Typing{Room: r, User: alice, Typing: true})
			}
		})
		rows = append(rows, n)
	}
	// The event, the running counts of notifications, how far its sender has read by sending it; and the receipt.
	require.Equal(t, []int{40, 40}, rows)
}
