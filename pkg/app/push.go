package app

import (
	"context"

	"github.com/heddle-im/heddle/pkg/config"
	"github.com/heddle-im/heddle/pkg/fleet/lease"
	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/infra/outhttp"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/push"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/store/pushdb"
)

// listeners has a part hear the log that knows whose preferences change.
func listeners(s *shared) room.Preferences {
	p := push.NewPreferences(s.shards, s.accounts)
	s.hear(ear{wants: push.Wants, apply: p.Apply, reset: p.Reset})
	return p
}

// addPush has this worker send notifications when nobody else does.
func addPush(s *shared, group *lifecycle.Group) error {
	roots, err := rootsOf(s.cfg.Push.CAFile)
	if err != nil {
		return &config.Error{Key: "push.ca_file", Problem: err.Error()}
	}
	out := push.New(push.Config{}, push.Options{
		Shards: s.shards, DB: pushdb.NewDB(s.db), Rooms: s.rooms, Accounts: s.accounts,
		Preferences: push.NewPreferences(s.shards, s.accounts), Cursors: s.logs, Source: s.logs, Stream: s.stream,
		Guard: outhttp.NewGuard(s.cfg.Push.AllowNetworks, s.cfg.Federation.DenyNetworks), Roots: roots,
		UserAgent: "Heddle/" + s.opts.Build.Version,
		Remove: func(ctx context.Context, k pushdb.PusherKey) error {
			_, err := accountDoer{to: s.to, shards: s.shards}.Do(ctx, nil, &account.SetPusher{
				UserID: k.UserID, Pusher: account.Pusher{AppID: k.AppID, Pushkey: k.Pushkey}, Remove: true,
			})
			return err
		},
		Now: s.now, Metrics: s.tel.Metrics, Log: s.log,
	})
	group.Add("push sender's lease", lease.NewEngine(s.leases, s.renewer, lease.Config{
		Roles:  []lease.Role{{Name: push.RoleName, Slots: 1, Address: s.address, Owner: out}},
		Logger: s.log,
	}))
	return nil
}
