package roomdb

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/heddle-im/heddle/pkg/matrix/stateres"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// StoredEvent is an event's row as it is stored.
type StoredEvent struct {
	Nid, Room shard.Nid
	// Ord is the event's place in its room, and Placed tells whether it has one.
	Ord         int64
	Placed      bool
	EventID     string
	Type        shard.Nid
	StateKey    *shard.Nid
	Sender      shard.Nid
	Depth, TS   int64
	Flags       Flag
	StateBefore shard.Nid
	StateAfter  shard.Nid
	Extremities []shard.Nid
	Prev, Auth  []shard.Nid
	Replaces    shard.Nid
	RedactedBy  shard.Nid
	RelatesTo   string
	RelType     shard.Nid
	Relation    Relation

	SenderDevice, TxnID string
	Counts              []byte
	JSON                []byte // the PDU as it came, even if it is redacted
}

func storedEvent(g *EventColumns) (e StoredEvent, err error) {
	e = StoredEvent{
		Nid: shard.Nid(g.Nid), Room: shard.Nid(g.RoomNid), EventID: g.EventID, Type: shard.Nid(g.Type),
		StateKey: (*shard.Nid)(g.StateKey), Sender: shard.Nid(g.Sender), Depth: g.Depth, TS: g.Ts, Flags: Flag(g.Flags),
		StateBefore: shard.Nid(g.StateBefore), StateAfter: shard.Nid(g.StateAfter), Replaces: shard.Nid(g.Replaces),
		RedactedBy: shard.Nid(g.RedactedBy), Counts: g.Counts, JSON: g.Json, Relation: Relation(g.Relation),
	}
	if g.Ord != nil {
		e.Ord, e.Placed = *g.Ord, true
	}
	if g.RelatesTo != nil {
		e.RelatesTo = *g.RelatesTo
	}
	if g.RelType != nil {
		e.RelType = shard.Nid(*g.RelType)
	}
	if g.SenderDevice != nil {
		e.SenderDevice = *g.SenderDevice
	}
	if g.TxnID != nil {
		e.TxnID = *g.TxnID
	}
	var errs [3]error
	e.Extremities, errs[0] = UnpackNids(g.Extremities)
	e.Prev, errs[1] = UnpackNids(g.Prev)
	e.Auth, errs[2] = UnpackNids(g.Auth)
	if err := errors.Join(errs[:]...); err != nil {
		return e, fmt.Errorf("read event: %w", err)
	}
	return e, nil
}

