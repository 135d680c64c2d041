package appservicedb

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// ErrMoved says that somebody else has prepared another transaction.
var ErrMoved = errors.New("another transaction has been prepared meanwhile")

// DB reads and writes for the sender to application services.
type DB struct {
	db *pg.DB
	q  *Queries
}

// NewDB makes a DB.
func NewDB(db *pg.DB) *DB { return &DB{db: db, q: New(db.Primary)} }

// consumer is the name of an application service's cursor.
func consumer(name string) string { return "appservice/" + name }

// Register notes that application services are registered. One that was not before is told of what comes after heads.
func (d *DB) Register(ctx context.Context, ids []string, heads shard.Vector) error {
	p := InitCursorsParams{Positions: heads.Int64s()}
	for _, name := range ids {
		p.Consumers = append(p.Consumers, consumer(name))
	}
	for s := range heads {
		p.Shards = append(p.Shards, int16(s))
	}
	err := pg.InTx(ctx, d.db.Primary, func(tx pgx.Tx) error {
		q := New(tx)
		if err := q.Register(ctx, ids); err != nil {
			return err
		}
		return q.InitCursors(ctx, p)
	})
	return pg.Wrap("register application services", err)
}

// Forget forgets application services that have not been registered for some time, but those named: the log is no longer kept for them. It
// tells which.
func (d *DB) Forget(ctx context.Context, but []string, age time.Duration) (gone []string, err error) {
	err = pg.InTx(ctx, d.db.Primary, func(tx pgx.Tx) error {
		q := New(tx)
		if gone, err = q.Forget(ctx, ForgetParams{Ids: but, Age: age.Milliseconds()}); err != nil || len(gone) == 0 {
			return err
		}
		names := make([]string, len(gone))
		for i, name := range gone {
			names[i] = consumer(name)
		}
		return q.DropCursors(ctx, names)
	})
	return gone, pg.Wrap("forget application services", err)
}

// State is how far an application service has been served.
type State struct {
	// Txn is the number of the last transaction, and Body its content unless it is known to have been taken.
	Txn  int64
	Body []byte
	// At is up to where the log is in transactions, this one included.
	At shard.Vector
}

// Load reads the state of a registered application service.
func (d *DB) Load(ctx context.Context, name string, shards int) (State, error) {
	s := State{At: make(shard.Vector, shards)}
	row, err := d.q.Load(ctx, name)
	if err != nil {
		return s, fmt.Errorf("read the state of an application service: %w", err)
	}
	s.Txn, s.Body = row.Txn, row.Body
	places, err := d.q.LoadCursor(ctx, consumer(name))
	for _, p := range places {
		if int(p.Shard) < shards {
			s.At[p.Shard] = shard.Pos(p.Pos)
		}
	}
	return s, pg.Wrap("read the place of an application service", err)
}

// Prepare stores the transaction after the last one, which has been taken, with the place in the log up to which it reaches. held is false,
// and nothing was stored, if the role is not held under its epoch.
func (d *DB) Prepare(ctx context.Context, role shard.Role, name string, s State) (held bool, err error) {
	return d.save(ctx, role, name, s.At, func(q *Queries) error {
		n, err := q.Prepare(ctx, PrepareParams{ID: name, Txn: s.Txn, Before: s.Txn - 1, Body: s.Body})
		if err == nil && n == 0 {
			err = ErrMoved
		}
		return err
	})
}

// Pass stores a place in the log up to which there was nothing to be sent.
func (d *DB) Pass(ctx context.Context, role shard.Role, name string, at shard.Vector) (held bool, err error) {
	return d.save(ctx, role, name, at, func(*Queries) error { return nil })
}

func (d *DB) save(ctx context.Context, role shard.Role, name string, at shard.Vector, also func(q *Queries) error) (held bool, err error) {
	p := SaveCursorParams{Consumer: consumer(name), Positions: at.Int64s()}
	for s := range at {
		p.Shards = append(p.Shards, int16(s))
	}
	err = pg.InTx(ctx, d.db.Primary, func(tx pgx.Tx) error {
		q := New(tx)
		rows, err := q.FenceRole(ctx, FenceRoleParams{Role: role.Name, Slot: role.Slot, Epoch: int64(role.Epoch)})
		if held = len(rows) == 1; err != nil || !held {
			return err
		}
		if err := also(q); err != nil {
			return err
		}
		return q.SaveCursor(ctx, p)
	})
	return held && err == nil, pg.Wrap("store what an application service is sent", err)
}

