package sender

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/senderdb"
)

// none stands for a shard in which a destination is owed nothing.
const none = shard.Pos(-1)

// floors writes into at, for each shard, the position beyond which a destination has not acknowledged something; none where it has all. With
// what is soft, receipts count too.
func (d *destination) floors(at shard.Vector, soft bool) {
	for i := range at {
		at[i] = none
	}
	lower := func(s shard.ID, pos shard.Pos) {
		if at[s] == none || pos < at[s] {
			at[s] = pos
		}
	}
	for s, pos := range d.owed {
		lower(s, pos)
	}
	for s, pos := range d.planned {
		lower(s, pos)
	}
	for _, it := range d.queue {
		lower(it.shard, it.pos-1)
	}
	for _, e := range d.edus {
		if e.durable || soft && e.pos > 0 {
			lower(e.shard, e.pos-1)
		}
	}
}

// quiet tells whether a destination is owed nothing that has a place.
func (d *destination) quiet() bool { return len(d.owed)+len(d.planned)+len(d.queue)+len(d.edus) == 0 }

// save stores a slot's cursor, and who is behind it. What was begun lately and not failed yet holds the cursor back instead, so that a
// destination that keeps up is never written; but a cursor does not go back, and who is before it has a row.
func (s *Sender) save(ctx context.Context, sl *slot) error {
	sl.saving.Lock()
	defer sl.saving.Unlock()
	s.mu.Lock()
	cursor, set, dropped := s.places(sl)
	changed := !slices.Equal(cursor, sl.saved) || len(set)+len(dropped) > 0
	s.mu.Unlock()
	if !changed {
		return nil
	}
	held, err := s.o.DB.Save(ctx, sl.role, sl.consumer, cursor, set, dropped)
	switch {
	case err != nil:
		return err
	case !held:
		return follow.ErrRoleLost
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sl.saved = cursor
	for _, b := range set {
		d := sl.dests[serverName(b.Destination)]
		if d.saved == nil {
			d.saved = map[shard.ID]shard.Pos{}
		}
		d.saved[b.Shard] = b.Pos
	}
	for _, b := range dropped {
		delete(sl.dests[serverName(b.Destination)].saved, b.Shard)
	}
	return nil
}

// places tells where a slot's cursor is to be, and what of its destinations is to be stored or dropped for that. Under mu.
func (s *Sender) places(sl *slot) (cursor shard.Vector, set, dropped []senderdb.Behind) {
	now := s.o.Now()
	cursor = sl.applied.Clone()
	at := make(shard.Vector, len(cursor))
	for _, d := range sl.dests {
		young := d.failingSince.IsZero() && len(d.owed)+len(d.planned) == 0 && now.Sub(d.busySince) < s.cfg.Patience
		if d.quiet() || !young {
			continue
		}
		d.floors(at, true)
		for sh, pos := range at {
			if pos != none {
				cursor[sh] = min(cursor[sh], pos)
			}
		}
	}
	cursor = cursor.Max(sl.saved)
	for _, d := range sl.dests {
		if d.quiet() && len(d.saved) == 0 {
			continue
		}
		d.floors(at, false)
		for sh, pos := range at {
			id := shard.ID(sh)
			was, is := d.saved[id]
			switch {
			case pos != none && pos < cursor[sh]:
				if !is || was != pos {
					set = append(set, senderdb.Behind{Destination: string(d.name), Shard: id, Pos: pos})
				}
			case is:
				dropped = append(dropped, senderdb.Behind{Destination: string(d.name), Shard: id})
			}
		}
	}
	return cursor, set, dropped
}

// saveAll stores the places of all slots.
func (s *Sender) saveAll(ctx context.Context) {
	s.mu.Lock()
	list := make([]*slot, 0, len(s.slots))
	for _, sl := range s.slots {
		list = append(list, sl)
	}
	s.mu.Unlock()
	for _, sl := range list {
		// A slot that was lost is closed by the leases, which find it out by themselves.
		if err := s.save(ctx, sl); err != nil && ctx.Err() == nil && !errors.Is(err, follow.ErrRoleLost) {
			s.log.Warn("places of destinations cannot be stored", "slot", sl.role.Slot, "error", err)
		}
	}
}

// reset has every destination catch up from where the slot was: a part of the log cannot be read any more.
func (s *Sender) reset(at shard.Heads, hosts []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.incarnation = at.Incarnation
	for _, name := range hosts {
		d := s.destination(serverName(name))
		if d == nil {
			continue
		}
		s.fallBehind(d)
		for sh, pos := range d.slot.applied {
			d.owed = owe(d.owed, shard.ID(sh), pos)
		}
		s.wake(d)
	}
	for _, sl := range s.slots {
		sl.applied = at.Positions.Clone()
	}
}

// waitingNow counts the destinations that wait, and those that are behind.
func (s *Sender) waitingNow() (wait, behind int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sl := range s.slots {
		wait += len(sl.waiting)
		for d := range maps.Values(sl.dests) {
			if len(d.owed)+len(d.planned) > 0 {
				behind++
			}
		}
	}
	return wait, behind
}
