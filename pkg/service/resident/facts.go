package resident

import (
	"context"
	"fmt"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// ThirdParty finds the invitation with a token in a room that this server is in, and tells by which name it calls the person. It refuses
// servers that the room's ACL denies.
func (r *Rooms) ThirdParty(ctx context.Context, room id.RoomID, token string, origin id.ServerName) (string, error) {
	ref, err := r.Room(ctx, room, origin)
	if err != nil {
		return "", err
	}
	name := roomdb.StateName{Type: event.TypeThirdPartyInvite, StateKey: token}
	found, err := r.db.CurrentStateAt(ctx, ref.Nid, []roomdb.StateName{name})
	if err != nil {
		return "", err
	}
	at, ok := found[name]
	if !ok {
		return "", mxerr.New(mxerr.Forbidden, "The room has no such invitation")
	}
	e, err := event.ParseTrusted(ref.Rules, at.JSON, id.EventID(at.EventID))
	if err != nil {
		return "", fmt.Errorf("read event %s: %w", at.EventID, err)
	}
	if at.RedactedBy != 0 {
		e = e.Redact()
	}
	called, _ := canonjson.GetString(e.Content(), "display_name")
	return called, nil
}

// Extremities gives the forward extremities of a room, for a server that is in it.
func (r *Rooms) Extremities(ctx context.Context, room id.RoomID, origin id.ServerName) ([]string, error) {
	tip, err := r.tip(ctx, room, origin)
	if err != nil {
		return nil, err
	}
	nids := tip.Extremities
	if len(nids) == 0 {
		return []string{tip.EventID}, nil
	}
	rows, err := r.byNid(ctx, nids)
	if err != nil {
		return nil, err
	}
	out := make([]string, len(rows))
	for i := range rows {
		out[i] = rows[i].EventID
	}
	return out, nil
}

// complexityUnit is how many entries of state count as 1.
const complexityUnit = 500

// Complexity tells how much work a room is, by the size of its state, to a server that is in it.
func (r *Rooms) Complexity(ctx context.Context, room id.RoomID, origin id.ServerName) (float64, error) {
	tip, err := r.tip(ctx, room, origin)
	if err != nil {
		return 0, err
	}
	state, err := r.db.State(ctx, tip.StateAfter)
	return float64(state.Len()) / complexityUnit, err
}

func (r *Rooms) tip(ctx context.Context, room id.RoomID, origin id.ServerName) (roomdb.Tip, error) {
	ref, err := r.RoomWith(ctx, room, origin)
	if err != nil {
		return roomdb.Tip{}, err
	}
	tip, ok, err := r.db.Tip(ctx, ref.Nid.Shard(), string(room))
	if err == nil && !ok {
		err = notHere()
	}
	return tip, err
}
