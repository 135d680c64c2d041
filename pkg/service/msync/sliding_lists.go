package msync

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/readdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

const (
	typeCreate     = "m.room.create"
	typeName       = "m.room.name"
	typeAvatar     = "m.room.avatar"
	typeEncryption = "m.room.encryption"
	typeSpaceChild = "m.space.child"
	typeDirect     = "m.direct"
	typeTag        = "m.tag"
)

// maxSkew is by how much the clocks of workers are taken to differ, in ms.
const maxSkew = 60_000

// bumpTypes are the events that move a room up in a client's list.
func bumpTypes() []string {
	return []string{
		typeCreate, "m.room.message", "m.room.encrypted", "m.sticker", "m.call.invite", "m.poll.start",
		"org.matrix.msc3381.poll.start", "m.beacon_info", "org.matrix.msc3672.beacon_info",
	}
}

func factTypes() []string { return []string{typeCreate, typeName, typeAvatar, typeEncryption} }

// facts are what lists of rooms go by, of one room. They do not change once they are made.
type facts struct {
	// last and bump are when something last happened, and when something that moves the room up, in ms. Positions of different shards
	// cannot be compared, so it is the time that the events name; one that lies ahead counts as now.
	last, bump   int64
	typ          string // of the room; "" for none
	encrypted    bool
	name, avatar string
}

// take takes in an event of the room's current state.
func (f *facts) take(typ string, content []byte) {
	switch typ {
	case typeCreate:
		f.typ, _ = canonjson.GetString(content, "type")
	case typeName:
		f.name, _ = canonjson.GetString(content, "name")
	case typeAvatar:
		f.avatar, _ = canonjson.GetString(content, "url")
	case typeEncryption:
		f.encrypted = true
	}
}

func (f *facts) size() int64 { return int64(128 + len(f.typ) + len(f.name) + len(f.avatar)) }

// hearFacts takes in an event. Under mu.
func (e *Engine) hearFacts(r *room, it *readdb.Item, body *entry.EventBody) {
	if r.facts == nil {
		return
	}
	typ := it.Event.Type()
	_, state := it.Event.StateKey()
	if len(body.StateChanges) > 0 || body.Redacts != "" || state && slices.Contains(factTypes(), typ) {
		r.facts = nil // it is read again when it is asked for
		return
	}
	f := *r.facts
	ts := min(it.Event.OriginServerTS(), e.Now().UnixMilli())
	// What comes late, or from a clock that is slow, moves no room down.
	f.last = max(f.last, ts)
	if slices.Contains(bumpTypes(), typ) {
		f.bump = max(f.bump, ts)
	}
	r.facts = &f
}

// labels are what a user's account data says of rooms. Guarded by Engine.mu.
type labels struct {
	loaded bool
	direct map[string]bool     // nil: not heard of
	tags   map[string][]string // by room
	// moments are the user's memberships that are not joined, or were not, the latest of each room.
	moments map[shard.Nid]*moment
}

// moment is what lists go by of a room that the user is not in.
type moment struct {
	facts
	event  shard.Nid
	sender string
	// listed says that the room is in the lists even if the client has not been told of it before.
	listed bool
}

// hear takes in account data. Under mu.
func (l *labels) hear(room, typ string, content []byte) {
	switch {
	case l == nil:
	case room == "" && typ == typeDirect:
		l.direct = parseDirect(content)
	case room != "" && typ == typeTag:
		l.tags[room] = parseTags(content)
	}
}

// parseDirect gives the rooms that m.direct names.
func parseDirect(content []byte) map[string]bool {
	out := make(map[string]bool)
	for users := canonjson.Walk(content); users.Next(); {
		var rooms []string
		if json.Unmarshal(users.Value(), &rooms) != nil {
			continue
		}
		for _, r := range rooms {
			out[r] = true
		}
	}
	return out
}

func parseTags(content []byte) []string {
	out := []string{}
	tags, _ := canonjson.Get(content, "tags")
	for it := canonjson.Walk(tags); it.Next(); {
		out = append(out, it.KeyString())
	}
	return out
}

