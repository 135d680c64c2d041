package roomtest

import (
	"context"
	"crypto/rand"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// Contract tests what a room.Writer promises, whichever way it reaches the host of the world that it is made for.
func Contract(t *testing.T, writer func(t *testing.T, w *World) room.Writer) {
	c := &contract{w: New(t)}
	c.writer = writer(t, c.w)
	t.Run("a room's life", c.life)
	t.Run("refusals", c.refusals)
	t.Run("keys", c.keys)
	t.Run("deadline", c.deadline)
}

type contract struct {
	w      *World
	writer room.Writer
}

func (c *contract) do(t *testing.T, cmd room.Command) room.Answer {
	t.Helper()
	a, err := c.writer.Do(c.w.Ctx(), nil, cmd)
	require.NoError(t, err)
	return a
}

func (c *contract) room(t *testing.T, r room.CreateRoom) id.RoomID {
	t.Helper()
	got, err := room.Create(c.w.Ctx(), c.writer, Server, time.Now(), rand.Reader, &r)
	require.NoError(t, err)
	return got
}

func (c *contract) life(t *testing.T) {
	alice, bob := User("alice"), User("bob")
	r := c.room(t, room.CreateRoom{
		Creator: As(alice), Profile: room.Profile{DisplayName: "Alice", AvatarURL: "mxc://a/b"}, Version: "11",
		Preset: room.PresetTrusted, Public: true, Name: "Name", Topic: "Topic", Alias: "#contract:heddle.test",
		Invite: []room.Invitation{{User: bob, Profile: room.Profile{DisplayName: "Bob"}}}, IsDirect: true,
		InitialState:    []room.StateEvent{{Type: "x", StateKey: "y", Content: []byte(`{"z":1}`)}},
		CreationContent: []byte(`{"m.federate":false}`), PowerOverride: []byte(`{"redact":30}`),
	})
	join := &room.SetMembership{Room: r, By: As(bob), Target: bob, Action: room.ActionJoin, Reason: "why not", Content: []byte(`{"extra":1}`)}
	require.NotEmpty(t, c.do(t, join).Event)
	again := c.do(t, &room.SetMembership{Room: r, By: As(bob), Target: bob, Action: room.ActionJoin, Reason: "why not", Content: []byte(`{"extra":1}`)})
	require.True(t, again.Unchanged)
	c.do(t, &room.SetProfile{Room: r, User: bob, Profile: room.Profile{DisplayName: "Bobby"}})
	said := c.do(t, &room.Send{Room: r, By: As(bob), Type: "m.room.message", Content: Message("hi")})
	require.Equal(t, r, said.Room)
	c.do(t, &room.SendState{Room: r, By: As(bob), Type: "x", StateKey: "y", Content: []byte(`{"z":2}`)})
	c.do(t, &room.Receipt{Room: r, User: alice, Kind: room.ReceiptRead, Thread: "main", Event: said.Event, TS: 5})
	c.do(t, &room.Redact{Room: r, By: As(alice), Target: said.Event, Reason: "no"})
	c.do(t, &room.Typing{Room: r, User: alice, Typing: true, Timeout: time.Minute})
	typing := <-c.w.Typing
	require.Equal(t, []id.UserID{alice}, typing.Users)
	require.Equal(t, r, typing.Room)
	c.do(t, &room.SetVisibility{Room: r, By: alice, Public: false})
	c.do(t, &room.DeleteAlias{Alias: "#contract:heddle.test", By: alice})
	c.do(t, &room.SetMembership{Room: r, By: As(bob), Target: bob, Action: room.ActionLeave})
	c.do(t, &room.Forget{Room: r, User: bob})
	ref, ok, err := c.w.Reader.Room(c.w.Ctx(), c.w.Shards.Of(string(r)), string(r))
	require.NoError(t, err)
	require.True(t, ok)
	state, err := c.w.Reader.CurrentStateAt(c.w.Ctx(), ref.Nid, []roomdb.StateName{
		{Type: "m.room.create"}, {Type: "m.room.power_levels"}, {Type: "x", StateKey: "y"},
	})
	require.NoError(t, err)
	require.Contains(t, string(state[roomdb.StateName{Type: "m.room.create"}].JSON), `"m.federate":false`)
	require.Contains(t, string(state[roomdb.StateName{Type: "m.room.power_levels"}].JSON), `"redact":30`)
	require.Contains(t, string(state[roomdb.StateName{Type: "x", StateKey: "y"}].JSON), `"content":{"z":2}`)
	receipts, err := c.w.Reader.ReceiptsOf(c.w.Ctx(), ref.Nid, string(alice))
	require.NoError(t, err)
	require.Len(t, receipts, 1)
	require.Equal(t, []any{string(said.Event), "main", int64(5)}, []any{receipts[0].EventID, receipts[0].Thread, receipts[0].TS})
	row, _, err := c.w.Reader.Member(c.w.Ctx(), ref.Nid, string(bob))
	require.NoError(t, err)
	require.True(t, row.Forgotten)
	require.Equal(t, roomdb.MembershipLeave, row.Membership)
}

func (c *contract) refusals(t *testing.T) {
	alice, bob := User("alice"), User("bob")
	r := c.room(t, room.CreateRoom{Creator: As(alice), Alias: "#taken:heddle.test"})
	for _, x := range []struct {
		code   mxerr.Code
		status int
		cmd    room.Command
	}{
		{mxerr.Forbidden, 403, &room.Send{Room: r, By: As(bob), Type: "m.room.message"}},
		{mxerr.NotFound, 404, &room.Send{Room: "!none:heddle.test", By: As(alice), Type: "m.room.message"}},
		{mxerr.NotJSON, 400, &room.Send{Room: r, By: As(alice), Type: "m.room.message", Content: []byte(`{`)}},
		{mxerr.BadState, 403, &room.SetMembership{Room: r, By: As(alice), Target: bob, Action: room.ActionUnban}},
		{mxerr.Unknown, 400, &room.Forget{Room: r, User: alice}},
		{mxerr.RoomInUse, 409, &room.SetAlias{Alias: "#taken:heddle.test", Room: r, By: alice}},
		{mxerr.NotFound, 404, &room.DeleteAlias{Alias: "#none:heddle.test", By: alice}},
	} {
		_, err := c.writer.Do(c.w.Ctx(), nil, x.cmd)
		require.Error(t, err)
		got := mxerr.From(err)
		require.Equal(t, x.code, got.Code, "%s: %v", x.cmd.Method(), err)
		if x.code != mxerr.RoomInUse {
			require.Equal(t, x.status, got.HTTPStatus)
		}
		require.NotEmpty(t, got.Message)
	}
}

// keys: the same key or transaction at once and later is done once.
func (c *contract) keys(t *testing.T) {
	alice := User("alice")
	r := c.room(t, room.CreateRoom{Creator: As(alice)})
	by := As(alice)
	by.Txn = "txn"
	key := room.NewKey()
	for _, k := range [][]byte{nil, key} {
		ids := make([]id.EventID, 10)
		var wg sync.WaitGroup
		for i := range ids {
			wg.Go(func() {
				a, err := c.writer.Do(c.w.Ctx(), k, &room.Send{Room: r, By: by, Type: "x", Content: Message("once")})
				if err != nil {
					t.Error(err)
				}
				ids[i] = a.Event
			})
		}
		wg.Wait()
		for _, e := range ids {
			require.Equal(t, ids[0], e)
		}
		a := c.do(t, &room.Send{Room: r, By: As(alice), Type: "x", Content: Message("another")})
		require.NotEqual(t, ids[0], a.Event)
		a, err := c.writer.Do(c.w.Ctx(), k, &room.Send{Room: r, By: by, Type: "x", Content: Message("once")})
		require.NoError(t, err)
		require.Equal(t, ids[0], a.Event)
	}
}

func (c *contract) deadline(t *testing.T) {
	alice := User("alice")
	r := c.room(t, room.CreateRoom{Creator: As(alice)})
	ctx, cancel := context.WithCancel(c.w.Ctx())
	cancel()
	_, err := c.writer.Do(ctx, nil, &room.Send{Room: r, By: As(alice), Type: "x"})
	if err != nil {
		require.ErrorIs(t, err, context.Canceled)
	}
}
