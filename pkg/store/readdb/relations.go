package readdb

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/filter"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/relation"
	"github.com/heddle-im/heddle/pkg/matrix/visibility"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// Bounds of what is told of one event's children.
const (
	maxReferences = 500
	// Children from when the viewer was not in the room, or not yet, are looked at for so many of the latest states of the room.
	maxStates = 128
)

// Relations is what an event's children come to, as one viewer is told (spec: "Aggregations of child events").
type Relations struct {
	Edit       *Item // the replacement that holds; nil: none
	Thread     *Thread
	References []id.EventID
}

// Thread sums up a thread.
type Thread struct {
	Latest       *Item
	Count        int64
	Participated bool
}

func (r *Relations) empty() bool { return r.Edit == nil && r.Thread == nil && len(r.References) == 0 }

// append appends the object that unsigned holds. What is in it is in the form of the event itself.
func (r *Relations) append(dst []byte, v Viewer, omitRoom bool) []byte {
	open := byte('{')
	if len(r.References) > 0 {
		dst = append(append(dst, open), `"m.reference":{"chunk":[`...)
		for i, e := range r.References {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = canonjson.AppendString(append(dst, `{"event_id":`...), string(e))
			dst = append(dst, '}')
		}
		dst, open = append(dst, `]}`...), ','
	}
	if r.Edit != nil {
		dst = r.Edit.Append(append(append(dst, open), `"m.replace":`...), v, omitRoom)
		open = ','
	}
	if r.Thread != nil {
		dst = canonjson.AppendInt(append(append(dst, open), `"m.thread":{"count":`...), r.Thread.Count)
		dst = append(dst, `,"current_user_participated":`...)
		if r.Thread.Participated {
			dst = append(dst, `true`...)
		} else {
			dst = append(dst, `false`...)
		}
		dst = r.Thread.Latest.Append(append(dst, `,"latest_event":`...), v, omitRoom)
		dst = append(dst, '}')
	}
	return append(dst, '}')
}

// wants tells what an event can have of its children: a state event has none, one that is itself a replacement is not replaced, nor
// is one that was redacted, and no thread begins at an event that relates to another.
func (it *Item) wants() (edit, thread, references bool) {
	if it.Event.IsState() {
		return false, false, false
	}
	rel, _ := relation.Of(it.Event)
	return it.Because == nil && rel.Type != relation.Replace, rel.Type == "", true
}

// Aggregate finds out what the children of some events of a room come to, for one who has access to it: no more than the user
// may see, up to the access's end, and nothing of those whom the user ignores. The items must not be shown to anybody else
// meanwhile. It takes a constant number of queries: one if nothing relates to the events.
func (r *Reader) Aggregate(ctx context.Context, a *Access, user id.UserID, ignored map[string]bool, items []*Item) error {
	latest, err := r.aggregate(ctx, a, user, ignored, items)
	if err != nil || len(latest) == 0 {
		return err
	}
	// The latest events of threads have children too, but no threads.
	_, err = r.aggregate(ctx, a, user, ignored, latest)
	return err
}

// family is what is found out of one parent's children.
type family struct {
	items              []*Item // the parent; it may be there more than once
	edited, referredTo bool
	thread             *Thread
	last               int64 // the order key of the thread's latest event
	found              Relations
}

// aggregate does it for the events, and gives the latest ones of their threads.
func (r *Reader) aggregate(ctx context.Context, a *Access, user id.UserID, ignored map[string]bool, items []*Item) (latest []*Item, err error) {
	families := make(map[id.EventID]*family, len(items))
	parents := make([]string, 0, len(items))
	for _, it := range items {
		e := it.Event.EventID()
		switch {
		case it.Event.IsState():
		case families[e] != nil:
			families[e].items = append(families[e].items, it)
		default:
			families[e] = &family{items: []*Item{it}}
			parents = append(parents, string(e))
		}
	}
	if len(parents) == 0 {
		return nil, nil
	}
	sight := roomdb.Sight{
		Room: a.Ref.Nid, Upto: min(a.Until, roomdb.End-1), Sure: roomdb.End, Without: slices.Collect(maps.Keys(ignored)),
	}
	if a.Joined() {
		sight.Sure = int64(a.Member.Pos)
	}
	groups, err := r.CountChildren(ctx, &sight, parents, string(user))
	if err != nil || len(groups) == 0 {
		return nil, err
	}
	views, err := r.viewsSeen(ctx, a, user, groups)
	if err != nil {
		return nil, err
	}
	sight.States = slices.Collect(maps.Keys(views))
	for i := range groups {
		if _, seen := views[groups[i].State]; seen || groups[i].State == 0 {
			g := &groups[i]
			families[id.EventID(g.Parent)].count(g, user)
		}
	}
	if err := r.readChildren(ctx, a, ignored, &sight, views, families); err != nil {
		return nil, err
	}
	for _, f := range families {
		if f.found.empty() {
			continue
		}
		for _, it := range f.items {
			it.Relations = &f.found
		}
		if f.found.Thread != nil {
			latest = append(latest, f.found.Thread.Latest)
		}
	}
	return latest, nil
}

