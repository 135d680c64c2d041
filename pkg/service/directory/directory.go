// Package directory answers what must be known of rooms before a command on one is sent, by whoever serves a request: where an
// alias of this server points, who may manage it, and a few facts of a room for which its writer is not asked.
//
// It reads what is committed and decides nothing for good: a room's writer judges each command by its own state. It keeps
// nothing and is safe for concurrent use. It is imported by api/ and the composition root.
package directory

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/eventauth"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// Directory reads the directory and the rooms.
type Directory struct {
	shards shard.Map
	db     *roomdb.Reader
}

// New makes a Directory. db reads the primary: what a client has just written must be seen.
func New(shards shard.Map, db *roomdb.Reader) *Directory { return &Directory{shards: shards, db: db} }

// Resolve gives the room that an alias of this server points to, and who made the alias; ok is false if there is no such alias.
func (d *Directory) Resolve(ctx context.Context, alias id.RoomAlias) (room id.RoomID, creator id.UserID, ok bool, err error) {
	a, ok, err := d.db.Alias(ctx, d.shards.Of(string(alias)), string(alias))
	if err != nil || !ok {
		return "", "", false, err
	}
	return id.RoomID(a.RoomID), id.UserID(a.Creator), true, nil
}

// Joined tells whether a user is joined to a room.
func (d *Directory) Joined(ctx context.Context, room id.RoomID, user id.UserID) (bool, error) {
	return d.db.Joined(ctx, d.shards.Of(string(room)), string(room), string(user))
}

// Known tells whether this server knows a room.
func (d *Directory) Known(ctx context.Context, room id.RoomID) (bool, error) {
	_, _, ok, err := d.room(ctx, room)
	return ok, err
}

// Sender tells who sent an event of a room; ok is false if the room has no such event that a client could have seen.
func (d *Directory) Sender(ctx context.Context, room id.RoomID, eventID id.EventID) (sender id.UserID, ok bool, err error) {
	ref, rules, ok, err := d.room(ctx, room)
	if err != nil || !ok {
		return "", false, err
	}
	rows, err := d.db.EventsByID(ctx, ref.Nid, []string{string(eventID)})
	if err != nil || len(rows) == 0 || !rows[0].Placed {
		return "", false, err
	}
	e, err := event.ParseTrusted(rules, rows[0].JSON, eventID)
	if err != nil {
		return "", false, fmt.Errorf("read event %s: %w", eventID, err)
	}
	return e.Sender(), true, nil
}

// Related gives events of a room that relate to one of it, in one of some ways ("*": in any), and are not redacted: the latest, at most count.
func (d *Directory) Related(ctx context.Context, room id.RoomID, parent id.EventID, relTypes []string, count int) ([]id.EventID, error) {
	ref, _, ok, err := d.room(ctx, room)
	if err != nil || !ok {
		return nil, err
	}
	q := roomdb.ChildQuery{Room: ref.Nid, Parent: string(parent), Above: math.MinInt64, Below: math.MaxInt64, Count: count}
	types := []shard.Nid{0}
	if !slices.Contains(relTypes, "*") {
		atoms, err := d.db.AtomsByName(ctx, d.shards.Of(string(room)), relTypes)
		if err != nil {
			return nil, err
		}
		types = slices.Sorted(maps.Values(atoms)) // of what is no atom there are no events
	}
	var out []id.EventID
	for _, q.RelType = range types {
		rows, err := d.db.Children(ctx, &q)
		if err != nil {
			return nil, err
		}
		for i := range rows {
			out = append(out, id.EventID(rows[i].EventID))
		}
	}
	return out[:min(len(out), count)], nil
}

// ThreadPlace is where an event stands in its room, and in which thread.
type ThreadPlace struct {
	Ord  int64
	Root id.EventID // of the thread that it is in; empty: none
}

// Thread tells where an event of a room stands; ok is false if the room has no such event that a client could have seen.
func (d *Directory) Thread(ctx context.Context, room id.RoomID, eventID id.EventID) (at ThreadPlace, ok bool, err error) {
	ref, _, ok, err := d.room(ctx, room)
	if err != nil || !ok {
		return at, false, err
	}
	rows, err := d.db.EventsByID(ctx, ref.Nid, []string{string(eventID)})
	if err != nil || len(rows) == 0 || !rows[0].Placed {
		return at, false, err
	}
	at.Ord = rows[0].Ord
	if rows[0].Relation == roomdb.RelationThread {
		at.Root = id.EventID(rows[0].RelatesTo)
	}
	return at, true, nil
}