// Taken notes that a transaction has been taken.
func (d *DB) Taken(ctx context.Context, name string, txn int64) error {
	return pg.Wrap("note a transaction as taken", d.q.Taken(ctx, TakenParams{ID: name, Txn: txn}))
}

// Member is a user of this server.
type Member struct {
	User string
	// Changed says that the membership has changed since. Before is then the event that said what it was; nil if there was none.
	Changed bool
	Before  []byte
}

// Members reads the users of this server who are in rooms, and those whose membership has changed after the room's position in since.
func (d *DB) Members(ctx context.Context, rooms []shard.Nid, since []shard.Pos) (map[shard.Nid][]Member, error) {
	p := MembersParams{Since: shard.Vector(since).Int64s()}
	for _, r := range rooms {
		p.Rooms = append(p.Rooms, int64(r))
	}
	rows, err := d.q.Members(ctx, p)
	out := make(map[shard.Nid][]Member, len(rooms))
	for _, r := range rows {
		m := Member{User: r.UserID, Changed: r.Changed}
		if len(r.Before) > 0 {
			m.Before = r.Before
		}
		out[shard.Nid(r.RoomNid)] = append(out[shard.Nid(r.RoomNid)], m)
	}
	return out, pg.Wrap("read members of rooms", err)
}

// Aliases reads the aliases of rooms that this server has.
func (d *DB) Aliases(ctx context.Context, rooms []string) (map[string][]string, error) {
	rows, err := d.q.Aliases(ctx, rooms)
	out := make(map[string][]string, len(rows))
	for _, r := range rows {
		out[r.RoomID] = append(out[r.RoomID], r.Alias)
	}
	return out, pg.Wrap("read aliases of rooms", err)
}

// RoomIDs reads the ids of rooms.
func (d *DB) RoomIDs(ctx context.Context, rooms []shard.Nid) (map[shard.Nid]string, error) {
	list := make([]int64, len(rooms))
	for i, r := range rooms {
		list[i] = int64(r)
	}
	rows, err := d.q.RoomIDs(ctx, list)
	out := make(map[shard.Nid]string, len(rows))
	for _, r := range rows {
		out[shard.Nid(r.Nid)] = r.RoomID
	}
	return out, pg.Wrap("read room ids", err)
}

// Place is a room that a user is in.
type Place struct {
	User   string
	Room   shard.Nid
	RoomID string
}

// RoomsOf reads which rooms users are in.
func (d *DB) RoomsOf(ctx context.Context, users []string) ([]Place, error) {
	rows, err := d.q.RoomsOf(ctx, users)
	out := make([]Place, len(rows))
	for i, r := range rows {
		out[i] = Place{r.UserID, shard.Nid(r.Nid), r.RoomID}
	}
	return out, pg.Wrap("read rooms of users", err)
}

// Publish lists a room of a shard for a network of an application service, or takes it off that list.
func (d *DB) Publish(ctx context.Context, service, network, room string, at shard.ID, listed bool) error {
	if listed {
		return pg.Wrap("list a room", d.q.List(ctx, ListParams{Service: service, Network: network, RoomID: room, Shard: int16(at)}))
	}
	return pg.Wrap("take a room off a list", d.q.Unlist(ctx, UnlistParams{Service: service, Network: network, RoomID: room}))
}

// Listed is a room that is listed for a network.
type Listed struct {
	Nid     shard.Nid
	RoomID  string
	Version string
	// Published says that the public directory has it too.
	Published bool
}

// ListedFor reads the rooms that are listed for a network of an application service.
func (d *DB) ListedFor(ctx context.Context, service, network string) ([]Listed, error) {
	return d.listed(ctx, ListedParams{Service: service, Network: network})
}

// AllListed reads the rooms that are listed for any network.
func (d *DB) AllListed(ctx context.Context) ([]Listed, error) {
	return d.listed(ctx, ListedParams{Every: true})
}

func (d *DB) listed(ctx context.Context, p ListedParams) ([]Listed, error) {
	rows, err := d.q.Listed(ctx, p)
	out := make([]Listed, len(rows))
	for i, r := range rows {
		out[i] = Listed{shard.Nid(r.Nid), r.RoomID, r.Version, r.Published}
	}
	return out, pg.Wrap("read listed rooms", err)
}