// label sees to it that a user's labels are held.
func (e *Engine) label(ctx context.Context, u *user) error {
	e.mu.Lock()
	l := u.labels
	if l == nil { // from now on what is heard is taken in
		l = &labels{tags: make(map[string][]string), moments: make(map[shard.Nid]*moment)}
		u.labels = l
	}
	loaded := l.loaded
	e.mu.Unlock()
	if loaded {
		return nil
	}
	rows, err := e.Accounts.AccountDataSince(ctx, u.shard, u.id, 0)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, row := range rows {
		switch {
		case row.RoomID == "" && row.Type == typeDirect && l.direct == nil:
			l.direct = parseDirect(row.Content)
		case row.RoomID != "" && row.Type == typeTag && l.tags[row.RoomID] == nil:
			l.tags[row.RoomID] = parseTags(row.Content)
		}
	}
	if l.direct == nil {
		l.direct = map[string]bool{}
	}
	l.loaded = true
	return nil
}

// listed is one of the user's rooms, as lists are made of them.
type listed struct {
	membership
	facts
	dm   bool
	tags []string
}

func (x *listed) invited() bool { return x.membership.membership == roomdb.MembershipInvite }

func gone(m roomdb.Membership) bool { return m == roomdb.MembershipLeave || m == roomdb.MembershipBan }

// list gives the user's rooms that may be in a list, those in which something happened last first.
func (s *slideView) list(ctx context.Context) ([]*listed, error) {
	if err := s.e.label(ctx, s.u); err != nil {
		return nil, err
	}
	for range 3 {
		out, unknown, moments := s.lookList()
		if len(unknown)+len(moments) == 0 {
			slices.SortFunc(out, func(a, b *listed) int {
				return cmp.Or(cmp.Compare(b.last, a.last), cmp.Compare(b.ref.Nid, a.ref.Nid))
			})
			return out, nil
		}
		if err := s.reading(ctx); err != nil {
			return nil, err
		}
		if err := s.e.readFacts(ctx, unknown, s.now.Now.UnixMilli(), s.known); err != nil {
			return nil, err
		}
		if err := s.readMoments(ctx, moments); err != nil {
			return nil, err
		}
	}
	out, _, _ := s.lookList() // what is still unknown changes faster than it can be read
	return out, nil
}

// lookList looks at what is held, and gives what is not.
func (s *slideView) lookList() (out []*listed, unknown []shard.Nid, moments []membership) {
	e := s.e
	e.mu.Lock()
	defer e.mu.Unlock()
	out = make([]*listed, 0, len(s.u.memberships))
	for nid, m := range s.u.memberships {
		if m.pos > s.to(nid.Shard()) || m.membership == roomdb.MembershipNone {
			continue
		}
		told, before := s.conn.rooms[nid]
		x := &listed{membership: *m, dm: s.u.labels.direct[m.ref.RoomID], tags: s.u.labels.tags[m.ref.RoomID]}
		if m.membership == roomdb.MembershipJoin {
			switch r := e.rooms[nid]; {
			case r != nil && r.facts != nil:
				x.facts = *r.facts
			case s.known[nid] != nil:
				x.facts = *s.known[nid]
			default:
				unknown = append(unknown, nid)
				continue
			}
			out = append(out, x)
			continue
		}
		at := s.u.labels.moments[nid]
		if at == nil || at.event != m.event {
			moments = append(moments, *m)
			continue
		}
		x.facts = at.facts
		switch {
		case gone(m.membership):
			// Those that the client was told of once, and were told to be left, are not told of again. If it is not known of which it
			// was told, it may have been of any that was not left before.
			before = before || s.conn.vague && at.last > s.opened()-maxSkew
			// A room that is forgotten is in no list for that reason alone, but who held it as joined is told.
			if (!at.listed || m.forgotten) && (!before || told.flags&sentGone != 0) {
				continue
			}
		case s.ignored[at.sender], m.membership == roomdb.MembershipInvite && !s.invites.Shows(id.UserID(at.sender)):
			continue
		}
		out = append(out, x)
	}
	return out, unknown, moments
}

