package msync

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/filter"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/shardlog/token"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// slide is one request of sliding sync, while it is answered.
type slide struct {
	q *SlidingRequest
	// presented is the state that the client's token names, and conn the one after what has been looked at and was nothing to tell.
	presented, conn *connection
	received        shard.Pos // up to where the device has received its messages
}

// BeginSliding is [Engine.Begin] for a request of sliding sync, which must have been checked.
func (e *Engine) BeginSliding(ctx context.Context, q *SlidingRequest) ([]byte, *Pending, error) {
	var since *token.Sync
	if q.Pos != "" {
		var err error
		if since, err = token.DecodeSync(q.Pos, e.Shards.Count()); err != nil {
			return nil, nil, unknownPos().WithCause(err)
		}
	}
	u, err := e.serve(ctx, string(q.User))
	if err != nil {
		return nil, nil, err
	}
	received, err := e.receivedUpto(ctx, u, &q.Extensions.ToDevice)
	if err != nil {
		return nil, nil, err
	}
	trusted, err := e.trust(ctx, since)
	if err != nil {
		return nil, nil, err
	}
	if since != nil && trusted == nil {
		return nil, nil, unknownPos() // what it has seen was undone by a restore of the database
	}
	if x := q.Extensions; x.ToDevice.Enabled || x.E2EE.Enabled {
		if err := e.knowDevice(ctx, u, string(q.Device), received); err != nil {
			return nil, nil, err
		}
		e.mu.Lock()
		e.received(u, string(q.Device), received)
		e.mu.Unlock()
	}
	timeout := min(q.Timeout, maxTimeout)
	p := &Pending{
		e: e, u: u, w: &waiter{wake: make(chan struct{}, 1)}, since: trusted, until: time.Now().Add(timeout),
		q: Request{User: q.User, Device: q.Device, Timeout: timeout, Filter: clientFilter(0), StateAfter: true},
	}
	conn := e.connect(ctx, q, trusted)
	p.slide = &slide{q: q, presented: conn, conn: conn, received: received}
	e.await(u, p.w)
	body, done, err := p.look(ctx, timeout <= 0 || trusted == nil, nil)
	if err != nil || done {
		e.leave(p.u, p.w)
		return body, nil, err
	}
	return nil, p, nil
}

// receivedUpto gives up to where a device has received its messages; 0 if what told it so was undone by a restore of the database: it would
// not be told of those that are sent now.
func (e *Engine) receivedUpto(ctx context.Context, u *user, x *ToDeviceExtension) (shard.Pos, error) {
	pos, incarnation, err := x.after()
	if err != nil || pos == 0 {
		return 0, err
	}
	now, all := e.positions()
	if incarnation == 0 {
		incarnation = now
	}
	upto := &token.Sync{Incarnation: incarnation, Positions: make(shard.Vector, len(all))}
	upto.Positions[u.shard] = pos
	if upto, err = e.trust(ctx, upto); err != nil || upto == nil {
		return 0, err
	}
	return pos, nil
}

func unknownPos() *mxerr.Error {
	return mxerr.New(mxerr.UnknownPos, "The pos is not one that can be gone on from: begin anew, without one")
}

func clientFilter(limit int) *filter.Filter {
	f := &filter.Filter{EventFormat: filter.FormatClient}
	f.Room.Timeline.Limit = &limit
	return f
}

// slideOn answers if there is something to tell, or in any case when it is over.
func (p *Pending) slideOn(ctx context.Context, v *view, over bool) (body []byte, done bool, err error) {
	s := &slideView{
		view: v, q: p.slide.q, conn: p.slide.conn, next: p.slide.conn, received: p.slide.received, known: make(map[shard.Nid]*facts),
	}
	defer func() {
		if err != nil || body == nil {
			s.release(-1)
			return
		}
		s.release(len(body))
	}()
	s.telling = v.recall()
	a, told, err := s.look(ctx)
	if err != nil {
		return nil, true, err
	}
	if !told && !over {
		p.since, p.slide.conn = v.upper, s.next
		return nil, false, nil
	}
	v.remember()
	number := p.slide.presented.number
	if s.next != p.slide.presented && (p.slide.presented.lost || !s.next.same(p.slide.presented)) {
		number = p.e.keepConnection(ctx, s.q, s.next, p.slide.presented.half)
	}
	places := slices.DeleteFunc(slices.Clone(v.upper.Places), func(p token.Place) bool {
		return p.Section == token.SectionConnection || p.Section == token.SectionOpened
	})
	if number != 0 {
		places = append(places, token.Place{Section: token.SectionConnection, Position: number})
		places = append(places, token.Place{Section: token.SectionOpened, Position: shard.Pos(s.opened())})
		slices.SortFunc(places, func(a, b token.Place) int { return int(a.Section) - int(b.Section) })
	}
	v.upper.Places = places
	return a.append(nil, s.q, v.upper.Encode()), true, nil
}

