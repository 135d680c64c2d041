package follow

import (
	"context"
	"sync"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/bus"
	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// The stream that carries the log.
const (
	StreamName    = "log"
	subjectPrefix = "log."
)

// LogStream describes the stream: a fast path with a short memory.
func LogStream() bus.Stream {
	return bus.Stream{
		Name: StreamName, Subjects: []string{subjectPrefix + ">"}, MaxAge: 2 * time.Minute, MaxBytes: 256 << 20, Memory: true,
	}
}

// BusStream reads the log's stream from the bus, once for all who subscribe. It is safe for concurrent use.
type BusStream struct {
	bus *bus.Bus

	mu       sync.RWMutex // guards what follows; held while a message is delivered
	hearers  map[int]func(Message)
	next     int
	consumer *bus.Consumer // while there are hearers
}

// NewBusStream makes one.
func NewBusStream(b *bus.Bus) *BusStream { return &BusStream{bus: b, hearers: map[int]func(Message){}} }

// Subscribe implements Stream.
func (s *BusStream) Subscribe(ctx context.Context, deliver func(Message)) error {
	s.mu.Lock()
	me := s.next
	s.next++
	s.hearers[me] = deliver
	if s.consumer == nil {
		s.consumer = s.bus.Consume(bus.ConsumerConfig{Stream: StreamName, Handle: s.deliver})
	}
	s.mu.Unlock()
	<-ctx.Done()
	s.mu.Lock()
	delete(s.hearers, me)
	var unused *bus.Consumer
	if len(s.hearers) == 0 {
		unused, s.consumer = s.consumer, nil
	}
	s.mu.Unlock()
	if unused != nil {
		unused.Stop()
	}
	return ctx.Err()
}

func (s *BusStream) deliver(m bus.StreamMessage) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, hear := range s.hearers {
		hear(Message{Seq: m.Seq, Data: m.Data})
	}
}

// ackWait is how long an acknowledgement is waited for; whoever waits has given up before.
const ackWait = time.Second

// BusPublisher puts the log's messages on the bus. It is a commit.Publisher, and a lifecycle service.
type BusPublisher struct {
	bus   *bus.Bus
	tasks *lifecycle.Tasks
	queue chan unacked
}

type unacked struct {
	ack   *bus.Ack
	since time.Time
	acked func(error)
}

// NewBusPublisher makes one.
func NewBusPublisher(b *bus.Bus) *BusPublisher {
	return &BusPublisher{bus: b, tasks: lifecycle.NewTasks(context.Background()), queue: make(chan unacked, 4096)}
}

// Start implements lifecycle.Service.
func (p *BusPublisher) Start(context.Context) error {
	p.tasks.Go(p.collect)
	return nil
}

// Stop implements lifecycle.Service.
func (p *BusPublisher) Stop(ctx context.Context) error { return p.tasks.StopWithin(ctx) }

// Publish implements commit.Publisher.
func (p *BusPublisher) Publish(s shard.ID, message []byte, acked func(error)) {
	ack, err := p.bus.PublishStream(bus.Message{Subject: subjectPrefix + s.String(), Data: message})
	if err != nil {
		acked(err)
		return
	}
	select {
	case p.queue <- unacked{ack, time.Now(), acked}:
	default: // nobody is told; the caller does not wait for ever
	}
}

// collect tells of acknowledgements, which come in the order of the messages.
func (p *BusPublisher) collect(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case u := <-p.queue:
			wctx, cancel := context.WithDeadline(ctx, u.since.Add(ackWait))
			_, err := u.ack.Wait(wctx)
			cancel()
			u.acked(err)
		}
	}
}
