package bus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
)

var (
	// ErrNotConnected: the connection is down, or was lost before the answer
	// came. What was sent may have arrived all the same.
	ErrNotConnected = errors.New("not connected to NATS")
	// ErrNoResponders: nobody subscribes to the subject of a request.
	ErrNoResponders = errors.New("nobody responds on NATS")
	// ErrNoStream: no stream takes the subject, or it has just gone; it is being
	// made again.
	ErrNoStream = errors.New("no NATS stream takes the subject")
	// ErrBusy: too many publishes wait for their acknowledgement.
	ErrBusy = errors.New("too many unacknowledged NATS messages")
)

// InProcess is a NATS server inside this process; embedded.Server is one.
type InProcess interface {
	InProcessConn() (net.Conn, error)
}

// Options are what Connect needs beside the configuration. Every field may be
// nil.
type Options struct {
	// Server is a server of this process to use in place of Config.URL.
	Server InProcess
	// Streams are made if they do not exist, again and again whenever the
	// connection comes back: a server may lose them.
	Streams []Stream
	Logger  *slog.Logger
	// Registerer gets the metrics until Close.
	Registerer prometheus.Registerer
}

// Bus is a connection to NATS that is made again for ever when it is lost.
type Bus struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	log     *slog.Logger
	streams []Stream
	tasks   *lifecycle.Tasks
	closed  chan struct{} // closed when the connection's last callback has run
	repair  chan struct{} // capacity 1: the streams may be gone
	metrics *metrics
	// dialling is nc, for what the connection itself calls before Connect has it.
	dialling atomic.Pointer[nats.Conn]

	mu      sync.Mutex // guards what follows
	changed chan struct{}
	up      bool
	reason  string          // why it is not up, as was logged last
	lost    context.Context // ends when the connection that is now up is lost
	lose    context.CancelCauseFunc
}

const (
	maxPendingAcks = 4096
	// A full window of acknowledgements, or a peer that does not read, may hold
	// a publisher for no longer than these.
	stallWait      = 50 * time.Millisecond
	flusherTimeout = time.Second
	flushTimeout   = 10 * time.Second
	reconnectWait  = 100 * time.Millisecond
)

// Connect returns a Bus that is connected or will be: NATS being away is no
// error, for Heddle works without it, only slower. A configuration that
// cannot work is one.
func Connect(ctx context.Context, cfg Config, opts Options) (*Bus, error) {
	cfg = cfg.WithDefaults()
	if opts.Server == nil {
		if err := cfg.Validate(); err != nil {
			return nil, fmt.Errorf("nats.%w", err)
		}
	}
	b := &Bus{
		log:     opts.Logger,
		streams: opts.Streams,
		tasks:   lifecycle.NewTasks(context.WithoutCancel(ctx)),
		closed:  make(chan struct{}),
		repair:  make(chan struct{}, 1),
		changed: make(chan struct{}),
	}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if b.metrics, err = newMetrics(b, opts.Registerer); err != nil {
		return nil, err
	}
	b.lost, b.lose = context.WithCancelCause(context.Background())
	b.lose(ErrNotConnected)
	if b.nc, err = nats.Connect(cfg.URL, b.natsOptions(cfg, opts)...); err != nil {
		b.metrics.unregister()
		return nil, fmt.Errorf("nats: %w", err)
	}
	b.dialling.Store(b.nc)
	b.js, err = jetstream.New(b.nc, jetstream.WithPublishAsyncMaxPending(maxPendingAcks),
		jetstream.WithPublishAsyncTimeout(cfg.AckTimeout), jetstream.WithDefaultTimeout(5*time.Second))
	if err != nil {
		b.nc.Close()
		b.metrics.unregister()
		return nil, fmt.Errorf("nats: %w", err)
	}
	if b.nc.IsConnected() {
		b.connected()
	}
	b.firstStreams(ctx)
	b.tasks.Go(b.keepStreams)
	return b, nil
}

func (b *Bus) natsOptions(cfg Config, opts Options) []nats.Option {
	o := []nats.Option{
		nats.Name(cfg.Name),
		nats.MaxReconnects(-1),
		nats.CustomReconnectDelay(func(int) time.Duration {
			// What fails after a connection was made (TLS, the password) is told to no callback.
			if nc := b.dialling.Load(); nc != nil {
				b.refused(nc.LastError())
			}
			return reconnectWait + rand.N(reconnectWait)
		}),
		nats.RetryOnFailedConnect(true),
		nats.IgnoreAuthErrorAbort(),
		nats.PingInterval(cfg.PingInterval),
		nats.MaxPingsOutstanding(2),
		nats.Timeout(2 * time.Second),
		nats.FlusherTimeout(flusherTimeout),
		// Nothing is kept for later: the sender takes another way, now.
		nats.ReconnectBufSize(-1),
		nats.ConnectHandler(func(*nats.Conn) { b.connected() }),
		nats.ReconnectHandler(func(*nats.Conn) { b.connected() }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { b.refused(err) }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { b.disconnected(err) }),
		nats.ClosedHandler(func(*nats.Conn) { b.disconnected(nil); close(b.closed) }),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			subject := ""
			if sub != nil {
				subject = sub.Subject
			}
			b.metrics.errors.Inc()
			b.log.Warn("nats", "error", err, "subject", subject)
		}),
	}
	if opts.Server != nil {
		o = append(o, nats.InProcessServer(opts.Server))
	}
	if cfg.Credentials != "" {
		o = append(o, nats.UserCredentials(cfg.Credentials))
	}
	if cfg.CAFile != "" {
		o = append(o, nats.Secure(&tls.Config{MinVersion: tls.VersionTLS12}), nats.RootCAs(cfg.CAFile))
	}
	if cfg.CertFile != "" {
		o = append(o, nats.ClientCert(cfg.CertFile, cfg.KeyFile))
	}
	return o
}

