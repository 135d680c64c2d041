package room_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

func TestDuplicateAnnotations(t *testing.T) {
	for _, v := range []roomver.Version{roomver.V1, roomver.V12} {
		t.Run(string(v), func(t *testing.T) {
			w := roomtest.New(t)
			r := w.Room(alice, v)
			w.Join(r, bob)
			e := w.Send(r, alice, "like me")
			refused := func(c room.Command) {
				t.Helper()
				_, err := w.Host.Do(w.Ctx(), nil, c)
				require.True(t, mxerr.Is(err, mxerr.DuplicateAnnotation), "%v", err)
			}
			mine := w.Do(roomtest.Reaction(r, bob, e, "+1")).Event
			refused(roomtest.Reaction(r, bob, e, "+1"))
			w.Do(roomtest.Reaction(r, alice, e, "+1"))
			w.Do(roomtest.Reaction(r, bob, e, "-1"))
			other := *roomtest.Reaction(r, bob, e, "+1")
			other.Type = "org.example.vote"
			w.Do(&other)
			refused(&other)

			w.Restart() // from memory to the database
			refused(roomtest.Reaction(r, bob, e, "+1"))
			refused(&other)
			w.Redact(r, bob, mine)
			w.Do(roomtest.Reaction(r, bob, e, "+1"))
			refused(roomtest.Reaction(r, bob, e, "+1"))

			// A reaction to what is recent is checked without the database: and still, what is redacted is gone.
			e = w.Send(r, alice, "me too")
			mine = w.Do(roomtest.Reaction(r, bob, e, "+1")).Event
			w.Redact(r, bob, mine)
			w.Do(roomtest.Reaction(r, bob, e, "+1"))
			refused(roomtest.Reaction(r, bob, e, "+1"))
		})
	}
}

// More annotations than are remembered.
func TestManyAnnotations(t *testing.T) {
	w := roomtest.New(t)
	r := w.Room(alice, roomver.Default)
	first := w.Send(r, alice, "first")
	w.Do(roomtest.Reaction(r, alice, first, "+1"))
	var events []id.EventID
	for i := range 20 {
		e := w.Send(r, alice, fmt.Sprint(i))
		for j := range 20 {
			c := roomtest.Reaction(r, alice, e, "+1")
			c.By.User = roomtest.User(fmt.Sprint("user", j))
			if i == 0 {
				w.Join(r, c.By.User)
			}
			w.Do(c)
		}
		events = append(events, e)
	}
	for _, e := range events {
		c := roomtest.Reaction(r, roomtest.User("user7"), e, "+1")
		_, err := w.Host.Do(w.Ctx(), nil, c)
		require.True(t, mxerr.Is(err, mxerr.DuplicateAnnotation), "%v", err)
	}
	_, err := w.Host.Do(w.Ctx(), nil, roomtest.Reaction(r, alice, first, "+1"))
	require.True(t, mxerr.Is(err, mxerr.DuplicateAnnotation), "%v", err)
}

// Many devices of one user make the same reaction at once: one does it.
func TestAnnotationsAtOnce(t *testing.T) {
	w := roomtest.New(t)
	r := w.Room(alice, roomver.Default)
	old := w.Send(r, alice, "old")
	w.Restart()
	for _, e := range []id.EventID{old, w.Send(r, alice, "new")} {
		var done atomic.Int32
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				_, err := w.Host.Do(w.Ctx(), nil, roomtest.Reaction(r, alice, e, "+1"))
				if err == nil {
					done.Add(1)
				} else if !mxerr.Is(err, mxerr.DuplicateAnnotation) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 1, done.Load())
	}
}

// What relates to another event costs a warm room no read.
func TestRelationsReadNothing(t *testing.T) {
	w := roomtest.New(t)
	r := w.Room(alice, roomver.Default)
	w.Join(r, bob)
	old := w.Send(r, alice, "an old root")
	relateAll := func(root id.EventID) {
		thread := w.Relate(r, bob, "m.thread", root, "in the thread")
		w.Relate(r, bob, "m.replace", thread, "better")
		w.Relate(r, bob, "m.reference", root, "see there")
		reaction := w.Do(roomtest.Reaction(r, bob, thread, "+1")).Event
		for e, in := range map[id.EventID]string{thread: string(root), reaction: string(root), root: "main"} {
			w.Do(&room.Receipt{Room: r, User: alice, Kind: room.ReceiptRead, Thread: in, Event: e})
		}
	}
	relateAll(old) // names, receipts
	w.DB.Counter.Reset()
	relateAll(w.Send(r, alice, "a root"))
	require.Zero(t, w.DB.Counter.Count(), "%v", w.DB.Counter.Statements())

	for i := range 70 { // the old root is recent no more
		w.Send(r, alice, fmt.Sprint(i))
	}
	w.DB.Counter.Reset()
	w.Relate(r, bob, "m.thread", old, "and again")
	require.Zero(t, w.DB.Counter.Count(), "%v", w.DB.Counter.Statements())

	w.Restart()
	w.Relate(r, bob, "m.thread", old, "the root is read once")
	w.DB.Counter.Reset()
	w.Relate(r, bob, "m.thread", old, "and again")
	require.Zero(t, w.DB.Counter.Count(), "%v", w.DB.Counter.Statements())
}