// viewsSeen gives what the rules need of those of the groups' states after which the user may see events.
func (r *Reader) viewsSeen(
	ctx context.Context, a *Access, user id.UserID, groups []roomdb.ChildGroup,
) (map[shard.Nid]visibility.View, error) {
	last := make(map[shard.Nid]int64)
	for i := range groups {
		if g := &groups[i]; g.State != 0 {
			last[g.State] = max(last[g.State], g.Last)
		}
	}
	if len(last) == 0 {
		return nil, nil
	}
	nids := slices.SortedFunc(maps.Keys(last), func(x, y shard.Nid) int { return cmp.Compare(last[y], last[x]) })
	nids = nids[:min(len(nids), maxStates)]
	states, err := r.States(ctx, nids)
	if err != nil {
		return nil, err
	}
	views, err := r.views(ctx, a.Ref.Nid.Shard(), user, states)
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(views, func(n shard.Nid, v visibility.View) bool { return !v.Allows(a.joinedAfter(last[n])) })
	return views, nil
}

// count takes in a group of children.
func (f *family) count(g *roomdb.ChildGroup, user id.UserID) {
	edit, thread, references := f.items[0].wants()
	switch g.Relation {
	case roomdb.RelationReplace:
		f.edited = f.edited || edit
	case roomdb.RelationReference:
		f.referredTo = f.referredTo || references
	case roomdb.RelationThread:
		if !thread {
			return
		}
		if f.thread == nil {
			f.thread, f.last = &Thread{Participated: f.items[0].Event.Sender() == user}, g.Last
		}
		f.thread.Count += g.Children
		f.thread.Participated = f.thread.Participated || g.Own
		f.last = max(f.last, g.Last)
	case roomdb.RelationNone, roomdb.RelationAnnotation:
	}
}

// readChildren reads the children that are told themselves.
func (r *Reader) readChildren(
	ctx context.Context, a *Access, ignored map[string]bool, sight *roomdb.Sight, views map[shard.Nid]visibility.View,
	families map[id.EventID]*family,
) error {
	var edited, referredTo []string
	var lasts []int64
	roots := make(map[int64]*family)
	for e, f := range families {
		if f.edited && !ignored[string(f.items[0].Event.Sender())] {
			edited = append(edited, string(e))
		}
		if f.referredTo {
			referredTo = append(referredTo, string(e))
		}
		if f.thread != nil {
			lasts = append(lasts, f.last)
			roots[f.last] = f
		}
	}
	var stored []roomdb.StoredEvent
	if len(edited) > 0 {
		rows, err := r.LatestReplacements(ctx, sight, edited)
		if err != nil {
			return err
		}
		stored = append(stored, rows...)
	}
	if len(lasts) > 0 {
		rows, err := r.EventsByOrd(ctx, a.Ref.Nid, lasts)
		if err != nil {
			return err
		}
		stored = append(stored, rows...)
	}
	if len(referredTo) > 0 {
		rows, err := r.References(ctx, sight, referredTo, maxReferences)
		if err != nil {
			return err
		}
		for _, ref := range rows {
			f := families[id.EventID(ref.Parent)]
			f.found.References = append(f.found.References, id.EventID(ref.EventID))
		}
	}
	if len(stored) == 0 {
		return nil
	}
	children, err := r.Items(ctx, a.Ref.Version, stored)
	if err != nil {
		return err
	}
	for _, it := range children {
		if it.Membership = views[it.StateAfter].Membership; it.Ord >= sight.Sure {
			it.Membership = event.Join
		}
	}
	if err := r.prune(ctx, children); err != nil {
		return err
	}
	for _, it := range children {
		view, seen := views[it.StateAfter]
		if it.Ord >= sight.Sure {
			view.Membership, seen = event.Join, true
		}
		if !seen || it.Because != nil {
			continue
		}
		if it.Membership = view.Membership; it.Membership == "" {
			it.Membership = event.Leave
		}
		if f := roots[it.Ord]; f != nil {
			f.thread.Latest, f.found.Thread = it, f.thread
		}
		rel, _ := relation.Of(it.Event)
		if f := families[rel.Parent]; f != nil && rel.Type == relation.Replace && relation.ValidReplacement(f.items[0].Event, it.Event) {
			f.found.Edit = it
		}
	}
	return nil
}

