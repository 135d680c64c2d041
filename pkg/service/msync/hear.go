package msync

import (
	"context"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/invitation"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
	"github.com/heddle-im/heddle/pkg/store/readdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// Wants is the log's filter: an entry is wanted if it concerns a room that somebody served is in, or a user who is served.
func (e *Engine) Wants(k entry.Kind, nid shard.Nid, subject []byte) bool {
	e.busy.Store(true)
	switch k {
	case entry.KindEvent, entry.KindReceipt, entry.KindAccountData, entry.KindToDevice, entry.KindKeyCounts,
		entry.KindThreadSubscription:
	case entry.KindDeviceList:
		return true // whom it concerns is found out
	default:
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if nid != 0 && e.rooms[nid] != nil {
		return true
	}
	return len(subject) > 0 && e.users[string(subject)] != nil
}

// Reset forgets everything and goes on from the heads.
func (e *Engine) Reset(_ context.Context, at shard.Heads) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, u := range e.users {
		e.wake(u)
		e.account.Release(u.bytes)
	}
	for _, r := range e.rooms {
		e.account.Release(r.bytes)
	}
	e.unresolved = nil
	close(e.resolved)
	e.resolved = make(chan struct{})
	clear(e.users)
	clear(e.rooms)
	e.incarnation, e.pos = at.Incarnation, at.Positions.Clone()
	e.done()
	return nil
}

// done notes that a batch has been applied. Under mu.
func (e *Engine) done() {
	e.busy.Store(false)
	close(e.applied)
	e.applied = make(chan struct{})
}

// Apply takes in a batch of the log, and wakes whoever it concerns.
func (e *Engine) Apply(_ context.Context, b follow.Batch) error {
	owed, err := e.apply(b)
	e.account.Charge(owed) // which may evict, and so takes mu
	return err
}

// apply takes in a batch, and gives the bytes that are to be charged for it.
func (e *Engine) apply(b follow.Batch) (owed int64, _ error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	concerned := make(map[*user]struct{})
	for i := range b.Entries {
		at := &b.Entries[i]
		var err error
		switch at.Kind {
		case entry.KindEvent:
			err = e.hearEvent(at, b.Last, concerned)
		case entry.KindReceipt:
			err = e.hearReceipt(at, concerned)
		case entry.KindAccountData:
			err = e.hearAccountData(at, concerned)
		case entry.KindToDevice:
			err = e.hearToDevice(at, concerned)
		case entry.KindKeyCounts:
			err = e.hearKeyCounts(at, concerned)
		case entry.KindThreadSubscription:
			if u := e.users[at.Subject]; u != nil {
				u.threads = at.Pos
				concerned[u] = struct{}{}
			}
		case entry.KindDeviceList:
			err = e.hearDeviceList(at, b.Shard, concerned)
		default:
		}
		if err != nil {
			return e.settleUp(), err
		}
	}
	e.incarnation, e.pos[b.Shard] = b.Incarnation, b.Last
	e.done()
	for u := range concerned {
		e.wake(u)
	}
	if len(e.unresolved) > 0 {
		select {
		case e.heard <- struct{}{}:
		default:
		}
	}
	return e.settleUp(), nil
}

// settleUp gives what is to be charged, once. Under mu.
func (e *Engine) settleUp() int64 {
	owed := e.owed
	e.owed = 0
	return owed
}

// wake wakes a user's waiting syncs. Under mu.
func (e *Engine) wake(u *user) { u.wake(func(*waiter) bool { return true }) }

// wake has those of the user's waiting syncs look again that want to. Under Engine.mu.
func (u *user) wake(wants func(*waiter) bool) {
	for w := range u.waiters {
		if !wants(w) {
			continue
		}
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

func (e *Engine) hearEvent(at *entry.At, batchEnd shard.Pos, concerned map[*user]struct{}) error {
	r, u := e.rooms[at.Room], e.users[at.Subject]
	if r == nil && u == nil {
		return nil
	}
	body, err := entry.DecodeEvent(&at.Entry)
	if err != nil {
		return err
	}
	if r != nil && at.Pos > r.last {
		item, err := itemOf(at, body)
		if err != nil {
			return err
		}
		e.keep(r, item, body)
		e.hearMoves(r, at, body)
		e.active(body.Sender)
		for m := range r.members {
			concerned[m] = struct{}{}
		}
	}
	if u == nil || body.Membership == "" || body.GetStateKey() != u.id {
		return nil
	}
	concerned[u] = struct{}{}
	if e.Presence != nil {
		e.Presence.Moved(u.id)
	}
	ref := roomdb.RoomRef{Nid: at.Room, RoomID: body.RoomId, Version: body.RoomVersion}
	m := membership{ref: ref, membership: roomdb.ParseMembership(body.Membership), event: at.Event, pos: at.Pos}
	if body.PrevMembership == body.Membership {
		m.pos = 0 // a change of profile moves nothing
	}
	if !u.ready {
		u.pending = append(u.pending, m)
		return nil
	}
	e.changedAt(u, m, batchEnd)
	return nil
}

func (e *Engine) changed(u *user, m membership) { e.changedAt(u, m, e.pos[m.ref.Nid.Shard()]) }

// changedAt takes in a user's new membership; what is held of a room that is new here is complete from there on. Under mu.
func (e *Engine) changedAt(u *user, m membership, complete shard.Pos) {
	old := u.memberships[m.ref.Nid]
	if m.pos == 0 {
		if old != nil {
			old.event = m.event
		}
		return
	}
	if old != nil && old.pos >= m.pos {
		return // seen in the rows already
	}
	if old != nil && old.membership == roomdb.MembershipJoin && m.membership != roomdb.MembershipJoin {
		e.exit(u, m.ref.Nid)
	}
	u.memberships[m.ref.Nid] = &m
	if m.membership == roomdb.MembershipJoin {
		if s := m.ref.Nid.Shard(); e.rooms[m.ref.Nid] == nil && u.notesFrom != nil {
			u.notesFrom[s] = max(u.notesFrom[s], complete) // who else moved in the same batch was not heard
		}
		e.enter(u, m.ref, complete)
	}
}

// itemOf makes an entry's event ready to be shown.
func itemOf(at *entry.At, body *entry.EventBody) (*readdb.Item, error) {
	ev, err := event.ParseTrusted(roomver.MustGet(roomver.Version(body.RoomVersion)), at.JSON, id.EventID(body.EventId))
	if err != nil {
		return nil, err
	}
	it := &readdb.Item{
		Nid: at.Event, Room: at.Room, Ord: int64(at.Pos), Event: ev,
		StateBefore: shard.Nid(body.StateBefore), StateAfter: shard.Nid(body.StateAfter),
		Device: body.DeviceId, Txn: body.TxnId, Membership: "join", NoEffect: body.Flags&entry.FlagNoEffect != 0,
		Gap: body.Flags&entry.FlagGap != 0,
	}
	if body.ReplacesEventId != "" {
		it.Replaced = readdb.Replaced{
			Event: id.EventID(body.ReplacesEventId), Sender: id.UserID(body.ReplacesSender), Content: body.ReplacesContent,
		}
	}
	return it, nil
}

// sizeOf is about what an event takes in memory.
func sizeOf(it *readdb.Item) int64 {
	return int64(512 + len(it.Event.JSON()) + len(it.Replaced.Content))
}

// keep adds an event to what is held of its room. Under mu.
func (e *Engine) keep(r *room, it *readdb.Item, body *entry.EventBody) {
	r.events, r.last = append(r.events, it), shard.Pos(it.Ord)
	n := sizeOf(it)
	r.bytes += n
	e.keepPush(r, it.Ord, body)
	e.hearFacts(r, it, body)
	if body.Redacts != "" {
		redact(r, it, id.EventID(body.Redacts))
	}
	if key, ok := it.Event.StateKey(); ok && it.Event.Type() == typeMember && !it.NoEffect {
		if _, held := r.senders[key]; held {
			r.senders[key] = it
		}
		r.summary = nil
	}
	if len(body.StateChanges) > 0 {
		r.summary = nil
		clear(r.senders)
		// What a resolution of forks changed is not in the events: it is read from the snapshots.
		e.trim(r, len(r.events))
	}
	if len(r.events) > maxRoomEvents {
		e.trim(r, len(r.events)-maxRoomEvents*3/4)
	}
	e.owed += n
}

// redact shows the target of a redaction as redacted from now on, if it is held. Under mu.
func redact(r *room, by *readdb.Item, target id.EventID) {
	i := slices.IndexFunc(r.events, func(it *readdb.Item) bool { return it.Event.EventID() == target })
	if i < 0 {
		return
	}
	c := *r.events[i] // others may be showing the old one just now
	c.Event, c.Because = c.Event.Redact(), by.Event
	r.events[i] = &c
}

// trim lets go of a room's n oldest events; the room is complete only after them. Under mu.
func (e *Engine) trim(r *room, n int) int64 {
	if n <= 0 {
		return 0
	}
	var freed int64
	for _, it := range r.events[:n] {
		freed += sizeOf(it)
	}
	end := shard.Pos(r.events[n-1].Ord)
	freed += r.trimPushed(int64(end))
	r.events = slices.Clone(r.events[n:])
	if r.complete < end {
		r.complete = end
	}
	r.bytes -= freed
	e.account.Release(freed)
	old := slices.IndexFunc(r.receipts, func(x receipt) bool { return x.pos > end })
	if old < 0 {
		old = len(r.receipts)
	}
	return freed + e.trimReceipts(r, old)
}

// held is what is held one by one, and charged.
type held interface {
	at() shard.Pos
	size() int64
}

// letGo lets go of the n oldest of what is held for a room or a user, which is complete only after them. Under mu.
func letGo[T held](e *Engine, list *[]T, n int, complete *shard.Pos, bytes *int64) (freed int64) {
	if n <= 0 {
		return 0
	}
	for _, x := range (*list)[:n] {
		freed += x.size()
	}
	*complete = max(*complete, (*list)[n-1].at())
	*list = slices.Clone((*list)[n:])
	*bytes -= freed
	e.account.Release(freed)
	return freed
}

// hold takes in what replaces the one that is the same, if that is held. Under mu.
func hold[T held](e *Engine, list *[]T, now T, same func(T) bool, bytes *int64) {
	grown := now.size()
	if i := slices.IndexFunc(*list, same); i >= 0 {
		grown -= (*list)[i].size()
		*list = slices.Delete(*list, i, i+1)
	}
	*list = append(*list, now)
	*bytes += grown
	e.owed += grown
}

func (e *Engine) trimReceipts(r *room, n int) int64 {
	return letGo(e, &r.receipts, n, &r.complete, &r.bytes)
}

func (x receipt) at() shard.Pos { return x.pos }

// size is about what a receipt takes in memory.
func (x receipt) size() int64 {
	return int64(160 + len(x.UserID) + len(x.Kind) + len(x.Thread) + len(x.EventID))
}

func (e *Engine) hearReceipt(at *entry.At, concerned map[*user]struct{}) error {
	r := e.rooms[at.Room]
	if r == nil {
		return nil
	}
	body, err := entry.DecodeReceipt(&at.Entry)
	if err != nil {
		return err
	}
	now := receipt{pos: at.Pos, ReceiptRow: roomdb.ReceiptRow{
		UserID: body.UserId, Kind: body.Kind, Thread: body.Thread, EventID: body.EventId, EventOrd: body.EventOrd, TS: body.Ts,
		Pos: at.Pos,
	}}
	hold(e, &r.receipts, now, func(x receipt) bool { return x.key() == now.key() }, &r.bytes)
	if len(r.receipts) > maxRoomReceipts {
		e.trimReceipts(r, maxRoomReceipts/4)
	}
	r.last = max(r.last, at.Pos)
	e.active(body.UserId)
	if at.Subject != "" { // private: it concerns its user alone
		if u := e.users[at.Subject]; u != nil {
			concerned[u] = struct{}{}
		}
		return nil
	}
	for m := range r.members {
		concerned[m] = struct{}{}
	}
	return nil
}

func (e *Engine) trimData(u *user, n int) int64 { return letGo(e, &u.data, n, &u.complete, &u.bytes) }

func (d accountData) at() shard.Pos { return d.pos }

// size is about what a change of account data takes in memory.
func (d accountData) size() int64 { return int64(96 + len(d.room) + len(d.typ) + len(d.content)) }

func (e *Engine) hearAccountData(at *entry.At, concerned map[*user]struct{}) error {
	u := e.users[at.Subject]
	if u == nil {
		return nil
	}
	body, err := entry.DecodeAccountData(&at.Entry)
	if err != nil {
		return err
	}
	now := accountData{pos: at.Pos, room: body.RoomId, typ: body.Type, content: body.Content}
	hold(e, &u.data, now, func(d accountData) bool { return d.room == now.room && d.typ == now.typ }, &u.bytes)
	e.trimData(u, len(u.data)-maxRoomEvents)
	if body.RoomId == "" {
		switch body.Type {
		case accountdb.TypeIgnored:
			u.ignored, u.ignoredSince = accountdb.ParseIgnored(u.id, body.Content), at.Pos
		case invitation.TypeConfig, invitation.TypeFiltered:
			u.invite(body.Type, body.Content)
		}
	}
	u.labels.hear(body.RoomId, body.Type, body.Content)
	u.last = at.Pos
	concerned[u] = struct{}{}
	return nil
}

// typePushRules is the account data that holds a user's push rules; see package pushrule for its stored form.
const typePushRules = "m.push_rules"
