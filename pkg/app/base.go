package app

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/heddle-im/heddle/pkg/config"
	"github.com/heddle-im/heddle/pkg/fleet/lease"
	"github.com/heddle-im/heddle/pkg/fleet/level"
	"github.com/heddle-im/heddle/pkg/fleet/members"
	"github.com/heddle-im/heddle/pkg/infra/bus"
	"github.com/heddle-im/heddle/pkg/infra/cache"
	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/infra/soft"
	"github.com/heddle-im/heddle/pkg/infra/telemetry"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/fleetdb"
	"github.com/heddle-im/heddle/pkg/store/leasedb"
	"github.com/heddle-im/heddle/pkg/store/schema"
)

// The feature levels (fleet/level) that this binary reads: what a release writes that its predecessor cannot read is a level more.
const (
	featureOldest = 1
	featureNewest = 1
)

// base is what every kind of worker stands on. What is opened here is closed in reverse by close.
type base struct {
	cfg     config.Config
	opts    Options
	server  id.ServerName
	address string
	shards  shard.Map
	secret  []byte
	keys    []signing.Key
	now     func() time.Time

	tel     *telemetry.Telemetry
	log     *slog.Logger
	counter *pg.QueryCounter
	db      *pg.DB
	bus     *bus.Bus
	soft    *soft.Store
	budget  *cache.Budget
	gate    *cache.Gate
	memory  int64 // what the process may use
	// pressure turns requests away while memory is short. It looks only if the process is ours.
	pressure *cache.Pressure
	leases   *leasedb.DB
	renewer  *lease.Renewer
	members  *members.Register
	level    *level.Level
	ready    *lifecycle.Readiness
	status   *status
	tls      *tls.Config

	closers []func()
}

