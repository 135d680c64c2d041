package abroad

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/invitation"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/inbound"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/store/feddb"
)

// Bounds of stripped state.
const (
	maxStripped      = 100
	maxStrippedBytes = 128 << 10
)

func randomText() string { return rand.Text() }

// stripped reads stripped state: of each event what stripped state is made of, and nothing else. nil for none.
func stripped(raw json.RawMessage) []byte {
	var list []json.RawMessage
	if len(raw) > maxStrippedBytes || json.Unmarshal(raw, &list) != nil {
		return nil
	}
	out := []byte{'['}
	for _, item := range list[:min(len(list), maxStripped)] {
		c, err := canonjson.Canonical(item, canonjson.Options{Mode: canonjson.Lax})
		if err != nil || !canonjson.IsObject(c) {
			continue
		}
		content, ok := canonjson.Get(c, "content")
		sender, ok1 := canonjson.GetString(c, "sender")
		typ, ok2 := canonjson.GetString(c, "type")
		key, ok3 := canonjson.GetString(c, "state_key")
		if !ok || !canonjson.IsObject(content) || !ok1 || !ok2 || !ok3 {
			continue
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(append(out, `{"content":`...), content...)
		out = canonjson.AppendString(append(out, `,"sender":`...), sender)
		out = canonjson.AppendString(append(out, `,"state_key":`...), key)
		out = append(canonjson.AppendString(append(out, `,"type":`...), typ), '}')
	}
	if len(out) == 1 {
		return nil
	}
	return append(out, ']')
}

// Invited takes an invitation of a user of this server from another one, and gives the event back with this server's signature. The invitation
// is stored when it returns.
func (a *Abroad) Invited(ctx context.Context, origin id.ServerName, r id.RoomID, eventID id.EventID, version string, pdu, told []byte) ([]byte, error) {
	rules, ok := roomver.Get(roomver.Version(version))
	if !ok {
		return nil, mxerr.Newf(mxerr.UnsupportedRoomVersion, "Room version %.32q is not supported", version)
	}
	e, err := event.Parse(rules, pdu)
	if err != nil {
		return nil, mxerr.New(mxerr.BadJSON, "The event is malformed: "+err.Error())
	}
	key, isState := e.StateKey()
	user := id.UserID(key)
	switch {
	case e.RoomID() != r:
		return nil, mxerr.New(mxerr.InvalidParam, "The event is of another room")
	case e.EventID() != eventID && rules.EventIDs == roomver.EventIDGiven:
		return nil, mxerr.New(mxerr.InvalidParam, "The event has another id than the path")
	case e.Type() != event.TypeMember || !isState || e.Membership() != event.Invite:
		return nil, mxerr.New(mxerr.InvalidParam, "The event is no invitation")
	case user.Server() != a.o.Server:
		return nil, mxerr.New(mxerr.InvalidParam, "The user is not of this server")
	case e.Sender().Server() != origin:
		return nil, mxerr.New(mxerr.Forbidden, "The inviting user is not of your server")
	}
	if err := inbound.Verify(ctx, a.o.Keys, []*event.Event{e})[0]; err != nil {
		return nil, mxerr.New(mxerr.Forbidden, "The event's signatures do not verify").WithCause(err)
	}
	exists, err := a.o.Users.Exists(ctx, user)
	if err != nil {
		return nil, err
	}
	if !exists {
		return nil, mxerr.New(mxerr.NotFound, "The user does not exist")
	}
	switch verdict, err := a.o.Users.Invites(ctx, user, e.Sender()); {
	case err != nil:
		return nil, err
	case verdict == invitation.Blocked:
		return nil, mxerr.Newf(mxerr.InviteBlocked, "%s takes no invitations of yours", user)
	}
	signed := e.Sign(a.o.Server, a.o.Key)
	here, err := a.o.Rooms.Here(ctx, r)
	if err != nil {
		return nil, err
	}
	if here { // it will come with a transaction too; whichever is first
		err = a.stage(ctx, origin, signed)
	} else {
		err = a.outOfBand(ctx, rules, signed, stripped(told))
		var refused *mxerr.Error
		if errors.As(err, &refused) && refused.Code == mxerr.BadState {
			err = a.stage(ctx, origin, signed) // somebody joined meanwhile
		}
	}
	if err != nil {
		return nil, err
	}
	return signed.JSON(), nil
}

// stage puts an event where those of transactions are.
func (a *Abroad) stage(ctx context.Context, origin id.ServerName, e *event.Event) error {
	_, err := a.o.DB.Stage(ctx, a.o.Shards.Of(string(origin)), string(origin), "invite "+string(e.EventID()), []feddb.StagedPDU{{
		Shard: a.o.Shards.Of(string(e.RoomID())), RoomID: string(e.RoomID()), EventID: string(e.EventID()), JSON: e.JSON(),
	}}, nil)
	return err
}

// Invite invites a user of another server to a room that this server is in: that server signs the invitation too, and then it takes its place
// in the room.
func (a *Abroad) Invite(ctx context.Context, invite *room.SetMembership) error {
	draft, err := a.o.Writer.Do(ctx, nil, &room.InviteDraft{Invite: *invite})
	if err != nil || len(draft.Data) == 0 {
		return err
	}
	var q room.InviteRequest
	if err := json.Unmarshal(draft.Data, &q); err != nil {
		return fmt.Errorf("read invitation: %w", err)
	}
	rules, ok := roomver.Get(roomver.Version(q.Version))
	if !ok {
		return fmt.Errorf("room version %q is not known", q.Version)
	}
	ours, err := event.Parse(rules, q.Event)
	if err != nil {
		return fmt.Errorf("read invitation: %w", err)
	}
	signed, err := a.countersigned(ctx, invite, rules, ours, &q, draft.Data)
	if err != nil {
		return answer(err, "The user's server cannot be reached, or did not sign the invitation")
	}
	done, err := a.o.Writer.Do(ctx, nil, &room.Accept{Room: invite.Room, Events: [][]byte{signed.JSON()}})
	if err != nil {
		return err
	}
	var verdicts []room.Verdict
	if err := json.Unmarshal(done.Data, &verdicts); err != nil || len(verdicts) != 1 {
		return fmt.Errorf("read verdict: %w", err)
	}
	if f := verdicts[0].Fate; f != room.FateAccepted && f != room.FateKnown {
		return mxerr.New(mxerr.Forbidden, "The invitation is not allowed any more: "+verdicts[0].Reason)
	}
	return nil
}

// countersigned asks the invited user's server for its signature.
func (a *Abroad) countersigned(ctx context.Context, invite *room.SetMembership, rules *roomver.Rules, ours *event.Event, q *room.InviteRequest, body []byte) (*event.Event, error) {
	to := invite.Target.Server()
	ask := func(version string, body []byte) ([]byte, error) {
		return a.o.Remote.Ask(ctx, to, "PUT", fedPath(version, "invite", string(invite.Room), string(ours.EventID())), nil, body, smallLimit, makeWait, true)
	}
	raw, err := ask("v2", body)
	if err != nil && rules.EventIDs == roomver.EventIDGiven && older(err) { // the first version can only name events that bear their names
		unsigned := append(append([]byte(`{"invite_room_state":`), q.Stripped...), '}')
		if raw, err = ask("v1", ours.AppendFederation(nil, unsigned)); err == nil {
			raw, err = unpacked(raw)
		}
	}
	if err != nil {
		return nil, err
	}
	var t struct {
		Event json.RawMessage `json:"event"`
	}
	if err := json.Unmarshal(raw, &t); err != nil {
		return nil, fmt.Errorf("answer of %s: %w", to, err)
	}
	signed, err := event.Parse(rules, t.Event)
	if err != nil || signed.EventID() != ours.EventID() || signed.HashMismatch() || !signed.SignedBy(to) {
		return nil, fmt.Errorf("%s gave back another event, or did not sign it", to)
	}
	if err := inbound.Verify(ctx, a.o.Keys, []*event.Event{signed})[0]; err != nil {
		return nil, fmt.Errorf("%s changed the invitation: %w", to, err)
	}
	return signed, nil
}

// older tells whether a server refused as those do that do not know the second version of inviting: with 400 or 404, whatever the reason that it
// gives, if any.
func older(err error) bool {
	var refused interface{ StatusCode() int }
	return errors.As(err, &refused) && (refused.StatusCode() == 400 || refused.StatusCode() == 404)
}

// unpacked gives what the second version of inviting answers out of what the first does: a list of the status and that.
func unpacked(raw []byte) ([]byte, error) {
	var list [3]json.RawMessage // a third would be one too many; what is beyond it is not kept
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("answer to an invitation: %w", err)
	}
	if string(list[0]) != "200" || list[1] == nil || list[2] != nil {
		return nil, errors.New("answer to an invitation is not 200 and an object")
	}
	return list[1], nil
}

