package sender

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// gatherSlots is how long it is waited for further slots when one has come: a worker that starts takes many.
const gatherSlots = 50 * time.Millisecond

// follow follows the log from the place that the slot has which is furthest behind, and begins anew whenever slots have come.
func (s *Sender) follow(ctx context.Context) {
	pause := time.Duration(0)
	for ctx.Err() == nil {
		from, some := s.place()
		if !some {
			select {
			case <-ctx.Done():
				return
			case <-s.changed:
				if lifecycle.Sleep(ctx, gatherSlots) != nil {
					return
				}
			}
			continue
		}
		err := s.followFrom(ctx, from)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			pause = 0
			_ = lifecycle.Sleep(ctx, gatherSlots) // the loop looks at ctx
			continue
		}
		pause = min(max(100*time.Millisecond, 2*pause), 10*time.Second)
		s.log.Error("the sender does not follow the log and begins anew", "error", err)
		_ = lifecycle.Sleep(ctx, pause)
	}
}

// place gives from where the slots have to be told; false if there are none.
func (s *Sender) place() (shard.Heads, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := shard.Heads{Incarnation: s.incarnation}
	for _, sl := range s.slots {
		switch {
		case sl.closing:
		case h.Positions == nil:
			h.Positions = sl.applied.Clone()
		default:
			h.Positions = h.Positions.Min(sl.applied)
		}
	}
	return h, h.Positions != nil
}

// followFrom follows until slots have come, ctx ends, or it fails.
func (s *Sender) followFrom(ctx context.Context, from shard.Heads) error {
	f := follow.New(s.cfg.Follow, follow.Options{
		Source: s.o.Source, Stream: s.o.Stream, Consumer: (*feed)(s), Filter: s.wants, From: &from, Log: s.log,
	})
	if m := s.o.Metrics; m != nil {
		c := f.Metrics(RoleName)
		if m.Registerer().Register(c) == nil {
			defer m.Registerer().Unregister(c)
		}
	}
	fctx, cancel := context.WithCancel(ctx)
	defer cancel()
	started, ended := make(chan error, 1), make(chan struct{})
	go func() { // waited for below
		defer close(ended)
		started <- f.Start(fctx)
	}()
	var err error
	select {
	case err = <-started:
		if err == nil {
			select {
			case <-s.changed:
			case <-ctx.Done():
			case err = <-f.Failed():
			}
		}
	case <-s.changed:
	case <-ctx.Done():
	}
	cancel()
	<-ended
	if serr := f.Stop(context.WithoutCancel(ctx)); err == nil {
		err = serr
	}
	return err
}

// wants is the follower's filter.
func (s *Sender) wants(k entry.Kind, _ shard.Nid, subject []byte) bool {
	switch k {
	case entry.KindEvent:
		return true
	case entry.KindReceipt:
		return len(subject) == 0 // else it is the reader's own business
	case entry.KindDeviceList:
		return string(serverPart(subject)) == string(s.o.Server)
	case entry.KindOutgoing:
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.slots[int(s.o.Shards.Of(string(subject)))] != nil
	case entry.KindAccountData, entry.KindProfile, entry.KindSession, entry.KindKeyCounts, entry.KindToDevice,
		entry.KindThreadSubscription:
	}
	return false
}

func serverPart(user []byte) []byte {
	for i, c := range user {
		if c == ':' {
			return user[i+1:]
		}
	}
	return nil
}

func serverOf(user string) id.ServerName {
	_, server, _ := strings.Cut(user, ":")
	return id.ServerName(server)
}

func serverName(s string) id.ServerName { return id.ServerName(s) }

// feed is the sender as a consumer of the log. Its methods are called by the follower alone.
type feed Sender

// Apply implements follow.Consumer. What fails is tried again: nothing is queued before all that it takes was read.
func (f *feed) Apply(ctx context.Context, b follow.Batch) error {
	s := (*Sender)(f)
	gen := s.rooms.generation()
	for i := range b.Entries {
		pause := 100 * time.Millisecond
		for {
			err := s.take(ctx, &b.Entries[i], b.Prev, gen)
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			s.log.Warn("what destinations are owed cannot be read and is tried again", "error", err)
			if err := lifecycle.Sleep(ctx, pause); err != nil {
				return err
			}
			pause = min(2*pause, 10*time.Second)
		}
	}
	s.mu.Lock()
	s.incarnation = max(s.incarnation, b.Incarnation)
	for _, sl := range s.slots {
		if sl.takes(b.Shard, b.Prev, b.Last, gen) {
			sl.applied[b.Shard] = b.Last
		}
	}
	s.mu.Unlock()
	s.settle()
	return nil
}

