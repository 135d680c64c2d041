package app

import (
	"maps"

	"github.com/heddle-im/heddle/pkg/api/federation"
	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/route"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/directory"
	"github.com/heddle-im/heddle/pkg/service/inbound"
	"github.com/heddle-im/heddle/pkg/service/lobby"
	"github.com/heddle-im/heddle/pkg/store/readdb"
)

// buildFederation builds what other homeservers call, and what brings what they send to its rooms.
func buildFederation(s *shared, group *lifecycle.Group) (part, error) {
	rooms := s.residents()
	kept, others := eduTakers(s)
	sink := inbound.NewSink(s.writerOf(), rooms, kept, others, s.log)
	group.Add("EDUs", sink)
	prep, engine, err := newPreparation(s, sink)
	if err != nil {
		return part{}, err
	}
	group.Add("preparation", engine)
	stager := inbound.NewStager(inbound.StagerOptions{
		Server: s.base.server, Shards: s.shards, DB: s.fed, Rooms: rooms, Invitations: rooms, Keys: s.keySource, EDUs: sink, Wake: prep.told, Metrics: s.tel.Metrics, Log: s.log,
	})
	away, asker := newAbroad(s), s.asker()
	p := part{
		kind:     route.FederationReader,
		handOver: engine.Drain,
		handlers: federation.New(federation.Options{
			Server: s.base.server, Keys: s.keys, OldKeys: s.oldKeys, Version: s.opts.Build.Version, BaseURL: s.baseURL(), Now: s.now,
			Notary: s.keyring, Rooms: rooms, Writer: s.writerOf(), KeySource: s.keySource, Stager: stager, Abroad: askingAbroad{away, asker}, ThirdParty: away,
			Profiles: askingProfiles{account.NewReader(s.shards, s.accounts), asker}, Directory: askingDirectory{directory.New(s.shards, s.rooms), asker},
			Hosts:      rooms.Hosts,
			OpenIDUser: s.openIDUser,
		}).Handlers(),
	}
	maps.Copy(p.handlers, federation.NewLobby(lobby.New(s.shards, s.rooms, nil).Listing(s.networks()), s.fed.HostIn).Handlers())
	maps.Copy(p.handlers, federation.NewE2EE(s.base.server, e2eeFront(s), e2eeReader(s, readdb.NewReader(s.rooms, s.shards))).Handlers())
	maps.Copy(p.handlers, federation.NewMedia(s.base.server, s.media).Handlers())
	return p, nil
}
