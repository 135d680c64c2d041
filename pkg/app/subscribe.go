package app

import (
	"context"
	"fmt"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/bus"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
)

// subscribing bounds how long a worker that starts waits for a subscription.
const subscribing = 5 * time.Second

// subscribe has f told what workers tell each other on a subject, until this one closes. What is told so may be lost.
func (b *base) subscribe(subject string, f func(data []byte)) error {
	ctx, cancel := context.WithTimeout(context.Background(), subscribing)
	defer cancel()
	sub, err := b.bus.Subscribe(ctx, subject, func(in *bus.Incoming) { f(in.Data) })
	if err != nil {
		return fmt.Errorf("subscribe to %s: %w", subject, err)
	}
	b.onClose(sub.Stop)
	return nil
}

// ephemeralEar is who tells others of what passes and is not in the log.
type ephemeralEar interface {
	HearTyping(typing *entry.Typing)
	HearPresence(b *entry.PresenceBatch)
}

// subscribeEphemeral has it told to out: who types, and, if this server has presence, who is online.
func (b *base) subscribeEphemeral(out ephemeralEar) error {
	err := b.subscribe(entry.EphemeralSubjects, func(data []byte) {
		if t, err := entry.DecodeTyping(data); err == nil {
			out.HearTyping(t)
		}
	})
	if err != nil || !b.cfg.Presence.Enabled {
		return err
	}
	return b.subscribe(entry.PresenceSubject, func(data []byte) {
		if p, err := entry.DecodePresence(data); err == nil {
			out.HearPresence(p)
		}
	})
}
