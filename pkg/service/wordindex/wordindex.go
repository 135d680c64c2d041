// Package wordindex keeps what is found by words in step with the log: messages, names and topics of rooms, and the people of the
// directory.
//
// It learns of changes from the log and from nowhere else: [Events] and [People] are consumers for follow.Durable, under a role that one
// worker holds at a time. What they write they read anew from the rows of rooms and accounts, in the transaction that stores their
// place: to be told twice, or by two workers while the role moves, does no harm.
//
// Their methods are called from their followers' goroutines. The package is imported by the composition root; it knows no HTTP.
package wordindex

import (
	"context"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/searchdb"
)

// Events is the consumer that indexes events. It implements follow.Consumer.
type Events struct {
	index *searchdb.Indexer
	idle
}

// NewEvents makes an Events.
func NewEvents(index *searchdb.Indexer, now func() time.Time) *Events {
	return &Events{index, idle{now, map[shard.ID]time.Time{}}}
}

// idle says when a place is stored though nothing is written with it: now and then, so that who searches need not wait for entries
// that have no words, and they cost few transactions.
type idle struct {
	now  func() time.Time
	told map[shard.ID]time.Time
}

const idleEvery = 100 * time.Millisecond

// skip tells whether a place with nothing to write is left for the next.
func (i *idle) skip(s shard.ID, nothing bool) bool {
	now := i.now()
	if nothing && now.Sub(i.told[s]) < idleEvery {
		return true
	}
	i.told[s] = now
	return false
}

// EventFilter says which entries Events wants. It is a follow.Filter.
func EventFilter(k entry.Kind, _ shard.Nid, subject []byte) bool {
	return k == entry.KindEvent && len(subject) == 0 // changes of memberships have no words
}

// keys is which part of which state event or message has words.
func keyOf(typ string, state bool) (searchdb.Key, string) {
	switch {
	case typ == "m.room.message" && !state:
		return searchdb.KeyBody, "body"
	case typ == "m.room.name" && state:
		return searchdb.KeyName, "name"
	case typ == "m.room.topic" && state:
		return searchdb.KeyTopic, "topic"
	}
	return "", ""
}

// Apply implements follow.Consumer.
func (x *Events) Apply(ctx context.Context, b follow.Batch) error {
	var add []searchdb.Event
	var redacted []searchdb.EventOf
	for i := range b.Entries {
		e := &b.Entries[i]
		if e.Kind != entry.KindEvent {
			continue
		}
		body, err := entry.DecodeEvent(&e.Entry)
		if err != nil {
			return fmt.Errorf("index event: %w", err)
		}
		if body.Redacts != "" {
			redacted = append(redacted, searchdb.EventOf{Room: e.Room, ID: body.Redacts})
		}
		key, field := keyOf(body.Type, body.StateKey != nil)
		if key == "" {
			continue
		}
		if text := textOf(e.JSON, field); text != "" {
			add = append(add, searchdb.Event{Nid: e.Event, Room: e.Room, Sender: body.Sender, Key: key, Text: text})
		}
	}
	if x.skip(b.Shard, len(add)+len(redacted) == 0) {
		return nil
	}
	return x.index.Events(ctx, searchdb.EventsConsumer, b.Shard, b.Last, add, redacted)
}

// textOf gives a field of an event's content; an event that replaces another is indexed with what it puts in its place, and a topic also
// with its plain text.
func textOf(event []byte, field string) string {
	var e struct {
		Content map[string]any `json:"content"`
	}
	if json.Unmarshal(event, &e) != nil {
		return ""
	}
	if anew, ok := e.Content["m.new_content"].(map[string]any); ok {
		if s, ok := anew[field].(string); ok {
			return s
		}
	}
	s, _ := e.Content[field].(string)
	if field == "topic" {
		if plain := plainTopic(e.Content["m.topic"]); plain != s {
			s += "\n" + plain
		}
	}
	return s
}

// plainTopic gives the text/plain of an m.topic.
func plainTopic(topic any) string {
	t, _ := topic.(map[string]any)
	texts, _ := t["m.text"].([]any)
	for _, text := range texts {
		r, _ := text.(map[string]any)
		kind, given := r["mimetype"]
		if body, ok := r["body"].(string); ok && (!given || kind == "text/plain") {
			return body
		}
	}
	return ""
}

// People is the consumer that keeps the user directory. It implements follow.Consumer.
type People struct {
	index  *searchdb.Indexer
	shards shard.Map
	idle
}

// NewPeople makes a People.
func NewPeople(index *searchdb.Indexer, m shard.Map, now func() time.Time) *People {
	return &People{index, m, idle{now, map[shard.ID]time.Time{}}}
}

// PeopleFilter says which entries People wants. It is a follow.Filter.
func PeopleFilter(k entry.Kind, _ shard.Nid, _ []byte) bool {
	return k == entry.KindEvent || k == entry.KindProfile || k == entry.KindSession
}

// Apply implements follow.Consumer.
func (x *People) Apply(ctx context.Context, b follow.Batch) error {
	c := searchdb.Changes{
		Local: map[string]bool{}, Remote: map[searchdb.RoomUser]bool{}, Rules: map[shard.Nid]bool{}, Ours: map[shard.Nid]bool{},
	}
	for i := range b.Entries {
		e := &b.Entries[i]
		var err error
		switch e.Kind {
		case entry.KindEvent:
			err = x.event(&c, e)
		case entry.KindProfile:
			var body *entry.ProfileBody
			if body, err = entry.DecodeProfile(&e.Entry); err == nil && (body.Field == "displayname" || body.Field == "avatar_url") {
				c.Local[e.Subject] = true
			}
		case entry.KindSession:
			var body *entry.SessionBody
			if body, err = entry.DecodeSession(&e.Entry); err == nil && body.GetChange() == entry.SessionDeactivated {
				c.Local[e.Subject] = true
			}
		}
		if err != nil {
			return fmt.Errorf("keep user directory: %w", err)
		}
	}
	if x.skip(b.Shard, len(c.Local)+len(c.Remote)+len(c.Rules)+len(c.Ours) == 0) {
		return nil
	}
	return x.index.People(ctx, searchdb.PeopleConsumer, b.Shard, b.Last, c)
}

func (x *People) event(c *searchdb.Changes, e *entry.At) error {
	body, err := entry.DecodeEvent(&e.Entry)
	if err != nil {
		return err
	}
	if body.StateKey != nil {
		x.state(c, e.Room, body.Type, *body.StateKey)
	}
	for _, s := range body.StateChanges {
		x.state(c, e.Room, s.Type, s.StateKey)
	}
	if body.Redacts != "" { // of a member, or of the rules: rare enough to be looked at
		c.Rules[e.Room] = true
	}
	return nil
}

func (x *People) state(c *searchdb.Changes, room shard.Nid, typ, key string) {
	switch typ {
	case "m.room.join_rules", "m.room.history_visibility":
		c.Rules[room] = true
	case "m.room.member":
		if x.shards.Local(key) {
			c.Local[key], c.Ours[room] = true, true
			return
		}
		c.Remote[searchdb.RoomUser{Room: room, User: key}] = true
	}
}