// readFacts reads the facts of rooms, keeps them if nothing has happened there meanwhile, and gives them in any case.
func (e *Engine) readFacts(ctx context.Context, nids []shard.Nid, now int64, out map[shard.Nid]*facts) error {
	if len(nids) == 0 {
		return nil
	}
	last := make(map[shard.Nid]shard.Pos, len(nids))
	e.mu.Lock()
	for _, nid := range nids {
		if r := e.rooms[nid]; r != nil {
			last[nid] = r.last
		}
	}
	e.mu.Unlock()
	activity, err := e.Rooms.ActivityOfRooms(ctx, nids, bumpTypes(), now)
	if err != nil {
		return err
	}
	state, err := e.Rooms.StateOfRooms(ctx, nids, factTypes())
	if err != nil {
		return err
	}
	takeAll(nids, state, out)
	for _, a := range activity {
		f := out[a.Room]
		f.last, f.bump = min(a.Last, now), min(a.Bump, now)
	}
	var held int64
	e.mu.Lock()
	for _, nid := range nids {
		if r := e.rooms[nid]; r != nil && r.last == last[nid] && r.facts == nil {
			r.facts = out[nid]
			if !r.factsCharged { // roughly: what replaces them is about as large
				r.factsCharged = true
				r.bytes += r.facts.size()
				held += r.facts.size()
			}
		}
	}
	e.mu.Unlock()
	e.account.Charge(held)
	return nil
}

// readMoments reads what lists go by of rooms that the user is not in.
func (s *slideView) readMoments(ctx context.Context, list []membership) error {
	if len(list) == 0 {
		return nil
	}
	events := make([]shard.Nid, len(list))
	var rooms, left []shard.Nid
	for i, m := range list {
		if events[i] = m.event; gone(m.membership) {
			left = append(left, m.ref.Nid)
		} else {
			rooms = append(rooms, m.ref.Nid)
		}
	}
	rows, err := s.e.Rooms.EventsByNid(ctx, events)
	if err != nil {
		return err
	}
	stored := make(map[shard.Nid]*roomdb.StoredEvent, len(rows))
	for i := range rows {
		stored[rows[i].Nid] = &rows[i]
	}
	of := make(map[shard.Nid]*facts, len(rooms))
	if err := s.e.readFacts(ctx, rooms, s.now.Now.UnixMilli(), of); err != nil {
		return err
	}
	if err := s.readKinds(ctx, left, of); err != nil {
		return err
	}
	for _, m := range list {
		x := new(moment)
		if row := stored[m.event]; row != nil {
			if x, err = s.moment(ctx, &m, row, of[m.ref.Nid]); err != nil {
				return err
			}
		}
		x.event = m.event
		s.e.mu.Lock()
		s.u.labels.moments[m.ref.Nid] = x
		s.e.mu.Unlock()
	}
	return nil
}

// readKinds reads the facts of rooms that do not change any more, and so are not news to those who have left, either.
func (s *slideView) readKinds(ctx context.Context, nids []shard.Nid, out map[shard.Nid]*facts) error {
	if len(nids) == 0 {
		return nil
	}
	state, err := s.e.Rooms.StateOfRooms(ctx, nids, []string{typeCreate, typeEncryption})
	if err != nil {
		return err
	}
	takeAll(nids, state, out)
	return nil
}

// takeAll takes in events of the current states of rooms, of which there are no facts yet.
func takeAll(nids []shard.Nid, state []roomdb.RoomState, out map[shard.Nid]*facts) {
	for _, nid := range nids {
		out[nid] = new(facts)
	}
	for _, x := range state {
		var content []byte
		if x.RedactedBy == 0 {
			content, _ = canonjson.Get(x.JSON, "content")
		}
		out[x.Room].take(x.Type, content)
	}
}

