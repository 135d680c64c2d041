package msync

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/store/pushdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// Unread counts are read once for a user and a room, as of a place in the log, and carried on from there by what the log tells of
// events, receipts and redactions. They are read again only if what is held does not reach back far enough: when a receipt moves to
// an event that is not held any more, say.

// pushed is what an event of the window changes of unread counts.
type pushed struct {
	ord       int64
	sender    string // if the sender has read up to here by it
	thread    string
	flags     pushdb.Flags
	beyond    map[string]pushdb.Count
	classes   map[string]pushdb.Class
	correct   *correction
	corrected bool // it was taken back since
}

// correction takes back what an earlier event counts for.
type correction struct {
	ord    int64
	thread string
	flags  pushdb.Flags
	beyond map[string]pushdb.Count
}

func beyondOf(list []*entry.PushException) map[string]pushdb.Count {
	if len(list) == 0 {
		return nil
	}
	out := make(map[string]pushdb.Count, len(list))
	for _, x := range list {
		out[x.UserId] = pushdb.Count{Notify: int64(x.Notify), Highlight: int64(x.Highlight)}
	}
	return out
}

func (p *pushed) size() int64 {
	n := 160 + 80*int64(len(p.beyond)+len(p.classes))
	if p.correct != nil {
		n += 80 * int64(1+len(p.correct.beyond))
	}
	return n
}

// keepPush adds what an event changes of unread counts to what is held of its room. Under mu.
func (e *Engine) keepPush(r *room, ord int64, body *entry.EventBody) {
	in := body.Push
	if in == nil {
		return
	}
	p := &pushed{ord: ord, thread: in.Thread, flags: pushdb.Flags(in.Flags), beyond: beyondOf(in.Exceptions)}
	if in.Sent {
		p.sender = body.Sender
	}
	for _, c := range in.Classes {
		if p.classes == nil {
			p.classes = make(map[string]pushdb.Class, len(in.Classes))
		}
		p.classes[c.UserId] = pushdb.Class(c.Class)
	}
	if c := in.Corrected; c != nil {
		p.correct = &correction{c.Ord, c.Thread, pushdb.Flags(c.Flags), beyondOf(c.Exceptions)}
		if c.Back != 0 {
			p.correct.ord = ord - c.Back
		}
		for _, old := range r.pushed {
			if old.ord == p.correct.ord {
				old.corrected = true
			}
		}
	}
	r.pushed = append(r.pushed, p)
	n := p.size()
	r.bytes += n
	e.owed += n
}

// trimPushed lets go of what came up to an event. Under mu.
func (r *room) trimPushed(end int64) (freed int64) {
	n := 0
	for n < len(r.pushed) && r.pushed[n].ord <= end {
		freed += r.pushed[n].size()
		n++
	}
	r.pushed = slices.Clone(r.pushed[n:])
	return freed
}

// carryOn brings a user's counts in a room up to now; false if what is held does not suffice for that. Under mu.
func (e *Engine) carryOn(r *room, userID string, u *pushdb.Unread) bool {
	now, from := int64(e.pos[r.ref.Nid.Shard()]), u.Upto
	if r.complete == unsettled || from < int64(r.complete) {
		return false
	}
	for _, p := range r.pushed {
		if p.ord > from && !u.Hear(userID, p.heard()) {
			return false
		}
	}
	u.Upto = max(now, from)
	for i := range r.receipts {
		x := &r.receipts[i]
		if x.UserID != userID || int64(x.pos) <= from {
			continue
		}
		for _, thread := range u.Receipt(x.Thread, x.EventOrd) {
			at := u.Read(thread)
			if at < int64(r.complete) || at < u.ClassFrom {
				return false
			}
			for _, p := range r.pushed {
				if p.thread == thread && !p.corrected {
					u.Add(thread, p.ord, p.flags.In(u.Class).Plus(p.beyond[userID]))
				}
			}
		}
	}
	return true
}

