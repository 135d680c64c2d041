package room

import (
	"fmt"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
)

func (c *Redact) room() id.RoomID { return c.Room }
func (c *Redact) more() int       { return 0 }

func (c *Redact) decide(v *view) (plan, error) {
	content, err := clientObject(c.Content)
	if err != nil {
		return plan{}, err
	}
	if c.Reason != "" {
		if content, err = merge(content, map[string]any{"reason": c.Reason}); err != nil {
			return plan{}, err
		}
	}
	if v.membership(c.By.User) != event.Join {
		return plan{}, mxerr.New(mxerr.Forbidden, "you are not in the room")
	}
	row := v.event(c.Target)
	power := v.power()
	if v.lacks() {
		return plan{}, errLacks
	}
	if row == nil {
		if _, err := id.ParseEventID(string(c.Target)); err != nil || !power.CanRedactOthers(c.By.User) {
			return plan{}, mxerr.New(mxerr.NotFound, "the room has no such event")
		}
		// Other servers may have it.
		w := want{typ: event.TypeRedaction, content: content, redacts: &redactee{id: c.Target}}
		return plan{events: []want{w.by(c.By)}}, nil
	}
	target, err := event.ParseTrusted(v.rules(), row.JSON, id.EventID(row.EventID))
	if err != nil {
		return plan{}, fmt.Errorf("read event %s: %w", row.EventID, err)
	}
	switch target.Type() {
	case event.TypeCreate, event.TypeServerACL:
		return plan{}, mxerr.Newf(mxerr.Forbidden, "%s events cannot be redacted", target.Type())
	}
	if target.Sender() != c.By.User && !power.CanRedactOthers(c.By.User) {
		return plan{}, mxerr.New(mxerr.Forbidden, "you may not redact events of others")
	}
	w := want{typ: event.TypeRedaction, content: content, redacts: &redactee{id: c.Target, nid: row.Nid}}
	return plan{events: []want{w.by(c.By)}}, nil
}
