package app

import (
	"context"
	"sync"

	"github.com/heddle-im/heddle/pkg/fleet/lease"
	"github.com/heddle-im/heddle/pkg/infra/bus"
	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
	"github.com/heddle-im/heddle/pkg/service/abroad"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/inbound"
	"github.com/heddle-im/heddle/pkg/service/policy"
	"github.com/heddle-im/heddle/pkg/service/resident"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/service/room/roomrpc"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/readdb"
)

// rolePreparation is the role whose slots are the shards: bringing what other servers sent to its rooms.
const rolePreparation = "preparation"

// stagedSubject is where it is told that something was staged: each byte of the message is a shard.
const stagedSubject = "fed.staged"

// writerOf gives the way to have commands on rooms done: the master's in this process, or over the wire.
func (s *shared) writerOf() room.Writer {
	if s.writer == nil {
		s.writer = policy.NewWriter(&roomWriter{wire: roomrpc.NewClient(s.to, s.shards), shards: s.shards}, s.remote, s.log)
	}
	return s.writer
}

func (s *shared) residents() *resident.Rooms {
	return resident.New(readdb.NewReader(s.rooms, s.shards), s.fed)
}

// keySource is the key ring as services ask it.
func (s *shared) keySource(ctx context.Context, requests []signing.Request) signing.Keys {
	return s.keyring.Get(ctx, requests)
}

// newAbroad makes what users of this server do in rooms elsewhere.
func newAbroad(s *shared) *abroad.Abroad {
	rooms := s.residents()
	return abroad.New(abroad.Options{
		Server: s.base.server, Shards: s.shards, Key: s.keys[0], Rooms: rooms, ThirdParty: rooms, Told: rooms.Told, Inviters: rooms.Inviters, Users: account.NewReader(s.shards, s.accounts),
		Writer: s.writerOf(), Remote: s.remote, Keys: s.keySource, DB: s.fed, Cache: s.soft, Now: s.now, Log: s.log,
	})
}

// preparation brings staged events to their rooms, for the shards whose preparation this process has. It is the leases' owner.
type preparation struct {
	*shared
	preparer *inbound.Preparer

	mu    sync.Mutex // guards all below
	tasks map[int]*lifecycle.Tasks
	wakes map[shard.ID]chan struct{}
}

// newPreparation makes it, and the engine of its leases.
func newPreparation(s *shared, edus inbound.EDUs) (*preparation, *lease.Engine, error) {
	p := &preparation{shared: s, tasks: map[int]*lifecycle.Tasks{}, wakes: map[shard.ID]chan struct{}{}}
	p.preparer = inbound.NewPreparer(inbound.PreparerOptions{
		Server: s.base.server, Shards: s.shards, DB: s.fed, Rooms: s.rooms, Writer: s.writerOf(), Remote: s.remote, Keys: s.keySource,
		EDUs: edus, Log: s.log,
	})
	err := s.subscribe(stagedSubject, func(data []byte) {
		for _, b := range data {
			p.wake(shard.ID(b))
		}
	})
	if err != nil {
		return nil, nil, err
	}
	return p, lease.NewEngine(s.leases, s.renewer, lease.Config{
		Roles:  []lease.Role{{Name: rolePreparation, Slots: s.shards.Count(), Address: s.address, Owner: p}},
		Logger: s.log,
	}), nil
}

// told tells whoever prepares the shards that something was staged.
func (p *preparation) told(shards []shard.ID) {
	data := make([]byte, 0, len(shards))
	for _, s := range shards {
		if !p.wake(s) {
			data = append(data, byte(s))
		}
	}
	if len(data) > 0 {
		_ = p.bus.Publish(bus.Message{Subject: stagedSubject, Data: data}) // it is found by looking, too
	}
}

// wake wakes the preparer of a shard, and tells whether it is here.
func (p *preparation) wake(s shard.ID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	w, ok := p.wakes[s]
	if ok {
		select {
		case w <- struct{}{}:
		default:
		}
	}
	return ok
}

// Opened implements lease.Owner.
func (p *preparation) Opened(_ context.Context, slot int, _ shard.Epoch) error {
	tasks, wake := lifecycle.NewTasks(context.Background()), make(chan struct{}, 1)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tasks[slot], p.wakes[shard.ID(slot)] = tasks, wake
	tasks.Go(func(ctx context.Context) { p.preparer.Run(ctx, shard.ID(slot), wake) })
	return nil
}

// Closing implements lease.Owner.
func (p *preparation) Closing(ctx context.Context, slot int) {
	p.mu.Lock()
	tasks := p.tasks[slot]
	delete(p.tasks, slot)
	delete(p.wakes, shard.ID(slot))
	p.mu.Unlock()
	if tasks == nil {
		return
	}
	if err := tasks.StopWithin(ctx); err != nil {
		p.log.Warn("the preparation of a shard did not stop in time", "shard", slot, "error", err)
	}
}

// openIDUser tells whom an OpenID token names.
func (s *shared) openIDUser(token string) (id.UserID, error) {
	return account.OpenIDUser(s.secret, s.base.server, token, s.now())
}
