package push

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
	"github.com/heddle-im/heddle/pkg/store/pushdb"
)

// recipient is a user who has pushers. Guarded by term.mu.
type recipient struct {
	id      string
	pushers []*pusher
	// unread is how many notifications are unread, by room; complete says that it has all rooms but the stale ones, and recount that it
	// is being read.
	unread     map[shard.Nid]int64
	staleRooms map[shard.Nid]struct{}
	complete   bool
	turn       chan struct{} // capacity 1: whose holder reads unread
}

// stale notes that what is unread in a room may have changed. Under term.mu.
func (r *recipient) stale(room shard.Nid) {
	if r.complete {
		r.staleRooms[room] = struct{}{}
	}
}

// busy tells whether something is to be done for the user. Under term.mu.
func (r *recipient) busy() bool {
	return slices.ContainsFunc(r.pushers, func(p *pusher) bool {
		return p.running || p.behind || len(p.queue) > 0
	})
}

// notice is an event that somebody is told of. All who are share it.
type notice struct {
	room                shard.Nid
	roomID, version, id string
	nid                 shard.Nid
	shard               shard.ID
	pos                 shard.Pos
	ts                  int64
	json                []byte
	invite              bool
	stripped            []byte // what an invitation says of its room

	mu    sync.Mutex // guards facts, and is held while they are read
	facts *facts
}

// queued is a notice for one pusher.
type queued struct {
	*notice
	highlight bool
	seq       uint64
}

// pusher is where one user wants notifications sent. Its fields but the first ones are guarded by term.mu.
//
// It keeps up, and what its user is to be notified of is queued; or it is behind: nothing is queued, and it is owed what is after above,
// which is read when its gateway is tried again.
type pusher struct {
	key    pushdb.PusherKey
	of     *recipient
	target target

	queue   []queued
	badge   bool // the number of what is unread is to be told
	running bool // a goroutine works for it
	gone    bool // it was removed

	behind bool
	above  shard.Vector
	since  time.Time
	// missed says that something came that was not queued, since it was last begun to catch up.
	missed bool
	// version grows when above changes; stored is the one that is in the database.
	version, stored uint64
	// fresh says that it was made a moment ago, and the log has perhaps not told of it yet: events that came since may have been passed over.
	fresh bool
	// sent are events that it was told of although it is owed them, or may be.
	sent  map[shard.Nid]struct{}
	fails int
	due   time.Time // when it is tried again

	badged int64 // the number that it was last told; -1: none
}

// target is what is sent where.
type target struct {
	url, origin string
	data        jsontext.Value // without the url
	idOnly      bool
	created     int64 // ms
}

// targetOf reads a pusher; ok is false if nothing can be sent to it.
func targetOf(p *accountdb.Pusher) (t target, ok bool) {
	var data map[string]jsontext.Value
	if p.Kind != "http" || json.Unmarshal(p.Data, &data) != nil || json.Unmarshal(data["url"], &t.url) != nil {
		return t, false
	}
	var format string
	_ = json.Unmarshal(data["format"], &format) // what is no text is no format
	delete(data, "url")
	raw, err := json.Marshal(data, json.Deterministic(true))
	t.origin = originOf(t.url)
	t.data, t.idOnly, t.created = raw, format == "event_id_only", p.Created
	return t, err == nil && t.origin != ""
}

// recipients gives those of some users who have pushers, and reads them if they are not known. It is of the follower alone.
func (t *term) recipients(ctx context.Context, users []string) (map[string]*recipient, error) {
	out := make(map[string]*recipient, len(users))
	var unknown []string
	t.mu.Lock()
	for _, u := range users {
		if r := t.users[u]; r != nil {
			out[u] = r
		} else {
			unknown = append(unknown, u)
		}
	}
	t.mu.Unlock()
	if len(unknown) == 0 {
		return out, nil
	}
	shards := make([]shard.ID, len(unknown))
	for i, u := range unknown {
		shards[i] = t.o.Shards.OfUser(u)
	}
	found, err := t.o.Accounts.PushersOf(ctx, shards, unknown)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	by := map[string][]accountdb.Pusher{}
	for i := range found {
		by[found[i].UserID] = append(by[found[i].UserID], found[i])
	}
	for u, list := range by {
		out[u] = t.adopt(u, list)
	}
	return out, nil
}

func (t *term) recipientOf(ctx context.Context, user string) (*recipient, error) {
	found, err := t.recipients(ctx, []string{user})
	return found[user], err
}

