package presence

import (
	"context"
	"time"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
)

// Status is what is shown of a user.
type Status struct {
	Presence Presence
	Message  string
	// LastActive is zero for one of whom nothing is known.
	LastActive time.Time
}

const keyPrefix = "presence:"

// Set sets a user's presence, on all devices until they ask for something else.
func (h *Hub) Set(ctx context.Context, user, dev string, p Presence, message string) {
	if h.Disabled {
		return
	}
	kept := h.kept(ctx, user)
	h.mu.Lock()
	l, d := h.enter(user, dev, kept)
	now := h.Now()
	d.seen = now
	l.ask(p, message)
	if p == Online || l.active.IsZero() {
		l.active = now
	}
	l.asked = true
	h.tell(user, true)
	s := Status{Presence: l.presence(now), Message: message, LastActive: l.active}
	h.mu.Unlock()
	h.keep(ctx, user, s) // before the answer, so that any worker knows it after it
}

// Get tells a user's presence: what is seen here, or was heard, or was kept.
func (h *Hub) Get(ctx context.Context, user string) Status {
	if h.Disabled {
		return Status{}
	}
	h.mu.Lock()
	if l := h.here[user]; l != nil {
		s := Status{Presence: l.presence(h.Now()), Message: l.status, LastActive: l.active}
		// Another may see more of the user.
		if k := h.known[user]; k != nil && k.origin != h.Origin && k.presence > s.Presence {
			s = k.shown()
		}
		h.mu.Unlock()
		return s
	}
	var known *Status
	if k := h.known[user]; k != nil {
		s := k.shown()
		known = &s
	}
	h.mu.Unlock()
	if known != nil {
		return *known
	}
	s, ok := h.load(ctx, user)
	if ok && s.Presence != Offline && h.Now().Sub(s.LastActive) > idleAfter+forgetAfter {
		s.Presence = Offline // whoever knew it is no more
	}
	return s
}

func (s *state) shown() Status {
	return Status{Presence: s.presence, Message: s.status, LastActive: time.UnixMilli(s.lastActive)}
}

// keep stores a status where all workers find it. That it fails costs nothing but the memory of it.
func (h *Hub) keep(ctx context.Context, user string, s Status) {
	b, err := entry.EncodePresenceState(&entry.PresenceState{
		UserId: user, Presence: toWire(s.Presence), StatusMsg: s.Message, LastActive: s.LastActive.UnixMilli(),
	})
	if err == nil {
		err = h.Store.Set(ctx, keyPrefix+user, b, keptFor)
	}
	if err != nil {
		h.Log.Debug("presence was not kept", "error", err)
	}
}

func (h *Hub) load(ctx context.Context, user string) (Status, bool) {
	b, ok, err := h.Store.Get(ctx, keyPrefix+user)
	if err != nil || !ok {
		return Status{}, false
	}
	p, err := entry.DecodePresenceState(b)
	if err != nil {
		return Status{}, false
	}
	return Status{Presence: fromWire(p), Message: p.StatusMsg, LastActive: time.UnixMilli(p.LastActive)}, true
}

func fromWire(p *entry.PresenceState) Presence {
	switch p.Presence {
	case entry.PresenceOnline:
		return Online
	case entry.PresenceUnavailable:
		return Unavailable
	default:
		return Offline
	}
}

func toWire(p Presence) entry.PresenceValue {
	switch p {
	case Online:
		return entry.PresenceOnline
	case Unavailable:
		return entry.PresenceUnavailable
	case Offline:
	}
	return entry.PresenceOffline
}

// content is the content of the event that tells a user's presence.
func (s *state) content(now time.Time) []byte { return s.shown().Append(nil, now) }

// Append appends the status as the specification shows it.
func (s Status) Append(b []byte, now time.Time) []byte {
	b = append(b, `{"presence":"`...)
	b = append(append(b, s.Presence.String()...), '"')
	if s.LastActive.UnixMilli() > 0 {
		b = append(b, `,"last_active_ago":`...)
		b = canonjson.AppendInt(b, max(0, now.Sub(s.LastActive).Milliseconds()))
	}
	if s.Presence != Offline {
		b = append(b, `,"currently_active":`...)
		if s.Presence == Online {
			b = append(b, `true`...)
		} else {
			b = append(b, `false`...)
		}
	}
	if s.Message != "" {
		b = append(b, `,"status_msg":`...)
		b = canonjson.AppendString(b, s.Message)
	}
	return append(b, '}')
}
