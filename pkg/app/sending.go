package app

import (
	"context"
	"errors"
	"time"

	"github.com/heddle-im/heddle/pkg/config"
	"github.com/heddle-im/heddle/pkg/fleet/lease"
	"github.com/heddle-im/heddle/pkg/infra/bus"
	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/remote/fedclient"
	"github.com/heddle-im/heddle/pkg/service/e2ee"
	"github.com/heddle-im/heddle/pkg/service/sender"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/e2eedb"
	"github.com/heddle-im/heddle/pkg/store/leasedb"
	"github.com/heddle-im/heddle/pkg/store/readdb"
	"github.com/heddle-im/heddle/pkg/store/senderdb"
)

// addSender has this worker tell other homeservers what happens here, as many of them as are its share.
func addSender(s *shared, group *lifecycle.Group) error {
	if !s.cfg.Federation.Enabled {
		return nil
	}
	var engine *lease.Engine
	out := sender.New(context.Background(), sender.Config{}, sender.Options{
		Server: s.base.server, Shards: s.shards, DB: senderdb.NewDB(s.db), Cursors: s.logs, Source: s.logs, Stream: s.stream,
		Transport: transport{s.remote},
		Devices:   deviceNews{e2eeReader(s, readdb.NewReader(s.rooms, s.shards)), s.shards, s.e2ee},
		Valid: func(slot int, epoch shard.Epoch) bool {
			return engine.ValidSlot(leasedb.Key{Role: string(config.RoleFederationSender), Slot: slot}, epoch)
		},
		Budget: s.budget, Now: s.now, Metrics: s.tel.Metrics, Log: s.log,
	})
	engine = lease.NewEngine(s.leases, s.renewer, lease.Config{
		Roles: []lease.Role{{
			Name: string(config.RoleFederationSender), Slots: s.shards.Count(), Address: s.address, Owner: out,
		}},
		Logger: s.log,
	})
	if err := s.tellSender(out); err != nil {
		return err
	}
	group.Add("federation sender", out)
	group.Add("federation sender's leases", engine)
	return nil
}

// heardSubject is where workers tell that a server has been heard of that was being left alone.
const heardSubject = "federation.heard"

// tellSender has the sender hear what is not in the log.
func (s *shared) tellSender(out *sender.Sender) error {
	return errors.Join(
		s.subscribe(heardSubject, func(data []byte) {
			server := id.ServerName(data)
			s.remote.HeardElsewhere(server)
			out.Heard(server)
		}),
		s.subscribeEphemeral(out),
	)
}

// heard takes note that another server has shown that it is there, and tells the senders if that is news.
func (s *shared) heard(ctx context.Context, server id.ServerName) {
	if !s.remote.Heard(ctx, server) {
		return
	}
	if err := s.bus.Publish(bus.Message{Subject: heardSubject, Data: []byte(server)}); err != nil {
		s.log.Debug("that a server was heard of was not told", "error", err) // the senders find out by themselves, later
	}
}

// transport carries the sender's transactions.
type transport struct{ client *fedclient.Client }

const (
	sendPath    = "/_matrix/federation/v1/send"
	sendTimeout = time.Minute
	sendLimit   = 1 << 20
)

// Send implements sender.Transport.
func (t transport) Send(ctx context.Context, to id.ServerName, txn string, body []byte) ([]byte, error) {
	answer, err := t.client.Do(ctx, to, fedclient.Request{
		Method: "PUT", Path: fedclient.Path(sendPath, txn), Body: body, Timeout: sendTimeout, Limit: sendLimit, Strict: true,
	})
	var refused *fedclient.RefusedError
	if errors.As(err, &refused) {
		return nil, &sender.RefusedError{Status: refused.Status, Matrix: refused.Err != nil, Err: err}
	}
	return answer, err
}

// Backoff implements sender.Transport.
func (t transport) Backoff(ctx context.Context, to id.ServerName) time.Duration {
	return t.client.Backoff(ctx, to)
}

// deviceNews is what other servers are told of users' devices.
type deviceNews struct {
	reader *e2ee.Reader
	shards shard.Map
	names  *e2eedb.Reader
}

// Updates implements sender.Devices.
func (d deviceNews) Updates(ctx context.Context, user id.UserID, pos shard.Pos, change *entry.DeviceListBody) ([]sender.EDU, error) {
	if change == nil {
		list, err := d.reader.DevicesOf(ctx, user)
		if err != nil {
			return nil, err
		}
		names, err := d.names.DeviceNames(ctx, d.shards.OfUser(string(user)), []string{string(user)}) // those without keys too
		if err != nil {
			return nil, err
		}
		pos = shard.Pos(list.StreamID) // of the list as it is, not of what made us tell it
		change = &entry.DeviceListBody{CrossSigning: len(list.Master)+len(list.SelfSigning) > 0}
		for _, x := range names {
			change.Changed = append(change.Changed, x.DeviceID)
		}
	}
	edus, err := d.reader.Updates(ctx, user, int64(pos), change)
	out := make([]sender.EDU, len(edus))
	for i, e := range edus {
		out[i] = sender.EDU{Type: e.Type, Content: e.Content}
	}
	return out, err
}
