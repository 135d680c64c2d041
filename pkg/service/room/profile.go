package room

import (
	"bytes"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
)

func (c *SetProfile) room() id.RoomID { return c.Room }
func (c *SetProfile) more() int       { return 0 }

func (c *SetProfile) decide(v *view) (plan, error) {
	old := v.at(event.TypeMember, string(c.User))
	if old == nil || old.ev.Membership() != event.Join {
		return plan{answer: Answer{Room: c.Room, Unchanged: true}}, nil
	}
	kept, err := without(old.ev.Content(), "displayname", "avatar_url", "reason", "is_direct", authorisedVia)
	if err != nil {
		return plan{}, err
	}
	members := map[string]any{}
	c.Profile.put(members)
	content, err := merge(kept, members)
	if err != nil {
		return plan{}, err
	}
	if bytes.Equal(content, old.ev.Content()) {
		return plan{answer: Answer{Event: old.ev.EventID(), Room: c.Room, Unchanged: true}}, nil
	}
	user := string(c.User)
	return plan{events: []want{{typ: event.TypeMember, key: &user, sender: c.User, content: content}}}, nil
}