// slideView is what one answer of sliding sync is made from.
type slideView struct {
	*view
	q *SlidingRequest
	// conn is what the client has been told before, and next what it will have been told with this answer: conn itself, until
	// something changes.
	conn, next *connection
	received   shard.Pos
	known      map[shard.Nid]*facts
	slotted    bool
	leave      func(length int64)
	requests   map[int]*Request // by timeline limit
}

// opened gives when the connection began, in ms.
func (s *slideView) opened() int64 {
	if s.since != nil {
		if at, ok := s.since.Place(token.SectionOpened); ok {
			return int64(at)
		}
	}
	return s.now.Now.UnixMilli()
}

// reading waits for the answer's turn to read the database, once.
func (s *slideView) reading(ctx context.Context) error {
	if s.slotted {
		return nil
	}
	if err := s.e.turns.enter(ctx, s.u.id); err != nil {
		return err
	}
	weight := &s.e.reading
	if s.since == nil {
		weight = &s.e.beginning
	}
	leave, err := s.e.Gate.Enter(ctx, weight)
	if err != nil {
		s.e.turns.leave()
		return err
	}
	s.slotted, s.leave = true, leave
	return nil
}

// release ends the answer's turn, with its length, -1 if there is none.
func (s *slideView) release(length int) {
	if s.slotted {
		s.leave(int64(length))
		s.e.turns.leave()
	}
}

// slideRoom is a room that the client wants to hear of.
type slideRoom struct {
	*listed
	lists      []string
	subscribed bool
	want       config
	// before is what the client has been told of it, known whether it has, and since up to where.
	before sent
	known  bool
	since  shard.Pos
	// initial says that the room is told as a whole, expanded that older events of its timeline are.
	initial, expanded bool
	// wishful says that state is wanted that was not before.
	wishful bool
	v       *view // what is told of this room alone
	x       *part
	body    []byte
	events  []string // of the timeline that is told
	data    []byte   // content of an extension
}

// slideAnswer are the parts of an answer.
type slideAnswer struct {
	counts map[string]int
	rooms  []*slideRoom
	ext    map[string][]byte
}

// look makes an answer. told is false if it says nothing.
func (s *slideView) look(ctx context.Context) (a *slideAnswer, told bool, err error) {
	a = &slideAnswer{counts: make(map[string]int), ext: make(map[string][]byte)}
	if len(s.q.Lists)+len(s.q.Subscriptions) > 0 {
		rooms, err := s.list(ctx)
		if err != nil {
			return nil, false, err
		}
		if a.rooms, err = s.concerned(ctx, rooms, a.counts); err != nil {
			return nil, false, err
		}
	}
	p := new(plan)
	s.plan(a.rooms, p)
	if slices.ContainsFunc(a.rooms, (*slideRoom).reads) {
		if err := s.reading(ctx); err != nil {
			return nil, false, err
		}
	}
	if err := s.countNews(ctx, a.rooms); err != nil {
		return nil, false, err
	}
	if err := s.tellRooms(ctx, a); err != nil {
		return nil, false, err
	}
	if told, err = s.extend(ctx, a, p); err != nil {
		return nil, false, err
	}
	s.goOn(a.rooms)
	told = told || slices.ContainsFunc(a.rooms, func(r *slideRoom) bool { return r.body != nil })
	return a, told, nil
}

// tellRooms makes what is told of rooms. Those that do not fit in are not told of, as if they were out of the client's window: they are told in the
// next answer.
func (s *slideView) tellRooms(ctx context.Context, a *slideAnswer) error {
	var news []*slideRoom
	for _, r := range a.rooms {
		if r.news() {
			news = append(news, r)
		}
	}
	n, _, err := sideBySide(ctx, len(news), s.e.mostSliding, func(i int) bool { return news[i].reads() }, func(ctx context.Context, i int) (int, error) {
		err := s.tell(ctx, news[i])
		return len(news[i].body), err
	})
	later := news[n:]
	a.rooms = slices.DeleteFunc(a.rooms, func(r *slideRoom) bool {
		is := len(later) > 0 && later[0] == r // they are in the same order
		if is {
			later = later[1:]
		}
		return is
	})
	return err
}

