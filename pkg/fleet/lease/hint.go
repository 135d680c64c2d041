package lease

import (
	"context"

	"github.com/heddle-im/heddle/pkg/infra/bus"
)

// hintSubject carries no facts: whoever hears it looks at the rows.
const hintSubject = "fleet.lease"

// BusHint is a Hint over NATS. While NATS is down nobody is told, and polling does.
type BusHint struct {
	bus  *bus.Bus
	self []byte
	sub  *bus.Subscription
	told chan struct{}
}

// NewBusHint subscribes; the caller must Stop it after the Engine. self is a name that no other worker has, so that its own
// hints are not heard.
func NewBusHint(ctx context.Context, b *bus.Bus, self string) (*BusHint, error) {
	h := &BusHint{bus: b, self: []byte(self), told: make(chan struct{}, 1)}
	var err error
	h.sub, err = b.Subscribe(ctx, hintSubject, func(in *bus.Incoming) {
		if string(in.Data) == self {
			return
		}
		select {
		case h.told <- struct{}{}:
		default: // one is enough
		}
	})
	if err != nil {
		return nil, err
	}
	return h, nil
}

// Tell implements Hint.
func (h *BusHint) Tell() { _ = h.bus.Publish(bus.Message{Subject: hintSubject, Data: h.self}) }

// Told implements Hint.
func (h *BusHint) Told() <-chan struct{} { return h.told }

// Stop ends the subscription.
func (h *BusHint) Stop() { h.sub.Stop() }