// The rows that an event which relates to another writes do not depend on what there is already.
func TestRelationsWriteFewRows(t *testing.T) {
	w := roomtest.New(t)
	r := w.Room(alice, roomver.Default)
	root := w.Send(r, alice, "root")
	rows := func() (events, parts int) {
		require.NoError(t, w.DB.Pool.QueryRow(w.Ctx(), `SELECT (SELECT count(*) FROM event), (SELECT count(*) FROM thread_part)`).Scan(&events, &parts))
		return
	}
	for range 20 {
		w.Relate(r, alice, "m.thread", root, "x")
	}
	events, parts := rows()
	require.Equal(t, 1, parts)
	w.Relate(r, alice, "m.thread", root, "x")
	w.Relate(r, alice, "m.replace", root, "x")
	more, parts := rows()
	require.Equal(t, events+2, more)
	require.Equal(t, 1, parts)
}

func TestThreadRoots(t *testing.T) {
	w := roomtest.New(t)
	r := w.Room(alice, roomver.Default)
	root := w.Send(r, alice, "root")
	edit := w.Relate(r, alice, "m.replace", root, "better")
	reply := w.Do(&room.Send{
		Room: r, By: by(alice), Type: "m.room.message",
		Content: fmt.Appendf(nil, `{"body":"x","m.relates_to":{"m.in_reply_to":{"event_id":%q}}}`, root),
	}).Event
	thread := w.Relate(r, alice, "m.thread", root, "in it")
	for range 2 {
		for _, e := range []id.EventID{edit, thread} {
			_, err := w.Host.Do(w.Ctx(), nil, &room.Send{
				Room: r, By: by(alice), Type: "m.room.message", Content: roomtest.Relating("m.thread", e, "no"),
			})
			require.True(t, mxerr.Is(err, mxerr.Unknown), "%v", err)
			var refusal *mxerr.Error
			require.ErrorAs(t, err, &refusal)
			require.Equal(t, 400, refusal.HTTPStatus)
		}
		w.Relate(r, alice, "m.thread", reply, "a reply relates to nothing")
		w.Relate(r, alice, "m.thread", "$nobodyhasseenthis", "it may be elsewhere")
		w.Restart()
	}
	w.Redact(r, alice, edit)
	w.Relate(r, alice, "m.thread", edit, "what is redacted relates to nothing")
}

func TestThreadedReceipts(t *testing.T) {
	w := roomtest.New(t)
	r := w.Room(alice, roomver.Default)
	w.Join(r, bob)
	// The specification's example, and an event of another thread.
	a := w.Send(r, alice, "A")
	b := w.Relate(r, alice, "m.thread", a, "B")
	c := w.Do(roomtest.Reaction(r, alice, b, "C")).Event
	d := w.Relate(r, alice, "m.reference", a, "D")
	e := w.Do(roomtest.Reaction(r, alice, d, "E")).Event
	other := w.Send(r, alice, "other")
	f := w.Relate(r, alice, "m.thread", other, "F")
	gone := w.Relate(r, alice, "m.thread", a, "G")
	w.Redact(r, alice, gone)
	read := func(event id.EventID, thread string) error {
		_, err := w.Host.Do(w.Ctx(), nil, &room.Receipt{Room: r, User: bob, Kind: room.ReceiptRead, Thread: thread, Event: event})
		return err
	}
	for range 2 {
		for _, ok := range []struct {
			event  id.EventID
			thread string
		}{
			{a, "main"},
			{d, "main"},
			{e, "main"},
			{other, "main"},
			{f, string(other)},
			{gone, "main"},
			{a, string(a)},
			{b, string(a)},
			{c, string(a)},
			{d, string(a)},
			{e, string(a)},
			{gone, string(a)},
			{b, ""},
		} {
			require.NoError(t, read(ok.event, ok.thread), "%v", ok)
		}
		for _, bad := range []struct {
			event  id.EventID
			thread string
		}{
			{b, "main"}, {c, "main"}, {f, "main"}, {b, string(other)}, {f, string(a)}, {other, string(a)}, {a, string(b)}, {a, "$nothing"},
		} {
			err := read(bad.event, bad.thread)
			require.True(t, mxerr.Is(err, mxerr.InvalidParam), "%v: %v", bad, err)
		}
		require.True(t, mxerr.Is(read("$nothing", "main"), mxerr.NotFound))
		w.Restart() // from memory to the database
	}
}

