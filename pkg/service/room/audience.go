package room

import (
	"context"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/pushrule"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/pushdb"
)

// Preferences tells what the users of this server want to be notified of. It may be behind by as long as the log takes to be heard.
type Preferences interface {
	// Of gives the preferences of those of the users who have any, none older than the call.
	Of(ctx context.Context, users []string) (map[string]pushrule.Preference, error)
	// Edition grows with every change that is heard of.
	Edition() uint64
	// Changed gives those whose preferences changed after an edition, and the edition now; ok is false if that is not known any more.
	Changed(since uint64) (users []string, now uint64, ok bool)
}

// audience is who of this server hears a room, by what they want to be told of it. Users whose rules are the same in this room share one
// set, so that an event is judged once for each set. Guarded by live.mu.
type audience struct {
	// edition is that of the preferences.
	edition uint64
	joined  int // users of all servers
	// local are the users of this server who are joined; nil: with the predefined rules.
	local map[id.UserID]*ruleSet
	sets  map[string]*ruleSet // by key
	// ignoring are, by user, those in the room who ignore that one; and ignores the other way around.
	ignoring map[id.UserID]map[id.UserID]struct{}
	ignores  map[id.UserID][]id.UserID
	// stored are the classes as they are stored, and unsaved those in the room of whom this is not true any more.
	stored  map[id.UserID]pushdb.Class
	unsaved map[id.UserID]struct{}
	// running are the counts of threads, as they will be when all is committed; what is not there is as the database has it.
	// age grows when that is let go of.
	running map[string]pushdb.Running
	age     uint64
	size    int64 // what it was charged as
}

// ruleSet is the rules of some users.
type ruleSet struct {
	key     string
	rules   *pushrule.Compiled
	names   bool // they look at display names
	class   pushdb.Class
	members map[id.UserID]struct{}
}

// About how many bytes an audience takes.
const (
	sizeHearer     = 120
	sizeRuleSet    = 4096
	maxRunning     = 512 // threads
	sizeOfAudience = 1024
)

// audienceFact asks for a room's audience.
type audienceFact struct{}

type loadedAudience struct {
	hearing uint64
	*audience
}

func (audienceFact) load(ctx context.Context, r *live) (any, error) {
	hearing, err := r.quiet(ctx)
	if err != nil {
		return nil, err
	}
	h := r.term.host
	a := &audience{
		sets: map[string]*ruleSet{}, ignoring: map[id.UserID]map[id.UserID]struct{}{}, ignores: map[id.UserID][]id.UserID{},
		stored: map[id.UserID]pushdb.Class{}, unsaved: map[id.UserID]struct{}{}, running: map[string]pushdb.Running{},
	}
	if h.Preferences != nil {
		a.edition = h.Preferences.Edition()
	}
	users, joined, err := h.Push.Audience(ctx, r.nid)
	if err != nil {
		return nil, err
	}
	classes, err := h.Push.Classes(ctx, r.nid)
	if err != nil {
		return nil, err
	}
	for u, c := range classes {
		a.stored[id.UserID(u)] = c
	}
	a.joined, a.local = joined, make(map[id.UserID]*ruleSet, len(users))
	var preferences map[string]pushrule.Preference
	if h.Preferences != nil {
		if preferences, err = h.Preferences.Of(ctx, users); err != nil {
			return nil, err
		}
	}
	for _, u := range users {
		a.hear(r.id, id.UserID(u), preferences[u])
	}
	a.size = sizeOfAudience + sizeHearer*int64(len(users)) + sizeRuleSet*int64(len(a.sets))
	return &loadedAudience{hearing, a}, nil
}

