package sender

import (
	"context"
	"encoding/json"
	"slices"
	"sync"

	"github.com/heddle-im/heddle/pkg/infra/cache"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/senderdb"
)

// rooms remembers which destinations are in which rooms, at the place in the log up to which it was told of changes. A room is
// first noted and then read, so that no change falls between.
type rooms struct {
	s       *Sender
	account *cache.Account

	mu  sync.Mutex // guards what follows, and the fields of every host list; Sender.mu may be taken under it, and not the other way round
	gen int64      // of the newest slot whose destinations the lists hold
	m   map[shard.Nid]*hosts
}

// hosts are the destinations in a room.
type hosts struct {
	ready   chan struct{} // closed when it is read
	loading bool
	err     error
	list    []*destination // never changed, only replaced
	// doubtful are those of whose users some have gone; whether all have is read when it matters.
	doubtful []id.ServerName
	closed   bool // the room is not for other servers
	version  int  // of list and doubtful
	early    []change
}

// change is that a user of another server came into a room, or went.
type change struct {
	host id.ServerName
	came bool
}

// maxRooms bounds the rooms that are remembered.
const maxRooms = 50_000

func newRooms(s *Sender) *rooms {
	r := &rooms{s: s, m: map[shard.Nid]*hosts{}}
	r.account = s.o.Budget.Account("federation-rooms", func(int64) int64 { return r.drop() })
	return r
}

func (r *rooms) close() {
	r.drop()
	r.account.Close()
}

// renew forgets all: there are other slots than before.
func (r *rooms) renew(gen int64) {
	r.mu.Lock()
	r.gen = max(r.gen, gen)
	r.mu.Unlock()
	r.drop()
}

// drop forgets all and tells how many bytes that frees. What is being read is read to its end for those who wait, and not kept.
func (r *rooms) drop() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.m = map[shard.Nid]*hosts{}
	freed := r.account.Used()
	r.account.Release(freed)
	return freed
}

// forget forgets one room.
func (r *rooms) forget(room shard.Nid) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.m, room)
}

// generation tells of which slots the lists that get gives from now on hold the destinations: those that came up to it.
func (r *rooms) generation() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.gen
}

