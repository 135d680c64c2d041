package feddb

import (
	"context"
	"fmt"

	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// Hosts reads which other servers are in a room.
func (d *DB) Hosts(ctx context.Context, room shard.Nid) ([]string, error) {
	hosts, err := d.q.HostsOf(ctx, int64(room))
	if err != nil {
		return nil, fmt.Errorf("read hosts: %w", err)
	}
	return hosts, nil
}

// HostInRoom tells whether a server has a user in a room.
func (d *DB) HostInRoom(ctx context.Context, room shard.Nid, host string) (bool, error) {
	in, err := d.q.HostInRoom(ctx, HostInRoomParams{Host: host, RoomNid: int64(room)})
	if err != nil {
		return false, fmt.Errorf("read hosts: %w", err)
	}
	return in, nil
}

// RoomsOfHost reads the rooms that a server has users in.
func (d *DB) RoomsOfHost(ctx context.Context, host string) ([]shard.Nid, error) {
	rows, err := d.q.RoomsOfHost(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("read rooms of a host: %w", err)
	}
	out := make([]shard.Nid, len(rows))
	for i, r := range rows {
		out[i] = shard.Nid(r)
	}
	return out, nil
}

// OwnEvent is an event of this server that a destination is owed.
type OwnEvent struct {
	Room    shard.Nid
	Ord     int64
	EventID string
	JSON    []byte
}

// LastOwn reads the latest event of this server in each of some rooms, if it is beyond the room's entry in above.
func (d *DB) LastOwn(ctx context.Context, server string, rooms []shard.Nid, above []int64) ([]OwnEvent, error) {
	p := LastOwnParams{Server: server, Above: above}
	for _, r := range rooms {
		p.Rooms = append(p.Rooms, int64(r))
	}
	rows, err := d.q.LastOwn(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("read own events: %w", err)
	}
	out := make([]OwnEvent, len(rows))
	for i, r := range rows {
		out[i] = OwnEvent{Room: shard.Nid(r.RoomNid), EventID: r.EventID, JSON: r.Json}
		if r.Ord != nil {
			out[i].Ord = *r.Ord
		}
	}
	return out, nil
}

// Behind is where a destination stands that has not acknowledged all it is owed.
type Behind struct {
	Destination string
	Shard       shard.ID
	Pos         shard.Pos
}

// LoadBehind reads the destinations that are behind.
func (d *DB) LoadBehind(ctx context.Context) ([]Behind, error) {
	rows, err := d.q.Behind(ctx)
	if err != nil {
		return nil, fmt.Errorf("read destinations: %w", err)
	}
	out := make([]Behind, len(rows))
	for i, r := range rows {
		out[i] = Behind{r.Destination, shard.ID(r.Shard), shard.Pos(r.Pos)}
	}
	return out, nil
}

// SaveBehind stores where destinations stand, and forgets those that are behind no more.
func (d *DB) SaveBehind(ctx context.Context, behind []Behind, caughtUp []string) error {
	if len(caughtUp) > 0 {
		if err := d.q.NotBehind(ctx, caughtUp); err != nil {
			return fmt.Errorf("store destinations: %w", err)
		}
	}
	if len(behind) == 0 {
		return nil
	}
	var p SetBehindParams
	for _, b := range behind {
		p.Destinations, p.Shards = append(p.Destinations, b.Destination), append(p.Shards, int16(b.Shard))
		p.Positions = append(p.Positions, int64(b.Pos))
	}
	if err := d.q.SetBehind(ctx, p); err != nil {
		return fmt.Errorf("store destinations: %w", err)
	}
	return nil
}

// OutgoingEDU is an EDU that a destination is owed.
type OutgoingEDU struct {
	Seq     int64
	Type    string
	Content []byte
}

// EDUs reads what a destination is owed besides events, oldest first.
func (d *DB) EDUs(ctx context.Context, destination string, most int) ([]OutgoingEDU, error) {
	rows, err := d.q.EDUsFor(ctx, EDUsForParams{Destination: destination, Limit: int32(most)})
	if err != nil {
		return nil, fmt.Errorf("read EDUs: %w", err)
	}
	out := make([]OutgoingEDU, len(rows))
	for i, r := range rows {
		out[i] = OutgoingEDU(r)
	}
	return out, nil
}

// EDUDestinations reads who is owed EDUs.
func (d *DB) EDUDestinations(ctx context.Context) ([]string, error) {
	list, err := d.q.EDUDestinations(ctx)
	if err != nil {
		return nil, fmt.Errorf("read destinations: %w", err)
	}
	return list, nil
}

// DropEDUs deletes what a destination has acknowledged.
func (d *DB) DropEDUs(ctx context.Context, destination string, seqs []int64) error {
	if err := d.q.DropEDUs(ctx, DropEDUsParams{Destination: destination, Seqs: seqs}); err != nil {
		return fmt.Errorf("drop EDUs: %w", err)
	}
	return nil
}

// EventNear finds the event of a room that is nearest to a time, at it or after it, or before it.
func (d *DB) EventNear(ctx context.Context, room shard.Nid, ts int64, backward bool) (eventID string, at int64, ok bool, err error) {
	if backward {
		row, err := d.q.EventAtOrBefore(ctx, EventAtOrBeforeParams{RoomNid: int64(room), At: ts})
		ok, err = found(err)
		return row.EventID, row.Ts, ok, err
	}
	row, err := d.q.EventAtOrAfter(ctx, EventAtOrAfterParams{RoomNid: int64(room), At: ts})
	ok, err = found(err)
	return row.EventID, row.Ts, ok, err
}

func found(err error) (bool, error) {
	switch {
	case pg.IsNoRows(err):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("read event: %w", err)
	}
	return true, nil
}

// KnownEvents leaves out of a list the events that are not stored.
func (d *DB) KnownEvents(ctx context.Context, room shard.Nid, eventIDs []string) ([]string, error) {
	known, err := d.q.KnownEvents(ctx, KnownEventsParams{RoomNid: int64(room), EventIds: eventIDs})
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	return known, nil
}