// Latest gives the place of a room's latest event; 0 if there is none.
func (d *Directory) Latest(ctx context.Context, room id.RoomID) (int64, error) {
	ref, _, ok, err := d.room(ctx, room)
	if err != nil || !ok {
		return 0, err
	}
	rows, err := d.db.TimelineBackward(ctx, ref.Nid, roomdb.End, roomdb.Beginning, 1)
	if err != nil || len(rows) == 0 {
		return 0, err
	}
	return rows[0].Ord, nil
}

// MayManage tells whether a user is joined to a room and has the power to change its canonical alias, and so how it is found.
func (d *Directory) MayManage(ctx context.Context, room id.RoomID, user id.UserID) (bool, error) {
	return d.maySet(ctx, room, user, event.TypeCanonicalAlias)
}

// MayInvite tells whether a user is joined to a room and has the power to invite others.
func (d *Directory) MayInvite(ctx context.Context, room id.RoomID, user id.UserID) (bool, error) {
	st, ok, err := d.powers(ctx, room, user)
	return ok && st.CanInvite(user), err
}

// maySet tells whether a user is joined to a room and has the power to send state events of a type.
func (d *Directory) maySet(ctx context.Context, room id.RoomID, user id.UserID, typ string) (bool, error) {
	st, ok, err := d.powers(ctx, room, user)
	return ok && st.CanSend(user, typ, true), err
}

// powers gives what says who may do what in a room; ok is false if the user is not joined to it.
func (d *Directory) powers(ctx context.Context, room id.RoomID, user id.UserID) (st eventauth.AuthState, ok bool, err error) {
	joined, err := d.Joined(ctx, room, user)
	if err != nil || !joined {
		return st, false, err
	}
	ref, rules, ok, err := d.room(ctx, room)
	if err != nil || !ok {
		return st, false, err
	}
	create, levels := roomdb.StateName{Type: event.TypeCreate}, roomdb.StateName{Type: event.TypePowerLevels}
	at, err := d.db.CurrentStateAt(ctx, ref.Nid, []roomdb.StateName{create, levels})
	if err != nil {
		return st, false, err
	}
	for name, e := range at {
		parsed, err := event.ParseTrusted(rules, e.JSON, id.EventID(e.EventID))
		if err != nil {
			return st, false, fmt.Errorf("read event %s: %w", e.EventID, err)
		}
		switch reduced := eventauth.Reduce(parsed); name {
		case create:
			st.Create = reduced.Create()
		case levels:
			st.Power = reduced.PowerLevels()
		}
	}
	return st, true, nil
}

// CanonicalAlias gives the content of a room's m.room.canonical_alias; ok is false if it has none.
func (d *Directory) CanonicalAlias(ctx context.Context, room id.RoomID) (content []byte, ok bool, err error) {
	content, err = d.content(ctx, room, event.TypeCanonicalAlias)
	return content, content != nil, err
}

// content gives the content of a room's state event of a type with an empty key, nil if there is none.
func (d *Directory) content(ctx context.Context, room id.RoomID, typ string) ([]byte, error) {
	ref, rules, ok, err := d.room(ctx, room)
	if err != nil || !ok {
		return nil, err
	}
	name := roomdb.StateName{Type: typ}
	at, err := d.db.CurrentStateAt(ctx, ref.Nid, []roomdb.StateName{name})
	if err != nil {
		return nil, err
	}
	e, ok := at[name]
	if !ok {
		return nil, nil
	}
	parsed, err := event.ParseTrusted(rules, e.JSON, id.EventID(e.EventID))
	if err != nil {
		return nil, fmt.Errorf("read event %s: %w", e.EventID, err)
	}
	if e.RedactedBy != 0 {
		parsed = parsed.Redact()
	}
	return parsed.Content(), nil
}

// named gives the text at a path in such a content, "" if there is none.
func (d *Directory) named(ctx context.Context, room id.RoomID, typ string, path ...string) (string, error) {
	value, err := d.content(ctx, room, typ)
	for _, name := range path {
		value, _ = canonjson.Get(value, name)
	}
	s, _ := canonjson.String(value)
	return s, err
}

func (d *Directory) room(ctx context.Context, room id.RoomID) (roomdb.RoomRef, *roomver.Rules, bool, error) {
	ref, ok, err := d.db.Room(ctx, d.shards.Of(string(room)), string(room))
	if err != nil || !ok {
		return ref, nil, false, err
	}
	rules, ok := roomver.Get(roomver.Version(ref.Version))
	if !ok {
		return ref, nil, false, fmt.Errorf("room %s: unknown version %q", room, ref.Version)
	}
	return ref, rules, true, nil
}
