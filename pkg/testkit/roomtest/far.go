package roomtest

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/eventauth"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/matrix/stateres"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// Far is another server that knows all that the world has stored of a room, and builds events wherever it likes.
type Far struct {
	World *World
	Room  id.RoomID
	Rules *roomver.Rules
	Ref   roomdb.RoomRef
	n     int
}

// FarServer is its name.
const FarServer id.ServerName = "far.test"

// farTime is when its events are, in ms: what depends on it comes out the same each time.
const farTime = 1_700_000_000_000

// NewFar gives another server that is to be in a room.
func NewFar(w *World, r id.RoomID, v roomver.Version) *Far {
	w.T.Helper()
	ref, ok, err := w.Reader.Room(w.Ctx(), w.Shards.Of(string(r)), string(r))
	require.NoError(w.T, err)
	require.True(w.T, ok)
	return &Far{World: w, Room: r, Rules: roomver.MustGet(v), Ref: ref}
}

// All reads every event of the room, rejected ones too, in the order in which they were made known.
func (f *Far) All() []roomdb.StoredEvent {
	rows, err := f.World.DB.Pool.Query(f.World.Ctx(), `SELECT nid FROM event WHERE room_nid = $1 ORDER BY nid`, int64(f.Ref.Nid))
	require.NoError(f.World.T, err)
	defer rows.Close()
	var nids []shard.Nid
	for rows.Next() {
		var n int64
		require.NoError(f.World.T, rows.Scan(&n))
		nids = append(nids, shard.Nid(n))
	}
	events, err := f.World.Reader.EventsByNid(f.World.Ctx(), nids)
	require.NoError(f.World.T, err)
	slices.SortFunc(events, func(a, b roomdb.StoredEvent) int { return int(a.Nid - b.Nid) })
	return events
}

// Parse reads a stored event.
func (f *Far) Parse(e *roomdb.StoredEvent) *event.Event {
	ev, err := event.ParseTrusted(f.Rules, e.JSON, id.EventID(e.EventID))
	require.NoError(f.World.T, err)
	return ev
}

// Build makes an event on some stored ones, with the auth events that the state after the first of them has.
func (f *Far) Build(prev []roomdb.StoredEvent, sender id.UserID, typ string, key *string, content string) *event.Event {
	f.n++
	p := event.Proto{
		RoomID: f.Room, Type: typ, StateKey: key, Sender: sender, Content: []byte(content), LinkHashes: map[id.EventID]event.Hash{},
		EventID: id.EventID(fmt.Sprintf("$far%d:%s", f.n, FarServer)), OriginServerTS: farTime + int64(f.n),
	}
	for i := range prev {
		ev := f.Parse(&prev[i])
		p.PrevEvents = append(p.PrevEvents, ev.EventID())
		p.LinkHashes[ev.EventID()] = ev.ReferenceHash()
		p.Depth = max(p.Depth, ev.Depth()+1)
	}
	state, err := f.World.Reader.State(f.World.Ctx(), prev[0].StateAfter)
	require.NoError(f.World.T, err)
	reduced, err := eventauth.ReduceProto(f.Rules, &p)
	require.NoError(f.World.T, err)
	_, auth := eventauth.Select(f.Rules, reduced, func(k eventauth.TypeKey) *eventauth.Reduced {
		atoms, err := f.World.Reader.AtomsByName(f.World.Ctx(), f.Ref.Nid.Shard(), []string{k.Type, k.StateKey})
		require.NoError(f.World.T, err)
		n, ok := state.Get(stateres.Key{Type: int64(atoms[k.Type]), StateKey: int64(atoms[k.StateKey])})
		if !ok {
			return nil
		}
		rows, err := f.World.Reader.EventsByNid(f.World.Ctx(), []shard.Nid{shard.Nid(n)})
		require.NoError(f.World.T, err)
		ev := f.Parse(&rows[0])
		p.LinkHashes[ev.EventID()] = ev.ReferenceHash()
		return eventauth.Reduce(ev)
	})
	for _, a := range auth {
		p.AuthEvents = append(p.AuthEvents, a.ID)
	}
	e, err := event.Build(f.Rules, &p, FarServer, f.World.Key)
	require.NoError(f.World.T, err)
	return e
}

// Send hands events to the world as they came from there.
func (f *Far) Send(events ...*event.Event) []room.Verdict {
	c := &room.Accept{Room: f.Room}
	for _, e := range events {
		c.Events = append(c.Events, e.JSON())
	}
	a := f.World.Do(c)
	var verdicts []room.Verdict
	require.NoError(f.World.T, json.Unmarshal(a.Data, &verdicts))
	require.Len(f.World.T, verdicts, len(events))
	return verdicts
}

// Join has a user of that server join.
func (f *Far) Join(u id.UserID) {
	all := f.All()
	key := string(u)
	v := f.Send(f.Build(all[len(all)-1:], u, "m.room.member", &key, `{"membership":"join"}`))
	require.Equal(f.World.T, room.FateAccepted, v[0].Fate, v[0].Reason)
}
