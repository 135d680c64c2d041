package app

import (
	"context"
	"errors"
	"net/netip"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/fleet/rpc"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
	"github.com/heddle-im/heddle/pkg/remote/authservice"
	"github.com/heddle-im/heddle/pkg/remote/fedclient"
	"github.com/heddle-im/heddle/pkg/remote/keyring"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/appservice"
	"github.com/heddle-im/heddle/pkg/service/media"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
	"github.com/heddle-im/heddle/pkg/store/e2eedb"
	"github.com/heddle-im/heddle/pkg/store/feddb"
	"github.com/heddle-im/heddle/pkg/store/logdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
	"github.com/heddle-im/heddle/pkg/store/searchdb"
)

// shared is what all parts of one process have in common: one follower of the log, one memory of sessions, one way to
// the shards' writers. It is a service: it starts to follow when the parts have said what they want to hear.
type shared struct {
	*base
	accounts *accountdb.Reader
	e2ee     *e2eedb.Reader
	words    *searchdb.Reader
	rooms    *roomdb.Reader
	logs     *logdb.DB
	stream   *follow.BusStream
	index    *follow.Index
	replica  *logdb.Replica
	sessions *account.Sessions
	limiter  *auth.Limits
	client   *rpc.Client
	remote   *fedclient.Client
	keyring  *keyring.Ring
	fed      *feddb.DB
	oldKeys  []signing.OldKey
	media    *media.Service
	services *appservice.Registry
	// serviceClient asks application services.
	serviceClient *appservice.Client
	// authService keeps the accounts; nil: they are our own.
	authService *authservice.Service
	// writer has commands on rooms done; see writerOf.
	writer room.Writer
	// to is how requests reach a shard's writer: over the wire, or by the short cut if a master is in this process.
	to caller

	ears       []ear
	follower   *follow.Follower
	everywhere *follow.Everywhere
}

// ear is a part that hears the log. Apply and Reset are called from the follower's goroutine, one at a time.
type ear struct {
	wants func(k entry.Kind, room shard.Nid, subject []byte) bool
	apply func(ctx context.Context, b follow.Batch) error
	reset func(ctx context.Context, at shard.Heads) error
}

func newShared(b *base) (*shared, error) {
	s := &shared{
		base: b, accounts: accountdb.NewReader(b.db.Reads()), e2ee: e2eedb.NewReader(b.db.Primary), words: searchdb.NewReader(b.db.Reads()), rooms: roomdb.NewReader(b.db.Reads()),
		logs: logdb.NewDB(b.db, b.shards.Count()), stream: follow.NewBusStream(b.bus),
	}
	s.index = follow.NewIndex(s.logs)
	if err := s.openServices(); err != nil {
		return nil, err
	}
	s.replica = logdb.NewReplica(b.db, b.shards.Count(), s.index.Heads, b.log)
	s.sessions = account.NewSessions(b.cfg.ServerName, b.shards, s.accounts, b.budget, b.now)
	s.hear(ear{
		wants: func(k entry.Kind, _ shard.Nid, subject []byte) bool { return s.sessions.Concerned(k, string(subject)) },
		apply: func(_ context.Context, batch follow.Batch) error {
			for i := range batch.Entries {
				s.sessions.Apply(&batch.Entries[i])
			}
			return nil
		},
		reset: func(context.Context, shard.Heads) error { s.sessions.Forget(); return nil },
	})
	s.client = rpc.NewClient(rpc.ClientConfig{
		Bus: b.bus, Owners: b.leases, Secret: b.secret, Logger: b.log, Tracer: b.tel.Tracer, Propagator: b.tel.Propagator,
		Metrics: b.tel.Metrics,
	})
	s.onClose(s.client.Close)
	s.to = s.client
	s.sessions.OnFirstUse(func(ctx context.Context, cmd *account.ConfirmRefresh) error {
		_, err := accountDoer{to: s.to, shards: s.shards}.Do(ctx, nil, cmd)
		return err
	})
	if err := s.openAuthService(); err != nil {
		return nil, err
	}
	s.follower = follow.New(follow.Config{}, follow.Options{
		Source: s.logs, Stream: s.stream, Consumer: (*fan)(s), Filter: s.wants, Log: b.log,
	})
	s.everywhere = follow.NewEverywhere(context.Background(), follow.EverywhereOptions{
		Bus: b.bus, Self: b.cfg.Instance, Live: b.living, Heads: s.index, Applied: s.follower, Log: b.log,
	})
	reg, metrics := b.tel.Metrics.Registerer(), s.follower.Metrics("worker")
	reg.MustRegister(metrics)
	s.onClose(func() { reg.Unregister(metrics) })
	s.ready.Register("log", s.follower.Ready)
	b.status.follow(s.follower)
	s.limiter = newLimiter(b)
	if err := s.openRemote(); err != nil {
		return nil, err
	}
	return s, nil
}

// hear adds a part that hears the log; it must be called before Start.
func (s *shared) hear(e ear) { s.ears = append(s.ears, e) }

func (s *shared) wants(k entry.Kind, room shard.Nid, subject []byte) bool {
	for _, e := range s.ears {
		if e.wants(k, room, subject) {
			return true
		}
	}
	return false
}

// Start implements lifecycle.Service.
func (s *shared) Start(ctx context.Context) error {
	if err := s.follower.Start(ctx); err != nil {
		return err
	}
	if err := s.everywhere.Start(ctx); err != nil {
		return errors.Join(err, s.follower.Stop(ctx))
	}
	return nil
}

// Stop implements lifecycle.Service.
func (s *shared) Stop(ctx context.Context) error {
	err := errors.Join(s.everywhere.Stop(ctx), s.follower.Stop(ctx))
	s.index.Stop()
	return err
}

// Failed implements lifecycle.Failing.
func (s *shared) Failed() <-chan error { return s.follower.Failed() }

// fan hands what the follower applies to all parts.
type fan shared

// Apply implements follow.Consumer.
func (f *fan) Apply(ctx context.Context, b follow.Batch) error {
	if f.opts.Hears != nil {
		f.opts.Hears(b)
	}
	for _, e := range f.ears {
		if err := e.apply(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// Reset implements follow.Resetter.
func (f *fan) Reset(ctx context.Context, at shard.Heads) error {
	for _, e := range f.ears {
		if err := e.reset(ctx, at); err != nil {
			return err
		}
	}
	return nil
}

// trustedProxies are the networks whose X-Forwarded-For is believed: a proxy on the same machine, and private networks, where
// balancers and the other workers are.
func trustedProxies() []netip.Prefix {
	var out []netip.Prefix
	for _, p := range []string{"127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"} {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}
