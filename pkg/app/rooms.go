package app

import (
	"context"
	"errors"
	"fmt"

	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/api/write"
	"github.com/heddle-im/heddle/pkg/fleet/rpc"
	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/account/contact"
	"github.com/heddle-im/heddle/pkg/service/delay"
	"github.com/heddle-im/heddle/pkg/service/directory"
	"github.com/heddle-im/heddle/pkg/service/lobby"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/service/room/roomrpc"
	"github.com/heddle-im/heddle/pkg/shardlog/command"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/appservicedb"
	"github.com/heddle-im/heddle/pkg/store/delaydb"
)

// roomWriter has commands on rooms done: here, if the room's shard is held here, or else by whoever holds it. What is done
// here is not encoded.
type roomWriter struct {
	host   *room.Host // nil: every command goes over the wire
	server *rpc.Server
	wire   *roomrpc.Client
	shards shard.Map
}

// Do implements room.Writer.
func (w *roomWriter) Do(ctx context.Context, key []byte, cmd room.Command) (room.Answer, error) {
	if key == nil {
		key = room.KeyOf(cmd)
	}
	if w.host != nil && w.server.Serves(room.ShardOf(w.shards, cmd)) {
		a, err := w.host.Do(ctx, key, cmd)
		if err == nil || (!errors.Is(err, command.ErrNotOwner) && !passing(err)) {
			return a, err
		}
	}
	return w.wire.Do(ctx, key, cmd)
}

// retrying tells an rpc caller which failures of a host may pass.
type retrying struct{ room.Writer }

// Do implements room.Writer.
func (r retrying) Do(ctx context.Context, key []byte, cmd room.Command) (room.Answer, error) {
	a, err := r.Writer.Do(ctx, key, cmd)
	if passing(err) {
		err = fmt.Errorf("%w: %w", rpc.ErrRetry, err)
	}
	return a, err
}

// delays are the bounds of delayed events.
func delays() delay.Config { return delay.Config{}.WithDefaults() }

// addDelays has events sent that were asked for later.
func addDelays(s *shared, group *lifecycle.Group, writer room.Writer) *delay.Engine {
	e := delay.New(delays(), delay.Options{
		Store: delaydb.NewDB(s.db.Primary), Send: write.SendDelayed(writer), Now: s.now, Metrics: s.tel.Metrics, Log: s.log,
	})
	group.Add("delayed events", e)
	return e
}

// roomHandlers are the endpoints that change rooms.
func roomHandlers(s *shared, front *account.Front, desk *contact.Desk, writer room.Writer, delays *delay.Engine) httpx.Handlers {
	known, people := directory.New(s.shards, s.rooms), account.NewReader(s.shards, s.accounts)
	shown := lobby.New(s.shards, s.rooms, nil)
	return write.NewRooms(write.RoomOptions{
		Server: s.base.server, Writer: writer, Accounts: front,
		Profiles: people, Directory: known, Threads: known, Related: known, Upgrades: known, Services: s.services, Asker: s.asker(),
		Networks: publisher{appservicedb.NewDB(s.db), s.shards},
		Reported: write.Reported{User: people.Exists, Room: known.Known},
		Addressed: write.Addressed{
			Invitees: desk, MayInvite: known.MayInvite,
			Summary: func(ctx context.Context, r id.RoomID, u id.UserID) (lobby.Summary, error) {
				return shown.Summary(ctx, r, u, nil)
			},
		},
		Delays: delays,
		Limits: s.limiter, Abroad: newAbroad(s), Now: s.now, Random: randomSource(), Log: s.log,
	}).Handlers()
}