// adopt takes in a user's pushers as they are now. Under mu.
func (t *term) adopt(user string, list []accountdb.Pusher) *recipient {
	r := t.users[user]
	if r == nil {
		r = &recipient{id: user, turn: make(chan struct{}, 1)}
		t.users[user] = r
	}
	old := r.pushers
	r.pushers = nil
	for i := range list {
		tg, ok := targetOf(&list[i])
		if !ok {
			continue
		}
		key := pushdb.PusherKey{UserID: user, AppID: list[i].AppID, Pushkey: list[i].Pushkey}
		at := slices.IndexFunc(old, func(p *pusher) bool { return p.key == key && !p.gone })
		if at < 0 {
			p := &pusher{key: key, of: r, target: tg, badged: -1}
			if p.fresh = t.fresh(p); p.fresh {
				p.sent = map[shard.Nid]struct{}{}
			}
			r.pushers = append(r.pushers, p)
			continue
		}
		p := old[at]
		if p.target.origin != tg.origin {
			p.fails, p.due = 0, time.Time{}
		}
		p.target = tg
		r.pushers = append(r.pushers, p)
	}
	for _, p := range old {
		if !slices.Contains(r.pushers, p) {
			t.drop(p)
		}
	}
	return r
}

// freshFor is for how long a pusher may be unheard of in the log.
const freshFor = 5 * time.Minute

func (t *term) fresh(p *pusher) bool {
	return t.o.Now().UnixMilli()-p.target.created < freshFor.Milliseconds()
}

// drop forgets a pusher that is no more. Under mu.
func (t *term) drop(p *pusher) {
	p.gone, p.queue, p.badge = true, nil, false
	delete(t.pending, p)
	t.settle(p)
	notify(t.progress)
}

// reload reads a user's pushers, which changed. anew says that there may be some where none were. What the shards' logs say of events and
// of pushers has no order: a new pusher is owed what came since it was made.
func (t *term) reload(ctx context.Context, user string, anew bool) error {
	t.mu.Lock()
	known := t.users[user] != nil
	t.mu.Unlock()
	if !known && !anew {
		return nil
	}
	list, err := t.o.Accounts.PushersOf(ctx, []shard.ID{t.o.Shards.OfUser(user)}, []string{user})
	if err != nil {
		return err
	}
	var places []pushdb.Place
	if anew && len(list) > 0 {
		if places, err = t.o.DB.Places(ctx, user, nil); err != nil {
			return err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range places { // its hearers were perhaps read when the user was none of them
		delete(t.rooms, p.Room)
	}
	if !known && len(list) == 0 {
		return nil
	}
	for _, p := range t.adopt(user, list).pushers {
		if !anew || !p.fresh {
			continue
		}
		p.fresh = false
		t.owe(p)
		clear(p.above)
		t.wake(p)
	}
	return nil
}

// enqueue has a user's pushers told of an event. Under mu.
func (t *term) enqueue(r *recipient, n *notice, highlight bool) {
	if t.old(n.ts) {
		return
	}
	for _, p := range r.pushers {
		if p.behind {
			p.missed = true
			continue
		}
		t.seq++
		p.queue = append(p.queue, queued{n, highlight, t.seq})
		t.pending[p] = struct{}{}
		if len(p.queue) > t.cfg.MaxQueue {
			t.owe(p)
		}
		t.wake(p)
	}
}

// old tells whether something was said too long ago to be told of.
func (t *term) old(ts int64) bool { return t.o.Now().UnixMilli()-ts > t.cfg.MaxAge.Milliseconds() }

// owe notes what is queued for a pusher as owed. Under mu.
func (t *term) owe(p *pusher) {
	if p.gone {
		return
	}
	if !p.behind {
		p.behind, p.since, p.above = true, t.o.Now(), t.applied.Clone()
		if p.sent == nil {
			p.sent = map[shard.Nid]struct{}{}
		}
		p.stored, p.missed = 0, true
		p.version++
		t.owed[p] = struct{}{}
		delete(t.settled, p.key)
		t.metrics.behind.Inc()
	}
	for _, q := range p.queue {
		p.above[q.shard] = min(p.above[q.shard], q.pos-1)
	}
	p.queue = nil
	delete(t.pending, p)
	notify(t.progress)
}

// settle notes that a pusher is owed nothing more. Under mu.
func (t *term) settle(p *pusher) {
	if !p.behind {
		return
	}
	p.behind, p.above, p.missed = false, nil, false
	if !p.fresh {
		p.sent = nil
	}
	delete(t.owed, p)
	if p.stored > 0 {
		t.settled[p.key] = struct{}{}
	}
	p.stored = 0
}

// restore takes over what pushers are owed.
func (t *term) restore(ctx context.Context, owed []pushdb.Owed) error {
	users := make([]string, len(owed))
	for i, o := range owed {
		users[i] = o.UserID
	}
	found, err := t.recipients(ctx, users)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, o := range owed {
		var p *pusher
		if r := found[o.UserID]; r != nil {
			if i := slices.IndexFunc(r.pushers, func(p *pusher) bool { return p.key == o.PusherKey }); i >= 0 {
				p = r.pushers[i]
			}
		}
		if p == nil {
			t.settled[o.PusherKey] = struct{}{}
			continue
		}
		p.behind, p.above, p.since, p.missed, p.sent = true, o.Above, time.UnixMilli(o.Since), true, map[shard.Nid]struct{}{}
		p.version, p.stored = 1, 1
		t.owed[p] = struct{}{}
	}
	return nil
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
