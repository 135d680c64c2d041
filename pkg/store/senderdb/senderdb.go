package senderdb

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// DB reads and writes for the sender.
type DB struct {
	db *pg.DB
	q  *Queries
}

// NewDB makes a DB.
func NewDB(db *pg.DB) *DB { return &DB{db: db, q: New(db.Primary)} }

// RoomHosts are the other servers in a room.
type RoomHosts struct {
	Room  shard.Nid
	Hosts []string
	// Create is the room's create event; nil if the room's state is not known.
	Create []byte
}

// Hosts reads which other servers are in rooms, those included that have left one after the room's entry in since. They come in the order of rooms.
func (d *DB) Hosts(ctx context.Context, rooms []shard.Nid, since []shard.Pos) ([]RoomHosts, error) {
	out := make([]RoomHosts, len(rooms))
	at := make(map[int64]*RoomHosts, len(rooms))
	p := HostsParams{Rooms: nids(rooms), Since: shard.Vector(since).Int64s()}
	for i, r := range rooms {
		out[i].Room = r
		at[int64(r)] = &out[i]
	}
	rows, err := d.q.Hosts(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("read hosts of rooms: %w", err)
	}
	for _, r := range rows {
		at[r.RoomNid].Hosts = append(at[r.RoomNid].Hosts, r.Host)
	}
	var shared []int64
	for i := range out {
		if len(out[i].Hosts) > 0 {
			shared = append(shared, int64(out[i].Room))
		}
	}
	if len(shared) == 0 {
		return out, nil
	}
	creates, err := d.q.Creates(ctx, shared)
	if err != nil {
		return nil, fmt.Errorf("read create events: %w", err)
	}
	for _, c := range creates {
		at[c.RoomNid].Create = c.Json
	}
	return out, nil
}

// StillThere tells which of some servers are in a room, or have left it after a position.
func (d *DB) StillThere(ctx context.Context, room shard.Nid, since shard.Pos, hosts []string) ([]string, error) {
	out, err := d.q.StillThere(ctx, StillThereParams{RoomNid: int64(room), Since: int64(since), Hosts: hosts})
	if err != nil {
		return nil, fmt.Errorf("read hosts of a room: %w", err)
	}
	return out, nil
}

// AllHosts reads all other servers that were ever in a room with this one.
func (d *DB) AllHosts(ctx context.Context) ([]string, error) {
	out, err := d.q.AllHosts(ctx)
	if err != nil {
		return nil, fmt.Errorf("read hosts: %w", err)
	}
	return out, nil
}

// RoomsOfUser reads the rooms that a user of this server is in.
func (d *DB) RoomsOfUser(ctx context.Context, user string) ([]shard.Nid, error) {
	rows, err := d.q.RoomsOfUser(ctx, user)
	return rooms(rows), pg.Wrap("read rooms of a user", err)
}

// RoomsOf reads the rooms that a server is in.
func (d *DB) RoomsOf(ctx context.Context, host string) ([]shard.Nid, error) {
	rows, err := d.q.RoomsOf(ctx, host)
	return rooms(rows), pg.Wrap("read rooms of a host", err)
}

// RoomsOfGuests reads the rooms that users of another server are in, ascending.
func (d *DB) RoomsOfGuests(ctx context.Context, host string, users []string) (map[string][]shard.Nid, error) {
	rows, err := d.q.RoomsOfGuests(ctx, RoomsOfGuestsParams{Host: host, Users: users})
	if err != nil {
		return nil, fmt.Errorf("read rooms of users elsewhere: %w", err)
	}
	out := map[string][]shard.Nid{}
	for _, r := range rows {
		out[r.UserID] = append(out[r.UserID], shard.Nid(r.RoomNid))
	}
	return out, nil
}

// Event is an event that a destination is owed.
type Event struct {
	Room    shard.Nid
	Pos     shard.Pos
	EventID string
	Sender  string
	JSON    []byte
}

// Departures reads the events by which this server made users of another go, beyond positions of the rooms' shards, the oldest first.
func (d *DB) Departures(ctx context.Context, server, host string, above map[shard.ID]shard.Pos, most int) ([]Event, error) {
	p := DeparturesParams{Server: server, Host: host, Most: int32(most)}
	p.Shards, p.Above = split(above)
	rows, err := d.q.Departures(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("read departures: %w", err)
	}
	out := make([]Event, len(rows))
	for i, r := range rows {
		out[i] = Event{Room: shard.Nid(r.RoomNid), Pos: shard.Pos(r.Pos), EventID: r.EventID, JSON: r.Json}
	}
	return out, nil
}

// Latest reads of each room the latest event of this server, and the latest change of a membership, as far as they are beyond the room's entry
// in above. They come in the order of their positions.
func (d *DB) Latest(ctx context.Context, server string, rooms []shard.Nid, above []shard.Pos) ([]Event, error) {
	rows, err := d.q.Latest(ctx, LatestParams{Server: server, Rooms: nids(rooms), Above: shard.Vector(above).Int64s()})
	if err != nil {
		return nil, fmt.Errorf("read latest events: %w", err)
	}
	out := make([]Event, len(rows))
	for i, r := range rows {
		out[i] = Event{Room: shard.Nid(r.RoomNid), EventID: r.EventID, Sender: r.Sender, JSON: r.Json}
		if r.Ord != nil {
			out[i].Pos = shard.Pos(*r.Ord)
		}
	}
	return out, nil
}

// ListChange is a user of this server whose devices changed.
type ListChange struct {
	User string
	Pos  shard.Pos
}

