package push

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/pushdb"
)

// term is the time in which this worker has the role.
type term struct {
	*Sender
	role      shard.Role
	following *lifecycle.Tasks
	work      *lifecycle.Tasks
	lanes     chan struct{}
	readers   chan struct{}
	progress  chan struct{} // capacity 1: something was told, or is owed, or somebody is being told no more
	saving    sync.Mutex    // one at a time stores what is owed

	mu       sync.Mutex   // guards all below and what they lead to; never held across I/O
	applied  shard.Vector // up to where the log was taken in
	seq      uint64       // of what is queued
	rooms    map[shard.Nid]map[string]*hearer
	users    map[string]*recipient
	gateways map[string]*gateway
	pending  map[*pusher]struct{} // for whom something is queued
	owed     map[*pusher]struct{} // who are owed something
	running  int                  // for how many a goroutine works
	// settled are stored as owed something, and are no more.
	settled map[pushdb.PusherKey]struct{}
}

// hearer is a user with pushers in a room.
type hearer struct {
	*recipient
	since shard.Pos
	class pushdb.Class
}

func newTerm(ctx context.Context, s *Sender, role shard.Role) *term {
	ctx = context.WithoutCancel(ctx)
	return &term{
		Sender: s, role: role, following: lifecycle.NewTasks(ctx), work: lifecycle.NewTasks(ctx),
		lanes: make(chan struct{}, s.cfg.Lanes), readers: make(chan struct{}, s.cfg.Readers), progress: make(chan struct{}, 1),
		rooms: map[shard.Nid]map[string]*hearer{}, users: map[string]*recipient{}, gateways: map[string]*gateway{},
		pending: map[*pusher]struct{}{}, owed: map[*pusher]struct{}{}, settled: map[pushdb.PusherKey]struct{}{},
	}
}

// wanted is the follower's filter.
func wanted(k entry.Kind, _ shard.Nid, _ []byte) bool {
	return k == entry.KindEvent || k == entry.KindReceipt || k == entry.KindSession
}

// begin says from where the log is followed.
func (t *term) begin(at shard.Vector) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.applied = at.Clone()
	clear(t.rooms)
}

// taken is what a batch comes to.
type taken struct {
	notices []noticed
	reads   []read
}

// noticed is an event that users are told of.
type noticed struct {
	*notice
	to []told
}

type told struct {
	*recipient
	highlight bool
}

// read says that what is unread may have changed for users in a room.
type read struct {
	*recipient
	room  shard.Nid
	badge bool
}

