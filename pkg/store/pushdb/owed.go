package pushdb

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// Hearer is a user of this server who is joined to a room.
type Hearer struct {
	Room   shard.Nid
	UserID string
	Since  shard.Pos // of the last change of membership
	Class  Class
}

// Hearers reads the users of this server who are joined to rooms, with their classes before places of the rooms.
func (r *Reader) Hearers(ctx context.Context, rooms []shard.Nid, places []shard.Pos) ([]Hearer, error) {
	p := ListHearersParams{}
	for i := range rooms {
		p.Rooms, p.Places = append(p.Rooms, int64(rooms[i])), append(p.Places, int64(places[i]))
	}
	rows, err := r.q.ListHearers(ctx, p)
	if err != nil {
		return nil, failed("members", err)
	}
	out := make([]Hearer, len(rows))
	for i, g := range rows {
		out[i] = Hearer{shard.Nid(g.RoomNid), g.UserID, shard.Pos(g.Pos), Class(g.Class)}
	}
	return out, nil
}

// Places reads the rooms that a user is joined to, each with all that came since; those of rooms, or all if that is nil.
func (r *Reader) Places(ctx context.Context, userID string, rooms []shard.Nid) ([]Place, error) {
	p := ListPlacesParams{UserID: userID, Every: rooms == nil}
	for _, n := range rooms {
		p.Rooms = append(p.Rooms, int64(n))
	}
	rows, err := r.q.ListPlaces(ctx, p)
	if err != nil {
		return nil, failed("memberships", err)
	}
	out := make([]Place, len(rows))
	for i, g := range rows {
		out[i] = Place{Room: shard.Nid(g.RoomNid), Base: g.Pos, Upto: Forever}
	}
	return out, nil
}

// Joined counts those who are joined to a room.
func (r *Reader) Joined(ctx context.Context, room shard.Nid) (int, error) {
	n, err := r.q.CountJoined(ctx, int64(room))
	if err != nil {
		return 0, failed("members", err)
	}
	return int(n), nil
}

// PusherKey names a pusher.
type PusherKey struct{ UserID, AppID, Pushkey string }

// Owed says since when a pusher has not been reached, and after which positions its user's notifications are still to be sent.
type Owed struct {
	Shard shard.ID // of the user
	PusherKey
	Since int64 // ms
	Above shard.Vector
}

// DB is a Reader that also keeps what pushers are owed.
type DB struct {
	*Reader
	db *pg.DB
}

// NewDB makes a DB.
func NewDB(db *pg.DB) *DB { return &DB{NewReader(db.Primary), db} }

// Owed reads what pushers are owed.
func (d *DB) Owed(ctx context.Context) ([]Owed, error) {
	rows, err := d.q.ListOwed(ctx)
	if err != nil {
		return nil, failed("what pushers are owed", err)
	}
	out := make([]Owed, len(rows))
	for i, g := range rows {
		out[i] = Owed{shard.ID(g.Shard), PusherKey{g.UserID, g.AppID, g.Pushkey}, g.Since, make(shard.Vector, len(g.Above))}
		for s, at := range g.Above {
			out[i].Above[s] = shard.Pos(at)
		}
	}
	return out, nil
}

// SaveOwed stores what pushers are owed, and drops it of those who are owed nothing more, if the role is held under its epoch; else held
// is false.
func (d *DB) SaveOwed(ctx context.Context, role shard.Role, set, drop []Owed) (held bool, err error) {
	err = pg.InTx(ctx, d.db.Primary, func(tx pgx.Tx) error {
		q := New(tx)
		rows, err := q.FenceRole(ctx, FenceRoleParams{Role: role.Name, Slot: role.Slot, Epoch: int64(role.Epoch)})
		if held = len(rows) == 1; err != nil || !held {
			return err
		}
		for _, o := range set {
			err := q.SetOwed(ctx, SetOwedParams{
				Shard: int16(o.Shard), UserID: o.UserID, AppID: o.AppID, Pushkey: o.Pushkey, Since: o.Since, Above: o.Above.Int64s(),
			})
			if err != nil {
				return err
			}
		}
		p := DropOwedParams{}
		for _, o := range drop {
			p.Shards, p.Users = append(p.Shards, int16(o.Shard)), append(p.Users, o.UserID)
			p.Apps, p.Keys = append(p.Apps, o.AppID), append(p.Keys, o.Pushkey)
		}
		return q.DropOwed(ctx, p)
	})
	if err != nil {
		return false, fmt.Errorf("store what pushers are owed: %w", err)
	}
	return held, nil
}
