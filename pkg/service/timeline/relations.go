package timeline

import (
	"cmp"
	"context"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/shardlog/token"
	"github.com/heddle-im/heddle/pkg/store/readdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// Limits of what is told of relations.
const (
	maxRelations   = 500
	maxThreads     = 100
	maxMutual      = 500
	maxGenerations = 3      // of a recursion
	maxDescendants = 10_000 // that one recursion looks at
)

// ignored reads whom the reader ignores.
func (r *Rooms) ignored(ctx context.Context, v Viewer) (map[string]bool, error) {
	return r.accounts.Ignored(ctx, r.db.Shards.OfUser(string(v.User)), string(v.User))
}

// Aggregate says of events that the reader may see what their children come to, as wherever events are shown with what relates to
// them. It takes a constant number of queries.
func (r *Rooms) Aggregate(ctx context.Context, v Viewer, a *readdb.Access, items []*readdb.Item) error {
	ignored, err := r.ignored(ctx, v)
	if err != nil {
		return err
	}
	return r.db.Aggregate(ctx, a, v.User, ignored, items)
}

// RelationsQuery asks for an event's children.
type RelationsQuery struct {
	Room          id.RoomID
	Event         id.EventID
	RelType, Type string // empty: any
	From, To      string // tokens; empty: the end in question
	Dir           Dir
	Limit         int
	// Recurse is nil if the request does not say; true asks for children's children too.
	Recurse *bool
}

// Relations gives a page of an event's children (spec: "GET …/relations"). Whoever may not see the event is told that there is none.
func (r *Rooms) Relations(ctx context.Context, v Viewer, q RelationsQuery) ([]byte, error) {
	a, ok, err := r.db.Access(ctx, q.Room, v.User)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, mxerr.New(mxerr.NotFound, "Event not found")
	}
	if _, err := r.one(ctx, &a, v, string(q.Event)); err != nil {
		return nil, err
	}
	from, err := r.place(q.From, &a, q.Dir == Forward)
	if err != nil {
		return nil, err
	}
	to, err := r.place(q.To, &a, q.Dir == Backward)
	if err != nil {
		return nil, err
	}
	ignored, err := r.ignored(ctx, v)
	if err != nil {
		return nil, err
	}
	q.Limit = min(q.Limit, maxRelations)
	stored, err := r.children(ctx, &a, &q, from, to, ignored)
	if err != nil {
		return nil, err
	}
	next := ""
	if len(stored) > q.Limit {
		stored = stored[:q.Limit]
		if q.Limit > 0 {
			from = stored[q.Limit-1].Ord
			if q.Dir == Backward {
				from--
			}
		}
		next = token.Room{Order: from}.Encode()
	}
	items, err := r.visible(ctx, &a, v, stored)
	if err != nil {
		return nil, err
	}
	if err := r.db.Aggregate(ctx, &a, v.User, ignored, items); err != nil {
		return nil, err
	}
	b := r.appendChunk([]byte(`{"chunk":`), v, items)
	if next != "" {
		b = canonjson.AppendString(append(b, `,"next_batch":`...), next)
	}
	if q.From != "" {
		b = canonjson.AppendString(append(b, `,"prev_batch":`...), q.From)
	}
	if q.Recurse != nil {
		depth := int64(1)
		if *q.Recurse {
			depth = maxGenerations
		}
		b = canonjson.AppendInt(append(b, `,"recursion_depth":`...), depth)
	}
	return append(b, '}'), nil
}

// children reads one event more than the page has, from a place towards another.
func (r *Rooms) children(
	ctx context.Context, a *readdb.Access, q *RelationsQuery, from, to int64, ignored map[string]bool,
) ([]roomdb.StoredEvent, error) {
	c := roomdb.ChildQuery{Room: a.Ref.Nid, Parent: string(q.Event), Forward: q.Dir == Forward, Count: q.Limit + 1}
	until := min(a.Until, roomdb.End-1)
	if q.Dir == Forward {
		c.Above, c.Below = from, min(to, until)+1
	} else {
		c.Above, c.Below = to, min(from, until)+1
	}
	atoms, err := r.atoms(ctx, a, ignored, q.RelType, q.Type)
	if err != nil {
		return nil, err
	}
	for _, f := range []struct {
		name string
		atom *shard.Nid
	}{{q.RelType, &c.RelType}, {q.Type, &c.Type}} {
		if f.name == "" {
			continue
		}
		if *f.atom = atoms[f.name]; *f.atom == 0 {
			return nil, nil // nothing of that name is in the shard
		}
	}
	c.Without = without(atoms, ignored)
	if q.Recurse == nil || !*q.Recurse {
		return r.db.Children(ctx, &c)
	}
	ords, err := r.db.Descendants(ctx, &c, maxGenerations, maxDescendants)
	if err != nil {
		return nil, err
	}
	slices.Sort(ords)
	if !c.Forward {
		slices.Reverse(ords)
	}
	stored, err := r.db.EventsByOrd(ctx, a.Ref.Nid, ords[:min(len(ords), c.Count)])
	if err != nil {
		return nil, err
	}
	slices.SortFunc(stored, func(x, y roomdb.StoredEvent) int {
		if c.Forward {
			return cmp.Compare(x.Ord, y.Ord)
		}
		return cmp.Compare(y.Ord, x.Ord)
	})
	return stored, nil
}

// atoms finds the numbers of names and of users in the room's shard.
func (r *Rooms) atoms(ctx context.Context, a *readdb.Access, users map[string]bool, names ...string) (map[string]shard.Nid, error) {
	for u := range users {
		names = append(names, u)
	}
	names = slices.DeleteFunc(names, func(n string) bool { return n == "" })
	if len(names) == 0 {
		return nil, nil
	}
	return r.db.AtomsByName(ctx, a.Ref.Nid.Shard(), names)
}

