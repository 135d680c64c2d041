package room

import (
	"bytes"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
)

func (c *SendState) room() id.RoomID { return c.Room }
func (c *SendState) more() int       { return 0 }

func (c *SendState) decide(v *view) (plan, error) {
	content, err := clientObject(c.Content)
	if err != nil {
		return plan{}, err
	}
	switch c.Type {
	case event.TypeMember:
		return c.member(v, content)
	case event.TypeCreate:
		return plan{}, mxerr.New(mxerr.InvalidParam, "a room has one create event")
	case event.TypeEncryption:
		if algorithm, ok := canonjson.GetString(content, "algorithm"); !ok || algorithm == "" {
			if old := v.content(event.TypeEncryption, ""); old != nil && c.StateKey == "" {
				return plan{}, mxerr.New(mxerr.Forbidden, "encryption cannot be turned off")
			}
		}
	}
	if old := v.at(c.Type, c.StateKey); old != nil && bytes.Equal(old.ev.Content(), content) && old.ev.Sender() == c.By.User {
		return plan{answer: Answer{Event: old.ev.EventID(), Room: c.Room, Unchanged: true}}, nil
	}
	return plan{events: []want{want{typ: c.Type, key: &c.StateKey, content: content}.by(c.By)}}, nil
}

// member treats a member event that was set as state like a command on the membership.
func (c *SendState) member(v *view, content []byte) (plan, error) {
	membership, ok := canonjson.GetString(content, "membership")
	if !ok {
		return plan{}, mxerr.New(mxerr.BadJSON, "membership is missing")
	}
	target, err := id.ParseUserID(c.StateKey)
	if err != nil {
		return plan{}, mxerr.New(mxerr.InvalidParam, "state key is no user id")
	}
	if _, ok := canonjson.Get(content, "join_authorised_via_users_server"); ok {
		if content, err = without(content, "join_authorised_via_users_server"); err != nil {
			return plan{}, err
		}
	}
	m := SetMembership{Room: c.Room, By: c.By, Target: target, Content: content}
	switch membership {
	case event.Join:
		m.Action = ActionJoin
	case event.Invite:
		m.Action = ActionInvite
	case event.Knock:
		m.Action = ActionKnock
	case event.Ban:
		m.Action = ActionBan
	case event.Leave:
		m.Action = ActionLeave
		if target != c.By.User {
			m.Action = ActionKick
			if v.membership(target) == event.Ban {
				m.Action = ActionUnban
			}
		}
	default:
		return plan{}, mxerr.New(mxerr.BadJSON, "membership is unknown")
	}
	return m.decide(v)
}
