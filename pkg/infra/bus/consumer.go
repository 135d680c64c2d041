package bus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
)

// ConsumerConfig describes a consumer of a stream.
type ConsumerConfig struct {
	Stream string
	// Subjects to deliver; empty means all of the stream.
	Subjects []string
	// Handle gets each message, one after the other, in the stream's order.
	Handle func(StreamMessage)
	// Restarted is called, between messages, when the consumer begins to read
	// and whenever it begins anew: something may have been missed before. The
	// reason is nil the first time. It may be nil.
	Restarted func(reason error)
}

// Consumer delivers a stream's messages in order, without acknowledgement,
// from the moment it began. After an interruption it goes on where it was, as
// far as the stream still holds that; if the stream was made anew, from its
// beginning. So a message may be missed, which StreamMessage.Seq and Restarted
// show, and after the loss of a stream sequence numbers begin again.
type Consumer struct {
	bus   *Bus
	cfg   ConsumerConfig
	tasks *lifecycle.Tasks
	ready chan struct{} // closed when it first reads
	once  sync.Once

	// Owned by the goroutine that runs.
	next    uint64 // sequence to read next; 0: not yet known
	created time.Time
}

const (
	consumerHeartbeat = time.Second
	consumerRetry     = 100 * time.Millisecond
	// What is asked for in advance.
	consumerAhead      = 256
	consumerAheadBytes = 16 << 20
	// The server forgets a consumer that does not ask for so long.
	consumerInactive = time.Minute
)

// Consume starts a consumer. It never fails because the connection is down or
// the stream missing: it begins when they are there. Stop it before the Bus.
func (b *Bus) Consume(cfg ConsumerConfig) *Consumer {
	if cfg.Restarted == nil {
		cfg.Restarted = func(error) {}
	}
	c := &Consumer{
		bus: b, cfg: cfg, ready: make(chan struct{}),
		tasks: lifecycle.NewTasks(b.tasks.Context()),
	}
	c.tasks.Go(c.run)
	return c
}

// Ready is closed when the consumer first reads: what is published from then
// on is delivered.
func (c *Consumer) Ready() <-chan struct{} { return c.ready }

// Stop ends the consumer and waits for its handler. It is idempotent, and must
// not be called from the handler.
func (c *Consumer) Stop() { c.tasks.Stop() }

func (c *Consumer) run(ctx context.Context) {
	var reason error // of the next restart; nil the first time
	for ctx.Err() == nil {
		err := c.session(ctx, reason)
		if ctx.Err() != nil {
			return
		}
		if !errors.Is(err, ErrNotConnected) {
			c.bus.log.Debug("stream consumer interrupted", "stream", c.cfg.Stream, "error", err)
		}
		if c.next != 0 {
			reason = err
			c.bus.metrics.restarts.Inc()
		}
		if errors.Is(err, ErrNoStream) {
			c.bus.repairStreams()
		}
		if up, _ := c.bus.Connected(); up {
			select {
			case <-ctx.Done():
			case <-time.After(consumerRetry):
			}
		}
	}
}

// session reads through one server-side consumer until something is wrong.
func (c *Consumer) session(ctx context.Context, reason error) error {
	if err := c.bus.AwaitConnected(ctx); err != nil {
		return err
	}
	session := c.bus.session()
	if session == nil {
		return ErrNotConnected
	}
	ctx, cancel := withSession(ctx, session)
	defer cancel()
	cons, err := c.create(ctx)
	if err != nil {
		return c.bus.because(ctx, err)
	}
	defer c.remove(ctx, cons)
	iter, err := cons.Messages(
		jetstream.PullMaxMessagesWithBytesLimit(consumerAhead, consumerAheadBytes),
		jetstream.PullExpiry(10*time.Second),
		jetstream.PullHeartbeat(consumerHeartbeat),
		jetstream.WithMessagesErrOnMissingHeartbeat(true),
	)
	if err != nil {
		return c.bus.because(ctx, err)
	}
	defer iter.Stop()
	c.cfg.Restarted(reason)
	c.once.Do(func() { close(c.ready) })
	for expect := uint64(1); ; expect++ {
		m, err := iter.Next(jetstream.NextContext(ctx))
		if err != nil {
			return c.bus.because(ctx, err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("metadata: %w", err)
		}
		if meta.Sequence.Consumer != expect {
			return fmt.Errorf("message %d of the consumer came in place of %d", meta.Sequence.Consumer, expect)
		}
		c.next = meta.Sequence.Stream + 1
		c.cfg.Handle(StreamMessage{
			Message: Message{Subject: m.Subject(), Data: m.Data(), Header: Header(m.Headers())},
			Seq:     meta.Sequence.Stream,
		})
	}
}

// create makes a consumer on the server that begins at next.
func (c *Consumer) create(ctx context.Context) (jetstream.Consumer, error) {
	stream, err := c.bus.js.Stream(ctx, c.cfg.Stream)
	if err != nil {
		return nil, err
	}
	info := stream.CachedInfo()
	switch {
	case c.next == 0:
		c.next = info.State.LastSeq + 1
	case !info.Created.Equal(c.created) || info.State.LastSeq+1 < c.next:
		c.next = 1 // another stream of the same name, all of it new to us
	}
	c.created = info.Created
	return stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
		FilterSubjects: c.cfg.Subjects,
		DeliverPolicy:  jetstream.DeliverByStartSequencePolicy, OptStartSeq: c.next,
		AckPolicy:     jetstream.AckNonePolicy,
		MaxDeliver:    1,
		MemoryStorage: true, Replicas: 1,
		InactiveThreshold: consumerInactive,
	})
}

// remove frees the consumer on the server, which would also forget it by itself.
func (c *Consumer) remove(ctx context.Context, cons jetstream.Consumer) {
	if c.bus.session() == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = c.bus.js.DeleteConsumer(ctx, c.cfg.Stream, cons.CachedInfo().Name)
}
