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

// named gives extremities as an acceptor takes them.
func (d *draft) named(prev []tip) (*acceptor, []*node) {
	a := d.acceptor(&accepted{rows: map[id.EventID]*roomdb.StoredEvent{}})
	nodes := make([]*node, len(prev))
	for i, t := range prev {
		nodes[i] = &node{held: &held{nid: t.nid}, after: t.snaps, known: true}
		a.nodes[t.id] = nodes[i]
	}
	return a, nodes
}

// stateOf gives the state that follows events.
func (a *acceptor) stateOf(prev []*node) (stateres.State, error) {
	states := make([]stateres.State, len(prev))
	for i, n := range prev {
		states[i] = n.after.state()
	}
	return a.resolve(states)
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
func (d *draft) addApart(w *want, e *event.Event, auth []*held, prev []tip) error {
	a, nodes := d.named(prev)
	a.device, a.txn = w.device, w.txn
	if w.redacts != nil && w.redacts.nid != 0 {
		target := d.event(w.redacts.id)
		if d.lacks() {
			return errLacks
		}
		a.given.rows[w.redacts.id] = target
	}
	before, err := a.before(nodes)
	if err != nil {
		return err
	}
	h := a.holdNew(d.r.term.nid(), e, nil)
	for _, x := range auth {
		h.auth = append(h.auth, x.nid)
	}
	return a.put(h, nodes, before, FateAccepted, false)
}