// Another server may tell of threads that are not known here, but fills no table with them.
func TestThreadsOfOtherServersAreBounded(t *testing.T) {
	w := roomtest.New(t)
	r := w.Room(alice, roomver.V11)
	f := newFar(t, w, r, roomver.V11)
	f.Join(eve)
	root := w.Send(r, alice, "root")
	reply := w.Relate(r, alice, "m.thread", root, "reply")
	read := func(event id.EventID, thread string) error {
		_, err := w.Host.Do(w.Ctx(), nil, &room.Receipt{Room: r, User: eve, Kind: room.ReceiptRead, Thread: thread, Event: event})
		return err
	}
	const most = 100
	for i := range most {
		require.NoError(t, read(root, fmt.Sprint("$far", i)))
	}
	require.True(t, mxerr.Is(read(root, "$onemore"), mxerr.InvalidParam))
	w.Restart()
	require.True(t, mxerr.Is(read(root, "$onemore"), mxerr.InvalidParam))
	require.NoError(t, read(reply, "$far0"), "what is told already goes on")
	require.NoError(t, read(reply, string(root)), "what is a thread here is one")
	require.NoError(t, read(reply, ""))
}

// What the database keeps of relations.
func TestStoredRelations(t *testing.T) {
	w := roomtest.New(t)
	r := w.Room(alice, roomver.Default)
	w.Join(r, bob)
	root := w.Send(r, alice, "root")
	send := func(typ, content string) id.EventID {
		return w.Do(&room.Send{Room: r, By: by(alice), Type: typ, Content: []byte(content)}).Event
	}
	want := map[id.EventID]roomdb.Relation{
		root:                                    roomdb.RelationNone,
		w.Relate(r, bob, "m.thread", root, "x"): roomdb.RelationThread,
		w.Relate(r, bob, "m.reference", root, "x"):                                                                          roomdb.RelationReference,
		w.Relate(r, bob, "m.replace", root, "x"):                                                                            roomdb.RelationReplace,
		w.Relate(r, bob, "org.example.x", root, "x"):                                                                        roomdb.RelationNone,
		w.Do(roomtest.Reaction(r, bob, root, "x")).Event:                                                                    roomdb.RelationAnnotation,
		send("m.x", fmt.Sprintf(`{"m.relates_to":{"rel_type":"m.replace","event_id":%q}}`, root)):                           roomdb.RelationNone,
		send("m.room.encrypted", fmt.Sprintf(`{"m.relates_to":{"rel_type":"m.replace","event_id":%q}}`, root)):              roomdb.RelationReplace,
		w.State(r, alice, "m.x", "", fmt.Sprintf(`{"m.relates_to":{"rel_type":"m.replace","event_id":%q}}`, root)):          roomdb.RelationNone,
		w.State(r, alice, "m.x", "", fmt.Sprintf(`{"m.relates_to":{"rel_type":"m.reference","event_id":%q}}`, root)):        roomdb.RelationReference,
		send("m.x", fmt.Sprintf(`{"m.new_content":7,"m.relates_to":{"rel_type":"m.replace","event_id":%q}}`, root)):         roomdb.RelationNone,
		send("m.x", fmt.Sprintf(`{"m.relates_to":{"rel_type":"m.reference","event_id":"%s"}}`, "no event id")):              roomdb.RelationNone,
		send("m.x", fmt.Sprintf(`{"m.relates_to":{"m.in_reply_to":{"event_id":%q}}}`, root)):                                roomdb.RelationNone,
		send("m.x", fmt.Sprintf(`{"m.relates_to":{"rel_type":"m.thread","event_id":%q,"m.in_reply_to":{}}}`, "$elsewhere")): roomdb.RelationThread,
	}
	for _, e := range timeline(t, w, r) {
		if kind, ok := want[id.EventID(e.EventID)]; ok {
			require.Equal(t, kind, e.Relation, "%s", e.JSON)
			delete(want, id.EventID(e.EventID))
		}
	}
	require.Empty(t, want)

	parts := func() (n int, last int64) {
		require.NoError(t, w.DB.Pool.QueryRow(w.Ctx(), `SELECT count(*), coalesce(max(ord), 0) FROM thread_part WHERE root = $1`, string(root)).Scan(&n, &last))
		return
	}
	first, before := parts()
	require.Equal(t, 1, first)
	again := w.Relate(r, bob, "m.thread", root, "again")
	mine := w.Relate(r, alice, "m.thread", root, "mine")
	n, _ := parts()
	require.Equal(t, 2, n)
	w.Redact(r, alice, mine)
	w.Redact(r, alice, mine)
	w.Redact(r, alice, again)
	n, last := parts()
	require.Equal(t, 1, n)
	require.Equal(t, before, last)
}
