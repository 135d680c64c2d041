package room

import (
	"context"
	"maps"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/relation"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// kin is what a room remembers of how its events relate, so that those who react and those who talk in threads are checked without
// a read. Guarded by live.mu. What it says holds for the room's head, committed or not.
type kin struct {
	// annotations are all annotations of an event by a user, those that are redacted left out; of an event that is among the
	// recent ones, and young there, what is not noted does not exist.
	annotations map[annotatedBy]map[annotation]id.EventID
	// roots are events that have no relation themselves.
	roots map[id.EventID]bool
	// edition grows when what was read from the database before must not be noted any more.
	edition int
}

type annotatedBy struct {
	parent id.EventID
	sender id.UserID
}

type annotation struct{ typ, key string }

// Bounds of what is remembered.
const (
	maxNoted = 256 // events and users with annotations
	maxRoots = 256
	sizeKin  = 384
)

// maxAnnotations bounds how many annotations of one event by one user are looked at.
const maxAnnotations = 500

// annotationsFact asks for a user's annotations of an event.
type annotationsFact annotatedBy

type storedAnnotations struct {
	edition int
	by      map[annotation]id.EventID
}

func (f annotationsFact) load(ctx context.Context, r *live) (any, error) {
	out := &storedAnnotations{by: map[annotation]id.EventID{}}
	r.mu.Lock()
	out.edition = r.kin.edition
	r.mu.Unlock()
	atoms := r.term.atoms
	if err := atoms.load(ctx, r.term.host.DB, r.term.shard, []string{string(f.sender)}); err != nil {
		return nil, err
	}
	sender, _ := atoms.get(string(f.sender))
	if sender == 0 {
		return out, nil
	}
	rows, err := r.term.host.DB.AnnotationsBy(ctx, r.nid, string(f.parent), sender, maxAnnotations)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	redacted := slices.Clone(r.redacted)
	r.mu.Unlock()
	for i := range rows {
		if slices.Contains(redacted, rows[i].Nid) {
			continue
		}
		e, err := event.ParseTrusted(r.rules, rows[i].JSON, id.EventID(rows[i].EventID))
		if err != nil {
			continue // what cannot be read annotates nothing
		}
		rel, _ := relation.Of(e)
		out.by[annotation{e.Type(), rel.Key}] = e.EventID()
	}
	return out, nil
}

// note is an annotation that a plan makes: with it, all that the user has made of the event.
type note struct {
	of   annotatedBy
	made annotation
	all  map[annotation]id.EventID
}

// annotate refuses an annotation that the user has made already.
func (v *view) annotate(sender id.UserID, typ string, rel relation.Relation) (*note, error) {
	n := &note{of: annotatedBy{rel.Parent, sender}, made: annotation{typ, rel.Key}}
	all, noted := v.r.kin.annotations[n.of]
	if !noted && !v.r.recent.young(rel.Parent) {
		f := annotationsFact(n.of)
		stored := ask[*storedAnnotations](v, f)
		switch {
		case stored == nil:
			return nil, errLacks
		case stored.edition != v.r.kin.edition:
			delete(v.facts, f)
			ask[*storedAnnotations](v, f)
			return nil, errLacks
		}
		all = stored.by
	}
	if _, ok := all[n.made]; ok {
		return nil, mxerr.New(mxerr.DuplicateAnnotation, "The event has this annotation of yours already")
	}
	n.all = all
	return n, nil
}

// threadRoot refuses a thread at an event that relates to another. An event that is not known here may be one that the client
// has from elsewhere.
func (v *view) threadRoot(root id.EventID) error {
	if v.r.kin.roots[root] {
		return nil
	}
	rel, _, known := v.relationOf(root)
	if v.lacks() {
		return errLacks
	}
	if known && rel.Type != "" {
		return mxerr.New(mxerr.Unknown, "A thread cannot begin at an event that relates to another").WithStatus(400)
	}
	return nil
}

// rememberRoot is called when an event of a thread is committed.
func rememberRoot(root id.EventID) func(*live) {
	return func(r *live) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.kin.roots[root] {
			return
		}
		if len(r.kin.roots) >= maxRoots {
			clear(r.kin.roots)
			r.size -= maxRoots * sizeAbsent
		}
		if r.kin.roots == nil {
			r.kin.roots = map[id.EventID]bool{}
		}
		r.kin.roots[root] = true
		r.size += sizeAbsent
	}
}

// relationOf gives the relation that an event of the room has, none if it was redacted; known is false if the room does not have the event.
func (v *view) relationOf(e id.EventID) (rel relation.Relation, redacted, known bool) {
	if at := v.r.recent.find(e); at != nil {
		return at.rel, at.redacted, true
	}
	row := v.event(e)
	if row == nil {
		return rel, false, false
	}
	if row.RedactedBy != 0 || slices.Contains(v.r.redacted, row.Nid) {
		return rel, true, true
	}
	if row.RelatesTo == "" {
		return rel, false, true
	}
	content, _ := canonjson.Get(row.JSON, "content")
	rel, _ = relation.Parse(content)
	return rel, false, true
}

