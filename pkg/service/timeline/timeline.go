// Package timeline answers what a client reads of rooms outside of sync: messages, single events, their context, state and
// members.
//
// Each answer is read from the primary after the request came in, so that it holds what was written before. What a reader may
// see is decided by the rules of matrix/visibility at each event. The package keeps nothing and is safe for concurrent use. It is
// imported by api/ and the composition root.
package timeline

import (
	"context"
	"slices"
	"time"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/filter"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/matrix/stateres"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/shardlog/token"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
	"github.com/heddle-im/heddle/pkg/store/readdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

const typeMember = "m.room.member"

// Limits of one answer.
const (
	maxMessages = 1000
	maxContext  = 100
)

// Rooms answers what is read of rooms.
type Rooms struct {
	db       *readdb.Reader
	accounts *accountdb.Reader
	now      func() time.Time
	filler   Filler // nil: what is missing stays missing
	replica  Replica
}

// Filler fetches what a room's timeline lacks of events of other servers. It is *inbound.Filler.
type Filler interface {
	// Fill fetches the next events before the gap at an order key. moved says that the gap is another one afterwards, or closed.
	Fill(ctx context.Context, room roomdb.RoomRef, gap int64) (moved bool, err error)
	// Near asks other servers for the event that is closest to a time in ms, at it or after it, or before it.
	Near(ctx context.Context, room roomdb.RoomRef, ts int64, forward bool) (event id.EventID, at int64, err error)
}

// New makes a Rooms.
func New(db *readdb.Reader, accounts *accountdb.Reader, now func() time.Time) *Rooms {
	return &Rooms{db: db, accounts: accounts, now: now, replica: here{}}
}

// Filling gives a Rooms that has what is missing fetched when somebody reads that far back.
func (r *Rooms) Filling(f Filler) *Rooms {
	with := *r
	with.filler = f
	return &with
}

// Replica has what only reads done where there is a replica that has all that is committed. *logdb.Replica is one.
type Replica interface {
	ReadNow(ctx context.Context, read func(ctx context.Context) error) error
	// Away tells whether a context's reads go there. What fails there is done again where all is.
	Away(ctx context.Context) bool
}

// here is where there is no replica.
type here struct{}

func (here) ReadNow(ctx context.Context, read func(ctx context.Context) error) error {
	return read(ctx)
}

func (here) Away(context.Context) bool { return false }

// Replicated gives the same Rooms that has pages and searches read from a replica.
func (r *Rooms) Replicated(replica Replica) *Rooms {
	with := *r
	with.replica = replica
	return &with
}

// Viewer is who reads.
type Viewer struct {
	User   id.UserID
	Device id.DeviceID
}

func (r *Rooms) viewer(v Viewer) readdb.Viewer {
	return readdb.Viewer{User: v.User, Device: v.Device, Now: r.now()}
}

// access refuses who may see nothing of the room.
func (r *Rooms) access(ctx context.Context, room id.RoomID, v Viewer) (*readdb.Access, error) {
	a, ok, err := r.db.Access(ctx, room, v.User)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, errClosed()
	}
	return &a, nil
}

func errClosed() error {
	return mxerr.New(mxerr.Forbidden, "You are not in this room, and it is not open to others")
}

// MaySee refuses who may see nothing of the room.
func (r *Rooms) MaySee(ctx context.Context, v Viewer, room id.RoomID) error {
	_, err := r.access(ctx, room, v)
	return err
}

// Dir is the direction of reading.
type Dir bool

// The directions.
const (
	Backward Dir = false
	Forward  Dir = true
)

// Page asks for a part of a room's timeline.
type Page struct {
	Room     id.RoomID
	From, To string // tokens; empty: the end in question
	Dir      Dir
	Limit    int
	Filter   *filter.RoomEventFilter
}

// Messages gives a page of a room's timeline (spec: "GET …/messages").
func (r *Rooms) Messages(ctx context.Context, v Viewer, p Page) (page []byte, err error) {
	err = r.replica.ReadNow(ctx, func(ctx context.Context) error {
		page, err = r.messages(ctx, v, p)
		return err
	})
	return page, err
}

