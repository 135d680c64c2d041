package room

import (
	"bytes"
	"context"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/eventauth"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

const authorisedVia = "join_authorised_via_users_server"

func (c *SetMembership) room() id.RoomID { return c.Room }
func (c *SetMembership) more() int       { return 0 }

// membership is what an action makes of the target; "" for an action that there is not.
func (a Action) membership() string {
	switch a {
	case ActionJoin:
		return event.Join
	case ActionInvite:
		return event.Invite
	case ActionLeave, ActionKick, ActionUnban:
		return event.Leave
	case ActionBan:
		return event.Ban
	case ActionKnock:
		return event.Knock
	}
	return ""
}

func (c *SetMembership) decide(v *view) (plan, error) {
	if c.Action == ActionInvite && !v.local(c.Target) {
		// The user's server has to sign the event first: see InviteDraft.
		return plan{}, mxerr.New(mxerr.Unknown, "the user's server has to be asked")
	}
	return c.change(v)
}

// change decides the member event itself, whoever else has to sign it.
func (c *SetMembership) change(v *view) (plan, error) {
	membership := c.Action.membership()
	if membership == "" {
		return plan{}, mxerr.New(mxerr.InvalidParam, "action is unknown")
	}
	old := v.at(event.TypeMember, string(c.Target))
	var before string
	if old != nil {
		before = old.ev.Membership()
	}
	if err := c.check(v, before); err != nil {
		return plan{}, err
	}
	if notices := v.r.term.host.Notices; notices != "" && before == event.Invite && membership == event.Leave &&
		c.Target == c.By.User && old.ev.Sender() == notices { // spec: "Server Notices"
		return plan{}, mxerr.New(mxerr.CannotLeaveServerNoticeRoom, "You cannot decline this server's notices; you may leave the room once you have joined it")
	}
	if c.Action == ActionLeave && before == event.Leave { // whatever was said then
		return plan{answer: Answer{Event: old.ev.EventID(), Room: c.Room, Unchanged: true}}, nil
	}
	members := map[string]any{"membership": membership}
	if c.Reason != "" {
		members["reason"] = c.Reason
	}
	switch c.Action {
	case ActionJoin, ActionInvite, ActionKnock:
		c.Profile.put(members)
	}
	if c.Action == ActionInvite && c.IsDirect {
		members["is_direct"] = true
	}
	if c.Action == ActionJoin && before != event.Join && before != event.Invite {
		via, err := authoriser(v, c.Target)
		if err != nil {
			return plan{}, err
		}
		if via != "" {
			members[authorisedVia] = string(via)
		}
	}
	extra := c.Content
	if err := object(&extra); err != nil {
		return plan{}, err
	}
	content, err := merge(extra, members)
	if err != nil {
		return plan{}, err
	}
	if old != nil && before == membership && old.ev.Sender() == c.By.User && sameMembership(old.ev.Content(), content) {
		return plan{answer: Answer{Event: old.ev.EventID(), Room: c.Room, Unchanged: true}}, nil
	}
	target := string(c.Target)
	p := plan{events: []want{want{typ: event.TypeMember, key: &target, content: content}.by(c.By)}}
	if before == event.Join && membership != event.Join {
		p.after = func(r *live) { r.term.typing.set(r.nid, r.id, c.Target, 0) }
	}
	return p, nil
}

// check refuses what the authorisation rules would allow, or refuse without saying why.
func (c *SetMembership) check(v *view, before string) error {
	self := c.Target == c.By.User
	switch c.Action {
	case ActionJoin, ActionLeave, ActionKnock:
		if !self {
			return mxerr.New(mxerr.Forbidden, "this is for the user to do")
		}
	}
	if c.By.Guest && c.Action != ActionLeave {
		access, _ := canonjson.GetString(v.content(event.TypeGuestAccess, ""), "guest_access")
		switch {
		case v.lacks():
			return errLacks
		case access != "can_join": // spec: "Guest Access"
			return mxerr.New(mxerr.Forbidden, "the room lets no guests in")
		}
	}
	switch c.Action {
	case ActionKick:
		if v.lacks() {
			return errLacks
		}
		switch before {
		case event.Join, event.Invite, event.Knock:
		case event.Ban:
			return mxerr.New(mxerr.Forbidden, "the user is banned")
		default:
			return mxerr.New(mxerr.Forbidden, "the user is not in the room")
		}
	case ActionUnban:
		may := v.power().CanBan(c.By.User, c.Target) && v.membership(c.By.User) == event.Join
		switch {
		case v.lacks():
			return errLacks
		case before == event.Ban:
		case !may: // who is banned is not said
			return mxerr.New(mxerr.Forbidden, "you may not unban users")
		default:
			return &mxerr.Error{Code: mxerr.BadState, HTTPStatus: 403, Message: "the user is not banned"}
		}
	}
	return nil
}

// sameMembership tells whether a member event's content says nothing new; by whose leave a user once joined is nothing that the
// user says.
func sameMembership(old, now []byte) bool {
	if bytes.Equal(old, now) {
		return true
	}
	stripped, err := without(old, authorisedVia)
	return err == nil && bytes.Equal(stripped, now)
}

func (p *Profile) put(members map[string]any) {
	if p.DisplayName != "" {
		members["displayname"] = p.DisplayName
	}
	if p.AvatarURL != "" {
		members["avatar_url"] = p.AvatarURL
	}
}

// maxAllow bounds the rooms of a join rule that are looked at.
const maxAllow = 50

// joinedFact asks whether a user is in another room.
type joinedFact struct {
	room id.RoomID
	user id.UserID
}

// standing answers it. It is known of users of this server, and of others as long as this server is in the room.
type standing struct{ known, joined bool }

func (f joinedFact) load(ctx context.Context, r *live) (any, error) {
	h := r.term.host
	s := h.Shards.Of(string(f.room))
	joined, err := h.DB.Joined(ctx, s, string(f.room), string(f.user))
	if err != nil || f.user.Server() == h.Server {
		return standing{known: true, joined: joined}, err
	}
	ref, ok, err := h.DB.Room(ctx, s, string(f.room))
	if err != nil || !ok {
		return standing{}, err
	}
	here, err := h.DB.LocalMembers(ctx, ref.Nid, roomdb.MembershipJoin, 1)
	if err != nil || len(here) == 0 {
		return standing{}, err
	}
	return standing{known: true, joined: joined}, nil
}

// someMemberFact asks for users of this server who are in the room.
type someMemberFact struct{}

func (someMemberFact) load(ctx context.Context, r *live) (any, error) {
	return r.term.host.DB.LocalMembers(ctx, r.nid, roomdb.MembershipJoin, 10)
}

// authoriser gives the user in whose name this server lets a user into a room whose join rule is restricted; "" if the
// rule is another.
func authoriser(v *view, user id.UserID) (id.UserID, error) {
	rule := v.at(event.TypeJoinRules, "")
	if rule == nil || rule.red.JoinRule != eventauth.JoinRuleRestricted && rule.red.JoinRule != eventauth.JoinRuleKnockRestricted {
		return "", nil
	}
	rooms := allowedRooms(rule.ev.Content())
	var known, allowed bool
	for _, room := range rooms {
		// All are asked for at once, so that they are loaded together.
		s := ask[standing](v, joinedFact{room, user})
		known, allowed = known || s.known, allowed || s.known && s.joined
	}
	if v.lacks() {
		return "", errLacks
	}
	switch {
	case allowed:
		return inviter(v)
	case !known && len(rooms) > 0: // spec: "Restricted rooms": another server may know
		return "", mxerr.New(mxerr.UnableToAuthoriseJoin, "this server is in none of the rooms whose members may join")
	default:
		return "", mxerr.New(mxerr.Forbidden, "you are in none of the rooms whose members may join")
	}
}

// allowedRooms gives the rooms whose members may join.
func allowedRooms(content []byte) []id.RoomID {
	raw, ok := canonjson.Get(content, "allow")
	if !ok {
		return nil
	}
	var list []struct {
		Type   string `json:"type"`
		RoomID string `json:"room_id"`
	}
	if decodeJSON(raw, &list) != nil {
		return nil
	}
	var rooms []id.RoomID
	for _, a := range list {
		room, err := id.ParseRoomID(a.RoomID)
		if a.Type == "m.room_membership" && err == nil && len(rooms) < maxAllow && !slices.Contains(rooms, room) {
			rooms = append(rooms, room)
		}
	}
	return rooms
}

// inviter gives a user of this server who may invite.
func inviter(v *view) (id.UserID, error) {
	u := v.memberWho((*eventauth.AuthState).CanInvite)
	switch {
	case v.lacks():
		return "", errLacks
	case u == "":
		return "", mxerr.New(mxerr.UnableToGrantJoin, "nobody of this server may let you in")
	}
	return u, nil
}

// memberWho finds somebody of this server in the room whose power suffices for something: one who is named as having power, or else one of a few. "" is
// nobody, as far as is known.
func (v *view) memberWho(can func(*eventauth.AuthState, id.UserID) bool) id.UserID {
	power := v.power()
	if v.lacks() {
		return ""
	}
	var candidates []id.UserID
	if c := power.Create; c != nil {
		candidates = append(append(candidates, c.Sender, c.Creator), c.Additional...)
	}
	if power.Power != nil {
		for _, u := range power.Power.Users {
			candidates = append(candidates, id.UserID(u.Name))
		}
	}
	may := func(u id.UserID) bool {
		return v.local(u) && can(power, u) && v.membership(u) == event.Join
	}
	if i := slices.IndexFunc(candidates, may); i >= 0 {
		return candidates[i]
	}
	for _, u := range ask[[]string](v, someMemberFact{}) {
		if may(id.UserID(u)) {
			return id.UserID(u)
		}
	}
	return ""
}
