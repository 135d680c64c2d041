package app

import (
	"github.com/heddle-im/heddle/pkg/api/federation"
	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/route"
)

// buildFederation builds what other homeservers call.
func buildFederation(s *shared, _ *lifecycle.Group) (part, error) {
	return part{
		kind: route.FederationReader,
		handlers: federation.New(federation.Options{
			Server: s.base.server, Keys: s.keys, Version: s.opts.Build.Version, BaseURL: s.baseURL(), Now: s.now,
		}).Handlers(),
	}, nil
}
