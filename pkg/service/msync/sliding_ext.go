package msync

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/shardlog/token"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// covers tells whether an extension is asked for and is to tell of a room.
func (x *RoomExtension) covers(r *slideRoom) bool {
	if !x.Enabled {
		return false
	}
	listed := func(names *[]string, name string) bool {
		return names == nil || slices.Contains(*names, name) || slices.Contains(*names, wishAny)
	}
	return slices.ContainsFunc(r.lists, func(l string) bool { return listed(x.Lists, l) }) ||
		r.subscribed && listed(x.Rooms, r.ref.RoomID)
}

// after gives up to where the device says that it has received its messages, and the incarnation of the database that told it so, 0 if that
// is not said.
func (x *ToDeviceExtension) after() (shard.Pos, uint32, error) {
	if !x.Enabled || x.Since == "" {
		return 0, 0, nil
	}
	at, in, told := strings.Cut(x.Since, "-")
	n, err := strconv.ParseInt(at, 10, 64)
	var incarnation uint64
	if told && err == nil {
		incarnation, err = strconv.ParseUint(in, 10, 32)
	}
	if err != nil || n < 0 {
		return 0, 0, mxerr.New(mxerr.InvalidParam, "The since of to_device is not one of this server").WithCause(err)
	}
	return shard.Pos(n), uint32(incarnation), nil //nolint:gosec // of 32 bits
}

// extend makes what is told besides rooms. told is false if that is nothing.
func (s *slideView) extend(ctx context.Context, a *slideAnswer, p *plan) (told bool, err error) {
	x := &s.q.Extensions
	for _, one := range []struct {
		name    string
		enabled bool
		make    func(context.Context, *slideAnswer, *plan) ([]byte, bool, error)
	}{
		{"to_device", x.ToDevice.Enabled, s.toDeviceExtension},
		{"e2ee", x.E2EE.Enabled, s.e2eeExtension},
		{"account_data", x.AccountData.Enabled, s.dataExtension},
		{"receipts", x.Receipts.Enabled, s.receiptsExtension},
		{"typing", x.Typing.Enabled, s.typingExtension},
		{"io.element.msc4308.thread_subscriptions", x.Threads.Enabled, s.threadsExtension},
	} {
		if !one.enabled {
			continue
		}
		body, some, err := one.make(ctx, a, p)
		if err != nil {
			return false, err
		}
		a.ext[one.name], told = body, told || some
	}
	return told, nil
}

func (s *slideView) toDeviceExtension(ctx context.Context, _ *slideAnswer, _ *plan) ([]byte, bool, error) {
	after := s.received
	v, upper := *s.view, *s.upper
	upper.Places = nil
	v.upper, v.since = &upper, &token.Sync{
		Incarnation: s.upper.Incarnation, Positions: make(shard.Vector, len(s.upper.Positions)),
		Places: []token.Place{{Section: token.SectionToDevice, Position: after}},
	}
	if l := s.q.Extensions.ToDevice.Limit; l != nil {
		v.mostMessages = max(*l, 1)
	}
	p := new(plan)
	s.e.mu.Lock()
	v.planDevice(p)
	s.e.mu.Unlock()
	if p.readMessages {
		if err := s.reading(ctx); err != nil {
			return nil, false, err
		}
	}
	messages, err := v.toDevice(ctx, p)
	if err != nil {
		return nil, false, err
	}
	next := max(after, s.to(s.u.shard))
	if cut, ok := upper.Place(token.SectionToDevice); ok {
		next = cut
	}
	b := append(strconv.AppendInt([]byte(`{"next_batch":"`), int64(next), 10), '-')
	b = strconv.AppendUint(b, uint64(s.upper.Incarnation), 10)
	b = append(append(b, `","events":[`...), messages...)
	return append(b, `]}`...), len(messages) > 0, nil
}

func (s *slideView) e2eeExtension(ctx context.Context, _ *slideAnswer, p *plan) ([]byte, bool, error) {
	if p.readLists {
		if err := s.reading(ctx); err != nil {
			return nil, false, err
		}
	}
	changed, left, err := s.deviceLists(ctx, p)
	if err != nil {
		return nil, false, err
	}
	b := []byte{'{'}
	if s.since != nil {
		b = appendUsers(append(b, `"device_lists":{"changed":`...), changed)
		b = append(appendUsers(append(b, `,"left":`...), left), '}', ',')
	}
	b = append(p.keyCounts.append(b), '}')
	return b, len(changed)+len(left) > 0 || p.keysChanged, nil
}

