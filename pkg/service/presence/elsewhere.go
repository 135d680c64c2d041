package presence

import (
	"encoding/json"
	"time"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
)

const (
	// maxPushed bounds the users of one EDU.
	maxPushed = 200
	// maxStatus bounds the length of what another server says of a user's status.
	maxStatus = 512
)

// Elsewhere reads an m.presence of another server: what it says of its own users. Of others it has nothing to say.
func Elsewhere(origin id.ServerName, content []byte, now time.Time) ([]*entry.PresenceState, error) {
	var c struct {
		Push []struct {
			User     string `json:"user_id"`
			Presence string `json:"presence"`
			Status   string `json:"status_msg"`
			Ago      int64  `json:"last_active_ago"`
		} `json:"push"`
	}
	if json.Unmarshal(content, &c) != nil {
		return nil, mxerr.New(mxerr.BadJSON, "The presence is not of the form that it has to have")
	}
	var out []*entry.PresenceState
	for _, p := range c.Push[:min(len(c.Push), maxPushed)] {
		u, err := id.ParseUserID(p.User)
		is, ok := Parse(p.Presence)
		if err != nil || !ok || u.Server() != origin || len(p.Status) > maxStatus {
			continue
		}
		ago := min(max(p.Ago, 0), keptFor.Milliseconds())
		out = append(out, &entry.PresenceState{
			UserId: p.User, Presence: toWire(is), StatusMsg: p.Status, LastActive: now.UnixMilli() - ago, At: now.UnixMilli(), WithRooms: true,
		})
	}
	return out, nil
}
