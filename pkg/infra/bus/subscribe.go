package bus

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"
)

// Limits of what a subscription holds while its handler is behind; beyond
// them messages are dropped, which is counted and logged.
const (
	pendingMessages = 65536
	pendingBytes    = 64 << 20
)

// Subscription delivers messages to its handler until Stop.
type Subscription struct {
	bus  *Bus
	sub  *nats.Subscription
	once sync.Once
	done chan struct{} // closed when the handler will not run again
}

// Subscribe calls handle for each message on subject (which may have
// wildcards), one after the other. It survives reconnection. It returns when
// the server knows of it, so that what anyone sends afterwards arrives; while
// the connection is down it returns at once and takes effect when that comes
// back.
func (b *Bus) Subscribe(ctx context.Context, subject string, handle func(*Incoming)) (*Subscription, error) {
	sub, err := b.nc.Subscribe(subject, func(m *nats.Msg) {
		handle(&Incoming{
			Message: Message{Subject: m.Subject, Data: m.Data, Header: Header(m.Header)},
			msg:     m, bus: b,
		})
	})
	if err != nil {
		return nil, fmt.Errorf("subscribe to %s: %w", subject, classify(err))
	}
	s := &Subscription{bus: b, sub: sub, done: make(chan struct{})}
	sub.SetClosedHandler(func(string) { close(s.done) })
	if err := sub.SetPendingLimits(pendingMessages, pendingBytes); err != nil {
		s.Stop()
		return nil, fmt.Errorf("subscribe to %s: %w", subject, err)
	}
	if b.session() != nil {
		if err := b.Flush(ctx); err != nil && !errors.Is(err, ErrNotConnected) {
			s.Stop()
			return nil, fmt.Errorf("subscribe to %s: %w", subject, err)
		}
	}
	return s, nil
}

// Stop ends the subscription, handles what has already come, and waits for the
// handler. When it returns the server knows, and tells later requests that
// nobody responds. It is idempotent, and must not be called from the handler.
func (s *Subscription) Stop() {
	s.once.Do(func() {
		session := s.bus.session()
		if session == nil || s.sub.Drain() != nil {
			_ = s.sub.Unsubscribe() // fails only if it has ended already
			return
		}
		select {
		case <-s.done:
		case <-session.Done():
			_ = s.sub.Unsubscribe()
		}
	})
	<-s.done
}
