// Package relation reads how an event relates to another one, and says which relations count.
//
// Guarantees: pure, without state, safe for concurrent use. Content is canonical JSON, as events hold
// it; what is malformed is no relation.
//
// Imported by everything but infra/; imports matrix/*.
package relation

import (
	"strings"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
)

// The relation types of the specification; others may be met.
const (
	Annotation = "m.annotation"
	Reference  = "m.reference"
	Replace    = "m.replace"
	Thread     = "m.thread"
)

// A Relation is what content["m.relates_to"] says.
type Relation struct {
	// Type and Parent are rel_type and event_id; both are set or neither.
	Type   string
	Parent id.EventID
	// Key is an annotation's.
	Key string
	// ReplyTo is the event of m.in_reply_to, beside a relation or alone.
	ReplyTo id.EventID
	// FallingBack: in a thread, ReplyTo is there only for clients that know no threads.
	FallingBack bool
}

// Parse reads the relation of a content; ok is false if there is none, neither a relation nor a reply.
func Parse(content []byte) (r Relation, ok bool) {
	relates, _ := canonjson.Get(content, "m.relates_to")
	if !canonjson.IsObject(relates) {
		return Relation{}, false
	}
	for it := canonjson.Walk(relates); it.Next(); {
		switch {
		case it.KeyIs("event_id"):
			r.Parent = eventID(it.Value())
		case it.KeyIs("is_falling_back"):
			r.FallingBack, _ = canonjson.Bool(it.Value())
		case it.KeyIs("key"):
			r.Key = name(it.Value())
		case it.KeyIs("m.in_reply_to"):
			if v, found := canonjson.Get(it.Value(), "event_id"); found {
				r.ReplyTo = eventID(v)
			}
		case it.KeyIs("rel_type"):
			r.Type = name(it.Value())
		}
	}
	if r.Type == "" || r.Parent == "" {
		r.Type, r.Parent, r.Key, r.FallingBack = "", "", "", false
	}
	if r.Type != Annotation {
		r.Key = ""
	}
	if r.Type != Thread {
		r.FallingBack = false
	}
	return r, r.Type != "" || r.ReplyTo != ""
}

// Of reads the relation of an event. State events have none that servers aggregate, but keep the one
// that they state.
func Of(e *event.Event) (Relation, bool) { return Parse(e.Content()) }

// eventID reads an event id, empty if the value is none.
func eventID(value []byte) id.EventID {
	s := name(value)
	if len(s) < 2 || len(s) > id.MaxLength || s[0] != '$' {
		return ""
	}
	return id.EventID(s)
}

// name reads a text, empty if the value is none, or one with NUL, which no name holds.
func name(value []byte) string {
	s, ok := canonjson.String(value)
	if !ok || strings.IndexByte(s, 0) >= 0 {
		return ""
	}
	return s
}

// IsReply tells whether the event is a reply that its author meant.
func (r Relation) IsReply() bool { return r.ReplyTo != "" && !r.FallingBack }

// ThreadRoot returns the root of the thread that the event is in.
func (r Relation) ThreadRoot() (root id.EventID, ok bool) {
	if r.Type != Thread {
		return "", false
	}
	return r.Parent, true
}

// MayBeThreadRoot tells whether a thread may begin at an event: not at one that has a relation itself.
func MayBeThreadRoot(root *event.Event) bool {
	r, _ := Of(root)
	return r.Type == ""
}

// MayReplace tells whether an event may be a replacement at all, as far as it can be told without its parent: it is no state
// event, and has a new content, which in encrypted events is out of sight.
func MayReplace(replacement *event.Event) bool {
	if r, _ := Of(replacement); r.Type != Replace || replacement.IsState() {
		return false
	}
	if replacement.Type() == event.TypeEncrypted {
		return true
	}
	content, _ := canonjson.Get(replacement.Content(), "m.new_content")
	return canonjson.IsObject(content)
}

// ValidReplacement tells whether replacement replaces the content of original: same room, sender and
// type, neither a state event, the original not a replacement itself, and a new content, which in
// encrypted events is out of sight.
func ValidReplacement(original, replacement *event.Event) bool {
	if r, _ := Of(replacement); !MayReplace(replacement) || r.Parent != original.EventID() {
		return false
	}
	if first, _ := Of(original); first.Type == Replace {
		return false
	}
	return original.RoomID() == replacement.RoomID() && original.Sender() == replacement.Sender() &&
		original.Type() == replacement.Type() && !original.IsState()
}
