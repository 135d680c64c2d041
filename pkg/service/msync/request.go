package msync

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/heddle-im/heddle/pkg/matrix/filter"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/invitation"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/shardlog/token"
	"github.com/heddle-im/heddle/pkg/store/e2eedb"
	"github.com/heddle-im/heddle/pkg/store/pushdb"
	"github.com/heddle-im/heddle/pkg/store/readdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// Request is one /sync.
type Request struct {
	User   id.UserID
	Device id.DeviceID
	// Since is the token of the last sync; empty asks for everything.
	Since string
	// Filter is nil for none.
	Filter    *filter.Filter
	FullState bool
	Timeout   time.Duration
	// StateAfter asks for the state after the timeline and not before it. Unstable names the member of the answer as
	// clients knew it before it was in the specification.
	StateAfter, StateAfterUnstable bool
}

// view is what one answer is made from: who asks, from where, and up to where.
type view struct {
	*Request
	e       *Engine
	u       *user
	since   *token.Sync // nil: everything
	upper   *token.Sync
	now     readdb.Viewer
	telling *telling
	// ignored are those whom the user wants to hear nothing of.
	ignored map[string]bool
	// ignoresAnew says that this may have changed after since: what they said before that was counted as unread, and is not shown.
	ignoresAnew bool
	// invites are whose invitations are shown.
	invites invitation.Rules
	// own is shared by those who make the answer's rooms.
	own *ownNumbers
	// mostMessages is how many messages to the device are told, if not as many as ever.
	mostMessages int
}

// from gives the position after which the client wants to hear of a shard; ok is false if it wants everything.
func (v *view) from(s shard.ID) (pos shard.Pos, ok bool) {
	if v.since == nil || int(s) >= len(v.since.Positions) {
		return 0, false
	}
	return v.since.Positions[s], true
}

func (v *view) to(s shard.ID) shard.Pos { return v.upper.Positions[s] }

// Sync answers a sync: at once if there is something to tell, else when there is, or when the time is up. The answer is
// the JSON body.
func (e *Engine) Sync(ctx context.Context, q Request) ([]byte, error) {
	body, p, err := e.Begin(ctx, q, nil)
	if p == nil {
		return body, err
	}
	return p.Wait(ctx)
}

// Pending is a sync that has nothing to tell yet. Its Wait must be called, once.
type Pending struct {
	e     *Engine
	q     Request
	u     *user
	w     *waiter
	since *token.Sync
	until time.Time
	// slide is what is asked of sliding sync; nil for /sync.
	slide *slide
}

// Begin is the part of Sync that does not wait: the answer, or what is to be waited for. An answer that is long is not given, but written while
// it is made, unless to is nil; if that fails, a part of it may have been written.
func (e *Engine) Begin(ctx context.Context, q Request, to io.Writer) ([]byte, *Pending, error) {
	if q.Filter == nil {
		q.Filter = &filter.Filter{EventFormat: filter.FormatClient}
	}
	var since *token.Sync
	if q.Since != "" {
		var err error
		if since, err = token.DecodeSync(q.Since, e.Shards.Count()); err != nil {
			return nil, nil, mxerr.New(mxerr.InvalidParam, "The since token is not one of this server").WithCause(err)
		}
	}
	u, err := e.serve(ctx, string(q.User))
	if err != nil {
		return nil, nil, err
	}
	if since, err = e.trust(ctx, since); err != nil {
		return nil, nil, err
	}
	if err := e.hearReceived(ctx, &q, u, since); err != nil {
		return nil, nil, err
	}
	timeout := min(q.Timeout, maxTimeout)
	p := &Pending{e: e, q: q, u: u, w: &waiter{wake: make(chan struct{}, 1), noPresence: !q.Filter.Presence.PassType(typePresence)}, since: since, until: time.Now().Add(timeout)}
	e.await(u, p.w) // before the first look, so that nothing slips in between
	body, done, err := p.look(ctx, timeout <= 0 || since == nil || q.FullState, to)
	if err != nil || done {
		e.leave(p.u, p.w)
		return body, nil, err
	}
	return nil, p, nil
}

