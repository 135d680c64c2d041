package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/heddle-im/heddle/pkg/api/write"
	"github.com/heddle-im/heddle/pkg/config"
	"github.com/heddle-im/heddle/pkg/fleet/lease"
	"github.com/heddle-im/heddle/pkg/fleet/rpc"
	"github.com/heddle-im/heddle/pkg/infra/bus"
	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/route"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/e2ee"
	"github.com/heddle-im/heddle/pkg/service/policy"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/service/room/roomrpc"
	"github.com/heddle-im/heddle/pkg/shardlog/command"
	"github.com/heddle-im/heddle/pkg/shardlog/commit"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/commitdb"
	"github.com/heddle-im/heddle/pkg/store/leasedb"
	"github.com/heddle-im/heddle/pkg/store/pushdb"
)

// buildMaster builds what changes things: leases on shards, the committer over them, the hosts of rooms and accounts, and the
// endpoints that clients use.
func buildMaster(s *shared, group *lifecycle.Group) (part, error) {
	p := part{kind: route.Master}
	direct := &roomWriter{wire: roomrpc.NewClient(s.client, s.shards), shards: s.shards}
	writer := policy.NewWriter(direct, s.remote, s.log)
	s.writer = writer
	if s.hasRole(config.RoleWriter) {
		w, err := newWriting(s)
		if err != nil {
			return part{}, err
		}
		w.addTo(group)
		p.internal, p.handOver = w.server, w.engine.Drain
		s.to = rpc.NewRouter(w.server, s.client, !s.opts.NoShortCut)
		if !s.opts.NoShortCut {
			direct.host, direct.server = w.rooms, w.server
		}
		s.ready.Register("leases", w.engine.Check)
	}
	if s.hasRole(config.RoleBackground) {
		group.Add("background", newBackground(s, writer))
	}
	if s.hasRole(config.RoleFederationSender) {
		if err := addSender(s, group); err != nil {
			return part{}, err
		}
	}
	if s.hasRole(config.RolePush) {
		if err := addPush(s, group); err != nil {
			return part{}, err
		}
	}
	if s.hasRole(config.RoleAppservice) && s.services.Any() {
		if err := addServices(s, group); err != nil {
			return part{}, err
		}
	}
	if !s.hasRole(config.RoleClient) {
		return p, nil
	}
	passwords, err := account.NewPasswords(cmp.Or(s.opts.Passwords, account.DefaultArgon2()), 2)
	if err != nil {
		return part{}, err
	}
	front := account.NewFront(s.server, s.shards, s.accountConfig(), accountDoer{to: s.to, shards: s.shards, everywhere: s.everywhere}, s.accounts, passwords, s.secret, s.now)
	front.LimitGuesses(s.limiter)
	front.Reserve(func(u id.UserID) bool { return s.services.UserReserved(u, nil) })
	desk, err := s.contacts(front)
	if err != nil {
		return part{}, err
	}
	users, handlers, err := accountHandlersOf(s, front, desk)
	if err != nil {
		return part{}, err
	}
	p.handlers = handlers
	maps.Copy(p.handlers, meeting(s))
	maps.Copy(p.handlers, serviceHandlers(s))
	maps.Copy(p.handlers, write.NewMedia(s.media).Handlers())
	maps.Copy(p.handlers, write.NewE2EE(e2eeFront(s), users).Handlers())
	maps.Copy(p.handlers, adminHandlers(s, front, writer))
	maps.Copy(p.handlers, roomHandlers(s, front, desk, writer, addDelays(s, group, writer)))
	s.agreements(front, p.handlers)
	return p, nil
}

// writing is the writing side of a master: what it holds the leases for. It is the leases' owner, and tells the committer
// which shards are ours.
type writing struct {
	*shared
	writer    *commitdb.Writer
	publisher *follow.BusPublisher
	committer *commit.Committer
	rooms     *room.Host
	server    *rpc.Server
	engine    *lease.Engine

	tasks   *lifecycle.Tasks // rooms that begin anew under another epoch
	mu      sync.Mutex       // guards session
	session leasedb.Session
}