// Apply implements follow.Consumer. What fails is told again: nothing is queued before all was read.
func (t *term) Apply(ctx context.Context, b follow.Batch) error {
	var out taken
	for i := range b.Entries {
		if err := t.take(ctx, &b.Entries[i], &out); err != nil {
			return fmt.Errorf("who is to be notified: %w", err)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range out.notices {
		for _, to := range out.notices[i].to {
			t.enqueue(to.recipient, out.notices[i].notice, to.highlight)
		}
	}
	for _, r := range out.reads {
		r.stale(r.room)
		if !r.badge {
			continue
		}
		for _, p := range r.pushers {
			p.badge = true
			t.wake(p)
		}
	}
	t.applied[b.Shard] = b.Last
	return nil
}

func (t *term) take(ctx context.Context, e *entry.At, out *taken) error {
	switch e.Kind {
	case entry.KindEvent:
		return t.takeEvent(ctx, e, out)
	case entry.KindReceipt:
		body, err := entry.DecodeReceipt(&e.Entry)
		if err != nil || !t.o.Shards.Local(body.UserId) || body.Kind != "m.read" && body.Kind != "m.read.private" {
			return nil //nolint:nilerr // what cannot be read changes nothing
		}
		room, err := t.hearers(ctx, e.Room, e.Pos)
		if err != nil {
			return err
		}
		if h := room[body.UserId]; h != nil {
			out.reads = append(out.reads, read{h.recipient, e.Room, true})
		}
	case entry.KindSession:
		body, err := entry.DecodeSession(&e.Entry)
		if err != nil {
			return nil //nolint:nilerr // the same
		}
		switch body.GetChange() {
		case entry.SessionPushers, entry.SessionRemoved, entry.SessionDeactivated:
			return t.reload(ctx, e.Subject, body.GetChange() == entry.SessionPushers)
		}
	}
	return nil
}

func (t *term) takeEvent(ctx context.Context, e *entry.At, out *taken) error {
	body, err := entry.DecodeEvent(&e.Entry)
	if err != nil {
		t.log.Error("an event in the log cannot be read; nobody is notified of it", "shard", int(e.Shard), "position", int64(e.Pos), "error", err)
		return nil
	}
	n := noticed{notice: &notice{room: e.Room, roomID: body.RoomId, version: body.RoomVersion, nid: e.Event, id: body.EventId, shard: e.Shard, pos: e.Pos, ts: body.Ts, json: e.JSON}}
	if body.Push != nil {
		room, err := t.hearers(ctx, e.Room, e.Pos)
		if err != nil {
			return err
		}
		t.judged(room, e, body, &n, out)
	}
	if body.Type == event.TypeMember && body.StateKey != nil && body.Membership == event.Invite && t.o.Shards.Local(*body.StateKey) {
		r, err := t.recipientOf(ctx, *body.StateKey)
		if err != nil {
			return err
		}
		if r != nil {
			n.invite, n.stripped = true, body.StrippedState
			n.to = append(n.to, told{recipient: r})
		}
	}
	if len(n.to) > 0 {
		out.notices = append(out.notices, n)
	}
	moved := t.moves(body.Type, body.StateKey, body.Membership, body.PrevMembership)
	for _, c := range body.StateChanges {
		key := c.StateKey
		moved = t.moves(c.Type, &key, c.Membership, c.PrevMembership) || moved
	}
	if moved {
		t.mu.Lock()
		defer t.mu.Unlock()
		if body.StateKey != nil {
			if r := t.users[*body.StateKey]; r != nil {
				r.stale(e.Room)
			}
		}
		delete(t.rooms, e.Room)
	}
	return nil
}

// moves tells whether a user of this server comes into the room or goes.
func (t *term) moves(typ string, key *string, now, before string) bool {
	return typ == event.TypeMember && key != nil && (now == event.Join) != (before == event.Join) && t.o.Shards.Local(*key)
}

// judged notes who is told of an event, by what it counts for.
func (t *term) judged(room map[string]*hearer, e *entry.At, body *entry.EventBody, n *noticed, out *taken) {
	if len(room) == 0 {
		return
	}
	p := body.Push
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range p.Classes {
		if h := room[c.UserId]; h != nil {
			h.class = pushdb.Class(c.Class)
		}
	}
	beyond := make(map[string]pushdb.Count, len(p.Exceptions))
	for _, x := range p.Exceptions {
		beyond[x.UserId] = pushdb.Count{Notify: int64(x.Notify), Highlight: int64(x.Highlight)}
	}
	tell := func(user string, h *hearer) {
		if p.Sent && user == body.Sender {
			return
		}
		if c := pushdb.Flags(p.Flags).In(h.class).Plus(beyond[user]); c.Notify > 0 && h.since < e.Pos {
			n.to = append(n.to, told{h.recipient, c.Highlight > 0})
			out.reads = append(out.reads, read{h.recipient, e.Room, false})
		}
	}
	if p.Flags != 0 {
		for user, h := range room {
			tell(user, h)
		}
	} else {
		for user := range beyond {
			if h := room[user]; h != nil {
				tell(user, h)
			}
		}
	}
	if h := room[body.Sender]; h != nil && p.Sent {
		out.reads = append(out.reads, read{h.recipient, e.Room, true})
	}
	if p.Corrected != nil {
		for _, h := range room {
			out.reads = append(out.reads, read{h.recipient, e.Room, false})
		}
	}
}

// hearers gives the users with pushers who hear a room, as of before an entry. It is of the follower alone but for what mu guards.
func (t *term) hearers(ctx context.Context, room shard.Nid, at shard.Pos) (map[string]*hearer, error) {
	t.mu.Lock()
	known, ok := t.rooms[room]
	t.mu.Unlock()
	if ok {
		return known, nil
	}
	t.mu.Lock()
	if len(t.rooms) >= t.cfg.MaxRooms {
		t.forgetRooms()
	}
	t.mu.Unlock()
	list, err := t.o.DB.Hearers(ctx, []shard.Nid{room}, []shard.Pos{at})
	if err != nil {
		return nil, err
	}
	users := make([]string, len(list))
	for i, h := range list {
		users[i] = h.UserID
	}
	found, err := t.recipients(ctx, users)
	if err != nil {
		return nil, err
	}
	out := make(map[string]*hearer, len(found))
	for _, h := range list {
		if r := found[h.UserID]; r != nil {
			out[h.UserID] = &hearer{r, h.Since, h.Class}
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rooms[room] = out
	return out, nil
}

// forgetRooms lets go of what is remembered of rooms, and of users for whom nothing is to be done. Under mu.
func (t *term) forgetRooms() {
	clear(t.rooms)
	for user, r := range t.users {
		if !r.busy() {
			delete(t.users, user)
		}
	}
}

// Flush implements follow.Flusher: all that was taken in so far is told, or noted as owed.
func (t *term) Flush(ctx context.Context) error {
	t.mu.Lock()
	mark := t.seq
	t.mu.Unlock()
	t.await(ctx, t.cfg.Patience, func() bool { return t.toldUpTo(mark) })
	return t.saveOwed(ctx, mark)
}

// await waits a while for something that comes with progress.
func (t *term) await(ctx context.Context, atMost time.Duration, done func() bool) {
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	for !done() {
		select {
		case <-t.progress:
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// save stores what has changed of what pushers are owed.
func (t *term) save(ctx context.Context) {
	if err := t.saveOwed(ctx, 0); err != nil && ctx.Err() == nil && !errors.Is(err, follow.ErrRoleLost) {
		t.log.Warn("what pushers are owed was not stored", "error", err)
	}
}

// saveOwed notes as owed what is still queued of what was up to a mark, and stores what has changed of what pushers are owed.
func (t *term) saveOwed(ctx context.Context, mark uint64) error {
	t.saving.Lock()
	defer t.saving.Unlock()
	set, drop, versions := t.owing(mark)
	if len(set)+len(drop) == 0 {
		return nil
	}
	held, err := t.o.DB.SaveOwed(context.WithoutCancel(ctx), t.role, set, drop)
	if err == nil && !held {
		err = follow.ErrRoleLost
	}
	if err != nil {
		return err
	}
	t.stored(versions, drop)
	return nil
}

// toldUpTo tells whether nothing that was queued up to a mark still is.
func (t *term) toldUpTo(mark uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for p := range t.pending {
		if p.queue[0].seq <= mark {
			return false
		}
	}
	return true
}

// owing notes as owed what is still queued of what was up to a mark, and gives what is to be stored.
func (t *term) owing(mark uint64) (set, drop []pushdb.Owed, versions map[*pusher]uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for p := range t.pending {
		if p.queue[0].seq <= mark {
			t.owe(p)
			t.wake(p)
		}
	}
	versions = map[*pusher]uint64{}
	for p := range t.owed {
		if p.version == p.stored {
			continue
		}
		versions[p] = p.version
		o := t.owedRow(p.key)
		o.Since, o.Above = p.since.UnixMilli(), p.above.Clone()
		set = append(set, o)
	}
	for k := range t.settled {
		drop = append(drop, t.owedRow(k))
	}
	return set, drop, versions
}

func (t *term) owedRow(k pushdb.PusherKey) pushdb.Owed {
	return pushdb.Owed{Shard: t.o.Shards.OfUser(k.UserID), PusherKey: k}
}

// stored notes what was.
func (t *term) stored(versions map[*pusher]uint64, dropped []pushdb.Owed) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, o := range dropped {
		delete(t.settled, o.PusherKey)
	}
	for p, version := range versions {
		if _, still := t.owed[p]; still {
			p.stored = version
		} else { // meanwhile it has been told
			t.settled[p.key] = struct{}{}
		}
	}
}
