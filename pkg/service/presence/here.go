package presence

import (
	"context"
	"time"
)

// local is a user who syncs here.
type local struct {
	devices map[string]*device
	status  string
	active  time.Time // when the user last did something
	told    time.Time // when this process last said something of the user
	asked   bool      // the user set it since then
}

type device struct {
	wants Presence
	syncs int       // that wait just now
	seen  time.Time // the end of the last
}

func (d *device) live(now time.Time) bool { return d.syncs > 0 || now.Sub(d.seen) < goneAfter }

// presence is the highest of the devices'.
func (l *local) presence(now time.Time) Presence {
	p := Offline
	for _, d := range l.devices {
		if d.live(now) {
			p = max(p, d.wants)
		}
	}
	if p == Online && now.Sub(l.active) >= idleAfter {
		p = Unavailable
	}
	return p
}

// ask has all devices want what the user asked for.
func (l *local) ask(p Presence, message string) {
	for _, d := range l.devices {
		d.wants = p
	}
	l.status = message
}

// Sync notes that a device syncs, and what it wants to be shown as; the returned function, that the sync has ended. A device that
// asks to be offline is not counted: that it syncs makes nobody online.
func (h *Hub) Sync(ctx context.Context, user, dev string, wants Presence) (done func()) {
	if h.Disabled || wants == Offline {
		return func() {}
	}
	kept := h.kept(ctx, user)
	h.mu.Lock()
	defer h.mu.Unlock()
	l, d := h.enter(user, dev, kept)
	now := h.Now()
	if wants == Online && (d.wants != Online || !d.live(now)) {
		l.active = now
	}
	d.wants = wants
	d.syncs++
	s := h.known[user]
	switch {
	case s == nil || s.presence != l.presence(now):
		h.tell(user, false)
	case s.origin != h.Origin && now.Sub(l.told) >= claimEvery:
		h.tell(user, true)
	}
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		d.syncs--
		d.seen = h.Now()
	}
}

// kept gives what was known of a user when last somebody did, if the user is new here.
func (h *Hub) kept(ctx context.Context, user string) *Status {
	h.mu.Lock()
	unknown := h.here[user] == nil && h.known[user] == nil
	h.mu.Unlock()
	if !unknown {
		return nil
	}
	s, ok := h.load(ctx, user)
	if !ok {
		return nil
	}
	return &s
}

// enter gives what is held of a user and a device who are here. Under mu.
func (h *Hub) enter(user, dev string, kept *Status) (*local, *device) {
	l := h.here[user]
	if l == nil {
		l = &local{devices: make(map[string]*device)}
		if s := h.known[user]; s != nil {
			l.status, l.active = s.status, time.UnixMilli(s.lastActive)
		} else if kept != nil {
			l.status, l.active = kept.Message, kept.LastActive
		}
		h.here[user] = l
		h.nudge()
	}
	d := l.devices[dev]
	if d == nil {
		d = &device{}
		l.devices[dev] = d
	}
	return l, d
}

// Active notes that a user who may be here did something.
func (h *Hub) Active(user string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.here[user]
	if l == nil {
		return
	}
	l.active = h.Now()
	if s := h.known[user]; s != nil && s.presence != l.presence(l.active) {
		h.tell(user, false)
	}
}

// Moved notes that a user who may be here came into a room, or left one.
func (h *Hub) Moved(user string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.here[user] != nil {
		h.tell(user, true)
	}
}

// tell has a user told of; whatever others say, if force. Under mu.
func (h *Hub) tell(user string, force bool) {
	h.dirty[user] = h.dirty[user] || force
	h.nudge()
}

// sweep looks at everybody here: who is gone, idle, or to be said again.
func (h *Hub) sweep() {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.Now()
	for user, l := range h.here {
		for name, d := range l.devices {
			if !d.live(now) {
				delete(l.devices, name)
			}
		}
		s, p := h.known[user], l.presence(now)
		switch {
		case s == nil, s.presence != p:
			h.tell(user, false)
		case len(l.devices) == 0:
			delete(h.here, user)
		case p != Offline && s.origin == h.Origin && now.Sub(l.told) >= againEvery:
			h.tell(user, false)
		}
		if len(l.devices) == 0 && s != nil && s.origin != h.Origin { // somebody else sees the user
			delete(h.here, user)
			delete(h.dirty, user)
		}
	}
}