// moment makes what lists go by of a room that the user is not in; of may be nil.
func (s *slideView) moment(ctx context.Context, m *membership, row *roomdb.StoredEvent, of *facts) (*moment, error) {
	x := new(moment)
	if of != nil {
		x.facts = *of
	}
	ts := min(row.TS, s.now.Now.UnixMilli())
	x.last, x.bump = ts, ts
	x.sender, _ = canonjson.GetString(row.JSON, "sender")
	switch {
	case gone(m.membership):
		if x.sender == s.u.id {
			return x, nil // left of their own accord
		}
		a, _, err := s.e.Rooms.AccessTo(ctx, m.ref, id.UserID(s.u.id))
		if err != nil {
			return nil, err
		}
		x.listed = a.Was()
	case row.Flags.Has(roomdb.FlagOutlier):
		told, err := s.e.Rooms.Stripped(ctx, m.ref.Nid, s.u.id)
		if err != nil {
			return nil, err
		}
		var list []struct {
			Type    string          `json:"type"`
			Content json.RawMessage `json:"content"`
		}
		if json.Unmarshal(told, &list) == nil { // it is what another server said
			for _, e := range list {
				if canonjson.IsObject(e.Content) {
					x.take(e.Type, e.Content)
				}
			}
		}
	}
	return x, nil
}

// choose gives those of the rooms that pass a filter, in their order.
func (s *slideView) choose(ctx context.Context, rooms []*listed, f *SlidingFilter) ([]*listed, error) {
	if f == nil {
		return rooms, nil
	}
	var within map[string]bool
	if f.Spaces != nil {
		var err error
		if within, err = s.inSpaces(ctx, f.Spaces); err != nil {
			return nil, err
		}
	}
	like := strings.ToLower(f.RoomNameLike)
	is := func(want *bool, v bool) bool { return want == nil || *want == v }
	typed := func(list []*string, typ string) bool {
		return slices.ContainsFunc(list, func(t *string) bool { return t == nil && typ == "" || t != nil && *t == typ && typ != "" })
	}
	tagged := func(tags, x []string) bool {
		return slices.ContainsFunc(tags, func(t string) bool { return slices.Contains(x, t) })
	}
	out := make([]*listed, 0, len(rooms))
	for _, x := range rooms {
		if is(f.IsDM, x.dm) && is(f.IsEncrypted, x.encrypted) && is(f.IsInvite, x.invited()) &&
			(f.RoomTypes == nil || typed(f.RoomTypes, x.typ)) && !typed(f.NotRoomTypes, x.typ) &&
			(f.Tags == nil || tagged(f.Tags, x.tags)) && !tagged(f.NotTags, x.tags) &&
			(f.Spaces == nil || within[x.ref.RoomID]) && strings.Contains(strings.ToLower(x.name), like) {
			out = append(out, x)
		}
	}
	return out, nil
}

// inSpaces gives the rooms that are directly in any of the spaces, of those that the user is in.
func (s *slideView) inSpaces(ctx context.Context, spaces []string) (map[string]bool, error) {
	var nids []shard.Nid
	s.e.mu.Lock()
	for nid, m := range s.u.memberships {
		if m.membership == roomdb.MembershipJoin && slices.Contains(spaces, m.ref.RoomID) {
			nids = append(nids, nid)
		}
	}
	s.e.mu.Unlock()
	out := make(map[string]bool)
	if len(nids) == 0 {
		return out, nil
	}
	if err := s.reading(ctx); err != nil {
		return nil, err
	}
	rows, err := s.e.Rooms.TypeOfRooms(ctx, nids, typeSpaceChild)
	if err != nil {
		return nil, err
	}
	for _, x := range rows {
		content, _ := canonjson.Get(x.JSON, "content")
		via, ok := canonjson.Get(content, "via")
		if key, is := canonjson.GetString(x.JSON, "state_key"); is && ok && x.RedactedBy == 0 && canonjson.IsArray(via) {
			out[key] = true
		}
	}
	return out, nil
}
