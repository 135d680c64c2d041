package room

import (
	"errors"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/eventauth"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/relation"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/matrix/stateres"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// draft is what one command makes: the rows and entries of its proposal, and the head that the room has afterwards.
type draft struct {
	view
	head     head
	rows     []entry.Row
	entries  []entry.Entry
	made     []madeEvent // by index of their entries, which come first
	receipts map[id.UserID][]roomdb.ReceiptRow
	fresh    []string    // the names that are given nids with it
	redacted []shard.Nid // events that it redacts
	// unrelated are the same events, which lose their relations; note is of the annotation that is the draft's only event.
	unrelated []id.EventID
	note      *note
	counts    counts
	// byNid are the state events that are in memory, by whoever takes events into the draft.
	byNid map[shard.Nid]*held
	// said: it takes in an event that is no answer to many forward extremities.
	said bool
	// room is how many positions are left free before the draft's only entry.
	room int64
}

func newDraft(r *live, facts map[fact]any) *draft {
	return &draft{view: view{r: r, facts: facts, now: r.term.host.Now().UnixMilli()}, head: r.head}
}

// errLacks says that the view was asked for something that has to be loaded.
var errLacks = errors.New("not in memory")

func (d *draft) empty() bool { return len(d.rows) == 0 && len(d.entries) == 0 }

func (d *draft) answer(p *plan) Answer {
	if len(p.events) == 0 {
		return p.answer
	}
	return Answer{Event: d.made[p.reply].id, Room: d.r.id}
}

// realise makes what a plan wants.
func (d *draft) realise(c Command, p *plan) error {
	switch c := c.(type) {
	case *Accept:
		if err := d.accept(c, p); err != nil {
			return err
		}
		return d.rejoin()
	case *Outliers:
		return d.outliers(c, p)
	case *Enter:
		if err := d.enter(c, p); err != nil {
			return err
		}
		return d.rejoin()
	case *Backfill:
		return d.backfill(c, p)
	case *OutOfBand:
		return d.outOfBand(c, p)
	case *Template:
		return d.template(c, p)
	case *InviteDraft:
		return d.inviteDraft(p)
	}
	if sign, err := d.toSign(p); err != nil || sign || d.lacks() {
		return err
	}
	for i := range p.events {
		if err := d.add(&p.events[i]); err != nil {
			return err
		}
	}
	for i := range p.receipts {
		if err := d.move(&p.receipts[i]); err != nil {
			return err
		}
	}
	d.rows = append(d.rows, p.rows...)
	d.note = p.note
	return nil
}

// atom gives a name's nid, and brings the atom's row along if it is not known to be stored.
func (d *draft) atom(name string) shard.Nid {
	nid, stored, known := d.r.term.atoms.intern(name, d.r.term.nid)
	switch {
	case !known:
		d.needs.names = append(d.needs.names, name)
	case !stored && !slices.Contains(d.fresh, name):
		d.fresh = append(d.fresh, name)
		d.rows = append(d.rows, &roomdb.Atom{Nid: nid, Name: name})
	}
	return nid
}

// add makes an event: builds it on the forward extremities, authorises it by the state that it will have, hashes and signs
// it, and moves the head on.
func (d *draft) add(w *want) error {
	e, auth, at, err := d.build(w)
	if err != nil {
		return err
	}
	if at != nil {
		return d.addApart(w, e, auth, at)
	}
	prev := d.head.tips
	row, body := d.rowOf(d.r.term.nid(), e)
	row.Order = roomdb.Live(len(d.entries))
	row.Prev, row.SenderDevice, row.TxnID = nidsOfTips(prev), string(w.device), w.txn
	body.DeviceId, body.TxnId = string(w.device), w.txn
	for _, h := range auth {
		row.Auth = append(row.Auth, h.nid)
	}
	row.StateBefore = d.stateBefore()
	if w.key != nil {
		d.setState(w, e, row, body)
	}
	row.StateAfter = d.head.snaps.nid()
	body.StateBefore, body.StateAfter = int64(row.StateBefore), int64(row.StateAfter)
	d.rows = append(d.rows, row)
	if w.redacts != nil && w.redacts.nid != 0 {
		body.Redacts = string(w.redacts.id)
		d.redact(w.redacts, row.Nid)
	}
	d.count(e, body)
	if d.lacks() {
		return errLacks
	}
	logged, err := entry.Event(d.r.nid, row.Nid, body, e.JSON())
	if err != nil {
		return err
	}
	d.entries = append(d.entries, logged)
	d.noteMade(e)
	d.takePart(row)
	d.head.tips = []tip{d.r.tipOf(row.Nid, e, d.head.snaps)}
	return nil
}

// maxPrev is how many forward extremities an event joins. Other servers accept 20; a few suffice to bring a room together.
const maxPrev = 10

// prev gives the forward extremities that the next event is built on, and those that are left for the ones after it.
func (d *draft) prev() (prev, rest []tip) {
	n := min(len(d.head.tips), maxPrev)
	return d.head.tips[:n], d.head.tips[n:]
}

// rowOf begins an event's row and the body of its entry with what the event itself says.
func (d *draft) rowOf(nid shard.Nid, e *event.Event) (*roomdb.Event, *entry.EventBody) {
	row := &roomdb.Event{
		Nid: nid, Room: d.r.nid, EventID: string(e.EventID()), Type: d.atom(e.Type()), Sender: d.atom(string(e.Sender())),
		Depth: e.Depth(), TS: e.OriginServerTS(), JSON: e.JSON(),
	}
	body := &entry.EventBody{
		RoomId: string(d.r.id), RoomVersion: string(d.r.rules.Version), EventId: string(e.EventID()), Type: e.Type(),
		Sender: string(e.Sender()), Ts: e.OriginServerTS(), Depth: e.Depth(),
	}
	if key, ok := e.StateKey(); ok {
		body.StateKey = &key
	}
	if rel, ok := relation.Parse(e.Content()); ok && rel.Parent != "" {
		row.RelatesTo, row.RelType, row.Relation = string(rel.Parent), d.atom(rel.Type), storedRelation(e, rel)
		body.RelatesTo, body.RelType = string(rel.Parent), rel.Type
	}
	return row, body
}

// noteMade notes an event that has an entry.
func (d *draft) noteMade(e *event.Event) {
	rel, _ := relation.Of(e)
	d.made = append(d.made, madeEvent{e.EventID(), rel, d.r.hearing})
}

// build makes the event itself, with its auth events, and where it stands if it does not join all extremities.
func (d *draft) build(w *want) (*event.Event, []*held, *apart, error) {
	p, auth, at, err := d.proto(w)
	if err != nil {
		return nil, nil, nil, err
	}
	e, err := event.Build(d.r.rules, p, d.server(), d.r.term.host.Key)
	if err != nil {
		return nil, nil, nil, buildError(err)
	}
	return e, auth, at, nil
}

// proto makes what the event is built of, and finds its auth events.
func (d *draft) proto(w *want) (*event.Proto, []*held, *apart, error) {
	rules := d.r.rules
	p := &event.Proto{
		RoomID: d.r.id, Type: w.typ, StateKey: w.key, Sender: w.sender, Content: w.content,
		Depth: min(d.head.depth()+1, canonjson.MaxInt), OriginServerTS: w.ts,
	}
	if w.ts == 0 {
		p.OriginServerTS = d.now
	}
	if w.typ == event.TypeCreate && rules.RoomIDIsHash {
		p.RoomID = ""
	}
	if w.redacts != nil {
		p.Redacts = w.redacts.id
	}
	if rules.EventIDs == roomver.EventIDGiven {
		var err error
		if p.EventID, err = d.r.term.host.randomEventID(); err != nil {
			return nil, nil, nil, err
		}
	}
	if rules.LinksWithHashes {
		p.LinkHashes = map[id.EventID]event.Hash{}
	}
	prev, _ := d.prev()
	for _, t := range prev {
		p.PrevEvents = append(p.PrevEvents, t.id)
		if p.LinkHashes != nil {
			p.LinkHashes[t.id] = t.hash
		}
	}
	auth, at, err := d.authorise(p)
	return p, auth, at, err
}

// authorise selects the auth events of an event that is being built, and checks whether the room's state allows it. Where it stands is given if
// it does not join all extremities.
func (d *draft) authorise(p *event.Proto) ([]*held, *apart, error) {
	rules := d.r.rules
	reduced, err := eventauth.ReduceProto(rules, p)
	if err != nil {
		return nil, nil, buildError(err)
	}
	at := func(k eventauth.TypeKey) *held { return d.at(k.Type, k.StateKey) }
	var named *apart
	if prev, rest := d.prev(); len(rest) > 0 {
		if err := d.allowed(reduced); err != nil {
			return nil, nil, err
		}
		if named, err = d.apart(prev); err != nil {
			return nil, nil, err
		}
		at = func(k eventauth.TypeKey) *held { return named.in(named.before, k) }
	}
	var looked [eventauth.MaxAuthEvents + 1]*held
	n := 0
	st, selected := eventauth.Select(rules, reduced, func(k eventauth.TypeKey) *eventauth.Reduced {
		h := at(k)
		if h == nil {
			return nil
		}
		looked[n] = h
		n++
		return h.red
	})
	if d.lacks() {
		return nil, nil, errLacks
	}
	if rule := eventauth.Decide(rules, reduced, &st); rule != eventauth.Allowed {
		return nil, nil, d.refusal(rule)
	}
	auth := make([]*held, 0, len(selected))
	for _, h := range looked[:n] {
		if !slices.Contains(selected, h.red) {
			continue
		}
		auth = append(auth, h)
		p.AuthEvents = append(p.AuthEvents, h.ev.EventID())
		if p.LinkHashes != nil {
			p.LinkHashes[h.ev.EventID()] = h.ev.ReferenceHash()
		}
	}
	return auth, named, nil
}

// refusal says why an event is not allowed. With what no room takes the request is wrong, whoever sends it; of a room that is being made it is
// the request's state that is refused, for any reason.
func (d *draft) refusal(rule eventauth.Rule) error {
	if rule.Malformed() && !d.isNew {
		return mxerr.New(mxerr.BadJSON, rule.Reason())
	}
	return mxerr.New(mxerr.Forbidden, rule.Reason())
}

// stateBefore gives the snapshot of the state before the next event. It has to be made if the state is not that after any event: in a room
// whose forks are being joined.
func (d *draft) stateBefore() shard.Nid {
	if d.head.state.Len() > 0 && !d.head.state.Same(d.head.snaps.state()) {
		d.snapshot()
	}
	return d.head.snaps.nid()
}

// snapshot stores the state as it is.
func (d *draft) snapshot() {
	var row *roomdb.StateSnapshot
	d.head.snaps, row = d.head.snaps.push(d.r.term.nid(), d.r.nid, d.head.state)
	d.rows = append(d.rows, row)
}

// setState puts a state event into the state.
func (d *draft) setState(w *want, e *event.Event, row *roomdb.Event, body *entry.EventBody) {
	key := d.atom(*w.key)
	row.StateKey = &key
	body.Membership = e.Membership()
	if old := d.at(w.typ, *w.key); old != nil {
		row.Replaces = old.nid
		body.ReplacesNid, body.ReplacesEventId = int64(old.nid), string(old.ev.EventID())
		body.ReplacesSender, body.ReplacesContent = string(old.ev.Sender()), old.ev.Content()
		body.PrevMembership = old.ev.Membership()
	}
	if w.typ == event.TypeMember {
		body.StrippedState = d.stripped(body.Membership, w.sender)
		d.toldNoMore(id.UserID(*w.key), body.PrevMembership, body.Membership)
		d.rows = append(d.rows, &roomdb.Member{
			Room: d.r.nid, UserID: *w.key, Membership: roomdb.ParseMembership(body.Membership), Event: row.Nid,
			Local: d.local(id.UserID(*w.key)), PushBase: roomdb.Live(len(d.entries)), Entry: len(d.entries),
		})
	}
	d.overlay(eventauth.TypeKey{Type: w.typ, StateKey: *w.key}, &held{nid: row.Nid, ev: e, red: eventauth.Reduce(e), auth: row.Auth})
	d.head.state = d.head.state.Set(stateres.Key{Type: int64(row.Type), StateKey: int64(key)}, int64(row.Nid))
	d.snapshot()
	d.rows = append(d.rows, &roomdb.CurrentState{
		Room: d.r.nid, Type: row.Type, StateKey: key, Event: row.Nid, Entry: len(d.entries),
	})
}

// strippedTypes gives the state events that somebody who is invited, or knocks, may see.
func strippedTypes() []string {
	return []string{
		event.TypeCreate, event.TypeName, event.TypeAvatar, event.TypeTopic, event.TypeJoinRules, event.TypeCanonicalAlias,
		event.TypeEncryption,
	}
}

// stripped gives what an invited or knocking user is told of the room: a JSON array of stripped state events, the sender's
// membership among them, but not the event itself.
func (d *draft) stripped(membership string, sender id.UserID) []byte {
	if membership != event.Invite && membership != event.Knock {
		return nil
	}
	list := []byte{'['}
	add := func(h *held) {
		if h == nil {
			return
		}
		if len(list) > 1 {
			list = append(list, ',')
		}
		list = h.ev.AppendStripped(list)
	}
	for _, t := range strippedTypes() {
		add(d.at(t, ""))
	}
	if membership == event.Invite {
		add(d.at(event.TypeMember, string(sender)))
	}
	return append(list, ']')
}

// redact marks an event as redacted, also where the state holds it.
func (d *draft) redact(target *redactee, by shard.Nid) {
	d.rows = append(d.rows, &roomdb.Redaction{Event: target.nid, By: by})
	d.redacted, d.unrelated = append(d.redacted, target.nid), append(d.unrelated, target.id)
	for k, h := range d.r.cached {
		if h == nil || h.nid != target.nid {
			continue
		}
		if _, ok := d.over[k]; ok {
			continue
		}
		redacted := *h
		redacted.ev = h.ev.Redact()
		d.overlay(k, &redacted)
	}
}

// overlay sets what the state has at an entry after the draft, nil for nothing.
func (d *draft) overlay(k eventauth.TypeKey, h *held) {
	if d.over == nil {
		d.over = map[eventauth.TypeKey]*held{}
	}
	d.over[k] = h
}

// move makes a receipt's entry and row.
func (d *draft) move(m *receiptMove) error {
	body := &entry.ReceiptBody{
		RoomId: string(d.r.id), UserId: string(m.user), Kind: m.kind, Thread: m.thread, EventId: string(m.event),
		EventOrd: m.ord, Ts: m.ts,
	}
	var subject string
	if m.kind == ReceiptReadPrivate {
		subject = string(m.user)
	}
	logged, err := entry.Receipt(d.r.nid, subject, body)
	if err != nil {
		return err
	}
	d.rows = append(d.rows, &roomdb.Receipt{
		Room: d.r.nid, UserID: string(m.user), Kind: m.kind, Thread: m.thread, EventID: string(m.event), EventOrd: m.ord,
		TS: m.ts, Entry: len(d.entries),
	})
	d.entries = append(d.entries, logged)
	if d.receipts == nil {
		d.receipts = map[id.UserID][]roomdb.ReceiptRow{}
	}
	d.receipts[m.user] = m.rows
	return nil
}

func nidsOfTips(tips []tip) []shard.Nid {
	nids := make([]shard.Nid, len(tips))
	for i, t := range tips {
		nids[i] = t.nid
	}
	return nids
}

// randomEventID makes an event id for room versions 1 and 2.
func (h *Host) randomEventID() (id.EventID, error) {
	opaque, err := randomText(h.Random)
	if err != nil {
		return "", err
	}
	return id.EventID("$" + opaque + ":" + string(h.Server)), nil
}
