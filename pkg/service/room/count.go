package room

import (
	"context"
	"slices"
	"strings"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/pushrule"
	"github.com/heddle-im/heddle/pkg/matrix/relation"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/store/pushdb"
)

// counts is what a draft changes of what is counted, and of who hears the room.
type counts struct {
	events int // that were looked at
	// members are changes of membership, in order.
	members []membershipMove
	joined  int // how many more users are joined
	running map[string]pushdb.Running
	saved   map[id.UserID]pushdb.Class
	// mine are the events of the draft that count for somebody.
	mine map[id.EventID]countedEvent
}

type membershipMove struct {
	user       id.UserID
	joins      bool
	preference *pushrule.Preference
}

type countedEvent struct {
	entry int
	pushdb.Counted
}

// count has an event that takes its place in the room count for those who hear it, and notes in its entry what that changes. The
// draft's view has the state after the event. What it lacks it notes down.
func (d *draft) count(e *event.Event, body *entry.EventBody) {
	if d.isNew {
		return // nobody hears its first events but who makes them
	}
	a := d.hearers()
	if a == nil {
		return
	}
	d.moveMembers(a, body)
	says := e.Type() != event.TypeDummy
	var c pushdb.Counted
	if says {
		c = d.judge(a, e)
	}
	push := &entry.PushOutcome{Flags: int32(c.Flags)}
	sender := e.Sender()
	_, state := e.StateKey()
	rel, _ := relation.Of(e)
	_, hears := a.local[sender]
	push.Sent = hears && says && !state && (rel.Type == "" || rel.Type == relation.Thread)
	if push.Sent {
		delete(c.Exceptions, string(sender)) // whoever says something has read up to there
	}
	counted := c.Flags != 0 || len(c.Exceptions) > 0
	if (counted || push.Sent) && !state {
		c.Thread = d.threadOf(rel)
	}
	var correct *pushdb.Correction
	if body.Redacts != "" {
		correct, push.Corrected = d.correct(id.EventID(body.Redacts))
	}
	if d.lacks() {
		return
	}
	d.counts.events++
	push.Thread = c.Thread
	if counted && !d.addCounted(a, e.EventID(), &c, push) {
		return
	}
	if push.Sent {
		d.rows = append(d.rows, &pushdb.Sent{Room: d.r.nid, UserID: string(sender), Thread: c.Thread, Entry: len(d.entries)})
	}
	if correct != nil {
		d.rows = append(d.rows, correct)
	}
	if counted || push.Sent || correct != nil {
		body.Push = push
	}
}

// addCounted makes the rows of an event that counts for somebody; false if something has to be read first.
func (d *draft) addCounted(a *audience, e id.EventID, c *pushdb.Counted, push *entry.PushOutcome) bool {
	at := len(d.entries)
	if c.Flags != 0 {
		running, ok := d.runningIn(a, c.Thread)
		if !ok {
			return false
		}
		running = running.Plus(c.Flags)
		if d.counts.running == nil {
			d.counts.running = map[string]pushdb.Running{}
		}
		d.counts.running[c.Thread] = running
		d.rows = append(d.rows, &pushdb.Tally{Room: d.r.nid, Thread: c.Thread, Flags: c.Flags, Running: running, Entry: at})
	}
	if c.Thread != "" {
		d.rows = append(d.rows, &pushdb.Thread{Room: d.r.nid, Thread: c.Thread, Entry: at})
	}
	push.Exceptions = exceptionsOf(c.Exceptions)
	for _, x := range push.Exceptions {
		d.rows = append(d.rows, &pushdb.Exception{
			Room: d.r.nid, UserID: x.UserId, Thread: c.Thread, Beyond: c.Exceptions[x.UserId], Entry: at,
		})
	}
	for u := range a.unsaved {
		class := a.classOf(u)
		if saved, ok := d.counts.saved[u]; ok && saved == class {
			continue
		}
		if d.counts.saved == nil {
			d.counts.saved = map[id.UserID]pushdb.Class{}
		}
		d.counts.saved[u] = class
		d.rows = append(d.rows, &pushdb.SetClass{Room: d.r.nid, UserID: string(u), Class: class, Entry: at})
		push.Classes = append(push.Classes, &entry.PushClass{UserId: string(u), Class: int32(class)})
	}
	if d.counts.mine == nil {
		d.counts.mine = map[id.EventID]countedEvent{}
	}
	d.counts.mine[e] = countedEvent{at, *c}
	return true
}

