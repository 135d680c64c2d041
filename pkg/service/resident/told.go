package resident

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/id"
)

// Told gives the servers whose users are named in what a user was told of a room that is not known here: with an invitation or on a knock.
// From room version 12 on a room's id names no server.
func (r *Rooms) Told(ctx context.Context, room id.RoomID, user id.UserID) ([]id.ServerName, error) {
	ref, ok, err := r.db.RoomByID(ctx, room)
	if err != nil || !ok {
		return nil, err
	}
	raw, err := r.db.Stripped(ctx, ref.Nid, string(user))
	if err != nil || len(raw) == 0 {
		return nil, err
	}
	var told []struct {
		Sender id.UserID `json:"sender"`
	}
	if err := json.Unmarshal(raw, &told); err != nil {
		return nil, fmt.Errorf("read what %s was told of %s: %w", user, room, err)
	}
	var out []id.ServerName
	for _, e := range told {
		if s := e.Sender.Server(); s.Valid() && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out, nil
}