// takes tells whether a slot is to be told of an entry at a position of a batch that begins after prev: it was told all before, it was not told
// this, and it is among the slots of a generation. Under Sender.mu.
func (sl *slot) takes(sh shard.ID, prev, pos shard.Pos, gen int64) bool {
	return !sl.closing && sl.gen <= gen && sl.applied[sh] >= prev && sl.applied[sh] < pos
}

// Reset implements follow.Resetter: what lies between is found by catching up.
func (f *feed) Reset(ctx context.Context, at shard.Heads) error {
	s := (*Sender)(f)
	hosts, err := s.o.DB.AllHosts(ctx)
	if err != nil {
		return err
	}
	s.rooms.drop()
	s.reset(at, hosts)
	return nil
}

// take takes in one entry.
func (s *Sender) take(ctx context.Context, e *entry.At, prev shard.Pos, gen int64) error {
	switch e.Kind {
	case entry.KindEvent:
		return s.takeEvent(ctx, e, prev, gen)
	case entry.KindReceipt:
		return s.takeReceipt(ctx, e, prev, gen)
	case entry.KindDeviceList:
		return s.takeDevices(ctx, e, prev, gen)
	case entry.KindOutgoing:
		s.mu.Lock()
		defer s.mu.Unlock()
		if d := s.destination(serverName(e.Subject)); d != nil {
			d.stored = true
			s.wake(d)
		}
	}
	return nil
}

// told is what destinations are told after an entry.
type told struct {
	item *item
	to   []*destination // of item
	also id.ServerName  // of item too; "" for none
	but  id.ServerName  // not of item
	edus []*edu
	of   []*destination // of edus
}

// tell queues what destinations are told, in the slots that were not told before.
func (s *Sender) tell(e *entry.At, prev shard.Pos, gen int64, t *told) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var also *destination
	if t.also != "" {
		also = s.destination(t.also)
	}
	for _, d := range t.to {
		if d == also {
			also = nil
		}
		if d.name != t.but && d.slot.takes(e.Shard, prev, e.Pos, gen) {
			s.push(d, t.item)
		}
	}
	if also != nil && also.name != t.but && also.slot.takes(e.Shard, prev, e.Pos, gen) {
		s.push(also, t.item)
	}
	for _, d := range t.of {
		if d.slot.takes(e.Shard, prev, e.Pos, gen) {
			for _, x := range t.edus {
				s.pushEDU(d, x)
			}
		}
	}
	for _, sl := range s.slots {
		if sl.takes(e.Shard, prev, e.Pos, gen) {
			sl.applied[e.Shard] = e.Pos
		}
	}
}

func (s *Sender) takeEvent(ctx context.Context, e *entry.At, prev shard.Pos, gen int64) error {
	body, err := entry.DecodeEvent(&e.Entry)
	if err != nil {
		s.log.Error("an event in the log cannot be read and is not sent", "shard", int(e.Shard), "position", int64(e.Pos), "error", err)
		return nil
	}
	sender := serverOf(body.Sender)
	ours := sender == s.o.Server
	passedOn := body.Flags&entry.FlagPassedOn != 0
	if passedOn {
		s.rooms.forget(e.Room) // its members came with it
	}
	comes := ours && body.Membership == event.Join && body.PrevMembership != event.Join
	t := told{item: &item{shard: e.Shard, pos: e.Pos, json: e.JSON}}
	if ours || body.Flags&entry.FlagRelay != 0 {
		lists, err := s.rooms.get(ctx, []shard.Nid{e.Room}, []shard.Pos{e.Pos - 1})
		if err != nil {
			return err
		}
		if comes {
			if err := s.introduce(ctx, &t, e, body, lists[0]); err != nil {
				return err
			}
		}
		if !passedOn {
			t.to, t.also, t.but = lists[0], s.concerned(body), sender
		}
	}
	s.tell(e, prev, gen, &t)
	var changes []change
	if body.Membership != "" && body.StateKey != nil {
		changes = s.membership(changes, *body.StateKey, body.Membership, body.PrevMembership)
	}
	for _, c := range body.StateChanges {
		if c.Type == event.TypeMember {
			changes = s.membership(changes, c.StateKey, c.Membership, c.PrevMembership)
		}
	}
	if len(changes) > 0 {
		s.rooms.apply(e.Room, changes)
	}
	return nil
}

// concerned gives the server whose user an event takes an invitation or knock from, for it may not be in the room.
func (s *Sender) concerned(body *entry.EventBody) id.ServerName {
	if body.StateKey == nil || body.Membership != event.Leave && body.Membership != event.Ban ||
		body.PrevMembership != event.Invite && body.PrevMembership != event.Knock {
		return ""
	}
	host := serverOf(*body.StateKey)
	if host == s.o.Server {
		return ""
	}
	return host
}

