package msync

import (
	"context"
	"io"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/pushrule"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// How much of an answer is made at a time. What is longer is written as it is made.
const (
	pieceRooms = 64
	pieceSize  = 512 << 10
)

// answer makes the body and gives it, if it is short or there is no writer; else it is written piece by piece, and not given: then no more of it
// is held than a piece, and a reader who is slow keeps nobody from the database. told is false if, after filtering, it says nothing; then
// nothing is written.
func (v *view) answer(ctx context.Context, p *plan, to io.Writer) (body []byte, told bool, err error) {
	m := &making{view: v, first: p, reads: p.reads() || v.Filter.Room.Timeline.NeedsRelations()}
	written := false
	for {
		if err := m.inTurn(ctx, to == nil); err != nil {
			return nil, false, err
		}
		if m.done && !written {
			return m.out, m.told, nil
		}
		if !m.told {
			continue // what there is belongs to an answer that may not be given
		}
		if _, err := to.Write(m.out); err != nil {
			return nil, false, err
		}
		if m.out, written = m.out[:0], true; m.done {
			return nil, true, nil
		}
	}
}

// making is an answer that is being made.
type making struct {
	*view
	first    *plan // of the first try to begin
	reads    bool
	begun    bool
	sections []section // that are not told yet
	out      []byte    // what has been made and is not written
	rooms    bool      // some are told
	told     bool      // something is told
	done     bool
}

// section is rooms of one membership.
type section struct {
	name  string
	parts []*part // that are not told yet
	make  func(context.Context, *part) ([]byte, error)
	begun bool
}

// inTurn makes the next piece of the answer, or all of it.
func (m *making) inTurn(ctx context.Context, all bool) error {
	if m.reads {
		// Those who read the database take turns, lest many who come at once exhaust it.
		if err := m.e.turns.enter(ctx, m.u.id); err != nil {
			return err
		}
		defer m.e.turns.leave()
		weight := &m.e.reading
		if m.since == nil {
			weight = &m.e.beginning
		}
		leave, err := m.e.Gate.Enter(ctx, weight)
		if err != nil {
			return err
		}
		length := int64(-1)
		defer func() { leave(length) }()
		if err := m.pieces(ctx, all); err != nil {
			return err
		}
		length = int64(len(m.out))
		return nil
	}
	return m.pieces(ctx, all)
}

// pieces makes a piece, or all that are left.
func (m *making) pieces(ctx context.Context, all bool) error {
	for {
		if err := m.read(ctx); err != nil || m.done || !all {
			return err
		}
	}
}

// read makes a piece, where it can be read.
func (m *making) read(ctx context.Context) error {
	if m.since != nil || m.e.Replica == nil {
		return m.piece(ctx)
	}
	return m.e.Replica.Read(ctx, shard.Heads{Incarnation: m.upper.Incarnation, Positions: m.upper.Positions.Clone()}, m.piece)
}

// piece makes the next piece. It may be called again when it has failed, for it goes on from what it has made.
func (m *making) piece(ctx context.Context) error {
	if !m.begun {
		p := m.first
		if m.first = nil; p == nil { // each try has a plan of its own, which an answer adds to
			p = m.view.plan()
		}
		if err := m.begin(ctx, p); err != nil {
			return err
		}
		m.begun = true
	}
	for left, from := pieceRooms, len(m.out); ; {
		for len(m.sections) > 0 && len(m.sections[0].parts) == 0 {
			if m.sections[0].begun {
				m.out = append(m.out, '}')
			}
			m.sections = m.sections[1:]
		}
		if len(m.sections) == 0 {
			m.end()
			return nil
		}
		if left <= 0 || len(m.out)-from >= pieceSize {
			return nil
		}
		n, err := m.some(ctx, left)
		if err != nil {
			return err
		}
		left -= n
	}
}

// begin makes what is told beside the rooms.
func (m *making) begin(ctx context.Context, p *plan) error {
	if p.readData {
		if err := m.readData(ctx, p); err != nil {
			return err
		}
	}
	if err := m.readEnteredData(ctx, p); err != nil {
		return err
	}
	changed, left, err := m.deviceLists(ctx, p)
	if err != nil {
		return err
	}
	messages, err := m.toDevice(ctx, p)
	if err != nil {
		return err
	}
	if err := m.countUnread(ctx, p.joined); err != nil {
		return err
	}
	m.telling = m.recall()
	data := m.globalData(p)
	m.told = len(data)+len(messages)+len(changed)+len(left)+len(p.presence) > 0 || p.keysChanged
	b := append(make([]byte, 0, 1024+len(data)+len(p.presence)+len(messages)), `{"account_data":{"events":[`...)
	b = append(b, data...)
	b = append(b, `]},"presence":{"events":[`...)
	b = append(b, p.presence...)
	b = append(b, `]},"to_device":{"events":[`...)
	b = append(b, messages...)
	b = append(b, `]},"device_lists":{"changed":`...)
	b = appendUsers(b, changed)
	b = append(b, `,"left":`...)
	b = appendUsers(b, left)
	b = append(b, '}', ',')
	m.out = append(p.keyCounts.append(b), `,"rooms":{`...)
	m.sections = []section{
		{name: "join", parts: p.joined, make: m.joinedRoom},
		{name: "invite", parts: p.invited, make: m.invitedRoom},
		{name: "knock", parts: p.knocked, make: m.knockedRoom},
		{name: "leave", parts: p.left, make: m.leftRoom},
	}
	for i := range m.sections {
		slices.SortFunc(m.sections[i].parts, func(a, b *part) int { return strings.Compare(a.ref.RoomID, b.ref.RoomID) })
	}
	return nil
}

// end makes what comes after the rooms: the token, so that no cut answer has one, and which says what the rooms have told.
func (m *making) end() {
	m.remember()
	m.out = append(m.out, `},"next_batch":`...)
	m.out = append(canonjson.AppendString(m.out, m.upper.Encode()), '}')
	m.done = true
}

// some tells the next rooms of a section, of which there must be some, and gives how many they were.
func (m *making) some(ctx context.Context, most int) (int, error) {
	s := &m.sections[0]
	bodies := make([][]byte, min(len(s.parts), most))
	n, size, err := sideBySide(ctx, len(bodies), pieceSize, func(i int) bool { return !s.parts[i].held }, func(ctx context.Context, i int) (int, error) {
		b, err := s.make(ctx, s.parts[i])
		bodies[i] = b
		return len(b), err
	})
	if err != nil {
		return 0, err
	}
	m.out = slices.Grow(m.out, size+64*n)
	for i, b := range bodies[:n] {
		if b != nil { // else there is nothing to tell
			m.tellRoom(s, s.parts[i].ref.RoomID, b)
		}
	}
	s.parts = s.parts[n:]
	return n, nil
}

// sideBySide makes what is told of rooms, in their order, of several at a time if the database is read for them, until it is as long as that. It gives
// of how many it is made, and how long it is.
func sideBySide(
	ctx context.Context, rooms, enough int, reads func(i int) bool, tell func(ctx context.Context, i int) (length int, err error),
) (n, length int, err error) {
	var size atomic.Int64
	one := func(ctx context.Context, i int) error {
		length, err := tell(ctx, i)
		size.Add(int64(length))
		return err
	}
	var g *errgroup.Group
	reading := ctx
	for ; n < rooms && err == nil && reading.Err() == nil && size.Load() < int64(enough); n++ {
		if !reads(n) {
			err = one(ctx, n)
			continue
		}
		if g == nil {
			g, reading = errgroup.WithContext(ctx)
			g.SetLimit(readers)
		}
		i, ctx := n, reading
		g.Go(func() error { return one(ctx, i) })
	}
	if g != nil {
		if failed := g.Wait(); err == nil {
			err = failed
		}
	}
	if err == nil {
		err = ctx.Err()
	}
	return n, int(size.Load()), err
}

// tellRoom appends a room, and what a section begins with before its first.
func (m *making) tellRoom(s *section, room string, body []byte) {
	if m.rooms { // in this section or before
		m.out = append(m.out, ',')
	}
	if !s.begun {
		m.out = append(append(append(m.out, '"'), s.name...), `":{`...)
	}
	s.begun, m.rooms, m.told = true, true, true
	m.out = append(append(canonjson.AppendString(m.out, room), ':'), body...)
}

// reads tells whether the database is read.
func (p *plan) reads() bool {
	return p.readData || p.readMessages || p.readLists || len(p.invited)+len(p.knocked)+len(p.left) > 0 ||
		slices.ContainsFunc(p.joined, func(x *part) bool { return !x.held })
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
