package msync

import (
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/shardlog/token"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

const typePresence = "m.presence"

// active notes that a user did something. Under mu.
func (e *Engine) active(userID string) {
	if e.Presence != nil && e.users[userID] != nil {
		e.Presence.Active(userID)
	}
}

// RoomsOf gives the rooms that a user is in; ok is false if the user does not sync here.
func (e *Engine) RoomsOf(userID string) (rooms []shard.Nid, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	u := e.users[userID]
	if u == nil || !u.ready || u.err != nil {
		return nil, false
	}
	for nid, m := range u.memberships {
		if m.membership == roomdb.MembershipJoin {
			rooms = append(rooms, nid)
		}
	}
	return rooms, true
}

// WakeIn has the waiting syncs of those who are in any of the rooms, and of a user, look again, as far as they want presence.
func (e *Engine) WakeIn(rooms []shard.Nid, userID string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if u := e.users[userID]; u != nil {
		u.wake(func(w *waiter) bool { return !w.noPresence })
	}
	for _, nid := range rooms {
		if r := e.rooms[nid]; r != nil {
			for m := range r.members {
				m.wake(func(w *waiter) bool { return !w.noPresence })
			}
		}
	}
}

// markPresence puts what is known of presence into the answer's token: before it is looked at, so that nothing slips in
// between.
func (v *view) markPresence() {
	if v.e.Presence == nil {
		return
	}
	places := slices.DeleteFunc(slices.Clone(v.upper.Places), func(p token.Place) bool { return p.Section == token.SectionPresence })
	places = append(places, token.Place{Section: token.SectionPresence, Position: shard.Pos(v.e.Presence.Mark())})
	slices.SortFunc(places, func(a, b token.Place) int { return int(a.Section) - int(b.Section) })
	v.upper.Places = places
}

// planPresence takes in whose presence is new to the client. Under mu.
func (v *view) planPresence(p *plan) {
	f := &v.Filter.Presence
	if v.e.Presence == nil || !f.PassType(typePresence) {
		return
	}
	var mark int64
	var entered map[shard.Nid]bool
	if v.since != nil {
		at, ok := v.since.Place(token.SectionPresence)
		mark = int64(at)
		if !ok {
			mark = 1 // long ago: everything is news, also that somebody is not online any more
		}
		for _, x := range p.joined {
			if x.fresh {
				if entered == nil {
					entered = make(map[shard.Nid]bool)
				}
				entered[x.ref.Nid] = true
			}
		}
	}
	worth := v.e.Presence.News(v.u.id, mark, v.u.joined, entered, func(user string, content []byte) {
		if v.ignored[user] || !f.Pass(typePresence, user) {
			return
		}
		b := p.presence
		if len(b) > 0 {
			b = append(b, ',')
		}
		b = canonjson.AppendString(append(b, `{"type":"m.presence","sender":`...), user)
		b = append(append(b, `,"content":`...), content...)
		p.presence = append(b, '}')
	})
	p.online = worth && len(p.presence) > 0
}

// joined gives the rooms that the user is in. Under Engine.mu.
func (u *user) joined(yield func(shard.Nid) bool) {
	for nid, m := range u.memberships {
		if m.membership == roomdb.MembershipJoin && !yield(nid) {
			return
		}
	}
}