// exceptionsOf gives exceptions as an entry has them.
func exceptionsOf(by map[string]pushdb.Count) []*entry.PushException {
	list := make([]*entry.PushException, 0, len(by))
	for u, c := range by {
		list = append(list, &entry.PushException{UserId: u, Notify: int32(c.Notify), Highlight: int32(c.Highlight)})
	}
	slices.SortFunc(list, func(x, y *entry.PushException) int { return strings.Compare(x.UserId, y.UserId) })
	return list
}

// runningIn gives the running counts of a thread before the draft's next event.
func (d *draft) runningIn(a *audience, thread string) (pushdb.Running, bool) {
	if r, ok := d.counts.running[thread]; ok {
		return r, true
	}
	if r, ok := a.running[thread]; ok {
		return r, true
	}
	if thread != "" {
		if root := d.r.recent.find(id.EventID(thread)); root != nil && root.hearing == d.r.hearing && a.age == 0 {
			return pushdb.Running{}, true // a young thread in which nothing has counted
		}
	}
	f := runningFact{thread}
	l := ask[*loadedRunning](&d.view, f)
	if l != nil && l.age != a.age {
		delete(d.facts, f)
		l = ask[*loadedRunning](&d.view, f)
	}
	if l == nil {
		return pushdb.Running{}, false
	}
	return l.Running, true
}

// judge tells what an event counts for: in each class, and for those whose rules say something else.
func (d *draft) judge(a *audience, e *event.Event) pushdb.Counted {
	power := d.power()
	now := &pushrule.Circumstances{
		Members: a.joined + d.counts.joined, SenderLevel: int64(power.PowerOf(e.Sender())),
		NotificationLevel: func(kind string) int64 { return int64(power.NotificationLevel(kind)) },
	}
	return a.judge(d.r.term.host.rules, pushrule.Of(string(d.r.id), e), now, func(u id.UserID) string {
		name, _ := canonjson.GetString(d.content(event.TypeMember, string(u)), "displayname")
		return name
	})
}

// judge asks each set of rules once, and one by one those whom the event concerns in particular: who sent it, who ignores that one, who is
// mentioned, and those whose rules look for a name that is in it.
func (a *audience) judge(
	predefined *pushrule.Compiled, e *pushrule.Event, now *pushrule.Circumstances, displayName func(id.UserID) string,
) (c pushdb.Counted) {
	general := predefined.Evaluate(e, now)
	if general.Notify {
		c.Flags |= pushdb.AllNotify
	}
	if general.Highlight {
		c.Flags |= pushdb.AllHighlight
	}
	if general.Kind == pushrule.KindOverride {
		c.Flags |= c.Flags << 2
	}
	except := func(u id.UserID, class pushdb.Class, got pushdb.Count) {
		if beyond := got.Minus(c.Flags.In(class)); beyond != (pushdb.Count{}) {
			if c.Exceptions == nil {
				c.Exceptions = map[string]pushdb.Count{}
			}
			c.Exceptions[string(u)] = beyond
		}
	}
	one := map[id.UserID]bool{} // who has been judged
	sender := id.UserID(e.Sender)
	if _, hears := a.local[sender]; hears {
		one[sender] = true
		except(sender, a.classOf(sender), pushdb.Count{})
	}
	for u := range a.ignoring[sender] {
		one[u] = true
		except(u, a.classOf(u), pushdb.Count{})
	}
	judgeOne := func(u id.UserID, name string) {
		if one[u] {
			return
		}
		one[u] = true
		rules, person := predefined, *now
		if set := a.local[u]; set != nil {
			rules = set.rules
		}
		person.UserID, person.DisplayName = string(u), name
		except(u, a.classOf(u), countOf(rules.Evaluate(e, &person)))
	}
	for _, m := range e.Mentions() {
		u := id.UserID(m)
		set, hears := a.local[u]
		switch {
		case !hears:
		case set != nil && set.names:
			judgeOne(u, displayName(u))
		default:
			judgeOne(u, "")
		}
	}
	for _, set := range a.sets {
		if set.names {
			for u := range set.members {
				if name := displayName(u); e.Names(name) {
					judgeOne(u, name)
				}
			}
		}
		got := countOf(set.rules.Evaluate(e, now))
		if got == c.Flags.In(set.class) {
			continue
		}
		for u := range set.members {
			if !one[u] {
				except(u, set.class, got)
			}
		}
	}
	return c
}

func countOf(o pushrule.Outcome) (c pushdb.Count) {
	if o.Notify {
		c.Notify = 1
	}
	if o.Highlight {
		c.Highlight = 1
	}
	return c
}