// introduce tells the servers in a room that a user of ours comes into of the user's devices, if they shared no room with the user before.
func (s *Sender) introduce(ctx context.Context, t *told, e *entry.At, body *entry.EventBody, hosts []*destination) error {
	if len(hosts) == 0 {
		return nil
	}
	known, err := s.hostsOf(ctx, body.GetStateKey(), e.Room)
	if err != nil {
		return err
	}
	for _, d := range hosts {
		if !known[d] {
			t.of = append(t.of, d)
		}
	}
	if len(t.of) == 0 {
		return nil
	}
	t.edus, err = s.updates(ctx, body.GetStateKey(), e.Shard, e.Pos, nil, false)
	return err
}

// hostsOf gives the destinations that share a room with a user, other than one room.
func (s *Sender) hostsOf(ctx context.Context, user string, but shard.Nid) (map[*destination]bool, error) {
	list, err := s.o.DB.RoomsOfUser(ctx, user)
	if err != nil {
		return nil, err
	}
	return s.hostsIn(ctx, list, but)
}

func (s *Sender) hostsIn(ctx context.Context, list []shard.Nid, but shard.Nid) (map[*destination]bool, error) {
	s.mu.Lock()
	rooms, since := make([]shard.Nid, 0, len(list)), make([]shard.Pos, 0, len(list))
	for _, r := range list {
		if r != but {
			rooms, since = append(rooms, r), append(since, s.since(r.Shard()))
		}
	}
	s.mu.Unlock()
	lists, err := s.rooms.get(ctx, rooms, since)
	if err != nil {
		return nil, err
	}
	out := map[*destination]bool{}
	for _, l := range lists {
		for _, d := range l {
			out[d] = true
		}
	}
	return out, nil
}

// since gives the position of a shard from which on some slot has still to be told. Under mu.
func (s *Sender) since(sh shard.ID) shard.Pos {
	at := shard.Pos(-1)
	for _, sl := range s.slots {
		if at < 0 || sl.applied[sh] < at {
			at = sl.applied[sh]
		}
	}
	return max(at, 0)
}

func (s *Sender) takeReceipt(ctx context.Context, e *entry.At, prev shard.Pos, gen int64) error {
	body, err := entry.DecodeReceipt(&e.Entry)
	if err != nil || body.Kind != "m.read" || serverOf(body.UserId) != s.o.Server {
		return nil //nolint:nilerr // what cannot be read is not sent
	}
	lists, err := s.rooms.get(ctx, []shard.Nid{e.Room}, []shard.Pos{e.Pos - 1})
	if err != nil {
		return err
	}
	if len(lists[0]) == 0 {
		return nil
	}
	s.tell(e, prev, gen, &told{of: lists[0], edus: []*edu{{
		kind: kindReceipt, key: body.RoomId + "\x00" + body.UserId + "\x00" + body.Thread, shard: e.Shard, pos: e.Pos,
		receipt: &receipt{room: body.RoomId, user: body.UserId, thread: body.Thread, event: body.EventId, ts: body.Ts},
	}}})
	return nil
}

func (s *Sender) takeDevices(ctx context.Context, e *entry.At, prev shard.Pos, gen int64) error {
	body, err := entry.DecodeDeviceList(&e.Entry)
	if err != nil {
		s.log.Error("a change of devices in the log cannot be read and is not sent", "shard", int(e.Shard), "position", int64(e.Pos), "error", err)
		return nil
	}
	if len(body.Signed) > 0 { // the signer's own business
		return nil
	}
	hosts, err := s.hostsOf(ctx, e.Subject, 0)
	if err != nil || len(hosts) == 0 {
		return err
	}
	edus, err := s.updates(ctx, e.Subject, e.Shard, e.Pos, body, true)
	if err != nil {
		return err
	}
	t := told{edus: edus}
	for d := range hosts {
		t.of = append(t.of, d)
	}
	s.tell(e, prev, gen, &t)
	return nil
}

// updates makes the EDUs that tell of a user's devices: of a change, or of all if change is nil.
func (s *Sender) updates(ctx context.Context, user string, sh shard.ID, pos shard.Pos, change *entry.DeviceListBody, durable bool) ([]*edu, error) {
	list, err := s.o.Devices.Updates(ctx, id.UserID(user), pos, change)
	if err != nil {
		return nil, fmt.Errorf("devices of %s: %w", user, err)
	}
	out := make([]*edu, len(list))
	for i, u := range list {
		out[i] = &edu{kind: kindKeys, key: user, shard: sh, pos: pos, durable: durable, typ: u.Type, content: u.Content}
		if u.Type == "m.device_list_update" {
			out[i].kind, out[i].key = kindDevice, user+"\x00"+deviceOf(u.Content)
		}
	}
	return out, nil
}