// Gather does what [Reader.Aggregate] does from events that are at hand: all events of the room after the earliest of the items, in
// their order, all of which the user may see. Items that have relations are copied first, for they may be shown to others.
func Gather(user id.UserID, ignored map[string]bool, items, following []*Item) []*Item {
	children := make(map[id.EventID][]*Item)
	for _, it := range following {
		if rel, _ := relation.Of(it.Event); rel.Parent != "" && it.Because == nil && !ignored[string(it.Event.Sender())] {
			children[rel.Parent] = append(children[rel.Parent], it)
		}
	}
	if len(children) == 0 {
		return items
	}
	out := slices.Clone(items)
	for i := range out {
		out[i] = gather(user, out[i], children)
	}
	return out
}

func gather(user id.UserID, it *Item, children map[id.EventID][]*Item) *Item {
	edit, thread, references := it.wants()
	var found Relations
	for _, c := range children[it.Event.EventID()] {
		switch rel, _ := relation.Of(c.Event); {
		case rel.Type == relation.Replace && edit && relation.ValidReplacement(it.Event, c.Event):
			if found.Edit == nil || later(c.Event, found.Edit.Event) {
				found.Edit = c
			}
		case rel.Type == relation.Reference && references:
			if found.References = append(found.References, c.Event.EventID()); len(found.References) > maxReferences {
				found.References = found.References[1:]
			}
		case rel.Type == relation.Thread && thread:
			if found.Thread == nil {
				found.Thread = &Thread{Participated: it.Event.Sender() == user}
			}
			found.Thread.Latest = c
			found.Thread.Count++
			found.Thread.Participated = found.Thread.Participated || c.Event.Sender() == user
		}
	}
	if found.empty() {
		return it
	}
	if found.Thread != nil {
		found.Thread.Latest = gather(user, found.Thread.Latest, children) // it begins no thread: this ends
	}
	c := *it
	c.Relations = &found
	return &c
}

// later tells whether of two replacements the first holds.
func later(x, y *event.Event) bool {
	return cmp.Or(cmp.Compare(x.OriginServerTS(), y.OriginServerTS()), cmp.Compare(x.EventID(), y.EventID())) > 0
}

// RelatedBy tells which events of a room, by their ids, have a child as a filter wants them; nil if it does not ask.
func (r *Reader) RelatedBy(ctx context.Context, room shard.Nid, f *filter.RoomEventFilter, items []*Item) (map[string]bool, error) {
	if !f.NeedsRelations() {
		return nil, nil
	}
	out := make(map[string]bool)
	if len(items) == 0 {
		return out, nil
	}
	wanted := [][]string{f.RelatedByRelTypes, f.RelatedBySenders}
	atoms, err := r.AtomsByName(ctx, room.Shard(), slices.Concat(wanted...))
	if err != nil {
		return nil, err
	}
	lists := make([][]shard.Nid, len(wanted))
	for i, names := range wanted {
		for _, n := range names {
			if nid := atoms[n]; nid != 0 {
				lists[i] = append(lists[i], nid)
			}
		}
		if names != nil && len(lists[i]) == 0 { // an empty list wants nothing
			return out, nil
		}
	}
	ids := make([]string, len(items))
	for i, it := range items {
		ids[i] = string(it.Event.EventID())
	}
	found, err := r.Related(ctx, room, ids, lists[0], lists[1])
	for _, e := range found {
		out[e] = true
	}
	return out, err
}

// Passes tells whether an item passes a filter, of which related is what [Reader.RelatedBy] told. What servers say to each other alone passes none.
func (it *Item) Passes(f *filter.RoomEventFilter, roomID string, related map[string]bool) bool {
	return it.Event.Type() != event.TypeDummy && f.PassEvent(roomID, it.Event.Type(), string(it.Event.Sender()), it.Event.Content()) &&
		(related == nil || related[string(it.Event.EventID())])
}
