package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// streamRetry is how long after a failure to make the streams it is tried again.
const streamRetry = 250 * time.Millisecond

func (s Stream) config() jetstream.StreamConfig {
	c := jetstream.StreamConfig{
		Name: s.Name, Subjects: s.Subjects, MaxAge: s.MaxAge, MaxBytes: s.MaxBytes,
		Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld,
		Storage: jetstream.FileStorage, Replicas: max(1, s.Replicas),
	}
	if s.Memory {
		c.Storage = jetstream.MemoryStorage
	}
	if s.MaxBytes == 0 {
		c.MaxBytes = -1
	}
	return c
}

// EnsureStreams makes the streams that Connect was given, or brings them to
// their configuration.
func (b *Bus) EnsureStreams(ctx context.Context) error {
	session := b.session()
	if session == nil {
		return fmt.Errorf("ensure streams: %w", ErrNotConnected)
	}
	ctx, cancel := withSession(ctx, session)
	defer cancel()
	for _, s := range b.streams {
		if _, err := b.js.CreateOrUpdateStream(ctx, s.config()); err != nil {
			return fmt.Errorf("ensure stream %s: %w", s.Name, b.because(ctx, err))
		}
	}
	return nil
}

// repairStreams has the streams looked after soon.
func (b *Bus) repairStreams() {
	select {
	case b.repair <- struct{}{}:
	default:
	}
}

// keepStreams makes the streams after each connection and whenever one turned
// out to be missing.
func (b *Bus) keepStreams(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.repair:
		}
		err := b.EnsureStreams(ctx)
		if err == nil || errors.Is(err, ErrNotConnected) || ctx.Err() != nil {
			continue // when not connected, the next connection asks again
		}
		b.metrics.errors.Inc()
		b.log.Warn("nats", "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(streamRetry):
			b.repairStreams()
		}
	}
}

// firstStreams makes the streams for Connect, if the server is there: then they
// exist when Connect returns.
func (b *Bus) firstStreams(ctx context.Context) {
	select {
	case <-b.repair:
	default:
		return // not connected
	}
	if err := b.EnsureStreams(ctx); err != nil {
		// NATS may be up and JetStream not yet, in a cluster that starts.
		b.log.Warn("nats", "error", err)
		b.repairStreams()
	}
}

// Ack is the acknowledgement, to come, of a message published to a stream.
type Ack struct {
	bus     *Bus
	future  jetstream.PubAckFuture
	session context.Context
}

// PublishStream sends m to the stream that takes its subject and does not wait
// for the acknowledgement, but for a full window of them at most 50 ms.
// Messages from one goroutine are stored in the order of the calls.
func (b *Bus) PublishStream(m Message) (*Ack, error) {
	session := b.session()
	if session == nil {
		return nil, fmt.Errorf("publish %s: %w", m.Subject, ErrNotConnected)
	}
	// Without retries: a retried message would come after those sent since.
	f, err := b.js.PublishMsgAsync(m.nats(), jetstream.WithRetryAttempts(0), jetstream.WithStallWait(stallWait))
	if err != nil {
		return nil, fmt.Errorf("publish %s: %w", m.Subject, classify(err))
	}
	return &Ack{bus: b, future: f, session: session}, nil
}

// Wait returns the message's place in the stream when the stream has it. It
// fails when ctx ends, the connection is lost, or the acknowledgement does not
// come in time; the message may have been stored all the same.
func (a *Ack) Wait(ctx context.Context) (seq uint64, err error) {
	subject := a.future.Msg().Subject
	select {
	case ack := <-a.future.Ok():
		return ack.Sequence, nil
	case err := <-a.future.Err():
		err = classify(err)
		if errors.Is(err, ErrNoStream) || errors.Is(err, ErrNoResponders) {
			a.bus.repairStreams()
			err = fmt.Errorf("%w: %w", ErrNoStream, err)
		}
		return 0, fmt.Errorf("publish %s: %w", subject, err)
	case <-a.session.Done():
		select { // an answer that came before the loss
		case ack := <-a.future.Ok():
			return ack.Sequence, nil
		default:
		}
		return 0, fmt.Errorf("publish %s: %w", subject, ErrNotConnected)
	case <-ctx.Done():
		return 0, fmt.Errorf("publish %s: %w", subject, ctx.Err())
	}
}

// PublishBatch sends the messages in order and waits until the stream has them
// all. On an error any of them may have been stored or not.
func (b *Bus) PublishBatch(ctx context.Context, msgs []Message) error {
	acks := make([]*Ack, 0, len(msgs))
	for _, m := range msgs {
		a, err := b.PublishStream(m)
		if err != nil {
			return err
		}
		acks = append(acks, a)
	}
	for _, a := range acks {
		if _, err := a.Wait(ctx); err != nil {
			return err
		}
	}
	return nil
}