// threadMain is the thread of what is in no thread.
const threadMain = "main"

// maxHops is how far relations are followed to a thread.
const maxHops = 3

// inThread refuses a receipt for an event in a thread that it has nothing to do with. An event belongs to a thread if it is the
// root, an event of the thread, or relates to such a one, directly or not; to the main one, if it relates to no thread's
// event. What was redacted tells of no thread, and belongs to any.
func (v *view) inThread(e id.EventID, thread string) error {
	at := e
	for range maxHops + 1 {
		if string(at) == thread {
			return nil
		}
		rel, redacted, known := v.relationOf(at)
		root, in := rel.ThreadRoot()
		switch {
		case v.lacks():
			return errLacks
		case redacted:
			return nil
		case in && string(root) == thread:
			return nil
		case in || !known || rel.Parent == "":
			if !in && thread == threadMain {
				return nil
			}
			return mxerr.New(mxerr.InvalidParam, "The event is not related to the thread")
		}
		at = rel.Parent
	}
	if thread == threadMain {
		return nil
	}
	return mxerr.New(mxerr.InvalidParam, "The event is not related to the thread")
}

// adoptKin takes in what a draft says of relations. mu is held.
func (r *live) adoptKin(d *draft) {
	k := &r.kin
	for _, e := range d.unrelated {
		k.edition++
		r.recent.redact(e)
		for _, all := range k.annotations {
			maps.DeleteFunc(all, func(_ annotation, by id.EventID) bool { return by == e })
		}
	}
	if d.note == nil {
		return
	}
	// What is not committed cannot be read again: it is let go of only between commits.
	if len(k.annotations) >= maxNoted && len(r.pending) <= 1 {
		r.size -= int64(len(k.annotations)) * sizeKin
		clear(k.annotations)
		r.recent.age()
		k.edition++
	}
	if _, ok := k.annotations[d.note.of]; !ok {
		r.size += sizeKin
	}
	if k.annotations == nil {
		k.annotations = map[annotatedBy]map[annotation]id.EventID{}
	}
	all := d.note.all
	if all == nil {
		all = map[annotation]id.EventID{}
	}
	all[d.note.made] = d.made[0].id
	k.annotations[d.note.of] = all
}

// storedRelation is what an event's row says of its relation.
func storedRelation(e *event.Event, rel relation.Relation) roomdb.Relation {
	switch rel.Type {
	case relation.Replace:
		if relation.MayReplace(e) {
			return roomdb.RelationReplace
		}
	case relation.Thread:
		return roomdb.RelationThread
	case relation.Reference:
		return roomdb.RelationReference
	case relation.Annotation:
		return roomdb.RelationAnnotation
	}
	return roomdb.RelationNone
}

// takePart notes the sender of an event in a thread, once the event has its place.
func (d *draft) takePart(row *roomdb.Event) {
	if row.Relation == roomdb.RelationThread {
		d.rows = append(d.rows, &roomdb.ThreadPart{Room: row.Room, Root: row.RelatesTo, Sender: row.Sender, Order: row.Order})
	}
}

// recentEvents is how many of a room's latest events are remembered with their places.
const recentEvents = 64

// recent are a room's latest committed events: a receipt is most often for one of them, and a reaction at one of them.
type recent struct {
	ring [recentEvents]recentEvent
	next int
}

type recentEvent struct {
	madeEvent

	ord int64
	// young: what was noted of annotations since the event was made is not forgotten.
	young    bool
	redacted bool
}

// madeEvent is an event that a draft makes.
type madeEvent struct {
	id  id.EventID
	rel relation.Relation
	// hearing is that of the room when the event was made: while it is the same, all that counts since is known.
	hearing uint64
}

func (q *recent) add(e madeEvent, pos shard.Pos) {
	q.ring[q.next] = recentEvent{madeEvent: e, ord: int64(pos), young: true}
	q.next = (q.next + 1) % recentEvents
}

func (q *recent) find(e id.EventID) *recentEvent {
	i := slices.IndexFunc(q.ring[:], func(r recentEvent) bool { return r.id == e })
	if i < 0 {
		return nil
	}
	return &q.ring[i]
}

func (q *recent) young(e id.EventID) bool {
	at := q.find(e)
	return at != nil && at.young
}

func (q *recent) redact(e id.EventID) {
	if at := q.find(e); at != nil {
		at.rel, at.redacted = relation.Relation{}, true
	}
}

func (q *recent) age() {
	for i := range q.ring {
		q.ring[i].young = false
	}
}