// quiet waits until nothing of a room is undecided. What is read then is what the room's head says, unless hearing has moved on.
func (r *live) quiet(ctx context.Context) (hearing uint64, _ error) {
	for {
		r.mu.Lock()
		r.pending = undecided(r.pending)
		pending := r.pending
		hearing = r.hearing
		r.mu.Unlock()
		if len(pending) == 0 {
			return hearing, nil
		}
		select {
		case <-pending[0].Done():
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// hear puts a user who is joined where the user's preferences belong.
func (a *audience) hear(room id.RoomID, user id.UserID, p pushrule.Preference) {
	a.forget(user)
	var set *ruleSet
	if p.Rules != nil {
		rules, key := p.Rules.InRoom(string(room))
		if key != "" {
			if set = a.sets[key]; set == nil {
				set = &ruleSet{
					key: key, rules: pushrule.Compile(rules), names: rules.LooksAtName(), members: map[id.UserID]struct{}{},
				}
				set.class = classOf(set.rules, room, max(a.joined, 3))
				a.sets[key] = set
			}
			set.members[user] = struct{}{}
		}
	}
	a.local[user] = set
	for name := range p.Ignored {
		u := id.UserID(name)
		if a.ignoring[u] == nil {
			a.ignoring[u] = map[id.UserID]struct{}{}
		}
		a.ignoring[u][user] = struct{}{}
		a.ignores[user] = append(a.ignores[user], u)
	}
	if a.classOf(user) != a.stored[user] {
		a.unsaved[user] = struct{}{}
	}
}

// forget removes a user.
func (a *audience) forget(user id.UserID) {
	if set := a.local[user]; set != nil {
		if delete(set.members, user); len(set.members) == 0 {
			delete(a.sets, set.key)
		}
	}
	delete(a.local, user)
	delete(a.unsaved, user)
	for _, u := range a.ignores[user] {
		if delete(a.ignoring[u], user); len(a.ignoring[u]) == 0 {
			delete(a.ignoring, u)
		}
	}
	delete(a.ignores, user)
}

func (a *audience) classOf(user id.UserID) pushdb.Class {
	if set := a.local[user]; set != nil {
		return set.class
	}
	return pushdb.ClassAll
}

// classOf gives the class whose outcomes are most often those of a rule set: what it says of a message, and of a mention of the room.
func classOf(c *pushrule.Compiled, room id.RoomID, members int) pushdb.Class {
	say := func(content string) pushrule.Outcome {
		return c.Evaluate(pushrule.FromParts(pushrule.Parts{RoomID: string(room), Type: event.TypeMessage, Content: []byte(content)}),
			&pushrule.Circumstances{Members: members, SenderLevel: 100, NotificationLevel: func(string) int64 { return 50 }})
	}
	switch {
	case say(`{"msgtype":"m.text"}`).Notify:
		return pushdb.ClassAll
	case say(`{"msgtype":"m.text","m.mentions":{"room":true}}`).Notify:
		return pushdb.ClassSome
	}
	return pushdb.ClassNone
}

// preferenceFact asks for a user's preferences, as of an edition.
type preferenceFact struct {
	user    id.UserID
	edition uint64
}

func (f preferenceFact) load(ctx context.Context, r *live) (any, error) {
	p := r.term.host.Preferences
	if p == nil {
		return &pushrule.Preference{}, nil
	}
	found, err := p.Of(ctx, []string{string(f.user)})
	if err != nil {
		return nil, err
	}
	one := found[string(f.user)]
	return &one, nil
}

// hearers gives the room's audience as it was last heard to be, nil if something has to be read for that. r.mu is held.
func (d *draft) hearers() *audience {
	r := d.r
	if r.audience == nil {
		l := ask[*loadedAudience](&d.view, audienceFact{})
		switch {
		case l == nil:
			return nil
		case l.hearing != r.hearing:
			return d.hearAnew()
		}
		r.audience = l.audience
		r.size += l.size
	}
	a, p := r.audience, r.term.host.Preferences
	if p == nil || p.Edition() == a.edition {
		return a
	}
	users, now, ok := p.Changed(a.edition)
	if !ok {
		r.unhear()
		return d.hearAnew()
	}
	changed := map[id.UserID]*pushrule.Preference{}
	for _, u := range users {
		if _, in := a.local[id.UserID(u)]; in {
			changed[id.UserID(u)] = ask[*pushrule.Preference](&d.view, preferenceFact{id.UserID(u), now})
		}
	}
	if d.lacks() {
		return nil
	}
	for u, p := range changed {
		a.hear(r.id, u, *p)
	}
	a.edition = now
	return a
}

func (d *draft) hearAnew() *audience {
	delete(d.facts, audienceFact{})
	ask[*loadedAudience](&d.view, audienceFact{})
	return nil
}

// unhear lets go of the audience, and of what is being read of it. mu is held.
func (r *live) unhear() {
	r.hearing++
	if r.audience != nil {
		r.size -= r.audience.size
		r.audience = nil
	}
}

// runningFact asks for the running counts of a thread.
type runningFact struct{ thread string }

type loadedRunning struct {
	age uint64
	pushdb.Running
}

func (f runningFact) load(ctx context.Context, r *live) (any, error) {
	l := new(loadedRunning)
	r.mu.Lock()
	if r.audience != nil {
		l.age = r.audience.age
	}
	r.mu.Unlock()
	var err error
	l.Running, err = r.term.host.Push.Last(ctx, r.nid, f.thread)
	return l, err
}

// PushReader reads what is counted of notifications. It is *pushdb.Reader.
type PushReader interface {
	Audience(ctx context.Context, room shard.Nid) (local []string, joined int, err error)
	Classes(ctx context.Context, room shard.Nid) (map[string]pushdb.Class, error)
	Last(ctx context.Context, room shard.Nid, thread string) (pushdb.Running, error)
	Counted(ctx context.Context, room shard.Nid, ord int64, thread string) (pushdb.Counted, bool, error)
}