func (p *pushed) heard() *pushdb.Heard {
	h := &pushdb.Heard{
		Ord: p.ord, Sender: p.sender, Counted: pushdb.Counted{Thread: p.thread, Flags: p.flags, Exceptions: p.beyond}, Classes: p.classes,
	}
	if c := p.correct; c != nil {
		h.CorrectedOrd = c.ord
		h.Corrected = &pushdb.Counted{Thread: c.thread, Flags: c.flags, Exceptions: c.beyond}
	}
	return h
}

// recounted tells whether something that a room holds after the token may have changed what the user has not read there. Under mu.
func (v *view) recounted(r *room) bool {
	since, _ := v.from(r.ref.Nid.Shard())
	return slices.ContainsFunc(r.pushed, func(p *pushed) bool {
		if p.ord <= int64(since) || p.ord > int64(v.to(r.ref.Nid.Shard())) {
			return false
		}
		return p.flags != 0 || p.sender == v.u.id || p.beyond[v.u.id] != (pushdb.Count{}) ||
			p.correct != nil && (p.correct.flags != 0 || p.correct.beyond[v.u.id] != (pushdb.Count{}))
	})
}

// countUnread finds the unread counts of the rooms that the user is in, from memory as far as they are there.
func (v *view) countUnread(ctx context.Context, parts []*part) error {
	e := v.e
	var places []pushdb.Place
	var missing []*part
	e.mu.Lock()
	for _, x := range parts {
		m, r := v.u.memberships[x.ref.Nid], e.rooms[x.ref.Nid]
		x.counted = x.held && r != nil && v.recounted(r)
		if m != nil && r != nil && m.unread != nil && m.pos == x.pos && e.carryOn(r, v.u.id, m.unread) {
			x.unread = maps.Clone(m.unread.Counts)
			continue
		}
		upto := v.to(x.ref.Nid.Shard())
		if m != nil {
			m.unread = nil
			upto = e.pos[x.ref.Nid.Shard()]
		}
		missing = append(missing, x)
		places = append(places, pushdb.Place{Room: x.ref.Nid, Base: int64(x.pos), Upto: int64(upto)})
	}
	e.mu.Unlock()
	if len(missing) == 0 {
		return nil
	}
	read, err := e.Push.Unread(ctx, v.u.id, places)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, x := range missing {
		x.unread = maps.Clone(read[i].Counts)
		if m := v.u.memberships[x.ref.Nid]; m != nil && m.pos == x.pos && m.unread == nil {
			m.unread = read[i]
		}
	}
	return nil
}

// readSomething tells whether the user's own receipts moved, of what is held.
func (x *part) readSomething(userID string) bool {
	return slices.ContainsFunc(x.receipts, func(r receipt) bool { return r.UserID == userID })
}

// reads tells whether a receipt is the user's own.
func (v *view) reads(r roomdb.ReceiptRow) bool { return r.UserID == v.u.id }

// appendUnread appends the room's unread counts, by thread if the filter asks for that.
func (v *view) appendUnread(b []byte, x *part) []byte {
	if !v.Filter.Room.Timeline.UnreadThreadNotifications {
		return appendCount(append(b, `"unread_notifications":`...), pushdb.Sum(x.unread))
	}
	b = appendCount(append(b, `"unread_notifications":`...), x.unread[""])
	threads := slices.SortedFunc(maps.Keys(x.unread), strings.Compare)
	first := true
	for _, t := range threads {
		if t == "" {
			continue
		}
		if first {
			b = append(b, `,"unread_thread_notifications":{`...)
		} else {
			b = append(b, ',')
		}
		first = false
		b = append(canonjson.AppendString(b, t), ':')
		b = appendCount(b, x.unread[t])
	}
	if !first {
		b = append(b, '}')
	}
	return b
}

func appendCount(b []byte, c pushdb.Count) []byte {
	b = append(b, `{"highlight_count":`...)
	b = canonjson.AppendInt(b, max(0, c.Highlight))
	b = append(b, `,"notification_count":`...)
	b = canonjson.AppendInt(b, max(0, c.Notify))
	return append(b, '}')
}
