package room

import (
	"context"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/eventauth"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// view is what a decision sees of a room: its state as it will be when all that is pending is committed, and facts from
// outside. What it is asked for and does not have it answers with nothing and notes down: the decision is then void, and made
// again when that was loaded.
type view struct {
	r     *live
	over  map[eventauth.TypeKey]*held // state events that the decision's own events made
	facts map[fact]any
	now   int64 // ms
	needs needs
	// isNew says that the room is being made: what is not in over is not there.
	isNew bool
}

// needs is what a view was asked for and does not have.
type needs struct {
	entries []eventauth.TypeKey
	names   []string
	facts   []fact
	events  []shard.Nid // events whose entry in the state is not known
	chains  []shard.Nid // events that are needed with all their auth events
}

func (v *view) lacks() bool {
	n := &v.needs
	return len(n.entries) > 0 || len(n.names) > 0 || len(n.facts) > 0 || len(n.events) > 0 || len(n.chains) > 0
}

// fact is a question to the database. Its type is comparable, and its answer does not change while a command is decided.
type fact interface {
	load(ctx context.Context, r *live) (any, error)
}

// ask gives the answer to a question, the zero value if it is not there yet.
func ask[T any](v *view, f fact) (answer T) {
	a, ok := v.facts[f]
	if !ok {
		v.needs.facts = append(v.needs.facts, f)
		return answer
	}
	answer, _ = a.(T) // what a type of fact loads is of one type
	return answer
}

func (v *view) rules() *roomver.Rules { return v.r.rules }

func (v *view) server() id.ServerName { return v.r.term.host.Server }

func (v *view) local(user id.UserID) bool { return user.Server() == v.server() }

// at gives the state event at a type and key, nil if there is none.
func (v *view) at(typ, key string) *held {
	k := eventauth.TypeKey{Type: typ, StateKey: key}
	if h, ok := v.over[k]; ok {
		return h
	}
	if v.isNew {
		return nil
	}
	h, ok := v.r.cached[k]
	if !ok {
		v.needs.entries = append(v.needs.entries, k)
	}
	return h
}

// content gives the content of the state event at a type and key, nil if there is none.
func (v *view) content(typ, key string) []byte {
	h := v.at(typ, key)
	if h == nil {
		return nil
	}
	return h.ev.Content()
}

// membership gives a user's membership, "" for none.
func (v *view) membership(user id.UserID) string {
	h := v.at(event.TypeMember, string(user))
	if h == nil {
		return ""
	}
	return h.ev.Membership()
}

// power gives what is needed to compare power levels.
func (v *view) power() *eventauth.AuthState {
	var st eventauth.AuthState
	if h := v.at(event.TypeCreate, ""); h != nil {
		st.Create = h.red.Create()
	}
	if h := v.at(event.TypePowerLevels, ""); h != nil {
		st.Power = h.red.PowerLevels()
	}
	return &st
}

// eventFact asks for an event of the room by its id; the answer is nil if there is none.
type eventFact struct{ id id.EventID }

func (f eventFact) load(ctx context.Context, r *live) (any, error) {
	rows, err := r.term.host.DB.EventsByID(ctx, r.nid, []string{string(f.id)})
	if err != nil || len(rows) == 0 {
		return (*roomdb.StoredEvent)(nil), err
	}
	return &rows[0], nil
}

// event gives an event of the room that is stored, nil if there is none.
func (v *view) event(e id.EventID) *roomdb.StoredEvent {
	return ask[*roomdb.StoredEvent](v, eventFact{e})
}

// plan is what a decision wants done. If it has neither events, rows nor receipts, there is nothing to do, and answer says so.
type plan struct {
	events []want
	// reply is the index of the event that is answered.
	reply    int
	receipts []receiptMove
	// rows are written besides; they have no entries.
	rows   []entry.Row
	answer Answer
	// note is of the only event, if that is an annotation.
	note *note
	// after is called after the commit.
	after func(*live)
}

// want is an event to be made on the forward extremities.
type want struct {
	typ     string
	key     *string // nil: not a state event
	sender  id.UserID
	content []byte // canonical
	ts      int64  // ms; 0: now
	device  id.DeviceID
	txn     string
	// redacts is the event that this one redacts, rightly.
	redacts *redactee
}

type redactee struct {
	id  id.EventID
	nid shard.Nid
}

// by gives an event its author.
func (w want) by(o Origin) want {
	w.sender, w.device, w.txn, w.ts = o.User, o.Device, o.Txn, o.TS
	return w
}