// get gives the destinations in rooms. since is, for each room, the position from which on changes are or will be told: who has gone
// after it is still there.
func (r *rooms) get(ctx context.Context, list []shard.Nid, since []shard.Pos) ([][]*destination, error) {
	found := make([]*hosts, len(list))
	var fresh []shard.Nid
	var freshSince []shard.Pos
	var mine []*hosts
	r.mu.Lock()
	if len(r.m) > maxRooms {
		r.mu.Unlock()
		r.drop()
		r.mu.Lock()
	}
	for i, n := range list {
		h := r.m[n]
		if h == nil {
			h = &hosts{ready: make(chan struct{}), loading: true}
			r.m[n] = h
			fresh, freshSince, mine = append(fresh, n), append(freshSince, since[i]), append(mine, h)
		}
		found[i] = h
	}
	r.mu.Unlock()
	if len(fresh) > 0 {
		r.load(ctx, fresh, freshSince, mine)
	}
	out := make([][]*destination, len(list))
	for i, h := range found {
		select {
		case <-h.ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if h.err != nil {
			return nil, h.err
		}
		var err error
		if out[i], err = r.settled(ctx, list[i], since[i], h); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// load reads rooms that were noted.
func (r *rooms) load(ctx context.Context, list []shard.Nid, since []shard.Pos, into []*hosts) {
	rows, err := r.s.o.DB.Hosts(ctx, list, since)
	r.s.metrics.loads.Inc()
	lists := make([][]*destination, len(list))
	for i := range rows {
		lists[i] = r.s.destinations(rows[i].Hosts)
	}
	var size int64
	r.mu.Lock()
	for i, h := range into {
		h.loading = false
		if h.err = err; err != nil {
			if r.m[list[i]] == h {
				delete(r.m, list[i])
			}
			close(h.ready)
			continue
		}
		h.list, h.closed = lists[i], notFederated(&rows[i])
		for _, c := range h.early {
			r.change(h, c)
		}
		h.early = nil
		if r.m[list[i]] == h {
			size += 160 + int64(8*len(h.list))
		}
		close(h.ready)
	}
	r.mu.Unlock()
	if size > 0 {
		r.account.Charge(size)
	}
}

// notFederated tells whether a room's creator wants no other servers in it.
func notFederated(h *senderdb.RoomHosts) bool {
	if h.Create == nil {
		return false
	}
	var e struct {
		Content struct {
			Federate *bool `json:"m.federate"`
		} `json:"content"`
	}
	return json.Unmarshal(h.Create, &e) == nil && e.Content.Federate != nil && !*e.Content.Federate
}

// settled gives a room's list once nobody in it is doubtful.
func (r *rooms) settled(ctx context.Context, room shard.Nid, since shard.Pos, h *hosts) ([]*destination, error) {
	for {
		r.mu.Lock()
		list, doubtful, version, closed := h.list, h.doubtful, h.version, h.closed
		r.mu.Unlock()
		switch {
		case closed:
			return nil, nil
		case len(doubtful) == 0:
			return list, nil
		}
		names := make([]string, len(doubtful))
		for i, d := range doubtful {
			names[i] = string(d)
		}
		still, err := r.s.o.DB.StillThere(ctx, room, since, names)
		if err != nil {
			return nil, err
		}
		r.s.metrics.loads.Inc()
		gone := func(d *destination) bool {
			return slices.Contains(doubtful, d.name) && !slices.Contains(still, string(d.name))
		}
		r.mu.Lock()
		if h.version == version { // else somebody came or went meanwhile
			h.list, h.doubtful = slices.DeleteFunc(slices.Clone(list), gone), nil
			h.version++
		}
		r.mu.Unlock()
	}
}

// apply takes in changes of a room's members.
func (r *rooms) apply(room shard.Nid, changes []change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.m[room]
	if h == nil {
		return
	}
	for _, c := range changes {
		if h.loading {
			h.early = append(h.early, c)
		} else {
			r.change(h, c)
		}
	}
}

// change takes in one change. Under mu.
func (r *rooms) change(h *hosts, c change) {
	h.version++
	i := slices.IndexFunc(h.list, func(d *destination) bool { return d.name == c.host })
	switch {
	case !c.came && i >= 0 && !slices.Contains(h.doubtful, c.host):
		h.doubtful = append(slices.Clone(h.doubtful), c.host)
	case c.came:
		h.doubtful = slices.DeleteFunc(slices.Clone(h.doubtful), func(d id.ServerName) bool { return d == c.host })
		if i < 0 {
			h.list = append(slices.Clip(h.list), r.s.destinations([]string{string(c.host)})...)
		}
	}
}

// destinations gives the destinations of servers, those whose slots are held here.
func (s *Sender) destinations(names []string) []*destination {
	list := make([]*destination, 0, len(names))
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		if d := s.destination(id.ServerName(name)); d != nil {
			list = append(list, d)
		}
	}
	return list
}

// destination gives one, nil if it is not served here. Under mu.
func (s *Sender) destination(name id.ServerName) *destination {
	sl := s.slots[int(s.o.Shards.Of(string(name)))]
	if sl == nil || sl.closing || name == s.o.Server {
		return nil
	}
	if d := sl.dests[name]; d != nil {
		return d
	}
	if _, err := id.ParseServerName(string(name)); err != nil {
		return nil
	}
	return sl.dest(name)
}

// membership gives the change that an event of a member makes, if it concerns another server.
func (s *Sender) membership(list []change, user, now, before string) []change {
	u, err := id.ParseUserID(user)
	if err != nil {
		return list
	}
	host := u.Server()
	switch {
	case host == s.o.Server:
	case now == event.Join:
		list = append(list, change{host, true})
	case before == event.Join:
		list = append(list, change{host, false})
	}
	return list
}
