package app

import (
	"context"
	"maps"

	"github.com/heddle-im/heddle/pkg/api/read"
	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/route"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/directory"
	"github.com/heddle-im/heddle/pkg/service/inbound"
	"github.com/heddle-im/heddle/pkg/service/lobby"
	"github.com/heddle-im/heddle/pkg/service/msync"
	"github.com/heddle-im/heddle/pkg/service/timeline"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/delaydb"
	"github.com/heddle-im/heddle/pkg/store/pushdb"
	"github.com/heddle-im/heddle/pkg/store/readdb"
)

// buildSynchrotron builds what only reads: sync, and every client endpoint that changes nothing.
func buildSynchrotron(s *shared, group *lifecycle.Group) (part, error) {
	p := part{kind: route.Synchrotron}
	accounts := account.NewReader(s.shards, s.accounts)
	rooms := readdb.NewReader(s.rooms, s.shards)
	var connections msync.ConnectionStore
	if s.soft.Remote() { // the engine has a memory of its own
		connections = s.soft
	}
	who := newPresence(s)
	engine := msync.New(context.Background(), msync.Options{
		Connections: connections, Shards: s.shards, Rooms: rooms, Accounts: s.accounts, Push: pushdb.NewReader(s.db.Primary), Keys: s.e2ee,
		Acks: acks{e2eeFront(s)}, Budget: s.budget, Gate: s.gate, Replica: s.replica, Presence: who, Now: s.now, Log: s.log,
	}, (*syncLog)(s))
	s.hear(ear{wants: engine.Wants, apply: engine.Apply, reset: engine.Reset})
	group.Add("sync", engine)
	if err := hearTyping(s, engine); err != nil {
		return part{}, err
	}
	if err := announcePresence(s, group, who, engine); err != nil {
		return part{}, err
	}
	// Those who wait are told to come again before anything else stops.
	p.drain = engine.Drain
	away := newAbroad(s)
	p.handlers = read.NewAccounts(read.AccountsOptions{
		Server: s.base.server, Accounts: accounts, BaseURL: s.baseURL(), Delegated: s.authService != nil, Email: s.cfg.Email.SMTP.Host != "",
		OAuth: s.cfg.OAuth.Provide, Meets: s.meets(), Remote: away, Previews: s.cfg.Media.URLPreviews.Enabled, Calls: s.calls(), Delays: delays(),
		Asker: s.asker(),
	}).Handlers()
	keys := e2eeReader(s, rooms)
	maps.Copy(p.handlers, read.NewE2EE(keys, engine).Handlers())
	maps.Copy(p.handlers, read.NewSync(engine, accounts, who, s.budget, s.tel.Metrics).Handlers())
	maps.Copy(p.handlers, read.NewPresence(who, acquainted(s), s.now).Handlers())
	filler := inbound.NewFiller(inbound.PreparerOptions{
		Server: s.base.server, Shards: s.shards, DB: s.fed, Rooms: s.rooms, Writer: s.writerOf(), Remote: s.remote, Keys: s.keySource, Log: s.log,
	})
	group.Add("backfill", filler)
	shown := timeline.New(rooms, s.accounts, s.now).Filling(filler).Replicated(s.replica)
	maps.Copy(p.handlers, read.NewRooms(s.base.server, shown, away).Asking(s.asker()).Handlers())
	help := s.cfg.Support
	maps.Copy(p.handlers, read.Support{
		Page: help.Page, Admin: read.Contact{MatrixID: id.UserID(help.AdminMatrixID), Email: help.AdminEmail},
		Security: read.Contact{MatrixID: id.UserID(help.SecurityMatrixID), Email: help.SecurityEmail},
	}.Handlers())
	maps.Copy(p.handlers, read.NewMedia(s.media).Handlers())
	maps.Copy(p.handlers, read.NewOldSync(engine, shown).Handlers())
	maps.Copy(p.handlers, read.NewNotifications(timeline.NewNotifications(shown, pushdb.NewReader(s.db.Primary))).Handlers())
	maps.Copy(p.handlers, read.NewSearch(timeline.NewSearch(shown, s.words)).Handlers())
	maps.Copy(p.handlers, read.NewDelayed(delaydb.NewDB(s.db.Primary)).Handlers())
	maps.Copy(p.handlers, read.NewPeople(directory.NewPeople(s.shards, s.words)).Handlers())
	maps.Copy(p.handlers, read.NewLobby(s.base.server, lobby.New(s.shards, s.rooms, away).Listing(s.networks()), away).Handlers())
	return p, nil
}

// calls are the servers over which calls go.
func (s *shared) calls() read.Calls {
	c := s.cfg.Calls
	return read.Calls{TURN: c.TURN.URIs, Secret: c.TURN.SharedSecret, Lifetime: c.TURN.Lifetime, LiveKit: c.LiveKit, Now: s.now}
}

// hearTyping has the engine hear what is not in the log.
func hearTyping(s *shared, engine *msync.Engine) error {
	return s.subscribe(entry.EphemeralSubjects, func(data []byte) {
		t, err := entry.DecodeTyping(data)
		if err != nil {
			s.log.Warn("typing was not understood", "error", err)
			return
		}
		engine.HearTyping(t)
	})
}

// syncLog is the log as sync asks for it.
type syncLog shared

// Heads implements msync.Log.
func (l *syncLog) Heads(ctx context.Context) (shard.Heads, error) { return l.index.Heads(ctx) }

// Reach implements msync.Log.
func (l *syncLog) Reach(ctx context.Context, h shard.Heads) error { return l.follower.Reach(ctx, h) }

// History implements msync.Log.
func (l *syncLog) History(ctx context.Context) (shard.History, error) { return l.logs.History(ctx) }