// Wait answers when there is something to tell, or when the time is up.
func (p *Pending) Wait(ctx context.Context) ([]byte, error) {
	defer func() { p.e.leave(p.u, p.w) }()
	timer := time.NewTimer(time.Until(p.until))
	defer timer.Stop()
	for over := false; ; {
		select {
		case <-p.w.wake:
		case <-timer.C:
			over = true
		case <-p.e.stop:
			over = true
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if body, done, err := p.look(ctx, over, nil); err != nil || done {
			return body, err
		}
	}
}

// look answers if there is something to tell, or in any case when it is over.
func (p *Pending) look(ctx context.Context, over bool, to io.Writer) (body []byte, done bool, err error) {
	if err := p.served(ctx); err != nil {
		return nil, false, err
	}
	v, plan := p.e.look(&p.q, p.u, p.since, p.slide == nil)
	if p.slide != nil {
		return p.slideOn(ctx, v, over)
	}
	if !over && plan.empty() {
		return nil, false, nil
	}
	body, told, err := v.answer(ctx, plan, to)
	if err != nil || told || over {
		return body, true, err
	}
	p.since = v.upper // all that happened was filtered out: what comes is waited for from here
	return nil, false, nil
}

// trust gives the token if what it says is still true. One that has seen what a restore of the database undid is answered as if
// there was none. One from a worker that has heard more than we have is waited for.
func (e *Engine) trust(ctx context.Context, since *token.Sync) (*token.Sync, error) {
	if since == nil {
		return nil, nil
	}
	incarnation, pos := e.positions()
	if since.Incarnation == incarnation && pos.AtLeast(since.Positions) {
		return since, nil
	}
	history, err := e.source.History(ctx)
	if err != nil {
		return nil, err
	}
	if !history.Holds(since.Incarnation, since.Positions) {
		return nil, nil
	}
	heads, err := e.source.Heads(ctx)
	if err != nil {
		return nil, err
	}
	if heads.Incarnation == since.Incarnation && !heads.Positions.AtLeast(since.Positions) {
		return nil, nil // a position that the database does not have: it was put back without anybody's saying so
	}
	wait, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := e.source.Reach(wait, heads); err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			return nil, mxerr.Unavailable("This worker is behind", 1000).WithCause(err)
		}
		return nil, err
	}
	return since, nil
}

// hearReceived takes in what a sync says of the messages that its device has received.
func (e *Engine) hearReceived(ctx context.Context, q *Request, u *user, since *token.Sync) error {
	upto := (&view{Request: q, u: u, since: since}).messagesAfter()
	if err := e.knowDevice(ctx, u, string(q.Device), upto); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.received(u, string(q.Device), upto)
	return nil
}

// served sees to it that what is held of the user is still kept up: everything may have been forgotten since.
func (p *Pending) served(ctx context.Context) error {
	p.e.mu.Lock()
	served := p.e.users[p.u.id] == p.u
	p.e.mu.Unlock()
	if served {
		return nil
	}
	u, err := p.e.serve(ctx, p.u.id)
	if err != nil {
		return err
	}
	p.e.leave(p.u, p.w)
	p.u = u
	p.e.await(u, p.w)
	return p.e.knowDevice(ctx, u, string(p.q.Device), 0)
}

func (e *Engine) await(u *user, w *waiter) {
	e.mu.Lock()
	defer e.mu.Unlock()
	u.waiters[w] = struct{}{}
}

func (e *Engine) leave(u *user, w *waiter) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(u.waiters, w)
	u.used = e.Now()
}