// moveMembers notes who joins and leaves with an event.
func (d *draft) moveMembers(a *audience, body *entry.EventBody) {
	move := func(user id.UserID, before, after string) {
		was, is := before == event.Join, after == event.Join
		if was == is {
			return
		}
		if is {
			d.counts.joined++
		} else {
			d.counts.joined--
		}
		if !d.local(user) {
			return
		}
		m := membershipMove{user: user, joins: is}
		if is {
			m.preference = ask[*pushrule.Preference](&d.view, preferenceFact{user, a.edition})
		}
		d.counts.members = append(d.counts.members, m)
	}
	if body.StateKey != nil && body.Type == event.TypeMember && (body.Membership != "" || body.PrevMembership != "") {
		move(id.UserID(*body.StateKey), body.PrevMembership, body.Membership)
	}
	for _, c := range body.StateChanges {
		if c.Type == event.TypeMember {
			move(id.UserID(c.StateKey), c.PrevMembership, c.Membership)
		}
	}
}

// threadOf gives the thread that an event with a relation is in, empty for the main timeline: an event's own, or that of what it relates to.
func (d *draft) threadOf(rel relation.Relation) string {
	for range maxHops + 1 {
		if root, in := rel.ThreadRoot(); in {
			return string(root)
		}
		if rel.Parent == "" {
			return ""
		}
		i := slices.IndexFunc(d.made, func(m madeEvent) bool { return m.id == rel.Parent })
		if i >= 0 {
			rel = d.made[i].rel
		} else {
			rel, _, _ = d.relationOf(rel.Parent)
		}
		if d.lacks() {
			return ""
		}
	}
	return ""
}

// correctionFact asks for what an event counts for; the answer is nil for nothing.
type correctionFact struct{ event id.EventID }

type placedCount struct {
	ord int64
	pushdb.Counted
}

func (f correctionFact) load(ctx context.Context, r *live) (any, error) {
	var ord int64
	thread, next := "", f.event
	for hop := range maxHops + 1 { // the way that it was found when the event was counted, redacted since or not
		rows, err := r.term.host.DB.EventsByID(ctx, r.nid, []string{string(next)})
		if err != nil {
			return nil, err
		}
		if len(rows) == 0 || !rows[0].Placed {
			break
		}
		if hop == 0 {
			ord = rows[0].Ord
		}
		content, _ := canonjson.Get(rows[0].JSON, "content")
		rel, _ := relation.Parse(content)
		if root, in := rel.ThreadRoot(); in {
			thread = string(root)
		}
		if next = rel.Parent; next == "" || thread != "" {
			break
		}
	}
	if ord == 0 {
		return (*placedCount)(nil), nil
	}
	c, ok, err := r.term.host.Push.Counted(ctx, r.nid, ord, thread)
	if err != nil || !ok {
		return (*placedCount)(nil), err
	}
	return &placedCount{ord, c}, nil
}

// correct takes back what an event counts for that is redacted, if it has not been taken back already.
func (d *draft) correct(target id.EventID) (*pushdb.Correction, *entry.PushCorrection) {
	if n := len(d.redacted); n > 0 && (slices.Contains(d.redacted[:n-1], d.redacted[n-1]) || slices.Contains(d.r.redacted, d.redacted[n-1])) {
		return nil, nil
	}
	at := len(d.entries)
	row := &pushdb.Correction{Room: d.r.nid, Entry: at}
	body := &entry.PushCorrection{}
	var c pushdb.Counted
	if mine, ok := d.counts.mine[target]; ok {
		c, row.Back, body.Back = mine.Counted, at-mine.entry, int64(at-mine.entry)
	} else {
		stored := ask[*placedCount](&d.view, correctionFact{target})
		if stored == nil {
			return nil, nil
		}
		c, row.Ord, body.Ord = stored.Counted, stored.ord, stored.ord
	}
	row.Thread, row.Flags = c.Thread, c.Flags
	body.Thread, body.Flags, body.Exceptions = c.Thread, int32(c.Flags), exceptionsOf(c.Exceptions)
	return row, body
}

// adoptCounts takes in what a draft changes. mu is held.
func (r *live) adoptCounts(d *draft) {
	if len(d.made) > d.counts.events { // not all was looked at
		r.unhear()
		return
	}
	a := r.audience
	if a == nil || d.counts.events == 0 {
		return
	}
	a.joined += d.counts.joined
	for _, m := range d.counts.members {
		if m.joins {
			a.hear(r.id, m.user, *m.preference)
		} else {
			a.forget(m.user)
		}
	}
	for u, class := range d.counts.saved {
		a.stored[u] = class
		if _, in := a.local[u]; in && a.classOf(u) == class {
			delete(a.unsaved, u)
		}
	}
	// What is not committed cannot be read again: it is let go of only between commits.
	if len(a.running) >= maxRunning && len(r.pending) <= 1 {
		clear(a.running)
		a.age++
	}
	for thread, running := range d.counts.running {
		a.running[thread] = running
	}
}