func newWriting(s *shared) (*writing, error) {
	w := &writing{shared: s, tasks: lifecycle.NewTasks(context.Background())}
	s.onClose(w.tasks.Stop)
	w.writer = commitdb.NewWriter(commitdb.Options{
		Connect: s.db.Connect, Shards: s.shards.Count(), Holder: func() string { return s.renewer.Boot().String() }, Log: s.log,
	})
	s.onClose(w.writer.Close)
	w.publisher = follow.NewBusPublisher(s.bus)
	w.committer = commit.New(commit.Config{}.WithDefaults(), commit.Options{
		Store: w.writer, Publisher: w.publisher, Leases: (*leases)(w), Log: s.log, Registerer: s.tel.Metrics.Registerer(),
		Tracer: s.tel.Tracer,
	})
	w.rooms = room.NewHost(room.Options{
		Server: s.base.server, Shards: s.shards, Key: s.keys[0], Committer: w.committer, DB: s.rooms, Push: pushdb.NewReader(s.db.Primary), Preferences: listeners(s), Sets: s.fed,
		Ephemeral: (*typing)(w), Notices: s.noticesUser(), Budget: s.budget, Now: s.now, Random: randomSource(), Metrics: s.tel.Metrics, Log: s.log,
	})
	commands := command.Options{Owners: (*leases)(w), Committer: w.committer, Done: s.logs}
	accounts := account.NewHost(s.shards, commands, s.accounts, s.now)
	keys := e2ee.NewHost(e2ee.HostOptions{Options: commands, Shards: s.shards, DB: s.e2ee, Now: s.now})
	handlers := commandHandlers(account.Methods(), account.Decode, accounts)
	maps.Copy(handlers, commandHandlers(e2ee.Methods(), e2ee.Decode, keys))
	maps.Copy(handlers, roomrpc.Handlers(retrying{w.rooms}))
	w.server = rpc.NewServer(rpc.ServerConfig{
		Bus: s.bus, Secret: s.secret, Handlers: handlers, Logger: s.log, Tracer: s.tel.Tracer, Propagator: s.tel.Propagator,
		Metrics: s.tel.Metrics,
	})
	hint, err := newLeaseHint(s.base)
	if err != nil {
		return nil, err
	}
	w.engine = lease.NewEngine(s.leases, s.renewer, lease.Config{
		Roles: []lease.Role{{
			Name: leasedb.Writer, Slots: s.shards.Count(), Address: s.address, Session: w.sessionNow, Owner: w,
		}},
		Hint: hint, Logger: s.log, Metrics: s.tel.Metrics,
	})
	return w, nil
}

// addTo adds the services in the order in which they start.
func (w *writing) addTo(g *lifecycle.Group) {
	g.Add("publisher", w.publisher)
	g.Add("committer", w.committer)
	g.Add("writer's session", lifecycle.Funcs{OnStart: w.connect})
	g.Add("leases", w.engine)
}

// connect opens the writing session, so that its name stands on the lease rows from the first claim on.
func (w *writing) connect(ctx context.Context) error {
	n, err := w.writer.Session(ctx)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.session = n
	return nil
}

func (w *writing) sessionNow() leasedb.Session {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.session
}

// Opened implements lease.Owner.
func (w *writing) Opened(ctx context.Context, slot int, epoch shard.Epoch) error {
	s := shard.ID(slot)
	if err := w.committer.Open(ctx, s, epoch); err != nil {
		return fmt.Errorf("open shard %s: %w", s, err)
	}
	if err := w.connect(ctx); err != nil { // the session may be a new one
		return err
	}
	if err := w.rooms.Open(ctx, s, epoch); err != nil {
		w.committer.Drop(s)
		return fmt.Errorf("open the rooms of shard %s: %w", s, err)
	}
	if err := w.server.Open(ctx, s); err != nil {
		w.committer.Drop(s)
		return errors.Join(fmt.Errorf("serve shard %s: %w", s, err), w.rooms.Close(ctx, s))
	}
	return nil
}

