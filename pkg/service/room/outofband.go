package room

import (
	"encoding/json"
	"fmt"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/store/feddb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

func stagedGone(seqs ...int64) entry.Row { return &feddb.StagedGone{Seqs: seqs} }

func (c *OutOfBand) room() id.RoomID { return c.Room }
func (c *OutOfBand) more() int       { return 0 }

func (c *OutOfBand) decide(v *view) (plan, error) {
	if len(ask[[]string](v, someMemberFact{})) > 0 {
		return plan{}, mxerr.New(mxerr.BadState, "this server is in the room")
	}
	return plan{answer: Answer{Room: c.Room}}, nil
}

// outOfBand stores a member event without state. The room goes on from where it was, which for a room that was never entered is this event.
func (d *draft) outOfBand(c *OutOfBand, p *plan) error {
	e, err := event.Parse(d.r.rules, c.Event)
	if err != nil {
		return mxerr.New(mxerr.BadJSON, "event is malformed").WithCause(err)
	}
	user, isState := e.StateKey()
	if e.RoomID() != d.r.id || e.Type() != event.TypeMember || !isState || !d.local(id.UserID(user)) {
		return mxerr.New(mxerr.InvalidParam, "event is no member event of a user of this server")
	}
	p.answer.Event = e.EventID()
	known := d.event(e.EventID())
	before := ask[roomdb.MemberRow](&d.view, memberFact{id.UserID(user)})
	rescinds := !c.Rescinds || d.rescinds(e, before)
	if d.lacks() {
		return errLacks
	}
	if !rescinds || known != nil && known.Placed {
		p.answer.Unchanged = true
		return nil
	}
	nid := d.r.term.nid()
	if known != nil {
		nid = known.Nid
	}
	row, body := d.rowOf(nid, e)
	k := d.atom(user)
	row.StateKey, row.Flags, row.Order = &k, roomdb.FlagOutlier, roomdb.Live(len(d.entries))
	row.StateBefore, row.StateAfter = d.head.snaps.nid(), d.head.snaps.nid()
	body.StateBefore, body.StateAfter = int64(row.StateBefore), int64(row.StateAfter)
	body.Membership, body.PrevMembership = e.Membership(), before.Membership.String()
	body.StrippedState = c.Stripped
	if len(d.head.tips) > 0 {
		row.Extremities = nidsOfTips(d.head.tips)
	} else {
		d.head.tips = []tip{d.r.tipOf(nid, e, d.head.snaps)}
	}
	if known == nil {
		d.rows = append(d.rows, row)
	} else {
		d.rows = append(d.rows, &roomdb.EventPlaced{
			Nid: nid, Order: row.Order, Flags: row.Flags, StateBefore: row.StateBefore, StateAfter: row.StateAfter,
			Extremities: row.Extremities,
		})
	}
	d.rows = append(d.rows, &roomdb.Member{
		Room: d.r.nid, UserID: user, Membership: roomdb.ParseMembership(e.Membership()), Event: nid, Local: true,
		PushBase: roomdb.Live(len(d.entries)), Entry: len(d.entries),
	})
	if len(c.Stripped) > 0 {
		d.rows = append(d.rows, &feddb.Stripped{Room: d.r.nid, UserID: user, Events: c.Stripped})
	} else {
		d.toldNoMore(id.UserID(user), before.Membership.String(), e.Membership())
	}
	if d.lacks() {
		return errLacks
	}
	logged, err := entry.Event(d.r.nid, nid, body, e.JSON())
	if err != nil {
		return err
	}
	d.entries = append(d.entries, logged)
	d.noteMade(e)
	return nil
}

// toldNoMore deletes what a user of this server was told of the room with an invitation, or on a knock, that is over.
func (d *draft) toldNoMore(user id.UserID, was, is string) {
	waited := func(membership string) bool { return membership == event.Invite || membership == event.Knock }
	if d.local(user) && waited(was) && !waited(is) {
		d.rows = append(d.rows, &feddb.StrippedGone{Room: d.r.nid, UserID: string(user)})
	}
}

// rescinds tells whether an event takes back the invitation that a user has. Whose power it would take is not known here, so that it is for
// who sent the invitation alone; and it has to name the invitation, so that none that was taken back before takes back a later one.
func (d *draft) rescinds(e *event.Event, has roomdb.MemberRow) bool {
	if has.Membership != roomdb.MembershipInvite || e.Membership() != event.Leave && e.Membership() != event.Ban {
		return false
	}
	sender, known := d.r.term.atoms.get(string(e.Sender()))
	if !known {
		d.needs.names = append(d.needs.names, string(e.Sender()))
		return false
	}
	for _, named := range e.AuthEvents() {
		if invite := d.event(named); invite != nil && invite.Nid == has.Event {
			return invite.Sender == sender
		}
	}
	return false
}

func (c *Template) room() id.RoomID { return c.Room }
func (c *Template) more() int       { return 0 }

func (c *Template) decide(v *view) (plan, error) {
	if c.Action.membership() == "" || v.local(c.User) {
		return plan{}, mxerr.New(mxerr.InvalidParam, "no event of this kind is proposed")
	}
	if len(ask[[]string](v, someMemberFact{})) == 0 && !v.lacks() {
		return plan{}, errNoRoom()
	}
	if before := v.membership(c.User); c.Action == ActionLeave && before != event.Join && before != event.Invite && before != event.Knock {
		return plan{}, mxerr.New(mxerr.Forbidden, "the user is not in the room")
	}
	return plan{answer: Answer{Room: c.Room}}, nil
}

// template proposes an event for another server to make.
func (d *draft) template(c *Template, p *plan) error {
	members := map[string]any{"membership": c.Action.membership()}
	if before := d.membership(c.User); c.Action == ActionJoin && before != event.Join && before != event.Invite {
		via, err := authoriser(&d.view, c.User)
		if err != nil {
			return err
		}
		if via != "" {
			members[authorisedVia] = string(via)
		}
	}
	if d.lacks() {
		return errLacks
	}
	content, err := merge(nil, members)
	if err != nil {
		return err
	}
	user := string(c.User)
	proto, _, _, err := d.proto(&want{typ: event.TypeMember, key: &user, sender: c.User, content: content})
	if err != nil {
		return err
	}
	ev, err := proto.AppendTemplate(nil, d.rules())
	if err != nil {
		return buildError(err)
	}
	p.answer.Data, err = json.Marshal(map[string]any{"room_version": string(d.rules().Version), "event": json.RawMessage(ev)})
	if err != nil {
		return fmt.Errorf("encode template: %w", err)
	}
	return nil
}

func (c *InviteDraft) room() id.RoomID { return c.Invite.Room }
func (c *InviteDraft) more() int       { return 0 }

func (c *InviteDraft) decide(v *view) (plan, error) { return c.Invite.change(v) }

// inviteDraft builds the event of a plan and does nothing with it.
func (d *draft) inviteDraft(p *plan) error {
	if len(p.events) == 0 {
		return nil // the user is invited already
	}
	e, _, _, err := d.build(&p.events[0])
	if err != nil {
		return err
	}
	stripped := d.stripped(event.Invite, e.Sender())
	if d.lacks() {
		return errLacks
	}
	p.events, p.answer.Event, p.answer.Room = nil, e.EventID(), d.r.id
	p.answer.Data, err = json.Marshal(InviteRequest{Event: e.JSON(), Version: string(d.rules().Version), Stripped: stripped})
	if err != nil {
		return fmt.Errorf("encode invitation: %w", err)
	}
	return nil
}