func (r *Rooms) messages(ctx context.Context, v Viewer, p Page) ([]byte, error) {
	a, err := r.access(ctx, p.Room, v)
	if err != nil {
		return nil, err
	}
	if p.Filter == nil {
		p.Filter = &filter.RoomEventFilter{}
	}
	p.Limit = min(p.Limit, p.Filter.LimitOr(p.Limit), maxMessages)
	w, err := r.walking(ctx, a, v, &p)
	if err != nil {
		return nil, err
	}
	if w.from, err = r.place(p.From, a, p.Dir == Forward); err != nil {
		return nil, err
	}
	if w.to, err = r.place(p.To, a, p.Dir == Backward); err != nil {
		return nil, err
	}
	// Without from, reading backward begins at what is the end now: that is told, so that a client may go forward from there later.
	w.findStart = p.From == "" && p.Dir == Backward
	w.filler = r.filler
	if err := w.walk(ctx); err != nil {
		return nil, err
	}
	if err := r.db.Aggregate(ctx, a, v.User, w.ignored, w.items); err != nil {
		return nil, err
	}
	b := append([]byte(nil), `{"start":`...)
	b = canonjson.AppendString(b, token.Room{Order: w.from}.Encode())
	b = r.appendChunk(append(b, `,"chunk":`...), v, w.items)
	if w.more {
		b = canonjson.AppendString(append(b, `,"end":`...), token.Room{Order: w.end}.Encode())
	}
	if p.Filter.LazyLoadMembers {
		members, err := r.membersOf(ctx, a, w.items)
		if err != nil {
			return nil, err
		}
		b = r.appendChunk(append(b, `,"state":`...), v, members)
	}
	return append(b, '}'), nil
}

// place gives the order key that a token stands for: what is at or below it comes before. Without a token it is the beginning or
// the end of what the reader may see.
func (r *Rooms) place(t string, a *readdb.Access, beginning bool) (int64, error) {
	if t == "" {
		if beginning {
			return roomdb.Beginning, nil
		}
		return min(a.Until, roomdb.End-1), nil
	}
	bad := mxerr.New(mxerr.InvalidParam, "The token is not one of this server")
	kind, err := token.KindOf(t)
	if err != nil {
		return 0, bad.WithCause(err)
	}
	if kind == token.KindRoom {
		at, err := token.DecodeRoom(t)
		if err != nil {
			return 0, bad.WithCause(err)
		}
		return at.Order, nil
	}
	s, err := token.DecodeSync(t, r.db.Shards.Count())
	if err != nil {
		return 0, bad.WithCause(err)
	}
	return int64(s.Positions[a.Ref.Nid.Shard()]), nil
}

func (r *Rooms) appendChunk(b []byte, v Viewer, items []*readdb.Item) []byte {
	who := r.viewer(v)
	b = append(b, '[')
	for i, it := range items {
		if i > 0 {
			b = append(b, ',')
		}
		b = it.Append(b, who, false)
	}
	return append(b, ']')
}

// membersOf gives the member events of those who sent the items, as of the latest of them.
func (r *Rooms) membersOf(ctx context.Context, a *readdb.Access, items []*readdb.Item) ([]*readdb.Item, error) {
	if len(items) == 0 {
		return nil, nil
	}
	last := items[0]
	names := []string{typeMember}
	for _, it := range items {
		if s := string(it.Event.Sender()); !slices.Contains(names, s) {
			names = append(names, s)
		}
		if it.Ord > last.Ord {
			last = it
		}
	}
	atoms, err := r.db.AtomsByName(ctx, a.Ref.Nid.Shard(), names)
	if err != nil {
		return nil, err
	}
	state, err := r.db.State(ctx, last.StateAfter)
	if err != nil {
		return nil, err
	}
	var nids []shard.Nid
	for _, n := range names[1:] {
		if e, ok := state.Get(stateres.Key{Type: int64(atoms[typeMember]), StateKey: int64(atoms[n])}); ok {
			nids = append(nids, shard.Nid(e))
		}
	}
	return r.load(ctx, a, nids)
}

func (r *Rooms) stateItem(a *readdb.Access, e roomdb.StateEvent) (*readdb.Item, error) {
	rules := roomver.MustGet(roomver.Version(a.Ref.Version))
	ev, err := event.ParseTrusted(rules, e.JSON, id.EventID(e.EventID))
	if err != nil {
		return nil, err
	}
	if e.RedactedBy != 0 {
		ev = ev.Redact()
	}
	return &readdb.Item{Nid: e.Nid, Room: a.Ref.Nid, Event: ev}, nil
}

func errNoEvent() error { return mxerr.New(mxerr.NotFound, "Event not found") }

// one gives an event that the reader may see.
func (r *Rooms) one(ctx context.Context, a *readdb.Access, v Viewer, eventID string) (*readdb.Item, error) {
	stored, err := r.db.EventsByID(ctx, a.Ref.Nid, []string{eventID})
	if err != nil {
		return nil, err
	}
	stored = slices.DeleteFunc(stored, func(e roomdb.StoredEvent) bool { return !e.Placed })
	if len(stored) == 0 {
		return nil, errNoEvent()
	}
	items, err := r.db.Items(ctx, a.Ref.Version, stored)
	if err != nil {
		return nil, err
	}
	seen, err := r.db.Visible(ctx, a, v.User, items)
	if err != nil {
		return nil, err
	}
	if !seen[0] {
		return nil, errNoEvent()
	}
	return items[0], nil
}

