package msync

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/cache"
	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/matrix/invitation"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
	"github.com/heddle-im/heddle/pkg/store/e2eedb"
	"github.com/heddle-im/heddle/pkg/store/pushdb"
	"github.com/heddle-im/heddle/pkg/store/readdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// Log is what the engine asks of the log besides hearing it. *follow.Follower and *follow.Index together are one.
type Log interface {
	// Heads gives how far the log reaches, as of a query that begins after the call.
	Heads(ctx context.Context) (shard.Heads, error)
	// Reach waits until the engine has heard the log up to there.
	Reach(ctx context.Context, h shard.Heads) error
	// History gives the incarnations of the database.
	History(ctx context.Context) (shard.History, error)
}

// Presence is who is online. *presence.Hub is one. It may be called with the engine's lock held, and calls nobody.
type Presence interface {
	// Active is told that a user did something in a room, Moved that a user came into a room or left one.
	Active(user string)
	Moved(user string)
	// Mark stands for all that is known now.
	Mark() int64
	// News tells each user in the reader's rooms whose presence the holder of a mark has not been told; of those in rooms that
	// the reader has entered, everybody. It tells whether that is worth an answer for its own sake.
	News(user string, mark int64, rooms iter.Seq[shard.Nid], entered map[shard.Nid]bool, each func(user string, content []byte)) bool
}

// Replica has what only reads done where there is a replica that has the log that far. *logdb.Replica is one.
type Replica interface {
	Read(ctx context.Context, upto shard.Heads, read func(ctx context.Context) error) error
	// Away tells whether what is read with a context is read there.
	Away(ctx context.Context) bool
}

// Options are what an Engine needs. Presence, Replica and Log may be nil.
type Options struct {
	Shards   shard.Map
	Rooms    *readdb.Reader
	Accounts *accountdb.Reader
	Push     *pushdb.Reader
	Keys     *e2eedb.Reader
	// Acks has messages to devices removed that were received.
	Acks Acknowledger
	// Connections keeps what clients of sliding sync have been told for when another worker answers them; it may be nil.
	Connections ConnectionStore
	Budget      *cache.Budget
	Gate        *cache.Gate // nil: none
	// Replica is where first syncs read.
	Replica  Replica
	Presence Presence
	Now      func() time.Time
	Log      *slog.Logger
}

// How much is kept, and for how long.
const (
	maxRoomEvents = 128 // of one room
	// maxRoomReceipts is how many receipts of one room are held: each one that comes is looked for among them.
	maxRoomReceipts = 4096
	idleAfter       = 10 * time.Minute // a user who has not synced for so long is let go
	maxTimeout      = 5 * time.Minute  // the longest that a sync waits
	readers         = 8                // rooms that one sync reads at a time
	maxReading      = 16               // syncs that read the database at a time
	ackEvery        = 500 * time.Millisecond
	commonFor       = 10 * time.Second // for so long it is kept what rooms tell everybody
	maxSliding      = 8 << 20          // about as long as an answer of sliding sync becomes: rooms beyond it come in the next
)

// Engine is the window on the log of one process, and the syncs that are answered from it.
type Engine struct {
	Options
	source  Log
	account *cache.Account
	tasks   *lifecycle.Tasks
	turns   *turns // of syncs that read the database
	// What their answers take: of those that begin, and of the others.
	beginning, reading cache.Weight
	busy               atomic.Bool   // the filter has been asked about a batch that is not applied yet
	stop               chan struct{} // closed when waiting syncs are to be answered at once
	stopped            sync.Once
	// memories are what clients that load members lazily have been told, by the numbers in their tokens.
	memories *cache.Cache[shard.Pos, *told]
	// connections are what clients of sliding sync have been told of their rooms.
	connections *cache.Cache[string, *connection]
	// commons are what rooms tell everybody who is told them as a whole.
	commons *cache.Cache[place, *common]
	acks    acks
	// mostSliding is maxSliding, but in tests.
	mostSliding int
	heard       chan struct{} // something is to be resolved; capacity 1

	mu          sync.Mutex // guards all below; never held across I/O
	incarnation uint32
	pos         shard.Vector
	applied     chan struct{} // closed and made anew when a batch has been applied
	rooms       map[shard.Nid]*room
	users       map[string]*user
	typing      []typingState // by shard
	// unresolved are notes of which it is not known yet whom they concern, as they were heard; resolved is closed and made anew when
	// some of them are.
	unresolved []*note
	resolved   chan struct{}
	owed       int64 // bytes that are held and not charged yet
}

// New makes an Engine, whose work carries the values of ctx. It must hear the log ([Engine.Wants], [Engine.Apply], [Engine.Reset]) before it is asked.
func New(ctx context.Context, o Options, source Log) *Engine {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	e := &Engine{
		Options: o, source: source, tasks: lifecycle.NewTasks(ctx), turns: newTurns(maxReading), mostSliding: maxSliding,
		stop: make(chan struct{}), applied: make(chan struct{}), pos: make(shard.Vector, o.Shards.Count()),
		resolved: make(chan struct{}), heard: make(chan struct{}, 1),
		rooms: make(map[shard.Nid]*room), users: make(map[string]*user), typing: make([]typingState, o.Shards.Count()),
	}
	e.account = o.Budget.Account("sync_window", e.evict)
	e.memories = newMemories(o.Budget)
	e.connections = newConnections(o.Budget)
	e.commons = newCommons(o.Budget)
	return e
}