// ListsChanged reads whose devices changed beyond positions of the users' shards, of the users that share a room with a server.
func (d *DB) ListsChanged(ctx context.Context, server, host string, above map[shard.ID]shard.Pos) ([]ListChange, error) {
	p := ListsChangedParams{Server: server, Host: host}
	p.Shards, p.Above = split(above)
	rows, err := d.q.ListsChanged(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("read changes of devices: %w", err)
	}
	out := make([]ListChange, len(rows))
	for i, r := range rows {
		out[i] = ListChange{r.UserID, shard.Pos(r.Pos)}
	}
	return out, nil
}

// Behind is that a destination has acknowledged nothing beyond a position of a shard.
type Behind struct {
	Destination string
	Shard       shard.ID
	Pos         shard.Pos
}

// LoadBehind reads where the destinations of a slot stand that are behind its cursor.
func (d *DB) LoadBehind(ctx context.Context, slot int16) ([]Behind, error) {
	rows, err := d.q.Behind(ctx, slot)
	if err != nil {
		return nil, fmt.Errorf("read destinations: %w", err)
	}
	out := make([]Behind, len(rows))
	for i, r := range rows {
		out[i] = Behind{r.Destination, shard.ID(r.Shard), shard.Pos(r.Pos)}
	}
	return out, nil
}

// Save stores a slot's cursor, and where destinations stand: set and dropped are changes of what LoadBehind reads. held is false, and
// nothing is stored, if the slot is not held under the role's epoch.
func (d *DB) Save(ctx context.Context, role shard.Role, consumer string, at shard.Vector, set, dropped []Behind) (held bool, err error) {
	err = pg.InTx(ctx, d.db.Primary, func(tx pgx.Tx) error {
		q := New(tx)
		if held, err = fenced(ctx, q, role); err != nil || !held {
			return err
		}
		if len(set) > 0 {
			p := SetBehindParams{Slot: role.Slot}
			for _, b := range set {
				p.Destinations, p.Shards = append(p.Destinations, b.Destination), append(p.Shards, int16(b.Shard))
				p.Positions = append(p.Positions, int64(b.Pos))
			}
			if err := q.SetBehind(ctx, p); err != nil {
				return err
			}
		}
		if len(dropped) > 0 {
			p := DropBehindParams{Slot: role.Slot}
			for _, b := range dropped {
				p.Destinations, p.Shards = append(p.Destinations, b.Destination), append(p.Shards, int16(b.Shard))
			}
			if err := q.DropBehind(ctx, p); err != nil {
				return err
			}
		}
		p := SaveCursorParams{Consumer: consumer, Positions: at.Int64s()}
		for s := range at {
			p.Shards = append(p.Shards, int16(s))
		}
		return q.SaveCursor(ctx, p)
	})
	if err != nil {
		return false, fmt.Errorf("store destinations: %w", err)
	}
	return held, nil
}

func fenced(ctx context.Context, q *Queries, role shard.Role) (bool, error) {
	rows, err := q.FenceSlot(ctx, FenceSlotParams{Role: role.Name, Slot: role.Slot, Epoch: int64(role.Epoch)})
	return len(rows) == 1, err
}

// EDU is what a destination must be sent besides events.
type EDU struct {
	Seq     int64
	Type    string
	Content []byte
}

// EDUs reads the oldest EDUs that are queued for a destination of a shard.
func (d *DB) EDUs(ctx context.Context, s shard.ID, destination string, most int) ([]EDU, error) {
	rows, err := d.q.EDUs(ctx, EDUsParams{Shard: int16(s), Destination: destination, Limit: int32(most)})
	if err != nil {
		return nil, fmt.Errorf("read EDUs: %w", err)
	}
	out := make([]EDU, len(rows))
	for i, r := range rows {
		out[i] = EDU(r)
	}
	return out, nil
}

// TrimEDUs deletes no more than most of the EDUs of a shard that wait for a destination for which more than keep wait, the oldest of them.
func (d *DB) TrimEDUs(ctx context.Context, s shard.ID, keep int64, most int) (int64, error) {
	n, err := d.q.TrimEDUs(ctx, TrimEDUsParams{Shard: int16(s), Keep: keep, Most: int32(most)})
	if err != nil {
		return 0, fmt.Errorf("trim EDUs: %w", err)
	}
	return n, nil
}

// EDUDestinations reads for whom EDUs are queued in a shard.
func (d *DB) EDUDestinations(ctx context.Context, s shard.ID) ([]string, error) {
	list, err := d.q.EDUDestinations(ctx, int16(s))
	return list, pg.Wrap("read destinations of EDUs", err)
}

// DropEDUs deletes EDUs that a destination has acknowledged; held is false, and nothing is deleted, if the slot is not held under the
// role's epoch.
func (d *DB) DropEDUs(ctx context.Context, role shard.Role, destination string, seqs []int64) (held bool, err error) {
	err = pg.InTx(ctx, d.db.Primary, func(tx pgx.Tx) error {
		q := New(tx)
		if held, err = fenced(ctx, q, role); err != nil || !held {
			return err
		}
		return q.DropEDUs(ctx, DropEDUsParams{Shard: role.Slot, Destination: destination, Seqs: seqs})
	})
	if err != nil {
		return false, fmt.Errorf("drop EDUs: %w", err)
	}
	return held, nil
}

func split(above map[shard.ID]shard.Pos) (shards []int16, positions []int64) {
	for s, pos := range above {
		shards, positions = append(shards, int16(s)), append(positions, int64(pos))
	}
	return shards, positions
}

func nids(list []shard.Nid) []int64 {
	out := make([]int64, len(list))
	for i, n := range list {
		out[i] = int64(n)
	}
	return out
}

func rooms(list []int64) []shard.Nid {
	out := make([]shard.Nid, len(list))
	for i, n := range list {
		out[i] = shard.Nid(n)
	}
	return out
}