// Event gives one event. It may have been for everybody in a room that is not so now.
func (r *Rooms) Event(ctx context.Context, v Viewer, room id.RoomID, eventID string) ([]byte, error) {
	a, _, err := r.db.Access(ctx, room, v.User)
	if err != nil {
		return nil, err
	}
	if a.Ref.Nid == 0 {
		return nil, errNoEvent()
	}
	it, err := r.one(ctx, &a, v, eventID)
	if err != nil {
		return nil, err
	}
	if err := r.Aggregate(ctx, v, &a, []*readdb.Item{it}); err != nil {
		return nil, err
	}
	return it.Append(nil, r.viewer(v), false), nil
}

// Context gives an event with what is around it.
func (r *Rooms) Context(ctx context.Context, v Viewer, room id.RoomID, eventID string, limit int, f *filter.RoomEventFilter) ([]byte, error) {
	a, open, err := r.db.Access(ctx, room, v.User)
	if err != nil {
		return nil, err
	}
	if a.Ref.Nid == 0 {
		return nil, errClosed()
	}
	it, err := r.one(ctx, &a, v, eventID)
	if err != nil {
		if !open && mxerr.Is(err, mxerr.NotFound) { // a stranger is not told what a room has
			err = errClosed()
		}
		return nil, err
	}
	if f == nil {
		f = &filter.RoomEventFilter{}
	}
	limit = min(limit, f.LimitOr(limit), maxContext)
	before, err := r.walking(ctx, &a, v, &Page{Room: room, Limit: limit / 2, Filter: f})
	if err != nil {
		return nil, err
	}
	before.from, before.to = it.Ord-1, roomdb.Beginning
	after := before.turned(&Page{Room: room, Limit: limit - limit/2, Filter: f, Dir: Forward}, it.Ord, roomdb.End-1)
	if err := before.walk(ctx); err != nil {
		return nil, err
	}
	if err := after.walk(ctx); err != nil {
		return nil, err
	}
	told := append(slices.Concat(before.items, after.items), it)
	if err := r.db.Aggregate(ctx, &a, v.User, before.ignored, told); err != nil {
		return nil, err
	}
	last := it
	if n := len(after.items); n > 0 {
		last = after.items[n-1]
	}
	state, err := r.stateAt(ctx, &a, last.StateAfter, f.LazyLoadMembers, told)
	if err != nil {
		return nil, err
	}
	b := append([]byte(nil), `{"start":`...)
	b = canonjson.AppendString(b, token.Room{Order: before.end}.Encode())
	b = canonjson.AppendString(append(b, `,"end":`...), token.Room{Order: after.end}.Encode())
	b = it.Append(append(b, `,"event":`...), r.viewer(v), false)
	b = r.appendChunk(append(b, `,"events_before":`...), v, before.items)
	b = r.appendChunk(append(b, `,"events_after":`...), v, after.items)
	b = r.appendChunk(append(b, `,"state":`...), v, state)
	return append(b, '}'), nil
}

// snapshot gives the state that the reader sees: the current one, or that of when the reader left.
func (r *Rooms) snapshot(ctx context.Context, a *readdb.Access, upto int64) (shard.Nid, error) {
	return r.db.StateAsOf(ctx, a.Ref.Nid, min(upto, a.Until, roomdb.End-1))
}

// stateAt gives the events of a state; with lazy, of members only those who sent one of the items.
func (r *Rooms) stateAt(ctx context.Context, a *readdb.Access, at shard.Nid, lazy bool, items []*readdb.Item) ([]*readdb.Item, error) {
	if at == 0 {
		return nil, nil
	}
	state, err := r.db.State(ctx, at)
	if err != nil {
		return nil, err
	}
	skip := func(stateres.Key) bool { return false }
	if lazy {
		names := []string{typeMember}
		for _, it := range items {
			names = append(names, string(it.Event.Sender()))
		}
		atoms, err := r.db.AtomsByName(ctx, a.Ref.Nid.Shard(), names)
		if err != nil {
			return nil, err
		}
		wanted := make(map[int64]bool)
		for _, n := range names[1:] {
			wanted[int64(atoms[n])] = true
		}
		skip = func(k stateres.Key) bool { return k.Type == int64(atoms[typeMember]) && !wanted[k.StateKey] }
	}
	var nids []shard.Nid
	for k, n := range state.All() {
		if !skip(k) {
			nids = append(nids, shard.Nid(n))
		}
	}
	return r.load(ctx, a, nids)
}

func (r *Rooms) load(ctx context.Context, a *readdb.Access, nids []shard.Nid) ([]*readdb.Item, error) {
	if len(nids) == 0 {
		return nil, nil
	}
	stored, err := r.db.EventsByNid(ctx, nids)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(stored, func(x, y roomdb.StoredEvent) int { return int(x.Nid.Seq() - y.Nid.Seq()) })
	return r.db.Items(ctx, a.Ref.Version, stored)
}
