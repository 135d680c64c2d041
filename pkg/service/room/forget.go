package room

import (
	"context"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

func (c *Forget) room() id.RoomID { return c.Room }
func (c *Forget) more() int       { return 0 }

func (c *Forget) decide(v *view) (plan, error) {
	membership := v.membership(c.User)
	if membership == "" { // what is out of band is not in the state
		membership = ask[roomdb.MemberRow](v, memberFact{c.User}).Membership.String()
	}
	switch membership {
	case event.Leave, event.Ban:
	case "":
		return plan{}, errNoRoom()
	default:
		return plan{}, &mxerr.Error{Code: mxerr.Unknown, HTTPStatus: 400, Message: "leave the room before you forget it"}
	}
	return plan{
		rows:   []entry.Row{&roomdb.MemberForgotten{Room: v.r.nid, UserID: string(c.User)}},
		answer: Answer{Room: c.Room},
	}, nil
}

// memberFact asks for a user's membership as it is stored, out of band or not; the answer is zero if there is none.
type memberFact struct{ user id.UserID }

func (f memberFact) load(ctx context.Context, r *live) (any, error) {
	m, _, err := r.term.host.DB.Member(ctx, r.nid, string(f.user))
	return m, err
}

func (c *SetVisibility) room() id.RoomID { return c.Room }
func (c *SetVisibility) more() int       { return 0 }

func (c *SetVisibility) decide(v *view) (plan, error) {
	if !c.Force {
		if v.membership(c.By) != event.Join {
			return plan{}, mxerr.New(mxerr.Forbidden, "you are not in the room")
		}
		if !v.power().CanSend(c.By, event.TypeCanonicalAlias, true) {
			return plan{}, mxerr.New(mxerr.Forbidden, "you may not change how the room is listed")
		}
	}
	var row entry.Row = &roomdb.PublishedRoomGone{Room: v.r.nid}
	if c.Public {
		row = &roomdb.PublishedRoom{Room: v.r.nid, RoomID: string(c.Room)}
	}
	return plan{rows: []entry.Row{row}, answer: Answer{Room: c.Room}}, nil
}
