package room

import (
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
	p := plan{events: []want{want{typ: c.Type, content: content}.by(c.By)}}
	switch rel, _ := relation.Parse(content); rel.Type {
	case relation.Annotation:
		p.note, err = v.annotate(c.By.User, c.Type, rel)
	case relation.Thread:
		err = v.threadRoot(rel.Parent)
		p.after = rememberRoot(rel.Parent)
	}
	if err != nil {
		return plan{}, err
	}
	return p, nil
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
