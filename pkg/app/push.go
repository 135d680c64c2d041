package app

import (
	"context"

	"github.com/heddle-im/heddle/pkg/service/push"
	"github.com/heddle-im/heddle/pkg/service/room"
)

// preferences tells the writers of rooms what their users want to be notified of.
type preferences struct{ *push.Preferences }

// listeners has a part hear the log that knows whose preferences change.
func listeners(s *shared) room.Preferences {
	p := push.NewPreferences(s.shards, s.accounts)
	s.hear(ear{wants: push.Wants, apply: p.Apply, reset: p.Reset})
	return preferences{p}
}

// Of implements room.Preferences.
func (p preferences) Of(ctx context.Context, users []string) (map[string]room.Preference, error) {
	found, err := p.Preferences.Of(ctx, users)
	if err != nil {
		return nil, err
	}
	out := make(map[string]room.Preference, len(found))
	for u, x := range found {
		out[u] = room.Preference(x)
	}
	return out, nil
}