// Start implements lifecycle.Service.
func (e *Engine) Start(context.Context) error {
	e.tasks.Every(time.Minute, func(context.Context) { e.letGo(e.Now()) })
	e.tasks.Every(commonFor, func(context.Context) { e.commons.Clear() })
	e.tasks.Every(ackEvery, e.acknowledge)
	e.tasks.Go(e.resolveAll)
	return nil
}

// Drain answers all waiting syncs at once, with where they are.
func (e *Engine) Drain() { e.stopped.Do(func() { close(e.stop) }) }

// Stop implements lifecycle.Service.
func (e *Engine) Stop(ctx context.Context) error {
	e.Drain()
	err := e.tasks.StopWithin(ctx)
	e.account.Close()
	return err
}

// room is what is held of a room that somebody served is in. Guarded by Engine.mu.
type room struct {
	ref roomdb.RoomRef
	// Everything after complete is in what follows; unsettled means that nothing is known to be complete yet.
	complete shard.Pos
	last     shard.Pos // of the latest entry
	events   []*readdb.Item
	receipts []receipt
	typing   roomTyping
	members  map[*user]struct{} // those served who are joined
	// senders are current member events, for lazy loading; bounded, and only as far as they were asked for.
	senders map[string]*readdb.Item
	summary *summary
	pushed  []*pushed // what the events change of unread counts
	// facts are what lists of rooms go by; nil if they have not been asked for, or may have changed.
	facts        *facts
	factsCharged bool
	bytes        int64
}

const unsettled shard.Pos = 1<<63 - 1

// user is what is held of a user who syncs here. Guarded by Engine.mu.
type user struct {
	id    string
	shard shard.ID
	// loaded is closed when memberships is right, or err says why it could not be read.
	loaded chan struct{}
	err    error
	ready  bool
	// pending are memberships that changed while the rows were read.
	pending     []membership
	memberships map[shard.Nid]*membership
	// ignored are those on the user's list of ignored users; the map is not changed but replaced.
	ignored map[string]bool
	// ignoredSince is the position from which on the list is known to have been as it is.
	ignoredSince shard.Pos
	// invites are the contents of the account data that says whose invitations are shown, by type; what they come to is taken.
	invites map[string][]byte
	taken   invitation.Rules
	// data are changes of account data after complete.
	data     []accountData
	complete shard.Pos
	last     shard.Pos
	// threads is the latest change after complete of the threads that the user wants to hear of.
	threads shard.Pos
	// messages to the user's devices after heldFrom.
	messages []message
	heldFrom shard.Pos
	devices  map[string]*device
	// notes are what was heard, after notesFrom, of the device lists of those who share a room with the user. No notesFrom: nothing is held.
	notes     []*note
	notesFrom shard.Vector
	bytes     int64
	// labels are what the user's account data says of rooms; nil if nobody has asked.
	labels  *labels
	waiters map[*waiter]struct{}
	used    time.Time
}

// membership is a user's latest membership of a room.
type membership struct {
	ref        roomdb.RoomRef
	membership roomdb.Membership
	event      shard.Nid
	pos        shard.Pos // of its last change
	forgotten  bool
	// unread is what the user has not read, nil if it is to be read from the database; guarded by Engine.mu.
	unread *pushdb.Unread
}

type accountData struct {
	pos     shard.Pos
	room    string
	typ     string
	content []byte
}

type receipt struct {
	pos shard.Pos
	roomdb.ReceiptRow
}

// waiter is one waiting sync.
type waiter struct {
	wake chan struct{} // capacity 1
	// noPresence: its filter lets no presence pass.
	noPresence bool
}

// positions gives the token of now.
func (e *Engine) positions() (uint32, shard.Vector) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.incarnation, e.pos.Clone()
}

