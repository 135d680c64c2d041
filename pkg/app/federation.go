package app

import (
	"maps"

	"github.com/heddle-im/heddle/pkg/api/federation"
	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/route"
	"github.com/heddle-im/heddle/pkg/store/readdb"
)

// buildFederation builds what other homeservers call.
func buildFederation(s *shared, _ *lifecycle.Group) (part, error) {
	p := part{
		kind: route.FederationReader,
		handlers: federation.New(federation.Options{
			Server: s.base.server, Keys: s.keys, Version: s.opts.Build.Version, BaseURL: s.baseURL(), Now: s.now,
		}).Handlers(),
	}
	maps.Copy(p.handlers, federation.NewE2EE(s.base.server, e2eeFront(s), e2eeReader(s, readdb.NewReader(s.rooms, s.shards))).Handlers())
	return p, nil
}
