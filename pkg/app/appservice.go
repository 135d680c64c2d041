package app

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/api/write"
	"github.com/heddle-im/heddle/pkg/config"
	"github.com/heddle-im/heddle/pkg/fleet/lease"
	"github.com/heddle-im/heddle/pkg/infra/bus"
	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/abroad"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/appservice"
	"github.com/heddle-im/heddle/pkg/service/directory"
	"github.com/heddle-im/heddle/pkg/service/e2ee"
	"github.com/heddle-im/heddle/pkg/service/lobby"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/appservicedb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// openServices reads the registrations of application services.
func (s *shared) openServices() error {
	list, err := appservice.Load(s.cfg.Appservices)
	if err == nil {
		s.services, err = appservice.NewRegistry(s.base.server, list)
	}
	if err != nil {
		return &config.Error{Key: "appservices", Problem: err.Error()}
	}
	s.serviceClient = appservice.NewClient("Heddle/" + s.opts.Build.Version)
	s.onClose(s.serviceClient.Close)
	return nil
}

// addServices has this worker tell application services what happens when nobody else does.
func addServices(s *shared, group *lifecycle.Group) error {
	front := e2eeFront(s)
	out := appservice.NewSender(appservice.Config{}, appservice.Options{
		Server: s.base.server, Shards: s.shards, Services: s.services, Client: s.serviceClient, DB: appservicedb.NewDB(s.db),
		Source: s.logs, Stream: s.stream,
		Acknowledge: func(ctx context.Context, list []appservice.Received) error {
			told := make([]e2ee.Received, len(list))
			for i, r := range list {
				told[i] = e2ee.Received{UserID: r.User, DeviceID: r.Device, Upto: int64(r.Upto)}
			}
			return front.Acknowledge(ctx, told)
		},
		Now: s.now, Metrics: s.tel.Metrics, Log: s.log,
	})
	if err := s.tellServices(out); err != nil {
		return err
	}
	group.Add("application services", lifecycle.Funcs{OnStart: out.Register})
	group.Add("application services' lease", lease.NewEngine(s.leases, s.renewer, lease.Config{
		Roles:  []lease.Role{{Name: appservice.RoleName, Slots: 1, Address: s.address, Owner: out}},
		Logger: s.log,
	}))
	return nil
}

// backSubject is where workers tell that an application service has shown that it is there.
const backSubject = "appservice.back"

// tellServices has the sender to application services hear what is not in the log.
func (s *shared) tellServices(out *appservice.Sender) error {
	return errors.Join(s.subscribe(backSubject, func(data []byte) { out.Kick(string(data)) }), s.subscribeEphemeral(out))
}

// asker asks application services what only they know.
func (s *shared) asker() *appservice.Asker {
	if !s.services.Any() {
		return nil
	}
	return appservice.NewAsker(s.services, s.serviceClient, account.NewReader(s.shards, s.accounts), s.now)
}

// serviceHandlers are the endpoints for application services alone.
func serviceHandlers(s *shared) httpx.Handlers {
	return write.NewServices(s.asker(), func(service string) {
		if err := s.bus.Publish(bus.Message{Subject: backSubject, Data: []byte(service)}); err != nil {
			s.log.Debug("that an application service is back was not told", "error", err) // it is tried again anyway
		}
	}).Handlers()
}

// networks are the rooms that application services list.
type networks struct {
	*appservice.Registry
	db *appservicedb.DB
}

// Listed implements lobby.Networks.
func (n networks) Listed(ctx context.Context, service, network string) ([]lobby.NetworkRoom, error) {
	return networkRooms(n.db.ListedFor(ctx, service, network))
}

// AllListed implements lobby.Networks.
func (n networks) AllListed(ctx context.Context) ([]lobby.NetworkRoom, error) {
	return networkRooms(n.db.AllListed(ctx))
}

func networkRooms(list []appservicedb.Listed, err error) ([]lobby.NetworkRoom, error) {
	out := make([]lobby.NetworkRoom, len(list))
	for i, r := range list {
		out[i] = lobby.NetworkRoom{RoomRef: roomdb.RoomRef{Nid: r.Nid, RoomID: r.RoomID, Version: r.Version}, Published: r.Published}
	}
	return out, err
}

// publisher lists rooms for networks.
type publisher struct {
	db     *appservicedb.DB
	shards shard.Map
}

// Publish implements write.Networks.
func (p publisher) Publish(ctx context.Context, service, network string, room id.RoomID, listed bool) error {
	return p.db.Publish(ctx, service, network, string(room), p.shards.Of(string(room)), listed)
}

func (s *shared) networks() lobby.Networks {
	if !s.services.Any() {
		return nil
	}
	return networks{s.services, appservicedb.NewDB(s.db)}
}

// askingDirectory asks for aliases that are not there, on behalf of other servers.
type askingDirectory struct {
	*directory.Directory
	asker *appservice.Asker
}

// Resolve implements federation.Directory.
func (d askingDirectory) Resolve(ctx context.Context, alias id.RoomAlias) (id.RoomID, id.UserID, bool, error) {
	room, creator, ok, err := d.Directory.Resolve(ctx, alias)
	if err != nil || ok {
		return room, creator, ok, err
	}
	if made, _ := d.asker.Alias(ctx, alias); !made { // who does not answer has no such alias, for others
		return "", "", false, nil
	}
	return d.Directory.Resolve(ctx, alias)
}

// askingAbroad asks for users who are not there when another server invites them.
type askingAbroad struct {
	*abroad.Abroad
	asker *appservice.Asker
}

// askedForInvited bounds how long the inviting server waits for an application service.
const askedForInvited = 5 * time.Second

// Invited implements federation.Abroad.
func (a askingAbroad) Invited(
	ctx context.Context, origin id.ServerName, room id.RoomID, event id.EventID, version string, pdu, stripped []byte,
) ([]byte, error) {
	signed, err := a.Abroad.Invited(ctx, origin, room, event, version, pdu, stripped)
	if !mxerr.Is(err, mxerr.NotFound) {
		return signed, err
	}
	var e struct {
		User id.UserID `json:"state_key"`
	}
	if json.Unmarshal(pdu, &e) != nil {
		return nil, err
	}
	asked, cancel := context.WithTimeout(ctx, askedForInvited)
	defer cancel()
	if !a.asker.Missing(asked, e.User) {
		return nil, err
	}
	return a.Abroad.Invited(ctx, origin, room, event, version, pdu, stripped)
}

// askingProfiles asks for users who are not there, on behalf of other servers.
type askingProfiles struct {
	*account.Reader
	asker *appservice.Asker
}

// Exists implements federation.Profiles.
func (p askingProfiles) Exists(ctx context.Context, u id.UserID) (bool, error) {
	ok, err := p.Reader.Exists(ctx, u)
	if err == nil && !ok {
		ok, _ = p.asker.User(ctx, u)
	}
	return ok, err
}
