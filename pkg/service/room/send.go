package room

import (
	"context"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/relation"
)

func (c *Send) room() id.RoomID { return c.Room }
func (c *Send) more() int       { return 0 }

func (c *Send) decide(v *view) (plan, error) {
	if c.Type == event.TypeRedaction {
		return c.redaction(v)
	}
	content, err := clientObject(c.Content)
	if err != nil {
		return plan{}, err
	}
	if c.Type == event.TypeReaction {
		if err := c.checkAnnotation(v, content); err != nil {
			return plan{}, err
		}
	}
	return plan{events: []want{want{typ: c.Type, content: content}.by(c.By)}}, nil
}

// redaction treats a redaction that was sent as an ordinary event like any other.
func (c *Send) redaction(v *view) (plan, error) {
	content, err := clientObject(c.Content)
	if err != nil {
		return plan{}, err
	}
	target, ok := canonjson.GetString(content, "redacts")
	if !ok {
		return plan{}, mxerr.New(mxerr.BadJSON, "redacts is missing")
	}
	r := Redact{Room: c.Room, By: c.By, Target: id.EventID(target), Content: content}
	return r.decide(v)
}

// maxAnnotations bounds how many annotations of one event by one user are looked at.
const maxAnnotations = 500

// annotationsFact asks for the keys with which a user has annotated an event.
type annotationsFact struct {
	parent id.EventID
	sender id.UserID
}

func (f annotationsFact) load(ctx context.Context, r *live) (any, error) {
	keys := map[string]bool{}
	names := []string{event.TypeReaction, string(f.sender)}
	if err := r.term.atoms.load(ctx, r.term.host.DB, r.term.shard, names); err != nil {
		return nil, err
	}
	typ, _ := r.term.atoms.get(names[0])
	sender, _ := r.term.atoms.get(names[1])
	if typ == 0 || sender == 0 {
		return keys, nil
	}
	events, err := r.term.host.DB.RelationsBy(ctx, r.nid, string(f.parent), typ, sender, maxAnnotations)
	if err != nil {
		return nil, err
	}
	for _, json := range events {
		content, _ := canonjson.Get(json, "content")
		if rel, ok := relation.Parse(content); ok && rel.Type == relation.Annotation {
			keys[rel.Key] = true
		}
	}
	return keys, nil
}

// checkAnnotation refuses a reaction that the user has made already.
func (c *Send) checkAnnotation(v *view, content []byte) error {
	rel, ok := relation.Parse(content)
	if !ok || rel.Type != relation.Annotation {
		return nil
	}
	if ask[map[string]bool](v, annotationsFact{rel.Parent, c.By.User})[rel.Key] {
		return mxerr.New(mxerr.DuplicateAnnotation, "the event has this reaction of yours already")
	}
	return nil
}

// clientObject gives a client's object in canonical form.
func clientObject(raw []byte) ([]byte, error) {
	if raw == nil {
		raw = []byte("{}")
	}
	if err := object(&raw); err != nil {
		return nil, err
	}
	return raw, nil
}
