package msync

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/e2eedb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// A client is told whose device lists have changed of those with whom its user shares a room, who shares one only now, and who shares
// none any more. The first two are "changed", the last "left".
//
// A change of a list, and somebody's going from a room, concern whoever shares a room with that user: which rooms these are is asked of
// the database once for all users who are served here, after the entry was heard. Until it is known, syncs that go beyond the entry wait.
// What is found is noted with each user it concerns, so that a sync from within the window looks at its own notes alone. A sync from
// before, or in which the user's own rooms have changed, asks the database.

const (
	maxNotes = 256 // of one user
	// resolveAtOnce is for how many entries the database is asked at a time.
	resolveAtOnce = 200
)

type noteKind uint8

const (
	listChanged noteKind = iota // somebody's list has changed
	came                        // somebody joined the room
	went                        // somebody left the room
	signed                      // the user has signed somebody's keys, on another device perhaps
)

// note is something that was heard of a user's devices or rooms.
type note struct {
	kind  noteKind
	shard shard.ID
	pos   shard.Pos
	user  string
	room  shard.Nid // of came and went
	// rooms are where the user is joined, of listChanged and went, among those held. They are set once, before anybody is told.
	rooms []shard.Nid
}

func (e *Engine) hearDeviceList(at *entry.At, s shard.ID, concerned map[*user]struct{}) error {
	body, err := entry.DecodeDeviceList(&at.Entry)
	if err != nil {
		return err
	}
	if u := e.users[at.Subject]; u != nil {
		for _, of := range body.Signed {
			u.note(&note{kind: signed, shard: s, pos: at.Pos, user: of})
		}
		for _, id := range body.Gone { // what comes back with its name is another device
			delete(u.devices, id)
			e.dropMessages(u, id)
		}
		concerned[u] = struct{}{}
	}
	if len(e.users) > 0 && len(body.Signed) == 0 {
		e.unresolved = append(e.unresolved, &note{kind: listChanged, shard: s, pos: at.Pos, user: at.Subject})
	}
	return nil
}

// dropMessages forgets the messages to a device. Under mu.
func (e *Engine) dropMessages(u *user, id string) {
	u.messages = slices.DeleteFunc(u.messages, func(m message) bool {
		if m.device == id {
			e.credit(u, m)
		}
		return m.device == id
	})
}

// hearMoves takes in who came to a room or went. Under mu.
func (e *Engine) hearMoves(r *room, at *entry.At, body *entry.EventBody) {
	s := at.Room.Shard()
	if slices.ContainsFunc(body.StateChanges, func(c *entry.StateChange) bool { return c.Type == typeMember }) {
		// A resolution of forks moved others, too: that is asked of the database.
		for m := range r.members {
			if m.notesFrom != nil {
				m.notesFrom[s] = max(m.notesFrom[s], at.Pos)
			}
		}
	}
	if body.Membership == "" {
		return
	}
	user, pos := body.GetStateKey(), at.Pos
	now, was := body.Membership == event.Join, body.PrevMembership == event.Join
	switch {
	case now && !was:
		n := &note{kind: came, shard: s, pos: pos, user: user, room: r.ref.Nid}
		for m := range r.members {
			m.note(n)
		}
	case was && !now:
		e.unresolved = append(e.unresolved, &note{kind: went, shard: s, pos: pos, user: user, room: r.ref.Nid})
	}
}

// note notes something that concerns the user. Under mu.
func (u *user) note(n *note) {
	if u.notesFrom == nil {
		return // not served yet: everything so far will be asked of the database
	}
	u.notes = append(u.notes, n)
	if len(u.notes) <= maxNotes {
		return
	}
	for _, old := range u.notes[:maxNotes/4] {
		u.notesFrom[old.shard] = max(u.notesFrom[old.shard], old.pos)
	}
	u.notes = slices.Clone(u.notes[maxNotes/4:])
}

