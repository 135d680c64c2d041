package searchdb

import (
	"context"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// Indexer writes what is found. Its methods may be called again with the same.
type Indexer struct {
	db     pg.Beginner
	shards shard.Map
}

// NewIndexer makes an Indexer on the primary.
func NewIndexer(db pg.Beginner, m shard.Map) *Indexer { return &Indexer{db: db, shards: m} }

// Event is an event that has words.
type Event struct {
	Nid, Room shard.Nid
	Sender    string
	Key       Key
	Text      string
}

// EventOf names an event of a room.
type EventOf struct {
	Room shard.Nid
	ID   string
}

// Events stores events that have words, and forgets redacted ones.
func (x *Indexer) Events(ctx context.Context, add []Event, redacted []EventOf) error {
	var p AddEventsParams
	for i := range add {
		e := &add[i]
		p.Nids, p.Words = append(p.Nids, int64(e.Nid)), append(p.Words, eventWords(e))
	}
	var d DropEventsParams
	for _, e := range redacted {
		d.Rooms, d.Ids = append(d.Rooms, int64(e.Room)), append(d.Ids, e.ID)
	}
	return x.write(ctx, "events", func(q *Queries) error {
		if len(add) > 0 {
			if err := q.AddEvents(ctx, p); err != nil {
				return err
			}
		}
		if len(redacted) > 0 {
			return q.DropEvents(ctx, d)
		}
		return nil
	})
}

func eventWords(e *Event) pgtype.TSVector {
	return Words([]string{roomLabel(e.Room), keyLabel(e.Key), senderLabel(e.Sender)}, Text{e.Text, 'A'})
}

func (x *Indexer) write(ctx context.Context, what string, f func(q *Queries) error) error {
	if err := pg.InTx(ctx, x.db, func(tx pgx.Tx) error { return f(New(tx)) }); err != nil {
		return fmt.Errorf("index %s: %w", what, err)
	}
	return nil
}

// RoomUser is a user in a room.
type RoomUser struct {
	Room shard.Nid
	User string
}

// Changes is what may have changed of the directory: it is looked at anew.
type Changes struct {
	// Local are users of this server, whose profiles or accounts changed, or who came into a room.
	Local map[string]bool
	// Remote are users of other servers whose membership or name in a room changed.
	Remote map[RoomUser]bool
	// Rules are rooms that may have become open, or closed.
	Rules map[shard.Nid]bool
	// Ours are rooms that users of this server came into or left: with the last of them, all others go.
	Ours map[shard.Nid]bool
}

// NewChanges makes a Changes with nothing in it.
func NewChanges() Changes {
	return Changes{Local: map[string]bool{}, Remote: map[RoomUser]bool{}, Rules: map[shard.Nid]bool{}, Ours: map[shard.Nid]bool{}}
}

// Len is how much has changed.
func (c *Changes) Len() int { return len(c.Local) + len(c.Remote) + len(c.Rules) + len(c.Ours) }

// People looks at what may have changed.
func (x *Indexer) People(ctx context.Context, c Changes) error {
	return x.write(ctx, "people", func(q *Queries) error {
		for user := range c.Local {
			if err := x.local(ctx, q, user); err != nil {
				return err
			}
		}
		for m := range c.Remote {
			if err := x.remote(ctx, q, m); err != nil {
				return err
			}
		}
		for room := range c.Rules {
			if err := x.rules(ctx, q, room); err != nil {
				return err
			}
		}
		for room := range c.Ours {
			if err := x.ours(ctx, q, room); err != nil {
				return err
			}
		}
		return nil
	})
}

// local puts in a user of this server as the profile says.
func (x *Indexer) local(ctx context.Context, q *Queries, user string) error {
	s := int16(x.shards.OfUser(user))
	rows, err := q.LocalProfile(ctx, LocalProfileParams{Shard: s, UserID: user})
	if err != nil {
		return err
	}
	if len(rows) == 0 {
		return q.DropPerson(ctx, DropPersonParams{Shard: s, UserID: user})
	}
	return x.put(ctx, q, s, 0, user, text(rows[0].DisplayName), text(rows[0].AvatarUrl))
}

// text reads a JSON string; what is none is nothing.
func text(b []byte) string {
	var s string
	if json.Unmarshal(b, &s) != nil {
		return ""
	}
	return s
}

func (x *Indexer) put(ctx context.Context, q *Queries, s int16, room shard.Nid, user, name, avatar string) error {
	name, avatar = storable(name), storable(avatar)
	return q.PutPerson(ctx, PutPersonParams{
		Shard: s, RoomNid: int64(room), UserID: user, DisplayName: name, AvatarUrl: avatar, Words: wordsOf(user, name),
	})
}

func wordsOf(user, name string) pgtype.TSVector {
	local, _, _ := strings.Cut(strings.TrimPrefix(user, "@"), ":")
	return Words(nil, Text{name, 'A'}, Text{local, 'B'})
}

// storable leaves out what PostgreSQL's text cannot hold.
func storable(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\ufffd"), "\x00", "")
}

func (x *Indexer) remote(ctx context.Context, q *Queries, m RoomUser) error {
	s := int16(m.Room.Shard())
	rows, err := q.CurrentMember(ctx, CurrentMemberParams{RoomNid: int64(m.Room), UserID: m.User})
	if err != nil {
		return err
	}
	if len(rows) > 0 {
		ours, err := q.HasLocal(ctx, int64(m.Room))
		if err != nil || ours {
			if err != nil {
				return err
			}
			return x.putMember(ctx, q, s, m, rows[0])
		}
	}
	return q.DropPerson(ctx, DropPersonParams{Shard: s, RoomNid: int64(m.Room), UserID: m.User})
}

func (x *Indexer) putMember(ctx context.Context, q *Queries, s int16, m RoomUser, event []byte) error {
	name, avatar := called(event)
	return x.put(ctx, q, s, m.Room, m.User, name, avatar)
}

// called reads what a member event calls its user.
func called(event []byte) (name, avatar string) {
	var e struct {
		Content struct {
			Name   any `json:"displayname"`
			Avatar any `json:"avatar_url"`
		} `json:"content"`
	}
	_ = json.Unmarshal(event, &e) // what cannot be read has no name
	name, _ = e.Content.Name.(string)
	avatar, _ = e.Content.Avatar.(string)
	return storable(name), storable(avatar)
}

// rules looks whether anybody may join or read a room.
func (x *Indexer) rules(ctx context.Context, q *Queries, room shard.Nid) error {
	rows, err := q.RoomRules(ctx, RoomRulesParams{RoomNid: int64(room), Shard: int16(room.Shard())})
	if err != nil {
		return err
	}
	open := false
	for _, r := range rows {
		var e struct {
			Content struct {
				Rule any `json:"join_rule"`
				Seen any `json:"history_visibility"`
			} `json:"content"`
		}
		_ = json.Unmarshal(r.Json, &e) // what cannot be read opens nothing
		open = open || r.Type == "m.room.join_rules" && e.Content.Rule == "public" ||
			r.Type == "m.room.history_visibility" && e.Content.Seen == "world_readable"
	}
	if open {
		return q.PutOpen(ctx, int64(room))
	}
	return q.DropOpen(ctx, int64(room))
}

// memberPage is how many members of a room are read at once.
const memberPage = 500

// ours brings in the users of other servers of a room that we share, or takes them out of one that we do not.
func (x *Indexer) ours(ctx context.Context, q *Queries, room shard.Nid) error {
	has, err := q.HasLocal(ctx, int64(room))
	if err != nil {
		return err
	}
	s := int16(room.Shard())
	if !has {
		return q.DropPeopleOf(ctx, DropPeopleOfParams{Shard: s, RoomNid: int64(room)})
	}
	known, err := q.HasPeople(ctx, HasPeopleParams{Shard: s, RoomNid: int64(room)})
	if err != nil || known { // since then, each is followed
		return err
	}
	if err := x.rules(ctx, q, room); err != nil { // they may have come with the room
		return err
	}
	for after := ""; ; {
		rows, err := q.RemoteMembers(ctx, RemoteMembersParams{RoomNid: int64(room), After: after, Most: memberPage})
		if err != nil {
			return err
		}
		p := PutPeopleParams{Shard: s, RoomNid: int64(room)}
		for _, r := range rows {
			name, avatar := called(r.Json)
			p.UserIds, p.Names, p.Avatars = append(p.UserIds, r.UserID), append(p.Names, name), append(p.Avatars, avatar)
			p.Words = append(p.Words, wordsOf(r.UserID, name))
			after = r.UserID
		}
		if len(rows) > 0 {
			if err := q.PutPeople(ctx, p); err != nil {
				return err
			}
		}
		if len(rows) < memberPage {
			return nil
		}
	}
}
