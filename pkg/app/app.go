package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/forward"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/api/ops"
	"github.com/heddle-im/heddle/pkg/app/buildinfo"
	"github.com/heddle-im/heddle/pkg/config"
	"github.com/heddle-im/heddle/pkg/fleet/members"
	"github.com/heddle-im/heddle/pkg/infra/bus"
	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/route"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/e2ee"
	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/store/schema"
)

// Kind is a kind of process.
type Kind string

// The kinds of process.
const (
	Master           Kind = "master"
	Synchrotron      Kind = "synchrotron"
	FederationReader Kind = "federation-reader"
	AllInOne         Kind = "heddle"
)

// Options are what New needs beside the configuration.
type Options struct {
	Kind  Kind
	Build buildinfo.Info
	// LogTo is where the log goes; nil: standard error.
	LogTo io.Writer
	// OwnsProcess lets the worker set what holds for the process as a whole, such as the collector's memory limit.
	OwnsProcess bool
	// Started, if set, is told where the worker answers once it does.
	Started func(url string)
	// NATS makes the NATS server of an all-in-one that is configured without one; nil: it must be configured.
	// It is given a directory of its own for what it writes and nobody needs again.
	NATS func(dir string, log *slog.Logger) NATSServer
	// NoShortCut sends requests for shards that this process itself holds over the wire too. For tests.
	NoShortCut bool
	// Reads is the highest feature level that this process reads; 0: the release's. For tests of two releases side by side.
	Reads int32
	// Hears, if set, is called with what the worker hears of the log, before the worker goes by it. For tests of one that is slow to hear.
	Hears func(b follow.Batch)
	// Passwords is the cost of a password's hash; none: what the release has. For tests of much that takes a password.
	Passwords account.Argon2Params
	// Counter counts the statements of the pools. For tests.
	Counter *pg.QueryCounter
}

// NATSServer is a NATS server inside the process.
type NATSServer interface {
	bus.InProcess
	Start(ctx context.Context) error
	Stop(ctx context.Context) error
}

// App is one worker, or all kinds in one process.
type App struct {
	base  *base
	group *lifecycle.Group
	http  *listener
}

// New builds a worker, in reading order: what it stands on, what it does, where it answers. What was opened is closed again
// if it fails.
func New(ctx context.Context, cfg config.Config, opts Options) (*App, error) {
	b, err := open(ctx, cfg, opts)
	if err != nil {
		return nil, err
	}
	a := &App{base: b, group: lifecycle.NewGroup(b.log)}
	if err := a.build(); err != nil {
		b.close()
		return nil, err
	}
	return a, nil
}

// part is what one kind of worker adds to a process: services, in the order in which they start, and handlers.
type part struct {
	kind     route.Kind
	handlers httpx.Handlers
	// internal answers what workers ask each other over HTTP.
	internal http.Handler
	// handOver gives away, while requests are still answered, what another worker can take over, if there is one.
	handOver func(ctx context.Context) error
	// drain ends what would keep requests waiting.
	drain func()
}

func (a *App) build() error {
	b := a.base
	a.group.Add("budget", b.budget)
	a.group.Add("feature level", b.level)
	a.group.Add("register", b.renewer)
	a.group.Add("members", b.members)
	s, err := newShared(b)
	if err != nil {
		return err
	}
	a.group.Add("log", s)
	if err := s.openMedia(a.group); err != nil {
		return err
	}

	var parts []part
	for _, p := range []struct {
		kind  Kind
		build func(*shared, *lifecycle.Group) (part, error)
	}{{Master, buildMaster}, {Synchrotron, buildSynchrotron}, {FederationReader, buildFederation}} {
		if b.opts.Kind != p.kind && b.opts.Kind != AllInOne {
			continue
		}
		built, err := p.build(s, a.group)
		if err != nil {
			return fmt.Errorf("build %s: %w", p.kind, err)
		}
		parts = append(parts, built)
	}
	return a.listen(s, parts)
}