// open builds the base in reading order; on an error everything that was opened is closed again.
func open(ctx context.Context, cfg config.Config, opts Options) (_ *base, err error) {
	b := &base{cfg: cfg, opts: opts, server: id.ServerName(cfg.ServerName), now: time.Now, ready: lifecycle.NewReadiness()}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	for _, step := range []func(context.Context) error{
		b.openTelemetry, b.openListeners, b.openDatabase, b.openCluster, b.openKeys, b.openBus, b.openSoft, b.openFleet,
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (b *base) onClose(f func()) { b.closers = append(b.closers, f) }

func (b *base) close() {
	for _, f := range slices.Backward(b.closers) {
		f()
	}
	b.closers = nil
}

func (b *base) openTelemetry(ctx context.Context) error {
	var err error
	b.tel, err = telemetry.New(ctx,
		telemetry.Identity{Kind: string(b.opts.Kind), Instance: b.cfg.Instance, Version: b.opts.Build.Version},
		telemetry.LogConfig{Level: b.cfg.Log.Level, Format: b.cfg.Log.Format},
		telemetry.Config{OTLPEndpoint: b.cfg.Telemetry.OTLPEndpoint}, b.opts.LogTo)
	if err != nil {
		return err
	}
	b.log = b.tel.Log
	b.onClose(func() { _ = b.tel.Close(context.WithoutCancel(ctx)) })

	limit := int64(b.cfg.Memory.Budget.Bytes)
	if limit == 0 {
		limit = cache.MemoryLimit(os.DirFS("/"))
	}
	if b.opts.OwnsProcess {
		cache.SetProcessLimit(limit)
		tasks := lifecycle.NewTasks(context.WithoutCancel(ctx))
		tasks.Go(cache.NewCollector(limit).Run)
		b.onClose(tasks.Stop)
	}
	b.memory = limit
	b.budget = cache.NewBudget(cache.BudgetConfig{Memory: limit}, b.tel.Metrics)
	b.gate = cache.NewGate(limit, b.tel.Metrics)
	b.pressure = cache.NewPressure(limit, b.tel.Metrics)
	if b.opts.OwnsProcess {
		tasks := lifecycle.NewTasks(context.WithoutCancel(ctx))
		tasks.Go(b.pressure.Run)
		b.onClose(tasks.Stop)
	}
	return nil
}

func (b *base) openListeners(context.Context) error {
	var err error
	if b.address, err = b.cfg.AdvertiseAddress(); err != nil {
		return &config.Error{Key: "listen.advertise", Problem: err.Error()}
	}
	if l := b.cfg.Listen.TLS; l.Address != "" {
		cert, err := tls.LoadX509KeyPair(l.Cert, l.Key)
		if err != nil {
			return &config.Error{Key: "listen.tls.cert", Problem: err.Error()}
		}
		b.tls = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	}
	return nil
}

// openDatabase opens PostgreSQL, one of its own if the all-in-one is given none, and brings the schema up to date.
func (b *base) openDatabase(ctx context.Context) error {
	if b.cfg.Database.DSN == "" {
		if b.opts.Kind != AllInOne {
			return &config.Error{Key: "database.dsn", Problem: "must be set"}
		}
		l, err := pg.NewLauncher(pg.LauncherConfig{DataDir: filepath.Join(b.cfg.DataDir, "postgres"), Logger: b.log})
		if err != nil {
			return err
		}
		if err := l.Start(ctx); err != nil {
			return err
		}
		b.onClose(func() { stopWithin(ctx, l.Stop) })
		b.cfg.Database.DSN = l.DSN("heddle")
	}
	m, err := pg.NewMigrator(b.cfg.Database, schema.FS, pg.SchemaRange{Min: schema.Min, Max: schema.Max, Oldest: schema.Oldest}, b.log)
	if err != nil {
		return err
	}
	if _, err := m.Up(ctx); err != nil {
		return err
	}
	b.counter = b.opts.Counter
	b.db, err = pg.Open(ctx, b.cfg.Database, pg.Options{
		TracerProvider: b.tel.Tracer, Counter: b.counter, Registerer: b.tel.Metrics.Registerer(),
	})
	if err != nil {
		return err
	}
	b.onClose(b.db.Close)
	b.ready.Register("database", func(ctx context.Context) error { return b.db.Primary.Ping(ctx) })
	return nil
}

// openCluster finds, or makes, what all workers of this homeserver agree on.
func (b *base) openCluster(ctx context.Context) error {
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return fmt.Errorf("make the cluster's secret: %w", err)
	}
	q := fleetdb.New(b.db.Primary)
	err := q.FoundCluster(ctx, fleetdb.FoundClusterParams{
		ServerName: b.cfg.ServerName, Shards: int16(b.cfg.Shards), Secret: secret,
	})
	if err != nil {
		return fmt.Errorf("found the cluster: %w", err)
	}
	c, err := q.GetCluster(ctx)
	if err != nil {
		return fmt.Errorf("read the cluster: %w", err)
	}
	if c.ServerName != b.cfg.ServerName {
		return &config.Error{Key: "server_name", Problem: fmt.Sprintf("the database is of %s, not of %s", c.ServerName, b.cfg.ServerName)}
	}
	if int(c.Shards) != b.cfg.Shards {
		return &config.Error{Key: "shards", Problem: fmt.Sprintf("the database was created with %d, not with %d", c.Shards, b.cfg.Shards)}
	}
	b.secret, b.shards = c.Secret, shard.NewMap(c.ServerName, int(c.Shards))
	return nil
}

func (b *base) openKeys(context.Context) error {
	if b.opts.Kind == AllInOne {
		if _, err := CreateSigningKey(b.cfg.SigningKeyPath); err != nil {
			return err
		}
	}
	var err error
	if b.keys, err = LoadSigningKeys(b.cfg.SigningKeyPath); err != nil {
		return err
	}
	if len(b.keys) == 0 {
		return &config.Error{Key: "signing_key_path", Problem: "the file holds no key"}
	}
	return nil
}

// openBus connects to NATS, one of its own if the all-in-one is given none. That NATS is away is no error.
func (b *base) openBus(ctx context.Context) error {
	opts := bus.Options{Streams: []bus.Stream{follow.LogStream()}, Logger: b.log, Registerer: b.tel.Metrics.Registerer()}
	if b.cfg.Nats.URL == "" {
		if b.opts.Kind != AllInOne || b.opts.NATS == nil {
			return &config.Error{Key: "nats.url", Problem: "must be set"}
		}
		server := b.opts.NATS(filepath.Join(b.cfg.DataDir, "nats"), b.log)
		if err := server.Start(ctx); err != nil {
			return err
		}
		b.onClose(func() { stopWithin(ctx, server.Stop) })
		opts.Server = server
	}
	var err error
	b.bus, err = bus.Connect(ctx, bus.Config{
		URL: b.cfg.Nats.URL, Credentials: b.cfg.Nats.Credentials, Name: b.cfg.Instance,
	}, opts)
	if err != nil {
		return err
	}
	b.onClose(b.bus.Close)
	return nil
}

func (b *base) openSoft(context.Context) error {
	var err error
	b.soft, err = soft.New(soft.Config{URL: b.cfg.Redis.URL}, soft.Options{Logger: b.log, Metrics: b.tel.Metrics})
	if err != nil {
		return err
	}
	b.onClose(func() { _ = b.soft.Close() })
	return nil
}

func (b *base) openFleet(context.Context) error {
	b.leases = leasedb.NewDB(b.db)
	reads := b.opts.Reads
	if reads == 0 {
		reads = featureNewest
	}
	b.level = level.New(fleetdb.NewDB(b.db), level.Options{Reads: reads, Log: b.log})
	b.ready.Register("feature level", b.level.Check)
	b.status = newStatus(b)
	var roles []string
	if b.opts.Kind != Synchrotron && b.opts.Kind != FederationReader {
		for _, r := range b.cfg.Roles {
			roles = append(roles, string(r))
		}
	}
	if b.opts.Kind == AllInOne || b.opts.Kind == FederationReader {
		roles = append(roles, rolePreparation)
	}
	b.renewer = lease.NewRenewer(b.leases, lease.RenewerConfig{
		Worker: leasedb.Worker{
			Instance: b.cfg.Instance, Kind: string(b.opts.Kind), Address: b.address, Version: b.opts.Build.Version,
			ProtocolMin: featureOldest, ProtocolMax: int(b.level.Reads()), Roles: roles,
		},
		Status: b.status.now, Logger: b.log,
	})
	b.members = members.New(fleetdb.New(b.db.Primary), members.Options{Log: b.log})
	b.ready.Register("register", b.renewer.Check)
	return nil
}

// stopWithin stops something in the time that is left to it when its worker ends.
func stopWithin(ctx context.Context, stop func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	_ = stop(ctx)
}

// living gives the names of all workers who live.
func (b *base) living() []string {
	var names []string
	for _, w := range b.members.Live() {
		names = append(names, w.Instance)
	}
	return names
}

// hasRole tells whether this process does what the role stands for.
func (b *base) hasRole(r config.Role) bool {
	switch b.opts.Kind {
	case AllInOne:
		return true
	case Master:
		return slices.Contains(b.cfg.Roles, r)
	}
	return false
}

// meets tells whether devices can meet here to log one of them in by a QR code: there is an authorisation server with a grant for devices, and
// whatever workers the two reach see the same sessions.
func (b *base) meets() bool {
	oauth := b.cfg.OAuth.Provide || b.cfg.OAuth.Endpoint != ""
	return oauth && b.baseURL() != "" && (b.soft.Remote() || b.opts.Kind == AllInOne)
}

// baseURL is what clients are told to use, without a slash at its end.
func (b *base) baseURL() string { return strings.TrimSuffix(b.cfg.PublicBaseurl, "/") }
