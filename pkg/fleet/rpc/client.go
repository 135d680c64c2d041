package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/singleflight"
	"google.golang.org/protobuf/proto"

	"github.com/heddle-im/heddle/pkg/infra/bus"
	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/infra/telemetry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/shardlog/wire"
)

// Owners reads who holds a shard's lease now; *leasedb.DB is one.
type Owners interface {
	// Owner gives the writer of a shard and where it answers; the instance is empty when there is none.
	Owner(ctx context.Context, s shard.ID) (instance, address string, epoch shard.Epoch, err error)
}

// ClientConfig is what a Client needs.
type ClientConfig struct {
	// Bus may be nil: then every request goes by HTTP.
	Bus    *bus.Bus
	Owners Owners
	// Secret is the cluster's.
	Secret []byte
	// HTTP is the client of the second way; nil makes one.
	HTTP     *http.Client
	MaxBytes int
	// Logger, Tracer, Propagator and Metrics may be nil.
	Logger     *slog.Logger
	Tracer     trace.TracerProvider
	Propagator propagation.TextMapPropagator
	Metrics    *telemetry.Metrics
}

// Client asks the writers of shards.
type Client struct {
	bus      *bus.Bus
	owners   Owners
	signer   signer
	http     *http.Client
	maxBytes int
	log      *slog.Logger
	tel      instruments
	attempts *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	reads    singleflight.Group

	mu    sync.Mutex // guards known
	known map[shard.ID]owner
}

// owner is what a lease row said, for a moment: it is believed until somebody answers that it is not so.
type owner struct {
	address string
	epoch   shard.Epoch
	at      time.Time
}

const (
	ownerAge       = 2 * time.Second
	firstBackoff   = 5 * time.Millisecond
	longestBackoff = 200 * time.Millisecond
	// attemptTimeout is how long one attempt waits for an answer before the other way is tried with the same key: a
	// message can be lost without anybody noticing.
	attemptTimeout = 5 * time.Second
	// replyMargin is by how much the one who answers is to be done earlier than the caller gives up.
	replyMargin = 2 * time.Millisecond
)

