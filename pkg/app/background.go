package app

import (
	"context"
	"sync"
	"time"

	"github.com/heddle-im/heddle/pkg/config"
	"github.com/heddle-im/heddle/pkg/fleet/lease"
	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/farewell"
	"github.com/heddle-im/heddle/pkg/service/guests"
	"github.com/heddle-im/heddle/pkg/service/janitor"
	"github.com/heddle-im/heddle/pkg/service/profile"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/service/roomwalk"
	"github.com/heddle-im/heddle/pkg/service/wordindex"
	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/searchdb"
	"github.com/heddle-im/heddle/pkg/store/senderdb"
)

// restartAfter is how long after its failure a durable consumer is begun anew.
const restartAfter = 5 * time.Second

// background is what one worker does for all, under a lease: durable consumers of the log, and the removal of what is old. It is the lease's owner.
type background struct {
	*shared
	durables []durable
	janitor  *janitor.Janitor

	mu    sync.Mutex // guards tasks
	tasks *lifecycle.Tasks
}

// durable is a consumer that is done once for the whole deployment.
type durable struct {
	name     string
	consumer follow.Consumer
	filter   follow.Filter
	save     time.Duration // how often the place is stored, 0 for the usual
}

// newBackground makes the engine that takes the role when nobody else has it. It is apart from the shards' engine: a master may have
// this role and hold no shards.
func newBackground(s *shared, writer room.Writer) *lease.Engine {
	b := &background{shared: s}
	walker := roomwalk.New(roomwalk.Config{}, s.rooms, s.tel.Metrics, s.log)
	spreader := profile.New(account.NewReader(s.shards, s.accounts), walker,
		func(ctx context.Context, r id.RoomID, user id.UserID, displayName, avatarURL string) error {
			_, err := writer.Do(ctx, nil, &room.SetProfile{
				Room: r, User: user, Profile: room.Profile{DisplayName: displayName, AvatarURL: avatarURL},
			})
			return err
		})
	leave := func(ctx context.Context, r id.RoomID, user id.UserID) error {
		_, err := writer.Do(ctx, nil, &room.SetMembership{Room: r, By: room.Origin{User: user}, Target: user, Action: room.ActionLeave})
		return err
	}
	leaver := farewell.New(walker, leave)
	words := searchdb.NewIndexer(s.db.Primary, s.shards)
	b.durables = []durable{
		{profile.Consumer, spreader, profile.Filter, 0},
		{farewell.Consumer, leaver, farewell.Filter, 0},
		{guests.Consumer, guests.New(s.rooms, s.accounts, s.shards, leave, s.log), guests.Filter, 0},
		{searchdb.EventsConsumer, wordindex.NewEvents(words), wordindex.EventFilter, wordindex.Every},
		{searchdb.PeopleConsumer, wordindex.NewPeople(words, s.shards), wordindex.PeopleFilter, wordindex.Every},
	}
	b.janitor = janitor.New(janitor.Config{}, janitor.Options{
		Store: s.logs, EDUs: senderdb.NewDB(s.db), Staging: s.fed, Shards: s.shards.Count(), Metrics: s.tel.Metrics, Log: s.log,
	})
	return lease.NewEngine(s.leases, s.renewer, lease.Config{
		Roles:  []lease.Role{{Name: string(config.RoleBackground), Slots: 1, Address: s.address, Owner: b}},
		Logger: s.log,
	})
}

// Opened implements lease.Owner.
func (b *background) Opened(_ context.Context, slot int, epoch shard.Epoch) error {
	role := follow.Role{Name: string(config.RoleBackground), Slot: int16(slot), Epoch: epoch}
	tasks := lifecycle.NewTasks(context.Background())
	b.mu.Lock()
	b.tasks = tasks
	b.mu.Unlock()
	for _, d := range b.durables {
		tasks.Go(func(ctx context.Context) {
			for ctx.Err() == nil {
				b.run(ctx, d.name, follow.NewDurable(follow.Config{}, follow.DurableOptions{
					Name: d.name, Role: role, Cursors: b.logs, Source: b.logs, Stream: b.stream,
					Consumer: d.consumer, Filter: d.filter, Log: b.log, SaveEvery: d.save,
				}))
			}
		})
	}
	tasks.Go(func(ctx context.Context) { b.janitor.Run(ctx, role) })
	tasks.Go(b.sweepMedia)
	return nil
}

// run lets a consumer work until ctx ends, or until some time after it failed.
func (b *background) run(ctx context.Context, name string, d *follow.Durable) {
	err := d.Start(ctx)
	if err == nil {
		reg, metrics := b.tel.Metrics.Registerer(), d.Metrics()
		if reg.Register(metrics) == nil { // else one that did not stop in time still has the place
			defer reg.Unregister(metrics)
		}
		select {
		case <-ctx.Done():
		case err = <-d.Failed():
		}
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if serr := d.Stop(stop); serr != nil {
		b.log.Warn("background consumer did not stop in order", "consumer", name, "error", serr)
	}
	if ctx.Err() != nil {
		return
	}
	b.log.Error("background consumer failed and is begun anew", "consumer", name, "error", err)
	_ = lifecycle.Sleep(ctx, restartAfter) // the caller looks at ctx
}

// Closing implements lease.Owner.
func (b *background) Closing(ctx context.Context, _ int) {
	b.mu.Lock()
	tasks := b.tasks
	b.tasks = nil
	b.mu.Unlock()
	if tasks == nil {
		return
	}
	if err := tasks.StopWithin(ctx); err != nil {
		b.log.Warn("background work did not stop in time", "error", err)
	}
}