// look fixes up to where an answer goes, and what it will say, if that is wanted: at once, since a room that the user leaves in between has another
// membership then, and what happened in it before would be told by no answer.
func (e *Engine) look(q *Request, u *user, since *token.Sync, plans bool) (v *view, p *plan) {
	v = &view{Request: q, e: e, u: u, since: since, now: readdb.Viewer{User: q.User, Device: q.Device, Now: e.Now()}, own: new(ownNumbers)}
	e.mu.Lock()
	defer e.mu.Unlock()
	v.ignored, v.invites = u.ignored, u.taken
	if at, ok := v.from(u.shard); ok {
		v.ignoresAnew = at < u.ignoredSince
	}
	v.upper = &token.Sync{Incarnation: e.incarnation, Positions: e.pos.Clone(), Ephemeral: e.ephemeral()}
	if since != nil {
		v.upper.Positions = v.upper.Positions.Max(since.Positions) // a token never goes backward
		v.upper.Places = since.Places
	}
	v.markPresence()
	if plans {
		p = v.planned()
	}
	return v, p
}

// part is what an answer will say of one room, decided by what is in memory.
type part struct {
	membership
	// fresh says that the user was not in the room at since: it is told as a whole.
	fresh bool
	// held says that everything after since is held; else the database is read.
	held     bool
	events   []*readdb.Item
	receipts []receipt
	typing   *roomTyping
	data     []accountData
	unread   map[string]pushdb.Count // by thread
	// counted says that something has happened, of what is held, that may have changed what is unread.
	counted bool
	// heroes are those whom the summary names; empty if they are not told.
	heroes []string
	// settled says that the last that happened in the room up to the upper token, but for receipts, is at upto or before; later are the receipts
	// after it.
	settled bool
	upto    shard.Pos
	later   []receipt
	common  *common // nil: the room is read for this user alone
}

// plan is what an answer will say.
type plan struct {
	joined, invited, knocked, left []*part
	data                           []accountData
	// presence are events, with commas between them.
	presence []byte
	// online says that they are worth an answer for their own sake.
	online bool
	// readData says that the user's account data after since is not held.
	readData bool

	// messages are those to the device, if they are held; else readMessages.
	messages     []e2eedb.Message
	readMessages bool
	keyCounts    keyCounts
	keysChanged  bool
	// lists says that there may be news of device lists, and readLists that not all of them is held.
	lists, readLists bool
}

func (p *plan) empty() bool {
	return len(p.joined)+len(p.invited)+len(p.knocked)+len(p.left)+len(p.data)+len(p.messages) == 0 && !p.readData &&
		!p.readMessages && !p.keysChanged && !p.lists && !p.readLists && !p.online
}

// plan looks at what is held, under the lock, and copies what an answer needs of it.
func (v *view) plan() *plan {
	v.e.mu.Lock()
	defer v.e.mu.Unlock()
	return v.planned()
}

// planned is plan under mu.
func (v *view) planned() *plan {
	p := new(plan)
	rooms := v.roomsWithData()
	for nid, m := range v.u.memberships {
		if !v.Filter.Room.PassRoom(m.ref.RoomID) {
			continue
		}
		since, incremental := v.from(nid.Shard())
		if m.pos > v.to(nid.Shard()) {
			continue // not yet
		}
		fresh := !incremental || m.pos > since
		_, data := rooms[m.ref.RoomID]
		if !fresh && !data && (m.membership != roomdb.MembershipJoin || v.quiet(nid, since)) {
			continue // as most rooms are, of a user who is in many
		}
		x := &part{membership: *m, fresh: fresh}
		switch m.membership {
		case roomdb.MembershipJoin:
			if v.planJoined(x, since) {
				p.joined = append(p.joined, x)
			}
			if data {
				rooms[m.ref.RoomID] = x
			}
		case roomdb.MembershipInvite:
			if x.fresh {
				p.invited = append(p.invited, x)
			}
		case roomdb.MembershipKnock:
			if x.fresh {
				p.knocked = append(p.knocked, x)
			}
		case roomdb.MembershipLeave, roomdb.MembershipBan:
			// Who left is told so, also where the room is forgotten by then: else a device would hold it as joined for ever.
			if x.fresh && (incremental || (v.Filter.Room.IncludeLeave && !m.forgotten)) {
				p.left = append(p.left, x)
			}
		case roomdb.MembershipNone:
		}
	}
	v.planData(p, rooms)
	v.planDevice(p)
	v.planLists(p)
	v.planPresence(p)
	return p
}