// listen puts the parts' handlers behind one router and one gate, and adds the listeners: last to start, first to stop.
func (a *App) listen(s *shared, parts []part) error {
	b := a.base
	handlers, kinds := httpx.Handlers{}, []route.Kind{}
	var internal http.Handler
	for _, p := range parts {
		kinds = append(kinds, p.kind)
		for name, h := range p.handlers {
			handlers[name] = h
		}
		if p.internal != nil {
			internal = p.internal
		}
	}
	fwd, err := forward.New(forward.Options{
		Members: b.members, Self: b.cfg.Instance, Secret: b.secret, Propagator: b.tel.Propagator,
		Registerer: b.tel.Metrics.Registerer(), Log: b.log,
	})
	if err != nil {
		return err
	}
	b.onClose(fwd.Close)
	seen := e2ee.NewLastSeen(context.Background(), e2eeFront(s), b.now, b.log)
	gate := auth.NewGate(s.sessions, s.limiter, s.federationGate(), seen, trustedProxies())
	gate.LetIn(s.services, s.sessions)
	parking := httpx.NewParking(idleTime)
	router, err := httpx.New(httpx.Options{
		Parking: parking, Gate: b.gate, Pressure: b.pressure, Passing: pg.IsConnection,
		Kinds: kinds, Handlers: handlers, Wrap: gate.Wrap, Forwarder: fwd, Elsewhere: fwd.LaterRelease, Internal: fwd.Internal,
		MaxUpload: int64(b.cfg.Media.MaxUpload), Log: b.log, Registerer: b.tel.Metrics.Registerer(),
		TracerProvider: b.tel.Tracer, Propagator: b.tel.Propagator,
	})
	if err != nil {
		return err
	}
	front := besides(internal, router)

	opsHandler := ops.New(ops.Options{Ready: b.ready.Ready, Metrics: b.tel.Metrics.Handler(), Version: a.version()})
	a.group.Add("ops", newListener("ops", b.cfg.Listen.Ops, nil, opsHandler, 0, b.log))
	watch := lifecycle.NewTasks(context.Background())
	a.group.Add("status", lifecycle.Funcs{
		OnStart: func(context.Context) error { watch.Go(b.status.watch); return nil },
		OnStop:  watch.StopWithin,
	})
	a.http = newListener("http", b.cfg.Listen.HTTP, nil, front, lingering, b.log)
	a.http.parking = parking
	a.group.Add("http", a.http)
	if b.tls != nil {
		a.group.Add("tls", newListener("tls.address", b.cfg.Listen.TLS.Address, b.tls, front, lingering, b.log))
	}
	if b.opts.Started != nil {
		a.group.Add("started", lifecycle.Funcs{OnStart: func(context.Context) error { b.opts.Started(a.URL()); return nil }})
	}
	a.group.Add("drain", lifecycle.Funcs{OnStop: func(ctx context.Context) error { return a.drain(ctx, parts) }})
	a.group.Add("last seen", seen) // stops first: what it has to tell needs writers
	return nil
}

// internalPath is where workers ask each other; the proxies in front let nothing through to it.
const internalPath = "/_heddle/"

// besides puts what workers ask each other, if this one answers it, beside what the world asks. It has no other spelling: proxies would see
// it in an encoded path.
func besides(internal http.Handler, world http.Handler) http.Handler {
	if internal == nil {
		return world
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, internalPath) && strings.HasPrefix(r.URL.EscapedPath(), internalPath) {
			internal.ServeHTTP(w, r)
			return
		}
		world.ServeHTTP(w, r)
	})
}

// drain is the first step of stopping: the others learn that we go, and take over what they can, while every request is still
// answered here.
func (a *App) drain(ctx context.Context, parts []part) error {
	b := a.base
	b.ready.Drain()
	errs := []error{b.renewer.Drain(ctx)}
	for _, p := range parts {
		if p.handOver != nil && a.othersServe(p.kind) {
			errs = append(errs, p.handOver(ctx))
		}
		if p.drain != nil {
			p.drain()
		}
	}
	return errors.Join(errs...)
}

func (a *App) othersServe(k route.Kind) bool {
	live := a.base.members.Live()
	return slices.ContainsFunc(live, func(w members.Worker) bool {
		return w.Instance != a.base.cfg.Instance && w.Kind == k && !w.Status.Draining
	})
}

// version is what /version answers.
func (a *App) version() any {
	b := a.base
	type span struct {
		Min int `json:"min"`
		Max int `json:"max"`
	}
	return struct {
		buildinfo.Info
		Instance string `json:"instance"`
		Kind     Kind   `json:"kind"`
		Schema   span   `json:"schema"`
		Protocol span   `json:"protocol"`
	}{b.opts.Build, b.cfg.Instance, b.opts.Kind, span{schema.Min, schema.Max}, span{featureOldest, int(b.level.Reads())}}
}

// Run serves until ctx ends, the process is told to stop, or a part fails.
func (a *App) Run(ctx context.Context) error {
	defer a.base.close()
	return lifecycle.Run(ctx, a.base.log, a.group)
}

// Start starts the worker without handling signals; Stop ends it. They are for those who run several in one process.
func (a *App) Start(ctx context.Context) error { return a.group.Start(ctx) }

// Stop drains and ends what Start began, and closes what New opened.
func (a *App) Stop(ctx context.Context) error {
	defer a.base.close()
	return a.group.Stop(ctx)
}

// URL is where the worker answers, once it has started.
func (a *App) URL() string { return "http://" + a.http.bound.String() }

// Logger is the worker's log.
func (a *App) Logger() *slog.Logger { return a.base.log }
