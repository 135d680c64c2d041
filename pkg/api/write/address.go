package write

import (
	"context"
	"net/http"

	"github.com/go-json-experiment/json"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/remote/identity"
	"github.com/heddle-im/heddle/pkg/service/account/contact"
	"github.com/heddle-im/heddle/pkg/service/lobby"
	"github.com/heddle-im/heddle/pkg/service/room"
)

// Invitees are people who are known by an address, through identity servers. It is *contact.Desk.
type Invitees interface {
	Check(i contact.Invitee) error
	Find(ctx context.Context, i contact.Invitee) (id.UserID, error)
	Keep(ctx context.Context, i contact.Invitee, words identity.Invite) (identity.Kept, error)
}

// Addressed is what inviting somebody by an address needs.
type Addressed struct {
	Invitees Invitees // nil: nobody is invited so
	// MayInvite tells whether a user is in a room and has the power to invite.
	MayInvite func(ctx context.Context, room id.RoomID, user id.UserID) (bool, error)
	// Summary is what a room shows to a user.
	Summary func(ctx context.Context, room id.RoomID, user id.UserID) (lobby.Summary, error)
}

// invite3PID is an invitation of somebody who is known by an address, through an identity server.
type invite3PID struct {
	IDServer    string `json:"id_server"`
	AccessToken string `json:"id_access_token"`
	Medium      string `json:"medium"`
	Address     string `json:"address"`
}

func (i *invite3PID) invitee() contact.Invitee {
	return contact.Invitee{At: contact.At{Server: i.IDServer, Token: i.AccessToken}, Medium: i.Medium, Address: i.Address}
}

// invitees gives who finds people by their addresses.
func (h *Rooms) invitees() (Invitees, error) {
	if h.o.Addressed.Invitees == nil {
		return nil, mxerr.New(mxerr.ThreepidDenied, "This server does not invite by address")
	}
	return h.o.Addressed.Invitees, nil
}

// inviteAddress invites whoever has an address, or will show to have it. Nobody is written to for somebody who may not invite.
func (h *Rooms) inviteAddress(r *http.Request, c *auth.Caller, target id.RoomID, q *invite3PID, reason string) error {
	desk, err := h.invitees()
	if err != nil {
		return err
	}
	i := q.invitee()
	if err := desk.Check(i); err != nil {
		return err
	}
	may, err := h.o.Addressed.MayInvite(r.Context(), target, c.UserID)
	switch {
	case err != nil:
		return err
	case !may:
		return mxerr.New(mxerr.Forbidden, "You may not invite anybody to this room")
	}
	user, err := desk.Find(r.Context(), i)
	if err == nil && user == "" {
		if err = h.keepInvite(r.Context(), origin(c), target, i); !mxerr.Is(err, mxerr.ThreepidInUse) {
			return err
		}
		user, err = desk.Find(r.Context(), i) // it became somebody's between the two requests
		if err == nil && user == "" {
			err = mxerr.New(mxerr.ThreepidInUse, "The identity server says that the address is somebody's, and not whose")
		}
		if err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	return h.inviteUser(r, c, target, string(user), reason)
}

// keepInvite has an invitation kept by the identity server, and tells the room by which token it will be claimed.
func (h *Rooms) keepInvite(ctx context.Context, by room.Origin, target id.RoomID, i contact.Invitee) error {
	shown, err := h.o.Addressed.Summary(ctx, target, by.User)
	if err != nil {
		return err
	}
	sender, err := h.profile(ctx, by.User)
	if err != nil {
		return err
	}
	kept, err := h.o.Addressed.Invitees.Keep(ctx, i, identity.Invite{
		Room: target, Sender: by.User, SenderName: sender.DisplayName, SenderAvatar: sender.AvatarURL, RoomAlias: shown.CanonicalAlias,
		RoomAvatar: shown.AvatarURL, RoomJoinRules: shown.JoinRule, RoomName: shown.Name, RoomType: shown.RoomType,
	})
	if err != nil {
		return err
	}
	content, err := json.Marshal(map[string]any{
		"display_name": kept.Name, "public_keys": kept.Keys,
		"public_key": kept.Keys[0].Key, "key_validity_url": kept.Keys[0].ValidityURL, // as they were named when there was one
	}, json.Deterministic(true))
	if err != nil {
		return mxerr.Internal(err)
	}
	_, err = h.do(ctx, &room.SendState{Room: target, By: by, Type: event.TypeThirdPartyInvite, StateKey: kept.Token, Content: content})
	return err
}

// maxInvitees bounds the people whom one new room invites by address: an identity server is asked for each.
const maxInvitees = 20

// findInvitees has those who are invited by address to a new room be invited as users, and gives those whom nobody knows. What cannot be asked for
// fails before there is a room.
func (h *Rooms) findInvitees(ctx context.Context, q *createRequest) ([]contact.Invitee, error) {
	if len(q.Invite3PID) == 0 {
		return nil, nil
	}
	desk, err := h.invitees()
	if err != nil {
		return nil, err
	}
	if len(q.Invite3PID) > maxInvitees {
		return nil, mxerr.Newf(mxerr.InvalidParam, "At most %d people can be invited by address at once", maxInvitees)
	}
	for i := range q.Invite3PID {
		if err := desk.Check(q.Invite3PID[i].invitee()); err != nil {
			return nil, err
		}
	}
	var unknown []contact.Invitee
	for i := range q.Invite3PID {
		who := q.Invite3PID[i].invitee()
		user, err := desk.Find(ctx, who)
		switch {
		case err != nil:
			return nil, err
		case user == "":
			unknown = append(unknown, who)
		default:
			q.Invite = append(q.Invite, string(user))
		}
	}
	return unknown, nil
}

// inviteUnknown has invitations to a new room kept. As with users of other servers, the room is there whether that works or not.
func (h *Rooms) inviteUnknown(ctx context.Context, by room.Origin, made id.RoomID, unknown []contact.Invitee) {
	by.Txn = ""
	for _, i := range unknown {
		if err := h.keepInvite(ctx, by, made, i); err != nil {
			h.o.Log.Info("somebody could not be invited to a new room by address", "room", string(made), "server", i.Server, "error", err)
		}
	}
}

// redeem claims an invitation to an address, so that its user can join.
func (h *Rooms) redeem(ctx context.Context, user id.UserID, target id.RoomID, signed []byte) error {
	if h.o.Abroad == nil {
		return mxerr.New(mxerr.ThreepidDenied, "This server does not invite by address")
	}
	return h.o.Abroad.Redeem(ctx, target, user, signed)
}
