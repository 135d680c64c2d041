// Package wordindex keeps what is found by words in step with the log: messages, names and topics of rooms, and the people of the
// directory.
//
// It learns of changes from the log and from nowhere else: [Events] and [People] are consumers for follow.Durable, under a role that one
// worker holds at a time. What they are told they gather, and write together [Every] so often, before their place is stored. What they
// write they read anew from the rows of rooms and accounts: to be told twice, or by two workers while the role moves, does no harm.
//
// Their methods are safe for concurrent use. The package is imported by the composition root; it knows no HTTP.
package wordindex

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/searchdb"
)

// Every is how often what was gathered is written. Who searches waits as long for what was said just before.
const Every = 100 * time.Millisecond

// maxGathered is how much is gathered before it is written at once, so that an index that is far behind takes no memory.
const maxGathered = 1000

// Events is the consumer that indexes events. It implements follow.Consumer and follow.Flusher.
type Events struct {
	index *searchdb.Indexer

	mu       sync.Mutex // guards what follows; held while it is written
	add      []searchdb.Event
	redacted []searchdb.EventOf
}

// NewEvents makes an Events.
func NewEvents(index *searchdb.Indexer) *Events { return &Events{index: index} }

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
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.add)+len(x.redacted) >= maxGathered {
		if err := x.flush(ctx); err != nil {
			return err
		}
	}
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
			x.redacted = append(x.redacted, searchdb.EventOf{Room: e.Room, ID: body.Redacts})
		}
		key, field := keyOf(body.Type, body.StateKey != nil)
		if key == "" {
			continue
		}
		if text := textOf(e.JSON, field); text != "" {
			x.add = append(x.add, searchdb.Event{Nid: e.Event, Room: e.Room, Sender: body.Sender, Key: key, Text: text})
		}
	}
	return nil
}

// Flush implements follow.Flusher.
func (x *Events) Flush(ctx context.Context) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.flush(ctx)
}

func (x *Events) flush(ctx context.Context) error {
	if len(x.add)+len(x.redacted) == 0 {
		return nil
	}
	if err := x.index.Events(ctx, x.add, x.redacted); err != nil {
		return err
	}
	clear(x.add) // their texts
	clear(x.redacted)
	x.add, x.redacted = x.add[:0], x.redacted[:0]
	return nil
}

// textOf gives a field of an event's content; an event that replaces another is indexed with what it puts in its place, and a topic also
// with its plain text.
func textOf(event []byte, field string) string {
	content, _ := canonjson.Get(event, "content")
	if anew, ok := canonjson.Get(content, "m.new_content"); ok {
		if s, ok := canonjson.GetString(anew, field); ok {
			return s
		}
	}
	s, _ := canonjson.GetString(content, field)
	if field == "topic" {
		if topic, ok := canonjson.Get(content, "m.topic"); ok {
			if plain := plainTopic(topic); plain != s {
				s += "\n" + plain
			}
		}
	}
	return s
}

// plainTopic gives the text/plain of an m.topic.
func plainTopic(topic []byte) string {
	texts, _ := canonjson.Get(topic, "m.text")
	if !canonjson.IsArray(texts) {
		return ""
	}
	for it := canonjson.Walk(texts); it.Next(); {
		kind, given := canonjson.Get(it.Value(), "mimetype")
		if body, ok := canonjson.GetString(it.Value(), "body"); ok && (!given || string(kind) == `"text/plain"`) {
			return body
		}
	}
	return ""
}

// People is the consumer that keeps the user directory. It implements follow.Consumer and follow.Flusher.
type People struct {
	index  *searchdb.Indexer
	shards shard.Map

	mu      sync.Mutex // guards changes; held while they are written
	changes searchdb.Changes
}

// NewPeople makes a People.
func NewPeople(index *searchdb.Indexer, m shard.Map) *People {
	return &People{index: index, shards: m, changes: searchdb.NewChanges()}
}

// PeopleFilter says which entries People wants. It is a follow.Filter.
func PeopleFilter(k entry.Kind, _ shard.Nid, _ []byte) bool {
	return k == entry.KindEvent || k == entry.KindProfile || k == entry.KindSession
}

// Apply implements follow.Consumer.
func (x *People) Apply(ctx context.Context, b follow.Batch) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.changes.Len() >= maxGathered {
		if err := x.flush(ctx); err != nil {
			return err
		}
	}
	c := &x.changes
	for i := range b.Entries {
		e := &b.Entries[i]
		var err error
		switch e.Kind {
		case entry.KindEvent:
			err = x.event(c, e)
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
	return nil
}

// Flush implements follow.Flusher.
func (x *People) Flush(ctx context.Context) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.flush(ctx)
}

func (x *People) flush(ctx context.Context) error {
	if x.changes.Len() == 0 {
		return nil
	}
	if err := x.index.People(ctx, x.changes); err != nil {
		return err
	}
	x.changes = searchdb.NewChanges()
	return nil
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