// NewClient makes a Client.
func NewClient(cfg ClientConfig) *Client {
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = DefaultMaxBytes
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.HTTP == nil {
		cfg.HTTP = &http.Client{
			Transport: &http.Transport{
				MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: false, DisableCompression: true,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	return &Client{
		bus: cfg.Bus, owners: cfg.Owners, signer: newSigner(cfg.Secret), http: cfg.HTTP, maxBytes: cfg.MaxBytes,
		log: cfg.Logger, tel: newInstruments(cfg.Tracer, cfg.Propagator),
		attempts: cfg.Metrics.CounterVec("rpc_attempts_total", "Requests to other workers that were sent, by way and outcome.",
			"via", "outcome"),
		seconds: cfg.Metrics.HistogramVec("rpc_seconds", "How long requests to shards' writers took, retries included.",
			telemetry.LatencyBuckets(), "method"),
		known: map[shard.ID]owner{},
	}
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Call asks the shard's writer until there is an answer, a refusal (an *mxerr.Error) or ctx ends; without a deadline it
// gives up after 30 s.
func (c *Client) Call(ctx context.Context, r Request) (payload []byte, err error) {
	if err := r.check(c.maxBytes); err != nil {
		return nil, err
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, defaultTimeout)
		defer cancel()
	}
	begun := time.Now()
	ctx, span := c.tel.tracer.Start(ctx, "rpc "+r.Method, trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(attribute.Int("heddle.shard", int(r.Shard))))
	defer span.End()
	payload, err = c.call(ctx, r)
	c.seconds.WithLabelValues(r.Method).Observe(time.Since(begun).Seconds())
	if err != nil && !final(err) {
		span.SetStatus(codes.Error, err.Error())
	}
	return payload, err
}

func (c *Client) call(ctx context.Context, r Request) ([]byte, error) {
	wait := firstBackoff
	var last error
	skipBus := false
	for {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%s of shard %s: %w: %w", r.Method, r.Shard, ErrUnavailable, errors.Join(last, ctx.Err()))
		}
		payload, err := c.attempt(ctx, r, skipBus)
		if final(err) {
			return payload, err
		}
		if ctx.Err() == nil {
			last = err
		}
		// No answer within an attempt's time on a way that looks whole: the other way is tried in between.
		skipBus = !skipBus && errors.Is(err, context.DeadlineExceeded)
		// The jitter keeps those that wait for one hand-over from asking all at once.
		_ = lifecycle.Sleep(ctx, wait/2+rand.N(wait)) // the loop looks at ctx
		wait = min(2*wait, longestBackoff)
	}
}

// attempt asks once: over NATS, or else by HTTP whoever the lease row names.
func (c *Client) attempt(ctx context.Context, r Request, skipBus bool) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	var busErr error
	if c.bus != nil && !skipBus {
		payload, err := c.overBus(ctx, r)
		c.count("nats", err)
		if !errors.Is(err, bus.ErrNoResponders) && !errors.Is(err, bus.ErrNotConnected) {
			return payload, err
		}
		busErr = err
	}
	payload, err := c.overHTTP(ctx, r)
	if err != nil && !final(err) {
		return nil, errors.Join(err, busErr)
	}
	return payload, err
}

func (c *Client) count(via string, err error) {
	outcome := "failed"
	switch {
	case err == nil:
		outcome = "ok"
	case final(err):
		outcome = "refused"
	case errors.Is(err, ErrNotOwner), errors.Is(err, bus.ErrNoResponders):
		outcome = "not_owner"
	case errors.Is(err, ErrRetry):
		outcome = "retry"
	}
	c.attempts.WithLabelValues(via, outcome).Inc()
}

// encode makes the message; how long the caller waits is told as a duration, for clocks differ.
func (c *Client) encode(ctx context.Context, r Request) ([]byte, error) {
	left := attemptTimeout
	if d, ok := ctx.Deadline(); ok {
		left = time.Until(d) - replyMargin
	}
	if left < time.Millisecond {
		return nil, context.DeadlineExceeded
	}
	return proto.Marshal(&wire.Request{
		Method: r.Method, Shard: uint32(r.Shard), Key: r.Key, TimeoutMs: left.Milliseconds(), Payload: r.Payload,
	})
}

func (c *Client) overBus(ctx context.Context, r Request) ([]byte, error) {
	if c.bus == nil {
		return nil, bus.ErrNotConnected
	}
	data, err := c.encode(ctx, r)
	if err != nil {
		return nil, err
	}
	header := bus.Header{}
	c.tel.propagator.Inject(ctx, header)
	m, err := c.bus.Request(ctx, bus.Message{Subject: subject(r.Shard, r.Method), Data: data, Header: header})
	if err != nil {
		return nil, err
	}
	return decodeAnswer(m.Data)
}

func decodeAnswer(data []byte) ([]byte, error) {
	var w wire.Response
	if err := proto.Unmarshal(data, &w); err != nil {
		return nil, fmt.Errorf("read an answer: %w", err)
	}
	return fromWire(&w)
}

func (c *Client) overHTTP(ctx context.Context, r Request) ([]byte, error) {
	o, err := c.owner(ctx, r.Shard)
	if err != nil {
		return nil, err
	}
	if o.address == "" {
		c.forget(r.Shard, o)
		return nil, fmt.Errorf("nobody holds the shard: %w", ErrNotOwner)
	}
	payload, err := c.post(ctx, o.address, r)
	c.count("http", err)
	if !final(err) && !errors.Is(err, ErrRetry) {
		c.forget(r.Shard, o)
	}
	return payload, err
}

func (c *Client) post(ctx context.Context, address string, r Request) ([]byte, error) {
	data, err := c.encode(ctx, r)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+Path, bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", address, err)
	}
	nonce := newNonce()
	req.Header.Set(nonceHeader, nonce)
	req.Header.Set(authHeader, c.signer.sign(asks, nonce, data))
	req.Header.Set("Content-Type", "application/x-protobuf")
	c.tel.propagator.Inject(ctx, propagation.HeaderCarrier(req.Header))
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", address, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(c.maxBytes)+1))
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", address, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask %s: status %d", address, resp.StatusCode)
	}
	if len(body) > c.maxBytes || !c.signer.verify(answers, nonce, body, resp.Header.Get(authHeader)) {
		return nil, fmt.Errorf("answer of %s is not signed by this cluster", address)
	}
	return decodeAnswer(body)
}

// owner gives who is believed to hold a shard; those who ask at once share one query.
func (c *Client) owner(ctx context.Context, s shard.ID) (owner, error) {
	c.mu.Lock()
	o, ok := c.known[s]
	c.mu.Unlock()
	if ok && time.Since(o.at) < ownerAge {
		return o, nil
	}
	ch := c.reads.DoChan(s.String(), func() (any, error) {
		// Not the first asker's context: the others wait for this too.
		qctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), attemptTimeout)
		defer cancel()
		_, address, epoch, err := c.owners.Owner(qctx, s)
		if err != nil {
			return owner{}, err
		}
		o := owner{address: address, epoch: epoch, at: time.Now()}
		c.mu.Lock()
		c.known[s] = o
		c.mu.Unlock()
		return o, nil
	})
	select {
	case res := <-ch:
		if res.Err != nil {
			return owner{}, res.Err
		}
		return res.Val.(owner), nil //nolint:errcheck // see above
	case <-ctx.Done():
		return owner{}, ctx.Err()
	}
}

// forget drops what was believed, unless it has been read again since.
func (c *Client) forget(s shard.ID, o owner) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known[s] == o {
		delete(c.known, s)
	}
}