// Alias asks another server for the room of one of its aliases, and for servers that are in it.
func (a *Abroad) Alias(ctx context.Context, alias id.RoomAlias) (id.RoomID, []id.ServerName, error) {
	raw, err := a.o.Remote.Ask(ctx, alias.Server(), "GET", fedPath("v1", "query/directory"), map[string][]string{"room_alias": {string(alias)}}, nil, smallLimit, makeWait, true)
	if err != nil {
		return "", nil, err
	}
	var t struct {
		Room    string          `json:"room_id"`
		Servers []id.ServerName `json:"servers"`
	}
	if err := json.Unmarshal(raw, &t); err != nil {
		return "", nil, fmt.Errorf("answer of %s: %w", alias.Server(), err)
	}
	r, err := id.ParseRoomID(t.Room)
	if err != nil {
		return "", nil, fmt.Errorf("answer of %s: %w", alias.Server(), err)
	}
	return r, t.Servers[:min(len(t.Servers), 50)], nil
}

// Profile asks another server for a user's profile: a JSON object, or the value of a single field as an object.
func (a *Abroad) Profile(ctx context.Context, user id.UserID, field string) (map[string]json.RawMessage, error) {
	query := map[string][]string{"user_id": {string(user)}}
	if field != "" {
		query["field"] = []string{field}
	}
	raw, err := a.o.Remote.Ask(ctx, user.Server(), "GET", fedPath("v1", "query/profile"), query, nil, smallLimit, makeWait, true)
	if err != nil {
		return nil, err
	}
	out := map[string]json.RawMessage{}
	if err := json.Unmarshal(raw, &out); err != nil {
		return nil, fmt.Errorf("answer of %s: %w", user.Server(), err)
	}
	return out, nil
}

// Hosts gives the other servers that are in a room.
func (a *Abroad) Hosts(ctx context.Context, r id.RoomID) ([]string, error) {
	return a.o.Rooms.Hosts(ctx, r)
}