func (b *Bus) connected() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.up {
		return
	}
	b.up, b.reason = true, ""
	b.lost, b.lose = context.WithCancelCause(context.Background())
	b.notify()
	b.repairStreams()
	b.log.Info("connected to NATS")
}

// refused says why there is no connection: once for each reason, for it is tried again for ever.
func (b *Bus) refused(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil || b.up || err.Error() == b.reason {
		return
	}
	b.reason = err.Error()
	b.log.Warn("cannot connect to NATS", "error", err)
}

func (b *Bus) disconnected(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.up {
		return
	}
	b.up = false
	b.lose(ErrNotConnected)
	b.notify()
	if err != nil {
		b.metrics.disconnects.Inc()
		b.log.Warn("lost the connection to NATS", "error", err)
	}
}

// notify wakes those who wait for a change. Under mu.
func (b *Bus) notify() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// Connected says whether the connection is up, and gives a channel that is
// closed when that changes.
func (b *Bus) Connected() (up bool, changed <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.up, b.changed
}

// AwaitConnected returns when the connection is up.
func (b *Bus) AwaitConnected(ctx context.Context) error {
	for {
		up, changed := b.Connected()
		if up {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrNotConnected, ctx.Err())
		}
	}
}

// session is the context of the connection that is up, nil if none is.
func (b *Bus) session() context.Context {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.up {
		return nil
	}
	return b.lost
}

// Publish sends m to whoever subscribes now. It does not wait for the server.
func (b *Bus) Publish(m Message) error {
	if b.session() == nil {
		return fmt.Errorf("publish: %w", ErrNotConnected)
	}
	if err := b.nc.PublishMsg(m.nats()); err != nil {
		return fmt.Errorf("publish: %w", classify(err))
	}
	return nil
}

// Flush returns when the server has processed all that was sent before.
func (b *Bus) Flush(ctx context.Context) error {
	session := b.session()
	if session == nil {
		return fmt.Errorf("flush: %w", ErrNotConnected)
	}
	ctx, cancel := withSession(ctx, session)
	defer cancel()
	// The library wants a deadline, and none is of use beyond that of the pings.
	ctx, cancelTimeout := context.WithTimeout(ctx, flushTimeout)
	defer cancelTimeout()
	if err := b.nc.FlushWithContext(ctx); err != nil {
		return fmt.Errorf("flush: %w", b.because(ctx, err))
	}
	return nil
}

// Request sends m and waits for one answer. ErrNoResponders and
// ErrNotConnected come at once and not at ctx's end.
func (b *Bus) Request(ctx context.Context, m Message) (Message, error) {
	session := b.session()
	if session == nil {
		return Message{}, fmt.Errorf("request %s: %w", m.Subject, ErrNotConnected)
	}
	ctx, cancel := withSession(ctx, session)
	defer cancel()
	r, err := b.nc.RequestMsgWithContext(ctx, m.nats())
	if err != nil {
		return Message{}, fmt.Errorf("request %s: %w", m.Subject, b.because(ctx, err))
	}
	return Message{Subject: r.Subject, Data: r.Data, Header: Header(r.Header)}, nil
}

// withSession derives a context that also ends when the connection is lost.
func withSession(ctx, session context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(session, func() { cancel(ErrNotConnected) })
	return ctx, func() { stop(); cancel(nil) }
}

// because is err as the caller should see it.
func (b *Bus) because(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(context.Cause(ctx), ErrNotConnected) {
		return ErrNotConnected
	}
	return classify(err)
}

func classify(err error) error {
	for ours, theirs := range map[error][]error{
		ErrNoResponders: {nats.ErrNoResponders},
		ErrNoStream:     {jetstream.ErrNoStreamResponse, jetstream.ErrStreamNotFound},
		ErrBusy:         {jetstream.ErrTooManyStalledMsgs},
		ErrNotConnected: {
			nats.ErrReconnectBufExceeded, nats.ErrConnectionClosed, nats.ErrConnectionReconnecting,
			nats.ErrConnectionDraining, nats.ErrDisconnected, jetstream.ErrConnectionClosed,
		},
	} {
		for _, t := range theirs {
			if errors.Is(err, t) {
				return fmt.Errorf("%w (%w)", ours, err)
			}
		}
	}
	return err
}

// Close ends the connection, all subscriptions and consumers, and waits for
// their handlers. It is idempotent.
func (b *Bus) Close() {
	b.tasks.Stop()
	if b.session() != nil {
		// What was published last should still go out; a dead peer shows itself
		// within flusherTimeout.
		_ = b.nc.FlushTimeout(flusherTimeout)
	}
	b.nc.Close()
	<-b.closed
	b.metrics.unregister()
}