// dataExtension tells account data: what is new, and all of what the client has not heard of.
func (s *slideView) dataExtension(ctx context.Context, a *slideAnswer, _ *plan) ([]byte, bool, error) {
	since, _ := s.from(s.u.shard)
	if !s.conn.global {
		since = 0
	}
	ext := &s.q.Extensions.AccountData
	whole := make(map[string]*slideRoom) // whose data is told as it is
	live := make(map[string]*slideRoom)
	for _, r := range a.rooms {
		switch {
		case !ext.covers(r) || r.membership.membership != roomdb.MembershipJoin:
		case r.initial || r.before.upto != 0 || r.before.flags&sentData == 0 || !s.conn.global:
			whole[r.ref.RoomID] = r
		default:
			live[r.ref.RoomID] = r
		}
	}
	s.e.mu.Lock()
	held := s.conn.global && since >= s.u.complete
	var news []accountData
	if held {
		for _, d := range s.u.data {
			if d.pos > since && d.pos <= s.to(s.u.shard) {
				news = append(news, d)
			}
		}
	}
	quiet := held || s.conn.global && s.u.last <= since && s.u.complete <= since
	s.e.mu.Unlock()
	var rows []accountData // everything since a position that is early enough
	if len(whole) > 0 || !quiet {
		if err := s.reading(ctx); err != nil {
			return nil, false, err
		}
		above := since
		if len(whole) > 0 {
			above = 0
		}
		stored, err := s.e.Accounts.AccountDataSince(ctx, s.u.shard, s.u.id, above)
		if err != nil {
			return nil, false, err
		}
		for _, row := range stored {
			rows = append(rows, accountData{pos: shard.Pos(row.Pos), room: row.RoomID, typ: row.Type, content: row.Content})
		}
	}
	if !held {
		for _, d := range rows {
			if d.pos > since {
				news = append(news, d)
			}
		}
	}
	p := new(plan)
	told := false
	for _, d := range news {
		if d.room == "" {
			p.data = append(p.data, d)
		} else if r := live[d.room]; r != nil {
			r.data = appendDataEvent(r.data, d.typ, d.content)
		}
	}
	for _, d := range rows {
		if r := whole[d.room]; d.room != "" && r != nil {
			r.data = appendDataEvent(r.data, d.typ, d.content)
		}
	}
	v := *s.view
	if !s.conn.global {
		v.since = nil
	}
	global := v.globalData(p)
	b := append(append([]byte(`{"global":[`), global...), `],"rooms":{`...)
	for _, r := range a.rooms {
		if r.data == nil {
			continue
		}
		if told {
			b = append(b, ',')
		}
		told = true
		b = append(canonjson.AppendString(b, r.ref.RoomID), `:[`...)
		b = append(append(b, r.data...), ']')
	}
	return append(b, `}}`...), told || len(global) > 0, nil
}

// receiptsExtension tells receipts: those that moved; of rooms that the client has not heard of, those at the events that it is told, and
// the user's own.
func (s *slideView) receiptsExtension(ctx context.Context, a *slideAnswer, _ *plan) ([]byte, bool, error) {
	b, told := []byte(`{"rooms":{`), false
	for _, r := range a.rooms {
		if !s.q.Extensions.Receipts.covers(r) || r.membership.membership != roomdb.MembershipJoin {
			continue
		}
		var receipts []roomdb.ReceiptRow
		var err error
		switch {
		case r.initial || r.before.flags&sentReceipts == 0:
			if err = s.reading(ctx); err != nil {
				return nil, false, err
			}
			receipts, err = s.e.Rooms.ReceiptsAt(ctx, r.ref.Nid, s.u.id, r.events)
			receipts = slices.DeleteFunc(receipts, func(x roomdb.ReceiptRow) bool { return !s.maySee(&x) })
		default:
			if receipts, err = r.v.receiptsOf(ctx, r.x); err == nil && r.expanded {
				receipts, err = s.receiptsBefore(ctx, r, receipts)
			}
		}
		if err != nil {
			return nil, false, err
		}
		if len(receipts) == 0 {
			continue
		}
		if told {
			b = append(b, ',')
		}
		told = true
		b = append(canonjson.AppendString(b, r.ref.RoomID), `:{"type":"m.receipt","content":{`...)
		// There is one event for a room: of several receipts by a user at an event the one that belongs to no thread is told.
		b = append(appendReceipts(b, layers(receipts)[0]), `}}`...)
	}
	return append(b, `}}`...), told, nil
}

// receiptsBefore adds to receipts that moved those at events that the client is told only now.
func (s *slideView) receiptsBefore(ctx context.Context, r *slideRoom, moved []roomdb.ReceiptRow) ([]roomdb.ReceiptRow, error) {
	at, err := s.e.Rooms.ReceiptsAt(ctx, r.ref.Nid, s.u.id, r.events)
	told := make(map[receiptKey]bool, len(moved))
	for i := range moved {
		told[keyOfReceipt(&moved[i])] = true
	}
	for i := range at {
		if x := &at[i]; s.maySee(x) && !told[keyOfReceipt(x)] {
			moved = append(moved, *x)
		}
	}
	return moved, err
}

func (s *slideView) typingExtension(_ context.Context, a *slideAnswer, _ *plan) ([]byte, bool, error) {
	b, told := []byte(`{"rooms":{`), false
	for _, r := range a.rooms {
		if !s.q.Extensions.Typing.covers(r) || r.x.typing == nil {
			continue
		}
		if told {
			b = append(b, ',')
		}
		told = true
		b = append(canonjson.AppendString(b, r.ref.RoomID), `:{"type":"m.typing","content":{"user_ids":`...)
		b = append(appendUsers(b, r.x.typing.users), `}}`...)
	}
	return append(b, `}}`...), told, nil
}