// resolveAll resolves what is heard, until the engine stops.
func (e *Engine) resolveAll(ctx context.Context) {
	for {
		select {
		case <-e.heard:
			e.resolve(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// resolve finds out whom the entries concern that were heard, and tells them.
func (e *Engine) resolve(ctx context.Context) {
	for {
		e.mu.Lock()
		batch := slices.Clone(e.unresolved[:min(len(e.unresolved), resolveAtOnce)])
		var rooms []shard.Nid
		users := make(map[string]bool)
		for _, n := range batch {
			users[n.user] = true
		}
		for nid := range e.rooms {
			rooms = append(rooms, nid)
		}
		e.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		var locals, others []string
		for u := range users {
			if e.Shards.Local(u) {
				locals = append(locals, u)
			} else {
				others = append(others, u)
			}
		}
		found, err := e.Keys.Rooms(ctx, locals, others, rooms)
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			e.Log.Warn("whom changes of device lists concern could not be read", "error", err)
			if lifecycle.Sleep(ctx, time.Second) != nil {
				return
			}
			continue
		}
		joined := make(map[string][]shard.Nid)
		for _, x := range found {
			joined[x.UserID] = append(joined[x.UserID], x.Room)
		}
		e.settleNotes(batch, joined)
	}
}

// settleNotes notes what was found with everybody whom it concerns, and wakes them.
func (e *Engine) settleNotes(batch []*note, joined map[string][]shard.Nid) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.unresolved) < len(batch) || e.unresolved[0] != batch[0] {
		return // all was forgotten meanwhile
	}
	for _, n := range batch {
		for _, nid := range joined[n.user] {
			if e.rooms[nid] != nil {
				n.rooms = append(n.rooms, nid)
			}
		}
		concerned := make(map[*user]struct{})
		if u := e.users[n.user]; u != nil {
			concerned[u] = struct{}{}
		}
		if r := e.rooms[n.room]; r != nil {
			for m := range r.members {
				concerned[m] = struct{}{}
			}
		}
		if n.kind == listChanged {
			for _, nid := range n.rooms {
				for m := range e.rooms[nid].members {
					concerned[m] = struct{}{}
				}
			}
		}
		for u := range concerned {
			u.note(n)
			e.wake(u)
		}
	}
	e.unresolved = slices.Clone(e.unresolved[len(batch):])
	close(e.resolved)
	e.resolved = make(chan struct{})
}

// awaitResolved waits until it is known whom everything concerns that was heard up to a token.
func (v *view) awaitResolved(ctx context.Context) error {
	for {
		v.e.mu.Lock()
		pending := slices.ContainsFunc(v.e.unresolved, v.new)
		resolved := v.e.resolved
		v.e.mu.Unlock()
		if !pending {
			return nil
		}
		select {
		case <-resolved:
		case <-v.e.tasks.Context().Done():
			return mxerr.Unavailable("This worker is shutting down", 1000)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// new tells whether a note is of what the answer is about.
func (v *view) new(n *note) bool {
	since, _ := v.from(n.shard)
	return n.pos > since && n.pos <= v.to(n.shard)
}

// planLists tells whether there may be news of device lists. Under mu.
func (v *view) planLists(p *plan) {
	if v.since == nil {
		return
	}
	p.readLists = v.u.notesFrom == nil || !v.since.Positions.AtLeast(v.u.notesFrom)
	for nid, m := range v.u.memberships {
		since, _ := v.from(nid.Shard())
		moved := m.membership == roomdb.MembershipJoin || m.membership == roomdb.MembershipLeave || m.membership == roomdb.MembershipBan
		if moved && m.pos > since && m.pos <= v.to(nid.Shard()) {
			p.readLists = true
		}
	}
	p.lists = slices.ContainsFunc(v.u.notes, v.new) || slices.ContainsFunc(v.e.unresolved, v.new)
}

// deviceLists gives who changed and who left.
func (v *view) deviceLists(ctx context.Context, p *plan) (changed, left []string, err error) {
	if v.since == nil || !p.lists && !p.readLists {
		return nil, nil, nil
	}
	if err := v.awaitResolved(ctx); err != nil {
		return nil, nil, err
	}
	if !p.readLists {
		if changed, left, ok := v.fromNotes(); ok {
			return changed, left, nil
		}
	}
	v.e.mu.Lock()
	mine := make([]e2eedb.Mine, 0, len(v.u.memberships))
	for nid, m := range v.u.memberships {
		mine = append(mine, e2eedb.Mine{Room: nid, Joined: m.membership == roomdb.MembershipJoin, Pos: m.pos})
	}
	v.e.mu.Unlock()
	return v.e.Keys.Tracked(ctx, v.e.Shards, v.u.id, v.since.Positions, mine)
}

// fromNotes is deviceLists from what is held; ok is false if that is not everything any more.
func (v *view) fromNotes() (changed, left []string, ok bool) {
	v.e.mu.Lock()
	defer v.e.mu.Unlock()
	u := v.u
	if u.notesFrom == nil || !v.since.Positions.AtLeast(u.notesFrom) {
		return nil, nil, false
	}
	in := func(nid shard.Nid) bool {
		m := u.memberships[nid]
		return m != nil && m.membership == roomdb.MembershipJoin
	}
	news, gone, tells := make(map[string]bool), make(map[string]bool), make(map[string]bool)
	type place struct {
		user string
		room shard.Nid
	}
	type move struct {
		pos  shard.Pos
		here bool
	}
	last := make(map[place]move) // the user's last move there; going is noted when it is resolved, and may stand after a later coming
	moved := func(n *note, here bool) {
		if at := (place{n.user, n.room}); n.pos > last[at].pos {
			last[at] = move{n.pos, here}
		}
	}
	rooms := make(map[string][]shard.Nid)
	for _, n := range u.notes {
		if !v.new(n) {
			continue
		}
		switch n.kind {
		case signed:
			tells[n.user] = true
			continue
		case listChanged:
			news[n.user] = true
		case came:
			if in(n.room) {
				news[n.user] = true
				moved(n, true)
			}
		case went:
			gone[n.user] = true
			moved(n, false)
		}
		if n.kind != came {
			rooms[n.user] = n.rooms // the latest that is known
		}
	}
	shares := func(user string) bool {
		for at, m := range last {
			if at.user == user && m.here && in(at.room) {
				return true
			}
		}
		return slices.ContainsFunc(rooms[user], func(nid shard.Nid) bool {
			m, ok := last[place{user, nid}]
			return in(nid) && (m.here || !ok)
		})
	}
	own := news[u.id]
	delete(news, u.id)
	delete(gone, u.id)
	maps.Copy(gone, news)
	for _, user := range slices.Sorted(maps.Keys(gone)) {
		switch {
		case !shares(user):
			left = append(left, user)
		case news[user]:
			changed = append(changed, user)
		}
	}
	if own {
		changed = append(changed, u.id)
	}
	return e2eedb.WithSigned(changed, left, slices.Sorted(maps.Keys(tells))), left, true
}

func appendUsers(b []byte, users []string) []byte {
	b = append(b, '[')
	for i, u := range users {
		if i > 0 {
			b = append(b, ',')
		}
		b = canonjson.AppendString(b, u)
	}
	return append(b, ']')
}