func without(atoms map[string]shard.Nid, ignored map[string]bool) (list []shard.Nid) {
	for u := range ignored {
		if n := atoms[u]; n != 0 {
			list = append(list, n)
		}
	}
	return list
}

// visible makes those events ready to be shown that the reader may see.
func (r *Rooms) visible(ctx context.Context, a *readdb.Access, v Viewer, stored []roomdb.StoredEvent) ([]*readdb.Item, error) {
	items, err := r.db.Items(ctx, a.Ref.Version, stored)
	if err != nil {
		return nil, err
	}
	seen, err := r.db.Visible(ctx, a, v.User, items)
	if err != nil {
		return nil, err
	}
	out := items[:0]
	for i, it := range items {
		if seen[i] {
			out = append(out, it)
		}
	}
	return out, nil
}

// ThreadsQuery asks for a room's threads.
type ThreadsQuery struct {
	Room id.RoomID
	From string // a token; empty: the latest
	// Participated leaves out threads in which the reader has no part.
	Participated bool
	Limit        int
}

// Threads gives the roots of a room's threads, the one with the latest event first (spec: "GET …/threads").
func (r *Rooms) Threads(ctx context.Context, v Viewer, q ThreadsQuery) ([]byte, error) {
	a, err := r.access(ctx, q.Room, v)
	if err != nil {
		return nil, err
	}
	from, err := r.place(q.From, a, false)
	if err != nil {
		return nil, err
	}
	ignored, err := r.ignored(ctx, v)
	if err != nil {
		return nil, err
	}
	q.Limit = min(q.Limit, maxThreads)
	threads, err := r.threads(ctx, a, v, &q, min(from, a.Until, roomdb.End-1)+1, ignored)
	if err != nil {
		return nil, err
	}
	next := ""
	if len(threads) > q.Limit {
		threads = threads[:q.Limit]
		next = token.Room{Order: threads[q.Limit-1].Last - 1}.Encode()
	}
	items, err := r.roots(ctx, a, v, threads, ignored)
	if err != nil {
		return nil, err
	}
	b := r.appendChunk([]byte(`{"chunk":`), v, items)
	if next != "" {
		b = canonjson.AppendString(append(b, `,"next_batch":`...), next)
	}
	return append(b, '}'), nil
}

func (r *Rooms) threads(
	ctx context.Context, a *readdb.Access, v Viewer, q *ThreadsQuery, below int64, ignored map[string]bool,
) ([]roomdb.Thread, error) {
	atoms, err := r.atoms(ctx, a, ignored, string(v.User))
	if err != nil {
		return nil, err
	}
	t := roomdb.ThreadQuery{Room: a.Ref.Nid, Below: below, Without: without(atoms, ignored), Count: q.Limit + 1}
	if q.Participated {
		if t.Participant = atoms[string(v.User)]; t.Participant == 0 {
			return nil, nil // has never sent anything
		}
	}
	if a.Joined() || a.Peek {
		return r.db.Threads(ctx, &t)
	}
	return r.db.ThreadsUntil(ctx, &t, a.Until)
}

// roots gives the roots of threads in their order, with what is told of them. Those of which the reader may see nothing are left out;
// those of ignored users are shown as if they were redacted.
func (r *Rooms) roots(
	ctx context.Context, a *readdb.Access, v Viewer, threads []roomdb.Thread, ignored map[string]bool,
) ([]*readdb.Item, error) {
	ids := make([]string, len(threads))
	at := make(map[string]int, len(threads))
	for i, t := range threads {
		ids[i], at[t.Root] = t.Root, i
	}
	stored, err := r.db.EventsByID(ctx, a.Ref.Nid, ids)
	if err != nil {
		return nil, err
	}
	stored = slices.DeleteFunc(stored, func(e roomdb.StoredEvent) bool { return !e.Placed })
	slices.SortFunc(stored, func(x, y roomdb.StoredEvent) int { return at[x.EventID] - at[y.EventID] })
	items, err := r.visible(ctx, a, v, stored)
	if err != nil {
		return nil, err
	}
	if err := r.db.Aggregate(ctx, a, v.User, ignored, items); err != nil {
		return nil, err
	}
	items = slices.DeleteFunc(items, func(it *readdb.Item) bool { return it.Relations == nil || it.Relations.Thread == nil })
	for _, it := range items {
		if ignored[string(it.Event.Sender())] {
			it.Event = it.Event.Redact()
		}
	}
	return items, nil
}

// MutualRooms gives the rooms that the reader and another user are both in (spec: "GET …/mutual_rooms").
func (r *Rooms) MutualRooms(ctx context.Context, v Viewer, other id.UserID, from string) (rooms []string, total int64, next string, err error) {
	var above shard.Nid
	if from != "" {
		at, err := token.DecodeRoom(from)
		if err != nil {
			return nil, 0, "", mxerr.New(mxerr.InvalidParam, "The token is not one of this server").WithCause(err)
		}
		above = shard.Nid(at.Order)
	}
	found, total, err := r.db.MutualRooms(ctx, string(v.User), string(other), above, maxMutual+1)
	if err != nil {
		return nil, 0, "", err
	}
	if len(found) > maxMutual {
		found = found[:maxMutual]
		next = token.Room{Order: int64(found[maxMutual-1].Nid)}.Encode()
	}
	rooms = make([]string, len(found))
	for i := range found {
		rooms[i] = found[i].RoomID
	}
	return rooms, total, next, nil
}
