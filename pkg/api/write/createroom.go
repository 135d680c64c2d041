package write

import (
	"context"
	"net/http"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/room"
)

type createRequest struct {
	Visibility      string         `json:"visibility"`
	Alias           *string        `json:"room_alias_name"`
	Name            string         `json:"name"`
	Topic           string         `json:"topic"`
	Invite          []string       `json:"invite"`
	Invite3PID      []invite3PID   `json:"invite_3pid"`
	Version         *string        `json:"room_version"`
	CreationContent jsontext.Value `json:"creation_content"`
	InitialState    []initialState `json:"initial_state"`
	Preset          string         `json:"preset"`
	IsDirect        bool           `json:"is_direct"`
	PowerOverride   jsontext.Value `json:"power_level_content_override"`
}

type initialState struct {
	Type     *string        `json:"type"`
	StateKey string         `json:"state_key"`
	Content  jsontext.Value `json:"content"`
}

// createRoom makes a room with its invitations, or nothing: a user who cannot be invited makes the whole request fail before
// there is a room.
func (h *Rooms) createRoom(w http.ResponseWriter, r *http.Request) error {
	c, err := active(r)
	if err != nil {
		return err
	}
	var q createRequest
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	unknown, err := h.findInvitees(r.Context(), &q)
	if err != nil {
		return err
	}
	cmd, err := h.createCommand(r.Context(), c.UserID, &q)
	if err != nil {
		return err
	}
	if cmd.Alias != "" {
		if err := h.mayName(c, cmd.Alias); err != nil {
			return err
		}
	}
	for i := range cmd.Invite {
		h.ask(r.Context(), c, cmd.Invite[i].User)
	}
	cmd.Creator = origin(c)
	made, err := room.Create(r.Context(), h.o.Writer, h.o.Server, h.o.Now(), h.o.Random, cmd)
	if mxerr.Is(err, mxerr.Forbidden) {
		// Nobody is forbidden to make a room: it is the state that was asked for which does not let its own creator go on.
		err = mxerr.New(mxerr.InvalidRoomState, "The room's initial state is invalid: "+mxerr.From(err).Message).WithCause(err)
	}
	if err != nil {
		return err
	}
	h.inviteRemote(r, cmd, made)
	h.inviteUnknown(r.Context(), cmd.Creator, made, unknown)
	return httpx.WriteJSON(w, http.StatusOK, roomAnswer{made})
}

// inviteRemote invites the users of other servers to a new room. The room is there whether they can be invited or not, and whoever made it
// sees who was.
func (h *Rooms) inviteRemote(r *http.Request, cmd *room.CreateRoom, made id.RoomID) {
	for i := range cmd.Invite {
		user := cmd.Invite[i].User
		if user.Server() == h.o.Server || h.o.Abroad == nil {
			continue
		}
		_ = h.o.Abroad.Invite(r.Context(), &room.SetMembership{
			Room: made, By: room.Origin{User: cmd.Creator.User, Device: cmd.Creator.Device}, Target: user, Action: room.ActionInvite,
			IsDirect: cmd.IsDirect,
		})
	}
}

func (h *Rooms) createCommand(ctx context.Context, by id.UserID, q *createRequest) (*room.CreateRoom, error) {
	cmd := &room.CreateRoom{Name: q.Name, Topic: q.Topic, IsDirect: q.IsDirect, Preset: room.Preset(q.Preset)}
	switch q.Visibility {
	case "public":
		cmd.Public = true
	case "", "private":
	default:
		return nil, mxerr.New(mxerr.BadJSON, "visibility is neither public nor private")
	}
	if q.Version != nil {
		cmd.Version = roomver.Version(*q.Version)
		if _, ok := roomver.Get(cmd.Version); !ok {
			return nil, mxerr.Newf(mxerr.UnsupportedRoomVersion, "Room version %q is not supported", clip(*q.Version))
		}
	}
	if q.Alias != nil {
		alias, err := id.ParseRoomAliasStrict("#" + *q.Alias + ":" + string(h.o.Server))
		if err != nil || alias.Localpart() != *q.Alias {
			return nil, mxerr.New(mxerr.InvalidParam, "Invalid room_alias_name").WithCause(err)
		}
		cmd.Alias = alias
	}
	var err error
	if cmd.CreationContent, err = optionalObject("creation_content", q.CreationContent); err != nil {
		return nil, err
	}
	if cmd.PowerOverride, err = optionalObject("power_level_content_override", q.PowerOverride); err != nil {
		return nil, err
	}
	if cmd.InitialState, err = initialStates(q.InitialState); err != nil {
		return nil, err
	}
	users, err := h.toInvite(q.Invite)
	if err != nil {
		return nil, err
	}
	shown, err := h.o.Profiles.ShownOf(ctx, append([]id.UserID{by}, users...)...)
	if err != nil {
		return nil, err
	}
	cmd.Profile = room.Profile(shown[by])
	for _, u := range users {
		cmd.Invite = append(cmd.Invite, room.Invitation{User: u, Profile: room.Profile(shown[u])})
	}
	return cmd, h.mayInvite(ctx, by, users...)
}

// optionalObject gives an object, or nil if there is none.
func optionalObject(name string, v jsontext.Value) ([]byte, error) {
	switch {
	case len(v) == 0 || canonjson.IsNull(v):
		return nil, nil
	case !canonjson.IsObject(v):
		return nil, mxerr.Newf(mxerr.BadJSON, "%s is not an object", name)
	}
	return v, nil
}

func initialStates(list []initialState) ([]room.StateEvent, error) {
	out := make([]room.StateEvent, 0, len(list))
	for i, e := range list {
		switch {
		case e.Type == nil || *e.Type == "":
			return nil, mxerr.Newf(mxerr.BadJSON, "initial_state: event %d has no type", i)
		case !canonjson.IsObject(e.Content):
			return nil, mxerr.Newf(mxerr.BadJSON, "initial_state: event %d has no content that is an object", i)
		}
		out = append(out, room.StateEvent{Type: *e.Type, StateKey: e.StateKey, Content: e.Content})
	}
	return out, nil
}

// maxInvites bounds the invitations of one request; the writer has the same bound.
const maxInvites = 100

// toInvite gives each user who is to be invited once.
func (h *Rooms) toInvite(names []string) ([]id.UserID, error) {
	if len(names) > maxInvites {
		return nil, mxerr.Newf(mxerr.InvalidParam, "At most %d users can be invited at once", maxInvites)
	}
	users := make([]id.UserID, 0, len(names))
	for _, s := range names {
		user, err := h.invitee(s)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(users, user) { // there are few
			users = append(users, user)
		}
	}
	return users, nil
}

// invitee reads a user who is to be invited. An invitation to another server needs that server's signature, for which it must be
// asked over federation.
func (h *Rooms) invitee(s string) (id.UserID, error) {
	user, err := parseUser(s)
	if err != nil {
		return "", err
	}
	if user.Server() != h.o.Server && h.o.Abroad == nil {
		return "", mxerr.New(mxerr.Forbidden, "Users of other servers cannot be invited from here")
	}
	return user, nil
}