// concerned gives the rooms that the client's lists and subscriptions name, and counts those of the lists.
func (s *slideView) concerned(ctx context.Context, rooms []*listed, counts map[string]int) ([]*slideRoom, error) {
	var out []*slideRoom
	byRoom := make(map[shard.Nid]*slideRoom)
	of := func(x *listed) *slideRoom {
		r := byRoom[x.ref.Nid]
		if r == nil {
			r = &slideRoom{listed: x}
			byRoom[x.ref.Nid] = r
			out = append(out, r)
		}
		return r
	}
	for _, name := range slices.Sorted(maps.Keys(s.q.Lists)) {
		l := s.q.Lists[name]
		chosen, err := s.choose(ctx, rooms, l.Filters)
		if err != nil {
			return nil, err
		}
		counts[name] = len(chosen)
		for i, x := range chosen {
			if l.in(i) {
				r := of(x)
				r.lists = append(r.lists, name)
			}
		}
	}
	wants := make(map[string]config) // of rooms in the same lists: they do not change
	for _, r := range out {
		key := strings.Join(r.lists, "\x00")
		want, ok := wants[key]
		if !ok {
			rules := make([]*RoomConfig, len(r.lists))
			for i, name := range r.lists {
				rules[i] = &s.q.Lists[name].RoomConfig
			}
			want = want.with(rules...)
			wants[key] = want
		}
		r.want = want
	}
	if len(s.q.Subscriptions) == 0 {
		return out, nil
	}
	for _, x := range rooms {
		c := s.q.Subscriptions[x.ref.RoomID]
		if c == nil || gone(x.membership.membership) && !s.heard(x.ref.Nid) {
			continue
		}
		r := of(x)
		r.subscribed, r.want = true, r.want.with(c)
	}
	return out, nil
}

// heard tells whether the client has been told of a room.
func (s *slideView) heard(nid shard.Nid) bool {
	_, ok := s.conn.rooms[nid]
	return ok
}

// plan looks at what is held of the rooms, under the lock, and copies what the answer needs of it.
func (s *slideView) plan(rooms []*slideRoom, p *plan) {
	e := s.e
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range rooms {
		nid := r.ref.Nid
		r.before, r.known = s.conn.rooms[nid]
		since, _ := s.from(nid.Shard())
		r.since = since
		if r.before.upto != 0 {
			r.since = r.before.upto
		}
		r.x = &part{membership: r.membership}
		// One who is not in the room any more goes on from when they were; everybody else is told of a new membership as a whole.
		r.initial = !r.known || r.pos > r.since && !gone(r.membership.membership)
		r.x.fresh = r.initial
		r.v = s.viewOf(r)
		if r.membership.membership == roomdb.MembershipJoin {
			r.v.planJoined(r.x, r.since)
			was := s.conn.config(r.before)
			r.expanded = !r.initial && r.want.limit > was.limit
			r.wishful = !r.initial && r.want.beyond(was)
		}
	}
	if s.q.Extensions.ToDevice.Enabled || s.q.Extensions.E2EE.Enabled {
		s.planDevice(p)
	}
	if s.q.Extensions.E2EE.Enabled {
		s.planLists(p)
	}
}

// viewOf gives a view from up to where the client has heard of a room.
func (s *slideView) viewOf(r *slideRoom) *view {
	v := *s.view
	if s.requests == nil {
		s.requests = make(map[int]*Request)
	}
	q := s.requests[r.want.limit]
	if q == nil {
		c := *s.Request
		c.Filter = clientFilter(r.want.limit)
		q, s.requests[r.want.limit] = &c, &c
	}
	v.Request = q
	switch {
	case r.initial:
		v.since = nil
	case r.before.upto != 0, s.q.Extensions.Typing.covers(r) && r.before.flags&sentTyping == 0:
		c := *s.view.since
		c.Positions = c.Positions.Clone()
		c.Positions[r.ref.Nid.Shard()] = r.since
		c.Ephemeral = nil // who types has been told to others only
		v.since = &c
	}
	return &v
}