// settle returns when every batch that the filter was asked about before the call has been applied.
func (e *Engine) settle(ctx context.Context) error {
	for {
		e.mu.Lock()
		busy, applied := e.busy.Load(), e.applied
		e.mu.Unlock()
		if !busy {
			return nil
		}
		select {
		case <-applied:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// serve gives what is held of a user, reading the memberships if nobody has.
func (e *Engine) serve(ctx context.Context, userID string) (*user, error) {
	e.mu.Lock()
	u := e.users[userID]
	if u != nil && u.ready && u.err != nil { // an earlier reading failed
		delete(e.users, userID)
		u = nil
	}
	if u == nil {
		u = &user{
			id: userID, shard: e.Shards.OfUser(userID), loaded: make(chan struct{}), complete: unsettled, heldFrom: unsettled,
			devices:     make(map[string]*device),
			memberships: make(map[shard.Nid]*membership), waiters: make(map[*waiter]struct{}), used: e.Now(),
		}
		e.users[userID] = u
		load := u
		// Not the asker's context: others may wait for the same.
		if !e.tasks.Go(func(ctx context.Context) { e.load(ctx, load) }) {
			delete(e.users, userID)
			e.mu.Unlock()
			return nil, mxerr.Unavailable("This worker is shutting down", 1000)
		}
	}
	u.used = e.Now()
	e.mu.Unlock()
	select {
	case <-u.loaded:
		return u, u.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (e *Engine) load(ctx context.Context, u *user) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err := e.loadUser(ctx, u)
	e.mu.Lock()
	defer e.mu.Unlock()
	u.err, u.ready = err, true
	if err != nil {
		u.err = fmt.Errorf("read the rooms of %s: %w", u.id, err)
		delete(e.users, u.id)
	}
	close(u.loaded)
}

func (e *Engine) loadUser(ctx context.Context, u *user) error {
	if err := e.settle(ctx); err != nil {
		return err
	}
	e.mu.Lock()
	u.complete, u.heldFrom, u.ignoredSince = e.pos[u.shard], e.pos[u.shard], e.pos[u.shard]
	e.mu.Unlock()
	rows, err := e.Rooms.Memberships(ctx, u.id)
	if err != nil {
		return err
	}
	data, err := e.Accounts.DataOf(ctx, []shard.ID{u.shard}, []string{u.id},
		accountdb.TypeIgnored, invitation.TypeConfig, invitation.TypeFiltered)
	if err != nil {
		return err
	}
	heads, err := e.source.Heads(ctx) // after the rows: it is at least as new as any of them
	if err != nil {
		return err
	}
	e.mu.Lock()
	for i := range rows {
		r := &rows[i]
		u.memberships[r.Nid] = &membership{
			ref: r.RoomRef, membership: r.Membership, event: r.Event, pos: r.Pos, forgotten: r.Forgotten,
		}
		if r.Membership == roomdb.MembershipJoin {
			e.enter(u, r.RoomRef, unsettled)
		}
	}
	e.mu.Unlock()
	// The rooms are wanted now. What was on its way is awaited before they count as complete.
	if err := e.settle(ctx); err != nil {
		return err
	}
	e.mu.Lock()
	for i := range rows {
		if r := e.rooms[rows[i].Nid]; r != nil && r.complete == unsettled {
			r.complete = e.pos[r.ref.Nid.Shard()]
		}
	}
	u.notesFrom = e.pos.Clone()
	for i := range u.pending {
		e.changed(u, u.pending[i])
	}
	for i := range data { // the log may have told of newer data already
		_, newer := u.invites[data[i].Type]
		switch {
		case data[i].Type != accountdb.TypeIgnored:
			if !newer {
				u.invite(data[i].Type, data[i].Content)
			}
		case u.ignored == nil:
			u.ignored = accountdb.ParseIgnored(u.id, data[i].Content)
		}
	}
	u.pending, u.ready = nil, true
	e.mu.Unlock()
	return e.source.Reach(ctx, heads)
}

// invite notes account data that says whose invitations are shown. Under mu.
func (u *user) invite(typ string, content []byte) {
	if u.invites == nil {
		u.invites = make(map[string][]byte, 2)
	}
	u.invites[typ] = content
	u.taken = invitation.Parse(u.invites[invitation.TypeConfig], u.invites[invitation.TypeFiltered])
}

// enter notes that a served user is in a room. Under mu.
func (e *Engine) enter(u *user, ref roomdb.RoomRef, complete shard.Pos) {
	r := e.rooms[ref.Nid]
	if r == nil {
		r = &room{ref: ref, complete: complete, members: make(map[*user]struct{}), senders: make(map[string]*readdb.Item)}
		e.rooms[ref.Nid] = r
	}
	r.members[u] = struct{}{}
}

// exit notes that a served user is not in a room any more; a room that nobody served is in is let go. Under mu.
func (e *Engine) exit(u *user, nid shard.Nid) {
	r := e.rooms[nid]
	if r == nil {
		return
	}
	delete(r.members, u)
	if len(r.members) == 0 {
		delete(e.rooms, nid)
		e.account.Release(r.bytes)
	}
}

// letGo lets go of users who have not synced for long.
func (e *Engine) letGo(now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, u := range e.users {
		if u.ready && len(u.waiters) == 0 && now.Sub(u.used) > idleAfter {
			e.forget(u)
		}
	}
}

// forget lets go of a user. Under mu.
func (e *Engine) forget(u *user) {
	for nid, m := range u.memberships {
		if m.membership == roomdb.MembershipJoin {
			e.exit(u, nid)
		}
	}
	delete(e.users, u.id)
	e.account.Release(u.bytes)
}

// evict frees about n bytes: the older half of what rooms hold, until it is enough.
func (e *Engine) evict(n int64) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	var freed int64
	for _, r := range e.rooms {
		if freed >= n {
			break
		}
		freed += e.trim(r, len(r.events)/2)
		freed += e.trimReceipts(r, len(r.receipts)/2)
		clear(r.senders)
	}
	for _, u := range e.users {
		if freed >= n {
			break
		}
		freed += e.trimMessages(u, len(u.messages)/2)
		freed += e.trimData(u, len(u.data)/2)
	}
	return freed
}
