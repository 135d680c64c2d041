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

// HostIn tells which of rooms users of another server are in.
func (d *DB) HostIn(ctx context.Context, host string, rooms []shard.Nid) (map[shard.Nid]bool, error) {
	nids := make([]int64, len(rooms))
	for i, n := range rooms {
		nids[i] = int64(n)
	}
	rows, err := d.q.HostInRooms(ctx, HostInRoomsParams{Host: host, RoomNids: nids})
	if err != nil {
		return nil, fmt.Errorf("read rooms of a server: %w", err)
	}
	out := make(map[shard.Nid]bool, len(rows))
	for _, n := range rows {
		out[shard.Nid(n)] = true
	}
	return out, nil
}

// HostInRoom tells whether a server has a user in a room.
func (d *DB) HostInRoom(ctx context.Context, room shard.Nid, host string) (bool, error) {
	in, err := d.q.HostInRoom(ctx, HostInRoomParams{Host: host, RoomNid: int64(room)})
	if err != nil {
		return false, fmt.Errorf("read hosts: %w", err)
	}
	return in, nil
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
