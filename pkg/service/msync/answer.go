package msync

import (
	"context"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/pushrule"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// answer makes the body. told is false if, after filtering, it says nothing.
func (v *view) answer(ctx context.Context, p *plan) (body []byte, told bool, err error) {
	if p.reads() || v.Filter.Room.Timeline.NeedsRelations() {
		// Those who read the database take turns, lest many who come at once exhaust it.
		if err := v.e.turns.enter(ctx, v.u.id); err != nil {
			return nil, false, err
		}
		defer v.e.turns.leave()
		weight := &v.e.reading
		if v.since == nil {
			weight = &v.e.beginning
		}
		leave, err := v.e.Gate.Enter(ctx, weight)
		if err != nil {
			return nil, false, err
		}
		defer func() {
			if err != nil {
				leave(-1)
				return
			}
			leave(int64(len(body)))
		}()
	}
	if p.readData {
		if err := v.readData(ctx, p); err != nil {
			return nil, false, err
		}
	}
	if err := v.readEnteredData(ctx, p); err != nil {
		return nil, false, err
	}
	changed, left, err := v.deviceLists(ctx, p)
	if err != nil {
		return nil, false, err
	}
	messages, err := v.toDevice(ctx, p)
	if err != nil {
		return nil, false, err
	}
	if err := v.countUnread(ctx, p.joined); err != nil {
		return nil, false, err
	}
	v.telling = v.recall()
	sections := [...]struct {
		name   string
		parts  []*part
		make   func(context.Context, *part) ([]byte, error)
		bodies []roomBody
	}{
		{name: "join", parts: p.joined, make: v.joinedRoom},
		{name: "invite", parts: p.invited, make: v.invitedRoom},
		{name: "knock", parts: p.knocked, make: v.knockedRoom},
		{name: "leave", parts: p.left, make: v.leftRoom},
	}
	for i := range sections {
		s := &sections[i]
		if s.bodies, err = v.rooms(ctx, s.parts, s.make); err != nil {
			return nil, false, err
		}
	}
	v.remember()
	data := v.globalData(p)
	size := 1024 + len(data) + len(p.presence) + len(messages)
	for i := range sections {
		for _, b := range sections[i].bodies {
			size += len(b.room) + len(b.json) + 8
		}
	}
	body = append(make([]byte, 0, size), `{"next_batch":`...)
	body = canonjson.AppendString(body, v.upper.Encode())
	body = append(body, `,"account_data":{"events":[`...)
	body = append(body, data...)
	body = append(body, `]},"presence":{"events":[`...)
	body = append(body, p.presence...)
	body = append(body, `]},"to_device":{"events":[`...)
	body = append(body, messages...)
	body = append(body, `]},"device_lists":{"changed":`...)
	body = appendUsers(body, changed)
	body = append(body, `,"left":`...)
	body = appendUsers(body, left)
	body = append(body, '}', ',')
	body = p.keyCounts.append(body)
	body = append(body, `,"rooms":{`...)
	rooms := 0
	for i := range sections {
		s := &sections[i]
		if len(s.bodies) == 0 {
			continue
		}
		if rooms > 0 {
			body = append(body, ',')
		}
		rooms += len(s.bodies)
		body = append(append(append(body, '"'), s.name...), `":{`...)
		for j, b := range s.bodies {
			if j > 0 {
				body = append(body, ',')
			}
			body = canonjson.AppendString(body, b.room)
			body = append(body, ':')
			body = append(body, b.json...)
		}
		body = append(body, '}')
	}
	body = append(body, `}}`...)
	told = rooms+len(data)+len(messages)+len(changed)+len(left)+len(p.presence) > 0 || p.keysChanged
	return body, told, nil
}

// reads tells whether the database is read.
func (p *plan) reads() bool {
	return p.readData || p.readMessages || p.readLists || len(p.invited)+len(p.knocked)+len(p.left) > 0 ||
		slices.ContainsFunc(p.joined, func(x *part) bool { return !x.held })
}

type roomBody struct {
	room string
	json []byte
}

// rooms makes the bodies of a section's rooms, several at a time if they are read from the database. A nil body is left out.
func (v *view) rooms(ctx context.Context, parts []*part, make1 func(context.Context, *part) ([]byte, error)) ([]roomBody, error) {
	bodies := make([]roomBody, len(parts))
	one := func(ctx context.Context, i int) error {
		b, err := make1(ctx, parts[i])
		bodies[i] = roomBody{parts[i].ref.RoomID, b}
		return err
	}
	var read []int
	for i, x := range parts {
		if !x.held {
			read = append(read, i)
		} else if err := one(ctx, i); err != nil {
			return nil, err
		}
	}
	if len(read) > 0 {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(readers)
		for _, i := range read {
			g.Go(func() error { return one(ctx, i) })
		}
		if err := g.Wait(); err != nil {
			return nil, err
		}
	}
	bodies = slices.DeleteFunc(bodies, func(b roomBody) bool { return b.json == nil })
	slices.SortFunc(bodies, func(a, b roomBody) int { return strings.Compare(a.room, b.room) })
	return bodies, nil
}

// readData reads the account data that is not held, and spreads that of rooms over them.
func (v *view) readData(ctx context.Context, p *plan) error {
	since, _ := v.from(v.u.shard)
	rows, err := v.e.Accounts.AccountDataSince(ctx, v.u.shard, v.u.id, since)
	if err != nil {
		return err
	}
	byRoom := make(map[string]*part, len(p.joined))
	for _, x := range p.joined {
		byRoom[x.ref.RoomID] = x
	}
	for _, x := range p.left {
		byRoom[x.ref.RoomID] = x
	}
	v.e.mu.Lock()
	joined := make(map[string]membership)
	for _, m := range v.u.memberships {
		if m.membership == roomdb.MembershipJoin {
			joined[m.ref.RoomID] = *m
		}
	}
	v.e.mu.Unlock()
	for _, row := range rows {
		d := accountData{room: row.RoomID, typ: row.Type, content: row.Content}
		if row.RoomID == "" {
			p.data = append(p.data, d)
			continue
		}
		x := byRoom[row.RoomID]
		if m, in := joined[row.RoomID]; x == nil && in && v.Filter.Room.PassRoom(row.RoomID) {
			x = &part{membership: m, held: true}
			byRoom[row.RoomID], p.joined = x, append(p.joined, x)
		}
		if x != nil && !v.entered(x) {
			x.data = append(x.data, d)
		}
	}
	return nil
}

// entered tells whether the user came into a room after the token: all of its account data is told then, whenever it was set.
func (v *view) entered(x *part) bool {
	return v.since != nil && x.fresh && x.membership.membership == roomdb.MembershipJoin
}

// readEnteredData reads the account data of rooms that the user has entered.
func (v *view) readEnteredData(ctx context.Context, p *plan) error {
	var entered map[string]*part
	for _, x := range p.joined {
		if v.entered(x) {
			if entered == nil {
				entered = make(map[string]*part)
			}
			entered[x.ref.RoomID] = x
		}
	}
	if len(entered) == 0 {
		return nil
	}
	rows, err := v.e.Accounts.AccountDataOfRooms(ctx, v.u.shard, v.u.id, slices.Collect(maps.Keys(entered)))
	if err != nil {
		return err
	}
	for _, row := range rows {
		x := entered[row.RoomID]
		x.data = append(x.data, accountData{room: row.RoomID, typ: row.Type, content: row.Content})
	}
	return nil
}

// globalData gives the account data events, with commas between them.
func (v *view) globalData(p *plan) []byte {
	var out []byte
	told := v.since != nil // a new client is told the push rules of a user who has none of his own, too
	for _, d := range p.data {
		if d.typ == typePushRules {
			told = true
			var err error
			if d.content, err = pushrule.Content(v.u.id, d.content); err != nil {
				v.e.Log.Error("stored push rules cannot be read", "user", v.u.id, "error", err)
				continue
			}
		}
		if v.Filter.AccountData.Pass(d.typ, v.u.id) {
			out = appendDataEvent(out, d.typ, d.content)
		}
	}
	if !told && v.Filter.AccountData.Pass(typePushRules, v.u.id) {
		if rules, err := pushrule.Content(v.u.id, nil); err == nil {
			out = appendDataEvent(out, typePushRules, rules)
		}
	}
	return out
}

func appendDataEvent(dst []byte, typ string, content []byte) []byte {
	if len(dst) > 0 {
		dst = append(dst, ',')
	}
	dst = append(dst, `{"type":`...)
	dst = canonjson.AppendString(dst, typ)
	dst = append(dst, `,"content":`...)
	dst = append(dst, content...)
	return append(dst, '}')
}