// quiet tells whether nothing has happened in a room after the token, and all of that is held. Under mu.
func (v *view) quiet(nid shard.Nid, since shard.Pos) bool {
	r := v.e.rooms[nid]
	return r != nil && !v.FullState && since >= r.complete && since >= r.last && !r.typing.news(v.since, nid.Shard())
}

// planJoined tells whether there is anything to say of a room that the user is in. Under mu.
func (v *view) planJoined(x *part, since shard.Pos) bool {
	r := v.e.rooms[x.ref.Nid]
	s := x.ref.Nid.Shard()
	if r == nil {
		return true
	}
	if r.typing.news(v.since, s) || x.fresh && len(r.typing.users) > 0 {
		t := r.typing
		x.typing = &t
	}
	if x.fresh {
		x.settle(r, v.to(s))
	}
	if x.fresh || v.FullState || since < r.complete {
		return true
	}
	x.held = true
	for _, it := range r.events {
		if pos := shard.Pos(it.Ord); pos > since && pos <= v.to(s) {
			if it.Gap { // what changed where events are missing is in none that is held: it is read
				x.held, x.events = false, nil
				return true
			}
			x.events = append(x.events, it)
		}
	}
	for i := range r.receipts {
		if pos := r.receipts[i].pos; pos > since && pos <= v.to(s) {
			x.receipts = append(x.receipts, r.receipts[i])
		}
	}
	return len(x.events)+len(x.receipts) > 0 || x.typing != nil
}

// settle notes up to where a room has to be read, to be told as a whole as of a position. Under mu.
func (x *part) settle(r *room, to shard.Pos) {
	x.upto = r.complete // of receipts that came later some may have been let go of
	if len(r.events) > 0 {
		x.upto = max(x.upto, shard.Pos(r.events[len(r.events)-1].Ord))
	}
	if x.settled = x.upto <= to; !x.settled {
		return
	}
	for i := range r.receipts {
		if r.receipts[i].pos > x.upto {
			x.later = append(x.later, r.receipts[i])
		}
	}
}

// roomsWithData gives the rooms that have account data which may be new, without their parts yet; nil if none has. Under mu.
func (v *view) roomsWithData() (rooms map[string]*part) {
	since, _ := v.from(v.u.shard)
	for i := range v.u.data {
		if d := &v.u.data[i]; d.room != "" && d.pos > since {
			if rooms == nil {
				rooms = make(map[string]*part)
			}
			rooms[d.room] = nil
		}
	}
	return rooms
}

// planData takes in the user's account data that is new; that of a room is told with the room. Under mu.
func (v *view) planData(p *plan, rooms map[string]*part) {
	since, incremental := v.from(v.u.shard)
	if !incremental || since < v.u.complete {
		p.readData = !incremental || v.u.last > since || v.u.complete > since
		return
	}
	told := make(map[*part]bool, len(p.joined))
	for _, x := range p.joined {
		told[x] = true
	}
	for _, d := range v.u.data {
		if d.pos <= since || d.pos > v.to(v.u.shard) {
			continue
		}
		if d.room == "" {
			p.data = append(p.data, d)
			continue
		}
		if x := rooms[d.room]; x != nil && !v.entered(x) {
			if x.data = append(x.data, d); !told[x] {
				told[x] = true
				p.joined = append(p.joined, x)
			}
		}
	}
}

// Read gives the positions of a token, up to which its holder has heard of everything: the beginning, if what the token says was undone
// by a restore.
func (e *Engine) Read(ctx context.Context, s string) (shard.Vector, error) {
	t, err := token.DecodeSync(s, e.Shards.Count())
	if err != nil {
		return nil, mxerr.New(mxerr.InvalidParam, "The token is not one of this server").WithCause(err)
	}
	if t, err = e.trust(ctx, t); err != nil {
		return nil, err
	}
	if t == nil {
		return make(shard.Vector, e.Shards.Count()), nil
	}
	return t.Positions, nil
}
