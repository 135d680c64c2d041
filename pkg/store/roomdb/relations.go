package roomdb

import (
	"context"
	"fmt"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// Sight is what somebody may see of a room's events, as far as the database can tell by itself: what is at or below Upto, if
// it is at or beyond Sure, or if the state after it is one of States.
type Sight struct {
	Room       shard.Nid
	Upto, Sure int64
	States     []shard.Nid
	// Without are users whose events count for nothing.
	Without []string
}

// ChildGroup counts the children of one parent and relation. State is the state after them; 0 stands for all those that are at or
// beyond Sure.
type ChildGroup struct {
	Parent   string
	Relation Relation
	State    shard.Nid
	Children int64
	Last     int64 // the furthest order key
	Own      bool  // the asker sent one of them
}

// CountChildren counts the replacements, thread events and references among the children of some events.
func (r *Reader) CountChildren(ctx context.Context, s *Sight, parents []string, asker string) ([]ChildGroup, error) {
	rows, err := r.q.CountChildren(ctx, CountChildrenParams{
		Sure: s.Sure, Shard: int16(s.Room.Shard()), Asker: asker, RoomNid: int64(s.Room), Parents: parents, Upto: s.Upto,
		Without: orEmpty(s.Without),
	})
	return each("children", rows, err, func(g *CountChildrenRow) ChildGroup {
		return ChildGroup{
			Parent: g.Parent, Relation: Relation(g.Relation), State: shard.Nid(g.State), Children: g.Children, Last: g.Last, Own: g.Own,
		}
	})
}

// LatestReplacements reads of each parent the replacement that holds. The parents' senders are taken to be heard.
func (r *Reader) LatestReplacements(ctx context.Context, s *Sight, parents []string) ([]StoredEvent, error) {
	rows, err := r.q.LatestReplacements(ctx, LatestReplacementsParams{
		RoomNid: int64(s.Room), Parents: parents, Upto: s.Upto, Sure: s.Sure, States: ints(s.States),
	})
	return storedEvents(rows, err)
}

// Reference is an event that refers to another.
type Reference struct{ Parent, EventID string }

// References reads the latest count events that refer to each parent, the earliest first.
func (r *Reader) References(ctx context.Context, s *Sight, parents []string, count int) ([]Reference, error) {
	rows, err := r.q.ListReferences(ctx, ListReferencesParams{
		Parents: parents, RoomNid: int64(s.Room), Upto: s.Upto, Sure: s.Sure, States: ints(s.States), Shard: int16(s.Room.Shard()),
		Without: orEmpty(s.Without), Count: int32(count),
	})
	return each("references", rows, err, func(g *ListReferencesRow) Reference { return Reference(*g) })
}

// EventsByOrd reads events of a room by their order keys, in any order.
func (r *Reader) EventsByOrd(ctx context.Context, room shard.Nid, ords []int64) ([]StoredEvent, error) {
	rows, err := r.q.EventsByOrd(ctx, EventsByOrdParams{RoomNid: int64(room), Ords: ords})
	return storedEvents(rows, err)
}

// ChildQuery asks for an event's children between two order keys, both excluded.
type ChildQuery struct {
	Room         shard.Nid
	Parent       string
	RelType      shard.Nid // atom; 0: any
	Type         shard.Nid // atom; 0: any
	Above, Below int64
	Forward      bool // the earliest first, else the latest
	Count        int
	// Without are users, as atoms, whose events count for nothing, but for state events.
	Without []shard.Nid
}

// Children reads an event's children.
func (r *Reader) Children(ctx context.Context, q *ChildQuery) ([]StoredEvent, error) {
	if q.Forward {
		rows, err := r.q.ChildrenForward(ctx, ChildrenForwardParams{
			RoomNid: int64(q.Room), Parent: q.Parent, Below: q.Below, Above: q.Above, RelType: int64(q.RelType), Type: int64(q.Type),
			Without: ints(q.Without), Count: int32(q.Count),
		})
		return storedEvents(rows, err)
	}
	rows, err := r.q.ChildrenBackward(ctx, ChildrenBackwardParams{
		RoomNid: int64(q.Room), Parent: q.Parent, Below: q.Below, Above: q.Above, RelType: int64(q.RelType), Type: int64(q.Type),
		Without: ints(q.Without), Count: int32(q.Count),
	})
	return storedEvents(rows, err)
}

// Descendants gives the order keys of an event's children, their children and so on for some generations, in any order; each
// generation has to pass. Of a family of more than most, any are left out. Forward and Count are not looked at.
func (r *Reader) Descendants(ctx context.Context, q *ChildQuery, generations, most int) ([]int64, error) {
	ords, err := r.q.Descendants(ctx, DescendantsParams{
		RoomNid: int64(q.Room), Parent: q.Parent, RelType: int64(q.RelType), Type: int64(q.Type), Without: ints(q.Without),
		Depth: int32(generations), Most: int32(most), Below: q.Below, Above: q.Above,
	})
	if err != nil {
		return nil, fmt.Errorf("read descendants: %w", err)
	}
	return ords, nil
}

// Thread is a thread and the place of its latest event.
type Thread struct {
	Root string
	Last int64
}

// ThreadQuery asks for threads whose latest event is below an order key, the latest first.
type ThreadQuery struct {
	Room    shard.Nid
	Below   int64
	Without []shard.Nid // atoms of users whose events count for nothing
	// Participant is the atom of somebody who has to have a part in the thread; 0: nobody.
	Participant shard.Nid
	Count       int
}

// Threads reads threads.
func (r *Reader) Threads(ctx context.Context, q *ThreadQuery) ([]Thread, error) {
	rows, err := r.q.ListThreads(ctx, ListThreadsParams{
		RoomNid: int64(q.Room), Below: q.Below, Without: ints(q.Without), Participant: int64(q.Participant), Count: int32(q.Count),
	})
	return each("threads", rows, err, func(g *ListThreadsRow) Thread { return Thread{g.Root, g.Ord} })
}

// ThreadsUntil reads threads as they were at an order key. It looks at each event of the room's threads.
func (r *Reader) ThreadsUntil(ctx context.Context, q *ThreadQuery, until int64) ([]Thread, error) {
	rows, err := r.q.ListThreadsUntil(ctx, ListThreadsUntilParams{
		RoomNid: int64(q.Room), Until: until, Below: q.Below, Without: ints(q.Without), Participant: int64(q.Participant),
		Count: int32(q.Count),
	})
	return each("threads", rows, err, func(g *ListThreadsUntilRow) Thread { return Thread{g.Root, g.Ord} })
}

// Related tells which of some events have a child of one of the relation types, sent by one of the senders; all are atoms, and
// an empty list lets everything pass.
func (r *Reader) Related(ctx context.Context, room shard.Nid, parents []string, relTypes, senders []shard.Nid) ([]string, error) {
	out, err := r.q.ListRelated(ctx, ListRelatedParams{
		Parents: parents, RoomNid: int64(room), RelTypes: ints(relTypes), Senders: ints(senders),
	})
	if err != nil {
		return nil, fmt.Errorf("read related events: %w", err)
	}
	return out, nil
}

// Annotation is an annotation of an event.
type Annotation struct {
	Nid     shard.Nid
	EventID string
	JSON    []byte
}

// AnnotationsBy reads a user's annotations of an event, those that are not redacted.
func (r *Reader) AnnotationsBy(ctx context.Context, room shard.Nid, parent string, sender shard.Nid, count int) ([]Annotation, error) {
	rows, err := r.q.ListAnnotationsBy(ctx, ListAnnotationsByParams{
		RoomNid: int64(room), RelatesTo: parent, Sender: int64(sender), Count: int32(count),
	})
	return each("annotations", rows, err, func(g *ListAnnotationsByRow) Annotation {
		return Annotation{Nid: shard.Nid(g.Nid), EventID: g.EventID, JSON: g.Json}
	})
}

// SharedWith gives the first room that a user of this server is, or was, in, and another user is in; the membership is the first one's.
func (r *Reader) SharedWith(ctx context.Context, user, other string) (room RoomRef, membership Membership, ok bool, err error) {
	rows, err := r.q.SharedWith(ctx, SharedWithParams{UserID: user, Other: other})
	switch {
	case err != nil:
		return RoomRef{}, 0, false, fmt.Errorf("read shared room: %w", err)
	case len(rows) == 0:
		return RoomRef{}, 0, false, nil
	}
	return RoomRef{shard.Nid(rows[0].Nid), rows[0].RoomID, rows[0].Version}, Membership(rows[0].Membership), true, nil
}

// MutualRooms reads the rooms, by nid and after one, that a user of this server and another user are both in, and how many there are
// in all; total is 0 if there are none after above.
func (r *Reader) MutualRooms(ctx context.Context, user, other string, above shard.Nid, count int) (rooms []RoomRef, total int64, err error) {
	rows, err := r.q.MutualRooms(ctx, MutualRoomsParams{Other: other, UserID: user, Above: int64(above), Count: int32(count)})
	rooms, err = each("mutual rooms", rows, err, func(g *MutualRoomsRow) RoomRef {
		total = g.Total
		return RoomRef{Nid: shard.Nid(g.Nid), RoomID: g.RoomID}
	})
	return rooms, total, err
}

// orEmpty gives a list that is not NULL.
func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