// news tells whether there may be something to tell of a room.
func (r *slideRoom) news() bool {
	switch {
	case r.initial || r.expanded || r.wishful:
		return true
	case r.membership.membership != roomdb.MembershipJoin:
		return r.pos > r.since
	default:
		return !r.x.held || len(r.x.events) > 0 || r.x.readSomething(r.v.u.id) || r.dm != (r.before.flags&sentDM != 0)
	}
}

// reads tells whether what there is to tell of a room is to be read from the database.
func (r *slideRoom) reads() bool { return r.news() && (!r.x.held || r.expanded || r.wishful) }

// countNews counts what the user has not read in the rooms that there may be something to tell of.
func (s *slideView) countNews(ctx context.Context, rooms []*slideRoom) error {
	var parts []*part
	for _, r := range rooms {
		if r.membership.membership == roomdb.MembershipJoin && r.news() {
			parts = append(parts, r.x)
		}
	}
	return s.countUnread(ctx, parts)
}

// goOn notes what the client will have been told.
func (s *slideView) goOn(rooms []*slideRoom) {
	here := make(map[shard.Nid]bool, len(rooms))
	global := s.q.Extensions.AccountData.Enabled
	if global != s.conn.global || s.conn.lost {
		s.change().global = global
	}
	if threads := s.q.Extensions.Threads.Enabled; threads != s.conn.threads || s.conn.lost {
		s.change().threads = threads
	}
	for _, r := range rooms {
		nid := r.ref.Nid
		if r.body == nil && !r.known {
			continue // not to be told of
		}
		here[nid] = true
		now := sent{flags: r.flags(s.q)}
		switch {
		case r.known && s.next.config(r.before).equal(r.want):
			now.config = r.before.config
		default:
			now.config = s.change().use(r.want)
		}
		if !r.known || now != r.before {
			s.change().rooms[nid] = now
		}
	}
	for nid, x := range s.conn.rooms {
		if here[nid] || x.upto != 0 {
			continue
		}
		x.upto, _ = s.from(nid.Shard()) // from here on it has heard nothing of it
		if x.upto == 0 {
			x.upto = 1
		}
		s.change().rooms[nid] = x
	}
	if s.next != s.conn {
		s.next.compact()
	}
}

// flags says what the client will have heard of a room.
func (r *slideRoom) flags(q *SlidingRequest) (f sentFlags) {
	if r.dm {
		f |= sentDM
	}
	if q.Extensions.Receipts.covers(r) {
		f |= sentReceipts
	}
	if q.Extensions.AccountData.covers(r) {
		f |= sentData
	}
	if q.Extensions.Typing.covers(r) {
		f |= sentTyping
	}
	if gone(r.membership.membership) {
		f |= sentGone
	}
	return f
}

// change gives the state that is being made.
func (s *slideView) change() *connection {
	if s.next == s.conn {
		c := &connection{conn: s.conn.conn, global: s.conn.global, vague: s.conn.vague, threads: s.conn.threads, configs: slices.Clip(s.conn.configs), rooms: maps.Clone(s.conn.rooms)}
		if c.rooms == nil {
			c.rooms = make(map[shard.Nid]sent)
		}
		s.next = c
	}
	return s.next
}

// append appends the answer.
func (a *slideAnswer) append(b []byte, q *SlidingRequest, pos string) []byte {
	b = append(b, `{"pos":`...)
	b = canonjson.AppendString(b, pos)
	if q.TxnID != "" {
		b = canonjson.AppendString(append(b, `,"txn_id":`...), q.TxnID)
	}
	b = append(b, `,"lists":{`...)
	for i, name := range slices.Sorted(maps.Keys(a.counts)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(canonjson.AppendString(b, name), `:{"count":`...)
		b = append(strconv.AppendInt(b, int64(a.counts[name]), 10), '}')
	}
	b = append(b, `},"rooms":{`...)
	first := true
	for _, r := range a.rooms {
		if r.body == nil {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(canonjson.AppendString(b, r.ref.RoomID), ':')
		b = append(b, r.body...)
	}
	b = append(b, `},"extensions":{`...)
	for i, name := range slices.Sorted(maps.Keys(a.ext)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(canonjson.AppendString(b, name), ':')
		b = append(b, a.ext[name]...)
	}
	return append(b, `}}`...)
}
