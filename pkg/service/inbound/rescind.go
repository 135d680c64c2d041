package inbound

import (
	"context"
	"errors"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/store/feddb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// Of a room that this server is not in one kind of event is taken: the leave or ban by which an invitation of its user is taken back. Nothing
// is known by which it could be authorised, so that it is believed of the inviting user alone, as the invitation was.

// Invitations knows of invitations to rooms that this server is not in. It is *resident.Rooms.
type Invitations interface {
	// Inviter tells who invited a user, and the rules of the room's version; nil if nobody did.
	Inviter(ctx context.Context, room id.RoomID, user id.UserID) (id.UserID, *roomver.Rules, error)
}

// rescinded gives the user of a server whose invitation an event may take back, by its form; "" if it cannot.
func rescinded(pdu []byte, server id.ServerName) id.UserID {
	if typ, _ := canonjson.GetString(pdu, "type"); typ != event.TypeMember { // nearly all that is staged: nothing more of it is looked at
		return ""
	}
	key, _ := canonjson.GetString(pdu, "state_key")
	sender, _ := canonjson.GetString(pdu, "sender")
	user := id.UserID(key)
	if user.Server() != server || id.UserID(sender).Server() == server {
		return ""
	}
	content, _ := canonjson.Get(pdu, "content")
	switch membership, _ := canonjson.GetString(content, "membership"); membership {
	case event.Leave, event.Ban:
		return user
	}
	return ""
}

// rescission gives the event by which the server of who invited a user takes that back, nil if it is none.
func (s *Stager) rescission(ctx context.Context, origin id.ServerName, r id.RoomID, pdu []byte) *event.Event {
	user := rescinded(pdu, s.o.Server)
	if user == "" {
		return nil
	}
	by, rules, err := s.o.Invitations.Inviter(ctx, r, user)
	if err != nil || rules == nil || by.Server() != origin {
		if err != nil {
			s.o.Log.Warn("an invitation could not be read", "room", string(r), "error", err)
		}
		return nil
	}
	e, err := event.Parse(rules, pdu)
	if err != nil || e.Sender() != by {
		return nil
	}
	return e
}

// rescind hands the events that may take back invitations to a room that this server is not in, and gives the other staged events.
func (w *shardWork) rescind(ctx context.Context, ref roomdb.RoomRef, staged []feddb.StagedPDU) ([]feddb.StagedPDU, error) {
	var others []feddb.StagedPDU
	asked := false
	for i := range staged {
		e := &staged[i]
		if rescinded(e.JSON, w.o.Server) == "" {
			others = append(others, *e)
			continue
		}
		if !asked {
			here, err := w.o.Rooms.LocalMembers(ctx, ref.Nid, roomdb.MembershipJoin, 1)
			if err != nil || len(here) > 0 {
				return staged, err // an event like others
			}
			asked = true
		}
		if err := w.outOfBand(ctx, e); err != nil {
			return nil, err
		}
	}
	return others, nil
}

// outOfBand has one event taken that may take back an invitation. If somebody has joined meanwhile it stays, as an event of the room.
func (w *shardWork) outOfBand(ctx context.Context, e *feddb.StagedPDU) error {
	_, err := w.o.Writer.Do(ctx, nil, &room.OutOfBand{Room: id.RoomID(e.RoomID), Event: e.JSON, Rescinds: true})
	var refused *mxerr.Error
	switch {
	case err == nil:
	case mxerr.Is(err, mxerr.BadState):
		w.lookAgain()
		return nil
	case errors.As(err, &refused) && !isUnavailable(err):
		w.o.Log.Info("an event was refused", "event", e.EventID, "room", e.RoomID, "error", err)
	default:
		w.postpone(ctx, w.shard, []feddb.StagedPDU{*e}, err)
		return nil
	}
	return w.o.DB.DropStaged(ctx, w.shard, []int64{e.Seq})
}
