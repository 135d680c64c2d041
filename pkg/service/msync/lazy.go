package msync

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/heddle-im/heddle/pkg/infra/cache"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/stateres"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/shardlog/token"
	"github.com/heddle-im/heddle/pkg/store/readdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// Which members a client that loads them lazily has been told is remembered by what it was told last: each answer that tells of new
// members is given a number, which its token carries, and what the answer and those before it told is kept under the number. A
// client that presents a token has had the answer that the token came with, so it knows these members, and only these; a repeat of an
// earlier token, an answer that was lost, and two syncs side by side each find their own memory. Whoever does not find it, after a
// restart, on another worker or because memory was short, tells the members again.

// told is what a line of answers told. It does not change once it is kept.
type told struct {
	user   id.UserID
	device id.DeviceID
	before *told // those of the answers before
	rooms  map[shard.Nid]map[string]struct{}
	anew   map[shard.Nid]bool // of which what was told before does not count any more
	depth  int                // of before, with this one
	count  int                // members of this and before
	number shard.Pos
}

const (
	maxToldDepth = 16     // layers that are looked through before they are put together
	maxTold      = 20_000 // members that are remembered of one line; beyond, it begins anew
	toldSize     = 96     // about what one takes
)

func newMemories(b *cache.Budget) *cache.Cache[shard.Pos, *told] {
	return cache.New("sync_members", b, nil, func(_ shard.Pos, t *told) int64 { return 256 + int64(t.count)*toldSize })
}

// has tells whether a room's member was told.
func (t *told) has(room shard.Nid, user string) bool {
	for ; t != nil; t = t.before {
		if _, ok := t.rooms[room][user]; ok {
			return true
		}
		if t.anew[room] {
			return false
		}
	}
	return false
}

// of tells whether any of a room's members was told.
func (t *told) of(room shard.Nid) bool {
	for ; t != nil && !t.anew[room]; t = t.before {
		if len(t.rooms[room]) > 0 {
			return true
		}
	}
	return t != nil && len(t.rooms[room]) > 0
}

// flat gives one layer that holds all.
func (t *told) flat() *told {
	out := &told{user: t.user, device: t.device, rooms: make(map[shard.Nid]map[string]struct{}), depth: 1}
	ended := make(map[shard.Nid]bool)
	for l := t; l != nil; l = l.before {
		for room, users := range l.rooms {
			if ended[room] {
				continue
			}
			m := out.rooms[room]
			if m == nil {
				m = make(map[string]struct{}, len(users))
				out.rooms[room] = m
			}
			for u := range users {
				m[u] = struct{}{}
			}
		}
		maps.Copy(ended, l.anew)
	}
	for _, m := range out.rooms {
		out.count += len(m)
	}
	return out
}

// telling collects the members that one answer tells, while its rooms are made side by side.
type telling struct {
	known *told // nil: nothing is known
	lost  bool  // what the client was told is not to be found here
	mu    sync.Mutex
	rooms map[shard.Nid]map[string]struct{} // guarded by mu
	anew  map[shard.Nid]bool                // guarded by mu
	count int
}

// recall begins an answer with what the client is known to have been told.
func (v *view) recall() *telling {
	t := new(telling)
	if v.since == nil {
		return t
	}
	if number, ok := v.since.Place(token.SectionMembers); ok {
		if m, ok := v.e.memories.Get(number); ok && m.user == v.User && m.device == v.Device {
			t.known = m
		}
		t.lost = t.known == nil
	}
	return t
}

// has tells whether the client knows a room's member.
func (t *telling) has(room shard.Nid, user string) bool {
	t.mu.Lock()
	anew := t.anew[room]
	t.mu.Unlock()
	return !anew && t.known.has(room, user)
}

// renew notes that the client is told a room anew, or not all that changed in it: of the members that it knew some may be others by now.
func (t *telling) renew(room shard.Nid) {
	if !t.lost && !t.known.of(room) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.anew == nil {
		t.anew = make(map[shard.Nid]bool)
	}
	t.anew[room] = true
}

// tell notes that members of a room are told.
func (t *telling) tell(room shard.Nid, users ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, u := range users {
		if !t.anew[room] && t.known.has(room, u) {
			continue
		}
		m := t.rooms[room]
		if m == nil {
			if t.rooms == nil {
				t.rooms = make(map[shard.Nid]map[string]struct{})
			}
			m = make(map[string]struct{})
			t.rooms[room] = m
		}
		if _, ok := m[u]; !ok {
			m[u] = struct{}{}
			t.count++
		}
	}
}