// Closing implements lease.Owner: no new request, then none in the rooms, then none in the committer.
func (w *writing) Closing(ctx context.Context, slot int) {
	s := shard.ID(slot)
	w.server.Close(ctx, s)
	if !w.engine.Valid(s, w.epochOf(s)) { // lost, not given away: what is in flight cannot commit
		w.committer.Drop(s)
	}
	if err := w.rooms.Close(ctx, s); err != nil {
		w.log.Warn("rooms of a shard did not close in time", "shard", int(s), "error", err)
	}
	if err := w.committer.Close(ctx, s); err != nil {
		w.log.Warn("shard did not close in time", "shard", int(s), "error", err)
		w.committer.Drop(s)
	}
}

func (w *writing) epochOf(s shard.ID) shard.Epoch {
	e, _ := w.engine.Epoch(s)
	return e
}

// leases is what the committer and the hosts ask of the leases.
type leases writing

// Valid implements commit.Leases.
func (l *leases) Valid(s shard.ID, e shard.Epoch) bool { return l.engine.Valid(s, e) }

// Epoch implements account.Owners.
func (l *leases) Epoch(s shard.ID) (shard.Epoch, bool) { return l.engine.Epoch(s) }

// Moved implements commit.Leases. What the rooms hold in memory was prepared under the old epoch and fails; they begin anew. If the
// lease has lapsed meanwhile, and perhaps was taken again, whoever does that opens them.
func (l *leases) Moved(s shard.ID, from, to shard.Epoch) {
	l.engine.Moved(s, from, to)
	l.tasks.Go(func(ctx context.Context) {
		if e, ok := l.engine.Epoch(s); !ok || e != to {
			return
		}
		err := l.rooms.Open(ctx, s, to)
		if err == nil || errors.Is(err, room.ErrOvertaken) || ctx.Err() != nil {
			return
		}
		l.log.Error("rooms of a shard did not begin anew; the shard is given up", "shard", int(s), "error", err)
		l.engine.Lost(s, to) // closes all of it, and takes it again
	})
}

// Lost implements commit.Leases: a fence has found that the shard is not ours. The committer has let go of it; the rest is closed, and
// all of it is opened again if the lease turns out to be ours after all.
func (l *leases) Lost(s shard.ID, e shard.Epoch) { l.engine.Lost(s, e) }

// typing tells the synchrotrons who types.
type typing writing

// PublishTyping implements room.Ephemeral.
func (t *typing) PublishTyping(u room.TypingUsers) {
	users := make([]string, len(u.Users))
	for i, id := range u.Users {
		users[i] = string(id)
	}
	data, err := entry.EncodeTyping(&entry.Typing{
		Shard: uint32(u.Shard), Epoch: int64(u.Epoch), N: u.N, RoomNid: int64(u.RoomNid), RoomId: string(u.Room), UserIds: users,
	})
	if err == nil {
		err = t.bus.Publish(bus.Message{Subject: entry.EphemeralSubject(u.Shard), Data: data})
	}
	if err != nil { // it may be lost: that is what ephemeral means
		t.log.Debug("typing was not published", "error", err)
	}
}

// leaseHint tells masters over NATS that a lease has changed.
type leaseHint struct {
	bus  *bus.Bus
	told chan struct{}
}

const leaseSubject = "fleet.lease"

func newLeaseHint(b *base) (*leaseHint, error) {
	h := &leaseHint{bus: b.bus, told: make(chan struct{}, 1)}
	err := b.subscribe(leaseSubject, func([]byte) {
		select {
		case h.told <- struct{}{}:
		default:
		}
	})
	return h, err
}

// Tell implements lease.Hint.
func (h *leaseHint) Tell() { _ = h.bus.Publish(bus.Message{Subject: leaseSubject}) }

// Told implements lease.Hint.
func (h *leaseHint) Told() <-chan struct{} { return h.told }