func storedEvents(rows []EventColumns, err error) ([]StoredEvent, error) {
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	out := make([]StoredEvent, len(rows))
	for i := range rows {
		if out[i], err = storedEvent(&rows[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// EventsByNid reads events, in any order; those that do not exist are left out.
func (r *Reader) EventsByNid(ctx context.Context, nids []shard.Nid) ([]StoredEvent, error) {
	rows, err := r.q.EventsByNid(ctx, ints(nids))
	return storedEvents(rows, err)
}

// EventsByID reads events of a room by their ids, in any order; those that it does not have are left out.
func (r *Reader) EventsByID(ctx context.Context, room shard.Nid, eventIDs []string) ([]StoredEvent, error) {
	rows, err := r.q.EventsByID(ctx, EventsByIDParams{RoomNid: int64(room), EventIds: storable(eventIDs)})
	return storedEvents(rows, err)
}

// EventByIDAnywhere reads the events with an id, of all rooms: there can be several in room versions 1 and 2 only.
func (r *Reader) EventByIDAnywhere(ctx context.Context, eventID string) ([]StoredEvent, error) {
	if strings.IndexByte(eventID, 0) >= 0 {
		return nil, nil
	}
	rows, err := r.q.EventsByIDAnywhere(ctx, eventID)
	return storedEvents(rows, err)
}

// The ends of a room's timeline.
const (
	Beginning int64 = math.MinInt64
	End       int64 = math.MaxInt64
)

// TimelineBackward reads the events of a room with an order key between above and below, both excluded, latest first.
func (r *Reader) TimelineBackward(ctx context.Context, room shard.Nid, below, above int64, count int) ([]StoredEvent, error) {
	rows, err := r.q.TimelineBackward(ctx, TimelineBackwardParams{RoomNid: int64(room), Below: below, Above: above, Count: int32(count)})
	return storedEvents(rows, err)
}

// TimelineForward reads the events of a room with an order key between above and below, both excluded, earliest first.
func (r *Reader) TimelineForward(ctx context.Context, room shard.Nid, above, below int64, count int) ([]StoredEvent, error) {
	rows, err := r.q.TimelineForward(ctx, TimelineForwardParams{RoomNid: int64(room), Below: below, Above: above, Count: int32(count)})
	return storedEvents(rows, err)
}

// Snapshot is a stored state, one link of a chain: step counts the changes since the last full one.
type Snapshot struct {
	Nid   shard.Nid
	Step  int32
	State stateres.State
}

// Snapshots reads a state and those that it is laid over, the full one first, the state itself last. It takes one query, or two
// if the state is not stored in full. Nid 0 is the empty state, which has no snapshots.
func (r *Reader) Snapshots(ctx context.Context, at shard.Nid) ([]Snapshot, error) {
	if at == 0 {
		return nil, nil
	}
	top, err := r.q.GetSnapshot(ctx, int64(at))
	if err != nil {
		return nil, fmt.Errorf("read state %d: %w", at, err)
	}
	chain, err := UnpackNids(top.Chain)
	if err != nil {
		return nil, fmt.Errorf("read state %d: %w", at, err)
	}
	links := make(map[shard.Nid]*ListSnapshotsRow, len(chain)+1)
	if len(chain) > 0 {
		rows, err := r.q.ListSnapshots(ctx, ints(chain))
		if err != nil {
			return nil, fmt.Errorf("read state %d: %w", at, err)
		}
		for i := range rows {
			links[shard.Nid(rows[i].Nid)] = &rows[i]
		}
	}
	links[at] = &ListSnapshotsRow{Nid: top.Nid, Step: top.Step, Entries: top.Entries, Delta: top.Delta}
	out := make([]Snapshot, 0, len(chain)+1)
	var state stateres.State
	for _, n := range append(chain, at) {
		link := links[n]
		if link == nil {
			return nil, fmt.Errorf("read state %d: snapshot %d is missing", at, n)
		}
		changes, err := DecodeDelta(at.Shard(), link.Delta)
		if err != nil {
			return nil, fmt.Errorf("read state %d: %w", n, err)
		}
		state = state.Apply(changes)
		if state.Len() != int(link.Entries) {
			return nil, fmt.Errorf("read state %d: it has %d entries and should have %d", n, state.Len(), link.Entries)
		}
		out = append(out, Snapshot{Nid: n, Step: link.Step, State: state})
	}
	return out, nil
}

// State reads a state by its snapshot's nid.
func (r *Reader) State(ctx context.Context, at shard.Nid) (stateres.State, error) {
	chain, err := r.Snapshots(ctx, at)
	if err != nil || len(chain) == 0 {
		return stateres.State{}, err
	}
	return chain[len(chain)-1].State, nil
}

// RoomState gives the snapshot of the room's state after an event: where the room has no forks the state after the event, for which
// no query is made.
func (r *Reader) RoomState(ctx context.Context, e *StoredEvent) (shard.Nid, error) {
	if len(e.Extremities) <= 1 {
		return e.StateAfter, nil
	}
	n, err := r.q.GetForkedState(ctx, GetForkedStateParams{RoomNid: int64(e.Room), EventNid: int64(e.Nid)})
	ok, err := found("state of a room", err)
	if !ok {
		return e.StateAfter, err
	}
	return shard.Nid(n), nil
}

// StateAsOf gives the snapshot of a room's state as of a place in its order; 0 if nothing had happened by then.
func (r *Reader) StateAsOf(ctx context.Context, room shard.Nid, upto int64) (shard.Nid, error) {
	last, err := r.TimelineBackward(ctx, room, upto+1, Beginning, 1)
	if err != nil || len(last) == 0 {
		return 0, err
	}
	return r.RoomState(ctx, &last[0])
}

// States reads states of one room by their snapshots' nids; those that do not exist are left out, and 0 is empty. It takes two
// queries at most, however many they are.
func (r *Reader) States(ctx context.Context, at []shard.Nid) (map[shard.Nid]stateres.State, error) {
	type link struct {
		row   *ListSnapshotsRow
		chain []shard.Nid
	}
	links := make(map[shard.Nid]*link, len(at))
	read := func(nids []shard.Nid) error {
		if len(nids) == 0 {
			return nil
		}
		rows, err := r.q.ListSnapshots(ctx, ints(nids))
		if err != nil {
			return fmt.Errorf("read states: %w", err)
		}
		for i := range rows {
			chain, err := UnpackNids(rows[i].Chain)
			if err != nil {
				return fmt.Errorf("read state %d: %w", rows[i].Nid, err)
			}
			links[shard.Nid(rows[i].Nid)] = &link{&rows[i], chain}
		}
		return nil
	}
	if err := read(at); err != nil {
		return nil, err
	}
	under := map[shard.Nid]bool{}
	for _, l := range links {
		for _, n := range l.chain {
			under[n] = links[n] == nil
		}
	}
	maps.DeleteFunc(under, func(_ shard.Nid, missing bool) bool { return !missing })
	if err := read(slices.Collect(maps.Keys(under))); err != nil {
		return nil, err
	}
	// A snapshot's chain is that of the last in it and that one: what lies under several is put together once.
	made := map[shard.Nid]stateres.State{0: {}}
	var get func(n shard.Nid) (stateres.State, error)
	get = func(n shard.Nid) (stateres.State, error) {
		if s, ok := made[n]; ok {
			return s, nil
		}
		l := links[n]
		if l == nil {
			return stateres.State{}, fmt.Errorf("read states: snapshot %d is missing", n)
		}
		var s stateres.State
		var err error
		if len(l.chain) > 0 {
			if s, err = get(l.chain[len(l.chain)-1]); err != nil {
				return s, err
			}
		}
		changes, err := DecodeDelta(n.Shard(), l.row.Delta)
		if err != nil {
			return s, fmt.Errorf("read state %d: %w", n, err)
		}
		if s = s.Apply(changes); s.Len() != int(l.row.Entries) {
			return s, fmt.Errorf("read state %d: it has %d entries and should have %d", n, s.Len(), l.row.Entries)
		}
		made[n] = s
		return s, nil
	}
	out := make(map[shard.Nid]stateres.State, len(at))
	for _, n := range at {
		if links[n] == nil && n != 0 {
			continue
		}
		s, err := get(n)
		if err != nil {
			return nil, err
		}
		out[n] = s
	}
	return out, nil
}

// CurrentState reads a room's current state from its own table.
func (r *Reader) CurrentState(ctx context.Context, room shard.Nid) ([]stateres.Pair, error) {
	rows, err := r.q.ListCurrentState(ctx, int64(room))
	return each("current state", rows, err, func(g *ListCurrentStateRow) stateres.Pair {
		return stateres.Pair{Key: stateres.Key{Type: g.Type, StateKey: g.StateKey}, Event: g.EventNid}
	})
}

// StateEvent is an event of the current state.
type StateEvent struct {
	Nid        shard.Nid
	EventID    string
	RedactedBy shard.Nid
	JSON       []byte
}

// CurrentStateEvents reads all events of a room's current state.
func (r *Reader) CurrentStateEvents(ctx context.Context, room shard.Nid) ([]StateEvent, error) {
	rows, err := r.q.AllCurrentState(ctx, int64(room))
	return each("current state", rows, err, func(g *AllCurrentStateRow) StateEvent {
		return StateEvent{shard.Nid(g.Nid), g.EventID, shard.Nid(g.RedactedBy), g.Json}
	})
}

// StateName names an entry of a room's state.
type StateName struct{ Type, StateKey string }

// CurrentStateAt reads the events at some entries of a room's current state; entries that the room does not have are left out.
func (r *Reader) CurrentStateAt(ctx context.Context, room shard.Nid, at []StateName) (map[StateName]StateEvent, error) {
	p := CurrentStateEventsParams{Shard: int16(room.Shard()), RoomNid: int64(room)}
	for _, n := range at {
		if len(storable([]string{n.Type, n.StateKey})) == 2 {
			p.Types, p.StateKeys = append(p.Types, n.Type), append(p.StateKeys, n.StateKey)
		}
	}
	rows, err := r.q.CurrentStateEvents(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("read current state: %w", err)
	}
	out := make(map[StateName]StateEvent, len(rows))
	for _, g := range rows {
		out[StateName{g.TypeName, g.StateKeyName}] = StateEvent{shard.Nid(g.Nid), g.EventID, shard.Nid(g.RedactedBy), g.Json}
	}
	return out, nil
}