// remember keeps what the answer tells, and puts its number into the token.
func (v *view) remember() {
	t := v.telling
	if t.count == 0 && len(t.anew) == 0 {
		return // the token goes on with the number that it has
	}
	m := &told{user: v.User, device: v.Device, rooms: t.rooms, anew: t.anew, depth: 1, count: t.count}
	if k := t.known; k != nil && k.count+m.count <= maxTold {
		m.before, m.depth, m.count = k, k.depth+1, m.count+k.count
		if m.depth > maxToldDepth {
			m = m.flat()
		}
	}
	m.number = shard.Pos(rand.Int64N(1<<62) + 1)
	if k := t.known; k != nil && k.before != nil {
		v.e.memories.Delete(k.before.number) // the client has gone on from it
	}
	v.e.memories.Set(m.number, m)
	places := slices.DeleteFunc(slices.Clone(v.upper.Places), func(p token.Place) bool { return p.Section == token.SectionMembers })
	places = append(places, token.Place{Section: token.SectionMembers, Position: m.number})
	slices.SortFunc(places, func(a, b token.Place) int { return int(a.Section) - int(b.Section) })
	v.upper.Places = places
}

// memberKeys gives the users whose member events are among the items.
func memberKeys(lists ...[]*readdb.Item) []string {
	var out []string
	for _, list := range lists {
		for _, it := range list {
			if isMember(it) {
				key, _ := it.Event.StateKey()
				out = append(out, key)
			}
		}
	}
	return out
}

// lazy adds to a state the member events of those who sent what the timeline tells, or are heroes, and whom the client has not been told. Of a room
// that is told as a whole they are there, and the other members have been left out.
func (v *view) lazy(ctx context.Context, x *part, st *stretch, items []*readdb.Item) ([]*readdb.Item, error) {
	if x.fresh || v.FullState {
		return items, nil
	}
	told := memberKeys(items)
	here := memberKeys(items, st.items)
	known := func(u string) bool {
		return !v.Filter.Room.State.IncludeRedundantMembers && v.telling.has(x.ref.Nid, u)
	}
	wanted := slices.DeleteFunc(append(senders(st), x.heroes...), func(u string) bool { return slices.Contains(here, u) || known(u) })
	slices.Sort(wanted)
	members, err := v.membersOf(ctx, x, st, slices.Compact(wanted))
	if err != nil || v.after() {
		return append(items, members...), err
	}
	before, err := v.membersBefore(ctx, x, st, func(u string) bool { return slices.Contains(told, u) || known(u) })
	return append(append(items, members...), before...), err
}

// membersOf gives the member events of users who have none in the timeline, as of its end.
func (v *view) membersOf(ctx context.Context, x *part, st *stretch, users []string) ([]*readdb.Item, error) {
	if x.membership.membership == roomdb.MembershipJoin || len(users) == 0 {
		return v.memberEvents(ctx, x, users)
	}
	// What has become of them since is not for somebody who has left.
	numbers, err := v.numbersOf(ctx, x, append(users, typeMember))
	if err != nil {
		return nil, err
	}
	state, err := v.stateOf(ctx, x, st.end)
	if err != nil {
		return nil, err
	}
	var nids []shard.Nid
	for _, u := range users {
		if n, ok := state.Get(stateres.Key{Type: int64(numbers[typeMember]), StateKey: int64(numbers[u])}); ok {
			nids = append(nids, shard.Nid(n))
		}
	}
	return v.itemsOf(ctx, x.ref, nids)
}

// membersBefore gives the member events of those who said something in the timeline before they changed in it, as they were then, but those whom
// the client knows.
func (v *view) membersBefore(ctx context.Context, x *part, st *stretch, known func(user string) bool) ([]*readdb.Item, error) {
	var ids []string
	spoke, changed := make(map[string]bool), make(map[string]bool)
	for _, it := range st.items {
		if isMember(it) {
			if u, _ := it.Event.StateKey(); !changed[u] {
				changed[u] = true
				if spoke[u] && it.Replaced.Event != "" && !known(u) {
					ids = append(ids, string(it.Replaced.Event))
				}
			}
		}
		spoke[string(it.Event.Sender())] = true
	}
	if len(ids) == 0 {
		return nil, nil
	}
	stored, err := v.e.Rooms.EventsByID(ctx, x.ref.Nid, ids)
	if err != nil {
		return nil, err
	}
	nids := make([]shard.Nid, len(stored))
	for i := range stored {
		nids[i] = stored[i].Nid
	}
	return v.itemsOf(ctx, x.ref, nids)
}
