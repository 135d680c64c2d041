package bus

import (
	"net/textproto"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/propagation"
)

// Header is a message's header. It is a carrier of trace context. Keys are
// case-sensitive on the wire; those of trace context are canonicalised.
type Header map[string][]string

var _ propagation.TextMapCarrier = Header(nil)

// Get returns the first value of key.
func (h Header) Get(key string) string {
	if v := h[textproto.CanonicalMIMEHeaderKey(key)]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// Set replaces the values of key.
func (h Header) Set(key, value string) {
	h[textproto.CanonicalMIMEHeaderKey(key)] = []string{value}
}

// Keys lists the keys.
func (h Header) Keys() []string {
	keys := make([]string, 0, len(h))
	for k := range h {
		keys = append(keys, k)
	}
	return keys
}

// Message is a message to send.
type Message struct {
	Subject string
	Data    []byte
	Header  Header // may be nil
}

func (m Message) nats() *nats.Msg {
	return &nats.Msg{Subject: m.Subject, Data: m.Data, Header: nats.Header(m.Header)}
}

// Incoming is a message received by a subscription.
type Incoming struct {
	Message
	msg *nats.Msg
	bus *Bus
}

// WantsReply says whether the sender waits for an answer.
func (in *Incoming) WantsReply() bool { return in.msg.Reply != "" }

// Respond answers a request. It may be called from any goroutine, once.
func (in *Incoming) Respond(data []byte, header Header) error {
	return in.bus.Publish(Message{Subject: in.msg.Reply, Data: data, Header: header})
}

// StreamMessage is a message read from a stream.
type StreamMessage struct {
	Message
	// Seq is its place in the stream: it grows by one with each message, unless
	// the stream was made anew.
	Seq uint64
}
