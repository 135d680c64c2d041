package abroad

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/room"
)

// ThirdParty knows the invitations of rooms to people who had no account when they were invited. It is *resident.Rooms.
type ThirdParty interface {
	// ThirdParty finds the invitation with a token in a room that this server is in, and tells by which name it calls the person. It refuses
	// servers that the room's ACL denies.
	ThirdParty(ctx context.Context, room id.RoomID, token string, origin id.ServerName) (name string, err error)
}

// Claim is how somebody who was invited by an address claims the invitation: a member event in the making, signed by the identity server that
// knows whose the address is.
type Claim struct {
	Type     string    `json:"type"`
	Room     id.RoomID `json:"room_id"`
	Sender   id.UserID `json:"sender"`
	StateKey id.UserID `json:"state_key"`
	Content  struct {
		Membership string `json:"membership"`
		Invite     struct {
			Name   string          `json:"display_name"`
			Signed json.RawMessage `json:"signed"`
		} `json:"third_party_invite"`
	} `json:"content"`
}

// signedPart is what an identity server signs.
type signedPart struct {
	User  id.UserID `json:"mxid"`
	Token string    `json:"token"`
}

// Exchange invites whoever claims an invitation that a user of this server sent to an address. Whether the claim is signed by whom the invitation
// names is decided by the room's rules.
func (a *Abroad) Exchange(ctx context.Context, origin id.ServerName, r id.RoomID, c *Claim) error {
	var signed signedPart
	if err := json.Unmarshal(c.Content.Invite.Signed, &signed); err != nil {
		return mxerr.New(mxerr.BadJSON, "third_party_invite is not signed").WithCause(err)
	}
	switch {
	case c.Type != event.TypeMember || c.Content.Membership != event.Invite:
		return mxerr.New(mxerr.InvalidParam, "The event is no invitation")
	case c.Room != r:
		return mxerr.New(mxerr.InvalidParam, "The event is of another room")
	case c.Sender.Server() != a.o.Server:
		return mxerr.New(mxerr.InvalidParam, "The inviting user is not of this server")
	case signed.User != c.StateKey || signed.Token == "":
		return mxerr.New(mxerr.InvalidParam, "What is signed is about somebody else")
	}
	if _, err := id.ParseUserID(string(c.StateKey)); err != nil {
		return mxerr.New(mxerr.InvalidParam, "The invited user is not one").WithCause(err)
	}
	name, err := a.o.ThirdParty.ThirdParty(ctx, r, signed.Token, origin)
	if err != nil {
		return err
	}
	content, err := json.Marshal(map[string]any{"third_party_invite": map[string]any{"display_name": name, "signed": c.Content.Invite.Signed}})
	if err != nil {
		return mxerr.New(mxerr.BadJSON, "third_party_invite is malformed").WithCause(err)
	}
	invite := &room.SetMembership{
		Room: r, By: room.Origin{User: c.Sender}, Target: c.StateKey, Action: room.ActionInvite, Content: content,
	}
	if c.StateKey.Server() != a.o.Server {
		return a.Invite(ctx, invite)
	}
	_, err = a.o.Writer.Do(ctx, nil, invite)
	return err
}

// Bound is what an identity server tells of an address that is now a user's.
type Bound struct {
	User    id.UserID `json:"mxid"`
	Invites []struct {
		Room   id.RoomID       `json:"room_id"`
		Sender id.UserID       `json:"sender"`
		Signed json.RawMessage `json:"signed"`
	} `json:"invites"`
}

// maxBound bounds the invitations of one address that are claimed.
const maxBound = 20

// Claim claims the invitations that wait for a user of this server under an address, each at the server of who sent it. One that is refused
// says nothing of the others.
func (a *Abroad) Claim(ctx context.Context, b *Bound) error {
	if b.User.Server() != a.o.Server {
		return mxerr.New(mxerr.InvalidParam, "The user is not of this server")
	}
	exists, err := a.o.Users.Exists(ctx, b.User)
	if err != nil {
		return err
	}
	if !exists {
		return mxerr.New(mxerr.NotFound, "The user does not exist")
	}
	for _, i := range b.Invites[:min(len(b.Invites), maxBound)] {
		c := &Claim{Type: event.TypeMember, Room: i.Room, Sender: i.Sender, StateKey: b.User}
		c.Content.Membership = event.Invite
		c.Content.Invite.Name, c.Content.Invite.Signed = b.User.Localpart(), i.Signed
		if err := a.claim(ctx, c); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			a.o.Log.Info("an invitation to an address could not be claimed", "room", string(i.Room), "from", string(i.Sender), "error", err)
		}
	}
	return nil
}

// Redeem claims one invitation for a user of this server who shows what an identity server has signed. Refused with M_BAD_JSON,
// M_INVALID_PARAM, and as the server of who invited does.
func (a *Abroad) Redeem(ctx context.Context, r id.RoomID, user id.UserID, signed []byte) error {
	var s struct {
		signedPart

		Sender id.UserID `json:"sender"`
	}
	if err := json.Unmarshal(signed, &s); err != nil {
		return mxerr.New(mxerr.BadJSON, "third_party_signed is malformed").WithCause(err)
	}
	if _, err := id.ParseUserID(string(s.Sender)); err != nil {
		return mxerr.New(mxerr.InvalidParam, "third_party_signed names no sender").WithCause(err)
	}
	if s.User != user {
		return mxerr.New(mxerr.InvalidParam, "third_party_signed is for somebody else")
	}
	c := &Claim{Type: event.TypeMember, Room: r, Sender: s.Sender, StateKey: user}
	c.Content.Membership = event.Invite
	c.Content.Invite.Name, c.Content.Invite.Signed = user.Localpart(), signed // all of it: the sender may be among what was signed
	return a.claim(ctx, c)
}

func (a *Abroad) claim(ctx context.Context, c *Claim) error {
	if _, err := id.ParseRoomID(string(c.Room)); err != nil {
		return err
	}
	to := c.Sender.Server()
	if to == a.o.Server {
		return a.Exchange(ctx, a.o.Server, c.Room, c)
	}
	if !to.Valid() || len(c.Content.Invite.Signed) == 0 {
		return errors.New("claim is malformed")
	}
	body, err := json.Marshal(c)
	if err != nil {
		return err
	}
	_, err = a.o.Remote.Ask(ctx, to, "PUT", fedPath("v1", "exchange_third_party_invite", string(c.Room)), nil, body, smallLimit, makeWait, false)
	return err
}
