package room

import (
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/eventauth"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/stateres"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// A room that has more forward extremities than an event names is not in the state that the event follows. Whoever receives the event computes
// the state before it from what it names and from nothing else, and so does this server: the event is authorised by that state too, its auth
// events are taken from there, and it takes its place as one that was received does. Each such event joins some of the extremities, until all are.

// apart is where an event stands that names only some of the room's extremities.
type apart struct {
	*acceptor
	prev   []*node
	before stateres.State
}

// apart resolves the states after the extremities that an event is to name.
func (d *draft) apart(prev []tip) (*apart, error) {
	p := &apart{acceptor: d.acceptor(&accepted{rows: map[id.EventID]*roomdb.StoredEvent{}})}
	for _, t := range prev {
		n := &node{held: &held{nid: t.nid}, after: t.snaps, known: true}
		p.prev, p.nodes[t.id] = append(p.prev, n), n
	}
	var err error
	p.before, err = p.stateOf(p.prev)
	return p, err
}

// stateOf gives the state that follows events.
func (a *acceptor) stateOf(prev []*node) (stateres.State, error) {
	after := make([]snapshots, len(prev))
	for i, n := range prev {
		after[i] = n.after
	}
	return a.resolve(after)
}

// allowed checks an event by the room's current state.
func (d *draft) allowed(e *eventauth.Reduced) error {
	st, _ := eventauth.Select(d.r.rules, e, func(k eventauth.TypeKey) *eventauth.Reduced {
		h := d.at(k.Type, k.StateKey)
		if h == nil {
			return nil
		}
		return h.red
	})
	if d.lacks() {
		return errLacks
	}
	if rule := eventauth.Decide(d.r.rules, e, &st); rule != eventauth.Allowed {
		return d.refusal(rule)
	}
	return nil
}

// addApart gives an event its place that does not join all extremities.
func (d *draft) addApart(w *want, e *event.Event, auth []*held, at *apart) error {
	at.device, at.txn = w.device, w.txn
	if w.redacts != nil && w.redacts.nid != 0 {
		target := d.event(w.redacts.id)
		if d.lacks() {
			return errLacks
		}
		at.given.rows[w.redacts.id] = target
	}
	h := at.holdNew(d.r.term.nid(), e, nil)
	for _, x := range auth {
		h.auth = append(h.auth, x.nid)
	}
	return at.put(h, at.prev, at.stored(at.prev, at.before), FateAccepted, false)
}
